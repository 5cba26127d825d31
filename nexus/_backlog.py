"""What waits for a handler that runs beside the nexus's own task."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

from ._delivery import Delivery, Lot
from ._lanes import Again, Lane, Slot

__all__ = ["Backlog", "Item", "lane_of"]

Item: TypeAlias = Delivery | Slot | Again | Lot

_SLACK = 64


def lane_of(item: Item) -> Lane:
    """Return the lane whose bound counts what waits."""
    return item.delivery.lane if isinstance(item, Again) else item.lane


class Backlog:
    """The most urgent first, each priority in the order it came; second tries before the others of theirs,
    the latest first.

    Places of events that were dropped are taken out once they may be half of it. A lot is one thing here,
    however many events it has.
    """

    def __init__(self) -> None:
        self._lines: dict[int, deque[Item]] = {}
        self._order: list[int] = []
        """The priorities that have a line, which is never empty."""
        self._count = 0
        self._sweep_at = _SLACK

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self._lines[priority] for priority in self._order)

    @property
    def first(self) -> Item:
        """What comes next; there is something."""
        return self._lines[self._order[0]][0]

    def last(self, priority: int) -> Item | None:
        """Return what of a priority came last; None if there is nothing of it."""
        line = self._lines.get(priority)
        return line[-1] if line else None

    def add(self, item: Item) -> None:
        """Take something in."""
        line = self._line(lane_of(item).priority)
        if isinstance(item, Again):
            line.appendleft(item)
        else:
            line.append(item)
        self._count += 1
        if self._count >= self._sweep_at:
            self._sweep()

    def pop(self) -> Item:
        """Take out what comes next; there is something."""
        priority = self._order[0]
        line = self._lines[priority]
        item = line.popleft()
        self._count -= 1
        if not line:
            self._close(priority)
        return item

    def pop_alike(self, most: int) -> list[Delivery | Slot]:
        """Take out what comes next and is an event, and those behind it of its type and priority, as far as
        none of them has a deadline."""
        priority = self._order[0]
        line = self._lines[priority]
        found: list[Delivery | Slot] = []
        kind: object = None
        while line and len(found) < most:
            item = line[0]
            if isinstance(item, Again | Lot) or item.event is None or item.event.deadline is not None:
                break
            if found and item.event.type is not kind:
                break
            kind = item.event.type
            found.append(item)
            line.popleft()
        self._count -= len(found)
        if not line:
            self._close(priority)
        return found

    def put_back(self, items: list[Delivery | Slot]) -> None:
        """Let stand first again what was taken out, of one priority."""
        if items:
            self._line(items[0].lane.priority).extendleft(reversed(items))
            self._count += len(items)

    def clear(self) -> None:
        """Forget everything."""
        self._lines.clear()
        self._order.clear()
        self._count = 0

    def _line(self, priority: int) -> deque[Item]:
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = deque()  # bounded by the bounds of the queue
            insort(self._order, priority)
        return line

    def _close(self, priority: int) -> None:
        del self._lines[priority]
        self._order.remove(priority)

    def _sweep(self) -> None:
        kept = [item for item in self if not (isinstance(item, Slot) and item.event is None)]
        self.clear()
        self._sweep_at = 2 * len(kept) + _SLACK
        for item in kept:
            self._line(lane_of(item).priority).append(item)
        self._count = len(kept)
