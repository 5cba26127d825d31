"""Lanes: one first-in first-out line per priority, and which of them are occupied."""

from __future__ import annotations

from asyncio import Future
from bisect import insort
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from ._event import Event, EventKey
from ._stats import LatencyRecorder

if TYPE_CHECKING:
    from ._slots import TypePolicy

__all__ = ["Again", "Lane", "Lanes", "Slot"]

_MARK_SECONDS = 5e-5
_MARK_SHARE = 0.02
_SHORTEST_STRIDE = 8
_LONGEST_STRIDE = 128


class Slot:
    """A place in a lane whose event may still be dropped or replaced; empty once that has happened.

    It passes for an event with metadata, so that the drain loop looks at it more closely.
    """

    __slots__ = ("_meta", "event", "key", "lane", "leads_out", "moved", "owner", "type")
    needs_care = True
    only_tells = False

    def __init__(self, event: Event[Any], lane: Lane, owner: TypePolicy) -> None:
        self.event: Event[Any] | None = event
        self.type: EventKey = event.type
        self.lane = lane
        self.owner = owner
        """The policy under which it waits."""
        self.key: Hashable = None
        self.moved = False
        """Whether it has left the lane for a handler's own backlog."""
        self.leads_out = False
        """Whether it waits there to leave for another domain."""
        self._meta = self


class Again:
    """A second try at the front of its lane; its event is counted with the active ones, not with the
    waiting."""

    __slots__ = ("_meta", "attempt", "binding", "delivery", "event", "type")
    needs_care = True
    only_tells = False

    def __init__(self, delivery: Any, binding: Any, attempt: int) -> None:
        self.delivery = delivery
        self.binding = binding
        self.attempt = attempt
        self.event = None
        self.type: EventKey = delivery.event.type
        self._meta = self


