"""Pools of one handler, one for each priority: none of its events waits behind a less urgent one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._backlog import lane_of
from ._delivery import Delivery, Lot
from ._event import Event
from ._lanes import Again, Lane, Slot
from ._pool import Pool

__all__ = ["LanePool"]


class LanePool:
    """Runs a handler on one event of each priority at a time, so that none waits behind a less urgent one.

    Args:
        make: makes the pool of a priority.
        most: pools that are kept, as many as lanes.
    """

    def __init__(self, make: Callable[[], Pool], most: int) -> None:
        self._make = make
        self._most = most
        self._pools: dict[int, Pool] = {}
        self.takes_many = make().takes_many
        """What `Pool.takes_many` says."""
        self._retired = False

    def _pool(self, priority: int) -> Pool:
        """Return the pool of one priority; idle ones give way when there are as many as lanes."""
        pool = self._pools.get(priority)
        if pool is None:
            if len(self._pools) >= self._most:
                for key in [key for key, other in self._pools.items() if other.is_idle]:
                    self._pools.pop(key).retire()
            pool = self._pools[priority] = self._make()
            if self._retired:
                pool.retire()
        return pool

    def idle_call(self, priority: int) -> Callable[[Event[Any]], bool] | None:
        """Do what `Pool.idle_call` does, for events of one priority."""
        pool = self._pools.get(priority)
        return pool.idle_call(priority) if pool is not None else None

    def offer_many(self, lot: Lot) -> None:
        """Handle a lot or keep it, as `Pool.offer_many` does."""
        self._pool(lot.lane.priority).offer_many(lot)

    def fail_now(self, event: Event[Any], lane: Lane, exc: Exception) -> None:
        """Have a task tell of a failure."""
        self._pool(event.priority).fail_now(event, lane, exc)

    def offer(self, event: Event[Any], queue: object) -> None:
        """Handle the event or keep it, as `Pool.offer` does."""
        self._pool(event.priority).offer(event, queue)

    def submit(self, item: Delivery | Slot | Again) -> None:
        """Take an event, as `Pool.submit` does."""
        self._pool(lane_of(item).priority).submit(item)

    def retire(self) -> None:
        """Let the tasks end once what waits is handled."""
        self._retired = True
        for pool in self._pools.values():
            pool.retire()

    @property
    def is_gone(self) -> bool:
        """Whether it was retired and has nothing left to do."""
        return self._retired and all(pool.is_gone for pool in self._pools.values())

    def waiting(self) -> list[tuple[Lane, Any]]:
        """Take out all that waits, as lane and entry, in order."""
        return [place for pool in self._pools.values() for place in pool.waiting()]

    @property
    def items(self) -> set[Delivery | Slot | Lot]:
        """What waits here and is counted by its lane."""
        return {item for pool in self._pools.values() for item in pool.items}
