"""What is to be sent and has not gone yet: the most urgent first, bounded, and every loss counted."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from typing import Any, Literal, TypeAlias

from nexus.errors import BadCall, LinkDown, QueueFull

__all__ = ["OutItem", "Backlog", "SendOverflow"]

SendOverflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "fail"]
"""What happens when there is no room: `send` waits, an item is dropped and counted, or `send` raises."""

PORTION = 0.01
"""Seconds between the portions in which a backlog goes."""

MAX_LANES = 64
"""Priorities that may be waiting at once."""


class OutItem:
    """A frame on its way out, with the transport's own options."""

    __slots__ = ("confirmed", "options", "payload", "priority")

    def __init__(self, payload: bytes, priority: int, options: dict[str, Any]) -> None:
        self.payload = payload
        self.priority = priority
        self.options = options
        self.confirmed: asyncio.Future[bool] | None = None
        """For whoever waits: True when the transport has it, False when it was dropped."""

    def settle(self, delivered: bool) -> None:
        """Tell whoever waits what became of it."""
        if self.confirmed is not None and not self.confirmed.done():
            self.confirmed.set_result(delivered)


class _Lane:
    """The frames of one priority: those that wait, and the account of these and of those that were taken."""

    __slots__ = ("held", "items", "putters", "size")

    def __init__(self) -> None:
        self.items: deque[OutItem] = deque()  # bounded by maxsize and max_bytes
        self.held = 0
        self.size = 0
        self.putters: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait

    def wake(self) -> None:
        """Let the first who waits for room try again."""
        while self.putters:
            future = self.putters.popleft()
            if not future.done():
                future.set_result(None)
                return


