"""Lanes in a running nexus: strict order at every dispatch, and ageing."""

import asyncio
import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nexus import AsyncEventNexus, DropOldest, Event, SecondaryQueue
from nexus._lanes import Lane
from nexus.testing import Recorder, assert_ledger_balanced, assert_order, run, virtual_time


def event(number: int, priority: int = 0, type_: str = "a") -> Event[Any]:
    return Event(number, type_, priority, None)


KINDS = ("async", "plain", "sleeping", "careful", "several")


def nexus_with(kind: str, seen: list[Event[Any]], after: Any) -> AsyncEventNexus:
    """Make a nexus whose one handler is of this kind, and calls `after` with each event."""

    def plain(event: Event[Any], queue: SecondaryQueue) -> None:
        seen.append(event)
        after(event, queue)

    async def one(event: Event[Any], queue: SecondaryQueue) -> None:
        plain(event, queue)
        if kind == "sleeping":
            await asyncio.sleep(0.001)

    nexus = AsyncEventNexus(multiple=True, maxsize=1000)
    options = {"timeout": 60.0} if kind == "careful" else {}
    nexus.add_handler("a", plain if kind == "plain" else one, **options)
    if kind == "several":
        nexus.add_handler("a", lambda event: None)
    return nexus


SCRIPTS = st.lists(st.tuples(st.integers(-2, 2), st.lists(st.integers(-2, 2), max_size=3)))


@given(st.sampled_from(KINDS), SCRIPTS)
def test_the_most_urgent_goes_first_at_every_dispatch(kind: str, script: list[tuple[int, list[int]]]) -> None:
    """Whatever handlers ingest meanwhile: no event is handled while a more urgent or an older one waits."""
    seen: list[Event[Any]] = []
    waiting: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []
    numbers = itertools.count()

    def make(priority: int) -> Event[Any]:
        waiting.append((priority, next(numbers)))
        return event(waiting[-1][1], priority)

    def after(event: Event[Any], queue: SecondaryQueue) -> None:
        expected.append(min(waiting))
        waiting.remove((event.priority, event.id))
        for priority in script[event.id][1] if event.id < len(script) else ():
            queue.put_nowait(make(priority))

    async def play() -> None:
        nexus = nexus_with(kind, seen, after)
        async with nexus:
            await nexus.ingest_many([make(priority) for priority, _ in script])
            await nexus.drained()
        assert_ledger_balanced(nexus, handled=len(seen))

    run(play())
    assert [(e.priority, e.id) for e in seen] == expected
    assert waiting == []


@pytest.mark.parametrize("kind", KINDS)
@virtual_time
async def test_an_urgent_secondary_event_is_next(kind: str) -> None:
    """In the middle of a run of bulk events an urgent one is handled right after the one that made it."""
    seen: list[Event[Any]] = []

    def alarm(event: Event[Any], queue: SecondaryQueue) -> None:
        if event.id == 50:
            queue.put_nowait(Event(1000, "a", -1, None))

    nexus = nexus_with(kind, seen, alarm)
    async with nexus:
        await nexus.ingest_many(map(event, range(100)))
        await nexus.drained()
    assert [e.id for e in seen[50:53]] == [50, 1000, 51]


@virtual_time
async def test_an_urgent_event_from_outside_is_next() -> None:
    """What comes while a bulk handler waits for something is handled right after it."""
    seen: list[Event[Any]] = []
    nexus = nexus_with("sleeping", seen, lambda event, queue: None)
    async with nexus:
        await nexus.ingest_many(map(event, range(100)))
        await asyncio.sleep(0.0105)
        await nexus.ingest(event(1000, -1))
        await nexus.drained()
    assert [e.id for e in seen[10:13]] == [10, 1000, 11]
    assert_ledger_balanced(nexus, handled=101)


@pytest.mark.parametrize("ageing", [None, 1.0, 0.01])
@virtual_time
async def test_ageing_lets_the_low_lane_move(ageing: float | None) -> None:
    """Under a flood of urgent events the others starve without ageing, and have a share with it."""
    seen = Recorder()

    async def slow(event: Event[Any], queue: SecondaryQueue) -> None:
        await asyncio.sleep(0.01)
        await seen.handle(event, queue)
        if event.priority == 0 and event.id < 1000:
            await queue.put(Event(event.id + 1, "a", 0, None))

    nexus = AsyncEventNexus(ageing=ageing, maxsize=1000)
    nexus.add_handler("a", slow)
    async with nexus:
        await nexus.ingest_many(event(10_000 + n, 5) for n in range(50))
        await nexus.ingest(event(0))
        await asyncio.sleep(6.0)
        low = [e.id for e in seen.events if e.priority == 5]
        share = len(low) / len(seen)
        assert {None: share == 0, 1.0: 0 < share < 0.2, 0.01: share > 0.05}[ageing]
        await nexus.drained()
    for priority in (0, 5):
        assert_order(e for e in seen.events if e.priority == priority)
    assert_ledger_balanced(nexus, handled=1051)


@given(st.lists(st.integers(-1, 1), max_size=60), st.sampled_from([0.001, 0.1, 10.0]))
def test_ageing_keeps_the_order_within_a_lane(priorities: list[int], ageing: float) -> None:
    """Ageing chooses among lanes and never within one."""

    async def play() -> None:
        seen = Recorder()

        async def slow(event: Event[Any], queue: SecondaryQueue) -> None:
            await asyncio.sleep(0.01)
            await seen.handle(event, queue)

        nexus = AsyncEventNexus(ageing=ageing)
        nexus.add_handler("a", slow)
        async with nexus:
            for number, priority in enumerate(priorities):
                await nexus.ingest(event(number, priority))
                await asyncio.sleep(0.005)
            await nexus.drained()
        for priority in set(priorities):
            assert_order(e for e in seen.events if e.priority == priority)
        assert len(seen) == len(priorities)

    run(play())


@virtual_time
async def test_a_lane_given_up_is_not_forgotten_by_the_ledger() -> None:
    """Lanes come and go with their priorities; what they took stays counted."""
    nexus = AsyncEventNexus(max_lanes=3)
    nexus.add_handler("a", lambda event: None)
    nexus.set_policy("a", DropOldest())
    async with nexus:
        for number in range(300):
            await nexus.ingest(event(number, number))
            await asyncio.sleep(0)
        await nexus.drained()
        assert len(nexus.queue.lanes) <= 3
    assert_ledger_balanced(nexus, ingested=300)


def test_a_mark_is_kept_for_few_of_many_entries() -> None:
    """A day of waiting costs under two thousand marks, however many events come."""
    lane = Lane(0)
    lane.line.append(0)
    lane.occupied = True
    for second in range(86_400):
        lane.mark(float(second))
        lane.line.append(second)
    assert len(lane._marks) < 2000
