"""The frames of a link: what goes over the wire, byte for byte. No state, no I/O.

A frame is one byte that says its kind, and a body. Integers are big-endian. The events of one frame have one
priority and consecutive sequence numbers, which begin at 1.

- ``HELLO``: JSON, `Hello`.
- ``EVENTS``: priority (int32), sequence number of the first (uint64), microseconds on the sender's clock
  (uint64), how many rows follow (uint16), then these, a JSON array of events, each ``[id, type, payload]`` or
  ``[id, type, payload, metadata]``; ``null`` has a number and is none: it stands for one that the sender has
  given up. The rows are read when they are wanted: what waits, waits as bytes.
- ``ACK``: the window of lanes that were not heard of yet (uint32), then for each lane its priority (int32),
  the number up to which all is accepted (uint64), the last one that may be sent (uint64), how many further
  ranges are held (uint16), and these, first and last (uint64 each).
- ``PING``, ``PONG``: eight bytes that come back as they are.
- ``BYE``: why the connection ends, in UTF-8.
- ``CHALLENGE``: see `SealedWire`; it comes before the hello where both sides know a token, and each frame
  that follows ends with a code of 16 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import attrs
import orjson

from nexus.adapters.packing import JSONUnpacker
from nexus.errors import BadEvent, UnpackerError

__all__ = [
    "BYE",
    "CHALLENGE",
    "HELLO",
    "MAX_FRAME",
    "MAX_WIRE",
    "NOTHING",
    "Ack",
    "Row",
    "BadLinkFrame",
    "Bye",
    "Events",
    "Frame",
    "Hello",
    "LaneAck",
    "Ping",
    "Pong",
    "check_row",
    "pack",
    "pack_events",
    "unpack",
]

VERSION: Final = 4
MAX_FRAME: Final = 1024 * 1024
"""Bytes of a frame."""
MAX_WIRE: Final = MAX_FRAME + 16
"""Bytes of a frame with its code."""
MAX_EVENTS: Final = 1024
"""Events of a frame."""
MAX_LANES: Final = 64
"""Lanes of a ``HELLO`` or an ``ACK``."""
MAX_RANGES: Final = 256
"""Ranges of a lane."""
NOTHING: Final = b"null"
"""A row that is no event."""
LEAST, MOST = -(2**31), 2**31 - 1

_HELLO, _EVENTS, _ACK, _PING, _PONG, _BYE, _CHALLENGE = range(1, 8)
HELLO: Final = bytes((_HELLO,))
BYE: Final = bytes((_BYE,))
CHALLENGE: Final = bytes((_CHALLENGE,))
"""What such frames begin with."""
_EVENTS_HEAD = struct.Struct("!BiQQH")
_ACK_HEAD = struct.Struct("!BI")
_LANE = struct.Struct("!iQQH")
_RANGE = struct.Struct("!QQ")

MAX_DEPTH: Final = 32
"""Lists and objects within each other in a payload."""

MAX_NODES: Final = 200_000
"""Values of a frame."""

_read = JSONUnpacker(max_size=MAX_FRAME, max_depth=MAX_DEPTH + 2, max_nodes=MAX_NODES)
_NO_MARKS: Final = bytes(set(range(256)) - set(b"[]{}"))


Row: TypeAlias = list[Any] | None
"""An event, or None where there is none."""


class BadLinkFrame(BadEvent):
    """What came over the wire of a link is no frame."""


@attrs.frozen
class Hello:
    """The first frame of each side."""

    name: str
    """Of the end that speaks; whoever comes back under it goes on where it was."""
    domain: str
    """Its domain, by which loops are found."""
    source: str
    """What sends, the same for as long as its sequence numbers go on."""
    lanes: tuple[tuple[int, int], ...] = ()
    """Priority, and the first sequence number that may still come, of each lane."""
    lane_bytes: int = 8 * 2**20
    total_bytes: int = 64 * 2**20
    """Bytes of events that may be under way to it and not accepted, of one priority and of all; one event of
    a priority may always be."""
    generation: int = 0
    """How often the source's outbox was opened: of two that say they are the same, the higher one has it."""
    version: int = VERSION


