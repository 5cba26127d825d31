"""The frames of a link: they come back as they were, and nothing else is taken."""

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.boundaries.link import _frames
from nexus.boundaries.link._frames import (
    Ack,
    BadLinkFrame,
    Bye,
    Events,
    Frame,
    Hello,
    LaneAck,
    Ping,
    Pong,
    _read_flat,
    pack,
    pack_events,
    unpack,
)

PRIORITY = st.integers(-(2**31), 2**31 - 1)
NUMBER = st.integers(1, 2**63 - 1)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


@st.composite
def lane_acks(draw: st.DrawFn) -> LaneAck:
    """Make an acknowledgement of a lane, with ranges in order."""
    edges = sorted(draw(st.lists(st.integers(10, 10_000), max_size=8, unique=True)))
    held = tuple((low, high) for low, high in zip(edges[::2], edges[1::2], strict=False))
    return LaneAck(draw(PRIORITY), draw(st.integers(0, 9)), draw(st.integers(0, 2**64 - 1)), held)


FRAMES = st.one_of(
    st.builds(
        Hello,
        NAME,
        NAME,
        NAME,
        st.lists(st.tuples(PRIORITY, NUMBER), max_size=5).map(tuple),
    ),
    st.builds(Ack, st.integers(0, 2**32 - 1), st.lists(lane_acks(), max_size=4).map(tuple)),
    st.binary(min_size=8, max_size=8).map(Ping),
    st.binary(min_size=8, max_size=8).map(Pong),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50).map(Bye),
)


def read(data: bytes) -> None:
    """Read all of a frame."""
    frame = unpack(data)
    if isinstance(frame, Events):
        frame.read()


@given(FRAMES)
def test_a_frame_comes_back(frame: Any) -> None:
    """What was packed is what is unpacked."""
    assert unpack(pack(frame)) == frame


@given(
    PRIORITY, st.integers(1, 2**40), st.lists(st.tuples(st.integers(0, 9), st.text(max_size=5)), min_size=1)
)
def test_events_come_back(priority: int, first: int, rows: list[Any]) -> None:
    """Rows keep their order, priority and numbers."""
    data = pack_events(priority, first, 7, [orjson.dumps([n, "t", text]) for n, text in rows])
    frame = unpack(data)
    assert isinstance(frame, Events)
    assert (frame.priority, frame.first, frame.sent, len(frame)) == (priority, first, 7, len(rows))
    assert frame.read() == [[n, "t", text] for n, text in rows]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_bad_one(data: bytes) -> None:
    """Nothing but the declared error comes of any bytes."""
    with contextlib.suppress(BadLinkFrame):
        read(data)


@given(FRAMES, st.data())
def test_mutated_frames_are_taken_or_refused(frame: Frame, data: st.DataObject) -> None:
    """A frame with a byte changed, or cut short, is another frame or a bad one."""
    packed = bytearray(pack(frame))  # type: ignore[arg-type]
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] = data.draw(st.integers(0, 255))
    for found in (bytes(packed), bytes(packed[:place])):
        with contextlib.suppress(BadLinkFrame):
            read(found)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1, "t"], "list of id, type, payload"),
        (["1", "t", 0], "id is an integer"),
        ([1, None, 0], "type an integer or a string"),
        ([1, "t", 0, []], "metadata is an object"),
        ({}, "list of id, type, payload"),
    ],
)
def test_rows_are_looked_at(row: Any, said: str) -> None:
    """Each part of a row is of its type, or the error says which is not."""
    with pytest.raises(BadLinkFrame, match=said):
        read(pack_events(0, 1, 0, [orjson.dumps(row)]))


VALUES = st.sampled_from(
    [
        0,
        "",
        "a",
        "[",
        '{"a":1}',
        "}",
        None,
        True,
        1.5,
        -0.0,
        2**63,
        2**70,
        [],
        [[]],
        {},
        {"b": {}},
        {"b": [1]},
        "t",
    ]
)
PIECES = st.sampled_from(
    [b'{"a":1,"a":2}', b'{"a":1}', b'{"a" :1}', b"1", b"1e400", b"18446744073709551616", b"[", b"]", b"{}"]
)
ROWS = st.one_of(
    st.tuples(st.integers(0, 9), st.just("t"), st.dictionaries(st.sampled_from("ab["), VALUES, max_size=2)),
    st.tuples(VALUES, VALUES, VALUES),
    st.lists(VALUES, max_size=4),
    VALUES,
)


@given(st.lists(ROWS, min_size=1, max_size=4), st.none() | PIECES, st.integers(0, 3))
def test_a_glance_reads_what_a_close_look_reads(rows: list[Any], piece: bytes | None, more: int) -> None:
    """Rows of the usual form are read faster, not otherwise."""
    packed = [json.dumps(row, separators=(",", ":")).encode() for row in rows]
    if piece is not None:
        packed[-1] = b'[1,"t",' + piece + b"]"
    events = Events(0, 1, 0, len(rows) + (more == 3), b"[" + b",".join(packed) + b"]")
    glance = _read_flat(events.data, len(events))
    if glance is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_frames, "_read_flat", lambda data, count: None)
            assert repr(events.read()) == repr(glance)


@pytest.mark.parametrize("payload", [{"a": 1.5, "b": "[{"}, {}, 1, "a", None, [1], {"a": {}}])
def test_the_usual_form_is_read_at_a_glance(payload: Any) -> None:
    """A flat object or a plain value in each row is; a bracket anywhere else is looked at."""
    data = orjson.dumps([[n, "t", payload] for n in range(3)])
    is_usual = not any(mark in orjson.dumps(payload)[1:] for mark in b"[{") and not isinstance(payload, list)
    assert (_read_flat(data, 3) is not None) == is_usual


@pytest.mark.parametrize("generation", [-1, 1.0, "1", None, True])
def test_a_generation_is_a_count(generation: Any) -> None:
    """How often an outbox was opened is an integer from 0 on."""
    hello = orjson.loads(pack(Hello("a", "a", "a"))[1:]) | {"generation": generation}
    with pytest.raises(BadLinkFrame, match="the generation of a hello"):
        unpack(b"\x01" + orjson.dumps(hello))


def test_another_version_is_told() -> None:
    """A side that speaks another version is refused by that name."""
    hello = orjson.loads(pack(Hello("a", "a", "a"))[1:]) | {"version": 99}
    with pytest.raises(BadLinkFrame, match="speaks version 99, this one"):
        unpack(b"\x01" + orjson.dumps(hello))
