"""How deep the events of one connection may stand in the lanes of a nexus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nexus._lanes import Lane
from nexus._queue import AsyncEventPriorityQueue

__all__ = ["DEPTH", "Depth"]

DEPTH: Final = 256
"""Events of one priority, where half a window is not more; up to a frame more, for a frame goes in whole."""


class Depth:
    """Says when what comes next has to wait with its connection, though there would be room in the lane.

    There it is unread and the window sees that it waits; so the rest stays with the other side, where urgent
    events overtake it. Over a long, fast line half a window may stand in the lane: it would run empty while
    the window shrinks and grows.

    The depth does not hold where others want the room, where a policy is to see what comes, and while the
    link waits for an answer, which may be behind it.

    Args:
        window: tells how many events of a priority may be under way.
        is_asking: says whether the link waits for an answer.
    """

    def __init__(
        self,
        queue: AsyncEventPriorityQueue,
        window: Callable[[int], int],
        is_asking: Callable[[], bool],
    ) -> None:
        self._queue = queue
        self._window = window
        self._is_asking = is_asking
        self._tails: dict[int, tuple[Lane, int]] = {}  # bounded by the lanes of a source
        """Per priority the lane, and how many entries will have left it when the last one given has."""

    def note(self, priority: int) -> None:
        """Note that the nexus had room for events; those that got a place by waiting for it do not count."""
        lane = self._queue.lanes.get(priority)
        if lane is not None:
            self._tails[priority] = (lane, lane.taken + len(lane.line))

    def is_reached(self, priority: int) -> bool:
        """Say whether what comes next has to wait; what others put between counts as its own."""
        if (tail := self._tails.get(priority)) is None:
            return False
        lane, end = tail
        count = end - lane.taken
        return count >= DEPTH and count >= self._most(priority) and self._holds(lane)

    async def wait(self, priority: int) -> None:
        """Wait until half of the depth is free, or it does not hold."""
        while self.is_reached(priority):
            lane, end = self._tails[priority]
            await self._queue.room.passed(lane, end - self._most(priority) // 2)

    def _most(self, priority: int) -> int:
        return max(DEPTH, self._window(priority) // 2)

    def _holds(self, lane: Lane) -> bool:
        queue = self._queue
        return (
            queue.closed is None
            and queue.lanes.get(lane.priority) is lane
            and queue.only_blocks
            and not (lane.waiters or queue.room.is_full(lane, arrives=True) or self._is_asking())
        )
