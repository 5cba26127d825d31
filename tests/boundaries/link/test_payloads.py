"""Payloads keep their class over a link: flat ones by themselves, all others by cattrs; nothing guessed."""

import asyncio
import dataclasses
import datetime
import enum
import uuid
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real import require

from nexus import AsyncEventNexus, Event, EventMeta, NamedEvent
from nexus.adapters import _typed
from nexus.boundaries.link import Link
from nexus.boundaries.link._rows import Rows
from nexus.errors import BadEvent, ConfigError, PackerError
from nexus.testing import MemoryWire, virtual_time


@attrs.frozen
class Point:
    x: float
    y: float = 0.0
    _note: str = ""
    size: float = attrs.field(init=False, default=0.0)


@attrs.frozen
class Spot:
    x: float
    y: float = 0.0
    of: datetime.time = datetime.time(1, 2)


@attrs.frozen
class Even:
    number: int = attrs.field()

    @number.validator
    def _even(self, _: Any, value: int) -> None:
        if value % 2:
            raise ArithmeticError("odd")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Tag:
    name: str


@attrs.frozen
class Shape:
    points: list[Spot]
    colour: Colour
    at: datetime.datetime
    id: uuid.UUID
    tag: Tag | None = None
    corners: tuple[int, ...] = ()


class Pointed(NamedEvent[Point]):
    """Flat."""


class Evened(NamedEvent[Even]):
    """Flat, and particular."""


class Shaped(NamedEvent[Shape]):
    """Of classes within classes."""


class Shapes(NamedEvent[list[Shape]]):
    """Many of them."""


class Tagged(NamedEvent[Tag]):
    """A dataclass."""


class Words(NamedEvent[dict[str, list[int]]]):
    """What JSON gives as it is."""


NOW = datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.UTC)
SHAPE = Shape([Spot(1.5, 2.0)], Colour.BLUE, NOW, uuid.UUID(int=7), Tag("a"), (1, 2))


class Ends:
    """Two ends of one wire, the far one with the classes it knows."""

    def __init__(self, types: list[type[NamedEvent[Any]]]) -> None:
        self.wires = list(MemoryWire.pair())
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
        self.here = Link.over(self.dial, name="here")
        self.there = Link.over(self.dial, name="there", types=types)
        self.near.register(self.here)
        self.far.register(self.there)

    async def dial(self) -> MemoryWire:
        return self.wires.pop()

    async def cross(self, *events: Any) -> list[Any]:
        """Send events, and return those that were handled on the other side."""
        got: list[Any] = []
        for event in events:
            self.near.add_handler(event.type, self.here)
            self.far.add_handler(event.type, got.append)
        async with self.near, self.far:
            await self.near.ingest_many(events)
            await self.near.drained()
            assert await self.here.flushed(10)
            await self.far.drained()
            await asyncio.sleep(0)
        return got


@virtual_time
async def test_payloads_keep_their_class() -> None:
    """Flat, nested, in lists, dataclasses: equal and of the same class, and the event too."""
    require("cattrs", _typed.cattrs, "pip install cattrs")
    sent = [
        Pointed(1, Point(1.5, 2.0)),
        Shaped(2, SHAPE),
        Shapes(3, [SHAPE, SHAPE]),
        Tagged(4, Tag("b")),
        Words(5, {"a": [1]}),
    ]
    got = await Ends([Pointed, Shaped, Shapes, Tagged, Words]).cross(*sent)
    assert got == sent
    assert [type(event) for event in got] == [type(event) for event in sent]
    assert type(got[1].payload.points[0]) is Spot


@virtual_time
async def test_unknown_classes_come_as_plain_events() -> None:
    """Who does not know a class gets what JSON has of it."""
    (got,) = await Ends([]).cross(Pointed(1, Point(1.5)))
    assert (type(got).__name__, got.type, got.payload["x"]) == ("Event", "Pointed", 1.5)


