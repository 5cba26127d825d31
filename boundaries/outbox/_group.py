"""Rows that were committed together, as one blob: their sizes, their checksums, the rows.

One blob for many rows keeps the writing thread out of the event loop's way: SQLite gives up the interpreter
and takes it again at every statement. Each row's CRC-32 begins with a seed of its lane and number, so that a
row is never taken for another. A blob is n, n sizes and n checksums, each a little-endian integer of 4 bytes,
and then the rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from zlib import crc32

__all__ = ["MOST_BYTES", "MOST_ROWS", "checksum", "chunks", "intact", "join", "seed", "split"]

MOST_ROWS = 256
"""Rows in one blob."""
MOST_BYTES = 2**16
"""Bytes of rows in one blob that has more than one row."""


def seed(epoch: int, stream: str, priority: int) -> int:
    """Return what the checksums of a lane begin with; a row's number is added to it."""
    return crc32(f"{epoch}\0{stream}\0{priority}".encode(errors="replace"))


def checksum(*values: object) -> int:
    """Return the CRC-32 of some numbers and strings."""
    return crc32(repr(values).encode(errors="replace"))


def chunks(rows: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a run of rows into pieces of the size of a group."""
    begin = size = 0
    for index, row in enumerate(rows):
        if index > begin and (index - begin >= MOST_ROWS or size + len(row) > MOST_BYTES):
            yield rows[begin:index]
            begin, size = index, 0
        size += len(row)
    if begin < len(rows):
        yield rows[begin:]


def join(start: int, rows: Sequence[bytes]) -> bytes:
    """Make a blob of rows.

    Args:
        start: the seed of the lane plus the number of the first row.
        rows: at least one.
    """
    count = len(rows)
    sums = map(crc32, rows, range(start, start + count))
    return b"".join((struct.pack(f"<I{2 * count}I", count, *map(len, rows), *sums), *rows))


def split(start: int, blob: bytes) -> list[bytes] | None:
    """Take a blob apart; None if anything in it is not as it was made."""
    if len(blob) < 4:
        return None
    (count,) = struct.unpack_from("<I", blob)
    head = 4 + 8 * count
    if not 0 < count <= MOST_ROWS or head > len(blob):
        return None
    table = struct.unpack_from(f"<{2 * count}I", blob, 4)
    ends = list(accumulate(table[:count], initial=head))
    if ends[-1] != len(blob):
        return None
    rows = [blob[begin:end] for begin, end in pairwise(ends)]
    return rows if tuple(map(crc32, rows, range(start, start + count))) == table[count:] else None


def intact(start: int, blob: bytes) -> Iterator[bytes | None]:
    """Give the rows of a blob in their order, None for each that is not as it was made."""
    if len(blob) < 4:
        return
    (count,) = struct.unpack_from("<I", blob)
    head = 4 + 8 * count
    if not 0 < count <= MOST_ROWS or head > len(blob):
        return
    table = struct.unpack_from(f"<{2 * count}I", blob, 4)
    sizes, sums = table[:count], table[count:]
    ends = list(accumulate(sizes, initial=head))
    # One size that is wrong moves all rows after it: those are found from the end.
    moved = len(blob) - ends[-1]
    for index, crc in enumerate(sums):
        begin, end = ends[index], ends[index + 1]
        row = blob[begin:end]
        if crc32(row, start + index) == crc and len(row) == sizes[index]:
            yield row
            continue
        if moved:
            row = blob[max(0, begin + moved) : max(0, end + moved)]
            if len(row) == sizes[index] and crc32(row, start + index) == crc:
                yield row
                continue
        yield None
