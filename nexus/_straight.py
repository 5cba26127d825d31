"""The straight way: a lone event that goes past an empty queue to a handler that takes it without waiting."""

from __future__ import annotations

from asyncio import events as asyncio_events
from typing import Any

from ._delivery import Deliveries
from ._dispatch import EventDispatcher
from ._drain import Drain
from ._event import Event
from ._queue import AsyncEventPriorityQueue
from ._tasks import Tasks

__all__ = ["Straight"]


class Straight:
    """Spares an event the turn of the loop in which the queue's only event would be taken out again.

    It takes one event a turn, so that whoever gives many of them never keeps the loop to himself, and only
    where nothing can tell the difference: nothing waits, the drain rests, the handler's pool is idle.
    """

    def __init__(
        self,
        queue: AsyncEventPriorityQueue,
        dispatcher: EventDispatcher,
        drain: Drain,
        deliveries: Deliveries,
        tasks: Tasks,
    ) -> None:
        self._queue = queue
        self._lanes = queue.lanes
        self._direct = dispatcher.direct
        self._drain = drain
        self._deliveries = deliveries
        self._tasks = tasks
        self._is_used = False

    def take(self, event: Event[Any]) -> bool:
        """Have an event handled here and now, if it may go straight; say whether it was taken."""
        queue, drain = self._queue, self._drain
        if not drain.rests or self._is_used or queue.closed is not None or self._lanes.any_occupied:
            return False
        try:
            route = self._direct.get(event.type)
            lane = self._lanes.get(event.priority)
        except (AttributeError, TypeError):
            return False
        if route is None or lane is None or event._meta is not None or not isinstance(event, Event):
            return False
        pool = route.bindings[0].pool if len(route.bindings) == 1 else None
        if pool is None or (now := pool.idle_call(event.priority)) is None:
            return False
        loop = asyncio_events._get_running_loop()
        if loop is None or loop is not self._tasks.loop or self._tasks.is_handling():
            return False
        if not queue.lets_pass(event, lane):
            return False
        self._is_used = True
        began = drain.now()
        try:
            if not now(event):
                return False
        except Exception as exc:
            pool.fail_now(event, lane, exc)
        else:
            route.handled += 1
        finally:
            loop.call_soon(self._end_turn)  # after: the event is on its way the sooner
        lane.taken += 1
        lane.waiting.record(0.0)
        lane.handling.record(drain.now() - began)
        return True

    def begin(self, event: Event[Any]) -> bool:
        """Have an event that came from outside begun with here and now by its inline handler, if it may go
        straight; say whether that was done. What takes long is left to the drain, as ever.

        For callbacks of the loop, once in each.
        """
        queue = self._queue
        if not self._drain.rests or queue.closed is not None or self._lanes.any_occupied:
            return False
        route, lane = self._direct.get(event.type), self._lanes.get(event.priority)
        if route is None or route.coroutine is None or len(route.bindings) > 1 or lane is None:
            return False
        if (meta := event._meta) is not None and meta.needs_care:
            return False
        return queue.lets_pass(event, lane) and self._drain.begin(event, lane, route)

    def _end_turn(self) -> None:
        self._is_used = False
