"""Cancellation at every await: it always leaves, loses no accepted event and leaves no task."""

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import attrs
import pytest

from nexus import (
    AsyncEventNexus,
    AsyncEventPriorityQueue,
    Event,
    EventFanout,
    EventProducer,
    SimpleEventConverter,
    Timer,
)
from nexus._queue import Giver
from nexus.errors import NexusError
from nexus.testing import assert_ledger_balanced, run

MOST = 200
"""Suspensions after which a scenario is taken to run for ever."""


@types.coroutine
def suspending(work: Coroutine[Any, Any, Any], seen: Callable[[int], None]) -> Generator[Any, Any, Any]:
    """Run a coroutine step by step, and tell the number of each suspension as it happens."""
    number = 0
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            waited_for = step()
        except StopIteration as end:
            return end.value
        seen(number)
        number += 1
        try:
            yield waited_for
        except BaseException as exc:
            failure = exc
            step = lambda: work.throw(failure)  # noqa: B023, E731
        else:
            step = lambda: work.send(None)  # noqa: E731


class Hand(SimpleEventConverter):
    """Gives events one by one, and remembers which have left its hand."""

    def __init__(self, count: int = 6) -> None:
        self.left = list(range(100, 100 + count))
        self.given: list[int] = []

    async def obtain_event(self) -> Event[Any]:
        await asyncio.sleep(0.001)
        if not self.left:
            await asyncio.Event().wait()
        self.given.append(self.left.pop(0))
        return Event(self.given[-1], "t", 0, None)


