"""Write recordings: whole records or none, whatever the disk does. Blocks; it lives in a thread."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nexus._disk import DiskFile
from nexus.adapters._file_disk import Folder, FolderFile, open_regular
from nexus.boundaries._recording import (
    HEADER,
    MAGIC,
    Recorded,
    Recording,
    RecordingError,
    pack_record,
    preamble,
)
from nexus.errors import OpenError

__all__ = ["Mode", "RecordingWriter", "open_file", "open_recording"]

Mode = Literal["new", "append", "force"]
"""What becomes of a file that is there: an error, it is continued, or it is emptied."""


class RecordingWriter:
    """Appends records to a file.

    Made for an empty file it writes the header; for a recording it goes on after the last whole record, and
    cuts off what a crash has left behind that.

    Args:
        file: it is closed by `close`.
        about: what the header of a new file says.

    Attributes:
        recovered: bytes that were cut off.
        written: records this writer has written.
        size: bytes of the file.
        continued: `time` and `offset` of the last record that was there; None if there was none.

    Raises:
        RecordingError: the file is no recording.
        OSError: it cannot be read or written.
    """

    def __init__(self, file: DiskFile, about: Mapping[str, Any]) -> None:
        self._file = file
        self._index = 0
        self._is_broken = False
        self.recovered = self.written = 0
        self.continued: tuple[int, int] | None = None
        self.size = file.size()
        self._marker = b""
        if self.size:
            self._continue()
        if not self._marker:
            self._marker = os.urandom(8)
            self._append(preamble(self._marker, about))

    def write(self, items: Sequence[Recorded]) -> int:
        """Write records in their order; return how many, which is all of them.

        Raises:
            OSError: some could not be written: `written` says how many were, and what is written is whole.
            RecordingError: one is too large; those before it are written.
        """
        frames: list[bytes] = []
        wrong: RecordingError | None = None
        for item in items:
            try:
                frames.append(pack_record(self._marker, self._index + len(frames), item))
            except RecordingError as exc:
                wrong = exc
                break
        whole = self.size
        try:
            self._append(b"".join(frames))
        except OSError:
            done = self.size
            for frame in frames:
                if whole + len(frame) > done:
                    break
                whole += len(frame)
                self._note(1)
            self._cut(whole)
            raise
        self._note(len(frames))
        if wrong is not None:
            raise wrong
        return len(frames)

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: it may never be.
        """
        self._file.fsync()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def _note(self, count: int) -> None:
        self._index += count
        self.written += count

    def _continue(self) -> None:
        """Find the end of what is there, and cut off what is behind it."""
        if self.size < HEADER and MAGIC.startswith(self._file.read(0, len(MAGIC))):
            self._forget()
            return
        found = Recording(self._file)
        for _ in found:
            pass
        if found.last is None and found.header.end > self.size:
            self._forget()
            return
        self._marker = found.header.marker
        self.recovered = found.cut
        if found.last is not None:
            index, item = found.last
            self._index = index + 1
            self.continued = item.time, item.offset
        if found.cut:
            self._file.truncate(found.whole)
        self.size = found.whole

    def _forget(self) -> None:
        """Begin anew: whoever made the file died before its header was written."""
        self._file.truncate(0)
        self.recovered, self.size = self.size, 0

    def _append(self, data: bytes) -> None:
        if self._is_broken:
            raise OSError(errno.EIO, "an incomplete record could not be taken back")
        rest = memoryview(data)
        while rest:
            taken = self._file.append(bytes(rest))
            if taken <= 0:
                raise OSError(errno.EIO, "the disk takes nothing")
            self.size += taken
            rest = rest[taken:]

    def _cut(self, whole: int) -> None:
        """Take back what is no whole record."""
        if self.size == whole:
            return
        try:
            self._file.truncate(whole)
            self.size = whole
        except OSError:
            # It stays as a crash would leave it: readers skip it, and nothing is written behind it.
            self._is_broken = True


def open_recording(path: str, mode: Mode, about: Mapping[str, Any]) -> RecordingWriter:
    """Open a file to record to, readable by its owner alone, and by one process at a time.

    Raises:
        OpenError: it is there already, it cannot be opened, or it is no recording; says which.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (os.O_EXCL if mode == "new" else 0)
    is_new = not os.path.lexists(path)
    try:
        fd = open_regular(path, flags, lock=True)
    except FileExistsError as exc:
        hint = "it is there already; continue it with --append, or overwrite it with --force"
        raise OpenError(errno.EEXIST, hint, path) from exc
    except OSError as exc:
        raise OpenError(exc.errno, f"cannot record to it: {exc.strerror}", path) from exc
    file = FolderFile(fd)
    try:
        if mode == "force":
            os.chmod(path, 0o600)
            file.truncate(0)
        writer = RecordingWriter(file, about)
        if is_new:
            _sync_name(path)
        return writer
    except BaseException as exc:
        file.close()
        if is_new:
            os.unlink(path)
        if isinstance(exc, RecordingError):
            raise OpenError(errno.EINVAL, f"cannot continue it: {exc}", path) from exc
        if isinstance(exc, OSError):
            raise OpenError(exc.errno, f"cannot record to it: {exc.strerror}", path) from exc
        raise


def _sync_name(path: str) -> None:
    """Make the name of a new file durable."""
    folder = Folder(os.path.dirname(path) or ".")
    try:
        folder.fsync_dir()
    finally:
        folder.close()


def open_file(path: str) -> FolderFile:
    """Open a file to read.

    Raises:
        OpenError: it cannot be opened.
    """
    try:
        return FolderFile(open_regular(path, os.O_RDONLY, follow=True))
    except OSError as exc:
        raise OpenError(exc.errno, f"cannot be read: {exc.strerror}", path) from exc
