"""The wheel: the one call of an event loop that all timers share."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from heapq import heappop, heappush, heapreplace
from itertools import count
from time import monotonic
from typing import Protocol, TypeAlias

from ._clock import clock_of

__all__ = ["Ring", "Ticker", "Wheel", "wheel_of"]

_PORTION_SECONDS = 5e-4
"""For how long timers fire before everything else gets its turn."""
_BUSY = 8
"""Timers that fire at once when there are so many that they are gathered."""
_GATHER_SECONDS = 1e-3
"""For how long; event loops wait in whole milliseconds anyway."""
_STALE = 64
"""Stopped timers the wheel holds at least before it looks for them."""


class Ticker(Protocol):
    """What stands on the wheel."""

    deadline: float | None
    """When it ticks next; another object than the one it was added with, and its entry has become stale."""

    def tick(self) -> None:
        """Tick; its moment has come."""


class Ring(deque["Entry"]):  # bounded by the timers that run
    """Entries of timers with one interval, in their order; the first of them stands in the wheel's heap."""

    __slots__ = ("has_head", "last")

    def __init__(self) -> None:
        super().__init__()
        self.has_head = False
        """Whether an entry of this ring is in the heap; if not, there is none at all."""
        self.last = 0.0
        """The deadline of the last entry."""


Entry: TypeAlias = "tuple[float, int, Ticker, Ring]"


class Wheel:
    """The timers of one event loop, and one call of the loop for the earliest.

    A timer that has ticked comes after all others of its interval that tick in time. So they stand in a
    ring, where a tick costs the same however many there are, and only the first of each ring is in a heap.
    One that comes too late for its ring gets another, for itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._time = clock_of(loop)
        self._gather = _GATHER_SECONDS if self._time is monotonic else 0.0
        self._heap: list[Entry] = []
        self._rings: weakref.WeakValueDictionary[float, Ring] = weakref.WeakValueDictionary()
        self._order = count()
        self._stale = 0
        """Entries whose timer was stopped, about."""
        self._stale_limit = _STALE
        self._handle: asyncio.TimerHandle | None = None
        self._firing = False

    def ring_of(self, interval: float) -> Ring:
        """Return the ring of an interval, for a timer to keep."""
        return self._rings.setdefault(interval, Ring())

    def add(self, deadline: float, timer: Ticker, ring: Ring) -> None:
        """Fire the timer at this moment."""
        if ring.has_head:
            if deadline >= ring.last:
                ring.last = deadline
                ring.append((deadline, next(self._order), timer, ring))
                return
            ring = Ring()
        ring.has_head = True
        ring.last = deadline
        heappush(self._heap, (deadline, next(self._order), timer, ring))
        if not self._firing and self._heap[0][2] is timer:
            self._arm()

    def stopped(self) -> None:
        """Note that the entry of a timer has become stale; forget such entries once they are many."""
        self._stale += 1
        if self._stale > self._stale_limit:
            entries = sorted(entry for head in self._heap for entry in (head, *head[3]))
            for _, _, _, ring in self._heap:
                ring.clear()
                ring.has_head = False
            self._heap.clear()
            for deadline, order, timer, ring in entries:
                if timer.deadline is deadline:
                    if ring.has_head:
                        ring.append((deadline, order, timer, ring))
                    else:
                        ring.has_head = True
                        self._heap.append((deadline, order, timer, ring))
            self._stale = 0
            self._stale_limit = max(_STALE, len(entries) // 2)
        self.tidy()

    def tidy(self) -> None:
        """Forget timers that were stopped and are first in line; sleep if there are no others."""
        heap = self._heap
        while heap and heap[0][2].deadline is not heap[0][0]:
            self._pop()
            self._stale = max(0, self._stale - 1)
        if not heap and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _pop(self) -> None:
        """Take out the first entry; the next of its ring takes its place."""
        ring = self._heap[0][3]
        if ring:
            heapreplace(self._heap, ring.popleft())
        else:
            heappop(self._heap)
            ring.has_head = False

    def _arm(self, soonest: float = 0.0) -> None:
        """Have the loop call at the earliest moment."""
        if self._handle is not None:
            self._handle.cancel()
        loop = self._loop()
        assert loop is not None
        self._handle = loop.call_at(max(self._heap[0][0], soonest), self._fire)

    def _fire(self) -> None:
        """Fire every timer whose moment has come; many at once in portions, so that others get their turn."""
        self._handle = None
        self._firing = True
        heap = self._heap
        now = self._time()
        fired = 0
        try:
            while heap and heap[0][0] <= now:
                deadline, _, timer, ring = heap[0]
                if ring:
                    heapreplace(heap, ring.popleft())
                else:
                    heappop(heap)
                    ring.has_head = False
                if timer.deadline is deadline:
                    timer.tick()
                    fired += 1
                    if not fired % 16 and self._time() - now > _PORTION_SECONDS:
                        break
                else:
                    self._stale = max(0, self._stale - 1)
        finally:
            self._firing = False
            self.tidy()
            if heap:
                is_behind = heap[0][0] <= now
                self._arm(now + self._gather if fired >= _BUSY and not is_behind else 0.0)


_wheels: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Wheel] = weakref.WeakKeyDictionary()


def wheel_of(loop: asyncio.AbstractEventLoop) -> Wheel:
    """Return the wheel of a loop; loops that are closed lose theirs."""
    wheel = _wheels.get(loop)
    if wheel is None:
        for other in [other for other in _wheels if other.is_closed()]:
            del _wheels[other]
        wheel = _wheels[loop] = Wheel(loop)
    return wheel
