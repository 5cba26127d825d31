"""Timers: producers that emit by the clock, all of a loop on one wheel, without drift."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from ._event import Event, EventFactory, EventKey, NamedEvent, event_type_of, make_event
from ._source import AbstractNexus, EventProducer
from ._wheel import Ring, Wheel, wheel_of
from .errors import LoopStopped, MultipleStart, NexusError

__all__ = ["Timer"]

logger = logging.getLogger(__name__)


def _nobody() -> None:
    """Stand in for the reference to a nexus."""


class _Run(asyncio.Future[None]):
    """One run of a timer: done when it has ended; cancelling it stops the timer."""

    timer: weakref.ref[Timer]

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop the timer too."""
        timer = self.timer()
        if timer is not None and timer.task is self:
            timer._end()
        return super().cancel(msg)


class Timer(EventProducer):
    """A producer that emits by the clock.

    Tick n is due at start + n * interval, whatever the ticks before it did, so a timer does not drift. A
    tick that finds no room in a nexus waits for it; the ticks after it come late, in order, and none is left
    out. Where very many tick, those due within a millisecond are gathered and tick at its end.

    Args:
        interval: seconds between ticks, more than 0.
        event_type: the type of its events, or a subclass of `NamedEvent`.
        type: `ONE_SHOT` ticks once; `COUNT_UP` to `count`, with payloads 1 to count; `COUNT_DOWN` from
            `count`, with payloads count - 1 to 0; `ONGOING` until it is stopped, with payloads 1, 2, 3, ...
        count: how often it ticks; only for the two that count.
        event_factory: where its events come from; None for the nexus it is registered with.
        priority: the priority of its events.

    Raises:
        ValueError: interval, type or count make no sense.

    Attributes:
        task: the current run, done when the timer has ended; None before the start and after a stop.
        deadline: when it ticks next, in seconds on the loop's clock; None while it is not running.
    """

    COUNT_UP = 1
    COUNT_DOWN = 2
    ONGOING = 3
    ONE_SHOT = 4

    def __init__(
        self,
        interval: float,
        *,
        event_type: EventKey | type[NamedEvent[Any]],
        type: int = ONE_SHOT,
        count: int = 0,
        event_factory: Any = None,
        priority: int = 0,
    ) -> None:
        super().__init__(event_factory)
        if (
            isinstance(interval, bool)
            or not isinstance(interval, int | float)
            or not 0 < interval < float("inf")
        ):
            raise ValueError(f"a timer's interval is a number of seconds more than 0, not {interval!r}")
        event_type_of(event_type)
        self.interval = interval
        self.event_type = event_type
        self.type = type
        self.priority = priority
        self.starting_value, self.ending_value, self.direction_value = self._plan(type, count)
        self.task: asyncio.Future[None] | None = None
        self.deadline: float | None = None
        self._began = 0.0
        self._ticks = 0
        self._value = 0
        self._wheel: Wheel | None = None
        self._add: Callable[[float, Timer, Ring], None]
        self._ring: Ring
        self._key: EventKey = ""
        self._direct: Callable[[], Any] = _nobody
        """The nexus that takes the ticks the short way; `_nobody` where something is out of the ordinary."""
        self._late: asyncio.Task[None] | None = None

    def _plan(self, type: int, count: int) -> tuple[int, int | None, int]:
        """Return the first value, the last one (None for none) and the step."""
        if type == self.COUNT_DOWN:
            if count < 1:
                raise ValueError(f"Countdown value invalid: count is {count}, it must be 1 or more")
            return count, 0, -1
        if type == self.COUNT_UP:
            if count < 1:
                raise ValueError(f"Countup value invalid: count is {count}, it must be 1 or more")
            return 0, count, 1
        if type == self.ONGOING:
            if count != 0:
                raise ValueError(
                    f"Counter value supplied when irrelevant: an ongoing timer has no count, found {count}"
                )
            return 0, None, 1
        if type == self.ONE_SHOT:
            if count not in (0, 1):
                raise ValueError(f"Oneshot value invalid: count is {count}, it must be 0 or 1")
            return 0, 1, 1
        raise ValueError(f"Invalid timer type {type!r}; known are COUNT_UP, COUNT_DOWN, ONGOING and ONE_SHOT")

    async def start(self) -> asyncio.Future[None]:  # type: ignore[override]
        """Begin to tick; may be called again once the timer has ended or was stopped.

        Returns:
            The run, which is done when the timer has ended, and stops it when cancelled.

        Raises:
            MultipleStart: it is running.
            MisconfiguredEventProducer: no nexus is registered.
        """
        if self.task is not None and not self.task.done():
            raise MultipleStart("Timer already started; stop it first")
        await super().start()
        loop = asyncio.get_running_loop()
        wheel = wheel_of(loop)
        run = _Run(loop=loop)
        run.timer = weakref.ref(self)
        self.task = run
        self._wheel, self._add, self._ring = wheel, wheel.add, wheel.ring_of(self.interval)
        self._find_direct()
        self._value, self._ticks = self.starting_value, 0
        self._began = loop.time()
        self._schedule()
        return run

    def stop(self) -> bool:
        """Stop ticking.

        Returns:
            True if it was running or had never run, False if it had ended by itself.
        """
        task, self.task = self.task, None
        self._end()
        return task is None or (not task.done() and task.cancel())

    def close(self) -> None:
        """Stop ticking."""
        self.stop()

    def create_event(self, value: int) -> Event[Any] | None:
        """Make the event of one tick; override it to emit something else, or None for nothing.

        Args:
            value: the current count.
        """
        return self.event_factory.create_event(value, event_type=self.event_type, priority=self.priority)

    def register_nexus(self, nexus: AbstractNexus) -> None:
        super().register_nexus(nexus)
        self._find_direct()

    def deregister_nexus(self, nexus: AbstractNexus) -> None:
        super().deregister_nexus(nexus)
        self._find_direct()

    def _find_direct(self) -> None:
        """Find out whether the short way will do: one nexus, its own events, and nothing overridden."""
        self._direct = _nobody
        if len(self._nexus_refs) != 1 or isinstance(self.event_type, type):
            return
        nexus: Any = self._nexus_refs[0]()
        if (
            isinstance(nexus, EventFactory)
            and nexus is self.event_factory
            and hasattr(nexus, "offer")
            and _is_own(self.create_event, Timer.create_event)
            and _is_own(self.distribute_event, EventProducer.distribute_event)
            and _is_own(nexus.create_event, EventFactory.create_event)
        ):
            self._key = event_type_of(self.event_type)
            self._direct = self._nexus_refs[0]

    def _schedule(self) -> None:
        """Name the moment of the next tick."""
        self._ticks += 1
        self.deadline = deadline = self._began + self._ticks * self.interval
        self._add(deadline, self, self._ring)

    def _end(self) -> None:
        """Tick no more."""
        was_waiting = self.deadline is not None
        self.deadline = None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._wheel is not None and was_waiting:
            self._wheel.stopped()

    def tick(self) -> None:
        """Emit the event that is due, and name the moment of the next; called by the wheel."""
        due = self.deadline
        self._value = value = self._value + self.direction_value
        nexus = self._direct()
        try:
            if nexus is not None:
                tick = make_event(nexus.next_id(), self._key, self.priority, value)
                if not nexus.offer(tick):
                    self._emit_late(self._distribute_late(tick, [nexus]))
                    return
            else:
                event = self.create_event(value)
                if event is not None and not self._emit(event):
                    return
        except Exception as exc:
            self._fail(exc)
            return
        if self.deadline is not due:
            return
        if value == self.ending_value:
            self._go_on()
        else:
            self._ticks = ticks = self._ticks + 1
            self.deadline = deadline = self._began + ticks * self.interval
            self._add(deadline, self, self._ring)

    def _emit(self, event: Event[Any]) -> bool:
        """Give the event to the nexuses; False when one has no room, and the rest is left to a task."""
        if not _is_own(self.distribute_event, EventProducer.distribute_event):
            self._emit_late(self.distribute_event(event))
            return False
        nexuses = self.nexuses
        while nexuses:
            offer = getattr(nexuses[0], "offer", None)
            try:
                if offer is None or not offer(event):
                    self._emit_late(self._distribute_late(event, nexuses))
                    return False
            except LoopStopped:
                if not self._leave_out(nexuses[0]):
                    raise
            del nexuses[0]
        return True

    def _emit_late(self, rest: Coroutine[Any, Any, None]) -> None:
        """Leave what has to wait to a task; the timer goes on after it."""
        self.deadline = None
        self._late = asyncio.get_running_loop().create_task(
            self._finish_late(rest), name=f"timer[{self.event_type}].late"
        )
        # Cancelled before its first step, nobody has awaited the rest.
        self._late.add_done_callback(lambda _: rest.close())

    async def _distribute_late(self, event: Event[Any], nexuses: list[Any]) -> None:
        """Wait for room in each nexus."""
        for nexus in nexuses:
            try:
                await nexus.ingest(event)
            except LoopStopped:
                if not self._leave_out(nexus):
                    raise

    def _leave_out(self, nexus: AbstractNexus) -> bool:
        """Give nothing more to a nexus that has stopped; False when there is no other."""
        if len(self.nexuses) < 2:
            return False
        self.deregister_nexus(nexus)
        return True

    async def _finish_late(self, rest: Coroutine[Any, Any, None]) -> None:
        """Wait until the event is given, then go on ticking."""
        try:
            await rest
        except Exception as exc:
            self._late = None
            self._fail(exc)
        else:
            self._late = None
            self._go_on()

    def _go_on(self) -> None:
        """Wait for the next tick, or end."""
        if self.task is None or self.task.done():
            return
        if self._value == self.ending_value:
            self.deadline = None
            self.task.set_result(None)
        else:
            self._schedule()

    def _fail(self, exc: Exception) -> None:
        """End the run with an error, so that a supervisor starts it again; when the nexus has stopped, just
        end it."""
        self.deadline = None
        run = self.task
        if run is None or run.done():
            return
        if isinstance(exc, LoopStopped):
            logger.debug("timer of %r stops: %r", self.event_type, exc)
            run.cancel()
            return
        logger.log(
            logging.DEBUG if isinstance(exc, NexusError) else logging.WARNING,
            "timer of %r stops: %r",
            self.event_type,
            exc,
        )
        run.set_exception(exc)
        run.exception()  # it was logged: nobody has to retrieve it


def _is_own(method: Any, function: Any) -> bool:
    """Say whether a bound method is this function, overridden neither in a class nor in the object."""
    return getattr(method, "__func__", None) is function
