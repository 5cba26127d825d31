"""Laws about an event's form on a wire."""

import contextlib
import dataclasses
import json
import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus import Event, EventType, NamedEvent
from nexus.boundaries._envelope import MAX_DEPTH, MAX_NODES, MAX_SIZE, BadFrame, pack, unpack
from nexus.errors import BadEvent, PackerError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
INT64 = st.integers(-(2**63), 2**64 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.just(":"))
READABLE = st.recursive(
    st.none() | st.booleans() | INT64 | FINITE | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


def reference(event: Event[Any], **options: Any) -> bytes:
    """Write an event as async-nexus does."""
    fields = {"id": event.id, "type": event.type, "priority": event.priority, "payload": event.payload}
    return json.dumps(fields, **options).encode()


def frame(**changes: Any) -> bytes:
    """Write the fields of an event, some of them changed, added or (by ...) left out."""
    fields = {"id": 7, "type": "t", "priority": 3, "payload": "p"} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


# Writing.


def test_bytes_are_those_of_async_nexus() -> None:
    """An event is written with ", " and ": ", in ASCII, its fields in this order."""
    assert pack(Event(7, "t", 3, 'hé "x"')) == (
        b'{"id": 7, "type": "t", "priority": 3, "payload": "h\\u00e9 \\"x\\""}'
    )


@given(st.integers(), st.integers() | st.text(), st.integers(), JSON)
def test_every_json_payload_is_written_as_the_json_module_writes_it(
    id: int, type_: int | str, priority: int, payload: Any
) -> None:
    """The fast ways to write an event differ in no byte from the slow one."""
    event = Event(id, type_, priority, payload)
    assert pack(event) == reference(event)


def test_objects_go_as_their_fields() -> None:
    """Payloads of attrs classes and dataclasses, also within each other, go as objects of their fields."""

    @attrs.frozen
    class Point:
        x: int

    @dataclasses.dataclass
    class Line:
        ends: tuple[Point, Point]

    event = Event(1, "t", 0, {"line": Line((Point(1), Point(2)))})
    assert pack(event).endswith(b'"payload": {"line": {"ends": [{"x": 1}, {"x": 2}]}}}')


def test_named_and_typed_events_go_with_their_name() -> None:
    """A NamedEvent goes with its class's name as the type, an EventType as the string it is."""

    class Alarm(NamedEvent[float]):
        pass

    assert unpack(pack(Alarm(1, 2.5, priority=-1))) == Event(1, Alarm.__qualname__, -1, 2.5)
    assert unpack(pack(Event(1, EventType[int]("count"), 0, 5))).type == "count"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "payload",
    [b"x", {1, 2}, object(), math.nan, [math.inf], CIRCLE, {(1,): 1}],
    ids=lambda p: type(p).__name__,
)
def test_what_is_not_json_is_refused_before_it_is_sent(payload: Any) -> None:
    """A payload that no receiver would understand raises PackerError, which names the event and the type."""
    with pytest.raises(PackerError, match=rf"id=4 type='t' .* {type(payload).__name__}"):
        pack(Event(4, "t", 0, payload))


# Reading.


@given(INT64, INT64 | TEXT, INT64, READABLE, st.booleans())
def test_what_is_written_is_read_again(
    id: int, type_: int | str, priority: int, payload: Any, ascii: bool
) -> None:
    """Every event with 64-bit integers and valid text comes back equal, written in ASCII or UTF-8."""
    event = Event(id, type_, priority, payload)
    again = unpack(reference(event, ensure_ascii=ascii, separators=None if ascii else (",", ":")))
    assert again == event
    assert type(again.payload) is type(payload)


def test_the_order_of_fields_and_blanks_do_not_matter() -> None:
    """Any JSON object with the four fields is an event."""
    assert unpack(b'\n{"payload" : [ "a:b" ],"priority":0,  "type":4,"id":1 }') == Event(1, 4, 0, ["a:b"])


