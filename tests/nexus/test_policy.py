"""Overload policies: who goes when a lane is full, under which word it is counted, and what stays."""

import asyncio
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

import nexus
from nexus import (
    AsyncEventNexus,
    AsyncEventPriorityQueue,
    Block,
    DropNewest,
    DropOldest,
    Event,
    Fail,
    LatestByKey,
)
from nexus.errors import QueueFull
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


def event(number: int, type_: str = "a", priority: int = 0, key: int = 0) -> Event[int]:
    return Event(number, type_, priority, key)


def queue_with(maxsize: int, **policies: Any) -> AsyncEventPriorityQueue:
    queue = AsyncEventPriorityQueue(maxsize)
    for type_, policy in policies.items():
        queue.set_policy(type_, policy)
    return queue


def put(queue: AsyncEventPriorityQueue, *events: Event[int]) -> None:
    for each in events:
        queue.put_nowait(each)


def drain(queue: AsyncEventPriorityQueue) -> list[int]:
    return [queue.get_nowait().id for _ in range(queue.qsize())]


def drops(queue: AsyncEventPriorityQueue, type_: str = "a") -> dict[str, int]:
    return dict(queue.ledger.account(type_).drops)


def test_drop_oldest_drops_the_oldest_of_its_type() -> None:
    """A full lane keeps the newest."""
    queue = queue_with(3, a=DropOldest())
    put(queue, *map(event, range(10)))
    assert drain(queue) == [7, 8, 9]
    assert drops(queue) == {"drop_oldest": 7}


def test_drop_oldest_touches_no_other_type() -> None:
    """Where the lane holds none of its own type, the new event goes; other types and lanes stay."""
    queue = queue_with(3, a=DropOldest())
    put(queue, event(0, "b"), event(1, "a"), event(2, "b"), event(3, "a", priority=1))
    put(queue, event(4, "a"))
    assert [e.id for e in queue.events()] == [0, 2, 4, 3]
    assert queue.get_nowait().id == 0
    put(queue, event(5, "b"))
    assert drain(queue) == [2, 4, 5, 3]
    put(queue, *(event(n, "b") for n in range(3)), event(3, "a"))
    assert drain(queue) == [0, 1, 2]
    assert drops(queue) == {"drop_oldest": 2}
    assert drops(queue, "b") == {}


def test_drop_newest_drops_the_new_event() -> None:
    """A full lane keeps the oldest."""
    queue = queue_with(3, a=DropNewest())
    put(queue, *map(event, range(10)))
    assert drain(queue) == [0, 1, 2]
    assert drops(queue) == {"drop_newest": 7}


def test_latest_by_key_keeps_the_place_in_line() -> None:
    """The latest of a key stands where the first of it stood, though the lane is not full."""
    queue = queue_with(10, a=LatestByKey(lambda e: e.payload))
    put(queue, *(event(n, key=n % 3) for n in range(8)))
    assert drain(queue) == [6, 7, 5]
    assert drops(queue) == {"replaced": 5}
    put(queue, event(8, key=0))
    assert drain(queue) == [8]


def test_latest_by_key_without_a_key_keeps_one_of_the_type() -> None:
    """No key: all events of the type are the same thing."""
    queue = queue_with(10, a=LatestByKey())
    put(queue, event(0), event(1, "b"), event(2))
    assert drain(queue) == [2, 1]


def test_latest_by_key_moves_to_the_lane_of_the_latest() -> None:
    """The latest decides the priority too; the older one is gone from its lane."""
    queue = queue_with(10, a=LatestByKey())
    put(queue, event(0), event(1, priority=-1))
    assert queue.qsize() == 1
    assert drain(queue) == [1]
    assert drops(queue) == {"replaced": 1}


def test_latest_by_key_in_a_lane_full_of_other_keys() -> None:
    """Without room for another key the oldest of the type goes, and its key may come again."""
    queue = queue_with(2, a=LatestByKey(lambda e: e.payload))
    put(queue, *(event(n, key=n) for n in range(3)), event(3, key=0))
    assert drain(queue) == [2, 3]
    assert drops(queue) == {"drop_oldest": 2}


def test_fail_raises_and_is_counted_as_refused() -> None:
    """`Fail` refuses also those who would wait."""
    queue = queue_with(1, a=Fail())
    put(queue, event(0))
    with pytest.raises(QueueFull):
        queue.put_nowait(event(1))
    with pytest.raises(QueueFull):
        asyncio.run(queue.put(event(2)))
    assert queue.ledger.account("a").refused == 2
    assert drain(queue) == [0]


