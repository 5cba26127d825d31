"""The policy `Spill`: events of a full lane go to a store and come back, all counted and in order."""

import asyncio
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from spill_memory import SpillMemory

import nexus
from nexus import AsyncEventNexus, AsyncEventPriorityQueue, Block, DropOldest, Event, Fail, Spill, StopReport
from nexus.errors import BadCall, LoopStopped, OpenError, QueueFull
from nexus.testing import Recorder, VirtualTimeLoop, assert_ledger_balanced, virtual_time


@pytest.fixture(autouse=True, scope="module")
def without_log() -> Iterator[None]:
    """Handlers and disks fail here by the hundred."""
    logger = logging.getLogger("nexus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def event(number: int, type_: str = "a", priority: int = 0, **metadata: Any) -> Event[int]:
    return Event(number, type_, priority, number, **metadata)


class World:
    """A nexus with a small lane, whose handler takes a second, and a store."""

    def __init__(self, store: SpillMemory | None = None, *, maxsize: int = 3, **options: Any) -> None:
        self.store = SpillMemory() if store is None else store
        self.seen = Recorder()
        self.nexus = AsyncEventNexus(maxsize=maxsize, **options)
        self.nexus.add_handler("a", self.slow)
        self.nexus.add_handler("b", self.slow)
        self.nexus.set_policy("a", Spill(self.store))

    async def slow(self, event: Event[Any], queue: nexus.SecondaryQueue) -> None:
        await asyncio.sleep(1)
        await self.seen.handle(event, queue)

    @property
    def ids(self) -> list[int]:
        return [each.id for each in self.seen.events]

    async def give(self, *numbers: int, **words: Any) -> None:
        for number in numbers:
            await self.nexus.ingest(event(number, **words))


@virtual_time
async def test_a_full_lane_spills_and_keeps_the_order() -> None:
    """Nobody waits, memory holds a lane, and every event comes back in its order."""
    world = World()
    async with world.nexus as domain:
        await world.give(*range(50))
        assert asyncio.get_running_loop().time() == 0
        stats = domain.stats()
        assert (stats.lanes, stats.spilled, stats.types["a"].spilled) == ({0: 3}, {0: 47}, 47)
        assert_ledger_balanced(stats, ingested=50, queued=50)
        await domain.drained()
        assert_ledger_balanced(domain, ingested=50, handled=50)
    assert world.ids == list(range(50))
    assert len(world.store) == 0


@virtual_time
async def test_later_ones_go_behind_those_on_the_disk() -> None:
    """Room in the lane is for those on the disk first, whoever gives."""
    world = World(SpillMemory(delay=0.1))
    async with world.nexus as domain:
        for number in range(40):
            domain.ingest_nowait(event(number))
            await asyncio.sleep(0.3)
        await domain.drained()
    assert world.ids == list(range(40))


@virtual_time
async def test_urgent_events_are_not_delayed() -> None:
    """With much on the disk an urgent event waits for the one handler that runs, and for no other."""
    world = World()
    world.nexus.add_handler("urgent", world.seen)
    async with world.nexus as domain:
        await world.give(*range(100))
        await asyncio.sleep(10.5)
        await domain.ingest(event(-1, "urgent", -1))
        await asyncio.sleep(1)
        at = world.ids.index(-1)
        assert world.seen.times[at] == 11.0
        await domain.stop(grace=0)


@virtual_time
async def test_each_type_and_priority_has_a_line_of_its_own() -> None:
    """What is on the disk holds up neither other types of its lane nor its type at other priorities."""
    world = World()
    world.nexus.add_handler("quick", world.seen)
    async with world.nexus as domain:
        await world.give(*range(20))
        await world.give(*range(100, 120), priority=1)
        assert domain.stats().spilled == {0: 17, 1: 17}
        for number in range(-1, -4, -1):  # they take turns with those on the disk
            await domain.ingest(event(number, "quick"))
        await domain.drained()
    assert [n for n in world.ids if n >= 0] == [*range(20), *range(100, 120)]
    assert [n for n in world.ids if n < 0] == [-1, -2, -3]
    assert world.ids.index(-3) < 12


@virtual_time
async def test_a_full_store_holds_the_giver_back() -> None:
    """Where the store takes no more the policy is to block: `ingest` waits, `ingest_nowait` is refused."""
    world = World(SpillMemory(most=5))
    async with world.nexus as domain:
        await world.give(*range(8))
        with pytest.raises(QueueFull, match="the disk takes no more"):
            domain.ingest_nowait(event(-1))
        waiting = [asyncio.create_task(world.give(number)) for number in range(8, 20)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        assert len(world.store) == 5
        await asyncio.gather(*waiting)
        await domain.drained()
        assert_ledger_balanced(domain, handled=20, refused=1)
    assert world.ids == list(range(20))


@virtual_time
async def test_who_waits_for_the_disk_may_give_up() -> None:
    """A cancelled giver has not given the event, and the next one has its turn."""
    world = World(SpillMemory(most=2))
    async with world.nexus as domain:
        await world.give(*range(5))
        waiting = [asyncio.create_task(world.give(number)) for number in range(5, 10)]
        await asyncio.sleep(0.5)
        for task in waiting[::2]:
            task.cancel()
        await asyncio.wait(waiting)
        await domain.drained()
    assert world.ids == [0, 1, 2, 3, 4, 6, 8]


@pytest.mark.parametrize("pause", [0.0, 0.26])
@pytest.mark.parametrize("steps", range(0, 60, 3))
@virtual_time
async def test_cancelled_anywhere_a_giver_has_given_or_not(steps: int, pause: float) -> None:
    """Whenever it is cancelled, what it gave is handled once and the rest not at all."""
    world, accepted = World(SpillMemory(most=2, delay=0.01), maxsize=1), []

    async def give() -> None:
        for number in range(20):
            await world.give(number)
            accepted.append(number)

    async with world.nexus as domain:
        giver = asyncio.create_task(give())
        for _ in range(steps):
            await asyncio.sleep(pause)
        giver.cancel()
        await asyncio.wait([giver])
        await domain.drained()
    assert world.ids == accepted


@virtual_time
async def test_what_would_not_come_back_as_it_is_waits_for_the_lane() -> None:
    """An event the store refuses is held back until all before it are gone from the disk; it is not lost."""
    world = World()
    world.store.refuses = lambda event: event.id in (2, 10, 11)
    async with world.nexus as domain:
        await world.give(*range(10))
        giving = asyncio.create_task(world.give(10, 11, 12))
        await asyncio.sleep(5.5)
        assert not giving.done()
        behind = asyncio.create_task(world.give(13))
        await asyncio.gather(giving, behind)
        await domain.drained()
    assert Counter(world.ids) == Counter(range(14))
    assert [n for n in world.ids if n != 13] == list(range(13))


@virtual_time
async def test_secondary_events_spill_and_never_wait() -> None:
    """A handler's events go to the disk as well; beyond a full disk they wait in memory, up to a bound."""
    world = World(SpillMemory(most=4), max_secondary=3)
    refused: list[int] = []

    def start(event_: Event[Any], queue: nexus.SecondaryQueue) -> None:
        for number in range(12):
            try:
                queue.put_nowait(event(number))
            except QueueFull:
                refused.append(number)

    world.nexus.add_handler("start", start)
    async with world.nexus as domain:
        await domain.ingest(event(0, "start", -1))
        await domain.drained()
        assert_ledger_balanced(domain, handled=11, refused=2)
    assert (world.ids, refused) == (list(range(10)), [10, 11])


@virtual_time
async def test_secondary_events_do_not_wait_for_the_store_to_open() -> None:
    """What a handler gives before it is known what is on the disk comes after that."""
    world = World()
    async with world.nexus:
        await world.give(*range(8))
    world.store.delay = 2.0
    for store, first in ((world.store, 3), (SpillMemory(delay=2.0), 8)):
        again = World(store)
        again.nexus.add_handler("start", lambda _, queue: queue.put_nowait(event(100)))
        again.nexus.start()
        await again.nexus.ingest(event(0, "start"))
        await asyncio.sleep(1)
        assert again.nexus.stats().types["a"].spilled == 1
        await again.nexus.drained()
        assert again.ids == [*range(first, 8), 100]
        await again.nexus.stop()


@virtual_time
async def test_expired_on_the_disk_is_expired() -> None:
    """A deadline holds on the disk as it does in memory."""
    world = World()
    ends: list[str] = []
    async with world.nexus as domain:
        await world.give(*range(10))
        await domain.ingest(event(10, deadline=5.0, on_settled=ends.append))
        await domain.ingest(event(11, deadline=50.0, on_settled=ends.append))
        await domain.drained()
        assert_ledger_balanced(domain, handled=11, expired=1)
    assert world.ids == [*range(10), 11]
    assert ends == ["expired", "handled"]


@virtual_time
async def test_whoever_is_to_be_told_is_told_when_it_is_handled() -> None:
    """On the disk an event is accepted, not settled; its listener waits in memory, as many as a lane has."""
    world = World(maxsize=4)
    ends: list[tuple[int, str]] = []

    def told(number: int) -> Any:
        return lambda outcome: ends.append((number, outcome))

    async with world.nexus as domain:
        for number in range(8):
            await domain.ingest(event(number, on_settled=told(number)))
        assert ends == []
        with pytest.raises(QueueFull):
            domain.ingest_nowait(event(8, on_settled=told(8)))
        await domain.ingest(event(9))
        await domain.drained()
    assert ends == [(number, "handled") for number in range(8)]


@virtual_time
async def test_a_stop_leaves_on_the_disk_what_is_there() -> None:
    """A stop handles what is in memory; the rest stays, is counted, and comes first at the next start."""
    world = World(grace=60)
    async with world.nexus as domain:
        await world.give(*range(20))
        await asyncio.sleep(2.5)
        report = await domain.stop()
    assert (report.spilled, report.remaining, report.clean) == (14, (), True)
    assert report.stats.queued == 14 == len(world.store)
    assert world.ids == list(range(6))
    again = World(world.store)
    async with again.nexus as domain:
        await again.give(*range(100, 103))
        assert_ledger_balanced(domain, ingested=17)
        await domain.drained()
        assert_ledger_balanced(domain, ingested=17, handled=17)
    assert again.ids == [*range(6, 20), *range(100, 103)]


@virtual_time
async def test_a_stop_cut_short_reports_each_event_once() -> None:
    """What came back and was not handled is on the disk still, and not among those that remain."""
    world = World()
    async with world.nexus as domain:
        await world.give(*range(20))
        await asyncio.sleep(6.5)
        report = await domain.stop(grace=0)
    assert (report.spilled, report.remaining) == (14, ())
    assert report.stats.queued == 14
    again = World(world.store)
    async with again.nexus as domain:
        await domain.drained()
    assert world.ids + again.ids == list(range(20))


@virtual_time
async def test_a_killed_process_finds_what_was_not_handled() -> None:
    """An event leaves the disk when its story has ended, not before: at least once."""
    world = World()
    async with world.nexus as domain:
        await world.give(*range(20))
        await asyncio.sleep(6.5)
        found = world.store.killed()
        await domain.stop(grace=0)
    again = World(found)
    async with again.nexus as domain:
        await domain.drained()
    assert again.ids == list(range(6, 20))  # of the first lane, which never was on the disk, none was left


@virtual_time
async def test_what_is_not_durable_at_a_stop_remains() -> None:
    """What the store could not keep is in the report, for whoever wants to save it."""
    world = World()
    async with world.nexus as domain:
        await world.give(*range(10))
        world.store.forgets = 4
        report = await domain.stop(grace=0)
    assert [each.id for each in report.remaining] == [0, 1, 2, 6, 7, 8, 9]
    assert report.spilled == len(world.store) == 3
    assert report.stats.queued == 10


@virtual_time
async def test_a_damaged_event_costs_itself() -> None:
    """What cannot be read any more is dropped and counted; those around it come back."""
    world = World()
    ends: list[str] = []
    async with world.nexus as domain:
        await world.give(*range(8))
        await domain.ingest(event(8, on_settled=ends.append))
        for number in (1, 2, 4, 6):
            world.store.damage("a", 0, number)
        await domain.drained()
        assert_ledger_balanced(domain, ingested=9, handled=5, dropped=4)
        assert domain.stats().types["a"].drops == {"damaged": 4}
    assert world.ids == [0, 1, 2, 5, 7]
    assert ends == ["dropped"]


@virtual_time
async def test_a_disk_that_cannot_be_read_is_asked_again() -> None:
    """The nexus goes on without its disk, and the events come back with it."""
    world = World()
    world.nexus.add_handler("other", world.seen)
    async with world.nexus as domain:
        await world.give(*range(6))
        world.store.failing = True
        await asyncio.sleep(30)
        assert world.ids == [0, 1, 2]
        await domain.ingest(event(-1, "other"))
        await asyncio.sleep(1)
        world.store.failing = False
        await domain.drained()
    assert world.ids == [0, 1, 2, -1, 3, 4, 5]


@virtual_time
async def test_a_store_that_does_not_open_ends_the_nexus() -> None:
    """Where nobody knows what comes first, nothing goes on: the error of the store is the nexus's."""

    class Locked(SpillMemory):
        async def open(self) -> None:
            raise OpenError("the file is in use")

    with pytest.raises(OpenError):
        async with World(Locked()).nexus:
            pass


@virtual_time
async def test_before_its_store_is_open_a_type_waits() -> None:
    """What is on the disk comes before the first new event, and nobody has to know when it is open."""
    world = World()
    async with world.nexus as domain:
        await world.give(*range(8))
        await domain.stop(grace=0)
    world.store.delay = 2.0
    again = World(world.store)
    again.nexus.start()
    with pytest.raises(QueueFull):
        again.nexus.ingest_nowait(event(99))
    await again.give(100)
    assert asyncio.get_running_loop().time() >= 2.0
    await again.nexus.drained()
    await again.nexus.stop()
    assert again.ids == [*range(3, 8), 100]


@virtual_time
async def test_a_type_may_spill_while_the_nexus_runs() -> None:
    """The policy may come late and go early; what is on the disk keeps its place before later events."""
    world = World()
    other = SpillMemory()
    async with world.nexus as domain:
        domain.set_policy("b", Spill(other))
        for number in range(8):
            await domain.ingest(event(number, "b"))
        domain.set_policy("b", DropOldest())
        for number in range(8, 12):
            await domain.ingest(event(number, "b"))
        domain.set_policy("b", Block())
        await asyncio.sleep(3.5)
        await domain.ingest(event(12, "b"))
        await domain.drained()
        with pytest.raises(BadCall, match="have a store already"):
            domain.set_policy("b", Spill(SpillMemory()))
    assert world.ids == list(range(13))


@virtual_time
async def test_several_types_share_a_store() -> None:
    """A store opens once, and each type finds its own events again."""
    world = World()
    world.nexus.set_policy("b", Spill(world.store))
    async with world.nexus as domain:
        for number in range(16):
            await domain.ingest(event(number, "ab"[number % 2], number % 3))
        report = await domain.stop(grace=0)
    again = World(world.store)
    async with again.nexus as domain:
        await domain.drained()
        assert_ledger_balanced(domain, handled=sum(each.type == "a" for each in again.seen.events))
    assert world.store.opens == 2
    assert report.spilled - len(again.ids) == len(world.store) > 0


@virtual_time
async def test_given_from_a_thread_it_spills_too() -> None:
    """`ingest_threadsafe`, `ingest_many` and converters know the policy."""

    class Source(nexus.EventConverter):
        async def event_generator(self) -> Any:
            for number in range(20, 30):
                yield event(number)

    world = World()
    async with world.nexus as domain:
        await domain.ingest_many(event(number) for number in range(10))
        futures: list[Any] = []
        thread = threading.Thread(
            target=lambda: futures.extend(domain.ingest_threadsafe(event(n)) for n in range(10, 20))
        )
        thread.start()
        thread.join()
        await asyncio.gather(*map(asyncio.wrap_future, futures))
        domain.register(Source())
        await asyncio.sleep(0.5)
        assert domain.stats().spilled == {0: 26}
        await domain.drained()
    assert world.ids == list(range(30))


@virtual_time
async def test_pools_take_from_the_disk() -> None:
    """With a concurrency events end as they please, and each leaves the disk once those before it have."""
    world = World(maxsize=4)
    done: list[int] = []

    async def uneven(event: Event[int]) -> None:
        await asyncio.sleep(10 if event.id == 6 else 1)
        done.append(event.id)

    world.nexus.remove_handler("a")
    world.nexus.add_handler("a", uneven, concurrency=2)
    async with world.nexus as domain:
        await world.give(*range(20))
        await asyncio.sleep(8.5)
        assert 6 not in done
        assert min(world.store.rows["a", 0].values(), key=lambda each: each.id if each else 0).id == 6  # type: ignore[union-attr]
        await domain.drained()
    assert sorted(done) == list(range(20))
    assert len(world.store) == 0


def test_a_queue_without_a_nexus_does_not_spill() -> None:
    """The way back needs tasks, which only a nexus has."""
    with pytest.raises(BadCall, match="nexus"):
        AsyncEventPriorityQueue().set_policy("a", Spill(SpillMemory()))
    with pytest.raises(TypeError, match=r"Spill\(store\)"):
        AsyncEventPriorityQueue().set_policy("a", Spill)  # type: ignore[arg-type]


# The machine.

DELAYS = st.sampled_from([0.0, 0.25, 1.0, 3.0])
TYPES = ("inline", "plain", "pool", "beside")
is_running = precondition(lambda machine: machine.report is None)


@attrs.frozen
class Task:
    """What an event asks of its handler."""

    number: int
    sleep: float = 0.0
    fails: bool = False
    children: tuple[tuple[str, int], ...] = ()
    """Type and priority of secondary events."""


words: dict[str, Any] = {
    "type_": st.sampled_from(TYPES),
    "priority": st.integers(-1, 1),
    "deadline": st.none() | st.none() | DELAYS,
    "sleep": DELAYS,
    "fails": st.booleans(),
    "children": st.lists(st.tuples(st.sampled_from(TYPES), st.integers(-1, 1)), max_size=3).map(tuple),
}


class SpillMachine(RuleBasedStateMachine):
    """Lives of a nexus, one after the other over one store, beside a model of what was accepted and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.loop = VirtualTimeLoop()
        self.runner = asyncio.Runner(debug=False, loop_factory=lambda: self.loop)
        self.wrong: list[str] = []
        self.uncertain: set[int] = set()
        """Events that may have expired or been damaged."""
        self.ended: set[int] = set()
        """Events that were handled or have failed, in any life."""
        self.report: StopReport | None = None

    @initialize(
        maxsize=st.integers(1, 4), most=st.sampled_from([2, 8, 1000]), delay=st.sampled_from([0.0, 0.0, 0.5])
    )
    def begin(self, maxsize: int, most: int, delay: float) -> None:
        """Start the first life."""
        self.maxsize = maxsize
        self.live(SpillMemory(most, delay=delay))

    def live(self, store: SpillMemory) -> None:
        """Start a life over a store."""
        self.store = store
        self.report = None
        self.givers: list[asyncio.Task[None]] = []
        self.order: dict[tuple[str, int], list[int]] = {}
        self.begun: dict[tuple[str, int], int] = {}
        self.accepted: set[int] = set()
        self.recovered = 0
        self.refused = self.done = 0
        for (type_, priority), rows in store.rows.items():
            self.recovered += len(rows)
            order = [each.payload.number for each in rows.values() if each is not None]
            self.order[str(type_), priority] = order
        self.nexus = AsyncEventNexus(maxsize=self.maxsize, max_lanes=3, max_secondary=4)
        for type_ in TYPES:
            if type_ != "beside":
                self.nexus.set_policy(type_, Spill(store))
            handler = self.plain if type_ == "plain" else self.handle
            self.nexus.add_handler(type_, handler, concurrency=2 if type_ == "pool" else None)

        async def start() -> None:
            self.nexus.start()
            await self.nexus._life.started()

        self.runner.run(start())

    def note_begin(self, event: Event[Task]) -> None:
        """Hold the order of what begins against that of what was accepted."""
        self.look()
        key, number = (str(event.type), event.priority), event.payload.number
        place = self.order[key].index(number)
        if place < self.begun.get(key, 0):
            self.wrong.append(f"event {number} of {key} came after {self.order[key][self.begun[key] - 1]}")
        self.begun[key] = place + 1

    def look(self) -> None:
        stats = self.nexus.stats()
        if not stats.balanced:
            self.wrong.append(f"seen from within: {stats}")

    async def handle(self, event: Event[Task], queue: nexus.SecondaryQueue) -> None:
        with self.only_as_asked(event):
            self.note_begin(event)
            if event.payload.sleep:
                await asyncio.sleep(event.payload.sleep)
            self.end(event, queue)

    def plain(self, event: Event[Task], queue: nexus.SecondaryQueue) -> None:
        with self.only_as_asked(event):
            self.note_begin(event)
            self.end(event, queue)

    @contextmanager
    def only_as_asked(self, event: Event[Task]) -> Iterator[None]:
        """Note what is raised in a handler and was not asked of it."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:
            if exc.args != (event.payload,):
                self.wrong.append("".join(traceback.format_exception(exc)))
            raise

    def end(self, event: Event[Task], queue: nexus.SecondaryQueue) -> None:
        for type_, priority in event.payload.children:
            child = self.make(type_, priority)
            try:
                queue.put_nowait(child)
            except QueueFull:
                self.refused += 1
            else:
                self.note_accepted(child)
        self.done += 1
        self.ended.add(event.payload.number)
        if event.payload.fails:
            raise ValueError(event.payload)

    # Givers.

    def make(self, type_: str, priority: int, deadline: float | None = None, **task: Any) -> Event[Task]:
        self.numbers += 1
        metadata = {}
        if deadline is not None:
            metadata["deadline"] = self.loop.time() + deadline
            self.uncertain.add(self.numbers)
        return Event(self.numbers, type_, priority, Task(self.numbers, **task), **metadata)

    def note_accepted(self, event: Event[Task]) -> None:
        self.accepted.add(event.payload.number)
        self.order.setdefault((str(event.type), event.priority), []).append(event.payload.number)

    async def give(self, *events: Event[Task]) -> None:
        def noting() -> Iterator[Event[Task]]:
            for event in events:
                yield event
                self.note_accepted(event)

        try:
            await self.nexus.ingest_many(noting())
        except QueueFull:
            self.refused += 1
        except LoopStopped:
            pass

    @is_running
    @rule(count=st.integers(1, 8), **words)
    def ingest(self, count: int, **words: Any) -> None:
        """Somebody gives some events, and waits for room."""
        self.givers.append(self.loop.create_task(self.give(*(self.make(**words) for _ in range(count)))))

    @is_running
    @rule(count=st.integers(1, 8), **words)
    def ingest_nowait(self, count: int, **words: Any) -> None:
        """Somebody gives events at once or not at all."""

        async def give() -> None:
            for event in (self.make(**words) for _ in range(count)):
                try:
                    self.nexus.ingest_nowait(event)
                except QueueFull:
                    self.refused += 1
                else:
                    self.note_accepted(event)

        self.runner.run(give())

    @precondition(lambda self: self.givers)
    @rule(data=st.data())
    def cancel_giver(self, data: st.DataObject) -> None:
        """A giver loses patience."""
        data.draw(st.sampled_from(self.givers)).cancel()

    # What happens around it.

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            for _ in range(5):
                await asyncio.sleep(0)

        self.runner.run(wait())
        self.givers = [giver for giver in self.givers if not giver.done()]

    @is_running
    @rule(type_=st.sampled_from(TYPES[:-1]), policy=st.sampled_from([Block(), Fail(), None]))
    def set_policy(self, type_: str, policy: Any) -> None:
        """Another policy, or the old one again."""

        async def choose() -> None:
            self.nexus.set_policy(type_, policy or Spill(self.store))

        self.runner.run(choose())

    @rule(share=st.integers(0, 3))
    def refuse(self, share: int) -> None:
        """Some events would not come back as they are."""
        self.store.refuses = lambda event: share > 0 and event.payload.number % 4 < share

    @rule(failing=st.booleans(), most=st.sampled_from([0, 2, 8, 1000]))
    def disk(self, failing: bool, most: int) -> None:
        """The disk goes, fills up, or is well again."""
        self.store.failing, self.store.most = failing, most

        async def tell() -> None:
            self.store.has_room()

        self.runner.run(tell())

    @precondition(lambda self: len(self.store) > 0)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """An event on the disk is damaged."""
        places = [
            (*key, n) for key, rows in self.store.rows.items() for n, e in rows.items() if e is not None
        ]
        if places:
            type_, priority, number = data.draw(st.sampled_from(places))
            self.uncertain.add(self.store.rows[type_, priority][number].payload.number)  # type: ignore[union-attr]
            self.store.damage(type_, priority, number)

    def stored(self) -> set[int]:
        """Say what is on the disk."""
        return {e.payload.number for rows in self.store.rows.values() for e in rows.values() if e is not None}

    @is_running
    @rule(grace=st.sampled_from([0.0, 0.512, 30.012]), forgets=st.sampled_from([0, 0, 2]))
    def stop(self, grace: float, forgets: int) -> None:
        """The nexus stops; each event that has not ended is on the disk or in the report."""
        owed = self.stored() | self.accepted
        self.store.forgets = forgets

        async def stop() -> StopReport:
            return await self.nexus.stop(grace=grace)

        self.report = report = self.runner.run(stop())
        self.runner.run(asyncio.sleep(10.0))
        remaining = [event.payload.number for event in report.remaining]
        assert report.stuck == ()
        assert len(set(remaining)) == len(remaining)
        assert len(remaining) + report.spilled == self.nexus.stats().queued
        assert not self.stored() & set(remaining)
        owed |= self.accepted
        assert owed - self.ended - self.uncertain <= self.stored() | set(remaining)
        assert [e.priority for e in report.remaining] == sorted(e.priority for e in report.remaining)

    @precondition(lambda self: self.report is not None)
    @rule()
    def start_again(self) -> None:
        """The next life finds what the last one has left."""
        self.live(self.store)

    @is_running
    @rule()
    def kill(self) -> None:
        """The process is killed, and another one finds what was on the disk."""
        found, puts = self.store.killed(), self.stored()
        self.stop(0.0, 0)
        self.ledger_is_exact()
        assert puts - self.ended - self.uncertain <= self.stored() | puts
        self.live(found)

    @invariant()
    def ledger_is_exact(self) -> None:
        """What the nexus says is what the model knows."""
        if hasattr(self, "nexus"):
            assert not self.wrong
            stats = self.nexus.stats()
            assert_ledger_balanced(stats)
            assert stats.ingested == self.recovered + len(self.accepted)
            assert stats.refused == self.refused
            assert stats.handled + stats.failed == self.done
            assert sum(stats.lanes.values()) + sum(stats.spilled.values()) == stats.queued - stats.active
            assert sum(counts.spilled for counts in stats.types.values()) == sum(stats.spilled.values())
            assert all(depth <= self.maxsize + 4 for depth in stats.lanes.values()) or self.report is not None

    def teardown(self) -> None:
        try:
            if hasattr(self, "nexus"):
                if self.report is not None:
                    self.live(self.store)
                self.store.failing, self.store.most = False, 1000
                self.store.refuses = lambda event: False
                owed = self.stored()
                self.store.has_room()
                for giver in self.givers:
                    giver.cancel()
                self.runner.run(asyncio.wait_for(self.nexus.drained(), 10_000))
                self.ledger_is_exact()
                assert not self.wrong
                assert owed - self.uncertain <= self.ended
                assert self.nexus.stats().queued == len(self.store) == 0
                self.stop(0.0, 0)
        finally:
            self.runner.close()


TestSpill = SpillMachine.TestCase
TestSpill.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_spilling_is_exact_for_a_long_time() -> None:
    """The same machine, for as long as one has patience."""
    run_state_machine_as_test(
        SpillMachine, settings=settings(max_examples=10_000, stateful_step_count=50, deadline=None)
    )
