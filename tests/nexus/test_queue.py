"""The queue by itself: order, bounds, waiters, and who may go beyond them."""

import asyncio
from collections import deque
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import nexus
from nexus import AsyncEventNexus, AsyncEventPriorityQueue, Event
from nexus.errors import BadEvent, NexusError, QueueFull
from nexus.testing import Recorder, assert_ledger_balanced, run, virtual_time


def event(number: int, priority: int = 0, type_: Any = "a") -> Event[int]:
    return Event(number, type_, priority, number)


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def drain(queue: AsyncEventPriorityQueue) -> list[int]:
    return [queue.get_nowait().id for _ in range(queue.qsize())]


@given(st.lists(st.none() | st.integers(-3, 3), max_size=80))
def test_out_comes_the_most_urgent_and_the_oldest_of_those(steps: list[int | None]) -> None:
    """Whatever is put and taken when: the next one is the least by (priority, order of putting)."""
    queue = AsyncEventPriorityQueue(100)
    waiting: list[tuple[int, int]] = []
    for number, priority in enumerate(steps):
        if priority is not None:
            queue.put_nowait(event(number, priority))
            waiting.append((priority, number))
        elif waiting:
            taken = queue.get_nowait()
            waiting.sort()
            assert (taken.priority, taken.id) == waiting.pop(0)
    assert drain(queue) == [number for _, number in sorted(waiting)]
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


def test_each_lane_has_its_own_bound() -> None:
    """A full lane refuses the next event and no other lane does."""
    queue = AsyncEventPriorityQueue(3)
    for number in range(3):
        assert not queue.full()
        queue.put_nowait(event(number))
    assert queue.full()
    with pytest.raises(QueueFull, match=r"'a' at priority 0.*holds 3 events, maxsize is 3") as caught:
        queue.put_nowait(event(3))
    assert isinstance(caught.value, NexusError)
    assert isinstance(caught.value, asyncio.QueueFull)
    queue.put_nowait(event(4, -1))
    assert drain(queue) == [4, 0, 1, 2]


def test_max_lanes_is_exact_and_empty_lanes_give_way() -> None:
    """As many priorities wait at once as was said; one that is through makes room for another."""
    queue = AsyncEventPriorityQueue(3, max_lanes=2)
    queue.put_nowait(event(0, 0))
    queue.put_nowait(event(1, 1))
    with pytest.raises(QueueFull, match="no lane is free"):
        queue.put_nowait(event(2, 2))
    assert queue.get_nowait().id == 0
    queue.put_nowait(event(2, 2))
    assert drain(queue) == [1, 2]
    for priority in range(1000):
        queue.put_nowait(event(priority, priority))
        queue.get_nowait()
    assert len(queue.lanes) <= 2
    assert queue.entered == 1003


@virtual_time
async def test_waiters_enter_in_their_order_and_newcomers_stand_behind() -> None:
    """Who waits for room gets it in the order of asking; nobody who comes later is sooner."""
    queue = AsyncEventPriorityQueue(1)
    queue.put_nowait(event(0))
    givers = [asyncio.create_task(queue.put(event(n))) for n in (1, 2, 3)]
    await settle()
    assert queue.get_nowait().id == 0
    with pytest.raises(QueueFull):  # the place is promised to 1, which has not run yet
        queue.put_nowait(event(99))
    assert [(await queue.get()).id for _ in givers] == [1, 2, 3]
    assert all(giver.done() for giver in givers)


@virtual_time
async def test_no_newcomer_overtakes_while_a_handler_is_busy() -> None:
    """Places that are free for an instant during a turn of the nexus go to those who wait."""
    seen: list[int] = []

    async def handle(event: Event[int]) -> None:
        seen.append(event.id)
        await asyncio.sleep(1)

    nexus = AsyncEventNexus(maxsize=4)
    nexus.add_handler("a", handle)
    async with nexus:
        for number in range(4):
            await nexus.ingest(event(number))
        waiters = [asyncio.create_task(nexus.ingest(event(n))) for n in (4, 5, 6)]
        await asyncio.sleep(0.5)
        assert nexus.stats().lanes[0] <= 4
        newcomers = [asyncio.create_task(nexus.ingest(event(n))) for n in (7, 8, 9)]
        await asyncio.gather(*waiters, *newcomers)
        await nexus.drained()
    assert seen == list(range(10))


@virtual_time
async def test_a_type_that_blocks_by_choice_stands_in_the_same_line() -> None:
    """`Block()` said aloud is the same as `Block()` by default."""
    queue = AsyncEventPriorityQueue(1)
    queue.set_policy("b", nexus.Block())
    queue.put_nowait(event(0))
    first = asyncio.create_task(queue.put(event(1)))
    await settle()
    queue.get_nowait()
    second = asyncio.create_task(queue.put(event(2, type_="b")))
    assert [(await queue.get()).id for _ in range(2)] == [1, 2]
    await asyncio.gather(first, second)


