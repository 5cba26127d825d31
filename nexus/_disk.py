"""Files as the project sees them, so that a disk can be simulated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["Disk", "DiskFile", "RealDisk"]


class DiskFile(Protocol):
    """An open file: bytes, appended at its end. All calls block; run them in a thread."""

    def append(self, data: bytes) -> int:
        """Write at the end and return how many bytes were taken, which may be fewer than given.

        Raises:
            OSError: nothing was written; ENOSPC when there is no room.
        """
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def size(self) -> int:
        """Return the length in bytes, unsynced ones included."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, no more than it has; durable after `fsync`."""
        ...

    def fsync(self) -> None:
        """Make what was written durable. The file's name is another matter: `Disk.fsync_dir`.

        Raises:
            OSError: what was not durable before may never be, even if a later call succeeds:
                stop using the file.
        """
        ...

    def close(self) -> None:
        """Close it, without making anything durable; may be called twice."""
        ...


class Disk(Protocol):
    """One directory of files. Names are plain: no path, no leading dots. All calls block."""

    def open(self, name: str, *, create: bool = False) -> DiskFile:
        """Open a file for reading and appending; with `create`, make it if it is missing.

        Raises:
            FileNotFoundError: there is none, and `create` is False.
            ValueError: the name is not plain.
        """
        ...

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        ...

    def list(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing one of the new name; durable after `fsync_dir`."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; durable after `fsync_dir`."""
        ...

    def fsync_dir(self) -> None:
        """Make created, renamed and removed names durable."""
        ...


def plain_name(name: str) -> str:
    """Return the name if it is plain.

    Raises:
        ValueError: it is empty, begins with a dot, or holds a separator or NUL.
    """
    if not name or name.startswith(".") or any(char in name for char in "/\\:\0"):
        raise ValueError(f"a file's name is plain, without a path or a leading dot, not {name!r}")
    return name


class RealDisk:
    """A directory of the file system; it must exist. Files are made readable by their owner alone."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)
        if not self._root.is_dir():
            raise NotADirectoryError(f"{self._root} is not a directory; make it first")

    def open(self, name: str, *, create: bool = False) -> DiskFile:
        # A link put in place of a file is not followed out of the directory.
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return _RealFile(os.open(self._path(name), flags | (os.O_CREAT if create else 0), 0o600))

    def size(self, name: str) -> int:
        return self._path(name).lstat().st_size

    def list(self) -> Sequence[str]:
        return sorted(each.name for each in os.scandir(self._root) if each.is_file(follow_symlinks=False))

    def rename(self, old: str, new: str) -> None:
        os.replace(self._path(old), self._path(new))

    def remove(self, name: str) -> None:
        os.remove(self._path(name))

    def fsync_dir(self) -> None:
        if os.name == "nt":
            return  # Windows cannot open a directory, and writes names through
        fd = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, name: str) -> Path:
        return self._root / plain_name(name)


class _RealFile:
    """An open file of the file system."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def append(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def read(self, offset: int, size: int) -> bytes:
        os.lseek(self._fd, offset, os.SEEK_SET)
        return _read(self._fd, size)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        if not 0 <= size <= self.size():
            raise ValueError(f"a file of {self.size()} bytes cannot be cut to {size!r}")
        os.ftruncate(self._fd, size)

    def fsync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _read(fd: int, size: int) -> bytes:
    # One call may return less than there is.
    parts: list[bytes] = []
    while size > 0 and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
