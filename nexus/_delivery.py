"""Deliveries: events on their way through handlers with options, and what happens when a handler fails."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from itertools import count
from typing import Any, TypeAlias

from ._event import Event, settle
from ._handler import DeadLetter
from ._lanes import Again, Lane
from ._queue import AsyncEventPriorityQueue, SecondaryQueue
from ._route import Binding, Route
from .errors import HandlerError, HandlerTimeout

__all__ = ["DeadLetterHandler", "Deliveries", "Delivery", "ErrorHandler", "Lot", "is_passing"]

logger = logging.getLogger(__name__)

ErrorHandler: TypeAlias = "Callable[[Event[Any], BaseException, str], Any]"
"""Called with the event, what its handler raised, and the handler's name."""
DeadLetterHandler: TypeAlias = "Callable[[DeadLetter], Any]"
"""Called with what has failed for good."""

_LOGGED_IN_FULL = 10

_order = count()


def is_passing(exc: BaseException) -> bool:
    """Say whether an exception is not the handler's own: a real cancellation, an interrupt, the end of the
    loop."""
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(exc, KeyboardInterrupt | GeneratorExit)


class Delivery:
    """One event with a handler, or between two tries."""

    __slots__ = ("event", "failed", "lane", "leads_out", "order", "pending", "route", "taken", "waits")

    def __init__(self, event: Event[Any], route: Route, lane: Lane) -> None:
        self.event = event
        self.route = route
        self.lane = lane
        self.order = next(_order)
        """Grows from one that is under way to the next."""
        self.pending = 1
        """Handlers that have not finished, and one for the delivery itself while it is under way."""
        self.waits = 0
        """Pools in whose backlog it stands; while it does, its lane counts it, not `Deliveries.active`."""
        self.leads_out = False
        """Whether it waits there to leave for another domain."""
        self.failed = False
        """Whether a handler has failed for good."""
        self.taken = False
        """Whether a handler has handled it; one that neither took nor failed is too late for all of them."""

    def goes_on(self) -> None:
        """Note that it has left the backlog where it waited, among lots that got their order later."""
        self.order = next(_order)


class Lot:
    """Events of one type and priority that a handler takes together: they wait for it, or it has taken them
    and tells of them together."""

    __slots__ = ("events", "lane", "order", "route")

    def __init__(self, events: list[Event[Any]], route: Route, lane: Lane) -> None:
        self.events = events
        self.route = route
        self.lane = lane
        self.order = next(_order)
        """The same as that of a delivery."""


