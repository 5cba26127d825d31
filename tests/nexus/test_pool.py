"""Handlers with a concurrency: several events at once, back-pressure, deadlines, and the end."""

import asyncio
import itertools
import random
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event, EventConsumer, SecondaryQueue
from nexus._done import Done
from nexus.errors import QueueFull
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


def event(number: int, priority: int = 0, **metadata: Any) -> Event[Any]:
    return Event(number, "a", priority, None, **metadata)


class Slow(Recorder):
    """Takes a second for each event, and knows how many it had at once."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.now = self.most = 0

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now -= 1
        await super().handle(event, queue)


@pytest.mark.parametrize("size", [1, 3])
@virtual_time
async def test_so_many_events_at_once_and_no_more(size: int) -> None:
    """A concurrency of n handles n events at once, in the order they came."""
    slow = Slow()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", slow, concurrency=size)
    async with nexus:
        began = asyncio.get_running_loop().time()
        await nexus.ingest_many(map(event, range(9)))
        await nexus.drained()
        assert asyncio.get_running_loop().time() - began == pytest.approx(9 / size)
    assert slow.most == size
    assert [e.id for e in slow.events] == list(range(9))
    assert_ledger_balanced(nexus, handled=9)


@virtual_time
async def test_a_busy_handler_does_not_hold_up_others() -> None:
    """Events of other types pass while a handler with a concurrency is busy."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", Slow(100.0), concurrency=1)
    nexus.add_handler("b", seen)
    async with nexus:
        await nexus.ingest_many(map(event, range(5)))
        await nexus.ingest(Event(9, "b", 0, None))
        await asyncio.sleep(1.0)
        assert len(seen) == 1
        assert nexus.stats().active == 1
        await nexus.stop(grace=0)


@virtual_time
async def test_the_most_urgent_waits_least() -> None:
    """A tie between waiting events is decided by priority, then by order."""
    slow = Slow()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", slow, concurrency=1)
    async with nexus:
        await nexus.ingest_many(event(n, -n % 3) for n in range(7))
        await asyncio.sleep(0.5)
        await nexus.ingest(event(99, -5))
        await nexus.drained()
    assert [e.id for e in slow.events][1] == 99
    assert [e.id for e in slow.events if e.id not in (0, 99)] == [3, 6, 2, 5, 1, 4]


@virtual_time
async def test_waiting_for_a_busy_handler_counts_against_the_bound() -> None:
    """Back-pressure reaches through: the lane is full when its events wait for a busy handler."""
    nexus = AsyncEventNexus(maxsize=3)
    nexus.add_handler("a", Slow(10.0), concurrency=1)
    async with nexus:
        for number in range(4):
            await nexus.ingest(event(number))
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert nexus.stats().lanes == {0: 3}
        with pytest.raises(QueueFull):
            nexus.ingest_nowait(event(4))
        waiter = asyncio.create_task(nexus.ingest(event(5)))
        await asyncio.sleep(9.0)
        assert not waiter.done()
        await asyncio.sleep(1.0)
        assert waiter.done()
        assert_ledger_balanced(nexus, handled=1, active=1, refused=1)
        await nexus.stop(grace=60.0)
    assert_ledger_balanced(nexus, handled=5)


@virtual_time
async def test_an_event_may_expire_while_its_handler_is_busy() -> None:
    """A deadline that passes in the backlog is a deadline missed."""
    slow = Slow()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", slow, concurrency=1)
    async with nexus:
        await nexus.ingest_many(event(n, deadline=1.5) for n in range(4))
        await nexus.drained()
    assert_ledger_balanced(nexus, handled=2, expired=2)