@attrs.define(eq=False)  # to freeze it would take twice as long
class Events:
    """Events of one priority, unread; its length is how many rows it says there are."""

    priority: int
    first: int
    """Sequence number of the first."""
    sent: int
    """Microseconds on the sender's clock."""
    count: int
    """Rows."""
    data: bytes
    """The rows, a JSON array."""

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return len(self.data) - self.count - 1  # without brackets and commas

    def read(self) -> list[Row]:
        """Read the rows.

        Raises:
            BadLinkFrame: they are none, or not as many as it says; says what was found and what is allowed.
        """
        flat = _read_flat(self.data, self.count)
        if flat is not None:
            return flat
        try:
            rows = _read_rows(self.data)
        except UnpackerError as exc:
            raise _cut_short(_EVENTS, exc) from exc
        if not isinstance(rows, list) or len(rows) != self.count:
            found = f"{len(rows)} of them" if isinstance(rows, list) else "no list"
            raise BadLinkFrame(f"a frame of {self.count} events has a list of them, not {found}")
        for row in rows:
            if type(row) is not list or not 3 <= len(row) <= 4:
                if row is None:
                    continue
                raise BadLinkFrame("an event is a list of id, type, payload and perhaps metadata")
            if type(row[0]) is not int or (type(row[1]) is not str and type(row[1]) is not int):
                raise BadLinkFrame("an event's id is an integer and its type an integer or a string")
            if len(row) == 4 and type(row[3]) is not dict:
                raise BadLinkFrame("an event's metadata is an object")
        return rows


@attrs.frozen
class LaneAck:
    """What of a lane is accepted, and how far it may go."""

    priority: int
    accepted: int
    """All up to this number is accepted."""
    limit: int
    """The last number that may be sent."""
    held: tuple[tuple[int, int], ...] = ()
    """Ranges that came and need not come again, first and last."""


@attrs.frozen
class Ack:
    """What is accepted, and how much more may come."""

    window: int
    """How far a lane may go that is not in `lanes`."""
    lanes: tuple[LaneAck, ...] = ()


@attrs.frozen
class Ping:
    """A question whether the other side is there."""

    data: bytes


@attrs.frozen
class Pong:
    """The answer."""

    data: bytes


@attrs.frozen
class Bye:
    """The last frame of a side that ends the connection."""

    reason: str


Frame: TypeAlias = Hello | Events | Ack | Ping | Pong | Bye


def pack_events(priority: int, first: int, sent: int, rows: Sequence[bytes]) -> bytes:
    """Make a frame of events that are JSON already."""
    return _EVENTS_HEAD.pack(_EVENTS, priority, first, sent, len(rows)) + b"[" + b",".join(rows) + b"]"


def pack_event(priority: int, number: int, sent: int, row: bytes) -> bytes:
    """Make a frame of one event that is JSON already."""
    return _EVENTS_HEAD.pack(_EVENTS, priority, number, sent, 1) + b"[%b]" % row


def check_row(row: bytes) -> None:
    """Refuse an event that no other side would read: it would end every connection it is sent on.

    Raises:
        BadLinkFrame: it is too large or too deep, or its id or type is not one.
    """
    frame = unpack(pack_events(0, 1, 0, [row]))
    assert isinstance(frame, Events)
    frame.read()


def pack(frame: Hello | Ack | Ping | Pong | Bye) -> bytes:
    """Make a frame."""
    match frame:
        case Hello():
            return bytes((_HELLO,)) + orjson.dumps(attrs.asdict(frame))
        case Ack():
            return _ACK_HEAD.pack(_ACK, frame.window) + b"".join(map(_pack_lane, frame.lanes))
        case Ping(data=data):
            return bytes((_PING,)) + data
        case Pong(data=data):
            return bytes((_PONG,)) + data
        case Bye(reason=reason):
            return bytes((_BYE,)) + reason.encode(errors="replace")[:500]


def _pack_lane(lane: LaneAck) -> bytes:
    head = _LANE.pack(lane.priority, lane.accepted, lane.limit, len(lane.held))
    return head + b"".join(_RANGE.pack(*each) for each in lane.held)


def unpack(data: bytes) -> Frame:
    """Read a frame, but for the rows of `Events`.

    Raises:
        BadLinkFrame: it is none; says what was found and what is allowed.
    """
    if len(data) > MAX_FRAME:
        raise BadLinkFrame(f"a frame has at most {MAX_FRAME} bytes, this one {len(data)}")
    kind = data[0] if data else 0
    try:
        if kind == _EVENTS:
            return _unpack_events(data)
        if kind == _ACK:
            return _unpack_ack(data)
        if kind == _HELLO:
            return _unpack_hello(data)
    except (struct.error, UnpackerError) as exc:
        raise _cut_short(kind, exc) from exc
    if kind in (_PING, _PONG):
        if len(data) != 9:
            raise BadLinkFrame(f"a ping has 8 bytes, this one {len(data) - 1}")
        return Ping(data[1:]) if kind == _PING else Pong(data[1:])
    if kind == _BYE:
        return Bye(data[1:501].decode(errors="replace"))
    if kind == _CHALLENGE:
        raise BadLinkFrame("the other side has a token, and this one has none")
    raise BadLinkFrame(f"a frame begins with its kind, 1 to {_BYE}, this one with {kind}")


def _cut_short(kind: int, exc: Exception) -> BadLinkFrame:
    return BadLinkFrame(f"a frame of kind {kind} is cut short or no JSON: {exc}")


