"""The drain: takes the most urgent event, passes it through the filters, and awaits its handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextvars import Context
from inspect import isawaitable
from operator import length_hint
from typing import Any

from ._begun import Begun
from ._clock import clock_of
from ._delivery import Deliveries, Delivery, Lot, is_passing
from ._dispatch import EventDispatcher
from ._event import Event, settle
from ._handler import HandlerCall
from ._lanes import Again, Lane, Slot
from ._queue import AsyncEventPriorityQueue, SecondaryQueue
from ._route import OTHER_TYPES, Binding, Route
from ._slots import open_slot, slot_again
from ._turn import TURN_COUNT, LastInTurn
from .errors import UnhandledEvent

__all__ = ["Drain"]

logger = logging.getLogger(__name__)

_QUICK = 5e-5
_LONGEST_RUN = 128
_LONG_TURN = 2e-4
"""Seconds for which events are handled before sources and timers get their turn."""
_SHORT_TURN = 3e-5
"""The same where events of several priorities wait, so that the next urgent one is soon met."""
_HURRY = 1.0
"""Seconds for which turns stay short after that was so."""


class Drain:
    """Serves the queue in one task.

    Events are taken in runs of 1 to 128 between two looks at the clock: long runs while handlers are quick.
    Before each event the lanes are looked at, so a run ends as soon as something more urgent has come. Runs
    make a turn of 30 or 200 us, after which everything else in the loop comes first.

    Attributes:
        event: the event that is with a handler here and now, or None.
    """

    def __init__(
        self, queue: AsyncEventPriorityQueue, dispatcher: EventDispatcher, deliveries: Deliveries
    ) -> None:
        self.event: Event[Any] | None = None
        self._queue = queue
        self._lanes = queue.lanes
        self._dispatcher = dispatcher
        self._deliveries = deliveries
        self._secondary = SecondaryQueue(queue)
        self._clock: Callable[[], float]
        self.is_over = False
        """Whether the nexus has stopped, and a handler that comes back now is the last."""
        self.rests = False
        """Whether it waits for an event."""
        self._hurries_until = 0.0
        """Until when its turns are short."""
        self._lane: Lane | None = None
        self._run: Iterator[int] = iter(())
        self._run_length = 0
        self._noted = 0
        """Entries of the run that its lane knows to be gone already."""
        self._returned = 0
        """Entries of the run that were taken a moment too early and stand in line again."""
        self._empty = 0
        """1 if the last entry of the run was a dropped event or a second try."""
        self._watched = False
        self._was_waited_for = False
        """Whether the run's last handler let the loop run, so that the time went there."""
        self._was_many = False
        """Whether the run's handler took its events at once, each in the same time."""
        self._others: Iterator[Any] = iter(())
        self._bindings: tuple[Binding, ...] = ()
        """The handlers of an event that has several; once one has raised, those to come are in `_others`."""
        self._plain: Route | None = None
        self._plain_left = 0
        self._task: asyncio.Task[None] | None = None
        self._context: Context | None = None
        self._idle: Callable[[], None]
        self._begun: tuple[Begun, Lane, Route, float] | None = None
        """An event that was begun outside of the task and is not done; where it belongs, and since when."""

    def belongs_to(self, task: asyncio.Task[None], context: Context | None) -> None:
        """Know the task that runs it, and its context; None where that is not known."""
        self._task, self._context = task, context

    async def run(self, idle: Callable[[], None]) -> None:
        """Serve until cancelled. An event whose handler is cancelled goes back to the front of its lane.

        Args:
            idle: called whenever nothing is left to do.
        """
        loop = asyncio.get_running_loop()
        self._clock = clock_of(loop)
        self._idle = idle
        others = LastInTurn(loop, self._clock)
        queue = self._queue
        while True:
            try:
                queue.busy = True
                if self._begun is not None:
                    await self._go_on()
                await self._work()
            finally:
                self._settle_run()
                self.event = None
                queue.busy = False
            if self.is_over:
                return
            queue.room.release_all()
            if self._lanes.any_occupied:
                self._lanes.look_again(self._clock())
                await others
            else:
                idle()
                self.rests = True
                try:
                    await queue.wait()
                except asyncio.CancelledError as exc:
                    if self._begun is None:
                        raise
                    self._begun[0].cancel(exc)
                finally:
                    self.rests = False

    def begin(self, event: Event[Any], lane: Lane, route: Route) -> bool:
        """Begin with an event here and now, while the drain rests; say whether that was done.

        Its one handler is an inline coroutine function. What it does not do without waiting is left to the
        task, and so is whatever it raises. For callbacks of the loop: no task may be running.
        """
        queue, task, call = self._queue, self._task, route.coroutine
        if task is None or self._context is None or call is None or not queue.is_waited_for_once:
            return False
        loop = task.get_loop()
        if asyncio.current_task(loop) is not None:
            return False
        began = self._clock()
        self.event = event
        self.rests = False
        queue.busy = True
        lane.taken += 1
        begun = Begun(task, loop, self._context, call, event, self._secondary)
        lane.waiting.record(0.0)
        if not begun.is_done:
            self._begun = (begun, lane, route, began)
            queue.wake_getter()
            return True
        self._done(lane, route, began)
        queue.busy = False
        self.rests = True
        self._idle()
        return True

    async def _go_on(self) -> None:
        """Do the rest of what was begun."""
        assert self._begun is not None
        (begun, lane, route, began), self._begun = self._begun, None
        try:
            await begun
        except BaseException as exc:
            await self._raised(exc, lane)
        else:
            self._done(lane, route, began)

    def _done(self, lane: Lane, route: Route, began: float) -> None:
        self.event = None
        route.handled += 1
        lane.handling.record(self._clock() - began)

    def now(self) -> float:
        """Read the clock."""
        return self._clock()

    async def _work(self) -> None:
        """Handle events for one turn."""
        clock, lanes = self._clock, self._lanes
        loop = asyncio.get_running_loop()
        began = now = clock()
        end = began + (_SHORT_TURN if now < self._hurries_until else _LONG_TURN)
        handled = 0
        while not self.is_over and (lane := lanes.select(now)) is not None:
            if lanes.several_occupied:
                self._hurries_until = now + _HURRY
            length = min(lane.length, len(lane.line))
            if (span := length * lane.pace) > end - now:
                length = min(length, int(length * (end - now) / span) + 2)
            self._lane, self._run_length = lane, length
            self._run = iter(range(length))
            if length == 1 and not lane.is_awaited:
                lane.taken += 1  # a lone event needs no watch: the run ends with it
                lane.limit = 0  # who comes while its handler waits looks at the clock
                self._noted = 1
            elif not self._watched:
                self._watched = True
                loop.call_soon(self._interrupted)
            while True:
                try:
                    await self._take_run(lane, self._run)
                    break
                except BaseException as exc:
                    await self._raised(exc, lane)
                    if lanes.current is not lane:
                        break
            before, now = now, clock()
            handled += self._settle_run(before, now)
            if now >= end or handled >= TURN_COUNT:
                return

    def _interrupted(self) -> None:
        """End the run after the present event: its handler waits for something, and time passes."""
        self._watched = False
        lane = self._lane
        if lane is not None:
            taken = self.taken
            lane.taken += taken
            self._noted += taken
            self._was_waited_for = True
            self._lanes.current = None
            self._lanes.look_again(self._clock())
            self._queue.room.release_all()

    async def _take_run(self, lane: Lane, run: Iterator[int]) -> None:
        """Handle the next events of a lane, until the run is over or a more urgent lane has something."""
        pop = lane.line.popleft
        lanes = self._lanes
        direct = self._dispatcher.direct
        queue = self._secondary
        for _ in run:
            event = self.event = pop()
            try:
                route = direct[event.type]
            except (KeyError, TypeError):
                route = None
            if route is None:
                await self._carefully(event, lane)
            elif (meta := event._meta) is not None and meta.needs_care:
                if meta.only_tells:
                    await self._take_told(event, lane, run, route)
                else:
                    await self._carefully(event, lane)
            elif (call := route.coroutine) is not None:
                await call(event, queue)
                route.handled += 1
            else:
                call = route.single
                if call is not None:
                    if route.pool is not None and self._take_many(event, lane, run, route):
                        return
                    await self._take_plain(event, lane, run, route, call)
                else:
                    await self._take_several(event, lane, run, route)
            if lanes.current is not lane:
                return

    def _take_many(self, event: Event[Any], lane: Lane, run: Iterator[int], route: Route) -> bool:
        """Give the events of one type that stand together to the pool of a handler that takes many at once;
        say whether that was done. Then the run is over."""
        pool = route.pool
        if not length_hint(run) or not pool.takes_many:
            return False
        pop, kind = lane.line.popleft, event.type
        events = [event]
        for _ in run:
            event = pop()
            meta = event._meta
            if event.type is not kind or (meta is not None and meta.needs_care and not meta.only_tells):
                lane.line.appendleft(event)
                self._returned += 1
                break
            events.append(event)
        self.event = None
        self._was_many = True
        pool.offer_many(Lot(events, route, lane))
        return True

    async def _take_told(self, event: Event[Any], lane: Lane, run: Iterator[int], route: Route) -> None:
        """Handle the events of one type that stand together and say when they are settled."""
        if route.pool is not None and self._take_many(event, lane, run, route):
            return
        call = route.single
        if route.pool is not None or call is None:
            await self._carefully(event, lane)
            return
        pop, lanes, queue, kind = lane.line.popleft, self._lanes, self._secondary, event.type
        while True:
            result = call(event, queue)
            if result is not None and isawaitable(result):
                await result
            self.event = None
            route.handled += 1
            settle(event, "handled")
            if lanes.current is not lane or next(run, None) is None:
                return
            event = pop()
            if event.type is not kind or (meta := event._meta) is None or not meta.only_tells:
                lane.line.appendleft(event)
                self._returned += 1
                return
            self.event = event

    async def _take_several(self, event: Event[Any], lane: Lane, run: Iterator[int], route: Route) -> None:
        """Handle the events of one type that stand together by its several handlers, one after the other."""
        pop, lanes, queue, kind = lane.line.popleft, self._lanes, self._secondary, event.type
        calls, is_async = route.others, route.is_async
        self._bindings = route.bindings
        while True:
            others = iter(calls)
            try:
                if is_async:
                    for call in others:
                        await call(event, queue)
                else:
                    for call in others:
                        result = call(event, queue)
                        if result is not None and isawaitable(result):
                            await result
            except BaseException:
                self._others = others
                raise
            route.handled += 1
            if lanes.current is not lane:
                break
            for _ in run:
                event = pop()
                break
            else:
                break
            if event.type is not kind or event._meta is not None:
                lane.line.appendleft(event)
                self._returned += 1
                break
            self.event = event
        self._bindings = ()

    async def _take_plain(
        self, event: Event[Any], lane: Lane, run: Iterator[int], route: Route, call: HandlerCall
    ) -> None:
        """Handle the events of one type that stand together, by a plain function; they are counted by the
        run."""
        pop = lane.line.popleft
        lanes = self._lanes
        queue = self._secondary
        kind = event.type
        last = 1
        self._plain, self._plain_left = route, length_hint(run)
        result = call(event, queue)
        if result is not None and isawaitable(result):
            await result
        if lanes.current is lane:
            for _ in run:
                event = pop()
                if event.type is not kind or ((meta := event._meta) is not None and meta.needs_care):
                    lane.line.appendleft(event)
                    self._returned += 1
                    last = 0
                    break
                self.event = event
                result = call(event, queue)
                if result is not None and isawaitable(result):
                    await result
                if lanes.current is not lane:
                    break
        self._plain = None
        route.handled += self._plain_left - length_hint(run) + last

    def _settle_run(self, began: float = 0.0, ended: float | None = None) -> int:
        """Note in lane and statistics what the last run has taken; returns how many entries."""
        lane = self._lane
        if lane is None:
            return 0
        taken = self._run_length - length_hint(self._run) - self._returned
        lane.taken -= self._noted
        events = taken - self._empty
        last_was_slow, was_many = self._was_waited_for, self._was_many
        self._lane, self._run, self._run_length = None, iter(()), 0
        self._noted, self._returned, self._empty, self._was_waited_for = 0, 0, 0, False
        self._was_many = False
        if events > 0 and ended is not None:
            span = ended - began
            if span < _QUICK or events == 1 or was_many:
                lane.pace = span / events
                lane.record_waiting(began, events)
                lane.handling.record(lane.pace, events)
            else:  # one of them was slow: it gets all the time beyond the usual pace
                rest = events - 1
                slow = max(span - lane.pace * rest, span / events)
                lane.record_waiting(began, 1)
                lane.record_waiting(began if last_was_slow else ended, rest, after=1)
                lane.handling.record(slow)
                lane.handling.record((span - slow) / rest, rest)
            if span >= 4 * _QUICK:
                lane.length = max(1, lane.length // 2) if was_many else 1
            elif span < 2 * _QUICK:
                lane.length = min(_LONGEST_RUN, 2 * lane.length)
        lane.taken += taken
        if not lane.line:
            self._lanes.vacate(lane)
        return taken

    @property
    def taken(self) -> int:
        """Entries that the present run has taken from its lane and not settled with it."""
        return self._run_length - length_hint(self._run) - self._returned - self._noted

    def count_plain(self) -> None:
        """Bring the account of a run of plain functions up to date, for somebody who reads it in the
        middle."""
        if self._plain is not None:
            left = length_hint(self._run)
            self._plain.handled += self._plain_left - left
            self._plain_left = left

    # With care: everything that is not the ordinary case.

    async def _carefully(self, entry: Event[Any] | Slot | Again, lane: Lane) -> None:
        """Handle an entry that has metadata or no direct route, or that is no plain event."""
        self.event = None
        event: Any
        if isinstance(entry, Again):
            lane.holes -= 1
            self._end_with_nothing()
            await self._deliveries.run(entry.delivery, entry.binding, entry.attempt)
            return
        event = open_slot(entry) if isinstance(entry, Slot) else entry
        if event is None:
            self._end_with_nothing()
            return
        if not isinstance(event, Event):
            self._queue.ledger.account(OTHER_TYPES).failed += 1
            logger.error("something that is no event was in the queue and is dropped: %.80r", event)
            return
        self.event = event
        account = self._queue.ledger.account(event.type)
        meta = event._meta
        if meta is not None and meta.deadline is not None and self._clock() > meta.deadline:
            account.expired += 1
            settle(event, "expired")
        elif self._dispatcher.filters and await self._dispatcher.filter(event, self._secondary):
            account.handled += 1
            settle(event, "handled")
        else:
            bindings = self._dispatcher.bindings_for(event)
            if not bindings:
                settle(event, "unhandled")
                await self._unhandled(event, account)
            elif isinstance(entry, Slot) and len(bindings) == 1 and bindings[0].pool is not None:
                self.event = None
                if slot_again(entry, event):
                    bindings[0].pool.submit(entry)
            else:
                self.event = None
                await self._deliveries.deliver(Delivery(event, account, lane), bindings)
        self.event = None

    def _end_with_nothing(self) -> None:
        """Let the run end with an entry that is no event of its own: only those before it are measured."""
        self._empty = 1
        self._lanes.current = None

    async def _unhandled(self, event: Event[Any], account: Route) -> None:
        """Deal with an event that nobody takes."""
        account.unhandled += 1
        self.event = None
        if account.unhandled & (account.unhandled - 1) == 0:
            logger.warning("nobody takes events of type %r: %s so far", event.type, account.unhandled)
        if self._deliveries.stop_on_error:
            raise UnhandledEvent(f"no handler for event {event.id} of type {event.type!r}, and no fallback")

    async def _raised(self, exc: BaseException, lane: Lane) -> None:
        """Deal with what came out of a run: the handler's failure, or the end of this task."""
        event, self.event = self.event, None
        plain, self._plain = self._plain, None
        if plain is not None:
            plain.handled += self._plain_left - length_hint(self._run)
        if event is None:  # settled already: raised by the careful way, or between two events
            raise exc
        if is_passing(exc):
            self._queue.put_back(lane, event)
            raise exc
        account = self._queue.ledger.account(event.type)
        delivery = Delivery(event, account, lane)
        self._deliveries.active.add(delivery)
        bindings, self._bindings = self._bindings, ()
        if not bindings and self._dispatcher.direct.get(account.key) is account:
            bindings = account.bindings
        failed = max(0, len(bindings) - length_hint(self._others) - 1) if len(bindings) > 1 else 0
        others, self._others = bindings[failed + 1 :], iter(())
        name = bindings[failed].name if bindings else "a filter, or a handler that was removed"
        delivery.pending += len(others)
        try:
            await self._deliveries.fail(delivery, name, exc, 1)
        finally:
            for binding in others:
                await self._deliveries.run(delivery, binding, 1)
