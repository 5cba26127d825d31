"""What has come in and was not yet received: bounded, and every loss counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from nexus.errors import NexusError

__all__ = ["Inbox", "Item", "Overflow"]

Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest"]
"""What happens when there is no room: whoever puts waits, or an item is dropped and counted."""

Item: TypeAlias = "tuple[bytes, dict[str, Any]]"
"""A frame, and what the transport said of it."""


class Inbox:
    """The frames between a transport and whoever receives them, in the order they came.

    Args:
        maxsize: frames it holds.
        max_bytes: bytes it holds; one larger frame is let in when it is alone.
        overflow: what happens when there is no room.
    """

    def __init__(
        self, maxsize: int = 1000, max_bytes: int = 64 * 2**20, overflow: Overflow = "block"
    ) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self.overflow = overflow
        self.dropped: dict[str, int] = {}
        """Frames dropped, by reason."""
        self.ended: NexusError | None = None
        """What `take` raises when all is taken; None while more may come."""
        self.on_drop: Callable[[dict[str, Any]], None] | None = None
        """Called with the meta of a frame that is dropped."""
        self.items: deque[Item] = deque()  # bounded by maxsize and max_bytes
        """What it holds, to look at; `offer` and `take_nowait` change it."""
        self._bytes = 0
        self._takers: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait
        self._putters: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_full(self) -> bool:
        """Whether the next frame may find no room."""
        return len(self.items) >= self.maxsize or self._bytes >= self.max_bytes

    def offer(self, payload: bytes, meta: dict[str, Any]) -> bool:
        """Put a frame without waiting; say whether it, or an older one in its place, is settled.

        False only when there is no room and `overflow` is ``block``.
        """
        if len(self.items) >= self.maxsize or (self.items and self._bytes + len(payload) > self.max_bytes):
            if self.overflow == "block":
                return False
            if self.overflow == "drop_newest":
                self.drop("drop_newest", meta)
                return True
            while self.items and (
                len(self.items) >= self.maxsize or self._bytes + len(payload) > self.max_bytes
            ):
                old, old_meta = self.items.popleft()
                self._bytes -= len(old)
                self.drop("drop_oldest", old_meta)
        self.items.append((payload, meta))
        self._bytes += len(payload)
        if self._takers:
            self._wake(self._takers)
        return True

    async def put(self, payload: bytes, meta: dict[str, Any]) -> None:
        """Put a frame; wait while there is no room, unless `overflow` says otherwise.

        Cancelled, the frame was not put.
        """
        while not self.offer(payload, meta):
            if self.ended is not None:
                self.drop("stopped", meta)
                return
            await self._wait(self._putters)

    async def put_many(self, items: Sequence[Item]) -> None:
        """Put frames in their order; wait while there is no room. Cancelled, the first of them may be in."""
        size = self._bytes + sum([len(payload) for payload, _ in items])
        if len(self.items) + len(items) <= self.maxsize and size <= self.max_bytes:
            self.items.extend(items)
            self._bytes = size
            if self._takers and items:
                self._wake(self._takers)
            return
        for payload, meta in items:
            if not self.offer(payload, meta):
                await self.put(payload, meta)

    async def room(self) -> None:
        """Wait until something was taken, if it is full."""
        if self.is_full:
            await self._wait(self._putters)

    def drop(self, reason: str, meta: dict[str, Any] | None = None, count: int = 1) -> None:
        """Count frames that nobody will receive."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        if self.on_drop is not None and meta is not None:
            self.on_drop(meta)

    async def take(self) -> Item:
        """Wait for the next frame. Cancelled, none was taken.

        Raises:
            EndOfData: or whatever `end` was given, when all is taken.
        """
        while not self.items:
            self.check()
            await self.wait()
        return self.take_nowait()

    def check(self) -> None:
        """Raise the end, if it has come; a new error each time, or its traceback would grow."""
        if self.ended is not None:
            raise type(self.ended)(*self.ended.args) from self.ended.__cause__

    async def wait(self) -> None:
        """Wait until there may be something to take, or the end."""
        if not self.items and self.ended is None:
            await self._wait(self._takers)

    def take_nowait(self) -> Item:
        """Take the next frame; there must be one."""
        item = self.items.popleft()
        self._bytes -= len(item[0])
        if self._putters and len(self.items) <= self.maxsize // 2:
            self._wake_all(self._putters)
        return item

    def take_many(self, limit: int) -> list[Item]:
        """Take up to `limit` frames, without waiting."""
        popleft = self.items.popleft
        found = [popleft() for _ in range(min(limit, len(self.items)))]
        self._bytes -= sum([len(payload) for payload, _ in found])
        if self._putters and len(self.items) <= self.maxsize // 2:
            self._wake_all(self._putters)
        return found

    def peek(self) -> Item:
        """Return the next frame and leave it there; there must be one."""
        return self.items[0]

    def end(self, error: NexusError) -> None:
        """Let `take` raise this when all is taken; frames that still wait for room are dropped."""
        self.ended = error
        self._wake_all(self._takers)
        self._wake_all(self._putters)

    def reopen(self) -> None:
        """Let more come in; what is there stays."""
        self.ended = None

    async def _wait(self, waiters: deque[asyncio.Future[None]]) -> None:
        future = asyncio.get_running_loop().create_future()
        waiters.append(future)
        try:
            await future
        except asyncio.CancelledError:
            # A wake that a cancelled waiter has had belongs to the next.
            if future.done() and not future.cancelled():
                self._wake(waiters)
            raise
        finally:
            if future in waiters:
                waiters.remove(future)

    @staticmethod
    def _wake(waiters: deque[asyncio.Future[None]]) -> None:
        while waiters:
            future = waiters.popleft()
            if not future.done():
                future.set_result(None)
                return

    @staticmethod
    def _wake_all(waiters: deque[asyncio.Future[None]]) -> None:
        while waiters:
            future = waiters.popleft()
            if not future.done():
                future.set_result(None)
