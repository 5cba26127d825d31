"""Which process has a file, whether it lives, and how it is made to let go. All calls block."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import threading

import attrs

if sys.platform != "win32":
    import fcntl

__all__ = ["OwnerFile", "Sign"]

_guard = threading.Lock()
_held: dict[tuple[int, int], list[int]] = {}
"""Files that this process has, and descriptors to close with them: closing any would end the lock."""

_FLOCK = struct.Struct("@hhqqi0q")
"""What Linux tells of a lock: its kind, three numbers that say where, and the process that has it."""


@attrs.frozen
class Sign:
    """A sign of life."""

    pid: int
    """Of the process that gave it; for people to read."""
    after: float
    """Seconds without another one after which the process may be killed."""
    count: int
    """Grows with each."""


class OwnerFile:
    """The file beside an outbox that says which process has it.

    The lock on it is one of POSIX: the system frees it at the end of the process, however that comes, a child
    does not inherit it, and the system tells who has it. Where there are no such locks everybody gets it, and
    the lock of the outbox itself decides.

    Args:
        path: of the file; it stays when nobody has it.
        after: what `Sign.after` says.
    """

    def __init__(self, path: str, after: float) -> None:
        self.path = path
        self._after = after
        self._fd: int | None = None
        self._key = (0, 0)
        self._has_it = False
        self._is_over = False
        self._count = 0
        self.left: Sign | None = None
        """The last sign of whoever had it before, if that one has not let go in good order."""

    def take(self) -> bool:
        """Take it, if no other process and no other outbox of this one has it; say whether it was taken.

        Raises:
            OSError: the disk does not let it.
        """
        if sys.platform == "win32":
            return not self._is_over
        with _guard:
            if self._is_over or not self._open():
                return False
            assert self._fd is not None
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
            _held[self._key] = []
            self._has_it = True
        self.left = self.look()
        self.show()
        return True

    def look(self) -> Sign | None:
        """Return the last sign of life of whoever has it; None if there is none."""
        if self._fd is None:
            return None
        try:
            pid, after, count = os.pread(self._fd, 200, 0).split()
            return Sign(int(pid), float(after), int(count))
        except (ValueError, OSError):
            return None

    def show(self) -> None:
        """Give a sign of life, if this one has it.

        Raises:
            OSError: the disk does not let it.
        """
        if self._has_it and self._fd is not None:
            self._count += 1
            os.pwrite(self._fd, f"{os.getpid():>10} {self._after:>12.3f} {self._count:>20}\n".encode(), 0)

    def fence(self, last: Sign) -> bool:
        """Kill the process that has it.

        Args:
            last: its last sign of life; if there is another by now, nothing happens.

        Returns:
            False if nobody was killed, for it lives or has let go.

        Raises:
            OSError: it cannot be done; says why.
        """
        if sys.platform != "linux":
            raise OSError("only Linux says for sure which process it is")
        if self._fd is None or last.pid == os.getpid():
            raise OSError("it is this process")
        pid = self._holder()
        if pid < 0:
            raise OSError("it is on another machine or in another container")
        try:
            process = os.pidfd_open(pid) if pid == last.pid else -1
        except ProcessLookupError:
            process = -1
        if process < 0:
            return False  # it has ended, and perhaps another process has the file, which gives its first sign
        try:
            # Still the same: so it is this process that has the lock, and not one that got its number.
            if self._holder() != pid or self.look() != last:
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
        return True

    def release(self) -> None:
        """Let go for good; may be called twice."""
        with _guard:
            self._is_over = True
            if self._has_it and self._fd is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, 0)
            self._close()

    def _open(self) -> bool:
        """Open the file, again if it is another by now; False where this process has it already."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            key = None
        else:
            key = (found.st_dev, found.st_ino)
        if key is not None and key in _held:
            return False
        if self._fd is not None and key != self._key:
            self._close()
        if self._fd is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            self._fd = os.open(self.path, flags, 0o600)
            found = os.fstat(self._fd)
            self._key = (found.st_dev, found.st_ino)
        return self._key not in _held

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if not self._has_it and self._key in _held:
            _held[self._key].append(fd)
            return
        if self._has_it:
            self._has_it = False
            for each in _held.pop(self._key):
                os.close(each)
        os.close(fd)

    def _holder(self) -> int:
        """Return the process that has the lock, as the system says; 0 for none, -1 for one out of reach."""
        assert self._fd is not None
        if sys.platform == "win32":
            return 0
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else pid if pid > 0 else -1