@given(st.lists(st.sampled_from("pgcs"), max_size=60), st.integers(1, 3))
def test_cancelled_waiters_leave_nothing_behind(steps: list[str], maxsize: int) -> None:
    """Whoever is cancelled at whatever point: the bound holds, and all room is there again in the end."""

    async def play() -> None:
        queue = AsyncEventPriorityQueue(maxsize)
        givers: list[asyncio.Task[None]] = []
        taken = 0
        for number, step in enumerate(steps):
            if step == "p":
                givers.append(asyncio.create_task(queue.put(event(number))))
            elif step == "g" and not queue.empty():
                queue.get_nowait()
                taken += 1
            elif step == "c" and givers:
                givers[number % len(givers)].cancel()
            elif step == "s":
                await settle()
            assert queue.qsize() <= maxsize
        while not all(giver.done() for giver in givers) or not queue.empty():
            await settle()
            taken += len(drain(queue))
        results = await asyncio.gather(*givers, return_exceptions=True)
        assert taken == results.count(None)
        assert all(isinstance(r, asyncio.CancelledError) for r in results if r is not None)
        for number in range(maxsize):
            queue.put_nowait(event(number))
        assert queue.full()

    run(play())


@virtual_time
async def test_a_giver_cancelled_as_it_is_woken_passes_the_place_on() -> None:
    """The place promised to one who is cancelled before it runs goes to the next in line."""
    queue = AsyncEventPriorityQueue(1)
    queue.put_nowait(event(0))
    givers = [asyncio.create_task(queue.put(event(n))) for n in (1, 2)]
    await settle()
    queue.get_nowait()
    givers[0].cancel()
    assert (await queue.get()).id == 2
    results = await asyncio.gather(*givers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)


@virtual_time
async def test_who_comes_to_wait_where_there_is_room_again_does_not_wait() -> None:
    """A giver that found the lane full, and waits only when all is taken, is not left there for ever."""
    queue = AsyncEventPriorityQueue(1)
    queue.put_nowait(event(0))
    full = deque([event(1)])
    queue.give(full)
    assert len(full) == 1
    queue.get_nowait()
    async with asyncio.timeout(1):
        await queue.wait_for_room(full[0])
    assert drain(queue) == [1]


@virtual_time
async def test_a_promised_place_stays_promised_though_handlers_fill_the_lane() -> None:
    """Secondary events that come between a promise and the giver change neither its place nor its turn."""
    queue = AsyncEventPriorityQueue(1)
    inner = nexus.SecondaryQueue(queue)
    queue.put_nowait(event(0))
    givers = [asyncio.create_task(queue.put(event(n))) for n in (1, 2)]
    await settle()
    queue.get_nowait()
    inner.put_nowait(event(10))
    inner.put_nowait(event(11))
    assert [(await queue.get()).id for _ in range(4)] == [10, 11, 1, 2]
    await asyncio.gather(*givers)


@virtual_time
async def test_givers_without_a_lane_get_one_in_their_order() -> None:
    """All lanes taken, givers of new priorities wait in one line; a lane that is free wakes the first."""
    queue = AsyncEventPriorityQueue(5, max_lanes=2)
    queue.put_nowait(event(0, 0))
    queue.put_nowait(event(1, 1))
    givers = [asyncio.create_task(queue.put(event(10 + n, 5 + n % 2))) for n in range(4)]
    await settle()
    assert (await queue.get()).id == 0  # lane 0 is free though lane 1 is not
    await settle()
    assert givers[0].done()
    with pytest.raises(QueueFull):  # 12 was there before
        queue.put_nowait(event(99, 5))
    assert (await queue.get()).id == 1
    await asyncio.gather(*givers)
    assert drain(queue) == [10, 12, 11, 13]


@virtual_time
async def test_givers_without_a_lane_may_be_cancelled() -> None:
    """The first of those who wait for a lane gives up; the next gets it."""
    queue = AsyncEventPriorityQueue(5, max_lanes=1)
    queue.put_nowait(event(0, 0))
    givers = [asyncio.create_task(queue.put(event(n, n))) for n in (1, 2)]
    await settle()
    givers[0].cancel()
    assert [(await queue.get()).id for _ in range(2)] == [0, 2]
    assert isinstance((await asyncio.gather(*givers, return_exceptions=True))[0], asyncio.CancelledError)


