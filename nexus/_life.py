"""The life of a nexus: its tasks, its sources, its start, and its bounded stop."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from ._delivery import Deliveries
from ._drain import Drain
from ._event import Event
from ._queue import Giver
from ._source import EventProducer, EventSource
from ._stats import SourceState, Stats
from ._supervisor import SourceRunner, SourceStateEvent
from ._turn import turn
from .errors import BadCall

if TYPE_CHECKING:
    from ._nexus import AsyncEventNexus
    from ._pool import LanePool, Pool

__all__ = ["Life", "StopReport", "Stopping"]

logger = logging.getLogger(__name__)

_START_PATIENCE = 10.0
"""Seconds that ``async with`` waits for the sources to start; they go on starting after that."""
_PATIENCE = 1.0
"""Seconds that a cancelled task has to end; then it is cancelled again, has as long once more, and counts as
stuck."""

_FINISHED = ("ended", "stopped")
_FINISHED_KEPT = 1000
"""States of sources that are gone, kept for `Stats`; those of living sources are all kept."""


@attrs.frozen
class StopReport:
    """How a nexus has stopped."""

    handled_during_stop: int
    """Events settled between the call of `stop` and the end."""
    remaining: tuple[Event[Any], ...] = attrs.field(repr=lambda events: f"<{len(events)} events>")
    """Events that were accepted and not handled, the most urgent first."""
    stuck: tuple[str, ...]
    """Names of tasks that were cancelled twice and did not end."""
    stats: Stats = attrs.field(repr=False)
    """The last figures."""

    @property
    def clean(self) -> bool:
        """Whether everything was handled and every task has ended."""
        return not self.remaining and not self.stuck


class Stopping:
    """A stop under way; await it for the `StopReport`."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, StopReport]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, StopReport]:
        return self._wait().__await__()