@virtual_time
async def test_an_event_that_one_handler_took_in_time_is_not_expired() -> None:
    """Of several handlers one was in time: the event is handled; where that one failed, it has failed."""
    for raising, outcome in ((False, "handled"), (True, "failed")):
        nexus = AsyncEventNexus(multiple=True)

        async def quick(event: Event[Any], raising: bool = raising) -> None:
            if raising and event.id == 1:
                raise ValueError("no")

        nexus.add_handler("a", Slow(), concurrency=1)
        nexus.add_handler("a", quick)
        async with nexus:
            now = asyncio.get_running_loop().time()
            await nexus.ingest_many((event(0), event(1, deadline=now + 0.5)))
            await nexus.drained()
        assert_ledger_balanced(nexus, expired=0, **{outcome: 1 if raising else 2})


@virtual_time
async def test_a_second_try_of_a_busy_handler_holds_nobody_up() -> None:
    """A delayed retry of a handler with a concurrency runs beside the nexus, like the first try."""
    seen = Recorder()
    tries: list[float] = []

    async def slow(event: Event[Any]) -> None:
        tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(10.0)
        if len(tries) == 1:
            raise ValueError("once")

    nexus = AsyncEventNexus()
    nexus.add_handler("a", slow, concurrency=1, retries=1, retry_delay=1.0)
    nexus.add_handler("b", seen)
    async with nexus:
        await nexus.ingest(event(0))
        await asyncio.sleep(12.0)
        await nexus.ingest(Event(1, "b", 0, None))
        await asyncio.sleep(1.0)
        assert tries == [0.0, 11.0]
        assert len(seen) == 1
        await nexus.drained()
    assert_ledger_balanced(nexus, handled=2)


@virtual_time
async def test_what_is_not_handled_at_the_end_is_reported_in_order() -> None:
    """A stop at once gives back what was being handled and what waited, by priority and order."""
    nexus = AsyncEventNexus()
    nexus.add_handler("a", Slow(10.0), concurrency=2)
    nexus.start()
    await asyncio.sleep(0)
    await nexus.ingest_many(event(n, n % 2) for n in range(10))
    await asyncio.sleep(1.0)
    report = await nexus.stop(grace=0)
    assert [e.id for e in report.remaining] == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert_ledger_balanced(report.stats, queued=10, handled=0)


@virtual_time
async def test_handlers_with_tasks_come_and_go_without_a_trace() -> None:
    """A removed handler finishes what waits for it, and its tasks end."""
    nexus = AsyncEventNexus()
    slow = Slow()
    async with nexus:
        before = len(nexus.tasks)
        for number in range(20):
            nexus.add_handler("a", slow, concurrency=2)
            await nexus.ingest_many(event(10 * number + n) for n in range(3))
            await asyncio.sleep(0.1)
            nexus.remove_handler("a")
        await nexus.drained()
        await asyncio.sleep(0.1)
        assert len(nexus.tasks) == before
        nexus.add_handler("a", slow, concurrency=2)
        assert len(nexus._life.pools) == 1
    assert_ledger_balanced(nexus, handled=60)


@virtual_time
async def test_a_consumer_says_its_own_concurrency() -> None:
    """The attribute of the class is the default, and add_handler has the last word."""

    class Wide(Slow):
        concurrency = 4

    for given, most in ((None, 4), (2, 2)):
        wide = Wide()
        nexus = AsyncEventNexus()
        nexus.add_handler("a", wide, concurrency=given)
        async with nexus:
            await nexus.ingest_many(map(event, range(8)))
            await nexus.drained()
        assert wide.most == most
    assert EventConsumer.concurrency is None


class Door(EventConsumer):
    """Takes events at once while it is open; else waits until it is."""

    concurrency = 1

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.opened = asyncio.Event()
        self.waited = 0

    def handle_nowait(self, event: Event[Any]) -> bool:
        if not self.opened.is_set():
            return False
        if event.id == 5:
            raise ValueError("no fives")
        self.events.append(event)
        return True

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        self.waited += 1
        await self.opened.wait()
        self.events.append(event)


@virtual_time
async def test_what_waited_is_handled_without_waiting_once_it_can_be() -> None:
    """Only the event that finds the door closed waits at it; those behind it go through at once, in order,
    and one that is refused there has failed."""
    door = Door()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", door)
    async with nexus:
        await nexus.ingest_many(map(event, range(9)))
        await asyncio.sleep(1)
        door.opened.set()
        await nexus.drained()
    assert [e.id for e in door.events] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert door.waited == 1
    assert_ledger_balanced(nexus, handled=8, failed=1)


