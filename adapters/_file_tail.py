"""Follow a file through rotation, truncation and replacement. Blocks; it lives in a thread."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time
from collections import deque
from typing import Any

import attrs

from nexus.adapters._file_disk import open_regular
from nexus.adapters._file_lines import Line, LineCutter

__all__ = ["Found", "Place", "Tail", "line_meta"]

logger = logging.getLogger(__name__)

CHUNK = 256 * 1024
"""Bytes read at a time."""

WINDOW = 64
"""Bytes before the place of reading, and at the begin of the file, that tell it from another."""

GAP = 1.0
"""Seconds after which a number that is missing between rotated files is not waited for any longer."""


@attrs.frozen
class Place:
    """How far a file was read, so that reading can go on there in another process."""

    device: int
    inode: int
    offset: int
    number: int | None
    """Of the line there, from 1."""
    head: bytes
    """How the file begins."""
    before: bytes
    """What stands before the place."""


@attrs.frozen
class Found:
    """One line, and which file it is of."""

    line: Line
    file: tuple[int, int]
    """Device and inode."""
    head: bytes


class Tail:
    """Reads the file of a name, and the file that takes its place when all of it was read.

    A file that was renamed or removed is read to its end before the next one is begun; its descriptor is held
    until then. Where a file was cut and written anew, the copy that was made of it (``NAME.1`` and the like)
    is read to its end first, if it can be found.

    Args:
        path: what to read.
        terminator, max_size, quoted: of the lines.
        from_end: whether to begin at the end of the file if it is there at the first look.
        follow: whether the path may be a symbolic link.
        special: whether it may be a pipe or a device.
        place: where to go on; it wins over `from_end`.
    """

    def __init__(
        self,
        path: str,
        *,
        terminator: bytes,
        max_size: int,
        quoted: bool = False,
        from_end: bool = False,
        follow: bool = False,
        special: bool = False,
        place: Place | None = None,
    ) -> None:
        self.path = path
        self.found: deque[Found] = (
            deque()
        )  # bounded by the lines of one chunk: they are taken before the next
        """Lines that were read and not yet taken."""
        self.too_long = 0
        """Lines that were skipped."""
        self.is_there = False
        """Whether there was a file under the name at the last look."""
        self._terminator = terminator
        self._max_size = max_size
        self._quoted = quoted
        self._from_end = from_end
        self._follow = follow
        self._special = special
        self._place = place
        self._fd = -1
        self._file = (0, 0)
        self._is_stream = False
        self._offset = 0
        self._head = b""
        self._before = b""
        self._cutter = self._cut_from(0, 1)
        self._unfinished: LineCutter | None = None
        self._gap: float | None = None  # until when a number is waited for

    def step(self) -> bool:
        """Read a chunk into `found`; say whether there may be more at once.

        Raises:
            OSError: the file is not there, or cannot be read; the next call tries again.
        """
        if self._fd < 0:
            self._begin()
        if self._read():
            return True
        return not self._is_stream and self._look()

    def close(self) -> None:
        """Let go of the file and remember the place; the next `step` goes on there."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if not self._is_stream:
                self._place = Place(*self._file, self._offset, None, self._head, self._before)
                self._unfinished = self._cutter
            os.close(fd)

    def _begin(self) -> None:
        """Open the first file, at the right place."""
        place, self._place = self._place, None
        try:
            if place is not None and self._resume(place):
                if self._unfinished is not None:
                    self._cutter, self._unfinished = self._unfinished, None
                return
            fd = self._open(self.path)
        except OSError:
            self._place = place
            self._from_end = self._from_end and os.path.lexists(self.path)
            self.is_there = False
            raise
        if self._unfinished is not None:
            self._take(self._unfinished.finish())
            self._unfinished = None
        self._adopt(fd)
        if self._from_end and place is None and not self._is_stream:
            size = os.fstat(fd).st_size
            self._head = os.pread(fd, min(WINDOW, size), 0)
            begin = max(0, size - max(WINDOW, len(self._terminator)))
            self._before = os.pread(fd, size - begin, begin)
            self._offset = size
            within = bool(size) and not self._before.endswith(self._terminator)
            self._cutter = self._cut_from(size, None if size else 1, skip=within)
        self._from_end = False

    def _resume(self, place: Place) -> bool:
        """Go on at a place, wherever the file is now."""
        for path in (self.path, *self._siblings()):
            with contextlib.suppress(OSError):
                status = os.stat(path, follow_symlinks=self._follow)
                if (status.st_dev, status.st_ino) == (place.device, place.inode):
                    fd = self._open(path)
                    if self._is_like(fd, place):
                        self._adopt(fd, place)
                        return True
                    os.close(fd)
        if (copy := self._find_copy(place)) is not None:
            self._adopt(copy, place)
            return True
        logger.warning("%s: the file that was read before is gone; reading the one that is there", self.path)
        return False

    def _open(self, path: str) -> int:
        return open_regular(path, os.O_RDONLY, follow=self._follow, special=self._special)

    def _adopt(self, fd: int, place: Place | None = None) -> None:
        """Read this file from now on, at its begin or at a place in it."""
        if self._fd >= 0:
            os.close(self._fd)
        status = os.fstat(fd)
        self._fd = fd
        self._file = (status.st_dev, status.st_ino)
        self._is_stream = not stat.S_ISREG(status.st_mode)
        self._offset = 0 if place is None else place.offset
        self._head = b"" if place is None else place.head
        self._before = b"" if place is None else place.before
        self._cutter = self._cut_from(self._offset, 1 if place is None else place.number)
        self.is_there = True

    def _cut_from(self, offset: int, number: int | None, *, skip: bool = False) -> LineCutter:
        return LineCutter(
            self._terminator, self._max_size, quoted=self._quoted, offset=offset, number=number, skip=skip
        )

    def _read(self) -> bool:
        """Read a chunk; say whether there was anything."""
        if self._is_stream:
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                data = b""
        else:
            # What stood before is read with it: if it is not the same, the file was written anew.
            before = self._before
            chunk = os.pread(self._fd, len(before) + CHUNK, self._offset - len(before))
            if not chunk.startswith(before):
                return self._start_over()
            data = chunk[len(before) :]
        self._add(data)
        return bool(data)

    def _add(self, data: bytes) -> None:
        """Take what was read from the place of reading on."""
        if not data:
            return
        self._before = (self._before + data[-WINDOW:])[-WINDOW:]
        if len(self._head) < WINDOW and self._offset == len(self._head):
            self._head += data[: WINDOW - len(self._head)]
        self._offset += len(data)
        self._take(self._cutter.feed(data))

    def _take(self, lines: list[Line]) -> None:
        self.found.extend(Found(line, self._file, self._head) for line in lines)
        self.too_long += self._cutter.too_long
        self._cutter.too_long = 0

    def _start_over(self) -> bool:
        """Go on in the copy of a file that was cut, or at its begin."""
        lost = Place(*self._file, self._offset, None, self._head, self._before)
        copy = self._find_copy(lost)
        if copy is not None:
            cutter = self._cutter
            self._adopt(copy, lost)
            self._cutter = cutter
            return True
        logger.warning(
            "%s was cut and written anew; what was added before is lost if it was not read", self.path
        )
        self._take(self._cutter.finish())
        self._offset, self._head, self._before = 0, b"", b""
        self._cutter = self._cut_from(0, 1)
        return True

    def _look(self) -> bool:
        """See whether another file has the name now; go on to it when this one is finished."""
        try:
            status = os.stat(self.path, follow_symlinks=self._follow)
        except FileNotFoundError:
            self.is_there = False
            return False
        self.is_there = True
        if (status.st_dev, status.st_ino) == self._file:
            return False
        following = self._following()
        if following is None:
            return False
        if following == self.path and stat.S_ISREG(status.st_mode) and not status.st_size:
            return False  # as long as the new one is empty, the writer may still have the old one
        try:
            fd = self._open(following)
        except FileNotFoundError:
            return True
        try:
            first = b"" if stat.S_ISFIFO(os.fstat(fd).st_mode) else os.pread(fd, CHUNK, 0)
        except OSError:
            os.close(fd)
            raise
        # A file that was renamed, or copied and cut, meanwhile is not the one it was taken for.
        if self._following() != following or self._read():
            os.close(fd)
            return True
        self._take(self._cutter.finish())
        self._adopt(fd)
        self._add(first)
        return True

    def _following(self) -> str | None:
        """Say where the file is that was begun after this one; None if it is just being renamed."""
        siblings = self._siblings()
        mine = next((path for path in siblings if _identity(path) == self._file), None)
        if mine is None:
            return self.path
        if mine.startswith(f"{self.path}.") and (end := mine[len(self.path) + 1 :]).isdigit():
            # NAME.1 is younger than NAME.2
            number = int(end) - 1
            while number and not os.path.lexists(f"{self.path}.{number}"):
                if self._gap is None:
                    self._gap = time.monotonic() + GAP
                if time.monotonic() < self._gap:
                    return None
                number -= 1
            self._gap = None
            return f"{self.path}.{number}" if number else self.path
        shape = _shape(mine)
        later = [path for path in siblings if _shape(path) == shape and _numbers(path) > _numbers(mine)]
        return min(later, key=_numbers, default=self.path)

    def _siblings(self) -> list[str]:
        """List what rotation may have made of it: ``run.jsonl.1``, ``run.jsonl-2026``, ``run_2026.jsonl``."""
        folder, name = os.path.split(os.path.realpath(self.path) if self._follow else self.path)
        stem, suffix = os.path.splitext(name)
        with contextlib.suppress(OSError):
            return [
                os.path.join(folder, each)
                for each in sorted(os.listdir(folder or "."))
                if each != name
                and (
                    each.startswith((f"{name}.", f"{name}-"))
                    or (each.startswith(stem) and each.endswith(suffix))
                )
            ]
        return []

    def _find_copy(self, place: Place) -> int | None:
        """Open the copy that was made of a file before it was cut, if there is one."""
        if not place.before:
            return None
        copies: list[tuple[int, int]] = []
        seen: list[str] = []
        while not copies and (siblings := self._siblings()) != seen:
            seen = siblings  # they may be renamed while we look
            copies = self._copies(siblings, place)
        copies.sort()
        for _, fd in copies[:-1]:
            os.close(fd)
        return copies[-1][1] if copies else None

    def _copies(self, paths: list[str], place: Place) -> list[tuple[int, int]]:
        """Open those files that are copies; give the time of their last change with each."""
        copies: list[tuple[int, int]] = []
        for path in paths:
            with contextlib.suppress(OSError):
                fd = self._open(path)
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) != self._file and self._is_like(fd, place):
                    copies.append((status.st_mtime_ns, fd))
                else:
                    os.close(fd)
        return copies

    @staticmethod
    def _is_like(fd: int, place: Place) -> bool:
        """Say whether an open file is the one, or a copy of the one, in which the place is."""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        length = len(place.before)
        return (
            os.pread(fd, len(place.head), 0) == place.head
            and os.pread(fd, length, place.offset - length) == place.before
        )


def line_meta(path: str, line: Line) -> dict[str, Any]:
    """Say where a line is from, as the receiver's meta."""
    meta: dict[str, Any] = {"path": path, "offset": line.offset, "line": line.number, "end": line.end}
    if not line.is_terminated:
        meta["unterminated"] = True
    return meta


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _shape(path: str) -> str:
    return re.sub(r"\d+", "#", os.path.basename(path))


def _numbers(path: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.path.basename(path))))
