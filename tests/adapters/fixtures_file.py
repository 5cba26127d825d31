"""A file sender and receiver on one file, for the contract, and disks that fail."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from typing import Any, Self

from nexus.adapters._file_disk import NOFOLLOW, Folder, FolderFile
from nexus.adapters.file import FileConfig, FileReceiver, FileSender


class FailingFolder(Folder):
    """A real folder whose disk is full, or fails, while it is told so."""

    def __init__(self, path: str) -> None:
        self.error: int | None = None
        """Raised by every append while it is set."""
        self.refused = 0
        """Appends that failed."""
        super().__init__(path)

    def open(self, name: str, *, create: bool = False) -> FolderFile:
        file = FailingFile(super().open(name, create=create).fd)
        file.folder = self
        return file


class FailingFile(FolderFile):
    """A file of a `FailingFolder`."""

    folder: FailingFolder

    def append(self, data: bytes) -> int:
        if self.folder.error is not None:
            self.folder.refused += 1
            raise OSError(self.folder.error, os.strerror(self.folder.error))
        return super().append(data)


class FilePair:
    """Two halves on a file of their own; the link breaks when the disk is full."""

    name = "file"
    lossy = False
    can_break = True

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._folder.name, "run.jsonl")
        self.disk = FailingFolder(self._folder.name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.disk.close()
        self._folder.cleanup()

    def sender(self, *, packer: Any = None, **options: Any) -> FileSender[Any]:
        config = FileConfig(**{"path": self.path, "retry_cap": 0.02, "fsync": "never", **options})
        return FileSender(config, packer, disk=self.disk)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> FileReceiver[Any]:
        config = FileConfig(**{"path": self.path, "poll": 0.002, "retry_cap": 0.02, **options})
        return FileReceiver(config, unpacker)

    async def ready(self, sender: FileSender[Any], receiver: FileReceiver[Any]) -> None:
        await receiver.start()
        await sender.connected(5)
        await receiver.connected(5)

    async def break_link(self) -> None:
        """Fill the disk."""
        self.disk.refused = 0
        self.disk.error = errno.ENOSPC

    async def mend_link(self) -> None:
        """Make room again, once somebody has missed it."""
        async with asyncio.timeout(5):
            while not self.disk.refused:  # noqa: ASYNC110 - a thread writes
                await asyncio.sleep(0.001)
        self.disk.error = None

    async def raw(self, payload: bytes) -> None:
        """Append a line as it is."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | NOFOLLOW)
        try:
            os.write(fd, payload + b"\n")
        finally:
            os.close(fd)
