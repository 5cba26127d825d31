"""One line of events on the disk: how they get there, how they come back, and who waits for room."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ._event import Event, EventKey
from ._lanes import Lane
from ._policy import SpillStore
from ._turn import turn

if TYPE_CHECKING:
    from ._queue import AsyncEventPriorityQueue
    from ._spill import Spills

__all__ = ["SpillLine"]

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 1.0
"""Seconds between two tries to read, at most."""


class _Ticket:
    """A giver that waits for its turn in a line."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken: Future[None] | None = None


class SpillLine:
    """The events of one type and priority behind their full lane.

    They wait in three parts: a few that were read and come next; those on the disk; and, where the disk takes
    no more, those `beyond` it that handlers gave, which never wait. The events in its lane or with a handler
    that came from here are `under way`: they leave the disk when their story has ended, so a process that
    dies loses none.

    Attributes:
        beyond: events that the disk did not take, in memory.
    """

    __slots__ = (
        "_callbacks",
        "_last",
        "_left",
        "_next",
        "_pump",
        "_queue",
        "_read",
        "_spills",
        "_store",
        "_tickets",
        "_under_way",
        "account",
        "beyond",
        "priority",
        "type",
    )

    def __init__(
        self,
        spills: Spills,
        queue: AsyncEventPriorityQueue,
        store: SpillStore,
        type: EventKey,
        priority: int,
    ) -> None:
        self.type = type
        self.priority = priority
        self.account = queue.ledger.own(type)
        self.beyond: deque[Event[Any]] = deque()  # bounded by the queue's max_secondary
        self._spills = spills
        self._queue = queue
        self._store = store
        self._last = 0
        """Number of the last event that was put."""
        self._left = 0
        """Number of the last that has left for the lane."""
        self._next = 1
        """Number of the next to be read."""
        self._read: deque[Event[Any] | None] = deque()  # bounded by what a store gives at once
        self._under_way: OrderedDict[int, Event[Any]] = OrderedDict()  # ordered: its first is asked for
        self._callbacks: dict[int, Callable[[str], object]] = {}
        self._tickets: deque[_Ticket] = deque()  # bounded by the tasks that wait to put
        self._pump: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """Events that wait here."""
        return self._last - self._left + len(self.beyond)

    def _is_empty(self) -> bool:
        """Say whether nothing waits here; asked again after a wait, so it is no property."""
        return not self.held

    @property
    def stored(self) -> int:
        """Events that the store would give again: those on the disk and those under way."""
        return self._last - self._left + len(self._under_way)

    @property
    def is_busy(self) -> bool:
        """Whether a new event has to take its place behind others here."""
        return bool(self.held or self._tickets) or self.type in self._spills.unopened

    @property
    def under_way(self) -> Iterable[Event[Any]]:
        """The events that came back from the disk and whose story has not ended."""
        return self._under_way.values()

    def take_up(self, numbers: range) -> None:
        """Begin with what the store holds from earlier."""
        self._left, self._next, self._last = numbers.start - 1, numbers.start, numbers.stop - 1
        self._run()

    # There.

    def give(self, event: Event[Any], *, waits: bool) -> bool:
        """Take an event at the end of the line; False when there is no room, or its giver is not the first.

        Args:
            waits: whether the giver can wait, and so must not overtake those who do.
        """
        if (waits and self._tickets) or self.beyond or not self._put(event):
            self._forget()
            return False
        self._run()
        return True

    def give_beyond(self, event: Event[Any]) -> None:
        """Take an event that the disk does not take, and that has to be taken."""
        self.beyond.append(event)
        self._run()

    def _put(self, event: Event[Any]) -> bool:
        """Put an event on the disk, if that has room for it; begin a line only where there is a lane."""
        queue = self._queue
        if self.type in self._spills.unopened or (not self.held and queue.lanes.get(self.priority) is None):
            return False
        meta = event._meta
        told = meta.on_settled if meta is not None else None
        if told is not None and len(self._callbacks) >= queue.maxsize:
            return False  # who is to be told has to be kept in memory
        number = self._store.put(event)
        if number is None:
            return False
        if self._last == self._left:
            self._left, self._next = number - 1, number
        self._last = number
        if told is not None:
            self._callbacks[number] = told
        return True

    async def wait(self, event: Event[Any]) -> None:
        """Wait for room, on the disk or in the lane, in the order of asking, and give the event.

        Cancelled, it is not given.
        """
        ticket = _Ticket()
        self._tickets.append(ticket)
        try:
            while self._tickets[0] is not ticket or not await self._enter(event):
                if self._queue.closed is not None:
                    raise self._queue.closed()
                ticket.woken = asyncio.get_running_loop().create_future()
                await ticket.woken
        finally:
            self._tickets.remove(ticket)
            self.call_next()
            self._forget()

    async def _enter(self, event: Event[Any]) -> bool:
        """Give the event of the first who waits; False when there is no room yet."""
        queue = self._queue
        if queue.closed is not None or self.type in self._spills.unopened:
            return False
        if not self.beyond and self._put(event):
            self._run()
            return True
        if not self._is_empty():
            return False
        lane = await queue.room.place(self.priority)
        if lane is None:
            return False
        if not self._is_empty():  # a handler's event was here first
            queue.room.release(lane)
            return False
        queue.append(event, lane)
        return True

    def has_room(self) -> None:
        """Go on: the store may have room again."""
        if self._left < self._last:  # else those beyond it come next, and have no need of it
            self.save_beyond()
        self._run()
        self.call_next()

    def save_beyond(self) -> None:
        """Put on the disk what waits beyond it, as far as there is room."""
        while self.beyond and self._put(self.beyond[0]):
            self.beyond.popleft()

    def call_next(self) -> None:
        """Have the first who waits look again."""
        woken = self._tickets[0].woken if self._tickets else None
        if woken is not None and not woken.done():
            woken.set_result(None)

    def call_all(self) -> None:
        """Have all who wait look again."""
        for ticket in self._tickets:
            if ticket.woken is not None and not ticket.woken.done():
                ticket.woken.set_result(None)

    def _forget(self) -> None:
        """Let the line go if nothing is left of it."""
        if not (self.is_busy or self._under_way or self._pump):
            self._spills.lines.pop((self.type, self.priority), None)

    # And back.

    def _run(self) -> None:
        """Have the events brought back."""
        queue = self._queue
        is_ready = queue.closed is None and self.type not in self._spills.unopened
        if self.held and self._pump is None and is_ready and queue.spawn is not None:
            self._pump = queue.spawn(self._bring_back(), f"spill.{self.type}.{self.priority}")

    async def _bring_back(self) -> None:
        """Bring events back into their lane as there is room, a few at a time, until none is left."""
        queue = self._queue
        try:
            while self.held and queue.closed is None:
                if not self._read and self._left < self._last:
                    await self._read_on()
                    self._skip_damaged()
                elif (lane := await queue.room.place(self.priority)) is not None:
                    self._fill(lane)
                    await turn()
        finally:
            self._pump = None
            self.call_next()
            self._forget()
        if not self.held:
            queue.wake_getter()  # whoever waits for the queue to be empty looks again

    async def _read_on(self) -> None:
        """Read the next events; tried until it succeeds."""
        pause = 0.01
        while not self._read and self._queue.closed is None:
            try:
                self._read.extend(await self._store.read(self.type, self.priority, self._next))
                self._next += len(self._read)
            except Exception:
                logger.exception(
                    "events of type %r, priority %s cannot be read from the disk; next try in %s s",
                    self.type,
                    self.priority,
                    pause,
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _skip_damaged(self) -> None:
        """Count as dropped what cannot be read any more."""
        while self._read and self._read[0] is None:
            self._read.popleft()
            self._left += 1
            self._queue.turned_away += 1
            self.account.drops["damaged"] = self.account.drops.get("damaged", 0) + 1
            told = self._callbacks.pop(self._left, None)
            self._tell_store()
            if told is not None:
                try:
                    told("dropped")
                except Exception:
                    logger.exception("on_settled of a damaged event of type %r failed", self.type)

    def _fill(self, lane: Lane) -> None:
        """Put events in line, one and as many more as there is room for that nobody waits for."""
        queue = self._queue
        while True:
            event = self._read.popleft() if self._read else None
            if event is not None:
                self._left = number = self._left + 1
                told = self._callbacks.pop(number, None)
                event = event.evolve(on_settled=partial(self._settled, number, told))
                self._under_way[number] = event
            else:
                event = self.beyond.popleft()
            queue.append(event, lane)
            self._skip_damaged()
            is_next = bool(self._read) or (self._left == self._last and bool(self.beyond))
            if not is_next or lane.waiters or queue.room.is_full(lane):
                return

    def _settled(self, number: int, told: Callable[[str], object] | None, outcome: str) -> None:
        """Take an event off the disk: its story has ended."""
        is_first = next(iter(self._under_way), None) == number
        if self._under_way.pop(number, None) is not None and is_first:
            self._tell_store()
            self._forget()
        if told is not None:
            told(outcome)

    def _tell_store(self) -> None:
        """Tell the store up to where all stories have ended."""
        first = next(iter(self._under_way), self._left + 1)
        self._store.settled(self.type, self.priority, first - 1)
