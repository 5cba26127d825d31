"""The boundaries of a nexus that a file describes: sources that say when they end, sinks with a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nexus import Event, SecondaryQueue
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.outbound import OutboundBoundary
from nexus.errors import NoMoreEvents

__all__ = ["Sink", "Source"]


class Source(InboundBoundary):
    """An inbound boundary that calls `on_end` when its receiver has nothing further."""

    on_end: Callable[[Source], object] | None = None

    async def obtain_events(self) -> list[Event[Any]]:
        try:
            return await super().obtain_events()
        except NoMoreEvents:
            if self.on_end is not None:
                self.on_end(self)
            raise


class Sink(OutboundBoundary):
    """An outbound boundary that sends no more than `rate` events a second; None for no limit.

    Those that wait for their turn fill the queue of the nexus, where policies decide. Each priority waits for
    one turn at a time, so an urgent event waits for few.
    """

    rate: float | None = None
    _turn = 0.0

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        if self.rate is not None:
            now = asyncio.get_running_loop().time()
            turn = max(self._turn, now)
            self._turn = turn + 1 / self.rate
            await asyncio.sleep(turn - now)
        await super().handle(event, queue)

    def handle_nowait(self, event: Event[Any]) -> bool:
        return self.rate is None and super().handle_nowait(event)
