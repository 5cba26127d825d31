"""What a link keeps in an outbox of what is to go: one stream for each other side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.outbox import Outbox

__all__ = ["Stream"]


class Stream:
    """The lanes of one other side in an outbox, as an `Outflow` needs them.

    Args:
        name: of the stream in the outbox.
        committed: told when more may be sent.
    """

    def __init__(self, outbox: Outbox, name: str, committed: Callable[[], None]) -> None:
        self.outbox = outbox
        self.name = name
        self._committed = committed
        self._outflow: Outflow | None = None
        self._put: dict[int, int] = {}
        """The last numbers that were put and for whose commit nobody has asked yet, by priority."""
        self._is_closed = False

    def begin(self, outflow: Outflow) -> None:
        """Give an outflow the lanes as they were left."""
        self._outflow = outflow
        for priority, lane in self.outbox.lanes(self.name).items():
            outflow.restore(priority, lane.first, lane.last)

    def close(self) -> None:
        """Have nothing to do with the file any more: its rows are given to another."""
        self._is_closed = True
        self._outflow = None

    def put(self, priority: int, number: int, row: bytes) -> None:
        """Keep a row, the next of its lane."""
        self.outbox.put(self.name, priority, number, row)
        if not self._put:
            asyncio.get_running_loop().call_soon(self._ask)
        self._put[priority] = number

    def _ask(self) -> None:
        """Have it told when what was put in this turn of the loop is durable."""
        put, self._put = self._put, {}
        if self.outbox.is_open:
            self.outbox.then(partial(self._durable, put))

    def _durable(self, put: dict[int, int]) -> None:
        if self._outflow is not None:
            for priority, number in put.items():
                self._outflow.stored(priority, number)
            self._committed()

    def accepted(self, priority: int, number: int) -> None:
        """Let go of all rows of a lane up to a number."""
        if self.outbox.is_open and not self._is_closed:
            self.outbox.accepted(self.name, priority, number)

    def has_room(self, size: int) -> bool:
        """Say whether a row of so many bytes can be kept."""
        return not self._is_closed and self.outbox.is_open and self.outbox.has_room(size)

    async def read(self, priority: int, first: int) -> list[bytes]:
        """Return rows from a number on; waits for those that are not durable yet."""
        rows = await self.outbox.read(self.name, priority, first)
        if not rows:
            await self.outbox.durable()
            rows = await self.outbox.read(self.name, priority, first)
        return rows
