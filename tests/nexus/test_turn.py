"""The last in a turn of the loop comes after all that is ready or due; an urgent event gains by that."""

import asyncio
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event
from nexus._turn import TURN_COUNT, LastInTurn, turn
from nexus.testing import virtual_time

said: ContextVar[str] = ContextVar("said", default="nothing")


def last() -> LastInTurn:
    loop = asyncio.get_running_loop()
    return LastInTurn(loop, loop.time)


async def order_of_a_turn() -> list[str]:
    """Give the order in which a turn of the loop runs what may run in it."""
    loop = asyncio.get_running_loop()
    order: list[str] = []
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)

        def came() -> None:
            loop.remove_reader(here)
            order.append("socket")

        loop.add_reader(here, came)

        async def yields() -> None:
            await turn()
            order.append("yields")

        async def waits() -> None:
            there.send(b"x")
            loop.call_soon(order.append, "ready")
            loop.call_at(loop.time(), order.append, "due")
            await last()
            order.append("last")

        await asyncio.gather(yields(), waits())
    return order


def test_it_comes_after_what_is_ready_and_what_sockets_and_timers_have() -> None:
    assert asyncio.run(order_of_a_turn()) == ["yields", "ready", "socket", "due", "last"]


@virtual_time
async def test_it_takes_no_time_and_keeps_the_context() -> None:
    loop = asyncio.get_running_loop()
    said.set("hello")
    one = last()
    for _ in range(3):
        await one
        assert said.get() == "hello"
    assert loop.time() == 0


@virtual_time
async def test_cancelled_meanwhile_the_task_ends_in_its_turn() -> None:
    ends: list[str] = []

    async def wait() -> None:
        try:
            await last()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("went on")

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends == ["cancelled"]


@virtual_time
async def test_what_a_timer_brings_while_the_nexus_makes_way_is_handled_next() -> None:
    nexus, order = AsyncEventNexus(), []
    loop = asyncio.get_running_loop()

    async def handle(event: Event[Any], queue: object) -> None:
        order.append(event.priority)
        if len(order) == TURN_COUNT // 2:
            loop.call_at(loop.time(), nexus.ingest_nowait, Event(0, "t", -1, None))

    nexus.add_handler("t", handle)
    async with nexus:
        await nexus.ingest_many([Event(n, "t", 0, None) for n in range(3 * TURN_COUNT)])
        await nexus.drained()
    assert order.index(-1) <= TURN_COUNT + 128


@pytest.mark.parametrize("several", [False, True])
def test_turns_are_short_where_something_waits_behind_what_is_more_urgent(several: bool) -> None:
    now = 0.0

    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return now

    def tick(seconds: float) -> None:
        nonlocal now
        now += seconds

    with asyncio.Runner(loop_factory=Loop) as runner:
        lengths = runner.run(_turns(several, tick, lambda: now))
    assert (max(lengths[-10:]) < 6e-5) == several


async def _turns(several: bool, tick: Callable[[float], None], now: Callable[[], float]) -> list[float]:
    """Give the seconds that the turns of a nexus take whose handlers take a microsecond each."""
    nexus = AsyncEventNexus()
    lengths: list[float] = []
    began = now()

    async def handle(event: Event[Any], queue: object) -> None:
        tick(1e-6)

    def look() -> None:
        nonlocal began
        lengths.append(now() - began)
        began = now()
        if nexus.queue.qsize():
            asyncio.get_running_loop().call_soon(look)

    nexus.add_handler("t", handle)
    async with nexus:
        await nexus.ingest_many([Event(n, "t", 0, None) for n in range(5000)])
        if several:
            await nexus.ingest(Event(0, "t", -1, None))
        look()
        await nexus.drained()
    return [length for length in lengths if length]
