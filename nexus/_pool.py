"""Pools: tasks that run one handler beside the nexus's own task, a few events at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ._backlog import Backlog
from ._delivery import Deliveries, Delivery, Lot
from ._done import Done
from ._event import Event
from ._lanes import Again, Lane, Slot
from ._queue import AsyncEventPriorityQueue
from ._route import Binding, Route
from ._slots import open_slot
from ._turn import TURN_SECONDS, turn

__all__ = ["Pool"]

_CATCH_UP = 2
"""Events, or lots of them, handled out of the backlog for each one that comes: more than one, or a flood
would never end it."""
_LOT = 128
"""Events that wait together for a handler that takes many; as many as a run of the drain has."""


class Pool:
    """Runs a handler on up to `size` events at once, the most urgent first; the others wait here.

    Waiting events keep their place in the bound of their lane, so back-pressure and policies reach through.

    Args:
        spawn: makes a task that the nexus owns.
    """

    def __init__(
        self,
        binding: Binding,
        size: int,
        queue: AsyncEventPriorityQueue,
        deliveries: Deliveries,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._binding = binding
        self._size = size
        self._queue = queue
        self._deliveries = deliveries
        self._spawn = spawn
        self._backlog = Backlog()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._running = 0
        """Tasks that are with the handler, or tell of its failure."""
        self._failed: tuple[Delivery, Exception] | None = None
        """A failure met without waiting, which a task has still to tell."""
        self._retired = False
        self._leads_out = bool(getattr(binding.handler, "leads_out", False))
        self._now: Callable[[Event[Any]], bool] | None = None
        """The handler's own way to handle an event without waiting, or to say that it cannot."""
        self._later: Callable[[Event[Any], Done], bool] | None = None
        """The handler's own way to take an event now and to say later that it has handled it."""
        self._many: Callable[[list[Event[Any]]], int] | None = None
        """The handler's own way to handle the first of many events without waiting."""
        self._many_later: Callable[[list[Event[Any]], Done], int] | None = None
        """The handler's own way to take the first of many events now, and to say later that it has handled
        them."""
        if not binding.has_options:
            self._now = getattr(binding.handler, "handle_nowait", None)
            self._later = getattr(binding.handler, "handle_later", None)
            if self._later is not None:
                self._many_later = getattr(binding.handler, "handle_many_later", None)
            else:
                self._many = getattr(binding.handler, "handle_many", None)

    @property
    def takes_many(self) -> bool:
        """Whether the handler can take many events at once."""
        return self._many is not None or self._many_later is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being handled."""
        return not self._backlog and len(self._idle) == len(self._tasks)

    @property
    def _is_behind(self) -> bool:
        """Whether something comes before what is given now."""
        return bool(self._backlog or self._running or self._failed)

    def offer(self, event: Event[Any], queue: object) -> None:
        """Handle the event here and now if that needs no waiting; else keep it for a task.

        Called by the drain as if it were the handler: what is kept is not counted as handled yet.
        """
        asks_now = self._later is None or self.takes_many  # else `submit` does
        is_free = asks_now and not (self._is_behind and self._is_still_behind())
        if self._later is None and is_free and self._now is not None and self._now(event):
            return
        account, lane = self._queue.ledger.account(event.type), self._queue.lanes[event.priority]
        account.handled -= 1  # the drain is about to add it; the task will
        if not self.takes_many:
            self.submit(Delivery(event, account, lane))
            return
        try:
            is_taken = self._later is not None and is_free and self._takes_first([event], lane, account)
        except Exception as exc:
            self.fail_now(event, lane, exc)
        else:
            if not is_taken:
                self._keep(Lot([event], account, lane))

    def offer_many(self, lot: Lot) -> None:
        """Let a handler that takes many handle a lot here and now, as far as that needs no waiting; keep the
        rest for a task."""
        if self._is_behind:
            self._keep(lot)
            self._is_still_behind()
            return
        self._deliveries.lots.add(lot)
        while events := lot.events:
            try:
                taken = self._takes_first(events, lot.lane, lot.route)
            except Exception as exc:
                lot.events = events[1:]
                self.fail_now(events[0], lot.lane, exc)
                break
            if not taken:
                break
            lot.events = events[taken:]
            if self._later is None:
                self._deliveries.handled(events[:taken], lot.route)
        self._deliveries.lots.discard(lot)
        if lot.events:
            self._keep(lot)

    def _takes_first(self, events: list[Event[Any]], lane: Lane, route: Route) -> int:
        """Let the handler handle the first of some events of one type without waiting, or take them and say
        later that it has; return how many. What it raises is about the first one."""
        if self._later is None:
            taken = self._many(events) if self._many is not None and len(events) > 1 else 0
            return taken or int(self._now is not None and self._now(events[0]))
        done = Done(self._deliveries, self._spawn, self._binding.name)
        taken = self._many_later(events, done) if self._many_later is not None and len(events) > 1 else 0
        if taken:
            done.held = Lot(events if taken == len(events) else events[:taken], route, lane)
            self._deliveries.lots.add(done.held)
        elif self._later(events[0], done):
            done.held = delivery = Delivery(events[0], route, lane)
            self._deliveries.active.add(delivery)
            taken = 1
        return taken

    def _keep(self, lot: Lot) -> None:
        """Let a lot wait for a task; it joins the one before it, if that is of its type and not large."""
        count, last = len(lot.events), self._backlog.last(lot.lane.priority)
        if isinstance(last, Lot) and last.route is lot.route and len(last.events) + count <= _LOT:
            last.events += lot.events
        else:
            self._backlog.add(lot)
        lot.lane.move_lot(count, leads_out=self._leads_out)
        self._stir()

    def idle_call(self, priority: int) -> Callable[[Event[Any]], bool] | None:
        """Return the handler's way to handle an event without waiting, if it has one and nothing is before
        it."""
        return self._now if self._later is None and not (self._is_behind or self._retired) else None

    def fail_now(self, event: Event[Any], lane: Lane, exc: Exception) -> None:
        """Have a task tell of a failure."""
        delivery = Delivery(event, self._queue.ledger.account(event.type), lane)
        self._deliveries.active.add(delivery)
        self._failed = (delivery, exc)
        self._stir()

    def _is_still_behind(self) -> bool:
        """Handle a little of what waits, if that needs no waiting; say whether there is more to do first."""
        if self._running:
            return True
        for _ in range(_CATCH_UP):
            if self._failed or not self._backlog or not self._handles_first():
                break
        return bool(self._backlog or self._failed)

    def _handles_first(self) -> bool:
        """Handle the first of what waits without waiting, if the handler can; say whether it did."""
        item = self._backlog.first
        if isinstance(item, Lot):
            return self._handles_lot(item)
        if self._handles_alike():
            return True
        if (self._now is None and self._later is None) or isinstance(item, Again):
            return False
        event = item.event
        if event is None or event.deadline is not None:
            return False  # the place of a dropped event, or one that may be too late
        failure: Exception | None = None
        done = None
        try:
            if self._later is not None:
                done = Done(self._deliveries, self._spawn, self._binding.name)
                if not self._later(event, done):
                    return False
            elif self._now is not None and not self._now(event):
                return False
        except Exception as exc:
            failure = exc
        self._backlog.pop()
        delivery = self._take(item)
        if delivery is not None:
            if failure is not None:
                self._failed = (delivery, failure)
            elif done is not None:
                done.held = delivery
            else:
                delivery.taken = True
                self._deliveries.finish(delivery)
        return True

    def _handles_lot(self, lot: Lot) -> bool:
        """Let the handler handle some of the lot that comes first, or take them, if it can; say whether it
        did."""
        first, failure = lot.events[0], None
        try:
            taken = self._takes_first(lot.events, lot.lane, lot.route)
        except Exception as exc:
            failure, taken = exc, 1
        events = self._take_out(lot, taken)
        if failure is not None:
            self.fail_now(first, lot.lane, failure)
        elif events and self._later is None:
            self._deliveries.handled(events, lot.route)
        return bool(taken)

    def _take_out(self, lot: Lot, count: int) -> list[Event[Any]]:
        """Take events out of the lot that comes first, and it with the last of them."""
        events = lot.events
        if not count:
            return []
        if count < len(events):
            lot.events = events[count:]  # who has taken all of a lot has its list
            events = events[:count]
        else:
            self._backlog.pop()
        lot.lane.move_lot(-count, leads_out=self._leads_out)
        self._queue.room.release(lot.lane)
        return events

    def _handles_alike(self) -> bool:
        """Let the handler handle at once those that come first and are alike, or take them, if it can; say
        whether it has taken any."""
        takes_many = self._many_later or self._many
        if takes_many is None or len(self._backlog) < 2:
            return False
        done = Done(self._deliveries, self._spawn, self._binding.name)
        items = self._backlog.pop_alike(_LOT)
        taken, failure = 0, None
        try:
            if len(items) > 1:
                events = [item.event for item in items if item.event is not None]
                if self._many_later is not None:
                    taken = self._many_later(events, done)
                elif self._many is not None:
                    taken = self._many(events)
        except Exception as exc:  # it is about the first one
            taken, failure = 1, exc
        finally:
            self._backlog.put_back(items[taken:])
        if failure is not None:
            if (failed := self._take(items[0])) is not None:
                self._failed = (failed, failure)
            return True
        done.held = [delivery for item in items[:taken] if (delivery := self._take(item)) is not None]
        if self._later is None:
            done()
        return bool(taken)

    def _hands_over(self, delivery: Delivery) -> bool:
        """Let the handler take an event that comes first, and say later that it has handled it, if it can."""
        if self._later is None or (self._is_behind and self._is_still_behind()):
            return False
        done = Done(self._deliveries, self._spawn, self._binding.name)
        try:
            if not self._later(delivery.event, done):
                return False
        except Exception as exc:
            self._failed = (delivery, exc)
            self._stir()
        done.held = delivery
        self._deliveries.active.add(delivery)
        return True

    def submit(self, item: Delivery | Slot | Again) -> None:
        """Take a delivery, a slot whose event a policy may still drop while it waits, or a second try."""
        if isinstance(item, Delivery) and self._hands_over(item):
            return
        self._backlog.add(item)
        if not isinstance(item, Again):
            if isinstance(item, Slot) or item.waits == 0:
                item.lane.enter_backlog(item, leads_out=self._leads_out)
            else:
                item.lane.lead_out(item, self._leads_out)
            if isinstance(item, Delivery):
                item.waits += 1
                self._deliveries.active.discard(item)
        self._stir()

    def _stir(self) -> None:
        """Have a task look at what there is to do."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._tasks) < self._size:
            task = self._spawn(self._work(), f"handler.{self._binding.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def retire(self) -> None:
        """Let the tasks end once what waits is handled: the handler was removed."""
        self._retired = True
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def is_gone(self) -> bool:
        """Whether it was retired and has nothing left to do."""
        return self._retired and not self._tasks and not self._backlog

    def waiting(self) -> list[tuple[Lane, Any]]:
        """Take out all that waits, as lane and entry, in order."""
        items = list(self._backlog)
        self._backlog.clear()
        found: list[tuple[Lane, Any]] = []
        for item in items:
            if isinstance(item, Again):
                continue  # its event is one of the active ones
            if isinstance(item, Lot):
                item.lane.move_lot(-len(item.events), leads_out=self._leads_out)
                found += [(item.lane, event) for event in item.events]
                continue
            if isinstance(item, Delivery):
                item.waits -= 1
                if item.waits > 0:
                    continue  # another pool has it too
            event = open_slot(item) if isinstance(item, Slot) else item.event
            if event is not None:
                item.lane.leave_backlog(item)
                found.append((item.lane, event))
        return found

    @property
    def items(self) -> set[Delivery | Slot | Lot]:
        """What waits here and is counted by its lane."""
        return {
            item
            for item in self._backlog
            if isinstance(item, Lot) or (not isinstance(item, Again) and item.event is not None)
        }

    async def _work(self) -> None:
        """Handle what waits, for as long as the nexus runs."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        handled = 0
        while True:
            if not self._backlog and not self._failed:
                if self._retired or self._deliveries.is_over:
                    return
                waiter = loop.create_future()
                self._idle.append(waiter)
                try:
                    await waiter
                finally:
                    if waiter in self._idle:
                        self._idle.remove(waiter)
                began, handled = loop.time(), 0
                continue
            self._running += 1
            try:
                if self._failed or self._handles_first():
                    await self._tell()
                else:
                    await self._run_first()
            finally:
                self._running -= 1
            handled += 1
            if handled >= 64 or loop.time() - began > TURN_SECONDS:
                await turn()
                began, handled = loop.time(), 0

    async def _tell(self) -> None:
        """Tell of the failure met without waiting, if there was one."""
        if self._failed is not None:
            (delivery, exc), self._failed = self._failed, None
            await self._deliveries.fail(delivery, self._binding.name, exc, 1)

    async def _run_first(self) -> None:
        """Take out what comes first, and await its handler."""
        item = self._backlog.first
        if isinstance(item, Lot):
            (event,) = self._take_out(item, 1)
            delivery = Delivery(event, item.route, item.lane)
            self._deliveries.active.add(delivery)
            await self._deliveries.run(delivery, self._binding, 1)
            return
        self._backlog.pop()
        if isinstance(item, Again):
            await self._deliveries.run(item.delivery, self._binding, item.attempt)
        elif (found := self._take(item)) is not None:
            await self._deliveries.run(found, self._binding, 1)

    def _take(self, item: Delivery | Slot) -> Delivery | None:
        """Take an event out of the backlog; None when it was dropped or has expired."""
        if isinstance(item, Slot):
            event = open_slot(item)
            if event is None:
                return None
            delivery = Delivery(event, self._queue.ledger.account(item.type), item.lane)
        else:
            delivery = item
            delivery.waits -= 1
        if delivery.waits == 0:
            lane = item.lane
            lane.leave_backlog(item)
            delivery.goes_on()
            self._deliveries.active.add(delivery)
            self._queue.room.release(lane)
        deadline = delivery.event.deadline
        if deadline is not None and asyncio.get_running_loop().time() > deadline:
            self._deliveries.finish(delivery)
            return None
        return delivery
