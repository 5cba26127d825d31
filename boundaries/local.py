"""The local boundary: joins nexuses of one process, replies included."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from nexus._dispatch import EventDispatcher
from nexus._event import Event
from nexus._handler import EventConsumer
from nexus._nexus import AsyncEventNexus
from nexus._queue import SecondaryQueue
from nexus._source import AbstractNexus, EventProducer
from nexus.boundaries._requests import Requests
from nexus.errors import BadCall, MisconfiguredEventConsumer, MultipleStart

__all__ = ["AsyncEventBoundary"]

_numbers = itertools.count(1)


class AsyncEventBoundary(EventConsumer, EventProducer):
    """Passes events from one domain to others: a handler in the one nexus, a producer in the others.

    ``plant.add_handler(Alarm, boundary)`` and ``control.add_producer(boundary)``.

    Priorities and the order within each are kept. An event that finds no room on the far side waits, and
    with it those of its own priority alone; they keep their places in the lane of the sending nexus, so its
    bound, and the policy it has for the type, are those of the boundary. What a handler on the far side
    makes with ``event.reply(...)`` comes back to the sending nexus. An event is never passed to a domain
    that it has left before, so boundaries in a circle do no harm.

    Args:
        name: for logs and for the way back of replies; None for one of its own.

    Attributes:
        passed: events given to a nexus on the far side, counted once for each.
        replied: replies brought back.
        returning: events not passed on because they had been there before.
    """

    lanewise = True
    leads_out = True

    QUEUE_MAXLEN = AsyncEventNexus.QUEUE_MAXLEN
    """How many events of one priority may wait to pass, unless the sending nexus has a `maxsize` of its
    own."""

    MAX_REQUESTS = 1000
    """Requests that wait for an answer at a time."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__()
        self.name = name or f"boundary{next(_numbers)}"
        self.passed = 0
        self.replied = 0
        self.returning = 0
        self._ways: dict[str, Callable[[Event[Any], SecondaryQueue], None]] = {}
        self._requests = Requests(self.name, self.MAX_REQUESTS)
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<AsyncEventBoundary {self.name!r} to {self.nexuses}>"

    @property
    def ready(self) -> bool:
        """Whether events can pass."""
        return bool(self.nexuses) and not self._closed.is_set()

    async def start(self) -> asyncio.Task[None]:  # type: ignore[override]
        """Open the boundary, again if it was closed.

        Returns:
            A task that ends when the boundary is closed.

        Raises:
            MultipleStart: it is open.
            MisconfiguredEventProducer: no nexus is registered to take its events.
        """
        if self._task is not None and not self._task.done():
            raise MultipleStart(f"{self.name} is open already")
        await super().start()
        self._closed.clear()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self.transfer_events(), name=f"{self.name}.transfer")
        return self._task

    async def transfer_events(self) -> None:
        """Wait until the boundary is closed; events pass in the tasks of the nexus they come from."""
        await self._closed.wait()

    def close(self) -> None:
        """Let nothing more pass. An event that comes later fails in its nexus, which counts it; may be
        called twice."""
        self._closed.set()
        self._requests.close()
        for nexus in self.nexuses:
            if isinstance(nexus, EventDispatcher):
                for way in self._ways:
                    nexus.remove_reply_way(way)

    async def aclose(self) -> None:
        """Close, and wait until the task that `start` returned has ended."""
        self.close()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def request(self, event: Event[Any], timeout: float | None = 5.0) -> Event[Any]:
        """Pass an event, and wait for what a handler on the far side makes with ``event.reply(...)``.

        The answer is returned and goes through no nexus of this side. Of several nexuses the first answer
        counts. Cancelled, the question is forgotten; it may be answered all the same.

        Args:
            timeout: seconds, waiting for room included; the event has that deadline, if it has no nearer one.
                None for no limit.

        Raises:
            ReplyTimeout: there was no answer in time.
            QueueFull: `MAX_REQUESTS` wait already; or the far lane is full, and the type's policy is `Fail`.
            BadCall: the boundary is closed, or the far nexus takes no more events.
            LinkDown: the boundary was closed meanwhile.
            MisconfiguredEventConsumer: no nexus is registered to take it.
        """
        ways: list[tuple[AsyncEventNexus, str]] = []

        async def send(question: Event[Any]) -> None:
            for nexus in self._far_side(event):
                if isinstance(nexus, AsyncEventNexus):
                    ways.append((nexus, question.reply_to[-1]))
                    nexus.add_reply_way(question.reply_to[-1], lambda reply, _: self._requests.answer(reply))
                await nexus.ingest(question)

        try:
            return await self._requests.ask(event, timeout, send)
        finally:
            for nexus, way in ways:
                nexus.remove_reply_way(way)

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Pass the event to every nexus on the far side that it has not left before; waits where there is no
        room.

        Raises:
            BadCall: the boundary is closed, or the far nexus takes no more events.
            MisconfiguredEventConsumer: no nexus is registered to take it.
            QueueFull: the far lane is full, and the type's policy there is `Fail`.
        """
        nexuses = self._far_side(event)
        here = queue.domain
        way = f"{self.name}<{here}"
        abroad = event.evolve(path=(*event.path, here), reply_to=(*event.reply_to, way))
        for nexus in nexuses:
            domain = getattr(nexus, "domain", None)
            if domain == here or domain in event.path:
                self.returning += 1
                continue
            self._open_way(way, nexus, queue)
            if isinstance(nexus, AsyncEventNexus):
                await nexus.ingest_arrival(abroad)
            else:
                await nexus.ingest(abroad)
            self.passed += 1

    def _far_side(self, event: Event[Any]) -> tuple[AbstractNexus, ...]:
        """Return where an event passes to."""
        if self._closed.is_set():
            raise BadCall(f"{self.name} is closed: event {event.id} of type {event.type!r} cannot pass")
        if not self.nexuses:
            raise MisconfiguredEventConsumer(
                f"{self.name} leads nowhere; call add_producer() of the nexus on the far side"
            )
        return tuple(self.nexuses)

    def _open_way(self, way: str, nexus: AbstractNexus, queue: SecondaryQueue) -> None:
        """Have replies that take this way brought back to the queue they came from."""
        if way not in self._ways:

            def take(reply: Event[Any], far: SecondaryQueue) -> None:
                queue.put_nowait(reply.evolve(route=reply.route[:-1], path=()))
                self.replied += 1

            self._ways[way] = take
        if isinstance(nexus, EventDispatcher) and not nexus.has_reply_way(way):
            nexus.add_reply_way(way, self._ways[way])
