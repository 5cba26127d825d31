"""Pools: tasks that run one handler beside the nexus's own task, a few events at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from itertools import count
from typing import Any

from ._delivery import Deliveries, Delivery
from ._lanes import Lane, Slot
from ._queue import AsyncEventPriorityQueue
from ._route import Binding
from ._slots import open_slot
from ._turn import TURN_SECONDS, turn

__all__ = ["Pool"]


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
        self._order = count()
        self._backlog: list[tuple[int, int, Delivery | Slot]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._retired = False

    @property
    def is_busy(self) -> bool:
        """Whether the next event would have to wait."""
        return bool(self._backlog) or (not self._idle and len(self._tasks) >= self._size)

    def submit(self, item: Delivery | Slot) -> None:
        """Take an event: a delivery, or a slot whose event a policy may still drop while it waits."""
        heappush(self._backlog, (item.lane.priority, next(self._order), item))
        if isinstance(item, Slot) or item.waits == 0:
            item.lane.backlog += 1
            item.lane.limit = 0
        if isinstance(item, Delivery):
            item.waits += 1
            self._deliveries.active.discard(item)
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
        items = [item for _, _, item in sorted(self._backlog, key=lambda place: place[:2])]
        self._backlog.clear()
        found: list[tuple[Lane, Any]] = []
        for item in items:
            if isinstance(item, Delivery):
                item.waits -= 1
                if item.waits > 0:
                    continue  # another pool has it too
            event = open_slot(item) if isinstance(item, Slot) else item.event
            if event is not None:
                item.lane.backlog -= 1
                found.append((item.lane, event))
        return found

    @property
    def items(self) -> set[Delivery | Slot]:
        """What waits here and is counted by its lane."""
        return {item for _, _, item in self._backlog if item.event is not None}

    async def _work(self) -> None:
        """Handle what waits, for as long as the nexus runs."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        handled = 0
        while True:
            if not self._backlog:
                if self._retired:
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
            _, _, item = heappop(self._backlog)
            delivery = self._take(item)
            if delivery is not None:
                await self._deliveries.run(delivery, self._binding, 1)
            handled += 1
            if handled >= 64 or loop.time() - began > TURN_SECONDS:
                await turn()
                began, handled = loop.time(), 0

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
            lane.backlog -= 1
            self._deliveries.active.add(delivery)
            self._queue.room.release(lane)
        deadline = delivery.event.deadline
        if deadline is not None and asyncio.get_running_loop().time() > deadline:
            self._deliveries.expire(delivery)
            return None
        return delivery
