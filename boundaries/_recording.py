"""A recording: what came over a wire, byte by byte, with when it came. The format, and how it is read.

A file is a preamble, a header and records::

    preamble   magic (8)  version (2)  0 (2)  marker (8)  length of the header (4)  its CRC (4)  own CRC (4)
    header     JSON: url, pack, started
    record     marker (8)  length of meta (4)  length of payload (4)  index (8)  time (8)  offset (8)
               priority (8)  CRC of what stands before (4)  CRC of meta and payload (4)  meta  payload

Integers are big-endian, CRCs those of zlib. The marker is made of random bytes for each file, so that no
payload holds it: after damage the next record is found by it, and a recording of recordings stays whole. The
index counts records from 0 and says how many were lost.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs
import orjson

from nexus.errors import NexusError

__all__ = [
    "HEADER",
    "MAGIC",
    "Header",
    "Readable",
    "Recorded",
    "Recording",
    "RecordingError",
    "pack_record",
    "preamble",
]

MAGIC = b"\x89NXREC\r\n"
VERSION = 1
PREAMBLE = struct.Struct(">8sHH8sII")
SUM = struct.Struct(">I")
HEAD = struct.Struct(">8sIIQqQq")
SUMS = struct.Struct(">II")
HEADER = PREAMBLE.size + SUM.size
"""Bytes of the preamble."""
FIXED = HEAD.size + SUMS.size
"""Bytes of a record before its meta."""

MAX_HEADER = 2**16
MAX_META = 2**16
MAX_PAYLOAD = 2**26
WINDOW = 2**18
"""Bytes read at a time."""


class RecordingError(NexusError, ValueError):
    """A file is no recording, or what is to be recorded does not fit into one."""


class Readable(Protocol):
    """What is needed of a file to read it."""

    def read(self, offset: int, size: int) -> bytes: ...
    def size(self) -> int: ...


@attrs.frozen
class Header:
    """What a recording says of itself."""

    marker: bytes
    """What each record begins with."""
    end: int
    """Where the records begin."""
    about: Mapping[str, Any]
    """``url`` without secrets, ``pack``, ``started`` (nanoseconds since the Unix epoch); empty if that is
    damaged."""


@attrs.frozen
class Recorded:
    """One frame as it came."""

    payload: bytes
    time: int
    """When it came, in nanoseconds since the Unix epoch, by the clock of then."""
    offset: int
    """Nanoseconds since the recording began; never less than that of the one before."""
    priority: int = 0
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    """What the transport said of it, as far as JSON can."""


def preamble(marker: bytes, about: Mapping[str, Any]) -> bytes:
    """Return what a file begins with.

    Raises:
        RecordingError: it says more than there is room for.
    """
    text = orjson.dumps({"format": "nexus recording", **about})
    if len(text) > MAX_HEADER:
        raise RecordingError(f"a header of {len(text)} bytes; {MAX_HEADER} are allowed")
    head = PREAMBLE.pack(MAGIC, VERSION, 0, marker, len(text), zlib.crc32(text))
    return head + SUM.pack(zlib.crc32(head)) + text


def pack_record(marker: bytes, index: int, item: Recorded) -> bytes:
    """Return the bytes of a record.

    Raises:
        RecordingError: a part is too large.
    """
    meta = _meta(item.meta)
    if len(item.payload) > MAX_PAYLOAD:
        raise RecordingError(f"a frame of {len(item.payload)} bytes; {MAX_PAYLOAD} are allowed")
    try:
        head = HEAD.pack(marker, len(meta), len(item.payload), index, item.time, item.offset, item.priority)
    except struct.error as exc:
        raise RecordingError(f"time or priority is out of the range of 64 bits: {exc}") from exc
    sums = SUMS.pack(zlib.crc32(head), zlib.crc32(item.payload, zlib.crc32(meta)))
    return b"".join((head, sums, meta, item.payload))


class Recording:
    """Reads the records of a file; what is damaged is skipped and counted.

    Iterate over it, as often as needed. It reads what was in the file when it was made.

    Args:
        file: the file; its calls may raise OSError.

    Attributes:
        header: what the file says of itself.
        lost: records that are missing between those that were read.
        skipped: bytes passed over between records.
        cut: bytes at the end that are no record, as a crash leaves them.
        whole: where the last record ends.
        last: the last record, with its index; None before the first.

    Raises:
        RecordingError: it is no recording.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._size = file.size()
        self._begin = 0
        self._window = b""
        self.header = self._described(self._header())
        self.is_header_damaged = not self.header.about
        self.lost = self.skipped = self.cut = 0
        self.whole = min(self.header.end, self._size)
        self.last: tuple[int, Recorded] | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether anything was found so far that is not as it was written."""
        return self.is_header_damaged or bool(self.lost or self.skipped or self.cut)

    def __iter__(self) -> Iterator[Recorded]:
        self.lost = self.skipped = self.cut = expected = 0
        self.last = None
        self.whole = at = min(self.header.end, self._size)
        while at < self._size:
            found = self._record(at)
            if found is not None and found[0] >= expected:
                index, item, end = found
                self.lost += index - expected
                self.skipped += at - self.whole
                expected = index + 1
                self.last = index, item
                self.whole = at = end
                yield item
                continue
            at = self._find(at + 1)
        self.cut = self._size - self.whole

    def _header(self) -> Header:
        head = self._read(0, PREAMBLE.size)
        check = self._read(PREAMBLE.size, SUM.size)
        if not head.startswith(MAGIC[:6]):
            raise RecordingError(f"it is no recording: it begins with {head[:8]!r}, not {MAGIC!r}")
        if len(check) < SUM.size or SUM.unpack(check)[0] != zlib.crc32(head):
            raise RecordingError(f"it is no recording that can be read: its first {HEADER} bytes are damaged")
        magic, version, _, marker, length, _ = PREAMBLE.unpack(head)
        if magic != MAGIC or version != VERSION or length > MAX_HEADER:
            raise RecordingError(f"it is a recording of version {version}; this reads version {VERSION}")
        return Header(marker, HEADER + length, {})

    def _described(self, header: Header) -> Header:
        """Add what the header says, if that is whole."""
        text = self._read(HEADER, header.end - HEADER)
        try:
            if PREAMBLE.unpack(self._read(0, PREAMBLE.size))[5] != zlib.crc32(text):
                raise ValueError
            about = orjson.loads(text)
        except ValueError:
            about = None
        return attrs.evolve(header, about=about if isinstance(about, dict) else {})

    def _record(self, at: int) -> tuple[int, Recorded, int] | None:
        """Read the record at a place: its index, itself, and where it ends; None if there is none."""
        head = self._read(at, FIXED)
        if len(head) < FIXED or not head.startswith(self.header.marker):
            return None
        _, meta_size, size, index, time, offset, priority = HEAD.unpack_from(head)
        head_sum, body_sum = SUMS.unpack_from(head, HEAD.size)
        if zlib.crc32(head[: HEAD.size]) != head_sum or meta_size > MAX_META or size > MAX_PAYLOAD:
            return None
        end = at + FIXED + meta_size + size
        if end > self._size:
            return None
        body = self._read(at + FIXED, meta_size + size)
        if zlib.crc32(body) != body_sum:
            return None
        try:
            meta = orjson.loads(body[:meta_size])
        except ValueError:
            return None
        if not isinstance(meta, dict):
            return None
        return index, Recorded(body[meta_size:], time, offset, priority, meta), end

    def _find(self, at: int) -> int:
        """Find the next marker from a place on; the end of the file if there is none."""
        marker = self.header.marker
        while at < self._size:
            part = self._read(at, min(WINDOW, self._size - at))
            found = part.find(marker)
            if found >= 0:
                return at + found
            if len(part) < len(marker):
                break
            at += len(part) - len(marker) + 1
        return self._size

    def _read(self, offset: int, size: int) -> bytes:
        """Read from the file by large parts; fewer bytes only at the end."""
        size = min(size, self._size - offset)
        if not self._begin <= offset <= offset + size <= self._begin + len(self._window):
            self._begin, self._window = offset, self._read_all(offset, max(size, WINDOW))
        begin = offset - self._begin
        return self._window[begin : begin + max(size, 0)]

    def _read_all(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := self._file.read(offset, size)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)


def _meta(meta: Mapping[str, Any]) -> bytes:
    """Write what of a meta can be written; what has no form in JSON is left out."""
    try:
        text = orjson.dumps(meta)
    except (TypeError, ValueError):
        text = orjson.dumps({name: value for name, value in meta.items() if _is_plain(name, value)})
    if len(text) > MAX_META:
        raise RecordingError(f"a meta of {len(text)} bytes; {MAX_META} are allowed")
    return text


def _is_plain(name: object, value: object) -> bool:
    try:
        orjson.dumps({name: value})
    except (TypeError, ValueError):
        return False
    return isinstance(name, str)