@virtual_time
async def test_a_flood_does_not_keep_a_handler_behind() -> None:
    """A handler that had to wait once has soon caught up, however fast events come; their order holds."""
    door = Door()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", door)
    async with nexus:
        await nexus.ingest_many(event(number) for number in range(10, 510))
        await asyncio.sleep(1)
        door.opened.set()
        for number in range(510, 3010):
            await nexus.ingest(event(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert nexus.queue.lanes[0].backlog == 0
        await nexus.drained()
    assert [e.id for e in door.events] == list(range(10, 3010))
    assert_ledger_balanced(nexus, handled=3000)


@virtual_time
async def test_a_failure_met_while_catching_up_is_told() -> None:
    """An event that fails as the handler catches up for a newer one goes to the error handler, once."""
    door = Door()
    told: list[int] = []
    nexus = AsyncEventNexus()
    nexus.add_handler("a", door)
    nexus.set_error_handler(lambda event, exc, handler: told.append(event.id))
    async with nexus:
        await nexus.ingest_many(map(event, range(4, 9)))
        await asyncio.sleep(1)
        door.opened.set()
        await asyncio.sleep(0)
        await nexus.ingest(event(9))
        await nexus.drained()
    assert (told, [e.id for e in door.events]) == ([5], [4, 6, 7, 8, 9])
    assert_ledger_balanced(nexus, handled=5, failed=1)


class Shelf(EventConsumer):
    """Takes events at once while it has room, and says later that it has handled them."""

    lanewise = True

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.taken: list[tuple[Event[Any], Done]] = []
        self.events: list[Event[Any]] = []
        self.waited = 0

    def handle_later(self, event: Event[Any], done: Done) -> bool:
        if event.id == 5:
            raise ValueError("no fives")
        if len(self.taken) >= self.room:
            return False
        self.taken.append((event, done))
        return True

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        self.waited += 1
        while len(self.taken) >= self.room:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.events.append(event)

    def commit(self, exc: Exception | None = None) -> None:
        taken, self.taken = self.taken, []
        for each, done in taken:
            self.events.append(each)
            done(exc)
            done(exc)  # once is enough


@virtual_time
async def test_what_is_taken_is_handled_when_the_handler_says_so() -> None:
    """Until then it is queued and active; one that is refused at the door has failed; the order holds."""
    shelf = Shelf()
    nexus = AsyncEventNexus(multiple=True)
    nexus.add_handler("a", shelf)
    nexus.add_handler("a", others := Shelf())
    outcomes: list[str] = []
    async with nexus:
        await nexus.ingest_many(event(number).evolve(on_settled=outcomes.append) for number in range(9))
        await asyncio.sleep(1)
        assert (nexus.stats().active, nexus.stats().failed, outcomes) == (8, 1, ["failed"])
        shelf.commit()
        assert nexus.stats().active == 8
        others.commit()
        await nexus.drained()
    assert [e.id for e in shelf.events] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert outcomes == ["failed"] + 8 * ["handled"]
    assert_ledger_balanced(nexus, handled=8, failed=1)


@virtual_time
async def test_a_full_shelf_holds_events_back() -> None:
    """What finds no room waits in order, and goes on when there is some."""
    shelf = Shelf(room=3)
    nexus = AsyncEventNexus()
    nexus.add_handler("a", shelf)
    async with nexus:
        for number in range(10, 30):
            await nexus.ingest(event(number))
        while len(shelf.events) < 20:
            await asyncio.sleep(0.1)
            shelf.commit()
        await nexus.drained()
    assert sorted(e.id for e in shelf.events) == list(range(10, 30))
    assert_ledger_balanced(nexus, handled=20)


@virtual_time
async def test_what_fails_later_is_a_dead_letter() -> None:
    """The exception given with it is told to whoever listens."""
    shelf = Shelf()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", shelf)
    async with nexus:
        await nexus.ingest_many(map(event, range(10, 13)))
        await asyncio.sleep(1)
        shelf.commit(OSError("no disk"))
        await nexus.drained()
        assert [repr(letter.exception) for letter in nexus.dead_letters] == 3 * ["OSError('no disk')"]
    assert_ledger_balanced(nexus, failed=3)


@virtual_time
async def test_a_stop_gives_back_what_is_not_said_to_be_handled() -> None:
    """It is in the report, and what is said of it afterwards changes nothing."""
    shelf = Shelf()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", shelf)
    async with nexus:
        await nexus.ingest_many(map(event, range(10, 13)))
        await asyncio.sleep(1)
        report = await nexus.stop(grace=1)
    shelf.commit()
    assert [each.id for each in report.remaining] == [10, 11, 12]
    assert nexus.stats().handled == 0


class Counter(EventConsumer):
    """Takes as many events at once as it has room for; it waits for more room, and fails on some."""

    lanewise = True

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.room = 0
        self.more = asyncio.Event()
        self.events: list[Event[Any]] = []
        self.lots: list[int] = []

    def handle_nowait(self, event: Event[Any]) -> bool:
        if event.payload == "bad":
            raise ValueError("no bad ones")
        if not self.room:
            return False
        self.room -= 1
        self.events.append(event)
        return True

    def handle_many(self, events: list[Event[Any]]) -> int:
        good = next((n for n, event in enumerate(events) if event.payload == "bad"), len(events))
        taken = min(good, self.room)
        self.lots.append(taken)
        self.room -= taken
        self.events += events[:taken]
        return taken

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        while not self.handle_nowait(event):
            self.more.clear()
            await self.more.wait()

    async def give_room(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.room += self.chance.choice((0, 1, 3, 70, 200))
            self.more.set()


@pytest.mark.parametrize("seed", range(20))
@virtual_time
async def test_a_handler_that_takes_many_gets_each_once_in_order(seed: int) -> None:
    """Whatever it leaves comes again, one by one or in lots: each event once, in the order of its type and
    priority, and those that fail are told apart."""
    chance = random.Random(f"many{seed}")
    counter = Counter(chance)
    nexus = AsyncEventNexus(maxsize=chance.choice((3, 100, 10_000)))
    nexus.add_handler("a", counter)
    nexus.add_handler("b", counter)
    given: list[Event[Any]] = []
    async with nexus:
        giving = asyncio.get_running_loop().create_task(counter.give_room())
        for number in range(chance.choice((50, 1000))):
            meta: dict[str, Any] = {"deadline": 1e9} if chance.random() < 0.02 else {}
            payload = "bad" if chance.random() < 0.02 else number
            kind = "a" if chance.random() < 0.97 else "b"
            given.append(Event(number, kind, chance.choice((0, 0, 0, 0, -1, 4)), payload, **meta))
            await nexus.ingest(given[-1])
            if chance.random() < 0.01:
                await asyncio.sleep(0.02)
        await nexus.drained()
        giving.cancel()
    good = [event for event in given if event.payload != "bad"]
    for kind, priority in itertools.product("ab", (-1, 0, 4)):
        expected, found = (
            [event.id for event in events if (event.type, event.priority) == (kind, priority)]
            for events in (good, counter.events)
        )
        assert found == expected
    assert len(counter.events) == len(good)
    assert_ledger_balanced(nexus, handled=len(good), failed=len(given) - len(good))


@virtual_time
async def test_a_flood_goes_to_it_in_lots() -> None:
    """Of a flood nearly all is handed over many at a time."""
    counter = Counter(random.Random(1))
    counter.room = 100_000
    nexus = AsyncEventNexus()
    nexus.add_handler("a", counter)
    async with nexus:
        await nexus.ingest_many(map(event, range(5000)))
        await nexus.drained()
    assert [e.id for e in counter.events] == list(range(5000))
    assert sum(counter.lots) > 4900
    assert max(counter.lots) > 50
