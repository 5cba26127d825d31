"""Events that a handler takes many at a time and says later that it has handled, and events that are told."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from nexus import AsyncEventNexus, DropOldest, Event, EventConsumer, SecondaryQueue
from nexus._done import Done
from nexus.testing import assert_ledger_balanced, virtual_time


class Shop:
    """Makes events, some of which tell how they end, and notes what they told and how the books stood."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.nexus = AsyncEventNexus(maxsize=self.chance.choice((5, 100, 10_000)))
        self.given: list[Event[Any]] = []
        self.ends: dict[int, str] = {}

    async def give(self, count: int, *, bad: float = 0.0) -> None:
        for number in range(len(self.given), len(self.given) + count):
            meta: dict[str, Any] = {}
            if self.chance.random() < 0.7:
                meta["on_settled"] = self.told(number)
            if self.chance.random() < 0.02:
                meta["deadline"] = 1e9
            kind = "a" if self.chance.random() < 0.97 else "b"
            payload = "bad" if self.chance.random() < bad else number
            self.given.append(Event(number, kind, self.chance.choice((0, 0, 0, -1, 4)), payload, **meta))
            await self.nexus.ingest(self.given[-1])
            if self.chance.random() < 0.01:
                await asyncio.sleep(0.02)

    def told(self, number: int) -> Callable[[str], None]:
        def tell(outcome: str) -> None:
            assert number not in self.ends
            assert self.nexus.stats().balanced
            self.ends[number] = outcome

        return tell

    def each(self, events: list[Event[Any]]) -> list[list[int]]:
        """Give the numbers of some events by type and priority."""
        lanes = itertools.product("ab", (-1, 0, 4))
        return [[e.id for e in events if (e.type, e.priority) == lane] for lane in lanes]

    def outcome(self, event: Event[Any], outcome: str) -> bool:
        """Say whether an event that tells how it ends has told this, and another one nothing."""
        return self.ends.get(event.id, outcome) == outcome and (event.id in self.ends) == (
            event.meta.on_settled is not None
        )


class Shelf(EventConsumer):
    """Takes lots while it has room, and says now and then that they are handled; some of them have failed."""

    lanewise = True

    def __init__(self, shop: Shop, fails: float = 0.0) -> None:
        self.shop = shop
        self.fails = fails
        self.room = 0
        self.taken: list[tuple[list[Event[Any]], Done]] = []
        self.events: list[Event[Any]] = []
        self.failed: set[int] = set()
        self.lots: list[int] = []

    def handle_later(self, event: Event[Any], done: Done) -> bool:
        if event.payload == "bad":
            raise ValueError("no bad ones")
        return bool(self.handle_many_later([event], done))

    def handle_many_later(self, events: list[Event[Any]], done: Done) -> int:
        assert len({(event.type, event.priority) for event in events}) == 1
        good = next((n for n, event in enumerate(events) if event.payload == "bad"), len(events))
        count = min(good, self.room)
        self.room -= count
        if count:
            self.lots.append(count)
            self.taken.append((events[:count], done))
        return count

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        while not self.room:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.room -= 1
        if event.payload == "bad":
            raise ValueError("no bad ones")
        self.events.append(event)

    def commit(self) -> None:
        """Say of some lots, the first ones, that they are handled."""
        count = self.shop.chance.randrange(len(self.taken) + 1)
        taken, self.taken = self.taken[:count], self.taken[count:]
        for events, done in taken:
            exc = OSError("no disk") if self.shop.chance.random() < self.fails else None
            self.failed |= {event.id for event in events if exc}
            self.events += events
            done(exc)
            done(exc)  # once is enough

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.commit()
            self.room += self.shop.chance.choice((0, 1, 3, 70, 200))
            assert self.shop.nexus.stats().balanced


@pytest.mark.parametrize("seed", range(20))
@virtual_time
async def test_lots_are_settled_each_once_in_order(seed: int) -> None:
    """Whatever a handler leaves comes again; what it has taken counts when it says so; each is told once."""
    shop = Shop(f"later{seed}")
    shelf = Shelf(shop, fails=0.1)
    shop.nexus.add_handler("a", shelf)
    shop.nexus.add_handler("b", shelf)
    async with shop.nexus:
        going = asyncio.get_running_loop().create_task(shelf.go_on())
        await shop.give(shop.chance.choice((50, 1500)), bad=0.02)
        await shop.nexus.drained()
        going.cancel()
    good = [event for event in shop.given if event.payload != "bad"]
    assert [sorted(found) for found in shop.each(shelf.events)] == shop.each(good)
    handled = [event for event in good if event.id not in shelf.failed]
    assert all(shop.outcome(event, "handled") for event in handled)
    assert all(shop.outcome(event, "failed") for event in shop.given if event not in handled)
    assert_ledger_balanced(shop.nexus, handled=len(handled), failed=len(shop.given) - len(handled))


