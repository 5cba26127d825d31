"""The nexus's ways in and what it tells: ingest in every form, drained, its names and its words."""

import asyncio
import random
from typing import Any

import pytest

from nexus import AsyncEventNexus, DropNewest, Event, errors
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


def event(number: int, priority: int = 0, type: str = "t") -> Event[None]:
    return Event(number, type, priority, None)


async def second(event: Event[Any]) -> None:
    await asyncio.sleep(1)


WRONG: list[Any] = [None, 3, "event", object(), {"id": 1, "type": "t", "priority": 0, "payload": None}]


@pytest.mark.parametrize("thing", WRONG, ids=repr)
def test_what_is_no_event_is_refused_at_every_door(thing: Any) -> None:
    """Each way in raises BadEvent, says what it found, and counts nothing."""

    @virtual_time
    async def go() -> None:
        async with AsyncEventNexus() as nexus:
            nexus.add_handler("t", second)
            await nexus.ingest(event(1))
            with pytest.raises(errors.BadEvent, match=type(thing).__name__):
                await nexus.ingest(thing)
            with pytest.raises(errors.BadEvent):
                await nexus.ingest_many([thing])
            for give in (nexus.ingest_nowait, nexus.offer):
                with pytest.raises(errors.BadEvent):
                    give(thing)
        assert_ledger_balanced(nexus, ingested=1, handled=1)

    go()


@virtual_time
async def test_ingest_waits_while_its_lane_is_full() -> None:
    """A giver waits for room in its own lane; other priorities are not held up."""
    nexus = AsyncEventNexus(maxsize=2)
    nexus.add_handler("t", second)
    async with nexus:
        await nexus.ingest_many(event(n) for n in range(3))
        waiting = asyncio.ensure_future(nexus.ingest(event(3)))
        await asyncio.sleep(0)
        assert not waiting.done()
        await nexus.ingest(event(9, -1))
        assert asyncio.get_running_loop().time() < 2
        await waiting
    assert_ledger_balanced(nexus, ingested=5, handled=5)


@virtual_time
async def test_room_is_given_while_a_handler_waits() -> None:
    """The place of an event that is with its handler is free at once, however long the handler takes."""
    nexus = AsyncEventNexus(maxsize=1)
    nexus.add_handler("t", lambda event: asyncio.sleep(3600))
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.ingest(event(2))
        assert asyncio.get_running_loop().time() == 0
        assert (await nexus.stop(grace=0)).stuck == ()


@virtual_time
async def test_ingest_nowait_raises_where_ingest_would_wait() -> None:
    """QueueFull is also asyncio's; the refusal is counted, and says what to do."""
    nexus = AsyncEventNexus(maxsize=2)
    nexus.add_handler("t", second)
    async with nexus:
        nexus.ingest_nowait(event(1))
        nexus.ingest_nowait(event(2))
        assert not nexus.offer(event(3))
        with pytest.raises(asyncio.QueueFull, match="maxsize is 2"):
            nexus.ingest_nowait(event(3))
    assert_ledger_balanced(nexus, ingested=2, handled=2, refused=1)


@virtual_time
async def test_ingest_many_keeps_the_order_and_takes_any_iterable() -> None:
    """A generator longer than the lane is taken in turn, as there is room."""
    seen = Recorder()
    nexus = AsyncEventNexus(maxsize=5)
    nexus.add_handler("t", seen)
    async with nexus:
        await nexus.ingest_many(event(n) for n in range(100))
        await nexus.drained()
        assert [each.id for each in seen.events] == list(range(100))


@virtual_time
async def test_ingest_many_that_fails_has_given_what_came_before() -> None:
    """An iterable that raises in the middle leaves the events before it accepted."""

    def broken() -> Any:
        yield event(1)
        yield event(2)
        raise OSError("file ends")

    seen = Recorder()
    async with AsyncEventNexus() as nexus:
        nexus.add_handler("t", seen)
        with pytest.raises(OSError, match="file ends"):
            await nexus.ingest_many(broken())
    assert [each.id for each in seen.events] == [1, 2]


@virtual_time
async def test_drained_waits_for_handlers_beside_and_for_retries() -> None:
    """drained returns when everything accepted is settled, wherever it was."""
    tries: list[int] = []

    async def flaky(event: Event[Any]) -> None:
        tries.append(event.id)
        if len(tries) < 3:
            raise OSError

    nexus = AsyncEventNexus()
    nexus.add_handler("beside", second, concurrency=2)
    nexus.add_handler("flaky", flaky, retries=5, retry_delay=1.0)
    async with nexus:
        await nexus.ingest_many(event(n, type="beside") for n in range(5))
        await nexus.ingest(event(9, type="flaky"))
        await nexus.drained()
        assert asyncio.get_running_loop().time() == 3
        assert_ledger_balanced(nexus, handled=6, queued=0, active=0)
        await nexus.drained()


@virtual_time
async def test_drained_ends_with_the_nexus() -> None:
    """Whoever waits for a nexus to be drained is let go when it stops with events left."""
    nexus = AsyncEventNexus()
    nexus.add_handler("t", lambda event: asyncio.sleep(3600))
    nexus.start()
    await nexus.ingest(event(1))
    waiting = asyncio.ensure_future(nexus.drained())
    await asyncio.sleep(1)
    await nexus.stop(grace=1)
    await asyncio.wait_for(waiting, 1)


@virtual_time
async def test_drop_at_the_door_is_no_error() -> None:
    """An event turned away by its policy is accepted, dropped and counted."""
    nexus = AsyncEventNexus(maxsize=1)
    nexus.add_handler("t", second)
    nexus.set_policy("t", DropNewest())
    async with nexus:
        for number in range(10):
            nexus.ingest_nowait(event(number))
    assert_ledger_balanced(nexus, ingested=10, handled=1, dropped=9, refused=0)


BAD_OPTIONS: list[dict[str, Any]] = [
    {"maxsize": 0},
    {"maxsize": -1},
    {"max_lanes": 0},
    {"ageing": 0},
    {"ageing": -1.0},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """An option out of its range is named, with what was found."""
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        AsyncEventNexus(**options)


@virtual_time
async def test_tasks_of_a_nexus_bear_its_name() -> None:
    """Every task says whose it is and what it does."""
    nexus = AsyncEventNexus(name="plant")
    nexus.add_handler("t", second, concurrency=1)
    task = nexus.start()
    await nexus.ingest(event(1))
    await asyncio.sleep(0.5)
    assert task.get_name() == "nexus[plant]"
    assert {each.get_name() for each in nexus.tasks} == {"nexus[plant].drain", "nexus[plant].handler.second"}
    assert "plant" in repr(nexus)
    assert "LOOPING" in repr(nexus)
    await nexus.stop()


def test_class_constant_bounds_the_lanes() -> None:
    """A subclass may set the bound as the class attribute; an argument goes before it."""

    class Small(AsyncEventNexus):
        QUEUE_MAXLEN = 3

    assert Small().queue.maxsize == 3
    assert Small(maxsize=8).queue.maxsize == 8


def test_jitter_comes_from_the_rng_given() -> None:
    """A nexus draws chance from nowhere else, so a seed replays it."""
    rng = random.Random(5)
    assert AsyncEventNexus(rng=rng).rng is rng
