"""The queue that orders events by priority, bounds them, and says what happens when there are too many."""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from time import monotonic
from typing import Any

from ._event import Event, EventKey, NamedEvent, event_type_of
from ._lanes import Again, Lane, Lanes, Slot
from ._policy import DropNewest, DropOldest, Fail, LatestByKey, OverloadPolicy, check_policy
from ._route import Ledger, Route
from .errors import BadCall, BadEvent, QueueFull

__all__ = ["AsyncEventPriorityQueue", "SecondaryQueue", "clock_of"]

_CLOCK_RUN = 16
"""Events that one undisturbed giver may add between two looks at the clock."""


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the loop's clock, without the detour through the loop where it is the monotonic clock anyway."""
    if getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time or type(loop).__module__ == "uvloop":
        return monotonic
    return loop.time


class Giver(Enum):
    """Who puts an event, and so what may be asked of him."""

    OUTSIDE = "outside"
    """Anyone; can wait, and finds the door closed during a stop."""
    HANDLER = "handler"
    """A handler of this nexus; never waits."""
    HOLDER = "holder"
    """Has the event in hand and would lose it; always gets it in."""


class _PolicyState:
    """A type's policy, its account, and which of its events wait where."""

    __slots__ = ("by_key", "key", "lanes", "moved", "policy", "route")

    def __init__(self, policy: OverloadPolicy, route: Route) -> None:
        self.policy = policy
        self.route = route
        self.key: Callable[[Event[Any]], Hashable] | None = policy.key if isinstance(policy, LatestByKey) else None
        self.by_key: dict[Hashable, Slot] = {}
        self.lanes: dict[int, deque[Slot]] = {}
        """Events in line that may be dropped, per priority."""
        self.moved: dict[int, deque[Slot]] = {}
        """The same for those that have left the line and wait for a busy handler; older than any in line."""


