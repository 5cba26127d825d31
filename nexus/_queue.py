"""The queue that orders events by priority, bounds them, and says what happens when there are too many."""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from itertools import islice
from time import monotonic
from typing import Any

from ._clock import clock_of
from ._event import Event, EventKey, NamedEvent, check_event, event_type_of, not_an_event, settle
from ._lanes import Lane, Lanes, Slot
from ._policy import OverloadPolicy, Spill, check_policy
from ._room import Room
from ._route import Ledger
from ._slots import Policies, TypePolicy, open_slot
from ._spill import Spills
from ._spill_line import SpillLine
from .errors import BadCall, QueueFull

__all__ = ["AsyncEventPriorityQueue", "Giver", "SecondaryQueue"]


class Giver(Enum):
    """Who puts an event, and so what may be asked of him."""

    OUTSIDE = "outside"
    """Anyone; can wait, and finds the door closed during a stop."""
    ARRIVAL = "arrival"
    """The same, with what comes from another domain: it does not wait for what waits to leave for there."""
    HANDLER = "handler"
    """A handler of this nexus; never waits."""
    HOLDER = "holder"
    """Has the event in hand and would lose it; always gets it in."""

    @property
    def waits(self) -> bool:
        """Whether he may be told to wait for room."""
        return self in (Giver.OUTSIDE, Giver.ARRIVAL)


