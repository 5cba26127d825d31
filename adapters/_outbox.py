"""What is to be sent and has not gone yet: the most urgent first, bounded, and every loss counted."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from typing import Any, Literal, TypeAlias

from nexus.errors import QueueFull

__all__ = ["OutItem", "Outbox", "SendOverflow"]

SendOverflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "fail"]
"""What happens when there is no room: `send` waits, an item is dropped and counted, or `send` raises."""


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


class Outbox:
    """The frames between whoever sends and a transport.

    The transport takes some, and says `done` when it has them for sure; what it took and could not send goes
    back to the front with `put_back`. Frames of one priority keep their order; lower priorities go first.

    Args:
        maxsize: frames it holds, those the transport has taken included.
        max_bytes: bytes it holds; one larger frame is let in when it is alone.
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
        self.closed: Exception | None = None
        """What `put` raises; None while it is open."""
        self.done_count = 0
        """Frames the transport has."""
        self._lanes: dict[int, deque[OutItem]] = {}
        self._order: list[int] = []
        self._held = 0
        self._taken = 0
        self._bytes = 0
        self._putters: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait
        self._taker: asyncio.Future[None] | None = None
        self._empty: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return self._held + self._taken

    @property
    def waiting(self) -> int:
        """Frames the transport has not taken."""
        return self._held

    async def put(self, item: OutItem) -> None:
        """Put a frame; wait while there is no room, unless `overflow` says otherwise.

        Cancelled, the frame was not put. Those who wait get room in the order they came.

        Raises:
            QueueFull: there is no room and `overflow` is ``fail``.
            Exception: `closed`, if it is.
        """
        if not self._putters and self.offer(item):
            return
        enqueue = self._putters.append
        while True:
            future = asyncio.get_running_loop().create_future()
            enqueue(future)
            enqueue = self._putters.appendleft  # woken and too late: still the first
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake_putter()
                raise
            finally:
                if future in self._putters:
                    self._putters.remove(future)
            if self.offer(item):
                if not self._is_full:
                    self._wake_putter()
                return

    def offer(self, item: OutItem) -> bool:
        """Put a frame without waiting; False only when there is no room and `overflow` is ``block``.

        Raises:
            QueueFull: there is no room and `overflow` is ``fail``.
        """
        if self.closed is not None:
            raise self.closed
        while len(self) >= self.maxsize or (len(self) and self._bytes + len(item.payload) > self.max_bytes):
            if self.overflow == "block":
                return False
            if self.overflow == "fail":
                raise QueueFull(f"{len(self)} frames wait to be sent, {self.maxsize} are allowed")
            if self.overflow == "drop_newest" or not self._held:
                self._drop("drop_newest", item)
                return True
            oldest = self._pop_lane(self._order[-1])
            self._drop("drop_oldest", oldest)
        self._add(item)
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
        return True

    async def wait(self) -> None:
        """Wait until there is something to take. One task at a time."""
        while not self._held:
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None

    def take(self, limit: int = 1, max_bytes: int = 2**62) -> list[OutItem]:
        """Take up to `limit` frames, the most urgent first; at least one if there is one."""
        items: list[OutItem] = []
        size = 0
        while self._held and len(items) < limit and size < max_bytes:
            item = self._pop_lane(self._order[0], keep_bytes=True)
            self._taken += 1
            size += len(item.payload)
            items.append(item)
        return items

    def done(self, item: OutItem) -> None:
        """Note that the transport has a frame that was taken."""
        self.done_count += 1
        self._forget(item)
        item.settle(True)

    def reject(self, item: OutItem, reason: str) -> None:
        """Note that a frame that was taken will never go."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._forget(item)
        item.settle(False)

    def put_back(self, items: list[OutItem]) -> None:
        """Put frames that were taken, in the order they were taken, back to the front."""
        for item in reversed(items):
            self._taken -= 1
            self._bytes -= len(item.payload)
            self._add(item, front=True)
        if items and self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    async def emptied(self) -> None:
        """Wait until the transport has everything, or the outbox is closed."""
        while len(self) and self.closed is None:
            future = asyncio.get_running_loop().create_future()
            self._empty.append(future)
            try:
                await future
            finally:
                self._empty.remove(future)

    def close(self, error: Exception, reason: str) -> int:
        """Drop what the transport has not taken, and let `put` raise; return how many were dropped.

        What the transport took is its own to put back before, or to settle.
        """
        self.closed = error
        count = 0
        while self._held:
            self._drop(reason, self._pop_lane(self._order[0]))
            count += 1
        for futures in (self._putters, self._empty):
            for future in futures:
                if not future.done():
                    future.set_result(None)
        return count

    @property
    def _is_full(self) -> bool:
        return len(self) >= self.maxsize or self._bytes >= self.max_bytes

    def _add(self, item: OutItem, *, front: bool = False) -> None:
        lane = self._lanes.get(item.priority)
        if lane is None:
            lane = self._lanes[item.priority] = deque()  # bounded by maxsize and max_bytes
            insort(self._order, item.priority)
        (lane.appendleft if front else lane.append)(item)
        self._held += 1
        self._bytes += len(item.payload)

    def _pop_lane(self, priority: int, *, keep_bytes: bool = False) -> OutItem:
        lane = self._lanes[priority]
        item = lane.popleft()
        if not lane:
            del self._lanes[priority]
            self._order.remove(priority)
        self._held -= 1
        if not keep_bytes:
            self._bytes -= len(item.payload)
        return item

    def _forget(self, item: OutItem) -> None:
        self._taken -= 1
        self._bytes -= len(item.payload)
        if self._putters and not self._is_full:
            self._wake_putter()
        self._check_empty()

    def _check_empty(self) -> None:
        if not len(self):
            for future in self._empty:
                if not future.done():
                    future.set_result(None)

    def _drop(self, reason: str, item: OutItem) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        item.settle(False)

    def _wake_putter(self) -> None:
        while self._putters:
            future = self._putters.popleft()
            if not future.done():
                future.set_result(None)
                return