@pytest.mark.parametrize(
    ("cls", "payload"),
    [
        (Pointed, {"x": 1.0, "z": 2.0}),
        (Pointed, {}),
        (Pointed, [1.0]),
        (Pointed, None),
        (Evened, {"number": 3}),
        (Shaped, {}),
        (Shaped, None),
        (Shaped, {"points": [{"x": "1"}], "colour": "red", "at": NOW.isoformat(), "id": str(SHAPE.id)}),
        (Shaped, {"points": [], "colour": "green", "at": NOW.isoformat(), "id": str(SHAPE.id)}),
        (Shaped, {"points": [], "colour": "red", "at": "yesterday", "id": str(SHAPE.id)}),
        (Shaped, {"points": [], "colour": "red", "at": NOW.isoformat(), "id": str(SHAPE.id), "more": 1}),
        (Shapes, {"points": []}),
        (Tagged, {"name": 5}),
    ],
)
def test_what_does_not_fit_is_a_bad_event(cls: type[NamedEvent[Any]], payload: Any) -> None:
    """Whatever is wrong, and whatever a validator raises, it is one error."""
    require("cattrs", _typed.cattrs, "pip install cattrs")
    rows = Rows([cls])
    with pytest.raises(BadEvent, match=f"payload of a {cls.__name__}"):
        rows.unpack([1, cls.event_type, payload], 0, 0.0, EventMeta())


def test_a_constructor_that_refuses_is_a_bad_event() -> None:
    """What a class of named events raises costs its event, and not the connection."""

    class Picky(NamedEvent[int]):
        def __init__(self, id: int, payload: int, **options: Any) -> None:
            if payload < 0:
                raise LookupError("below zero")
            super().__init__(id, payload, **options)

    rows = Rows([Picky])
    assert rows.unpack([1, Picky.event_type, 1], 0, 0.0, EventMeta()).payload == 1
    with pytest.raises(BadEvent, match="makes no Picky"):
        rows.unpack([1, Picky.event_type, -1], 0, 0.0, EventMeta())


def test_without_cattrs_flat_payloads_work_and_others_say_what_is_missing(monkeypatch: Any) -> None:
    """The error names the class and what to install; nobody needs it who has flat payloads only."""
    monkeypatch.setattr(_typed, "cattrs", None)
    rows = Rows([Pointed, Words])
    payload = {"x": 1.5, "y": 2.0, "_note": "n", "size": 0.0}
    event = rows.unpack([1, "Pointed", payload], 0, 0.0, EventMeta())
    assert event.payload == Point(1.5, 2.0, "n")
    for cls in (Shaped, Shapes, Tagged):
        with pytest.raises(ConfigError, match=rf"{cls.__name__}.*pip install 'event-nexus\[cattrs\]'"):
            Link.connect("tcp://127.0.0.1:1", types=[cls])


PAYLOADS = st.sampled_from(
    [
        1,
        None,
        "null",
        float("nan"),
        [1, [2]],
        {"a": 1.5},
        {"a": {"b": {"c": []}}},
        "x" * 300,
        {1: 2},
        object(),
        2**70,
    ]
)


@given(
    events=st.lists(
        st.tuples(st.integers(-(2**70), 2**70) | st.booleans(), PAYLOADS), min_size=1, max_size=9
    ),
    kind=st.sampled_from(["t", 3, True]),
    odd=st.integers(0, 20),
)
def test_many_rows_are_the_rows_of_each(events: list[tuple[Any, Any]], kind: Any, odd: int) -> None:
    """Made together they are the same bytes, up to the first with metadata or that cannot be sent."""
    rows = Rows()
    made = [
        Event(number, kind, 0, payload, **({"headers": {"a": 1}} if place == odd else {}))
        for place, (number, payload) in enumerate(events)
    ]
    expected = []
    for place, event in enumerate(made):
        try:
            row = rows.pack(event)
        except PackerError:
            break
        if place == odd:
            break
        expected.append(row)
    assert rows.pack_many(made) == expected
