"""A link that promises nothing but its account: what is lost with a connection is counted, to the event."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from failing_world import Net, Trace

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.testing import assert_ledger_balanced, virtual_time

LIMITS = LinkLimits(patience=1.0, heartbeat=20.0, flush_timeout=1.0)


class Ends:
    """Two nexuses, and a link between them that sends each event once."""

    def __init__(self, seed: int, **weather: Any) -> None:
        self.net = Net(random.Random(seed), Trace())
        self.net.weather = weather
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far", maxsize=50)
        self.here, self.there = (
            Link.over(self.net.dial, name=name, limits=LIMITS, delivery="best_effort")
            for name in ("here", "there")
        )
        self.got: list[tuple[int, int]] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.near.register(self.here)
        self.far.register(self.there)
        self.near.add_handler("n", self.here)
        self.far.add_handler("n", self.take)

    async def take(self, event: Event[Any]) -> None:
        await self.may_go_on.wait()
        self.got.append((event.priority, event.id))

    def check(self) -> None:
        """Hold the accounts of both sides against themselves and against each other."""
        counts = self.here.counts
        assert counts.taken == counts.accepted + counts.waiting + sum(counts.lost.values())
        assert set(counts.lost) <= {"unacknowledged"}
        assert counts.accepted <= self.there.counts.received
        assert_ledger_balanced(self.near)
        assert_ledger_balanced(self.far)

    async def give(self, first: int, count: int, size: int = 1) -> None:
        await self.near.ingest_many([Event(n, "n", n % 2, "x" * size) for n in range(first, first + count)])
        await self.near.drained()


@asynccontextmanager
async def ends(seed: int = 1, **weather: Any) -> AsyncIterator[Ends]:
    it = Ends(seed, **weather)
    async with it.far, it.near:
        await it.here.connected(10)
        yield it
    it.net.retire()


@virtual_time
async def test_what_is_on_its_way_when_the_connection_ends_is_lost_and_counted() -> None:
    """What had gone and was not acknowledged does not go again; what had not gone goes on."""
    async with ends(delay=(0.1, 0.1)) as it:
        await it.give(0, 20)
        await asyncio.sleep(1)
        assert it.here.counts.accepted == 20
        await it.give(20, 500)
        await asyncio.sleep(0.05)
        it.net.breaks()
        await it.here.connected(10)
        assert await it.here.flushed(60)
        counts = it.here.counts
        assert counts.lost["unacknowledged"] > 0
        assert counts.taken == 520 == counts.accepted + counts.lost["unacknowledged"]
        await it.far.drained()
        assert len(it.got) == counts.accepted
        it.check()


@virtual_time
async def test_what_is_on_its_way_takes_no_memory() -> None:
    """Events that have gone and are not accepted yet cost a few bytes each, however large they are."""
    async with ends() as it:
        it.may_go_on.clear()
        await it.give(0, 200, size=20_000)
        await asyncio.sleep(5)
        lanes = [lane for peer in it.here._peers for lane in peer.outflow._lanes.values()]
        flying = sum(len(lane.flight) for lane in lanes)
        assert flying > 0
        assert sum(sum(map(len, lane.flight)) for lane in lanes) < 10 * flying
        assert sum(lane.bytes for lane in lanes) < 20_100 * sum(len(lane.waiting) for lane in lanes) + 2000
        it.check()
        it.may_go_on.set()
        assert await it.here.flushed(60)
        assert it.here.counts.accepted == 200
        assert not any(lane.bytes or lane.flying or lane.sizes or lane.given_up for lane in lanes)


@pytest.mark.parametrize("seed", range(10))
@virtual_time
async def test_the_account_is_exact_in_any_weather(seed: int) -> None:
    """While connections break and messages are lost, nothing comes twice or out of order, and at every moment
    what was taken is accepted, waiting or lost."""
    chance = random.Random(seed)
    async with ends(seed, loss=0.1, duplicate=0.1, reorder=0.2, delay=(0.0, 0.05)) as it:
        for number in range(60):
            await it.give(number * 40, chance.randrange(40))
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.5)))
            it.check()
            if chance.random() < 0.3:
                it.net.breaks()
            it.check()
        it.net.weather = {}
        it.net.breaks()
        assert await it.here.flushed(600)
        await it.far.drained()
        it.check()
        counts = it.here.counts
        assert counts.waiting == 0
        assert counts.lost["unacknowledged"] > 0
        assert counts.taken - counts.lost["unacknowledged"] <= len(it.got) <= counts.taken
        for priority in (0, 1):
            lane = [number for found, number in it.got if found == priority]
            assert lane == sorted(set(lane))


@virtual_time
async def test_whoever_waits_hears_of_the_last_that_was_lost() -> None:
    """A flush ends also where the last thing that was on its way is lost, and not accepted."""
    async with ends(delay=(0.1, 0.1)) as it:
        await it.give(0, 2)
        await asyncio.sleep(1)
        await it.give(2, 1)
        await asyncio.sleep(0.05)
        it.net.weather = {"loss": 1.0}
        it.net.breaks()
        flushing = asyncio.ensure_future(it.here.flushed(600))
        await asyncio.sleep(5)
        it.net.weather = {}
        it.net.breaks()
        await asyncio.sleep(60)
        assert flushing.done()
        assert flushing.result()
        assert it.here.counts.lost == {"unacknowledged": 1}
        it.check()
