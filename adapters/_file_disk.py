"""A folder of files as the file sender uses it, so that a failing disk can stand in for it."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from typing import Protocol

if sys.platform != "win32":
    import fcntl

__all__ = ["Disk", "DiskFile", "Folder", "InUse", "open_regular"]

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
FLAGS = NOFOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


class InUse(OSError):
    """Another sender writes this file."""


class DiskFile(Protocol):
    """An open file: bytes, appended at its end. All calls block; run them in a thread."""

    def append(self, data: bytes) -> int: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def size(self) -> int: ...
    def truncate(self, size: int) -> None: ...
    def fsync(self) -> None: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """One directory of files with plain names. All calls block."""

    def open(self, name: str, *, create: bool = False) -> DiskFile: ...
    def list(self) -> Sequence[str]: ...
    def rename(self, old: str, new: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def fsync_dir(self) -> None: ...


class Folder:
    """A directory of the file system, held open: renaming it or a link on the way to it changes nothing.

    Files are readable by their owner alone; links, devices and pipes in the place of a file are refused.

    Args:
        path: made with mode 0700 if it is missing.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self.reopen()

    def open(self, name: str, *, create: bool = False) -> FolderFile:
        """Open a file for this sender alone.

        Raises:
            InUse: another one has it open.
            OSError: it cannot be opened, or is no regular file.
        """
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
        try:
            return FolderFile(open_regular(self._at(name), flags, dir_fd=self._fd, lock=True))
        except FileNotFoundError:
            if not create:
                raise
        # The directory was removed: another one takes its place.
        self.close()
        self.reopen()
        return FolderFile(open_regular(self._at(name), flags, dir_fd=self._fd, lock=True))

    def reopen(self) -> None:
        """Open the directory, and make it if it is missing.

        Raises:
            OSError: it cannot be made or opened.
        """
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        if os.open in os.supports_dir_fd:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        elif not os.path.isdir(self._path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path)

    def list(self) -> Sequence[str]:
        return sorted(os.listdir(self._path if self._fd is None else self._fd))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        os.remove(self._at(name), dir_fd=self._fd)

    def fsync_dir(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)

    def is_at(self, name: str, file: DiskFile) -> bool:
        """Say whether the name still leads to the file."""
        if not isinstance(file, FolderFile):
            return True
        try:
            found = os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(file.fd))

    def close(self) -> None:
        """Let go of the directory; may be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _at(self, name: str) -> str:
        if not name or name in (".", "..") or any(char in name for char in "/\\\0"):
            raise ValueError(f"a file's name is plain, without a path, not {name!r}")
        return name if self._fd is not None else os.path.join(self._path, name)


class FolderFile:
    """An open file of a `Folder`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def append(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def read(self, offset: int, size: int) -> bytes:
        os.lseek(self.fd, offset, os.SEEK_SET)
        return os.read(self.fd, size)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def fsync(self) -> None:
        os.fsync(self.fd)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_regular(
    path: str,
    flags: int,
    *,
    dir_fd: int | None = None,
    lock: bool = False,
    follow: bool = False,
    special: bool = False,
) -> int:
    """Open a regular file, mode 0600 if it is made, and return its descriptor.

    Args:
        path: what to open; below `dir_fd`, if that is given.
        flags: for `os.open`.
        dir_fd: of a directory.
        lock: for one process at a time.
        follow: whether the last part of the path may be a symbolic link.
        special: whether pipes and devices will do too.

    Raises:
        InUse: another one has locked it.
        OSError: it cannot be opened, or is something else.
    """
    extra = FLAGS & ~NOFOLLOW if follow else FLAGS
    try:
        fd = os.open(path, flags | extra, 0o600, dir_fd=dir_fd)
    except OSError as exc:
        if exc.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", path) from None
        raise
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not (special or stat.S_ISREG(mode)):
            raise OSError(errno.EINVAL, "is no regular file", path)
        if lock:
            _lock(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: str) -> None:
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(errno.EBUSY, "is written by another sender", path) from None
        except OSError:
            pass  # a disk without locks does without
