"""What waits for a nexus waits unread: bad frames, deadlines and answers among it, and its size."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link
from nexus.boundaries.link._frames import (
    _EVENTS_HEAD,
    Ack,
    BadLinkFrame,
    Bye,
    Events,
    Frame,
    Hello,
    Ping,
    Pong,
    pack,
    pack_events,
    unpack,
)
from nexus.testing import MemoryWire, assert_ledger_balanced, virtual_time

ROOM = 4
"""Events that the nexus holds."""


class World:
    """A nexus that takes an event when it is told to, with a link whose other side the test plays by hand."""

    def __init__(self) -> None:
        self.nexus = AsyncEventNexus(name="far", maxsize=ROOM)
        self.link = Link.over(self.dial, name="there")
        self.nexus.register(self.link)
        self.nexus.add_handler("t", self.handle)
        self.got: list[int] = []
        self.go = asyncio.Event()
        self.wires: asyncio.Queue[MemoryWire] = asyncio.Queue()

    async def handle(self, event: Event[int], queue: object) -> None:
        await self.go.wait()
        self.got.append(event.payload)

    async def dial(self) -> MemoryWire:
        here, there = MemoryWire.pair()
        self.wires.put_nowait(there)
        return here

    async def meet(self) -> MemoryWire:
        """Be connected to, and say hello."""
        wire = await self.wires.get()
        await wire.send([pack(Hello("here", "here", "source", ((0, 1),)))])
        await wire.send([pack(Ack(64))])
        return wire

    async def say(self, wire: MemoryWire, *frames: bytes) -> None:
        """Send frames, and wait until the link has taken them."""
        for frame in (*frames, pack(Ping(b"are you?"))):
            await wire.send([frame])
        heard: list[Frame] = []
        while not any(isinstance(each, Pong) for each in heard):
            heard += await self.hear(wire)

    async def hear(self, wire: MemoryWire) -> list[Frame]:
        """Give the next frames that the link says."""
        return [unpack(each) for message in await wire.receive() for each in message]

    async def hear_the_last(self, wire: MemoryWire) -> str:
        """Wait until the connection ends; give the reason that the link says."""
        heard: list[Frame] = []
        with contextlib.suppress(ConnectionError):
            while True:
                heard += await self.hear(wire)
        (reason,) = (each.reason for each in heard if isinstance(each, Bye))
        return reason

    async def handled(self, count: int) -> None:
        """Wait until the nexus has had so many events, and is done with them."""
        async with asyncio.timeout(5):
            while self.link.counts.received < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await self.nexus.drained()

    def waiting(self) -> list[bool]:
        """Say of each frame that waits whether it is unread."""
        (line,) = self.link._lines.values()
        return [batch.events is None for batch in line._pending.get(0, ())]


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    it = World()
    async with it.nexus:
        yield it
    assert_ledger_balanced(it.nexus)


def frame(first: int, last: int, **words: Any) -> bytes:
    """Make a frame of events that say their numbers."""
    more = (words,) if words else ()
    rows = [orjson.dumps((number, "t", number, *more)) for number in range(first, last + 1)]
    return pack_events(0, first, 1, rows)


def bad(first: int, rows: bytes, count: int = 1) -> bytes:
    """Make a frame that is none, but for its head."""
    return _EVENTS_HEAD.pack(2, 0, first, 1, count) + rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b'[[9,"t"]]', "list of id"),
        (b'[[9,"t",9],', "no JSON"),
        (b'[[9,"t",9],[10,"t",10]]', "a list of them, not 2"),
        (b"1234", "no list"),
    ],
)
@virtual_time
async def test_a_bad_frame_that_waited_costs_its_connection_alone(rows: bytes, said: str) -> None:
    """All that came before it is handled, nothing twice; what came after it comes again."""
    async with world() as it:
        wire = await it.meet()
        await it.say(wire, frame(1, 6), frame(7, 8), bad(9, rows), frame(10, 12))
        assert it.waiting() == [False, True, True, True]
        it.go.set()
        assert said in await it.hear_the_last(wire)
        await it.say(await it.meet(), frame(7, 12))
        await it.handled(12)
        assert it.got == list(range(1, 13))
        assert it.link.counts.received == 12


@pytest.mark.parametrize(("first", "rows"), [(1, b"[[1]]"), (1, b"[1,2,3]"), (2, b"[oops]")])
@virtual_time
async def test_a_bad_frame_that_finds_room_costs_its_connection_alone(first: int, rows: bytes) -> None:
    """Where it is read at once, or stands behind a gap and is refused there, it is not accepted either."""
    async with world() as it:
        wire = await it.meet()
        await wire.send([bad(first, rows)])
        await it.hear_the_last(wire)
        it.go.set()
        await it.say(await it.meet(), frame(1, 2))
        await it.handled(2)
        assert it.got == [1, 2]


@virtual_time
async def test_a_deadline_runs_while_its_event_waits_unread() -> None:
    """The time left counts from when it came, not from when it was read."""
    async with world() as it:
        loop = asyncio.get_running_loop()
        wire = await it.meet()
        it.nexus.add_handler("late", lambda event: it.got.append(event.deadline - loop.time()))
        row = orjson.dumps((7, "late", 7, {"due": 1 + 10_000_000}))
        await it.say(wire, frame(1, 6), pack_events(0, 7, 1, [row]), frame(8, 8, due=1 + 2_000_000))
        assert it.waiting() == [False, True, True]
        await asyncio.sleep(3)
        it.go.set()
        await it.handled(8)
        assert it.got == [1, 2, 3, 4, 5, 6, pytest.approx(7, abs=0.1)]
        assert_ledger_balanced(it.nexus, handled=7, expired=1)


@virtual_time
async def test_an_answer_is_heard_among_what_waits() -> None:
    """Who asks the other side out of a handler, with events waiting before the answer, hears it."""
    async with world() as it:
        answers: list[Any] = []

        async def ask(event: Event[int], queue: object) -> None:
            answers.append((await it.link.request(Event(1, "what", 0, 0), 5)).payload)

        it.nexus.add_handler("ask", ask)
        wire = await it.meet()
        await it.say(wire, pack_events(0, 1, 1, [b'[1,"ask",1]']), frame(2, 9), frame(10, 11))
        it.go.set()
        assert it.waiting() == [False, True]
        while not (found := [each for each in await it.hear(wire) if isinstance(each, Events)]):
            pass
        ((*_, words),) = found[0].read()
        answer = orjson.dumps((12, "what", "that", {"route": words["reply_to"]}))
        await it.say(wire, pack_events(0, 12, 1, [answer]))
        await it.handled(12)
        assert answers == ["that"]
        assert it.got == list(range(2, 12))


@virtual_time
async def test_a_stop_with_frames_that_wait_unread() -> None:
    """What the nexus has is handled, what waited is not accepted, and nothing hangs."""
    it = World()
    async with it.nexus:
        wire = await it.meet()
        await it.say(wire, frame(1, 6), frame(7, 9))
        assert it.waiting() == [False, True]
        asyncio.get_running_loop().call_later(1, it.go.set)
        async with asyncio.timeout(20):
            await it.nexus.stop()
    assert it.got == list(range(1, 1 + it.link.counts.received))
    assert 4 <= len(it.got) <= 6


@pytest.mark.parametrize(("count", "rows"), [(0, b"[]"), (1025, b"[" + b"1," * 1024 + b"1]"), (9, b"[1,2]")])
def test_a_frame_has_as_many_rows_as_it_says(count: int, rows: bytes) -> None:
    """A count that cannot be is refused before anything is read: the window and the bytes go by it."""
    with pytest.raises(BadLinkFrame, match="a frame of events has 1 to 1024"):
        unpack(bad(1, rows, count))
    found = unpack(bad(1, b"[null,null]", 2))
    assert isinstance(found, Events)
    assert (len(found), found.size, found.read()) == (2, 8, [None, None])
