"""Two nexuses joined by two ends of a link, events both ways, and what is to hold of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits

__all__ = ["COUNT", "HASTE", "Sides", "break_off", "sides", "through_breaks"]

HASTE = LinkLimits(patience=0.1, heartbeat=0.2)
"""For transports that are broken on purpose."""
COUNT = 2000
"""Events that go each way."""


class Sides:
    """Two nexuses joined by a link that each of them has an end of, and what they got from each other."""

    def __init__(self, one: Link, other: Link) -> None:
        self.links = (one, other)
        self.nexuses = tuple(AsyncEventNexus(name=name, maxsize=10_000) for name in ("one", "other"))
        self.got: tuple[list[Any], list[Any]] = ([], [])
        for nexus, link, got in zip(self.nexuses, self.links, self.got, strict=True):
            nexus.register(link)
            nexus.add_handler(f"from {nexus.name}", link)
            far = "other" if nexus.name == "one" else "one"
            nexus.add_handler(
                f"from {far}", lambda event, got=got: got.append((event.priority, event.payload))
            )

    async def give(self, numbers: range) -> None:
        """Give both sides events for the other one, of three priorities."""
        for nexus in self.nexuses:
            await nexus.ingest_many([Event(n, f"from {nexus.name}", n % 3, n) for n in numbers])

    async def across(self) -> None:
        """Wait until both have everything."""
        for nexus, link in zip(self.nexuses, self.links, strict=True):
            await nexus.drained()
            assert await link.flushed(20)
        for nexus in self.nexuses:
            await nexus.drained()

    def check(self, count: int) -> None:
        """Hold what came against what was given: all, once, and in the order of its priority."""
        for got in self.got:
            assert len(got) == count
            for priority in range(3):
                mine = [number for found, number in got if found == priority]
                assert mine == list(range(priority, count, 3))


@asynccontextmanager
async def sides(one: Link, other: Link) -> AsyncIterator[Sides]:
    """Run both."""
    it = Sides(one, other)
    async with it.nexuses[0], it.nexuses[1]:
        for link in it.links:
            await link.connected(10)
        yield it


async def break_off(link: Link) -> None:
    """End a link with all that is on its way, and start it again."""
    task = await link.start()
    link.close()
    await asyncio.wait([task])
    await link.start()


async def through_breaks(it: Sides, breaks: Callable[[], Awaitable[None]], times: int) -> None:
    """Send events both ways while the transport is broken again and again, and see that all come."""
    step = COUNT // times
    for number in range(times):
        before = len(it.got[1])
        await it.give(range(number * step, (number + 1) * step))
        while len(it.got[1]) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await breaks()
        for link in it.links:
            await link.connected(10)
    await it.across()
    it.check(COUNT)
