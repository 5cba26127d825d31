"""Read a file once, from its begin to its end, compressed or not. Blocks; it lives in a thread."""

from __future__ import annotations

import os
import stat
from collections import deque

from nexus.adapters._file_disk import open_regular
from nexus.adapters._file_gzip import Gunzip
from nexus.adapters._file_lines import LineCutter
from nexus.adapters._file_tail import Found

__all__ = ["Replay"]

CHUNK = 64 * 1024
"""Bytes read, or decompressed, at a time."""

MAGIC = b"\x1f\x8b"
"""How a file begins that was compressed by gzip."""


class Replay:
    """Reads all lines of one file; a file that ``gzip`` has made is known by its first bytes.

    Args:
        path: what to read.
        terminator, max_size, quoted: of the lines.
        follow: whether the path may be a symbolic link.
        special: whether it may be a pipe or a device.
        max_ratio: bytes that a compressed file may give for each that it has.
        begin: lines before this offset are left out.

    Raises:
        OSError: the file cannot be opened, or is no regular one.
    """

    def __init__(
        self,
        path: str,
        *,
        terminator: bytes,
        max_size: int,
        quoted: bool = False,
        follow: bool = False,
        special: bool = False,
        max_ratio: float = 100.0,
        begin: int = 0,
    ) -> None:
        self.path = path
        self.found: deque[Found] = (
            deque()
        )  # bounded by the lines of one chunk: they are taken before the next
        """Lines that were read and not yet taken."""
        self.too_long = 0
        """Lines that were skipped."""
        self.is_at_end = False
        """Whether everything was read."""
        self._fd = open_regular(path, os.O_RDONLY, follow=follow, special=special)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.set_blocking(self._fd, True)
        self._file = (status.st_dev, status.st_ino)
        self._cutter = LineCutter(terminator, max_size, quoted=quoted)
        self._max_ratio = max_ratio
        self._begin = begin
        self._gunzip: Gunzip | None = None
        self._is_first = True

    def step(self) -> bool:
        """Read a chunk into `found`; say whether there may be more.

        Raises:
            OSError: it cannot be read any further.
        """
        if self.is_at_end:
            return False
        data, is_at_end = self._next()
        lines = self._cutter.finish() if is_at_end else self._cutter.feed(data)
        self.found.extend(Found(line, self._file, b"") for line in lines if line.offset >= self._begin)
        self.too_long += self._cutter.too_long
        self._cutter.too_long = 0
        self.is_at_end = is_at_end
        return not is_at_end

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _next(self) -> tuple[bytes, bool]:
        """Give the next bytes, and say whether it was the end instead."""
        if self._gunzip is None or self._gunzip.needs_data:
            data = os.read(self._fd, CHUNK)
            if self._is_first:
                self._is_first = False
                if data.startswith(MAGIC):
                    self._gunzip = Gunzip(self._max_ratio)
            if self._gunzip is None or not data:
                if self._gunzip is not None and self._gunzip.is_cut:
                    raise EOFError(f"{self.path} was cut: the end of what was compressed is missing")
                return data, not data
            self._gunzip.feed(data)
        return self._gunzip.read(CHUNK), False
