"""The life of a nexus: its start, and its bounded stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import attrs

from ._delivery import Deliveries
from ._drain import Drain
from ._event import Event
from ._sources import Sources
from ._stats import Stats
from ._supervisor import SourceRunner
from ._tasks import Tasks
from .errors import BadCall

if TYPE_CHECKING:
    from ._lane_pool import LanePool
    from ._nexus import AsyncEventNexus
    from ._pool import Pool

__all__ = ["Life", "StopReport", "Stopping"]

logger = logging.getLogger(__name__)

_START_PATIENCE = 10.0
"""Seconds that ``async with`` waits for the sources to start; they go on starting after that."""


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
    spilled: int = 0
    """Events that stay on the disk by the policy `Spill` and come first at the next start; not in
    `remaining`."""

    @property
    def clean(self) -> bool:
        """Whether everything was handled, or stays on the disk, and every task has ended."""
        return not self.remaining and not self.stuck


class Stopping:
    """A stop under way; await it for the `StopReport`."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, StopReport]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, StopReport]:
        return self._wait().__await__()


_CLOSING = (0.1, 5.0)
"""Seconds that sources have at least and at most to close when the queue is drained."""
_CLOSING_STORES = 20.0
"""Seconds that stores of spilled events have at most; they bound their own closing, and are done sooner."""


class Life:
    """Starts a nexus and ends it, with its tasks and its sources."""

    def __init__(self, nexus: AsyncEventNexus, drain: Drain, deliveries: Deliveries) -> None:
        self.state = "READY"
        self.tasks = Tasks(nexus.name, self._task_failed)
        self.sources = Sources(nexus, self.tasks)
        self.pools: list[Pool | LanePool] = []
        self.failure: BaseException | None = None
        self.report: StopReport | None = None
        self._nexus = nexus
        self._drain = drain
        self._deliveries = deliveries
        self._has_lived = False
        self._main: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] | None = None
        self._deadline = float("inf")
        self._settled_before: int | None = None
        self._hurry = asyncio.Event()
        self._done = asyncio.Event()
        self._looping = asyncio.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to; None before the start."""
        return self.tasks.loop

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in ("STARTING", "LOOPING")

    # Start.

    def begin(self) -> None:
        """Belong to the running event loop, and open the door."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as exc:
            raise BadCall(f"{self._nexus.name}: start it inside a running event loop, or run() it") from exc
        self.tasks.loop = loop
        self._end = loop.create_future()
        self.state = "STARTING"
        self._nexus.queue.closed = None
        self._nexus.queue.bind(loop)

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
            late = ", ".join(self.sources.starting)
            logger.warning("%s goes on without waiting for the start of %s", self._nexus.name, late)

    async def _watch_start(self, runners: Iterable[SourceRunner]) -> None:
        """Note when all sources have been started, and what is on the disk is known."""
        if self._nexus.queue.spills is not None:
            await self._nexus.queue.spills.opened()
        for runner in runners:
            await runner.begun.wait()
        self.state = "LOOPING"
        self._looping.set()

    async def live(self) -> None:
        """Live from the start to the end of the stop."""
        assert self.loop is not None
        assert self._end is not None
        self._has_lived = True
        self._nexus.queue.spawn = self.tasks.spawn
        if self._nexus.queue.spills is not None:
            self._nexus.queue.spills.open_all()
        context = copy_context() if self.loop.get_task_factory() is None else None
        drain = self.tasks.spawn_handler(self._drain.run(self._nexus._check_idle), "drain", context)
        self._drain.belongs_to(drain, context)
        drain.add_done_callback(lambda _: self._request_end())
        watch = self.tasks.spawn(self._watch_start(self.sources.start_all()), "start")
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

    def _task_failed(self, exc: BaseException) -> None:
        """Take the failure of a task for that of the nexus."""
        if self.failure is None:
            self.failure = exc
        self._request_end()

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
        unsettled = queue.qsize() + len(self._deliveries) + (drain.event is not None)
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
        if self.report is None and self.tasks.is_own():
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
        stuck = await self.sources.end_all()
        if self.failure is None:
            await self._drain_until_deadline(drain)
        left = self._deadline - asyncio.get_running_loop().time()
        await self.sources.close_late(min(max(left, _CLOSING[0]), _CLOSING[1]))
        stuck += await self.tasks.cancel(tuple(self.tasks.living))
        self.halt()
        for pool in self.pools:
            for lane, event in reversed(pool.waiting()):
                nexus.queue.put_back(lane, event)
        self._deliveries.give_back_all()
        after = nexus.stats()
        settled = self._settled - (self._settled_before or 0)
        held = [] if self._drain.event is None else [self._drain.event]
        remaining = [*held, *nexus.queue.events()]
        spilled = 0
        if nexus.queue.spills is not None:
            nexus.queue.sealed = True
            remaining = nexus.queue.spills.not_stored(remaining)
            spilled, lost, late = await nexus.queue.spills.close(_CLOSING_STORES)
            remaining += lost
            stuck += late
        remaining.sort(key=lambda event: event.priority)
        report = StopReport(settled, tuple(remaining), tuple(stuck), after, spilled)
        if not report.clean:
            logger.warning(
                "%s stopped with %s events not handled and %s tasks stuck: %s",
                nexus.name,
                len(report.remaining),
                len(stuck),
                ", ".join(stuck) or "none",
            )
        if spilled:
            logger.info("%s leaves %s events on the disk for the next start", nexus.name, spilled)
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
