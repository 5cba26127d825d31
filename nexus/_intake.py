"""The intake: how events get into a nexus from outside its own sources."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any

from ._event import Event
from ._queue import AsyncEventPriorityQueue, Giver
from ._source import AbstractNexus
from .errors import BadCall

if TYPE_CHECKING:
    from ._life import Life
    from ._straight import Straight

__all__ = ["Intake"]


class Intake(AbstractNexus):
    """The ways in: waiting, not waiting, many at once, and from another thread."""

    name: str

    def __init__(self, queue: AsyncEventPriorityQueue, life: Life, straight: Straight) -> None:
        self._queue = queue
        self._doors = queue.lanes.doors
        self._life = life
        self._straight = straight

    async def ingest(self, event: Event[Any]) -> None:
        """Give an event; it is accepted when this returns, and handled in its turn.

        Waits while the event's lane is full and its policy is to block; not for a handler of this nexus,
        whose events are secondary events. Cancelled while it waits, the event has not been accepted.

        Raises:
            BadEvent: it is no event.
            QueueFull: its lane is full and its policy is `Fail`.
            BadCall: the nexus is not running, or runs in another event loop.
        """
        # The short way: what `admit` would look at has not changed since it last set the limit. It is written
        # out in each of the ways in, for a call would cost half as much again.
        try:
            line, lane = self._doors[event.priority]
        except (AttributeError, KeyError, TypeError):
            pass
        else:
            if len(line) < lane.limit:
                line.append(event)
                return
        if not self._straight.take(event) and not self._queue.admit(event, self._giver()):
            await self._queue.wait_for_room(event)

    async def ingest_arrival(self, event: Event[Any]) -> None:
        """Give an event that comes from another domain: it does not wait for what waits to leave for there.

        For boundaries; otherwise the same as `ingest`, and it raises the same.
        """
        if self._straight.take(event):
            return
        giver = self._giver(Giver.ARRIVAL)
        if not self._queue.admit(event, giver):
            await self._queue.wait_for_room(event, giver)

    def ingest_nowait(self, event: Event[Any]) -> None:
        """Give an event without waiting; for callbacks and plain functions in the nexus's own event loop.

        Raises:
            QueueFull: its lane is full, and its policy is `Block` or `Fail`.
            BadEvent: it is no event.
            BadCall: the nexus is not running, or runs in another event loop.
        """
        try:
            line, lane = self._doors[event.priority]
        except (AttributeError, KeyError, TypeError):
            pass
        else:
            if len(line) < lane.limit:
                line.append(event)
                return
        if not self._straight.take(event) and not self._queue.admit(event, self._giver()):
            self._queue.refuse(event)

    def offer(self, event: Event[Any]) -> bool:
        """Give an event if there is room; False where `ingest` would wait. Raises what `ingest_nowait` does
        but that."""
        try:
            line, lane = self._doors[event.priority]
        except (AttributeError, KeyError, TypeError):
            pass
        else:
            if len(line) < lane.limit:
                line.append(event)
                return True
        return self._straight.take(event) or self._queue.admit(event, self._giver())

    async def ingest_many(self, events: Iterable[Event[Any]]) -> None:
        """Give events in their order; waits like `ingest`.

        Cancelled or failing in the middle, the events before that point have been accepted and the rest has
        not.
        """
        queue = self._queue
        doors = self._doors
        line: deque[Any] | None = None
        priority = room = 0
        for event in events:
            try:
                if event.priority != priority or not room:
                    priority = event.priority
                    line, lane = doors[priority]
                    room = lane.limit - len(line)
            except (AttributeError, KeyError, TypeError):
                room = 0
            if room > 0 and line is not None:
                line.append(event)
                room -= 1
            else:
                room = 0
                if not queue.admit(event, self._giver()):
                    await queue.wait_for_room(event)

    def ingest_threadsafe(self, event: Event[Any]) -> ThreadFuture[None]:
        """Give an event from another thread.

        Returns:
            A future of `concurrent.futures`: done when the event is accepted.

        Raises:
            BadCall: the nexus is not running.
        """
        loop = self._life.loop
        if self._queue.closed is not None:
            raise self._queue.closed()
        if loop is None or loop.is_closed():
            raise BadCall(f"{self.name}: the event loop of the nexus is closed")
        return asyncio.run_coroutine_threadsafe(self.ingest(event), loop)

    def _giver(self, otherwise: Giver = Giver.OUTSIDE) -> Giver:
        """Say who gives an event here and now: a handler of this nexus, which must not wait, or not."""
        return Giver.HANDLER if self._life.tasks.is_handling() else otherwise