def test_types_keep_their_own_policies_in_one_lane() -> None:
    """In one full lane each type goes by its own policy, and the others stay in order."""
    queue = queue_with(4, old=DropOldest(), new=DropNewest(), key=LatestByKey(), fail=Fail())
    put(queue, event(0, "old"), event(1, "new"), event(2, "key"), event(3, "fail"))
    put(queue, event(4, "old"), event(5, "new"), event(6, "key"))
    with pytest.raises(QueueFull):
        put(queue, event(7, "fail"))
    with pytest.raises(QueueFull):
        put(queue, event(8, "block"))
    assert drain(queue) == [1, 6, 3, 4]


@given(
    st.lists(st.tuples(st.sampled_from("onkb"), st.integers(0, 1), st.integers(0, 2)), max_size=120),
    st.integers(1, 5),
)
def test_policies_agree_with_a_list(steps: list[tuple[str, int, int]], maxsize: int) -> None:
    """A queue of lanes and slots does what the simplest list would do."""
    queue = queue_with(maxsize, o=DropOldest(), n=DropNewest(), k=LatestByKey(lambda e: e.payload))
    lines: dict[int, list[Event[int]]] = {0: [], 1: []}
    dropped = 0
    for number, (type_, priority, key) in enumerate(steps):
        new, line = event(number, type_, priority, key), lines[priority]
        if type_ == "b" and key == 0 and not queue.empty():
            expected = (lines[0] or lines[1]).pop(0)
            assert queue.get_nowait() is expected
            continue
        same = [e for e in lines[0] + lines[1] if e.type == "k" == type_ and e.payload == key]
        if same and same[0].priority == priority:
            line[line.index(same[0])] = new
            dropped += 1
        else:
            if same:
                lines[1 - priority].remove(same[0])
                dropped += 1
            own = [e for e in line if e.type == type_]
            if len(line) < maxsize:
                line.append(new)
            elif type_ in "ok" and own:
                line.remove(own[0])
                line.append(new)
                dropped += 1
            elif type_ in "okn":
                dropped += 1
        try:
            queue.put_nowait(new)
        except QueueFull:
            assert type_ == "b"
        assert [e.id for e in queue.events()] == [e.id for e in lines[0] + lines[1]]
    assert sum(sum(queue.ledger.account(t).drops.values()) for t in "onk") == dropped


@virtual_time
async def test_drop_oldest_reaches_the_backlog_of_a_busy_handler() -> None:
    """Events that wait for a handler with a concurrency are the oldest, and go first."""
    seen = Recorder()
    release = asyncio.Event()

    async def slow(event: Event[int], queue: nexus.SecondaryQueue) -> None:
        await release.wait()
        await seen.handle(event, queue)

    domain = AsyncEventNexus(maxsize=3)
    domain.add_handler("a", slow, concurrency=1)
    domain.set_policy("a", DropOldest())
    async with domain:
        for number in range(20):
            await domain.ingest(event(number))
            await asyncio.sleep(0.01)
            assert domain.stats().lanes.get(0, 0) <= 3
        assert_ledger_balanced(domain, ingested=20, active=1, queued=4, dropped=16)
        release.set()
        await domain.drained()
    assert [e.id for e in seen.events] == [0, 17, 18, 19]


@virtual_time
async def test_latest_by_key_reaches_the_backlog_of_a_busy_handler() -> None:
    """A value that waits for its busy handler is replaced by a newer one, in its place."""
    seen = Recorder()

    async def slow(event: Event[int], queue: nexus.SecondaryQueue) -> None:
        await asyncio.sleep(1)
        await seen.handle(event, queue)

    domain = AsyncEventNexus(maxsize=10)
    domain.add_handler("a", slow, concurrency=1)
    domain.set_policy("a", LatestByKey(lambda e: e.payload))
    async with domain:
        for number in range(9):
            await domain.ingest(event(number, key=number % 3))
            await asyncio.sleep(0.01)
        await domain.drained()
        assert [e.id for e in seen.events] == [0, 7, 8, 6]
        assert_ledger_balanced(domain, ingested=9, handled=4, dropped=5)


@attrs.frozen
class Flood:
    """A flood against a handler that hangs."""

    concurrency: int | None
    policy: Any


FLOODS = [Flood(c, p) for c in (None, 1) for p in (DropOldest(), LatestByKey(lambda e: e.id), LatestByKey())]


