"""The sources of a nexus: which there are, who runs them, and how they fare."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ._queue import Giver
from ._source import EventProducer, EventSource
from ._stats import SourceState
from ._supervisor import SourceRunner, SourceStateEvent
from ._tasks import Tasks
from ._turn import turn

if TYPE_CHECKING:
    from ._nexus import AsyncEventNexus

__all__ = ["Sources"]

logger = logging.getLogger(__name__)

_FINISHED = ("ended", "stopped")
_FINISHED_KEPT = 1000
"""States of sources that are gone, kept for `Stats`; those of living sources are all kept."""


class Sources:
    """Starts, watches, ends and remembers the sources of one nexus."""

    def __init__(self, nexus: AsyncEventNexus, tasks: Tasks) -> None:
        self._nexus = nexus
        self._tasks = tasks
        self._runners: dict[EventSource, SourceRunner | None] = {}
        self._states: dict[str, SourceState] = {}
        self._finished: dict[str, None] = {}
        """Names of sources that are gone, the latest last."""
        self._numbers: dict[str, int] = {}
        self._ending = False
        self._late: list[SourceRunner] = []
        """Those that are closed when the queue is drained."""
        self._former: weakref.WeakSet[EventProducer] = weakref.WeakSet()
        """Producers that have ended and could be started again by their owner."""

    @property
    def all(self) -> tuple[EventSource, ...]:
        """All sources, in the order of registration."""
        return tuple(self._runners)

    def add(self, source: EventSource, *, now: bool) -> None:
        """Take a source, once.

        Args:
            now: start it at once: the nexus runs.
        """
        if source not in self._runners:
            self._runners[source] = None
            if now:
                self._start(source)

    def start_all(self) -> list[SourceRunner]:
        """Start every source, and return what runs them."""
        for source in self.all:
            self._start(source)
        return [runner for runner in self._runners.values() if runner is not None]

    @property
    def starting(self) -> list[str]:
        """The names of sources whose first start goes on."""
        return [r.state.name for r in self._runners.values() if r is not None and not r.begun.is_set()]

    def _start(self, source: EventSource) -> None:
        """Run a source in a task of its own."""
        base = getattr(source, "name", None) or source.__class__.__name__
        name = base
        while name in self._states and self._states[name].state not in _FINISHED:
            self._numbers[base] = number = self._numbers.get(base, 1) + 1
            name = f"{base}-{number}"
        announce = partial(self._announce, source)
        runner = SourceRunner(
            source, name, self._nexus.queue, rng=self._nexus.rng, announce=announce, defer=self._defer
        )
        self._runners[source] = runner
        self._finished.pop(name, None)
        self._states[name] = runner.state
        runner.task = self._tasks.spawn(runner.run(), f"source.{name}")

    def _announce(self, source: EventSource, state: SourceState) -> None:
        """Note how a source fares, and tell the handlers of `SourceStateEvent`."""
        self._states[state.name] = state
        if state.state in _FINISHED:
            self._finished[state.name] = None
            if len(self._finished) > _FINISHED_KEPT:
                oldest = next(iter(self._finished))
                del self._finished[oldest], self._states[oldest]
        if state.state == "ended":
            self._runners.pop(source, None)
            if isinstance(source, EventProducer):
                self._former.add(source)
        nexus = self._nexus
        if nexus.queue.closed is None and nexus.ledger.has_handlers(SourceStateEvent.event_type):
            nexus.queue.admit(nexus.create_event(state, event_type=SourceStateEvent), Giver.HOLDER)

    def states(self) -> dict[str, SourceState]:
        """Return how each source fares."""
        return dict(self._states)

    async def remove(self, source: EventSource) -> None:
        """Stop a source and forget it."""
        if source not in self._runners:
            raise LookupError(f"{source!r:.80} is not registered with {self._nexus.name}")
        runner = self._runners.pop(source)
        try:
            await self._end_runners([runner])
        finally:
            self._part(source)

    async def _end_runners(self, runners: Iterable[SourceRunner | None]) -> list[str]:
        """End sources; returns the names of the tasks that would not."""
        tasks = [runner.task for runner in runners if runner is not None and runner.task is not None]
        try:
            await turn()  # a task cancelled before its first step would not close its source
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        return await self._tasks.cancel(tasks)

    async def end_all(self) -> list[str]:
        """End every source, and have no producer give anything more; returns the tasks that would not end.

        Those that close late are only told no more to give; `close_late` is for them.
        """
        self._ending = True
        stuck = await self._end_runners(self._runners.values())
        for producer in tuple(self._former):
            producer.close()  # in case its owner has started it again
        for source in (*self._runners, *self._former):
            self._part(source)
        return stuck

    def _defer(self, runner: SourceRunner) -> bool:
        """Say whether `close_late` will close the source."""
        if not (self._ending and getattr(runner.source, "closes_late", False)):
            return False
        self._late.append(runner)
        return True

    async def close_late(self, seconds: float) -> None:
        """Close the sources that waited for the end of the drain; those that take longer are cancelled."""
        tasks = [self._tasks.spawn(runner.close(), f"close.{runner.state.name}") for runner in self._late]
        self._late.clear()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _part(self, source: EventSource) -> None:
        """Have a producer give nothing more to this nexus."""
        if isinstance(source, EventProducer):
            source.deregister_nexus(self._nexus)

    def close_all(self) -> None:
        """Close and forget all sources, without waiting."""
        sources, self._runners = self._runners, {}
        for source, runner in sources.items():
            if runner is not None and runner.task is not None and not runner.task.done():
                runner.task.cancel()
                continue
            try:
                source.close()
            except Exception:
                logger.exception("closing %r failed", source)