class Backlog:
    """The frames between whoever sends and a transport.

    The transport takes some, and says `done` when it has them for sure; what it took and could not send goes
    back to the front with `put_back`. Frames of one priority keep their order; lower priorities go first.
    Each priority has a bound of its own, so that a flood of one never stands in the way of another.

    Args:
        maxsize: frames of one priority it holds, those the transport has taken included.
        max_bytes: bytes of one priority it holds; one larger frame is let in when it is alone.
        overflow: what happens when there is no room.
    """

    def __init__(
        self, maxsize: int = 1000, max_bytes: int = 64 * 2**20, overflow: SendOverflow = "block"
    ) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self.overflow = overflow
        self.dropped: dict[str, int] = {}
        """Frames dropped, by reason."""
        self.closed: LinkDown | None = None
        """What `put` raises; None while it is open."""
        self.done_count = 0
        """Frames the transport has."""
        self._lanes: dict[int, _Lane] = {}
        self._order: list[int] = []
        """The priorities of which frames wait."""
        self._waiting = 0
        self._held = 0
        self._backlog = 0
        """Frames that waited when the link came up, and still go at `_rate`."""
        self._rate = 0.0
        self._credit = 0.0
        self._credited = 0.0
        self._taker: asyncio.Future[None] | None = None
        self._empty: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return self._held

    @property
    def dropped_count(self) -> int:
        """Frames dropped, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def waiting(self) -> int:
        """Frames the transport has not taken."""
        return self._waiting

    async def put(self, item: OutItem) -> None:
        """Put a frame; wait while there is no room, unless `overflow` says otherwise.

        Cancelled, the frame was not put. Those who wait get room in the order they came.

        Raises:
            QueueFull: there is no room and `overflow` is ``fail``.
            BadCall: frames of too many different priorities wait.
            LinkDown: it is closed.
        """
        if self.put_nowait(item):
            return
        lane = self._lane(item.priority)
        enqueue = lane.putters.append
        while True:
            future = asyncio.get_running_loop().create_future()
            enqueue(future)
            enqueue = lane.putters.appendleft  # woken and too late: still the first
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    lane.wake()
                raise
            finally:
                if future in lane.putters:
                    lane.putters.remove(future)
            if self.offer(item):
                if not self._is_full(lane):
                    lane.wake()
                return

    def put_nowait(self, item: OutItem) -> bool:
        """Put a frame if nobody waits for room before it, and there is some; say whether it is settled.

        Raises what `put` raises.
        """
        lane = self._lanes.get(item.priority)
        if lane is None:
            return self.offer(item)
        if lane.putters:
            return False
        size = lane.size + len(item.payload)
        if lane.held < self.maxsize and size <= self.max_bytes and lane.items and self.closed is None:
            # The short way, written out: there is room, and nobody to wake.
            lane.held += 1
            lane.size = size
            self._held += 1
            self._waiting += 1
            lane.items.append(item)
            return True
        return self.offer(item)

    def offer(self, item: OutItem) -> bool:
        """Put a frame without waiting; False only when there is no room and `overflow` is ``block``.

        Raises what `put` raises.
        """
        if self.closed is not None:
            raise LinkDown(*self.closed.args) from self.closed.__cause__
        lane = self._lanes.get(item.priority) or self._lane(item.priority)
        size = len(item.payload)
        while lane.held >= self.maxsize or (lane.held and lane.size + size > self.max_bytes):
            if self.overflow == "block":
                return False
            if self.overflow == "fail":
                raise QueueFull(f"{lane.held} frames wait to be sent, {self.maxsize} are allowed")
            if self.overflow == "drop_newest" or not lane.items:
                self._drop("drop_newest", item)
                return True
            self._forget(lane, oldest := self._pop(item.priority, lane))
            self._drop("drop_oldest", oldest)
        lane.held += 1
        lane.size += size
        self._held += 1
        self._add(lane, item)
        return True

    def catch_up(self, rate: float) -> None:
        """Let what waits now go no faster than this, for a peer that is just back.

        Args:
            rate: frames a second.
        """
        self._backlog, self._rate = self._waiting, rate
        self._credit, self._credited = 0.0, asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait until there is something to take. One task at a time."""
        while not self._waiting:
            self._backlog = 0
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        if self._backlog > 0:
            now = asyncio.get_running_loop().time()
            self._credit += self._rate * (now - self._credited)
            self._credited = now
            portion = max(1.0, min(self._backlog, self._rate * PORTION))
            if self._credit < portion:
                await asyncio.sleep((portion - self._credit) / self._rate)
                self._credit, self._credited = portion, asyncio.get_running_loop().time()

    def take(self, limit: int = 1, max_bytes: int = 2**62) -> list[OutItem]:
        """Take up to `limit` frames, the most urgent first; at least one if there is one, after `wait`."""
        items: list[OutItem] = []
        size = 0
        if self._backlog > 0:
            limit = min(limit, int(self._credit))
        while self._waiting and len(items) < limit and size < max_bytes:
            priority = self._order[0]
            waiting = self._lanes[priority].items
            before = len(items)
            while waiting and len(items) < limit and size < max_bytes:
                item = waiting.popleft()
                size += len(item.payload)
                items.append(item)
            self._waiting -= len(items) - before
            if not waiting:
                self._order.remove(priority)
        if self._backlog > 0:
            self._backlog -= len(items)
            self._credit -= len(items)
        return items

    def done(self, item: OutItem) -> None:
        """Note that the transport has a frame that was taken."""
        self.done_count += 1
        self._forget(self._lanes[item.priority], item)
        if item.confirmed is not None:
            item.settle(True)

    def done_all(self, items: list[OutItem]) -> None:
        """Note that the transport has these frames that were taken."""
        self.done_count += len(items)
        for item in items:
            lane = self._lanes[item.priority]
            lane.held -= 1
            lane.size -= len(item.payload)
            if item.confirmed is not None:
                item.settle(True)
        self._held -= len(items)
        for lane in self._lanes.values():
            for _ in range(min(len(lane.putters), self.maxsize - lane.held)):
                lane.wake()
        self._check_empty()

    def reject(self, item: OutItem, reason: str) -> None:
        """Note that a frame that was taken will never go."""
        self._forget(self._lanes[item.priority], item)
        self._drop(reason, item)

    def put_back(self, items: list[OutItem]) -> None:
        """Put frames that were taken, in the order they were taken, back to the front."""
        for item in reversed(items):
            self._add(self._lanes[item.priority], item, front=True)

    async def emptied(self) -> None:
        """Wait until the transport has everything, or the backlog is closed."""
        while self._held and self.closed is None:
            future = asyncio.get_running_loop().create_future()
            self._empty.append(future)
            try:
                await future
            finally:
                self._empty.remove(future)

    def close(self, error: LinkDown, reason: str) -> int:
        """Drop what the transport has not taken, and let `put` raise; return how many were dropped.

        What the transport took is its own to put back before, or to settle.
        """
        self.closed = error
        count = self._waiting
        while self._order:
            priority = self._order[0]
            lane = self._lanes[priority]
            self._drop(reason, item := self._pop(priority, lane))
            self._forget(lane, item)
        for future in (*(each for lane in self._lanes.values() for each in lane.putters), *self._empty):
            if not future.done():
                future.set_result(None)
        return count

    def _lane(self, priority: int) -> _Lane:
        lane = self._lanes.get(priority)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                for key in [key for key, old in self._lanes.items() if not old.held and not old.putters]:
                    del self._lanes[key]
            if len(self._lanes) >= MAX_LANES:
                raise BadCall(f"frames of {MAX_LANES} priorities wait to be sent; no more are allowed")
            lane = self._lanes[priority] = _Lane()
        return lane

    def _is_full(self, lane: _Lane) -> bool:
        return lane.held >= self.maxsize or lane.size >= self.max_bytes

    def _add(self, lane: _Lane, item: OutItem, *, front: bool = False) -> None:
        if not lane.items:
            insort(self._order, item.priority)
        (lane.items.appendleft if front else lane.items.append)(item)
        self._waiting += 1
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def _pop(self, priority: int, lane: _Lane) -> OutItem:
        item = lane.items.popleft()
        self._waiting -= 1
        if not lane.items:
            self._order.remove(priority)
        return item

    def _forget(self, lane: _Lane, item: OutItem) -> None:
        lane.held -= 1
        lane.size -= len(item.payload)
        self._held -= 1
        if lane.putters and not self._is_full(lane):
            lane.wake()
        self._check_empty()

    def _check_empty(self) -> None:
        if not self._held and self._empty:
            for future in self._empty:
                if not future.done():
                    future.set_result(None)

    def _drop(self, reason: str, item: OutItem) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        item.settle(False)