@pytest.mark.parametrize("seed", range(20))
@virtual_time
async def test_a_stop_in_the_middle_gives_back_those_that_are_not_done(seed: int) -> None:
    """What was said to be handled is, and all the others remain, each once and in their order."""
    shop = Shop(f"stop{seed}")
    shelf = Shelf(shop)
    shop.nexus.add_handler("a", shelf)
    shop.nexus.add_handler("b", shelf)
    async with shop.nexus:
        loop = asyncio.get_running_loop()
        going = loop.create_task(shelf.go_on())
        giving = loop.create_task(shop.give(3000))
        await asyncio.sleep(shop.chance.uniform(0, 0.5))
        going.cancel()
        shelf.room = 0
        report = await shop.nexus.stop(grace=0.1)
        assert isinstance((await asyncio.gather(giving, return_exceptions=True))[0], Exception | None)
    handled = [event.id for event in shelf.events]
    shelf.commit()  # too late
    if len(shop.given) > len(handled) + len(report.remaining):
        shop.given.pop()  # the one that found the door closed
    remaining = [event.id for event in report.remaining]
    assert sorted(handled + remaining) == [event.id for event in shop.given]
    assert shop.each(list(report.remaining)) == [
        [number for number in lane if number not in set(handled)] for lane in shop.each(shop.given)
    ]
    assert all(number in handled for number in shop.ends)
    assert shop.nexus.stats().handled == len(handled)


@virtual_time
async def test_a_flood_is_taken_in_lots() -> None:
    """Nearly all of it, many at a time, and it is active until it is done."""
    shop = Shop("flood")
    shop.nexus = AsyncEventNexus()
    shelf = Shelf(shop)
    shelf.room = 100_000
    shop.nexus.add_handler("a", shelf)
    async with shop.nexus as nexus:
        await nexus.ingest_many(Event(number, "a", 0, None) for number in range(5000))
        await asyncio.sleep(0.1)
        stats = nexus.stats()
        assert (stats.active, stats.queued, stats.handled, stats.balanced) == (5000, 5000, 0, True)
        while shelf.taken:
            shelf.commit()
        await nexus.drained()
    assert [e.id for e in shelf.events] == list(range(5000))
    assert max(shelf.lots) > 50
    assert len(shelf.lots) < 500


@virtual_time
async def test_what_waits_for_a_full_handler_waits_in_lots() -> None:
    """It is counted by its lane, event by event, and goes as soon as there is room, in its order."""
    shop = Shop("full")
    shop.nexus = AsyncEventNexus()
    shelf = Shelf(shop)
    shop.nexus.add_handler("a", shelf)
    async with shop.nexus as nexus:
        await nexus.ingest_many(Event(number, "a", 0, None) for number in range(5000))
        await asyncio.sleep(0.1)
        stats = nexus.stats()
        assert (stats.queued, stats.active, stats.lanes, stats.balanced) == (5000, 1, {0: 4999}, True)
        assert sum(len(pool.items) for pool in nexus._life.pools) < 100
        shelf.room = 5000
        await asyncio.sleep(0.1)
        assert [e.id for e in shelf.events] == [0]
        while shelf.taken:
            shelf.commit()
        await nexus.drained()
    assert [e.id for e in shelf.events] == list(range(5000))