NUMBER = b'{"id": 1, "type": "t", "priority": 0, "payload": %s}'
BAD = {
    "empty": (b"", "json"),
    "truncated": (frame()[:-5], "json"),
    "not UTF-8": (frame().replace(b'"p"', b'"\xff"'), "json"),
    "lone surrogate": (frame(payload="\ud800"), "json"),
    "NaN": (NUMBER % b"NaN", "json"),
    "Infinity": (NUMBER % b"[-Infinity]", "json"),
    "trailing": (frame() + b"x", "json"),
    "array": (b"[1, 2, 3, 4]", "fields"),
    "string": (b'"id"', "fields"),
    "null": (b"null", "fields"),
    "missing": (frame(priority=...), "fields"),
    "unknown": (frame(colour="red"), "fields"),
    "bool id": (frame(id=True), "types"),
    "float id": (frame(id=1.0), "types"),
    "long id": (frame(id=2**64), "types"),
    "null type": (frame(type=None), "types"),
    "bool type": (frame(type=False), "types"),
    "text priority": (frame(priority="1"), "types"),
    "too large float": (NUMBER % b"1e400", "numbers"),
    "long integer": (NUMBER % str(2**64).encode(), "numbers"),
    "long negative integer": (NUMBER % str(-(2**63) - 1).encode(), "numbers"),
    "long integer inside": (NUMBER % b'{"a": [18446744073709551616]}', "numbers"),
    "5000 digits inside": (NUMBER % (b"[" + b"9" * 300 + b"]"), "numbers"),
    "twice outside": (frame()[:-1] + b', "id": 1}', "duplicate"),
    "twice inside": (NUMBER % b'{"a": 1, "a": 2}', "duplicate"),
    "twice and blank": (NUMBER % b'{"a" : 1, "a" : 2}', "duplicate"),
    "twice, hidden by an escape": (NUMBER % b'{"a": 1, "a": "\\u003a"}', "duplicate"),
    "twice, hidden by a large escape": (NUMBER % b'{"a": 1, "a": "\\u003A\\u003a:"}', "duplicate"),
    "twice outside, hidden": (b'{"id": 1, ' + NUMBER[1:] % b'"\\u003a"', "duplicate"),
    "deep": (NUMBER % (b"[" * 33 + b"]" * 33), "depth"),
    "very deep": (NUMBER % (b"[" * 100_000), "depth"),
    "very deep and closed": (NUMBER % (b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "depth"),
    "many": (NUMBER % (b"[" + b"0," * MAX_NODES + b"0]"), "nodes"),
    "large": (NUMBER % (b'"' + b"x" * MAX_SIZE + b'"'), "size"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_what_is_no_event_is_refused(data: bytes, reason: str) -> None:
    """Whatever is not exactly an event raises BadFrame, a BadEvent, with a word to count by."""
    with pytest.raises(BadEvent) as caught:
        unpack(data)
    assert isinstance(caught.value, BadFrame)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "payload", ["a:b", "\\u003a", ":", {"a:b": "c:d", ":": [":"]}, 1e300, [1.5e19], 2**64 - 1, -(2**63), {}]
)
def test_colons_and_large_numbers_are_no_crime(payload: Any) -> None:
    """What only looks like an equal key or a long integer is let through."""
    assert unpack(frame(payload=payload)).payload == payload
    escaped = frame(payload=payload).replace(b"a:b", b"a\\u003ab")
    assert unpack(escaped).payload == payload


def test_limits_are_reached_before_they_are_exceeded() -> None:
    """A payload as deep and as large as is allowed is an event."""
    assert unpack(NUMBER % (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)).priority == 0
    assert len(unpack(NUMBER % (b"[" + b"0," * (MAX_NODES - 2) + b"0]")).payload) == MAX_NODES - 1
    filler = "x" * (MAX_SIZE - len(NUMBER % b'""'))
    assert unpack(NUMBER % f'"{filler}"'.encode()).payload == filler


def test_the_size_limit_can_be_chosen() -> None:
    """A limit given by the caller holds."""
    assert unpack(frame(), max_size=len(frame())) == Event(7, "t", 3, "p")
    with pytest.raises(BadFrame, match="at most 10 bytes"):
        unpack(frame(), max_size=10)


def test_an_error_shows_little_and_nothing_that_acts() -> None:
    """An error says what was found and is allowed, in printable ASCII and at most 100 bytes of data."""
    data = json.dumps({"\x1b[31m\u202e": 1, "payload": "y" * 5000}, ensure_ascii=False).encode()
    with pytest.raises(
        BadFrame, match="an event has id, type, priority, payload; this one lacks 'id'"
    ) as caught:
        unpack(data)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@given(st.binary() | st.builds(lambda head, tail: frame()[:head] + tail, st.integers(0, 60), st.binary()))
def test_any_bytes_are_an_event_or_a_bad_frame(data: bytes) -> None:
    """No bytes raise anything but BadFrame."""
    with contextlib.suppress(BadFrame):
        unpack(data)


@given(READABLE, st.data())
def test_an_equal_key_never_passes(payload: Any, data: st.DataObject) -> None:
    """Wherever a key is repeated, with whatever around it, the frame is refused."""
    key = json.dumps(data.draw(TEXT))
    values = [json.dumps(data.draw(READABLE)) for _ in range(2)]
    body = f"[{{{key}: {values[0]}, {key} :{values[1]}}}, {json.dumps(payload)}]"
    with pytest.raises(BadFrame) as caught:
        unpack(NUMBER % body.encode())
    assert caught.value.reason in ("duplicate", "numbers")
