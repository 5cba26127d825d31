"""Waiting until others have left a lane."""

import asyncio
from collections.abc import Callable

import pytest

from nexus import AsyncEventNexus, AsyncEventPriorityQueue, Event
from nexus.errors import BadCall
from nexus.testing import virtual_time


def event(number: int) -> Event[int]:
    return Event(number, "t", 0, number)


@virtual_time
async def test_who_waits_behind_others_is_woken_when_they_are_gone() -> None:
    """Not before the last of them has left the line, and at once where they have."""
    nexus, told = AsyncEventNexus(), list[int]()
    async with nexus:
        room = nexus.queue.room

        async def handle(event: Event[int], queue: object) -> None:
            told.append(event.payload)
            await asyncio.sleep(1)

        nexus.add_handler("t", handle)
        await nexus.ingest_many(map(event, range(10)))
        lane = nexus.queue.lanes[0]

        async def wait(position: int) -> int:
            await room.passed(lane, position)
            return len(told)

        await room.passed(lane, 0)
        positions = (3, 7, 10)
        for position, seen in zip(positions, await asyncio.gather(*map(wait, positions)), strict=True):
            assert position <= seen <= position + 1
        assert not room._behind


@pytest.mark.parametrize(
    "end",
    [
        lambda queue, task: queue.close(lambda: BadCall("closed")),
        lambda queue, task: queue.room.look_again(),
        lambda queue, task: task.cancel(),
    ],
    ids=["close", "look again", "cancel"],
)
@virtual_time
async def test_who_waits_behind_others_may_be_woken_sooner(
    end: Callable[[AsyncEventPriorityQueue, asyncio.Task[None]], object],
) -> None:
    """A closed door, or whoever has all look again, ends it; cancelled, nothing is left of it."""
    queue = AsyncEventPriorityQueue()
    await queue.put(event(1))
    task = asyncio.create_task(queue.room.passed(queue.lanes[0], 1))
    await asyncio.sleep(1)
    assert not task.done()
    end(queue, task)
    await asyncio.wait((task,))
    assert not queue.room._behind
