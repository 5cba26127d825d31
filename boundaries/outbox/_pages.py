"""Records found in the pages of a SQLite database, however damaged it is.

See "Database File Format", sqlite.org/fileformat2.html: sections 1.6 (B-tree pages), 2.1 (record format) and
4 (the write-ahead log). Nothing found here is to be believed before its checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

__all__ = ["Value", "commits", "logged", "records"]

Value: TypeAlias = "int | float | bytes | None"

MAGIC = b"SQLite format 3\0"
TABLE_LEAF, INDEX_LEAF, INDEX_INNER = 13, 10, 2
KINDS = {TABLE_LEAF, INDEX_LEAF, INDEX_INNER}
LOG_HEAD, FRAME_HEAD = 32, 24
MOST = 2**30
"""Bytes a record may say it has."""


def records(data: bytes, log: bytes, default: int) -> Iterator[list[Value]]:
    """Give what looks like a record in any page, text as bytes.

    Args:
        data: the database file.
        log: its write-ahead log; may be empty.
        default: the size of a page, for a file that does not say it.
    """
    (size,) = struct.unpack_from(">H", data, 16) if len(data) >= 18 else (0,)
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1) or data[:16] != MAGIC:
        size = default
    pages = Pages(data, log, size)
    for number in pages.numbers():
        yield from _in_page(pages, pages.get(number), 100 if number == 1 else 0, size)


class Pages:
    """The pages of a database, as the log has left them."""

    def __init__(self, data: bytes, log: bytes, size: int) -> None:
        self._data = data
        self._size = size
        self._logged = logged(log, size)

    def __len__(self) -> int:
        return len(self._data) // self._size + 1 + len(self._logged)

    def numbers(self) -> Iterator[int]:
        """Give the numbers of all pages."""
        last = -(-len(self._data) // self._size)
        yield from range(1, last + 1)
        yield from (number for number in self._logged if number > last)

    def get(self, number: int) -> bytes:
        """Return a page; empty if there is none."""
        if number in self._logged:
            return self._logged[number]
        return self._data[(number - 1) * self._size : number * self._size] if number > 0 else b""


def logged(log: bytes, size: int) -> dict[int, bytes]:
    """Return the pages of the log as its last commit has left them, whether they are intact or not."""
    pages: dict[int, bytes] = {}
    marks = commits(log, size)
    for index in range(marks[-1] if marks else 0):
        at = LOG_HEAD + index * (FRAME_HEAD + size)
        if log[at + 8 : at + 16] == log[16:24]:
            (number,) = struct.unpack_from(">I", log, at)
            pages[number] = log[at + FRAME_HEAD : at + FRAME_HEAD + size]
    return pages


def commits(log: bytes, size: int) -> list[int]:
    """Return after how many frames of the log a commit ends, whether it is intact or not."""
    found = []
    for index, at in enumerate(range(LOG_HEAD, len(log) - FRAME_HEAD - size + 1, FRAME_HEAD + size)):
        if log[at + 8 : at + 16] == log[16:24] and log[at + 4 : at + 8] != bytes(4):
            found.append(index + 1)
    return found


def _in_page(pages: Pages, page: bytes, head: int, size: int) -> Iterator[list[Value]]:
    if len(page) < head + 8:
        return
    kind = page[head]
    if kind not in KINDS:
        # One bit may be wrong. Most pages are of no kind: they hold the rest of a long record.
        kind = next((each for each in (INDEX_LEAF, TABLE_LEAF) if (kind ^ each).bit_count() == 1), 0)
        if not kind:
            return
    cells = head + (12 if kind == INDEX_INNER else 8)
    # Not the number of cells: it may be damaged. What is no cell shows it by itself.
    for at in range(cells, min(cells + 2 * (size // 8), len(page) - 1), 2):
        (offset,) = struct.unpack_from(">H", page, at)
        if offset < cells or offset >= len(page):
            break
        if found := _record(pages, page, offset, kind, size):
            yield found


def _record(pages: Pages, page: bytes, at: int, kind: int, size: int) -> list[Value] | None:
    try:
        if kind == INDEX_INNER:
            at += 4
        length, at = _varint(page, at)
        if kind == TABLE_LEAF:
            _, at = _varint(page, at)
        if not 0 < length <= MOST:
            return None
        return _columns(_payload(pages, page, at, length, kind, size))
    except (IndexError, struct.error, ValueError):
        return None


def _payload(pages: Pages, page: bytes, at: int, length: int, kind: int, size: int) -> bytes:
    """Put a record together that goes on in further pages; zeros for what is missing."""
    most = size - 35 if kind == TABLE_LEAF else (size - 12) * 64 // 255 - 23
    if length <= most:
        return page[at : at + length]
    least = (size - 12) * 32 // 255 - 23
    local = least + (length - least) % (size - 4)
    local = local if local <= most else least
    parts = [page[at : at + local]]
    (following,) = struct.unpack_from(">I", page, at + local)
    left = length - local
    if left > size * len(pages):
        raise ValueError("longer than the file")
    while left > 0 and (more := pages.get(following)):
        parts.append(more[4 : 4 + left])
        left -= size - 4
        (following,) = struct.unpack_from(">I", more)
    found = b"".join(parts)
    return found + bytes(length - len(found))


def _columns(payload: bytes) -> list[Value]:
    end, at = _varint(payload, 0)
    if not at <= end <= min(len(payload), 100):
        raise ValueError("no header of a record")
    values: list[Value] = []
    body = end
    while at < end:
        kind, at = _varint(payload, at)
        if kind >= 12:
            width = (kind - 12) // 2
            values.append(payload[body : body + width])
        elif kind in (0, 10, 11):
            width = 0
            values.append(None)
        elif kind in (8, 9):
            width = 0
            values.append(kind - 8)
        elif kind == 7:
            width = 8
            values.append(struct.unpack_from(">d", payload, body)[0])
        else:
            width = (1, 2, 3, 4, 6, 8)[kind - 1]
            values.append(int.from_bytes(payload[body : body + width], "big", signed=True))
        body += width
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(8):
        byte = data[at + step]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + step + 1
    return value << 8 | data[at + 8], at + 9