class Deliveries:
    """Runs handlers with their options and settles each event once, when its last handler has finished.

    Attributes:
        active: the deliveries that are not settled.
        lots: the same of events that a handler has taken together.
        letters: the last events that failed, for whoever asks; older ones are forgotten and counted.
    """

    def __init__(
        self, queue: AsyncEventPriorityQueue, *, stop_on_error: bool, settled: Callable[[], None]
    ) -> None:
        self.active: set[Delivery] = set()
        self.lots: set[Lot] = set()
        self.letters: deque[DeadLetter] = deque(maxlen=1000)
        self.letters_forgotten = 0
        self.error_handler: ErrorHandler | None = None
        self.dead_letter_handler: DeadLetterHandler | None = None
        self.is_over = False
        """Whether the nexus has stopped, and a handler that comes back now is the last of its task."""
        self._queue = queue
        self._secondary = SecondaryQueue(queue)
        self.stop_on_error = stop_on_error
        self._settled = settled
        self._failures: Counter[str] = Counter()
        self._parked: dict[Again, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Events that are not settled."""
        return len(self.active) + sum(len(lot.events) for lot in self.lots)

    @property
    def is_idle(self) -> bool:
        """Whether all are settled."""
        return not self.active and not self.lots

    def events(self) -> Iterator[Event[Any]]:
        """Iterate over the events that are not settled; nothing must happen meanwhile."""
        yield from (delivery.event for delivery in self.active)
        for lot in self.lots:
            yield from lot.events

    async def deliver(self, delivery: Delivery, bindings: tuple[Binding, ...]) -> None:
        """Take an event through its handlers; returns when those that run inline have finished."""
        self.active.add(delivery)
        for binding in bindings:
            delivery.pending += 1
            if binding.pool is not None:
                binding.pool.submit(delivery)
            else:
                try:
                    await self.run(delivery, binding, 1)
                except BaseException as exc:
                    if not is_passing(exc):  # it has failed, and the nexus stops for it
                        self.finish(delivery)
                    raise
        self.finish(delivery)

    async def run(self, delivery: Delivery, binding: Binding, attempt: int) -> None:
        """Try a handler until it succeeds or has failed for good."""
        while True:
            try:
                await self._attempt(delivery.event, binding)
            except BaseException as exc:
                if is_passing(exc):
                    raise  # it stays active, and `give_back_all` puts it back
                if attempt > binding.options.retries:
                    await self.fail(delivery, binding.name, exc, attempt)
                    return
                delay = binding.options.retry_delay * 2 ** (attempt - 1)
                attempt += 1
                if delay > 0:
                    self._park(delivery, binding, attempt, delay)
                    return
            else:
                delivery.taken = True
                self.finish(delivery)
                return

    async def _attempt(self, event: Event[Any], binding: Binding) -> None:
        """Call a handler once."""
        timeout = binding.options.timeout
        result = binding.call(event, self._secondary)
        if result is None or not isawaitable(result):
            return
        if timeout is None:
            await result
            return
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                await result
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise HandlerTimeout(
                f"handler {binding.name} took longer than its timeout of {timeout} s "
                f"on event {event.id} of type {event.type!r}"
            ) from exc

    async def fail(self, delivery: Delivery, handler: str, exc: BaseException, attempts: int) -> None:
        """Count the event as failed, and tell whoever wants to know."""
        delivery.failed = True
        self.finish(delivery)
        event = delivery.event
        self._log(handler, event, exc, attempts)
        letter = DeadLetter(event, exc, attempts, handler)
        self.letters_forgotten += len(self.letters) == self.letters.maxlen
        self.letters.append(letter)
        if self.error_handler is not None:
            await self._tell(self.error_handler, event, exc, handler)
        if self.dead_letter_handler is not None:
            await self._tell(self.dead_letter_handler, letter)
        if self.stop_on_error:
            if isinstance(exc, asyncio.CancelledError):  # raised as it is, it would pass for a cancelled task
                raise HandlerError(f"handler {handler} raised CancelledError") from exc
            raise exc

    def _log(self, handler: str, event: Event[Any], exc: BaseException, attempts: int) -> None:
        """Log a failure: the first few of a handler in full, then one for each doubling."""
        self._failures[handler] += 1
        count = self._failures[handler]
        if count <= _LOGGED_IN_FULL or count & (count - 1) == 0:
            logger.error(
                "handler %s failed on event %s of type %r, priority %s, try %s (its failure number %s): %s",
                handler,
                event.id,
                event.type,
                event.priority,
                attempts,
                count,
                repr(exc)[:200],
                exc_info=exc if count <= _LOGGED_IN_FULL else None,
            )

    async def _tell(self, listener: Callable[..., Awaitable[None] | None], *words: Any) -> None:
        """Call a listener; what it raises is logged and goes no further."""
        try:
            result = listener(*words)
            if result is not None and isawaitable(result):
                await result
        except BaseException as exc:
            if is_passing(exc):
                raise
            logger.exception("the listener for failed events raised an error itself")

    def finish(self, delivery: Delivery) -> None:
        """Note that one handler has finished, or came too late; the last one settles the event."""
        delivery.pending -= 1
        if delivery.pending == 0 and delivery in self.active:
            self.active.discard(delivery)
            if delivery.failed:
                delivery.route.failed += 1
            elif delivery.taken:
                delivery.route.handled += 1
            else:
                delivery.route.expired += 1
            if delivery.event._meta is not None:
                settle(
                    delivery.event,
                    "failed" if delivery.failed else "handled" if delivery.taken else "expired",
                )
            self._settled()

    def finish_lot(self, lot: Lot) -> None:
        """Note that all events of a lot are handled."""
        self.lots.remove(lot)
        self.handled(lot.events, lot.route)

    def handled(self, events: list[Event[Any]], route: Route) -> None:
        """Settle events of one type that one handler has handled at once."""
        route.handled += len(events)
        for event in events:
            if event._meta is not None:
                settle(event, "handled")
        self._settled()

    def open_lot(self, lot: Lot) -> list[Delivery]:
        """Make a delivery of each event of a lot, for they may meet different ends."""
        self.lots.remove(lot)
        found = [Delivery(event, lot.route, lot.lane) for event in lot.events]
        self.active.update(found)
        return found

    # Retries with a delay.

    def _park(self, delivery: Delivery, binding: Binding, attempt: int, delay: float) -> None:
        """Try again later; other events go on meanwhile."""
        again = Again(delivery, binding, attempt)
        loop = asyncio.get_running_loop()
        self._parked[again] = loop.call_later(delay, self._unpark, again)

    def _unpark(self, again: Again) -> None:
        """Put a second try in front of its lane, or of what waits for its own tasks."""
        del self._parked[again]
        if again.binding.pool is not None:
            again.binding.pool.submit(again)
        else:
            self._queue.put_back(again.delivery.lane, again)

    def give_back_all(self) -> None:
        """Put every event that is not settled back in its lane; their handlers have been cancelled."""
        for handle in self._parked.values():
            handle.cancel()
        self._parked.clear()
        found: list[Delivery | Lot] = [*self.active, *self.lots]
        for each in sorted(found, key=lambda each: each.order, reverse=True):
            for event in reversed(each.events) if isinstance(each, Lot) else (each.event,):
                self._queue.put_back(each.lane, event)
        self.active.clear()
        self.lots.clear()