class Life:
    """Owns every task of a nexus, and ends them."""

    def __init__(self, nexus: AsyncEventNexus, drain: Drain, deliveries: Deliveries) -> None:
        self.state = "READY"
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.handling: set[asyncio.Task[Any]] = set()
        """Those of them in which handlers run."""
        self.pools: list[Pool | LanePool] = []
        self.failure: BaseException | None = None
        self.report: StopReport | None = None
        self._nexus = nexus
        self._drain = drain
        self._deliveries = deliveries
        self._runners: dict[EventSource, SourceRunner | None] = {}
        self._states: dict[str, SourceState] = {}
        self._finished: dict[str, None] = {}
        """Names of sources that are gone, the latest last."""
        self._numbers: dict[str, int] = {}
        self._former: weakref.WeakSet[EventProducer] = weakref.WeakSet()
        """Producers that have ended and could be started again by their owner."""
        self._has_lived = False
        self._main: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] | None = None
        self._deadline = float("inf")
        self._settled_before: int | None = None
        self._hurry = asyncio.Event()
        self._done = asyncio.Event()
        self._looping = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in ("STARTING", "LOOPING")

    # Tasks.

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Make a task the nexus owns; one that fails ends the nexus."""
        assert self.loop is not None
        task = self.loop.create_task(work, name=f"nexus[{self._nexus.name}].{what}")
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_handler(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Make a task the nexus owns and that runs its handlers."""
        task = self.spawn(work, what)
        self.handling.add(task)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Let a task go; its failure is the failure of the nexus."""
        self.tasks.discard(task)
        self.handling.discard(task)
        if not task.cancelled() and task.exception() is not None:
            if self.failure is None:
                self.failure = task.exception()
            self._request_end()

    # Sources.

    @property
    def sources(self) -> tuple[EventSource, ...]:
        """All sources, in the order of registration."""
        return tuple(self._runners)

    def add_source(self, source: EventSource) -> None:
        """Take a source; start it if the nexus runs."""
        if source in self._runners:
            return
        if self.state == "STOPPED":
            raise BadCall(f"{self._nexus.name}: the nexus has stopped and takes no more sources")
        self._runners[source] = None
        if self.is_running:
            self._start_source(source)

    def _start_source(self, source: EventSource) -> None:
        """Run a source in a task of its own."""
        base = getattr(source, "name", None) or source.__class__.__name__
        name = base
        while name in self._states and self._states[name].state not in _FINISHED:
            self._numbers[base] = number = self._numbers.get(base, 1) + 1
            name = f"{base}-{number}"
        announce = partial(self._announce, source)
        runner = SourceRunner(source, name, self._nexus.queue, rng=self._nexus.rng, announce=announce)
        self._runners[source] = runner
        self._finished.pop(name, None)
        self._states[name] = runner.state
        runner.task = self.spawn(runner.run(), f"source.{name}")

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
        if nexus.queue.closed is None and SourceStateEvent.event_type in nexus.handlers:
            nexus.queue.admit(nexus.create_event(state, event_type=SourceStateEvent), Giver.HOLDER)

    def source_states(self) -> dict[str, SourceState]:
        """Return how each source fares."""
        return dict(self._states)

    async def remove_source(self, source: EventSource) -> None:
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
        return await self._cancel(tasks)

    def _part(self, source: EventSource) -> None:
        """Have a producer give nothing more to this nexus."""
        if isinstance(source, EventProducer):
            source.deregister_nexus(self._nexus)

    def close_sources(self) -> None:
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

    # Start.

    def begin(self) -> None:
        """Belong to the running event loop, and open the door."""
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError as exc:
            raise BadCall(f"{self._nexus.name}: start it inside a running event loop, or run() it") from exc
        self._end = self.loop.create_future()
        self.state = "STARTING"
        self._nexus.queue.closed = None
        self._nexus.queue.bind(self.loop)

    def launch(self) -> asyncio.Task[None]:
        """Live in a new task."""
        assert self.loop is not None
        self._main = self.loop.create_task(self.live(), name=f"nexus[{self._nexus.name}]")
        self._main.add_done_callback(self._never_lived)
        return self._main

    def _never_lived(self, main: asyncio.Task[None]) -> None:
        """End a nexus whose task was cancelled before its first step."""
        if not self._has_lived:
            self._nexus.queue.close(self._nexus._not_open)
            self._report(StopReport(0, tuple(self._nexus.queue.events()), (), self._nexus.stats()))

    def _report(self, report: StopReport) -> None:
        """Be stopped, and tell who waits for it."""
        self.report = report
        self.state = "STOPPED"
        self._nexus.queue.sealed = True
        self._done.set()
        self._nexus._wake_drained()

    async def started(self) -> None:
        """Wait until every source has been started once, the nexus has ended, or a start takes too long."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._looping, self._done)]
        try:
            await asyncio.wait(waits, timeout=_START_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.state == "STARTING":
            late = [r.state.name for r in self._runners.values() if r is not None and not r.begun.is_set()]
            logger.warning("%s goes on without waiting for the start of %s", self._nexus.name, ", ".join(late))

    async def _watch_start(self, runners: Iterable[SourceRunner]) -> None:
        """Note when all sources have been started."""
        for runner in runners:
            await runner.begun.wait()
        self.state = "LOOPING"
        self._looping.set()

    async def live(self) -> None:
        """Live from the start to the end of the stop."""
        assert self.loop is not None
        assert self._end is not None
        self._has_lived = True
        drain = self.spawn_handler(self._drain.run(self._nexus._check_idle), "drain")
        drain.add_done_callback(lambda _: self._request_end())
        for source in self.sources:
            self._start_source(source)
        watch = self.spawn(self._watch_start([r for r in self._runners.values() if r is not None]), "start")
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._end
        except asyncio.CancelledError as exc:
            cancelled = exc
            self._deadline = 0.0
        watch.cancel()
        finish = self.loop.create_task(self._finish(drain), name=f"nexus[{self._nexus.name}].stop")
        while not finish.done():
            try:
                await asyncio.shield(finish)
            except asyncio.CancelledError as exc:
                if cancelled is not None and not finish.done():
                    raise  # cancelled twice: the stop ends by itself, within its bound
                cancelled = exc
                self._deadline = 0.0
                self._hurry.set()
        if cancelled is not None:
            raise cancelled
        if self.failure is not None:
            raise self.failure

    def take_failure(self) -> BaseException | None:
        """Return what made the nexus fail, for somebody who will raise it."""
        if self._main is not None and self._main.done() and not self._main.cancelled():
            self._main.exception()  # it is retrieved now
        return self.failure

    # Stop.

    def _request_end(self) -> None:
        """Have the stop begin."""
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def _note_stop(self) -> None:
        """Remember what was settled when the stop began."""
        if self._settled_before is None:
            self._settled_before = self._settled

    @property
    def _settled(self) -> int:
        """Events that have met their end; cheap, for it comes between a signal and the closed door."""
        queue, drain = self._nexus.queue, self._drain
        unsettled = queue.qsize() + len(self._deliveries.active) + (drain.event is not None)
        return queue.entered + drain.taken - unsettled

    def stop(self, grace: float) -> Stopping:
        """Begin the stop, or hurry the one under way."""
        if not grace >= 0:
            raise ValueError(f"grace must be 0 seconds or more, not {grace!r}")
        if self.state == "READY":
            self._report(StopReport(0, (), (), self._nexus.stats()))
        elif self.is_running and self.loop is not None:
            self._nexus.queue.close(self._nexus._not_open)
            self._deadline = min(self._deadline, self.loop.time() + grace)
            self._note_stop()
            self._hurry.set()
            self._request_end()
        return Stopping(self.stopped)

    async def stopped(self) -> StopReport:
        """Wait for the end."""
        if self.report is None and asyncio.current_task() in self.tasks:
            raise BadCall(
                "a handler or source that awaits nexus.stop() waits for itself; call it without await"
            )
        await self._done.wait()
        if self._main is not None and self._main is not asyncio.current_task():
            await asyncio.wait((self._main,))  # it has a step left
        assert self.report is not None
        return self.report

    async def _finish(self, drain: asyncio.Task[None]) -> None:
        """Stop the sources, drain the queue until the deadline, end every task, and report."""
        nexus = self._nexus
        nexus.queue.close(nexus._not_open)
        self._note_stop()
        stuck = await self._end_runners(self._runners.values())
        for producer in tuple(self._former):
            producer.close()  # in case its owner has started it again
        for source in (*self._runners, *self._former):
            self._part(source)
        if self.failure is None:
            await self._drain_until_deadline(drain)
        stuck += await self._cancel(tuple(self.tasks))
        self.halt()
        for pool in self.pools:
            for lane, event in reversed(pool.waiting()):
                nexus.queue.put_back(lane, event)
        self._deliveries.give_back_all()
        after = nexus.stats()
        settled = self._settled - (self._settled_before or 0)
        held = [] if self._drain.event is None else [self._drain.event]
        remaining = sorted((*held, *nexus.queue.events()), key=lambda event: event.priority)
        report = StopReport(settled, tuple(remaining), tuple(stuck), after)
        if not report.clean:
            logger.warning(
                "%s stopped with %s events not handled and %s tasks stuck: %s",
                nexus.name,
                len(report.remaining),
                len(stuck),
                ", ".join(stuck) or "none",
            )
        self._report(report)

    def halt(self) -> None:
        """Hand no further event to a handler."""
        self._drain.is_over = self._deliveries.is_over = True
        self._nexus.queue.lanes.current = None

    async def _drain_until_deadline(self, drain: asyncio.Task[None]) -> None:
        """Wait until nothing is queued, the deadline has passed, or the drain has failed."""
        assert self.loop is not None
        idle = asyncio.ensure_future(self._nexus.drained())
        try:
            while not idle.done() and not drain.done():
                left = self._deadline - self.loop.time()
                if left <= 0:
                    return
                self._hurry.clear()
                hurry = asyncio.ensure_future(self._hurry.wait())
                try:
                    await asyncio.wait(
                        (idle, drain, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    hurry.cancel()
        finally:
            idle.cancel()

    async def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
        """Cancel tasks and wait for their end; returns the names of those that would not."""
        left = {task for task in tasks if not task.done() and task is not asyncio.current_task()}
        for _ in range(2):
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=_PATIENCE)
        return [task.get_name() for task in left]