def _unpack_events(data: bytes) -> Events:
    _, priority, first, sent, count = _EVENTS_HEAD.unpack_from(data)
    rows = data[_EVENTS_HEAD.size :]
    # With fewer bytes than rows and commas it would have a size below nothing.
    if not 1 <= count <= MAX_EVENTS or len(rows) <= 2 * count:
        raise BadLinkFrame(f"a frame of events has 1 to {MAX_EVENTS}, not {count} in {len(rows)} bytes")
    if first < 1 or first + count > 2**63:
        raise BadLinkFrame(f"sequence numbers are from 1 to 2**63, not {first}")
    return Events(priority, first, sent, count, rows)


def _read_flat(data: bytes, count: int) -> list[Row] | None:
    """Read rows of the most usual form: an integer, an integer or a string, and an object of plain values,
    or in all of them a plain value; None if there is another one among them.

    It is seen at a glance: there is a bracket for each row, a brace for each payload or none, and no more.
    """
    objects = data.count(b"{")
    if len(data) > MAX_NODES or data.count(b"[") != count + 1 or objects not in (0, count):
        return None
    try:
        rows: list[Any] = orjson.loads(data)
        for number, kind, payload in rows:  # of what is JSON, only a list has an integer to give first
            if (
                number.__class__ is not int
                or (kind.__class__ is not str and kind.__class__ is not int)
                or (objects and payload.__class__ is not dict)
            ):
                return None
    except (TypeError, ValueError):
        return None  # no JSON, no list, or rows that are longer or shorter
    return rows if len(rows) == count and orjson.dumps(rows) == data else None


def _read_rows(data: bytes) -> Any:
    """Read JSON; the ordinary form of rows at a glance, everything else value by value.

    What was lost or changed in reading, such as equal keys or long integers, does not come back in writing.
    """
    if len(data) > MAX_NODES or not _is_shallow(data):  # a value takes two bytes
        return _read(data)[0]
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _read(data)[0]
    return found if orjson.dumps(found) == data else _read(data)[0]


def _is_shallow(data: bytes) -> bool:
    """Say whether JSON is not too deep, as far as that is seen at a glance."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return True
    marks = data.translate(None, _NO_MARKS)
    for _ in range(MAX_DEPTH // 2):  # each time at most two levels go
        if not marks:
            break
        marks = marks.replace(b"[]", b"").replace(b"{}", b"")
    return not marks


def _unpack_ack(data: bytes) -> Ack:
    _, window = _ACK_HEAD.unpack_from(data)
    place = _ACK_HEAD.size
    lanes: list[LaneAck] = []
    while place < len(data):
        priority, accepted, limit, count = _LANE.unpack_from(data, place)
        place += _LANE.size
        if count > MAX_RANGES or len(lanes) >= MAX_LANES:
            raise BadLinkFrame(f"an ack has at most {MAX_LANES} lanes with {MAX_RANGES} ranges each")
        held = []
        for _ in range(count):
            low, high = _RANGE.unpack_from(data, place)
            place += _RANGE.size
            if not accepted < low <= high < 2**63:
                raise BadLinkFrame(
                    f"a range begins after {accepted} and ends after that, not {low} to {high}"
                )
            held.append((low, high))
        lanes.append(LaneAck(priority, accepted, limit, tuple(held)))
    return Ack(window, tuple(lanes))


def _unpack_hello(data: bytes) -> Hello:
    found, _ = _read(data[1:])
    names = {field.name for field in attrs.fields(Hello)}
    if not isinstance(found, dict) or found.keys() != names:
        raise BadLinkFrame(f"a hello is an object with {', '.join(sorted(names))}")
    if found["version"] != VERSION:
        raise BadLinkFrame(f"the other side speaks version {found['version']!a}, this one {VERSION}")
    if not all(isinstance(found[name], str) for name in ("name", "domain", "source")):
        raise BadLinkFrame("name, domain and source of a hello are strings")
    if not all(1 <= len(found[name]) <= 200 for name in ("name", "domain", "source")):
        raise BadLinkFrame("name, domain and source of a hello have 1 to 200 characters")
    lanes = found["lanes"]
    if not isinstance(lanes, list) or len(lanes) > MAX_LANES or not all(map(_is_lane, lanes)):
        raise BadLinkFrame(f"lanes of a hello is a list of at most {MAX_LANES} pairs of integers")
    if not all(type(found[name]) is int and found[name] > 0 for name in ("lane_bytes", "total_bytes")):
        raise BadLinkFrame("lane_bytes and total_bytes of a hello are integers from 1 on")
    if type(found["generation"]) is not int or found["generation"] < 0:
        raise BadLinkFrame("the generation of a hello is an integer from 0 on")
    fields: dict[str, Any] = found | {"lanes": tuple((lane[0], lane[1]) for lane in lanes)}
    return Hello(**fields)


def _is_lane(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 2
        and all(type(each) is int for each in found)
        and LEAST <= found[0] <= MOST
        and 1 <= found[1] < 2**63
    )
