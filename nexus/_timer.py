"""Timers: producers that emit by the clock, all of a loop on one heap, without drift."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from ._clock import clock_of
from ._event import Event, EventKey, NamedEvent, event_type_of
from ._source import EventProducer
from ._turn import TURN_SECONDS
from .errors import MultipleStart, NexusError

__all__ = ["Timer"]

logger = logging.getLogger(__name__)


class _Wheel:
    """The timers of one event loop: one heap, and one call of the loop for the earliest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._time = clock_of(loop)
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._stale = 0
        """Entries in the heap whose timer was stopped."""
        self._handle: asyncio.TimerHandle | None = None
        self._firing = False

    def add(self, deadline: float, timer: Timer) -> None:
        """Fire the timer at this moment."""
        heappush(self._heap, (deadline, next(self._order), timer))
        if not self._firing and self._heap[0][2] is timer:
            self._arm()

    def stopped(self) -> None:
        """Note that the entry of a timer has become stale."""
        self._stale += 1

    def tidy(self) -> None:
        """Forget timers that were stopped, once they are first in line or the most."""
        heap = self._heap
        if self._stale > 64 and self._stale * 2 > len(heap):
            heap[:] = [entry for entry in heap if entry[2].deadline == entry[0]]
            heapify(heap)
            self._stale = 0
        while heap and heap[0][2].deadline != heap[0][0]:
            heappop(heap)
            self._stale = max(0, self._stale - 1)
        if not heap and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        """Have the loop call at the earliest moment."""
        if self._handle is not None:
            self._handle.cancel()
        loop = self._loop()
        assert loop is not None
        self._handle = loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        """Fire every timer whose moment has come; many at once in portions, so that others get their turn."""
        self._handle = None
        self._firing = True
        heap = self._heap
        now = self._time()
        fired = 0
        try:
            while heap and heap[0][0] <= now:
                deadline, _, timer = heappop(heap)
                if timer.deadline == deadline:
                    timer._fire()
                    fired += 1
                    if fired % 16 == 0 and self._time() - now > TURN_SECONDS:
                        break
                else:
                    self._stale = max(0, self._stale - 1)
        finally:
            self._firing = False
            self.tidy()
            if heap:
                self._arm()


_wheels: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Wheel] = weakref.WeakKeyDictionary()


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
    out.

    Args:
        interval: seconds between ticks, more than 0.
        event_type: the type of its events, or a subclass of `NamedEvent`.
        type: `ONE_SHOT` ticks once; `COUNT_UP` to `count`, with payloads 1 to count; `COUNT_DOWN` from
        `count`, with
            payloads count - 1 to 0; `ONGOING` until it is stopped, with payloads 1, 2, 3, ...
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
        self._wheel: _Wheel | None = None
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
        wheel = _wheels.get(loop)
        if wheel is None:
            wheel = _wheels[loop] = _Wheel(loop)
        run = _Run(loop=loop)
        run.timer = weakref.ref(self)
        self.task = run
        self._wheel = wheel
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

    def _schedule(self) -> None:
        """Name the moment of the next tick."""
        assert self._wheel is not None
        self._ticks += 1
        self.deadline = deadline = self._began + self._ticks * self.interval
        self._wheel.add(deadline, self)

    def _end(self) -> None:
        """Tick no more."""
        if self._wheel is not None and self.deadline is not None:
            self._wheel.stopped()
        self.deadline = None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._wheel is not None:
            self._wheel.tidy()

    def _fire(self) -> None:
        """Tick."""
        self._value += self.direction_value
        try:
            event = self.create_event(self._value)
            if event is not None and not self._emit(event):
                return
        except Exception as exc:
            self._fail(exc)
            return
        self._go_on()

    def _emit(self, event: Event[Any]) -> bool:
        """Give the event to the nexuses; False when one has no room, and the rest is left to a task."""
        cls = self.__class__
        nexuses = self.nexuses
        if cls.distribute_event is EventProducer.distribute_event:
            while nexuses:
                offer = getattr(nexuses[0], "offer", None)
                if offer is None or not offer(event):
                    break
                del nexuses[0]
            if not nexuses:
                return True
            rest = self._distribute_late(event, nexuses)
        else:
            rest = self.distribute_event(event)
        self.deadline = None
        self._late = asyncio.get_running_loop().create_task(
            self._finish_late(rest), name=f"timer[{self.event_type}].late"
        )
        return False

    async def _distribute_late(self, event: Event[Any], nexuses: list[Any]) -> None:
        """Wait for room in each nexus."""
        for nexus in nexuses:
            await nexus.ingest(event)

    async def _finish_late(self, rest: Any) -> None:
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
        """End the run with an error; a supervisor starts it again."""
        self.deadline = None
        if self.task is not None and not self.task.done():
            logger.log(
                logging.DEBUG if isinstance(exc, NexusError) else logging.WARNING,
                "timer of %r stops: %r",
                self.event_type,
                exc,
            )
            with contextlib.suppress(asyncio.InvalidStateError):
                self.task.set_exception(exc)
            self.task.exception()  # it was logged: nobody has to retrieve it