async def hold_a_flood(flood: Flood, count: int) -> None:
    """Ingest many events while their handler hangs; what is held stays small."""

    async def hang(event: Event[int]) -> None:
        await asyncio.Event().wait()

    domain = AsyncEventNexus(maxsize=50, grace=0.0)
    domain.add_handler("a", hang, concurrency=flood.concurrency)
    domain.set_policy("a", flood.policy)
    async with domain:
        for number in range(count):
            await domain.ingest(event(number, priority=number % 7 // 3))
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert largest_container(domain) <= 500
        stats = domain.stats()
        assert stats.balanced
        assert stats.queued <= 3 * 51


def largest_container(root: object) -> int:
    """Return the length of the longest thing that can be reached from here, without going into events."""
    seen: set[int] = set()
    stack: list[Any] = [root]
    longest = 0
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | str | int | float | Event):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | tuple | frozenset) or thing.__class__.__name__ == "deque":
            longest = max(longest, len(thing))
            stack += [*thing, *thing.values()] if isinstance(thing, dict) else list(thing)
        if thing.__class__.__module__.startswith("nexus") or isinstance(thing, dict):
            for owner in thing.__class__.__mro__:
                slots = owner.__dict__.get("__slots__", ())
                stack += [getattr(thing, name, None) for name in slots if name != "__dict__"]
            stack.append(getattr(thing, "__dict__", None))
    return longest


@pytest.mark.parametrize("flood", FLOODS, ids=str)
@virtual_time
async def test_a_flood_on_a_hung_handler_takes_no_memory(flood: Flood) -> None:
    """Dropped events leave no place, key or hole behind, in line or in the handler's backlog."""
    await hold_a_flood(flood, 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS, ids=str)
@pytest.mark.timeout(300)
@virtual_time
async def test_a_long_flood_on_a_hung_handler_takes_no_memory(flood: Flood) -> None:
    """The same over a million events."""
    await hold_a_flood(flood, 1_000_000)


@virtual_time
async def test_priorities_without_end_take_no_memory() -> None:
    """A type with a policy may come at any number of priorities, one after the other."""
    domain = AsyncEventNexus()
    domain.add_handler("a", lambda event: None)
    domain.set_policy("a", DropOldest())
    async with domain:
        for number in range(3000):
            await domain.ingest(event(number, priority=number))
            await domain.drained()
        assert largest_container(domain) <= 500
        assert_ledger_balanced(domain, handled=3000)


@virtual_time
async def test_a_policy_may_change_while_events_wait() -> None:
    """Those waiting stay as they are; from the next event on the new policy holds."""
    queue = queue_with(2, a=DropOldest())
    put(queue, event(0), event(1))
    queue.set_policy("a", DropNewest())
    put(queue, event(2))
    assert [e.id for e in queue.events()] == [0, 1]
    queue.set_policy("a", Block())
    giver = asyncio.create_task(queue.put(event(3)))
    await asyncio.sleep(0)
    assert not giver.done()
    assert [(await queue.get()).id for _ in range(3)] == [0, 1, 3]
    assert drops(queue) == {"drop_newest": 1}


@virtual_time
async def test_secondary_events_go_by_their_policy_too() -> None:
    """What a handler puts into a full lane is dropped by policy or refused by `Fail`, and never waits."""

    async def burst(event: Event[int], queue: nexus.SecondaryQueue) -> None:
        for number in range(10):
            await queue.put(Event(number, "child", 0, 0))

    seen = Recorder()
    domain = AsyncEventNexus(maxsize=3)
    domain.add_handler("a", burst)
    domain.add_handler("child", seen)
    domain.set_policy("child", DropOldest())
    async with domain:
        await domain.ingest(event(0))
        await domain.drained()
        assert [e.id for e in seen.events] == [7, 8, 9]
        domain.set_policy("child", Fail())
        await domain.ingest(event(1))
        await domain.drained()
        assert_ledger_balanced(domain, handled=7, failed=1, refused=1, dropped=7)


@virtual_time
async def test_a_key_that_fails_is_the_givers_error() -> None:
    """A key function that raises is found by who ingests; the nexus goes on."""
    domain = AsyncEventNexus()
    seen = Recorder()
    domain.add_handler("a", seen)
    domain.set_policy("a", LatestByKey(lambda e: 1 // e.payload))
    async with domain:
        with pytest.raises(ZeroDivisionError):
            await domain.ingest(event(0, key=0))
        await domain.ingest(event(1, key=1))
        await domain.drained()
        assert_ledger_balanced(domain, ingested=1, handled=1)


@pytest.mark.parametrize("policy", [None, "drop", object(), int])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    """An unknown policy raises an error that lists those there are; a class stands for its plain form."""
    queue = AsyncEventPriorityQueue()
    with pytest.raises(TypeError, match=r"one of Block\(\), DropOldest\(\)"):
        queue.set_policy("a", policy)
    with pytest.raises(TypeError, match="an event type is"):
        queue.set_policy(2.5, DropOldest())  # type: ignore[arg-type]
    queue.set_policy("a", DropOldest)  # type: ignore[arg-type]