class AsyncEventPriorityQueue:
    """Events, the most urgent first, those of one priority in the order they came.

    Each priority has a lane of its own with a bound of its own, so a flood of one priority never stands in the way of
    another: an urgent event finds room though the ordinary lane is full. What happens at a full lane is chosen per event
    type by `set_policy`; unless told otherwise the giver waits.

    Args:
        maxsize: events a lane holds.
        max_lanes: different priorities waiting at once; a further one finds no room, as if its lane were full.
        ageing: seconds of waiting that make an event count as one priority more urgent; None for strict priorities.
        max_secondary: events that handlers may put into a full lane beyond `maxsize` before they get `QueueFull`.
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
        self.turned_away = 0
        """Events dropped at the door: counted as ingested and dropped, though they never had a place."""
        self.busy = False
        """Whether the taker is with a handler, so that time may pass between two puts."""
        self.closed: Callable[[], Exception] | None = None
        """Makes the error that `put` raises; None while the queue is open."""
        self._clock: Callable[[], float] = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bound = False
        self._policies: dict[EventKey, _PolicyState] = {}
        self._getters: deque[asyncio.Future[None]] = deque()  # bounded by the tasks that wait to get

    def __repr__(self) -> str:
        depths = ", ".join(f"{lane.priority}: {lane.live}" for lane in self.lanes.occupied)
        return f"<{self.__class__.__name__} maxsize={self.maxsize} lanes={{{depths}}}>"

    # Looking.

    def qsize(self) -> int:
        """Return how many events wait."""
        return sum(lane.live for lane in self.lanes.values())

    def empty(self) -> bool:
        """Say whether no event waits."""
        return self.qsize() == 0

    def full(self, priority: int = 0) -> bool:
        """Say whether the lane of this priority has no room."""
        lane = self.lanes.get(priority)
        return lane is not None and lane.live >= self.maxsize

    def events(self) -> Iterator[Event[Any]]:
        """Iterate over the waiting events in the order of strict priority; the queue must not change meanwhile."""
        for lane in self.lanes.occupied:
            for entry in lane:
                event = entry if isinstance(entry, Event) else entry.event
                if event is not None:
                    yield event

    @property
    def entered(self) -> int:
        """Events ever accepted or dropped at the door, counted where they enter and leave the lanes."""
        return self.turned_away + self.lanes.taken_before + sum(lane.taken + len(lane) for lane in self.lanes.values())

    # Policies.

    def set_policy(self, type: EventKey | type[NamedEvent[Any]], policy: OverloadPolicy) -> None:
        """Choose what happens to events of this type at a full lane; those waiting already stay as they are.

        Raises:
            TypeError: it is not an event type, or not a policy.
        """
        key = event_type_of(type)
        self._policies[key] = _PolicyState(check_policy(policy), self.ledger.own(key))
        for lane in self.lanes.values():
            lane.limit = 0

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
        found = f"lane {event.priority} holds {lane.live} events" if lane else f"all {len(self.lanes)} lanes are taken"
        raise QueueFull(
            f"no room for {event.type!r} at priority {event.priority}: {found}, maxsize is {self.maxsize}; "
            "await put(), raise maxsize or set a policy that drops"
        )

    def admit(self, event: Event[Any], giver: Giver) -> bool:
        """Give an event the careful way; False when its giver has to wait for room."""
        if self.closed is not None and giver is Giver.OUTSIDE:
            raise self.closed()
        try:
            lane = self.lanes.get(event.priority)
            state = self._policies.get(event.type) if self._policies else None
        except (AttributeError, TypeError) as exc:
            raise _not_an_event(event) from exc
        if lane is None:
            _check(event)
            lane = self.lanes.open(event.priority)
            if lane is None:
                return self._overflow(event, None, state, giver)
        elif not lane:
            _check(event)
        loop = asyncio_events._get_running_loop()
        if loop is not self._loop:
            self._meet(loop)
        if state is not None and state.policy.__class__ is LatestByKey and self._replace(event, lane, state):
            return True
        if lane.live + lane.promised >= self.maxsize or (lane.waiters and state is None):
            return self._overflow(event, lane, state, giver)
        self._append(event, lane, state)
        return True

    def _append(self, event: Event[Any], lane: Lane, state: _PolicyState | None) -> None:
        """Put the event in line; there is room."""
        lane.mark(self._clock())
        if state is None or isinstance(state.policy, DropNewest | Fail):
            lane.append(event)
        else:
            lane.append(self._slot(event, lane, state))
        if not lane.occupied:
            self.lanes.occupy(lane)
            self._wake_getter()
        if not self._policies and not self.busy and not lane.waiters:
            lane.limit = min(len(lane) + _CLOCK_RUN, self.maxsize - lane.backlog - lane.promised)

    def _overflow(self, event: Event[Any], lane: Lane | None, state: _PolicyState | None, giver: Giver) -> bool:
        """Deal with an event that finds its lane full, or no lane at all; False when its giver has to wait."""
        policy = state.policy if state is not None else None
        if isinstance(policy, DropOldest | LatestByKey | DropNewest) and state is not None:
            reason = {DropOldest: "drop_oldest", LatestByKey: "drop_oldest"}.get(policy.__class__, "drop_newest")
            oldest = self._oldest(lane, state) if lane is not None and policy.__class__ is not DropNewest else None
            if lane is not None and oldest is not None:
                self._empty(oldest, state, reason)
                self._append(event, lane, state)
            else:
                state.route.drop(reason)
                self.turned_away += 1
            return True
        if isinstance(policy, Fail):
            self.refuse(event)
        if giver is Giver.OUTSIDE:
            return False
        if lane is None:
            lane = self.lanes[event.priority] = Lane(event.priority)
        if giver is Giver.HANDLER and lane.live >= self.maxsize + self.max_secondary:
            self.ledger.account(event.type).refused += 1
            raise QueueFull(
                f"handlers have put {lane.live} events at priority {event.priority}; the bound for events from handlers "
                f"is maxsize + max_secondary = {self.maxsize + self.max_secondary}"
            )
        self._append(event, lane, state)
        return True

    async def wait_for_room(self, event: Event[Any]) -> None:
        """Wait until the event's lane has room, in the order of asking, then give it; cancelled, it is not given."""
        while True:
            lane = self.lanes.open(event.priority)
            place = lane if lane is not None else self.lanes[max(self.lanes)]  # no lane free: wait at the last one
            waiter = asyncio.get_running_loop().create_future()
            place.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.cancelled() or not waiter.done():
                    place.waiters.remove(waiter)
                else:
                    self._keep_promise(place)
                    self.release(place)
                raise
            self._keep_promise(place)
            if self.closed is not None:
                raise self.closed()
            lane = self.lanes.open(event.priority)
            if lane is not None and lane.live + lane.promised < self.maxsize:
                self._append(event, lane, self._policies.get(event.type))
                return

    def _keep_promise(self, lane: Lane) -> None:
        """Give up the room that was kept for somebody woken."""
        lane.promised = max(0, lane.promised - 1)

    def release(self, lane: Lane) -> None:
        """Wake as many who wait for room in the lane as there is room for, and keep that room for them."""
        while lane.waiters and lane.live + lane.promised < self.maxsize:
            waiter = lane.waiters.popleft()
            if not waiter.done():
                lane.promised += 1
                lane.limit = 0
                waiter.set_result(None)

    def release_all(self) -> None:
        """Wake whoever waits for room that is there."""
        for lane in self.lanes.values():
            if lane.waiters:
                self.release(lane)

    def close(self, reason: Callable[[], Exception]) -> None:
        """Let nothing more in from outside; whoever waits for room gets the error that `reason` makes."""
        self.closed = reason
        for lane in self.lanes.values():
            lane.limit = 0
            for waiter in lane.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            lane.waiters.clear()

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
        """Return an entry to the front of its lane, as if it had never left."""
        lane = self.lanes.get(lane.priority) or self.lanes.setdefault(lane.priority, Lane(lane.priority))
        if isinstance(entry, Again):
            lane.holes += 1
        lane.put_back(entry)
        if not lane.occupied:
            self.lanes.occupy(lane)
            self._wake_getter()

    # Slots: places of events that a policy may take away again.

    def _slot(self, event: Event[Any], lane: Lane, state: _PolicyState) -> Slot:
        """Make a slot for an event and remember it with its type."""
        slot = Slot(event, lane)
        if isinstance(state.policy, LatestByKey):
            slot.key = state.key(event) if state.key is not None else None
            state.by_key[slot.key] = slot
        if isinstance(state.policy, DropOldest | LatestByKey):
            state.lanes.setdefault(lane.priority, deque()).append(slot)  # bounded by the lane
        return slot

    def _oldest(self, lane: Lane, state: _PolicyState) -> Slot | None:
        """Return the slot of the type's oldest event in the lane, or None."""
        for slots in (state.moved.get(lane.priority), state.lanes.get(lane.priority)):
            while slots and slots[0].event is None:
                slots.popleft()
            if slots:
                return slots[0]
        return None

    def _replace(self, event: Event[Any], lane: Lane, state: _PolicyState) -> bool:
        """Put the event in the place of a waiting one with its key, if there is one in the same lane."""
        slot = state.by_key.get(state.key(event) if state.key is not None else None)
        if slot is None or slot.event is None:
            return False
        if slot.lane is lane:
            slot.event = event
            state.route.drop("replaced")
            self.turned_away += 1
            return True
        self._empty(slot, state, "replaced")
        return False

    def _empty(self, slot: Slot, state: _PolicyState, reason: str) -> None:
        """Drop the event in a slot."""
        slot.event = None
        state.route.drop(reason)
        if slot.moved:
            slot.lane.backlog -= 1
        else:
            slot.lane.holes += 1
            if slot.lane.close_holes():
                self.lanes.current = None  # the taker's run of entries has become shorter

    def open_slot(self, slot: Slot) -> Event[Any] | None:
        """Take the event out of a slot that has left its lane; None when it was dropped."""
        event, slot.event = slot.event, None
        if event is None:
            if not slot.moved:
                slot.lane.holes -= 1
            return None
        state = self._policies.get(slot.type)
        if state is not None:
            if state.by_key.get(slot.key) is slot:
                del state.by_key[slot.key]
            self._oldest(slot.lane, state)
        return event

    def slot_again(self, event: Event[Any], lane: Lane) -> Slot | None:
        """Make a slot for an event that has left its lane but has to wait for its handler; None when it was replaced."""
        state = self._policies.get(event.type)
        if state is None:
            return Slot(event, lane)
        key = state.key(event) if state.key is not None else None
        if isinstance(state.policy, LatestByKey) and key in state.by_key:
            state.route.drop("replaced")
            return None
        slot = Slot(event, lane, key)
        slot.moved = True
        state.moved.setdefault(lane.priority, deque()).append(slot)  # bounded by the lane
        if isinstance(state.policy, LatestByKey):
            state.by_key[key] = slot
        return slot

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
            entry = lane.popleft()
            lane.taken += 1
            event: Event[Any] | None = self.open_slot(entry) if entry.__class__ is Slot else entry
            if not lane:
                self.lanes.vacate(lane)
            self.release(lane)
            if event is not None:
                return event
        raise asyncio.QueueEmpty

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
                self._wake_getter()
            else:
                self._getters.remove(getter)
            raise

    def _wake_getter(self) -> None:
        """Wake the first who waits for an event."""
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


class SecondaryQueue:
    """The queue as a handler sees it: for secondary events and replies, which never wait.

    It takes events beyond the lane's bound, up to the nexus's `max_secondary`, so a handler is never stopped by its
    own nexus.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: AsyncEventPriorityQueue) -> None:
        self._queue = queue

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


def _check(event: Event[Any]) -> None:
    """Raise `BadEvent` unless it is an event with a priority and type that can be used."""
    if not isinstance(event, Event) or not isinstance(event.priority, int) or not isinstance(event.type, int | str):
        raise _not_an_event(event)


def _not_an_event(thing: object) -> BadEvent:
    """Make the error for something that is no event."""
    if isinstance(thing, Event):
        return BadEvent(
            f"an event's priority is an int and its type an int or str; "
            f"found priority {thing.priority!r} and type {thing.type!r}"
        )
    return BadEvent(f"an event is an instance of nexus.Event, not {thing.__class__.__name__}: {thing!r:.80}")
