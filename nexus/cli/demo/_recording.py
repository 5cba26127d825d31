"""The flood as it arrived, and the same flood again through a plain FIFO queue."""

import asyncio
import time
from collections.abc import Iterable

import attrs

__all__ = ["Passage", "Recording", "through_fifo", "waits"]


@attrs.frozen
class Passage:
    """How one event went through the nexus."""

    priority: int
    arrived: float
    """Seconds on the monotonic clock."""
    done: float
    """When its handler had ended."""
    cost: float
    """Seconds it kept the domain busy: from the later of its arrival and the end of the event before, to its
    own.
    """


@attrs.define(eq=False)
class Recording:
    """Records the events that arrive within a window, and how each was handled."""

    window: float
    """Seconds from the first arrival."""
    passages: list[Passage] = attrs.field(factory=list, init=False)
    _arrived: dict[int, float] = attrs.field(factory=dict, init=False)
    _until: float | None = attrs.field(default=None, init=False)
    _idle_since: float = attrs.field(default=0.0, init=False)

    def arrived(self, id: int) -> None:
        """Note that an event has come in."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self.window
        if now < self._until:
            self._arrived[id] = now

    def done(self, id: int, priority: int) -> None:
        """Note that its handler has ended."""
        now = time.monotonic()
        arrived = self._arrived.pop(id, None)
        if arrived is not None:
            self.passages.append(Passage(priority, arrived, now, now - max(arrived, self._idle_since)))
        self._idle_since = now


async def through_fifo(passages: Iterable[Passage]) -> list[Passage]:
    """Let the same events arrive at the same times at an `asyncio.Queue` with one worker.

    Each keeps the worker busy for as long as it kept the nexus, receiving and dispatch included.
    """
    flood = sorted(passages, key=lambda passage: passage.arrived)
    queue: asyncio.Queue[Passage] = asyncio.Queue(max(1, len(flood)))
    shift = time.monotonic() - flood[0].arrived if flood else 0.0
    handled: list[Passage] = []

    async def arrive() -> None:
        for passage in flood:
            due = passage.arrived + shift
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            queue.put_nowait(attrs.evolve(passage, arrived=due))

    async def work() -> None:
        end = 0.0
        for _ in flood:
            passage = await queue.get()
            until = max(end, passage.arrived) + passage.cost
            while (end := time.monotonic()) < until:
                pass
            handled.append(attrs.evolve(passage, done=end))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(arrive(), name="nexus demo: arrivals at the FIFO queue")
        group.create_task(work(), name="nexus demo: worker of the FIFO queue")
    return handled


def waits(passages: Iterable[Passage], *, urgent: bool) -> list[float]:
    """List in rising order how long each urgent, or each other, event took from its arrival to its end."""
    return sorted(each.done - each.arrived for each in passages if (each.priority < 0) == urgent)
