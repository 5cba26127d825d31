"""A lone event over a real wire: it gets to its handler in the turn in which it comes."""

import asyncio
import sys
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link
from nexus.testing import assert_ledger_balanced

WIRES = ["tcp", "zmq+tcp"]


def event(number: int, type: str = "ping") -> Event[int]:
    return Event(number, type, 0, number)


class Ends:
    """Two nexuses in this loop, the far one with a handler of the test's own."""

    def __init__(self, scheme: str, handler: Any) -> None:
        self.scheme = scheme
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
        self.back = Link.listen(f"{scheme}://127.0.0.1:0")
        self.far.register(self.back)
        self.far.add_handler("ping", handler)
        self.answers: asyncio.Queue[int] = asyncio.Queue()

    async def __aenter__(self) -> "Ends":
        await self.far.__aenter__()
        self.link = Link.connect(f"{self.scheme}://127.0.0.1:{self.back.port}")
        self.near.register(self.link)
        self.near.add_handler("ping", self.link)
        self.near.add_handler("pong", lambda answer: self.answers.put_nowait(answer.payload))
        await self.near.__aenter__()
        await self.link.connected(10)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.near.__aexit__(None, None, None)
        await self.far.__aexit__(None, None, None)

    async def all_across(self) -> None:
        await self.near.drained()
        assert await self.link.flushed(10)
        await self.far.drained()
        for nexus in (self.near, self.far):
            assert_ledger_balanced(nexus)


@pytest.mark.parametrize("scheme", WIRES)
async def test_no_task_has_a_turn_before_the_handler(scheme: str) -> None:
    """It begins in the callback in which the event comes, as if by the nexus's own task, also if it waits."""
    stacks: list[bool] = []

    async def handle(ping: Event[int], queue: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        begun = any(frame.f_code.co_name == "_hand_on" for frame in _frames_here())
        stacks.append(begun)
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        await it.back.handle(Event(ping.id, "pong", 0, ping.payload))

    it = Ends(scheme, handle)
    async with it:
        for number in range(20):
            await it.near.ingest(event(number))
            assert await asyncio.wait_for(it.answers.get(), 5) == number
            await asyncio.sleep(0.005)
        await it.all_across()
    assert sum(stacks) > 10  # not the first: the lane is new


@pytest.mark.parametrize("scheme", WIRES)
async def test_a_handler_that_ends_the_connection_gets_nothing_twice(scheme: str) -> None:
    """What it has is accepted, though it cuts the connection before that could be noted."""
    got: list[int] = []

    async def handle(ping: Event[int], queue: object) -> None:
        got.append(ping.payload)
        it.answers.put_nowait(ping.payload)
        if ping.payload % 5 == 4:
            for line in list(it.back._lines.values()):
                line.cut()

    it = Ends(scheme, handle)
    async with it:
        for number in range(20):
            await it.near.ingest(event(number))
            await asyncio.wait_for(it.answers.get(), 5)
            await it.link.connected(10)
        await it.all_across()
    assert got == list(range(20))


@pytest.mark.parametrize("scheme", WIRES)
async def test_lone_events_and_floods_keep_their_order(scheme: str) -> None:
    """Whichever way each goes."""
    got: list[int] = []

    async def handle(ping: Event[int], queue: object) -> None:
        got.append(ping.payload)
        if ping.payload % 3 == 0:
            await asyncio.sleep(0)

    it = Ends(scheme, handle)
    async with it:
        number = 0
        for count in [1, 1, 2, 40, 1, 3, 1, 200, 1, 1]:
            for _ in range(count):
                await it.near.ingest(event(number))
                number += 1
            await asyncio.sleep(0.003 * (count % 3))
        await it.all_across()
    assert got == list(range(number))


def _frames_here() -> list[Any]:
    frame, found = sys._getframe(1), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found
