"""What a link keeps in an outbox of what is to go: one stream for each other side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.outbox import Outbox

__all__ = ["Done", "Stream"]

Done = Callable[[BaseException | None], None]

MOST_READ = 4096
"""Rows that are read at once: as a commit holds up the next reading, they are to last until it is over."""


class Stream:
    """The lanes of one other side in an outbox, as an `Outflow` needs them.

    Args:
        name: of the stream in the outbox.
        put: told that a row was put.
        committed: told when more may be sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        name: str,
        put: Callable[[Stream], None],
        committed: Callable[[], None],
    ) -> None:
        self.outbox = outbox
        self._was_put = put
        self.name = name
        self.latest = (0, 0)
        """Priority and number of the row that was put last."""
        self._committed = committed
        self._outflow: Outflow | None = None
        self._dones: dict[int, deque[tuple[int, Done]]] = {}
        """Who is to be told when a row is durable, by priority, in the order of their numbers."""

    def begin(self, outflow: Outflow) -> None:
        """Give an outflow the lanes as they were left."""
        self._outflow = outflow
        self.outbox.watch(self.name, self._durable)
        for priority, lane in self.outbox.lanes(self.name).items():
            outflow.restore(priority, lane.first, lane.last)

    def close(self) -> None:
        """Take no more rows: they are given to another. Who waits for one to be durable is still told."""
        self._outflow = None

    def put(self, priority: int, number: int, row: bytes) -> None:
        """Keep a row, the next of its lane."""
        self.outbox.put(self.name, priority, number, row)
        self.latest = (priority, number)
        self._was_put(self)

    def put_many(self, priority: int, number: int, rows: list[bytes]) -> int:
        """Keep the first of some rows, the next of their lane, as far as there is room; return how many."""
        if self._outflow is None or not self.outbox.is_open:
            return 0
        count = self.outbox.put_many(self.name, priority, number, rows)
        if count:
            self.latest = (priority, number + count - 1)
            self._was_put(self)
        return count

    def tell(self, done: Done) -> None:
        """Call once the row that was put last is durable."""
        priority, number = self.latest
        waiting = self._dones.get(priority)
        if waiting is None:
            waiting = self._dones[priority] = deque()  # bounded by what the outbox lets wait
        waiting.append((number, done))

    def _durable(self, priority: int, number: int) -> None:
        if self._outflow is not None:
            self._outflow.stored(priority, number)
            self._committed()
        waiting = self._dones.get(priority)
        while waiting and waiting[0][0] <= number:
            waiting.popleft()[1](None)

    def accepted(self, priority: int, number: int) -> None:
        """Let go of all rows of a lane up to a number."""
        if self._outflow is not None and self.outbox.is_open:
            self.outbox.accepted(self.name, priority, number)

    def has_room(self, size: int) -> bool:
        """Say whether a row of so many bytes can be kept."""
        return self._outflow is not None and self.outbox.is_open and self.outbox.has_room(size)

    async def read(self, priority: int, first: int) -> list[bytes]:
        """Return rows from a number on; waits for those that are not durable yet."""
        rows = await self.outbox.read(self.name, priority, first, most_rows=MOST_READ)
        if not rows:
            await self.outbox.durable()
            rows = await self.outbox.read(self.name, priority, first, most_rows=MOST_READ)
        return rows
