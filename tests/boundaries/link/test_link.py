"""The link in virtual time: over wires that lose, repeat, reorder, break and are slow."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event, NamedEvent
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._outflow import Outflow
from nexus.testing import MemoryWire, virtual_time


class Between:
    """Gives each side its end of a new wire whenever both want one."""

    def __init__(self, **weather: Any) -> None:
        self.weather = weather
        self.rng = random.Random(weather.pop("seed", 0))
        self.wires: list[MemoryWire] = []
        self.waiting: asyncio.Future[MemoryWire] | None = None
        self.is_cut = False

    async def dial(self) -> MemoryWire:
        while self.is_cut:
            raise ConnectionRefusedError("cut")
        if self.waiting is None or self.waiting.done():
            self.waiting = asyncio.get_running_loop().create_future()
            return await self.waiting
        here, there = MemoryWire.pair(rng=self.rng, **self.weather)
        self.wires += [here, there]
        self.waiting.set_result(there)
        return here

    def break_now(self) -> None:
        """Break the connection there is."""
        for wire in self.wires:
            wire.close()
        self.wires.clear()


class World:
    """Two nexuses, a link between them, and what the far one handled."""

    def __init__(
        self, limits: LinkLimits | None = None, *, near: int = 10_000, far: int = 10_000, **weather: Any
    ) -> None:
        self.between = Between(**weather)
        self.near = AsyncEventNexus(name="near", maxsize=near)
        self.far = AsyncEventNexus(name="far", maxsize=far)
        self.link = Link.over(self.between.dial, name="here", limits=limits)
        self.back = Link.over(self.between.dial, name="there", limits=limits)
        self.near.register(self.link)
        self.far.register(self.back)
        self.near.add_handler("t", self.link)
        self.got: list[Any] = []
        self.far.add_handler("t", lambda event: self.got.append(event.payload))

    async def all_across(self) -> None:
        """Wait until everything is handled on the far side."""
        await self.near.drained()
        assert await self.link.flushed(600)
        await self.far.drained()


@asynccontextmanager
async def world(limits: LinkLimits | None = None, **weather: Any) -> AsyncIterator[World]:
    """Run both."""
    found = World(limits, **weather)
    async with found.near, found.far:
        await found.link.connected(60)
        yield found


def events(count: int, *, priority: int = 0, start: int = 0) -> list[Event[int]]:
    return [Event(number, "t", priority, number) for number in range(start, start + count)]


@virtual_time
async def test_events_cross_once_and_in_order() -> None:
    """What one nexus is given the other one handles, and both accounts add up."""
    async with world() as it:
        await it.near.ingest_many(events(1000))
        await it.all_across()
        assert it.got == list(range(1000))
        assert (it.link.counts.taken, it.link.counts.accepted, it.back.counts.received) == (1000, 1000, 1000)
        assert it.link.counts.resent == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "weather",
    [{"loss": 0.2}, {"duplicate": 0.3}, {"reorder": 0.3}, {"loss": 0.1, "duplicate": 0.1, "reorder": 0.1}],
)
@virtual_time
async def test_bad_weather_loses_and_repeats_nothing(weather: dict[str, float], seed: int) -> None:
    """Over a wire that loses, repeats and reorders, all comes once and in the order of its lane."""
    async with world(delay=(0.0, 0.02), seed=seed, **weather) as it:
        for number in range(10):
            await it.near.ingest_many(events(50, priority=number % 3, start=50 * number))
            await asyncio.sleep(0.01)
        await it.all_across()
        for lane in range(3):
            mine = [n for n in it.got if (n // 50) % 3 == lane]
            assert mine == sorted(set(mine))
        assert sorted(it.got) == list(range(500))


@virtual_time
async def test_broken_connections_lose_and_repeat_nothing() -> None:
    """Each time the connection breaks both sides go on where they were."""
    async with world(delay=(0.001, 0.002)) as it:
        for number in range(40):
            await it.near.ingest_many(events(50, start=50 * number))
            await asyncio.sleep(0.003)
            it.between.break_now()
            await it.link.connected(60)
        await it.all_across()
        assert it.got == list(range(2000))


@virtual_time
async def test_an_urgent_event_overtakes_on_a_slow_wire() -> None:
    """With the wire full of bulk, an urgent event waits for one window, and not for the backlog."""
    limits = LinkLimits(most_window=32, target=0.05)
    async with world(limits, delay=(0.02, 0.02)) as it:
        moments: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        it.near.add_handler("alarm", it.link)
        it.far.add_handler("alarm", lambda event: moments.setdefault("handled", loop.time()))
        await it.near.ingest_many(events(5000, priority=5))
        await asyncio.sleep(0.1)
        moments["given"] = loop.time()
        await it.near.ingest(Event(1, "alarm", -1, None))
        await it.all_across()
        assert moments["handled"] - moments["given"] < 0.1
        assert len(it.got) == 5000


@virtual_time
async def test_a_slow_nexus_holds_the_source_up() -> None:
    """The far nexus takes what it can; the near link holds its bound, and what gives events waits."""
    it = World(LinkLimits(maxsize=100, most_window=50), near=100, far=10)
    it.far.remove_handler("t")
    it.far.add_handler("t", lambda event: asyncio.sleep(0.01))
    async with it.near, it.far:
        await it.link.connected(60)
        giving = asyncio.ensure_future(it.near.ingest_many(events(2000)))
        await asyncio.sleep(1)
        assert not giving.done()
        assert it.link.counts.waiting <= 100
        assert it.far.queue.qsize() <= 10
        await giving
        await it.all_across()
        assert it.far.stats().types["t"].handled == 2000


@virtual_time
async def test_replies_find_their_way_back() -> None:
    """An answer comes out in the nexus that asked, with the id of the question."""
    async with world() as it:
        answers: list[Any] = []
        it.near.add_handler("ask", it.link)
        it.near.add_handler("answer", lambda event: answers.append((event.correlation, event.payload)))

        async def answer(event: Event[Any], queue: Any) -> None:
            await queue.put(event.reply(2 * event.payload, type="answer"))

        it.far.add_handler("ask", answer)
        await it.near.ingest(Event(7, "ask", 0, 21))
        await asyncio.sleep(1)
    assert answers == [(7, 42)]


@virtual_time
async def test_events_do_not_go_in_circles() -> None:
    """An event that came over a link is not sent back where it came from."""
    async with world() as it:
        it.far.remove_handler("t")
        it.far.add_handler("t", it.back)
        await it.near.ingest_many(events(10))
        await asyncio.sleep(1)
        assert it.back.counts.left_out == {"loop": 10}
        assert it.near.stats().types["t"].handled == 10


@virtual_time
async def test_deadlines_travel() -> None:
    """What is too late on the other side is expired there, by the time that was left when it was sent."""
    async with world(delay=(0.5, 0.5)) as it:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2)
        it.far.add_handler("busy", lambda event: asyncio.sleep(0.2))
        it.near.add_handler("busy", it.link)
        await it.near.ingest(Event(0, "busy", 0, None))
        await it.near.ingest(Event(1, "t", 0, "soon", deadline=loop.time() + 0.1))
        await it.near.ingest(Event(2, "t", 0, "later", deadline=loop.time() + 10))
        await asyncio.sleep(2)
        assert it.got == ["later"]
        assert it.far.stats().types["t"].expired == 1


@virtual_time
async def test_what_is_too_late_never_goes() -> None:
    """An event whose time is over while it waits in the link is counted there, and does not cross."""
    async with world(delay=(0.01, 0.01)) as it:
        it.between.is_cut = True
        it.between.break_now()
        await asyncio.sleep(0.1)
        now = asyncio.get_running_loop().time()
        for number in range(10):
            await it.near.ingest(Event(number, "t", 0, number, deadline=now + (1 if number % 2 else 100)))
        await it.near.drained()
        await asyncio.sleep(5)
        it.between.is_cut = False
        await it.all_across()
        counts = it.link.counts
        assert it.got == [0, 2, 4, 6, 8]
        assert (counts.taken, counts.accepted, counts.waiting, counts.lost) == (10, 5, 0, {"expired": 5})
        assert it.back.counts.received == 5


@virtual_time
async def test_places_of_nothing_break_no_count() -> None:
    """Where a connection breaks between events of a frame that some have left, nothing comes twice."""
    it = World(LinkLimits(maxsize=5000), far=1)
    it.far.remove_handler("t")
    got: list[Any] = []

    async def slow(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        got.append(event.payload)

    it.far.add_handler("t", slow)
    async with it.near, it.far:
        await it.link.connected(60)
        it.between.is_cut = True
        it.between.break_now()
        await asyncio.sleep(0.1)
        now = asyncio.get_running_loop().time()
        wanted = [number for number in range(300) if number % 3 == 2]
        for number in range(300):
            deadline = None if number % 3 == 2 else now + 1
            await it.near.ingest(Event(number, "t", 0, number, deadline=deadline))
        await it.near.drained()
        await asyncio.sleep(5)
        it.between.is_cut = False
        for _ in range(10):
            await it.link.connected(60)
            await asyncio.sleep(0.033)
            it.between.break_now()
            await asyncio.sleep(0.01)
        await it.all_across()
    assert got == wanted
    assert it.link.counts.lost == {"expired": 200}


async def shared(max_rate: float | None) -> tuple[int, int]:
    """Let one side flood a nexus that handles a thousand a second, where another one gives 800; return how
    many of each were handled in a second and a half."""
    got = {"flood": 0, "good": 0}
    hub = AsyncEventNexus(name="hub", maxsize=100)

    async def work(event: Event[Any]) -> None:
        await asyncio.sleep(0.001)
        got[event.type] += 1  # type: ignore[index]

    nexuses = [hub]
    for name in got:
        hub.add_handler(name, work)
        between = Between(delay=(0.005, 0.005))
        limits = LinkLimits(max_rate=max_rate if name == "flood" else None)
        hub.register(Link.over(between.dial, name=f"hub-{name}", limits=limits))
        nexuses.append(nexus := AsyncEventNexus(name=name))
        nexus.register(link := Link.over(between.dial, name=name))
        nexus.add_handler(name, link)
    async with nexuses[0], nexuses[1], nexuses[2]:
        flooding = asyncio.ensure_future(
            nexuses[1].ingest_many(Event(n, "flood", 0, n) for n in range(5_000))
        )
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1)
        before, began = dict(got), loop.time()
        number = 0
        while loop.time() < began + 1.5:
            if (loop.time() - began) * 800 > number:
                number += 1
                if nexuses[2].queue.qsize() < 5000:
                    await nexuses[2].ingest(Event(number, "good", 0, number))
            else:
                await asyncio.sleep(0.001)
        found = {name: got[name] - before[name] for name in got}
        flooding.cancel()
        return found["flood"], found["good"]


@virtual_time
async def test_a_flood_of_one_side_leaves_the_others_their_rate() -> None:
    """With `max_rate` a side that sends all it can gets that much, and another one what it needs."""
    flood, good = await shared(100)
    assert 130 <= flood <= 170
    assert good >= 0.9 * 1200
    assert (await shared(None))[1] < 0.9 * 1200


@virtual_time
async def test_large_events_hold_the_source_up_by_their_bytes() -> None:
    """Events of a megabyte wait at their source when the far nexus is slow, and all come."""
    limits = LinkLimits(window_bytes=4 * 2**20, window_bytes_total=6 * 2**20)
    it = World(limits, far=1)
    it.far.remove_handler("t")
    it.far.add_handler("t", lambda event: asyncio.sleep(0.05))
    most = 0
    async with it.near, it.far:
        await it.link.connected(60)
        for priority in (0, 5):
            await it.near.ingest_many(Event(n, "t", priority, "x" * 2**19) for n in range(40))
        while it.back.counts.received < 80:
            await asyncio.sleep(0.02)
            inflow = it.back._peers.only().inflow
            assert inflow is not None
            most = max(most, inflow.bytes)
            assert inflow.refused == 0
        await it.all_across()
    assert 3 * 2**20 < most <= 6 * 2**20 + 2 * 2**19
    assert it.link.counts.resent == 0


class Hot(NamedEvent[Any]):
    """Too hot."""


@virtual_time
async def test_named_events_keep_their_class() -> None:
    """A class that the far link knows comes back as what it was; others come as plain events."""
    it = World()
    it.back = Link.over(it.between.dial, name="there", types=[Hot])
    it.far = AsyncEventNexus(name="far")
    it.far.register(it.back)
    it.near.add_handler(Hot, it.link)
    kinds: list[type] = []
    it.far.add_handler(Hot, lambda event: kinds.append(type(event)))
    async with it.near, it.far:
        await it.link.connected(60)
        await it.near.ingest(Hot(1, {"c": 99}))
        await it.all_across()
    assert kinds == [Hot]


@virtual_time
async def test_a_silent_side_is_taken_for_gone() -> None:
    """A wire that swallows everything is noticed within three heartbeats, and another one is made."""
    async with world() as it:
        it.between.wires[0].partition()
        await asyncio.sleep(8)
        assert it.link.link.ups >= 1
        await it.link.connected(60)
        await it.near.ingest_many(events(10))
        await it.all_across()


@virtual_time
async def test_a_wrong_token_is_turned_away() -> None:
    """Two ends that do not know the same secret never get together, and nothing crosses."""
    it = World()
    it.back = Link.over(it.between.dial, name="there", token="other")
    it.far = AsyncEventNexus(name="far")
    it.far.register(it.back)
    async with it.near, it.far:
        await it.near.ingest_many(events(3))
        await asyncio.sleep(2)
        assert it.link.link.state != "up"
        assert it.back.counts.received == 0


@virtual_time
async def test_a_side_that_is_away_may_cost_the_oldest() -> None:
    """With ``shed`` a full lane gives up its oldest while nobody is there; the rest goes, and all adds up."""
    async with world(LinkLimits(maxsize=100, away="shed")) as it:
        it.between.is_cut = True
        it.between.break_now()
        await asyncio.sleep(1)
        await it.near.ingest_many(events(1000))
        await it.near.ingest_many(events(3, priority=-1, start=5000))
        await it.near.drained()
        it.between.is_cut = False
        await it.all_across()
        counts = it.link.counts
    assert it.got == [5000, 5001, 5002, *range(900, 1000)]
    assert counts.lost == {"shed": 900}
    assert counts.taken == counts.accepted + counts.waiting + sum(counts.lost.values()) == 1003


@virtual_time
async def test_a_side_that_is_away_holds_the_source_up() -> None:
    """With ``block`` what gives events waits until the other side is back, and nothing is lost."""
    async with world(LinkLimits(maxsize=100)) as it:
        it.between.is_cut = True
        it.between.break_now()
        await asyncio.sleep(1)
        giving = asyncio.ensure_future(it.near.ingest_many(events(20_000)))
        await asyncio.sleep(10)
        assert not giving.done()
        it.between.is_cut = False
        await giving
        await it.all_across()
    assert it.got == list(range(20_000))


@pytest.mark.parametrize("maxsize", [1, 2, 3, 5])
@virtual_time
async def test_room_that_comes_at_once_is_taken(maxsize: int) -> None:
    """Events that find a tiny queue full go in as it empties, also where it does so before they wait."""
    async with world(far=maxsize, near=10) as it:
        for number in range(20):
            priorities = (number % 3, 0)
            await it.near.ingest_many(
                [event for p in priorities for event in events(7, priority=p, start=7 * number)]
            )
            await asyncio.sleep(0.001 * (number % 2))
        await it.all_across()
        assert len(it.got) == 280


class Absent:
    """Another side that was never there, and whose lane is full."""

    stream = None
    domain = ""
    away_since = -1000.0

    def __init__(self) -> None:
        self.outflow = Outflow(maxsize=1)
        assert self.outflow.push(0, b"[]")


@virtual_time
async def test_an_event_waits_where_all_who_were_known_are_given_up_at_once() -> None:
    """A listener that forgets everybody at the same moment keeps the event for whoever comes."""
    link = Link.listen("tcp://127.0.0.1:0", limits=LinkLimits(forget_after=1.0))
    absent: Any = [Absent(), Absent()]
    link._peers._known = {str(number): each for number, each in enumerate(absent)}
    link._peers.all = absent
    assert not link.handle_nowait(Event(1, "t", 0, 1))
    assert len(link._peers) == 0
    assert link.counts.taken == 0
    assert link.counts.lost == {"forgotten": 2}