@pytest.mark.parametrize("form", ["plain", "async", "slow", "pool", "many", "narrow", "two"])
@pytest.mark.parametrize("seed", range(5))
@virtual_time
async def test_each_way_tells_in_order(seed: int, form: str) -> None:
    """An event is told when its handler has returned, before the next one begins, and the books agree."""
    shop = Shop(f"told{seed}")
    seen: list[Event[Any]] = []
    told = [0]

    def plain(event: Event[Any]) -> None:
        if form in ("plain", "async", "slow"):
            before = [e for e in seen if e.meta.on_settled is not None]
            assert all(e.id in shop.ends for e in before[told[0] :])
            told[0] = len(before)
        seen.append(event)
        if event.payload == "bad":
            raise ValueError("no bad ones")

    async def slow(event: Event[Any]) -> None:
        plain(event)
        if shop.chance.random() < 0.1:
            await asyncio.sleep(0.01 if form == "slow" else 0)

    class Many(EventConsumer):
        lanewise = True

        def handle_many(self, events: list[Event[Any]]) -> int:
            good = next((n for n, event in enumerate(events) if event.payload == "bad"), len(events))
            seen.extend(events[:good])
            return good

        async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
            plain(event)

    class Narrow(Many):
        """Has room for a few, and raises as soon as a bad one is first."""

        def handle_nowait(self, event: Event[Any]) -> bool:
            assert shop.nexus.stats().balanced
            if shop.chance.random() < 0.4:
                return False
            plain(event)
            return True

        def handle_many(self, events: list[Event[Any]]) -> int:
            assert shop.nexus.stats().balanced
            if events[0].payload == "bad":
                plain(events[0])
            return super().handle_many(events[: shop.chance.choice((0, 1, 5, 50))])

        async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
            await asyncio.sleep(0.01)
            plain(event)

    if form == "two":
        shop.nexus = AsyncEventNexus(multiple=True)
        shop.nexus.add_handler("a", lambda event: None)
        shop.nexus.add_handler("b", lambda event: None)
    handlers: dict[str, Any] = {"plain": plain, "two": plain, "many": Many(), "narrow": Narrow()}
    handler = handlers.get(form, slow)
    for kind in "ab":
        shop.nexus.add_handler(kind, handler, concurrency=2 if form == "pool" else None)
    async with shop.nexus:
        await shop.give(1000, bad=0.02)
        await shop.nexus.drained()
    good = [event for event in shop.given if event.payload != "bad"]
    assert all(shop.outcome(event, "handled") for event in good)
    assert all(shop.outcome(event, "failed") for event in shop.given if event not in good)
    if form != "pool":
        assert shop.each(seen) == shop.each(shop.given)
    assert_ledger_balanced(shop.nexus, handled=len(good), failed=len(shop.given) - len(good))


@virtual_time
async def test_what_is_raised_of_many_is_about_the_first_also_where_a_policy_may_drop_them() -> None:
    nexus = AsyncEventNexus()
    nexus.set_policy("a", DropOldest())
    room = False
    seen: list[int] = []

    class Picky(EventConsumer):
        lanewise = True

        def handle_nowait(self, event: Event[Any]) -> bool:
            return bool(room and self.handle_many([event]))

        def handle_many(self, events: list[Event[Any]]) -> int:
            if not room:
                return 0
            if events[0].payload == "bad":
                raise ValueError("no bad ones")
            seen.append(events[0].id)
            return 1

        async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
            while not room:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.handle_nowait(event)

    nexus.add_handler("a", Picky())
    async with nexus:
        for number in range(20):
            await nexus.ingest(Event(number, "a", 0, "bad" if number in (3, 4, 9) else "good"))
        await asyncio.sleep(0.1)
        room = True
        await nexus.drained()
    assert seen == [number for number in range(20) if number not in (3, 4, 9)]
    assert [letter.event.id for letter in nexus.dead_letters] == [3, 4, 9]
    assert_ledger_balanced(nexus, handled=17, failed=3)


@pytest.mark.parametrize("seed", range(10))
@virtual_time
async def test_what_a_stop_cuts_off_is_not_told(seed: int) -> None:
    """The event whose handler hangs, and those behind it, remain; those before it are told."""
    shop = Shop(f"cut{seed}")
    shop.nexus = AsyncEventNexus()
    last = shop.chance.randrange(200)
    seen = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)
        if len(seen) > last:
            await asyncio.Event().wait()

    shop.nexus.add_handler("a", handle)
    async with shop.nexus as nexus:
        await nexus.ingest_many(
            Event(number, "a", 0, None, on_settled=shop.told(number)) for number in range(300)
        )
        await asyncio.sleep(1)
        report = await nexus.stop(grace=0.1)
    assert shop.ends == dict.fromkeys(range(last), "handled")
    assert [event.id for event in report.remaining] == list(range(last, 300))
