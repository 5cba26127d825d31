"""Cancellation at every await of a link: it leaves, loses nothing that was taken, and leaves no task."""

import asyncio
import random
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.testing import MemoryWire, run

MOST = 200
"""Suspensions after which a scenario is taken to run for ever."""
MOMENTS = [(0.0, turns) for turns in (0, 1, 2, 3, 5)] + [(0.004, 0), (0.005, 0), (0.005, 1), (0.0101, 0)]
"""Seconds after a suspension, and turns of the loop after that, at which the cancellation comes."""


@types.coroutine
def suspending(work: Coroutine[Any, Any, Any], seen: Callable[[int], None]) -> Generator[Any, Any, Any]:
    """Run a coroutine step by step, and tell the number of each suspension as it happens."""
    number, failure, answer = 0, None, None
    while True:
        try:
            waited_for = work.throw(failure) if failure is not None else work.send(answer)
        except StopIteration as end:
            return end.value
        seen(number)
        number, failure, answer = number + 1, None, None
        try:
            answer = yield waited_for
        except BaseException as exc:
            failure = exc


class World:
    """A link that is worked by hand, and a whole nexus on the other side."""

    def __init__(self) -> None:
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
        limits = LinkLimits(maxsize=2, most_window=2, flush_timeout=1.0)
        self.link = Link.over(self.dial, name="here", limits=limits)
        self.back = Link.over(self.dial, name="there", limits=limits)
        self.near.register(self.link)
        self.far.register(self.back)
        self.got: list[int] = []
        self.far.add_handler("t", lambda event: self.got.append(event.id))
        self.taken: list[int] = []
        self.rng = random.Random(0)
        self.waiting: asyncio.Future[MemoryWire] | None = None

    async def dial(self) -> MemoryWire:
        """Give one end of a new wire, as soon as both want one."""
        if self.waiting is None or self.waiting.done():
            self.waiting = asyncio.get_running_loop().create_future()
            return await self.waiting
        here, there = MemoryWire.pair(rng=self.rng, delay=(0.005, 0.005))
        self.waiting.set_result(there)
        return here

    async def give(self, count: int) -> None:
        """Give the link events, one by one."""
        for number in range(count):
            await self.link.handle(Event(number, "t", number % 2, None))
            self.taken.append(number)


async def handle(world: World) -> None:
    await world.link.start()
    await world.give(9)


async def connected(world: World) -> None:
    await world.link.start()
    await world.link.connected(10)


async def flushed(world: World) -> None:
    await world.link.start()
    await world.give(4)
    await world.link.flushed(10)


async def aclose(world: World) -> None:
    await world.link.start()
    await world.link.connected()
    await world.give(4)
    await world.link.aclose()


async def again(world: World) -> None:
    await world.link.start()
    await world.give(3)
    await world.link.aclose()
    await world.link.start()
    await world.link.connected(10)
    await world.link.aclose()


async def cancelled_at(world: World, work: Awaitable[None], place: int, moment: tuple[float, int]) -> bool:
    """Cancel at or a little after a suspension; False if it is never reached."""
    loop = asyncio.get_running_loop()
    reached: list[int] = []
    asked: list[bool] = []

    def later(left: int) -> None:
        if left:
            loop.call_soon(later, left - 1)
        else:
            asked.append(task.cancel())

    def seen(number: int) -> None:
        if number == place:
            reached.append(number)
            loop.call_later(moment[0], later, moment[1])

    async def go() -> None:
        await suspending(work, seen)  # type: ignore[arg-type]

    task = asyncio.create_task(go())
    await asyncio.wait([task])
    if any(asked):
        assert task.cancelled(), f"{task!r} was cancelled and did not leave"
    elif not task.cancelled():
        task.result()
    return bool(reached)


async def once(scenario: Callable[[World], Awaitable[None]], place: int, moment: tuple[float, int]) -> bool:
    """Cancel in one place, and judge: what was taken crosses once, in order, after a start if need be."""
    world = World()
    async with world.far:
        reached = await cancelled_at(world, scenario(world), place, moment)
        await world.link.start()
        await world.link.connected(60)
        assert await world.link.flushed(60)
        await world.far.drained()
        await world.link.aclose()
    for lane in (0, 1):
        mine = [number for number in world.taken if number % 2 == lane]
        assert [number for number in world.got if number % 2 == lane] == mine
    assert world.link.counts.taken == world.link.counts.accepted == len(world.taken)
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return reached


@pytest.mark.parametrize("scenario", [handle, connected, flushed, aclose, again], ids=lambda it: it.__name__)
def test_cancelled_at_any_await_it_leaves_and_loses_nothing(
    scenario: Callable[[World], Awaitable[None]],
) -> None:
    """Cancelled at its k-th await, for each k: it leaves, nothing is lost or comes twice, no task is left."""
    for place in range(MOST):
        reached = [run(once(scenario, place, moment), limit=200) for moment in MOMENTS]
        if not all(reached):
            assert place > 0
            return
    raise AssertionError(f"{scenario} suspends more than {MOST} times")
