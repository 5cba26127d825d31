"""How much of a flood stands in the far nexus, and who finds room beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nexus import AsyncEventNexus, AsyncEventPriorityQueue, DropOldest, Event
from nexus.boundaries.link import Link
from nexus.boundaries.link._depth import DEPTH, Depth
from nexus.boundaries.link._outflow import FRAME_EVENTS
from nexus.errors import BadCall
from nexus.testing import MemoryWire, assert_ledger_balanced, virtual_time

PACE = 0.0005
"""Seconds that the far handler takes for an event."""
MOST = DEPTH + FRAME_EVENTS


class World:
    """A near nexus that floods a far one, whose handler takes its time."""

    def __init__(self, maxsize: int) -> None:
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far", maxsize=maxsize)
        wires = list(MemoryWire.pair())

        async def dial() -> MemoryWire:
            return wires.pop()

        self.link, self.back = Link.over(dial, name="here"), Link.over(dial, name="there")
        self.near.register(self.link)
        self.far.register(self.back)
        for type_ in ("t", "ask"):
            self.near.add_handler(type_, self.link)
        self.far.add_handler("t", self.handle)
        self.got: list[Any] = []
        self.deepest = 0

    async def handle(self, event: Event[Any], queue: object) -> None:
        self.deepest = max(self.deepest, len(self.far.queue.lanes[event.priority].line))
        self.got.append(event.payload)
        await asyncio.sleep(PACE)

    async def flood(self, count: int) -> None:
        """Give events here that are for over there."""
        await self.near.ingest_many(Event(number, "t", 0, number) for number in range(count))

    async def all_across(self) -> None:
        """Wait until everything is handled on the far side."""
        await self.near.drained()
        assert await self.link.flushed(600)
        await self.far.drained()


@asynccontextmanager
async def world(maxsize: int = 10_000) -> AsyncIterator[World]:
    it = World(maxsize)
    async with it.near, it.far:
        await it.link.connected(60)
        yield it
    for nexus in (it.near, it.far):
        assert_ledger_balanced(nexus)


@virtual_time
async def test_a_flood_over_a_link_stays_shallow() -> None:
    """However much room the far lane has, little more than the depth stands there; all comes, in order."""
    async with world() as it:
        await it.flood(5000)
        await asyncio.sleep(1)
        assert (
            it.link.depths()[0] > 5000 - len(it.got) - 3 * MOST
        )  # the others are still where they came from
        await it.all_across()
        assert it.got == list(range(5000))
        assert DEPTH // 2 < it.deepest <= MOST


@virtual_time
async def test_a_lane_that_had_room_is_never_empty_in_a_flood() -> None:
    """What waits gets in while there is still something to handle: the handler never waits for more."""
    async with world() as it:
        began = asyncio.get_running_loop().time()
        await it.flood(5000)
        await it.all_across()
        assert asyncio.get_running_loop().time() - began < 5000 * PACE + 0.1


@pytest.mark.parametrize("pause", [0, 2 * PACE])
@pytest.mark.parametrize("maxsize", [100, 1000, 10_000])
@virtual_time
async def test_who_gives_there_and_a_link_share_a_lane(maxsize: int, pause: float) -> None:
    """A flood at the same priority, or a steady flow, does not keep the link out, nor the link them."""
    async with world(maxsize) as it:

        async def give() -> None:
            while True:
                await it.far.ingest(Event(0, "t", 0, -1))
                await asyncio.sleep(pause)

        giving = asyncio.create_task(give())
        await it.flood(8000)
        await asyncio.sleep(2 * maxsize * PACE)
        before = len(it.got)
        await asyncio.sleep(1000 * PACE)
        giving.cancel()
        assert 300 < it.got[before:].count(-1) < 600
        await it.all_across()
        assert [payload for payload in it.got if payload >= 0] == list(range(8000))


@virtual_time
async def test_the_depth_holds_while_nobody_wants_the_room() -> None:
    """A lane that is full, that somebody waits for, or that is closed, is contended for as ever."""
    queue = AsyncEventPriorityQueue(maxsize=DEPTH + 1)
    depth = Depth(queue, lambda priority: 0, lambda: False)
    for number in range(DEPTH):
        await queue.put(Event(number, "t", 0, number))
    assert not depth.is_reached(0)
    depth.note(0)
    assert depth.is_reached(0)
    queue.put_nowait(Event(0, "t", 0, 0))
    assert not depth.is_reached(0)
    waiting = asyncio.create_task(queue.put(Event(0, "t", 0, 0)))
    await asyncio.sleep(0)
    queue.lanes[0].line.pop()
    assert not depth.is_reached(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert depth.is_reached(0)
    queue.close(lambda: BadCall("closed"))
    assert not depth.is_reached(0)


@virtual_time
async def test_a_policy_of_the_far_nexus_sees_the_flood() -> None:
    """What a policy is to shed reaches the lane, and holds nobody up."""
    async with world(1000) as it:
        it.far.set_policy("t", DropOldest())
        await it.flood(5000)
        await it.near.drained()
        assert await it.link.flushed(0.5)
        await it.far.drained()
        assert it.got == sorted(it.got)
        assert it.got[-1] == 4999
        assert 1000 <= len(it.got) < 3000


@virtual_time
async def test_who_asks_out_of_a_handler_hears_the_answer_behind_a_flood() -> None:
    """Where the answer may be behind what waits for the asking handler itself, that does not wait."""
    async with world() as it:
        heard: list[Any] = []

        async def ask(event: Event[Any], queue: object) -> None:
            heard.append((await it.back.request(Event(1, "what", 0, None), 5)).payload)

        async def answer(event: Event[Any], queue: Any) -> None:
            await asyncio.sleep(0.01)
            await queue.put(event.reply("that", type="answer"))

        it.far.add_handler("ask", ask)
        it.near.add_handler("what", answer)
        it.near.add_handler("answer", it.link)
        await it.flood(400)
        await it.near.ingest(Event(1, "ask", 0, None))
        await it.flood(3000)
        await it.all_across()
        assert heard == ["that"]
        assert it.got == [*range(400), *range(3000)]


@pytest.mark.parametrize("grace", [0.1, 60.0])
@virtual_time
async def test_a_stop_in_a_flood(grace: float) -> None:
    """What the far nexus has taken it handles, or reports; what waits is not accepted, and nothing hangs."""
    async with world() as it:
        await it.flood(5000)
        await asyncio.sleep(0.5)
        async with asyncio.timeout(70):
            report = await it.far.stop(grace=grace)
        assert it.got == list(range(len(it.got)))
        assert it.back.counts.received - MOST <= len(it.got) <= it.back.counts.received
        assert len(it.got) == it.back.counts.received or report is not None
        assert it.link.counts.accepted <= it.back.counts.received
