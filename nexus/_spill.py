"""Spilling: the lines of events that wait on the disk because their lane is full, and their way back."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ._event import Event, EventKey
from ._policy import SpillStore
from ._spill_line import SpillLine
from .errors import BadCall

if TYPE_CHECKING:
    from ._queue import AsyncEventPriorityQueue

__all__ = ["Spills"]

logger = logging.getLogger(__name__)


class Spills:
    """All that a queue has on the disk.

    Attributes:
        lines: by type and priority; one that holds nothing, and of which nothing is under way, is forgotten.
        unopened: types whose store is not open yet, so that nobody knows what comes before a new event.
    """

    def __init__(self, queue: AsyncEventPriorityQueue) -> None:
        self.lines: dict[tuple[EventKey, int], SpillLine] = {}
        self.unopened: set[EventKey] = set()
        self._queue = queue
        self._stores: dict[EventKey, SpillStore] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._open: dict[int, SpillStore] = {}

    # Looking.

    @property
    def held(self) -> int:
        """Events that wait behind full lanes."""
        return sum(line.held for line in self.lines.values())

    @property
    def depths(self) -> dict[int, int]:
        """The same by priority, the most urgent first."""
        depths: Counter[int] = Counter()
        for line in self.lines.values():
            depths[line.priority] += line.held
        return {priority: depths[priority] for priority in sorted(depths) if depths[priority]}

    def counts(self) -> Iterator[tuple[EventKey, int]]:
        """Say for each line under which account its events are, and how many they are."""
        return ((line.account.key, line.held) for line in self.lines.values())

    def spills(self, type: EventKey) -> bool:
        """Say whether events of this type have a store, also if they have another policy by now."""
        return type in self._stores

    def busy_line(self, event: Event[Any]) -> SpillLine | None:
        """Return the line that the event has to take because others of it wait already; else None."""
        line = self.lines.get((event.type, event.priority))
        if line is None and event.type in self.unopened:
            line = self.line(event)
        return line if line is not None and line.is_busy else None

    def line(self, event: Event[Any]) -> SpillLine:
        """Return the line of an event, a new one if need be."""
        key = (event.type, event.priority)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = SpillLine(self, self._queue, self._stores[event.type], *key)
        return line

    # Life.

    def add(self, type: EventKey, store: SpillStore) -> None:
        """Have events of a type go to this store; a queue that runs opens it at once.

        Raises:
            BadCall: they go to another one.
        """
        known = self._stores.get(type)
        if known is store:
            return
        if known is not None:
            raise BadCall(f"events of type {type!r} have a store already; a type keeps the one it had first")
        self._stores[type] = store
        if id(store) in self._open:
            self._adopt(type, store)
        else:
            self.unopened.add(type)
            self.open_all()

    def open_all(self) -> None:
        """Open the stores that are not open, if the queue runs."""
        spawn = self._queue.spawn
        if spawn is not None and self._queue.closed is None:
            for store in {id(self._stores[type]): self._stores[type] for type in self.unopened}.values():
                if id(store) not in self._opening:
                    self._opening[id(store)] = spawn(self._open_one(store), "spill.open")

    async def opened(self) -> None:
        """Wait until the stores are open, or cannot be opened."""
        if self._opening:
            await asyncio.wait(tuple(self._opening.values()))

    async def _open_one(self, store: SpillStore) -> None:
        """Open a store, and take up what it holds."""
        await store.open()
        self._open[id(store)] = store
        del self._opening[id(store)]
        store.on_room(self._has_room)
        for type in [type for type in self.unopened if self._stores[type] is store]:
            self._adopt(type, store)

    def _adopt(self, type: EventKey, store: SpillStore) -> None:
        """Take up what a store holds of a type from earlier."""
        self.unopened.discard(type)
        for priority, numbers in store.held(type).items():
            if numbers and (type, priority) not in self.lines:
                self.lines[type, priority] = SpillLine(self, self._queue, store, type, priority)
            if numbers:
                self.lines[type, priority].take_up(numbers)
        for line in tuple(self.lines.values()):
            if line.type == type:
                line.has_room()

    def _has_room(self) -> None:
        """Let those go on that wait for a store."""
        if not self._queue.sealed:
            for line in tuple(self.lines.values()):
                line.has_room()

    def shut(self) -> None:
        """Send away whoever waits, and bring nothing more back: the queue is closed."""
        for line in tuple(self.lines.values()):
            line.call_all()

    # The end.

    def not_stored(self, events: Iterable[Event[Any]]) -> list[Event[Any]]:
        """Leave out the events that came back from the disk and are there still."""
        stored = {id(event) for line in self.lines.values() for event in line.under_way}
        return [event for event in events if id(event) not in stored]

    async def close(self, seconds: float) -> tuple[int, list[Event[Any]], list[str]]:
        """Close all stores.

        Args:
            seconds: how long that may take.

        Returns:
            How many events are on the disk, those that should be and are not, and the names of tasks that
            would not end.
        """
        for line in self.lines.values():
            line.save_beyond()
        lost = [event for line in self.lines.values() for event in line.beyond]
        stored = sum(line.stored for line in self.lines.values())
        spawn = self._queue.spawn
        assert spawn is not None
        tasks = {spawn(self._close_one(store, lost), "spill.close") for store in self._open.values()}
        late: set[asyncio.Task[None]] = set()
        if tasks:
            unsaved = len(lost)
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            stored -= len(lost) - unsaved
        return stored, lost, [task.get_name() for task in late]

    async def _close_one(self, store: SpillStore, lost: list[Event[Any]]) -> None:
        """Close a store; what that raises is logged."""
        try:
            lost.extend(await store.close())
        except Exception:
            logger.exception("closing %r failed", store)
