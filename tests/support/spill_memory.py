"""A store of spilled events in memory, which can be slow, full, damaged, and killed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexus import Event, EventKey
from nexus.errors import BadCall


class SpillMemory:
    """Keeps what it is given as a disk would: it survives the nexus, and forgets who was to be told.

    Args:
        most: events it holds.
        delay: seconds a read takes.
    """

    def __init__(self, most: int = 1_000_000, *, delay: float = 0.0) -> None:
        self.most = most
        self.delay = delay
        self.rows: dict[tuple[EventKey, int], dict[int, Event[Any] | None]] = {}
        self.ends: dict[tuple[EventKey, int], int] = {}
        self.refuses: Callable[[Event[Any]], bool] = lambda event: False
        """Which events would not come back as they are."""
        self.failing = False
        """Whether nothing can be read now."""
        self.opens = 0
        self.is_open = False
        self.forgets = 0
        """How many of the latest events were not durable when it was closed."""
        self._listener: Callable[[], object] = lambda: None

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    async def open(self) -> None:
        if self.is_open:
            raise BadCall("the store is open")
        await asyncio.sleep(self.delay)
        self.is_open = True
        self.opens += 1

    async def close(self) -> Sequence[Event[Any]]:
        await asyncio.sleep(self.delay)
        self.is_open = False
        lost: list[Event[Any]] = []
        for key, rows in self.rows.items():
            while rows and len(lost) < self.forgets:
                self.ends[key] -= 1
                event = rows.popitem()[1]
                if event is not None:
                    lost.insert(0, event)
        return lost

    def killed(self) -> "SpillMemory":
        """Give what another process finds after this one was killed."""
        other = SpillMemory(self.most, delay=self.delay)
        other.rows = {key: dict(rows) for key, rows in self.rows.items()}
        other.ends = dict(self.ends)
        return other

    def held(self, type: EventKey) -> Mapping[int, range]:
        assert self.is_open
        return {
            key[1]: range(min(rows, default=self.ends[key] + 1), self.ends[key] + 1)
            for key, rows in self.rows.items()
            if key[0] == type
        }

    def put(self, event: Event[Any]) -> int | None:
        assert self.is_open
        if len(self) >= self.most or self.refuses(event):
            return None
        key = (event.type, event.priority)
        number = self.ends[key] = self.ends.get(key, 0) + 1
        self.rows.setdefault(key, {})[number] = event.evolve(on_settled=None)
        return number

    def damage(self, type: EventKey, priority: int, number: int) -> None:
        """Make an event unreadable."""
        assert number in self.rows[type, priority]
        self.rows[type, priority][number] = None

    async def read(self, type: EventKey, priority: int, first: int) -> Sequence[Event[Any] | None]:
        await asyncio.sleep(self.delay)
        if self.failing:
            raise OSError("the disk is gone")
        rows = self.rows[type, priority]
        return [rows[number] for number in range(first, min(first + 3, self.ends[type, priority] + 1))]

    def settled(self, type: EventKey, priority: int, number: int) -> None:
        rows = self.rows.get((type, priority), {})
        gone = [each for each in rows if each <= number]
        for each in gone:
            del rows[each]
        if gone and self.is_open:
            asyncio.get_running_loop().call_soon(self._listener)

    def on_room(self, listener: Callable[[], object]) -> None:
        self._listener = listener

    def has_room(self) -> None:
        """Tell that there may be room again."""
        self._listener()
