"""Room: who waits to put an event into a full lane, and whose turn it is."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque

from ._lanes import Lane, Lanes

__all__ = ["Room"]


class _Ticket:
    """A giver that waits for a lane; it keeps its place until it has one."""

    __slots__ = ("priority", "woken")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.woken: Future[bool] | None = None


class Room:
    """Gives the places of full lanes to those who wait, in the order they asked.

    A giver that is woken has a place promised, so nobody overtakes it before it runs. Its future says whether
    there is one: False means that the door was closed meanwhile.

    Attributes:
        laneless: those who wait for a lane, all being taken.
    """

    def __init__(self, lanes: Lanes, maxsize: int) -> None:
        self.maxsize = maxsize
        self._lanes = lanes
        self.laneless: deque[_Ticket] = deque()  # bounded by the tasks that wait to put
        self._behind: list[tuple[Lane, int, Future[None]]] = []  # bounded by the tasks that wait in `passed`

    def is_full(self, lane: Lane, *, arrives: bool = False) -> bool:
        """Say whether a lane has no place that is not promised.

        Args:
            arrives: for what comes from another domain: see `Lane.outbound`.
        """
        return self._places(lane, arrives) <= 0

    def _places(self, lane: Lane, arrives: bool) -> int:
        """Return how many places of a lane are free, for what arrives or for what is given here."""
        free = self.maxsize - lane.live - lane.promised
        return free + min(lane.outbound, self.maxsize) if arrives else free

    def find_lane(self, priority: int) -> Lane | None:
        """Return the lane of a priority, a new one if one is free and nobody waits for it; else None."""
        return self._lanes.get(priority) if self.laneless else self._lanes.open(priority)

    def is_wanted(self, lane: Lane) -> bool:
        """Say whether this lane is one that somebody waited for before it was there."""
        return any(ticket.priority == lane.priority for ticket in self.laneless)

    async def place(self, priority: int) -> Lane | None:
        """Return the lane of a priority if it has a place that nobody waits for; else wait for one."""
        lane = self.find_lane(priority)
        if lane is None or lane.waiters or self.is_full(lane) or (self.laneless and self.is_wanted(lane)):
            return await self.wait(priority)
        return lane

    async def wait(self, priority: int, *, arrives: bool = False) -> Lane | None:
        """Wait for a place in the lane of a priority; None when the door was closed.

        Cancelled, the place goes to the next. The place has to be taken before anything else is awaited.

        Args:
            arrives: see `is_full`; those who wait with it take turns with those who do without.
        """
        lane = self._lanes.get(priority)
        if lane is None or self.is_wanted(lane):
            lane = await self._wait_for_lane(priority)
        if lane is None:
            return None
        line = lane.arrivals if arrives else lane.waiters
        if not (line or self.is_full(lane, arrives=arrives)):
            return lane  # there is one already: nobody would wake him who waits for it
        return lane if await self._wait_in(lane, line) else None

    async def _wait_in(self, lane: Lane, line: deque[Future[bool]]) -> bool:
        """Wait for a place in a lane."""
        waiter: Future[bool] = asyncio.get_running_loop().create_future()
        line.append(waiter)
        lane.limit = 0
        try:
            is_open = await waiter
        except asyncio.CancelledError:
            if waiter.cancelled() or not waiter.done():
                if waiter in line:
                    line.remove(waiter)
            elif waiter.result():
                lane.promised -= 1
            self.release(lane)
            raise
        if is_open:
            lane.promised -= 1
        return is_open

    async def _wait_for_lane(self, priority: int) -> Lane | None:
        """Wait until there is a lane for this priority."""
        ticket = _Ticket(priority)
        self.laneless.append(ticket)
        try:
            while True:
                if self.laneless[0] is ticket:
                    lane = self._lanes.open(priority)
                    if lane is not None:
                        return lane
                ticket.woken = asyncio.get_running_loop().create_future()
                if not await ticket.woken:
                    return None
        finally:
            self.laneless.remove(ticket)
            self._call_next()

    async def passed(self, lane: Lane, position: int) -> None:
        """Wait until so many entries have left a lane, or the door is closed, or `look_again` is called.

        Args:
            position: entries that will have left the line then, ever; see `Lane.taken`.
        """
        if lane.taken >= position:
            return
        place = (lane, position, asyncio.get_running_loop().create_future())
        self._behind.append(place)
        try:
            await place[2]
        finally:
            self._behind.remove(place)

    def look_again(self) -> None:
        """Wake all who wait in `passed`: what they wait for may not matter any more."""
        for _, _, waiter in self._behind:
            if not waiter.done():
                waiter.set_result(None)

    def release(self, lane: Lane) -> None:
        """Wake as many who wait for room in the lane as there is room for, and keep that room for them."""
        while (line := self._next_line(lane)) is not None:
            waiter = line.popleft()
            if not waiter.done():
                lane.promised += 1
                lane.limit = 0
                waiter.set_result(True)
        if self.laneless and lane.is_idle:
            self._call_next()

    def _next_line(self, lane: Lane) -> deque[Future[bool]] | None:
        """Return the line whose first may have a place; None if there is no place or nobody waits."""
        local = bool(lane.waiters) and self._places(lane, False) > 0
        afar = bool(lane.arrivals) and self._places(lane, True) > 0
        if local and afar:
            lane.turn = not lane.turn
            local = lane.turn
        return lane.waiters if local else lane.arrivals if afar else None

    def release_all(self) -> None:
        """Wake whoever waits for room that is there, or for entries to leave that have left."""
        for lane in self._lanes.values():
            if lane.is_awaited:
                self.release(lane)
        if self.laneless:
            self._call_next()
        for lane, position, waiter in self._behind:
            if lane.taken >= position and not waiter.done():
                waiter.set_result(None)

    def _call_next(self) -> None:
        """Have the first of those without a lane look again."""
        woken = self.laneless[0].woken if self.laneless else None
        if woken is not None and not woken.done():
            woken.set_result(True)

    def close(self) -> None:
        """Send away whoever waits."""
        self.look_again()
        for lane in self._lanes.values():
            lane.limit = 0
            for line in (lane.waiters, lane.arrivals):
                for waiter in line:
                    if not waiter.done():
                        waiter.set_result(False)
                line.clear()
        for ticket in self.laneless:
            if ticket.woken is not None and not ticket.woken.done():
                ticket.woken.set_result(False)