class AsyncEventPriorityQueue:
    """Events, the most urgent first, those of one priority in the order they came.

    Each priority has a lane of its own with a bound of its own, so a flood of one priority never stands in
    the way of another: an urgent event finds room though the ordinary lane is full. What happens at a full
    lane is chosen per event type by `set_policy`; unless told otherwise the giver waits.

    Args:
        maxsize: events a lane holds.
        max_lanes: different priorities waiting at once; a further one finds no room, like a full lane.
        ageing: seconds of waiting that make an event one priority more urgent; None for strict priorities.
        max_secondary: events, or lanes, that handlers may add beyond these bounds before `QueueFull`.
        ledger: where drops are counted; None for one of its own.

    Raises:
        ValueError: a bound is not positive.
    """

    def __init__(
        self,
        maxsize: int = 10_000,
        *,
        max_lanes: int = 64,
        ageing: float | None = None,
        max_secondary: int = 100_000,
        ledger: Ledger | None = None,
    ) -> None:
        for name, value in (("maxsize", maxsize), ("max_lanes", max_lanes), ("ageing", ageing)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, not {value!r}")
        self.maxsize = maxsize
        self.max_secondary = max_secondary
        self.ledger = ledger or Ledger()
        self.lanes = Lanes(max_lanes, ageing)
        self.room = Room(self.lanes, maxsize)
        self.turned_away = 0
        """Events dropped at the door: counted as ingested and dropped, though they never had a place."""
        self.busy = False
        """Whether the taker is with a handler, so that time may pass between two puts."""
        self.closed: Callable[[], Exception] | None = None
        """Makes the error that `put` raises; None while the queue is open."""
        self.sealed = False
        """Whether a closed queue lets in nobody at all any more, handlers included."""
        self.domain = ""
        """Whose queue it is: the unique name of its nexus's domain."""
        self.spills: Spills | None = None
        """What waits on the disk; None where no type has the policy `Spill`."""
        self.spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]] | None = None
        """Makes a task that the nexus owns; None before it runs."""
        self._clock: Callable[[], float] = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bound = False
        self._policies = Policies()
        self._getters: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait to get

    def __repr__(self) -> str:
        depths = ", ".join(f"{lane.priority}: {lane.live}" for lane in self.lanes.occupied)
        return f"<{self.__class__.__name__} maxsize={self.maxsize} lanes={{{depths}}}>"

    # Looking.

    def qsize(self) -> int:
        """Return how many events wait, those on the disk included."""
        waiting = sum(lane.live for lane in self.lanes.values())
        return waiting if self.spills is None else waiting + self.spills.held

    def empty(self) -> bool:
        """Say whether no event waits; what a closed queue leaves on the disk does not count."""
        if self.spills is not None and self.closed is None and self.spills.held:
            return False
        return not any(lane.live for lane in self.lanes.values())

    def full(self, priority: int = 0) -> bool:
        """Say whether the lane of this priority has no room."""
        lane = self.lanes.get(priority)
        return lane is not None and lane.live >= self.maxsize

    def events(self) -> Iterator[Event[Any]]:
        """Iterate over the events in the lanes by priority; the queue must not change meanwhile."""
        for lane in self.lanes.occupied:
            for entry in lane.line:
                event = entry if isinstance(entry, Event) else entry.event
                if event is not None:
                    yield event

    @property
    def entered(self) -> int:
        """Events ever accepted or dropped at the door, counted where they enter and leave the lanes."""
        return (
            self.turned_away
            + self.lanes.taken_before
            + sum(lane.taken + len(lane.line) for lane in self.lanes.values())
            + (0 if self.spills is None else self.spills.held)
        )

    # Policies.

    def set_policy(self, type: EventKey | type[NamedEvent[Any]], policy: OverloadPolicy) -> None:
        """Choose what happens to events of this type at a full lane; those waiting already stay as they are.

        Raises:
            TypeError: it is not an event type, or not a policy.
            BadCall: the policy is `Spill`, and the type has another store already, or the queue no nexus.
        """
        key = event_type_of(type)
        policy = check_policy(policy)
        if isinstance(policy, Spill):
            if self.closed is None and not self._bound:
                raise BadCall("the policy Spill is for the queue of a nexus; a queue of its own has no tasks")
            self.spills = self.spills or Spills(self)
            self.spills.add(key, policy.store)
        self._policies.choose(key, policy, self.ledger.own(key), self.lanes)
        for lane in self.lanes.values():
            lane.limit = 0

    @property
    def only_blocks(self) -> bool:
        """Whether whoever finds a lane full waits: no type has another policy."""
        return not self._policies and self.spills is None

    # Giving.

    async def put(self, event: Event[Any]) -> None:
        """Give an event; waits while its lane is full and its policy is to block.

        Cancelled while it waits, the event has not been given.

        Raises:
            QueueFull: the lane is full and the type's policy is `Fail`.
            BadEvent: it is no event.
        """
        if not self.admit(event, Giver.OUTSIDE):
            await self.wait_for_room(event)

    def put_nowait(self, event: Event[Any]) -> None:
        """Give an event without waiting.

        Raises:
            QueueFull: the lane is full, and the type's policy is `Block` or `Fail`.
            BadEvent: it is no event.
        """
        if not self.admit(event, Giver.OUTSIDE):
            self.refuse(event)

    def refuse(self, event: Event[Any]) -> None:
        """Count the event as refused and raise `QueueFull`."""
        self.ledger.account(event.type).refused += 1
        lane = self.lanes.get(event.priority)
        found = "no lane is free" if lane is None else f"its lane holds {lane.live} events"
        if self.spills is not None and self.spills.spills(event.type):
            found += ", and the disk takes no more"
        raise QueueFull(
            f"no room for {event.type!r} at priority {event.priority}: {found}, maxsize is {self.maxsize} "
            f"(for handlers {self.max_secondary} more); await put(), raise the bound, or set a policy"
        )

    def admit(self, event: Event[Any], giver: Giver) -> bool:
        """Give an event the careful way; False when its giver has to wait for room."""
        arrives = giver is Giver.ARRIVAL
        if self.closed is not None and (giver.waits or self.sealed):
            raise self.closed()
        try:
            lane = self.lanes.get(event.priority)
            state = self._policies.get(event.type) if self._policies or self.spills is not None else None
        except (AttributeError, TypeError) as exc:
            raise not_an_event(event) from exc
        if lane is None or not lane.line:
            check_event(event)
        if self.spills is not None and (line := self.spills.busy_line(event)) is not None:
            return self._give_to(line, event, giver)
        if lane is None:
            lane = self.room.find_lane(event.priority)
            if lane is None:
                return self._overflow(event, None, state, giver)
        loop = asyncio_events._get_running_loop()
        if loop is not self._loop:
            self._meet(loop)
        if state is not None and state.keeps_latest and state.replace(event, lane):
            self.turned_away += 1
            return True
        before = lane.arrivals or (lane.waiters and not lane.outbound) if arrives else lane.waiters
        if self.room.is_full(lane, arrives=arrives) or (
            state is None and (before or (self.room.laneless and self.room.is_wanted(lane)))
        ):
            return self._overflow(event, lane, state, giver)
        self._append(event, lane, state)
        return True

    def lets_pass(self, event: Event[Any], lane: Lane) -> bool:
        """Say whether an event might as well go past this empty queue."""
        is_free = not (lane.line or lane.backlog or lane.is_awaited or lane.promised or self.room.laneless)
        return is_free and not self._policies and isinstance(event.priority, int)

    def give(self, events: deque[Event[Any]], giver: Giver = Giver.OUTSIDE) -> None:
        """Give events from the front, until there are no more or the first one has no room.

        Those that are refused by their policy are settled so, and left out.
        """
        line: deque[Any] | None = None
        priority = room = 0
        while events:
            event = events[0]
            # The short way: what `admit` would look at has not changed since it last set the limit.
            if room > 0 and line is not None and getattr(event, "priority", None) == priority:
                line.append(event)
                room -= 1
                events.popleft()
                continue
            room = 0
            if not self._give_first(events, giver):
                return
            door = self.lanes.doors.get(getattr(event, "priority", 0))
            if door is not None:
                line, lane = door
                priority, room = lane.priority, lane.limit - len(line)

    def give_arrivals(self, events: deque[Event[Any]], priority: int) -> None:
        """Do what `give` does, for events of one priority that come from another domain."""
        while events:
            door = self.lanes.doors.get(priority)
            if door is not None:
                line, lane = door
                if lane.limit > len(line):  # they all come now: there is no need to look at the clock
                    room = min(self.maxsize - lane.backlog - lane.promised - len(line), len(events))
                    line.extend(islice(events, room))
                    for _ in range(room):
                        events.popleft()
            if events and not self._give_first(events, Giver.ARRIVAL):
                return

    def _give_first(self, events: deque[Event[Any]], giver: Giver) -> bool:
        """Give the first of some events; False when it has to wait for room."""
        try:
            if not self.admit(events[0], giver):
                return False
        except QueueFull:
            settle(events[0], "refused")  # by its policy, `Fail`; the source goes on
        events.popleft()
        return True

    def _append(self, event: Event[Any], lane: Lane, state: TypePolicy | None) -> None:
        """Put the event in line; there is room."""
        lane.mark(self._clock())
        lane.line.append(state.slot(event, lane) if state is not None and state.keeps_slots else event)
        if not lane.occupied:
            self.lanes.occupy(lane)
            self.wake_getter()
        if (
            not self._policies
            and not self.busy
            and not lane.is_awaited
            and not self.room.laneless
            and self.spills is None
        ):
            lane.limit = min(len(lane.line) + lane.stride, self.maxsize - lane.backlog - lane.promised)

    def _overflow(self, event: Event[Any], lane: Lane | None, state: TypePolicy | None, giver: Giver) -> bool:
        """Deal with an event that finds its lane full, or none; False when its giver has to wait."""
        if state is not None and state.spills:
            assert self.spills is not None
            if self.spills.line(event).give(event, waits=giver.waits):
                return True
        elif state is not None and not state.fails:
            oldest = state.oldest(lane) if lane is not None and state.keeps_slots else None
            if lane is not None and oldest is not None:
                state.empty(oldest, state.reason)
                self._append(event, lane, state)
            else:
                state.route.drop(event, state.reason)
                self.turned_away += 1
            return True
        if state is not None and state.fails and giver is not Giver.HOLDER:
            self.refuse(event)
        if giver.waits:
            return False
        held = lane.live - self.maxsize if lane is not None else len(self.lanes) - self.lanes.max_lanes
        if giver is Giver.HANDLER and held >= self.max_secondary:
            self.refuse(event)
        if lane is None:
            lane = self.lanes.force(event.priority)
        self._append(event, lane, state)
        return True

    def _give_to(self, line: SpillLine, event: Event[Any], giver: Giver) -> bool:
        """Deal with an event that comes after others on the disk; False when its giver has to wait."""
        loop = asyncio_events._get_running_loop()
        if loop is not self._loop:
            self._meet(loop)
        if line.give(event, waits=giver.waits):
            return True
        if giver.waits:
            return False
        if giver is Giver.HANDLER and len(line.beyond) >= self.max_secondary:
            self.refuse(event)
        line.give_beyond(event)
        return True

    def append(self, event: Event[Any], lane: Lane) -> None:
        """Put an event into a place of its lane that was kept for it."""
        self._append(event, lane, None)

    async def wait_for_room(self, event: Event[Any], giver: Giver = Giver.OUTSIDE) -> None:
        """Wait until the event's lane has room, in the order of asking, then give it.

        Cancelled, it is not given.
        """
        if self.spills is not None:
            state = self._policies.get(event.type)
            if (state is not None and state.spills) or self.spills.busy_line(event) is not None:
                await self.spills.line(event).wait(event)
                return
        lane = await self.room.wait(event.priority, arrives=giver is Giver.ARRIVAL)
        if self.closed is not None:
            raise self.closed()
        assert lane is not None
        self._append(event, lane, self._policies.get(event.type))

    def close(self, reason: Callable[[], Exception]) -> None:
        """Let nothing more in from outside; whoever waits for room gets the error that `reason` makes."""
        self.closed = reason
        self.room.close()
        if self.spills is not None:
            self.spills.shut()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this event loop from now on; puts from elsewhere raise `BadCall`."""
        self._loop = loop
        self._clock = clock_of(loop)
        self._bound = True

    def _meet(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the clock of the loop that is running now, or refuse one that is not the queue's own."""
        if self._bound:
            where = "from a thread without an event loop" if loop is None else "from another event loop"
            raise BadCall(f"an event was given {where}; a nexus belongs to one loop: use ingest_threadsafe()")
        if loop is not None:
            self._loop = loop
            self._clock = clock_of(loop)

    def put_back(self, lane: Lane, entry: Any) -> None:
        """Return an entry to the front of its lane, as if it had never left; tries keep their order."""
        lane = self.lanes.force(lane.priority)
        lane.put_back(entry)
        if not lane.occupied:
            self.lanes.occupy(lane)
            self.wake_getter()

    # Taking.

    async def get(self) -> Event[Any]:
        """Wait for the most urgent event and take it; cancelled, no event is lost."""
        while True:
            try:
                return self.get_nowait()
            except asyncio.QueueEmpty:
                await self.wait()

    def get_nowait(self) -> Event[Any]:
        """Take the most urgent event.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        while (lane := self.lanes.select(self._clock())) is not None:
            entry = lane.line.popleft()
            lane.taken += 1
            event: Event[Any] | None = open_slot(entry) if entry.__class__ is Slot else entry
            if not lane.line:
                self.lanes.vacate(lane)
            self.room.release(lane)
            if event is not None:
                return event
        raise asyncio.QueueEmpty

    @property
    def is_waited_for_once(self) -> bool:
        """Whether just one waits for an event."""
        return len(self._getters) == 1

    async def wait(self) -> None:
        """Wait until a lane has something in it."""
        if self.lanes.any_occupied:
            return
        getter = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except asyncio.CancelledError:
            if getter.done() and not getter.cancelled():
                self.wake_getter()
            elif getter in self._getters:
                self._getters.remove(getter)
            raise

    def wake_getter(self) -> None:
        """Wake the first who waits for an event."""
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


class SecondaryQueue:
    """The queue as a handler sees it: for secondary events and replies, which never wait.

    It takes events beyond the lane's bound, up to the nexus's `max_secondary`, so a handler is never stopped
    by its own nexus.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: AsyncEventPriorityQueue) -> None:
        self._queue = queue

    @property
    def domain(self) -> str:
        """The unique name of the nexus's domain, which boundaries go by."""
        return self._queue.domain

    async def put(self, event: Event[Any]) -> None:
        """Give a secondary event or a reply; does not wait.

        Raises:
            QueueFull: handlers have put more than the bound for them, or the type's policy is `Fail`.
            BadEvent: it is no event.
        """
        self._queue.admit(event, Giver.HANDLER)

    def put_nowait(self, event: Event[Any]) -> None:
        """Give a secondary event or a reply; the same as `put` for plain functions.

        Raises:
            QueueFull: handlers have put more than the bound for them, or the type's policy is `Fail`.
            BadEvent: it is no event.
        """
        self._queue.admit(event, Giver.HANDLER)

    def qsize(self) -> int:
        """Return how many events wait in the nexus."""
        return self._queue.qsize()

    def empty(self) -> bool:
        """Say whether no event waits in the nexus."""
        return self._queue.empty()