@virtual_time
async def test_a_closed_queue_sends_everyone_away() -> None:
    """Closing ends every wait with the error of the closer, and nothing was given."""
    queue = AsyncEventPriorityQueue(1, max_lanes=1)
    queue.put_nowait(event(0))
    givers = [asyncio.create_task(queue.put(event(n, n % 2))) for n in range(1, 5)]
    await settle()
    givers[0].cancel()
    queue.close(lambda: ValueError("closed"))
    results = await asyncio.gather(*givers, return_exceptions=True)
    assert [type(result) for result in results] == [
        asyncio.CancelledError,
        ValueError,
        ValueError,
        ValueError,
    ]
    with pytest.raises(ValueError, match="closed"):
        queue.put_nowait(event(9))
    assert drain(queue) == [0]


@virtual_time
async def test_a_cancelled_get_loses_nothing() -> None:
    """Of two who wait for an event, one cancelled as it comes, the other gets it."""
    queue = AsyncEventPriorityQueue(1)
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await settle()
    getters[1].cancel()
    queue.put_nowait(event(1))
    getters[0].cancel()
    await settle()
    assert getters[2].result().id == 1
    await asyncio.gather(*getters, return_exceptions=True)


@virtual_time
async def test_secondary_events_never_wait() -> None:
    """A handler that puts ten thousand events in a lane of fifty is not stopped by its own nexus."""
    seen = Recorder()

    async def burst(event: Event[int], queue: nexus.SecondaryQueue) -> None:
        for number in range(10_000):
            await queue.put(Event(number, "child", 0, None))

    domain = AsyncEventNexus(maxsize=50)
    domain.add_handler("burst", burst)
    domain.add_handler("child", seen)
    async with domain:
        await domain.ingest(Event(0, "burst", 0, None))
        await domain.drained()
        assert [e.id for e in seen.events] == list(range(10_000))
        assert_ledger_balanced(domain, handled=10_001, refused=0)


@virtual_time
async def test_secondary_events_are_bounded() -> None:
    """The event beyond maxsize and max_secondary is refused, in the handler's own hands."""
    put: list[int] = []

    def flood(event: Event[int], queue: nexus.SecondaryQueue) -> None:
        for number in range(1000):
            queue.put_nowait(Event(number, "child", 0, None))
            put.append(number)

    domain = AsyncEventNexus(maxsize=10, max_secondary=100)
    domain.add_handler("flood", flood)
    domain.add_handler("child", lambda event: None)
    async with domain:
        await domain.ingest(Event(0, "flood", 0, None))
        await domain.drained()
        assert len(put) == 110
        assert_ledger_balanced(domain, handled=110, failed=1, refused=1)
        assert isinstance(domain.dead_letters[0].exception, QueueFull)


def test_the_default_bound_of_secondary_events_is_a_hundred_thousand() -> None:
    """Beyond its lane a handler has room for max_secondary events and not one more."""
    queue = AsyncEventPriorityQueue(10)
    inner = nexus.SecondaryQueue(queue)
    for number in range(100_010):
        inner.put_nowait(event(number))
    with pytest.raises(QueueFull, match="100000"):
        inner.put_nowait(event(0))
    assert inner.qsize() == 100_010


def test_a_handler_cannot_open_lanes_without_end() -> None:
    """New priorities of secondary events are bounded like the events themselves."""
    queue = AsyncEventPriorityQueue(10, max_lanes=2, max_secondary=5)
    inner = nexus.SecondaryQueue(queue)
    for priority in range(7):
        inner.put_nowait(event(0, priority))
    with pytest.raises(QueueFull):
        inner.put_nowait(event(0, 7))
    assert len(queue.lanes) == 7


@pytest.mark.parametrize(
    "thing", [None, 3, "event", object(), Event(1, [], 0, None), Event(1, "a", "x", None)]
)
def test_what_is_no_event_is_refused_with_a_reason(thing: Any) -> None:
    """Things that are no events raise an error that shows them and says what an event is."""
    queue = AsyncEventPriorityQueue(10)
    with pytest.raises(BadEvent, match=r"an event"):
        queue.put_nowait(thing)
    assert queue.empty()


@virtual_time
async def test_an_impossible_type_cannot_stop_the_nexus() -> None:
    """An event whose type no handler could have is counted as failed or unhandled, and the next one works."""
    seen = Recorder()
    domain = AsyncEventNexus()
    domain.add_handler("a", seen)
    async with domain:
        await domain.ingest(event(0))
        await domain.ingest(Event(1, [], 0, None))  # type: ignore[arg-type]
        await domain.ingest(event(2))
        assert domain.stats().balanced
        await domain.drained()
        assert [e.id for e in seen.events] == [0, 2]
        assert_ledger_balanced(domain, ingested=3, handled=2)


@pytest.mark.parametrize("words", [{"maxsize": 0}, {"max_lanes": 0}, {"ageing": 0.0}, {"maxsize": -1}])
def test_bounds_are_positive(words: dict[str, Any]) -> None:
    """A bound that is not positive is refused by name."""
    with pytest.raises(ValueError, match=f"{next(iter(words))} must be more than 0"):
        AsyncEventPriorityQueue(**words)
