"""Supervision: runs one source, restarts it when it fails, and says how it fares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ._backoff import Backoff
from ._delivery import is_passing
from ._event import Event, NamedEvent
from ._queue import AsyncEventPriorityQueue, Giver
from ._source import EventSource, SimpleEventConverter, close_source
from ._stats import SourceState
from ._turn import turn
from .errors import LoopStopped, MultipleStart, NoMoreEvents

__all__ = ["SourceRunner", "SourceStateEvent"]

logger = logging.getLogger(__name__)

_PULLS_PER_TURN = 64

_users: Counter[int] = Counter()
"""How many nexuses run a source, by the source's `id`; the last one closes it."""


class SourceStateEvent(NamedEvent[SourceState]):
    """Says that a source fares differently now; a nexus gives it to itself where a handler takes it."""


class SourceRunner:
    """One source of one nexus.

    Args:
        announce: told of each change of state.
        defer: asked at the end whether somebody else will call `close`, later.
    """

    def __init__(
        self,
        source: EventSource,
        name: str,
        queue: AsyncEventPriorityQueue,
        *,
        rng: random.Random,
        announce: Callable[[SourceState], None],
        defer: Callable[[SourceRunner], bool] = lambda runner: False,
    ) -> None:
        self.source = source
        self.task: asyncio.Task[None] | None = None
        self.state = SourceState(name, "starting")
        self.begun: asyncio.Event = asyncio.Event()
        """Set once the first start has succeeded or failed."""
        self._queue = queue
        self._giver = Giver.ARRIVAL if getattr(source, "arrives", False) else Giver.OUTSIDE
        self._backoff = Backoff(rng)
        self._announce = announce
        self._defer = defer

    async def run(self) -> None:
        """Run the source until it ends or this is cancelled; it is closed in either case."""
        first = True
        _users[id(self.source)] += 1
        try:
            while True:
                try:
                    await self._once(first)
                except NoMoreEvents:
                    break
                except BaseException as exc:
                    if is_passing(exc):
                        raise
                    self.begun.set()
                    await self._failed(exc)
                else:
                    break
                first = False
            self._become("ended")
        finally:
            self.begun.set()
            if self.state.state != "ended":
                self._become("stopped")
            if not self._defer(self):
                await self.close()

    async def _once(self, first: bool) -> None:
        """Start the source and stay with it; returns when it has ended by itself."""
        source = self.source
        try:
            begin: Callable[[], Awaitable[object]] = source.start if first else source.restart
            started = await begin()
        except MultipleStart:  # another nexus, or the user, has started it already
            started = getattr(source, "task", None)
        self.begun.set()
        if isinstance(source, SimpleEventConverter):
            if not self._backoff.failures:
                self._become("running")
            await self._pull(source)
        elif isinstance(started, asyncio.Future):
            self._recovered()
            # Not `await started`: cancelled with this task, it would end for every other nexus too.
            await asyncio.wait((started,))
            if not started.cancelled():
                started.result()
        else:
            self._recovered()
            await asyncio.get_running_loop().create_future()

    async def _pull(self, converter: SimpleEventConverter) -> None:
        """Pull events for as long as there are any; one that is in hand is never lost, not even by
        cancellation."""
        queue, giver = self._queue, self._giver
        obtain_rest = getattr(converter, "obtain_rest", None)
        obtain_many = getattr(converter, "obtain_events", None)
        pulled = 0
        while True:
            if obtain_rest is not None:
                obtained: Iterable[Event[Any]] = await obtain_rest(self._take)
            elif obtain_many is not None:
                obtained = await obtain_many()
            else:
                obtained = (await converter.obtain_event(),)
            events = deque(obtained)  # bounded by what the converter gives at once
            if self._backoff.failures:
                self._recovered()
            pulled += len(events)
            try:
                while events:
                    queue.give(events, giver)
                    if events:
                        await queue.wait_for_room(events[0], giver)
                        events.popleft()
            except BaseException as exc:
                if not isinstance(exc, LoopStopped | asyncio.CancelledError):
                    events.popleft()
                for held in events:
                    with contextlib.suppress(Exception):
                        queue.admit(held, Giver.HOLDER)
                if isinstance(exc, LoopStopped):
                    await asyncio.get_running_loop().create_future()  # until the stop cancels this
                raise
            if pulled >= _PULLS_PER_TURN:
                pulled = 0
                await turn()

    def _take(self, events: deque[Event[Any]]) -> None:
        """Take events while there is room, without a wait; the rest is for the task."""
        if self._backoff.failures:
            self._recovered()
        try:
            self._queue.give(events, self._giver)
        except Exception:  # the task meets it again, and knows what to do
            return

    async def _failed(self, exc: BaseException) -> None:
        """Note a failure and wait until the next try."""
        loop = asyncio.get_running_loop()
        was_degraded = self._backoff.degraded
        delay = self._backoff.failed(loop.time())
        self._become("degraded" if self._backoff.degraded else "restarting", exc)
        if not was_degraded:
            logger.warning(
                "source %s failed (%s in a row), next try in %.3f s: %s",
                self.state.name,
                self._backoff.failures,
                delay,
                repr(exc)[:200],
                exc_info=exc if self._backoff.failures == 1 else None,
            )
        await asyncio.sleep(delay)

    def _recovered(self) -> None:
        """Note that the source works."""
        if self._backoff.degraded or self.state.state != "running":
            self._become("running")
        if self._backoff.degraded:
            self._backoff.recovered()

    def _become(self, state: str, exc: BaseException | None = None) -> None:
        """Take a state, and announce it if it is another one."""
        old = self.state
        error = f"{exc.__class__.__name__}: {exc}" if exc is not None else old.error
        self.state = SourceState(old.name, state, old.failures + (exc is not None), error)
        if state != old.state:
            self._announce(self.state)

    async def close(self) -> None:
        """Close the source, if no other nexus runs it; what that raises is logged."""
        _users[id(self.source)] -= 1
        if _users[id(self.source)] > 0:
            return
        del _users[id(self.source)]
        try:
            await close_source(self.source)
        except Exception:
            logger.exception("closing source %s failed", self.state.name)
