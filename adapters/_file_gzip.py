"""Compress finished files a slice at a time, and read compressed ones without falling for a bomb."""

from __future__ import annotations

import zlib
from collections.abc import Generator

from nexus.adapters._file_disk import Disk, DiskFile
from nexus.adapters._file_names import OPEN

__all__ = ["Gunzip", "GzipBomb", "compress"]

SLICE = 256 * 1024
"""Bytes compressed at a time: some milliseconds."""

FREE = 1024 * 1024
"""Bytes that may come out of a compressed file before the ratio counts."""

GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls the gzip format."""


class GzipBomb(OSError):
    """A compressed file swells more than is allowed."""


def compress(disk: Disk, name: str, *, fsync: bool) -> Generator[None]:
    """Put ``name.gz`` in the place of a file, a slice at each step.

    Stopped or failed on the way, it leaves the file as it was.

    Raises:
        OSError: from a step; there is no room for it, say.
    """
    final = f"{name}.gz"
    part = final + OPEN
    done = False
    source = disk.open(name)
    try:
        target = disk.open(part, create=True)
        try:
            target.truncate(0)
            packer = zlib.compressobj(6, zlib.DEFLATED, GZIP)
            offset = 0
            while data := source.read(offset, SLICE):
                offset += len(data)
                _append(target, packer.compress(data))
                yield
            _append(target, packer.flush())
            if fsync:
                target.fsync()
        finally:
            target.close()
        disk.rename(part, final)
        done = True
        if fsync:
            disk.fsync_dir()
        disk.remove(name)
    finally:
        source.close()
        if not done and part in disk.list():
            disk.remove(part)


def _append(file: DiskFile, data: bytes) -> None:
    while data:
        data = data[file.append(data) :]


class Gunzip:
    """Decompresses a stream of gzip members piece by piece.

    Args:
        max_ratio: bytes that may come out for each that goes in, on the average.
    """

    def __init__(self, max_ratio: float) -> None:
        self.max_ratio = max_ratio
        self.taken = 0
        """Bytes that went in."""
        self.given = 0
        """Bytes that came out."""
        self._member = zlib.decompressobj(GZIP)
        self._rest = b""
        self._began = False

    @property
    def needs_data(self) -> bool:
        """Whether the next `read` gives nothing unless it is fed."""
        return not self._rest

    def feed(self, data: bytes) -> None:
        """Take compressed bytes."""
        self._rest += data
        self.taken += len(data)

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; none if more must be fed.

        Raises:
            GzipBomb: they are too many for what was fed.
            OSError: it is not the gzip format.
        """
        try:
            data = self._member.decompress(self._rest, size)
        except zlib.error as exc:
            raise OSError(f"is damaged: {exc}") from exc
        self._began = self._began or bool(self._rest)
        self._rest = self._member.unconsumed_tail
        if self._member.eof:
            # Another member may follow, after zeros that fill a block.
            self._rest = self._member.unused_data.lstrip(b"\0")
            self._member = zlib.decompressobj(GZIP)
            self._began = False
        self.given += len(data)
        if self.given > FREE and self.given > self.max_ratio * self.taken:
            raise GzipBomb(
                f"{self.taken} bytes gave {self.given} and more; {self.max_ratio:g} for one are allowed"
            )
        return data

    @property
    def is_cut(self) -> bool:
        """Whether the end of the last member is missing."""
        return self._began