class World:
    """A nexus with a slow handler, and what was accepted and handled."""

    def __init__(self, make: type[AsyncEventNexus] = AsyncEventNexus) -> None:
        self.nexus = make(maxsize=2, grace=5)
        self.nexus.add_handler("t", self.handle, concurrency=None)
        self.nexus.add_handler("beside", self.handle, concurrency=2)
        self.hand = Hand()
        self.accepted: list[int] = []
        self.handled: list[int] = []

    async def handle(self, event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        self.handled.append(event.id)

    async def give(self, number: int, type: str = "t", priority: int = 0) -> None:
        await self.nexus.ingest(Event(number, type, priority, None))
        self.accepted.append(number)

    async def started(self) -> None:
        """Run, with its lane full and a handler busy."""
        self.nexus.start()
        for number in range(3):
            await self.give(number)


Scenario = Callable[[World], Awaitable[None]]


async def ingest_into_a_full_lane(world: World) -> None:
    await world.started()
    await asyncio.gather(world.give(10), world.give(11))
    for number in range(12, 16):
        await world.give(number, "beside" if number % 2 else "t", -number)


async def ingest_many(world: World) -> None:
    world.nexus.start()

    def events() -> Generator[Event[Any]]:
        for number in range(20, 30):
            yield Event(number, "beside" if number % 3 else "t", number % 2, None)
            world.accepted.append(number)  # the next one is asked for once this one is in

    await world.nexus.ingest_many(events())


async def drained(world: World) -> None:
    await world.started()
    await world.nexus.drained()


async def loop_forever(world: World) -> None:
    world.nexus.add_producer(Timer(0.003, event_type="tick", type=Timer.ONGOING))
    asyncio.get_running_loop().call_later(0.1, world.nexus.stop)
    await world.nexus.loop_forever()


async def converter_in_hand(world: World) -> None:
    world.nexus.add_converter(world.hand)
    asyncio.get_running_loop().call_later(0.1, world.nexus.stop)
    await world.nexus.loop_forever()


async def stop(world: World) -> None:
    await world.started()
    await world.nexus.stop()


async def stop_twice(world: World) -> None:
    await world.started()
    await asyncio.gather(world.nexus.stop(), world.nexus.stop(grace=0.005))


async def async_with(world: World) -> None:
    world.nexus.add_producer(Timer(0.001, event_type="tick"))
    async with world.nexus:
        await world.give(1)
        await world.give(2, "beside")


async def with_block(world: World) -> None:
    with world.nexus:
        await world.started()
        await asyncio.sleep(0.005)


async def remove_source(world: World) -> None:
    await world.started()
    world.nexus.add_converter(world.hand)
    await asyncio.sleep(0.0015)
    await world.nexus.remove_source(world.hand)


async def timer(world: World) -> None:
    timer = Timer(0.001, event_type="tick", type=Timer.COUNT_UP, count=5)
    await world.started()
    timer.register_nexus(world.nexus)
    await (await timer.start())


async def distribute(world: World) -> None:
    producer = EventProducer()
    await world.started()
    producer.register_nexus(world.nexus)
    for number in range(40, 43):
        await producer.distribute_event(Event(number, "t", 0, None))
        world.accepted.append(number)


async def fanout(world: World) -> None:
    fanout = EventFanout()
    for _ in range(3):
        fanout.register(lambda event: asyncio.sleep(0.001))
    world.nexus.add_handler("fan", fanout)
    await world.started()
    await world.nexus.dispatch(Event(1, "fan", 0, None), None)  # type: ignore[arg-type]


async def queue_alone(world: World) -> None:
    queue = AsyncEventPriorityQueue(maxsize=1)
    given: list[int] = []
    taken: list[int] = []

    async def take() -> None:
        while len(taken) < 6:
            taken.append((await queue.get()).id)
            await asyncio.sleep(0)

    async def give() -> None:
        for number in range(6):
            await queue.put(Event(number, "t", 0, None))
            given.append(number)

    try:
        await asyncio.gather(give(), take(), look(queue, taken))
    finally:
        await asyncio.sleep(0)
        while not queue.empty():
            taken.append(queue.get_nowait().id)
        assert sorted(taken) == given


async def look(queue: AsyncEventPriorityQueue, taken: list[int]) -> None:
    """Wait for an event, and give up in the moment it may have come."""
    getter = asyncio.ensure_future(queue.get())
    try:
        await asyncio.sleep(0)
    finally:
        getter.cancel()
        await asyncio.wait([getter])
        if not getter.cancelled():
            taken.append(getter.result().id)


SCENARIOS = [
    ingest_into_a_full_lane,
    ingest_many,
    drained,
    loop_forever,
    converter_in_hand,
    stop,
    stop_twice,
    async_with,
    with_block,
    remove_source,
    timer,
    distribute,
    fanout,
    queue_alone,
]


@attrs.frozen
class Moment:
    """How long after a suspension the cancellation comes."""

    seconds: float
    turns: int
    """Turns of the loop after that."""


MOMENTS = [Moment(0, turns) for turns in (0, 1, 2, 3, 5)]
MOMENTS += [
    Moment(seconds, turns) for seconds in (0.001, 0.0015, 0.005, 0.01, 0.0105, 0.02) for turns in (0, 1, 2)
]


async def cancelled_at(world: World, scenario: Scenario, place: int, moment: Moment) -> bool:
    """Cancel a scenario at or a little after its suspension `place`; False if it never gets there."""
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    was_asked: list[bool] = []

    def later(left: int) -> None:
        if left:
            loop.call_soon(later, left - 1)
        else:
            was_asked.append(task.cancel())

    def seen(number: int) -> None:
        if number == place:
            reached.set()
            loop.call_later(moment.seconds, later, moment.turns)

    async def go() -> None:
        await suspending(scenario(world), seen)  # type: ignore[arg-type]

    task = asyncio.create_task(go())
    await asyncio.wait([task])
    if any(was_asked):
        assert task.cancelled(), f"{task!r} was cancelled and did not leave"
    elif not task.cancelled():
        task.result()
    return reached.is_set()


async def judge(world: World) -> None:
    """Stop the nexus and hold what happened against the laws."""
    report = await world.nexus.stop()
    assert report.stuck == ()
    assert_ledger_balanced(report.stats)
    kept = [event.id for event in report.remaining if event.type in ("t", "beside")]
    assert sorted(world.handled + kept) == sorted(world.accepted + world.hand.given)
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    assert not world.nexus.tasks


def enumerate_cancellations(scenario: Scenario, make: type[AsyncEventNexus] = AsyncEventNexus) -> int:
    """Cancel a scenario at each of its suspensions and soon after; return how many there were."""

    async def once(place: int, moment: Moment) -> bool:
        world = World(make)
        world.nexus.add_handler("tick", lambda event: None)
        reached = await cancelled_at(world, scenario, place, moment)
        await judge(world)
        return reached

    for place in range(MOST):
        reached = [run(once(place, moment), limit=100) for moment in MOMENTS]
        if not all(reached):
            return place
    raise AssertionError(f"{scenario} suspends more than {MOST} times")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_cancelled_at_any_await_it_leaves_and_loses_nothing(scenario: Scenario) -> None:
    """Cancelled at its k-th await, for each k: CancelledError leaves, nothing is lost, no task is left."""
    assert enumerate_cancellations(scenario) > 0


@pytest.mark.parametrize("place", range(8))
def test_cancelled_twice_the_loop_leaves_at_once(place: int) -> None:
    """A second cancellation leaves loop_forever in the same moment; the stop ends by itself."""

    async def go() -> None:
        world = World()
        task = asyncio.create_task(world.nexus.loop_forever())
        await asyncio.sleep(0)
        await world.give(1)
        for _ in range(place):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.get_running_loop().time() == 0
        await judge(world)

    run(go())


# The harness sees what breaks the laws.


class Swallows(AsyncEventNexus):
    """Swallows a cancellation while it waits for room."""

    async def ingest(self, event: Event[Any]) -> None:
        try:
            await super().ingest(event)
        except asyncio.CancelledError:
            await super().ingest(event)


class AcceptsTwice(AsyncEventNexus):
    """Takes an event whose giver was cancelled."""

    async def ingest(self, event: Event[Any]) -> None:
        try:
            await super().ingest(event)
        except asyncio.CancelledError:
            self.queue.admit(event, Giver.HOLDER)
            raise


class LeavesATask(AsyncEventNexus):
    """Waits in a task that nobody ends."""

    async def drained(self) -> None:
        await asyncio.shield(asyncio.ensure_future(self.never()))

    async def never(self) -> None:
        try:
            await super().drained()
        finally:
            await asyncio.sleep(50)


class LosesTheHand(AsyncEventNexus):
    """Loses the event a converter holds when it is cancelled."""

    async def loop_forever(self) -> None:
        self.queue.wait_for_room = self._lose  # type: ignore[method-assign]
        await super().loop_forever()

    async def _lose(self, event: Event[Any]) -> None:
        while self.queue.full():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                raise NexusError("lost") from None
        self.queue.put_nowait(event)


@pytest.mark.parametrize(
    ("scenario", "mutant"),
    [
        (ingest_into_a_full_lane, Swallows),
        (distribute, AcceptsTwice),
        (drained, LeavesATask),
        (converter_in_hand, LosesTheHand),
    ],
)
def test_broken_nexus_is_found(scenario: Scenario, mutant: type[AsyncEventNexus]) -> None:
    """Each deliberate fault is seen by the enumeration, so that its silence means something."""
    with pytest.raises(AssertionError):
        enumerate_cancellations(scenario, mutant)
