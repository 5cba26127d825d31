"""Two domains that flood each other: neither keeps out what the other is to be rid of first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import zmq
import zmq.asyncio

from nexus import AsyncEventNexus, Event, EventConsumer, SecondaryQueue
from nexus.boundaries import AsyncEventBoundary
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.zmq import ZmqEventReceiver, ZmqEventSender
from nexus.testing import MemoryWire, assert_ledger_balanced, virtual_time

SIZE = 20
"""Events of one priority that a nexus holds."""
COUNT = 400
"""Events that each side gives."""


class Sides:
    """Two nexuses, each of which sends "here" events of its own to the other."""

    def __init__(self, weight: int = 0) -> None:
        self.weight = weight * "x"
        self.all = [AsyncEventNexus(name=name, maxsize=SIZE) for name in ("a", "b")]
        self.got: list[list[int]] = [[], []]
        self.most = 0
        for nexus, got in zip(self.all, self.got, strict=True):
            nexus.add_handler(f"to-{nexus.name}", lambda event, got=got: got.append(event.payload[0]))

    def leave(self, number: int, handler: EventConsumer) -> None:
        """Let events leave a nexus by a handler."""
        self.all[number].add_handler(f"to-{self.all[1 - number].name}", handler)

    async def flood(self) -> None:
        """Have each give all its events, and wait until the other has them."""

        async def give(nexus: AsyncEventNexus, other: AsyncEventNexus) -> None:
            for number in range(COUNT):
                await nexus.ingest(Event(number, f"to-{other.name}", 0, (number, self.weight)))
                self.most = max(self.most, nexus.queue.lanes[0].live)

        async with asyncio.timeout(60):
            await asyncio.gather(give(*self.all), give(*self.all[::-1]))
            while any(len(got) < COUNT for got in self.got):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert self.got == [list(range(COUNT))] * 2
        assert self.most <= 2 * SIZE
        for nexus in self.all:
            assert_ledger_balanced(nexus)


@asynccontextmanager
async def local() -> AsyncIterator[Sides]:
    sides = Sides()
    for number in (0, 1):
        boundary = AsyncEventBoundary()
        sides.leave(number, boundary)
        sides.all[1 - number].add_producer(boundary)
    async with sides.all[0], sides.all[1]:
        yield sides


@asynccontextmanager
async def linked() -> AsyncIterator[Sides]:
    sides, wires = Sides(), list(MemoryWire.pair())

    async def dial() -> MemoryWire:
        return wires.pop()

    links = [Link.over(dial, name=name, limits=LinkLimits(maxsize=SIZE, most_window=8)) for name in "ab"]
    for number, link in enumerate(links):
        sides.leave(number, link)
        sides.all[number].register(link)
    async with sides.all[0], sides.all[1]:
        yield sides


@pytest.mark.parametrize("join", [local, linked])
@virtual_time
async def test_all_of_both_floods_arrives(join: Callable[[], AbstractAsyncContextManager[Sides]]) -> None:
    """What waits to leave does not stand in the way of what arrives: nobody waits for ever, the order holds,
    and no more than twice the bound is held."""
    async with join() as sides:
        await sides.flood()


async def test_all_of_both_floods_arrives_over_zmq() -> None:
    """The same over PUSH and PULL, both ways, that hold little."""
    with zmq.asyncio.Context() as context:
        sides = Sides(weight=60_000)  # or the system would hold them all
        async with asyncio.timeout(60):
            for number in (0, 1):
                push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
                for socket in (push, pull):
                    socket.set_hwm(2)
                    socket.setsockopt(zmq.LINGER, 0)
                    socket.setsockopt(zmq.SNDBUF, 1)
                sides.leave(number, ZmqEventSender(push))
                sides.all[1 - number].add_converter(ZmqEventReceiver(pull))
                push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
            async with sides.all[0], sides.all[1]:
                await sides.flood()
        context.destroy(linger=0)


@virtual_time
async def test_those_who_give_here_and_what_arrives_take_turns() -> None:
    """Where both wait for the same places, each gets every other one."""
    handled: list[Any] = []

    class Slow(EventConsumer):
        async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
            await asyncio.sleep(1)
            handled.append(event.payload)

    nexus = AsyncEventNexus(maxsize=4)
    nexus.add_handler("t", Slow(), concurrency=1)

    async def give(who: str) -> None:
        for number in range(50):
            event = Event(number, "t", 0, who)
            await (nexus.ingest(event) if who == "here" else nexus.ingest_arrival(event))

    async with nexus:
        await asyncio.gather(give("here"), give("afar"))
        await nexus.drained()
    for half in (handled[:40], handled[40:80]):
        assert 15 <= half.count("here") <= 25
    assert_ledger_balanced(nexus, handled=100)