class Lane:
    """The events of one priority, in their order.

    Attributes:
        line: the entries, first in line first.
        limit: the length at which the next append has to look closer (room, policy, clock); 0 for always.
        taken: entries that have left at the front, ever.
        holes: entries still in line that do not count: their event was dropped, or they are second tries.
        promised: places kept for givers that were woken and have not run yet.
        backlog: events that have left the line but wait for a busy handler; they keep their place in the
            bound.
        outbound: those of them that wait to leave for another domain. What arrives from there has as many
            places beyond the bound, up to twice the bound, or two domains that flood each other would wait
            for each other for ever.
    """

    __slots__ = (
        "_marks",
        "_next_mark",
        "arrivals",
        "backlog",
        "handling",
        "holes",
        "length",
        "limit",
        "line",
        "looked",
        "occupied",
        "outbound",
        "pace",
        "priority",
        "promised",
        "stride",
        "taken",
        "turn",
        "waiters",
        "waiting",
    )

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.line: deque[Any] = deque()  # bounded by the queue's maxsize
        self.limit = 0
        self.occupied = False
        self.taken = 0
        self.holes = 0
        self.backlog = 0
        self.outbound = 0
        self.promised = 0
        self.waiters: deque[Future[bool]] = deque()  # bounded by the tasks that wait to put
        self.arrivals: deque[Future[bool]] = deque()  # the same, of those who have what another domain sent
        self.turn = False
        """Whose turn it is where both wait."""
        self.waiting = LatencyRecorder()
        self.handling = LatencyRecorder()
        # When the entries came: (position, time) pairs, fewer the longer the line has stood, so that a wait
        # is known to 2 % of the longest in line, or 50 us, without a time stamp for each event.
        # Bounded by the growth of the gaps: under 1,000 a day.
        self._marks: deque[tuple[int, float]] = deque()
        self._next_mark = 0.0
        self.looked = 0.0
        self.length = 1
        """Entries that may be taken from it in a row."""
        self.pace = 0.0
        """Seconds one of them took lately, in quick runs."""
        self.stride = _SHORTEST_STRIDE
        """Events an undisturbed giver adds before he looks at the clock again; more while they come fast."""

    def __repr__(self) -> str:
        return f"<Lane {self.priority}: {len(self.line)} in line, {self.backlog} in backlog>"

    @property
    def live(self) -> int:
        """Events that count against the bound."""
        return len(self.line) - self.holes + self.backlog

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be missed if the lane went."""
        return not (self.occupied or self.backlog or self.is_awaited or self.promised)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a place."""
        return bool(self.waiters or self.arrivals)

    def enter_backlog(self, item: Any, *, leads_out: bool) -> None:
        """Note that a slot or delivery waits for a busy handler from now on."""
        self.backlog += 1
        self.limit = 0
        self.lead_out(item, leads_out)

    def move_lot(self, count: int, *, leads_out: bool) -> None:
        """Note that so many events more wait for a busy handler; fewer, if it is negative."""
        self.backlog += count
        self.limit = 0
        if leads_out:
            self.outbound += count

    def lead_out(self, item: Any, leads_out: bool) -> None:
        """Note that what is in the backlog waits to leave for another domain, among others perhaps."""
        if leads_out and not item.leads_out:
            item.leads_out = True
            self.outbound += 1

    def leave_backlog(self, item: Any) -> None:
        """Note that it waits no more."""
        self.backlog -= 1
        if item.leads_out:
            item.leads_out = False
            self.outbound -= 1

    def mark(self, now: float) -> None:
        """Remember that the next entry comes now."""
        if not self.limit:  # others had their turn: half as fast as before is likely
            self.stride = max(_SHORTEST_STRIDE, self.stride // 2)
        elif now - self.looked < _MARK_SECONDS:
            self.stride = min(2 * self.stride, _LONGEST_STRIDE)
        else:
            self.stride = _SHORTEST_STRIDE
        self.looked = now
        if not self.occupied:
            self._marks.clear()
        elif now < self._next_mark:
            return
        self._marks.append((self.taken + len(self.line), now))
        self._next_mark = now + max(_MARK_SECONDS, (now - self._marks[0][1]) * _MARK_SHARE)

    def waited(self, now: float) -> float:
        """Return for how many seconds the first in line has waited."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= self.taken:
            marks.popleft()
        return now - marks[0][1] if marks else 0.0

    def record_waiting(self, now: float, count: int, *, after: int = 0) -> None:
        """Note that the next entries of the line, but for the first few, have waited until now."""
        marks = self._marks
        place = self.taken + after
        while count and len(marks) > 1 and marks[1][0] < place + count:
            here = marks[1][0] - place
            if here > 0:
                self.waiting.record(now - marks[0][1], here)
                place += here
                count -= here
            marks.popleft()
        self.waiting.record(now - marks[0][1] if marks else 0.0, count)

    def put_back(self, entry: Any) -> None:
        """Return an entry to the front, as if it had never left; a second try behind those there."""
        place = 0
        if isinstance(entry, Again):
            self.holes += 1
            while place < len(self.line) and isinstance(self.line[place], Again):
                place += 1
        self.line.insert(place, entry)
        self.taken -= 1

    def close_holes(self) -> bool:
        """Take the holes out of the line, once they are more than half of it; say whether that was done."""
        wide = self.holes > 64 and self.holes * 2 > len(self.line)
        if wide:
            kept = [entry for entry in self.line if not (entry.__class__ is Slot and entry.event is None)]
            tries = sum(entry.__class__ is Again for entry in kept)
            self._move_marks()
            self.taken += len(self.line) - len(kept)
            self.line.clear()
            self.line.extend(kept)
            self.holes = tries
        return wide

    def _move_marks(self) -> None:
        """Move the marks to where their entries will be once the holes before them are gone.

        The whole line ends where it ended, so an entry moves by the holes behind it.
        """
        ahead = [0]
        for entry in self.line:
            ahead.append(ahead[-1] + (entry.__class__ is Slot and entry.event is None))
        marks = tuple(self._marks)
        self._marks.clear()
        for place, time in marks:
            place += ahead[-1] - ahead[min(max(place - self.taken, 0), len(self.line))]
            if self._marks and place <= self.taken + ahead[-1]:
                self._marks.pop()
            self._marks.append((place, time))


class Lanes(dict[int, Lane]):
    """All lanes by priority.

    Args:
        max_lanes: lanes kept at once; an empty one gives way to a new priority.
        ageing: seconds of waiting that make an event count as one priority more urgent; None for strict
            priorities.

    Attributes:
        doors: per priority the line and its lane, for those who append in a hurry.
        current: the lane being served; cleared when a more urgent one gets its first event.
    """

    __slots__ = ("_occupied", "ageing", "current", "doors", "max_lanes", "taken_before")

    def __init__(self, max_lanes: int, ageing: float | None) -> None:
        super().__init__()
        self.max_lanes = max_lanes
        self.ageing = ageing
        self.doors: dict[int, tuple[deque[Any], Lane]] = {}
        self.current: Lane | None = None
        self.taken_before = 0
        """What lanes that are gone had taken."""
        self._occupied: list[int] = []

    def __setitem__(self, priority: int, lane: Lane) -> None:
        super().__setitem__(priority, lane)
        self.doors[priority] = (lane.line, lane)

    def __delitem__(self, priority: int) -> None:
        super().__delitem__(priority)
        del self.doors[priority]

    @property
    def occupied(self) -> list[Lane]:
        """The lanes with something in them, the most urgent first."""
        return [self[priority] for priority in self._occupied]

    @property
    def any_occupied(self) -> bool:
        """Whether any lane has something in it."""
        return bool(self._occupied)

    @property
    def several_occupied(self) -> bool:
        """Whether something waits behind what is more urgent."""
        return len(self._occupied) > 1

    def open(self, priority: int) -> Lane | None:
        """Return the lane of a priority, a new one if need be; None when all lanes are taken."""
        lane = self.get(priority)
        if lane is None:
            if len(self) >= self.max_lanes:
                idle = next((lane for lane in self.values() if lane.is_idle), None)
                if idle is None:
                    return None
                self.taken_before += idle.taken
                del self[idle.priority]
            lane = self.force(priority)
        return lane

    def force(self, priority: int) -> Lane:
        """Return the lane of a priority, a new one if need be, however many there are."""
        lane = self.get(priority)
        if lane is None:
            lane = self[priority] = Lane(priority)
        return lane

    def occupy(self, lane: Lane) -> None:
        """Note that the lane has its first event."""
        lane.occupied = True
        insort(self._occupied, lane.priority)
        if self.current is not None and lane.priority < self.current.priority:
            self.current = None

    def vacate(self, lane: Lane) -> None:
        """Note that the lane is empty."""
        lane.occupied = False
        self._occupied.remove(lane.priority)
        lane.limit = 0
        self.current = None

    def select(self, now: float) -> Lane | None:
        """Choose the lane to serve next, and make it the current one; None when all are empty."""
        if not self._occupied:
            self.current = None
        elif self.ageing is None or len(self._occupied) == 1:
            self.current = self[self._occupied[0]]
        else:
            ageing = self.ageing
            self.current = min(
                self.occupied, key=lambda lane: (lane.priority - lane.waited(now) / ageing, lane.priority)
            )
        return self.current

    def look_again(self, now: float) -> None:
        """Make the next append to each lane look at the clock; givers get their turn now."""
        for priority in self._occupied:
            lane = self[priority]
            lane.limit = 0
            lane.looked = now
