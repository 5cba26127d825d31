"""Overload policies at work: which waiting events may be dropped or replaced, and doing so."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from ._event import Event, EventKey
from ._lanes import Lane, Lanes, Slot
from ._policy import Block, DropNewest, DropOldest, Fail, LatestByKey, OverloadPolicy, Spill
from ._route import Route

__all__ = ["Policies", "TypePolicy", "open_slot", "slot_again"]

_SLACK = 64

_Lines = dict[int, deque[Slot]]


class TypePolicy:
    """One type's policy, its account, and which of its events wait where.

    Attributes:
        keeps_slots: whether events of the type wait in slots, because one of them may go.
        keeps_latest: whether a newer event takes the place of an older one.
        fails: whether the giver gets an error at a full lane.
        spills: whether an event goes to the disk there.
    """

    __slots__ = (
        "_by_key",
        "_in_line",
        "_lanes",
        "_moved",
        "fails",
        "keeps_latest",
        "keeps_slots",
        "policy",
        "route",
        "spills",
    )

    def __init__(self, policy: OverloadPolicy, route: Route, lanes: Lanes) -> None:
        self.policy = policy
        self.route = route
        self.keeps_slots = isinstance(policy, DropOldest | LatestByKey)
        self.keeps_latest = isinstance(policy, LatestByKey)
        self.fails = isinstance(policy, Fail)
        self.spills = isinstance(policy, Spill)
        self._lanes = lanes
        self._by_key: dict[Hashable, Slot] = {}
        self._in_line: _Lines = {}
        self._moved: _Lines = {}
        """The same for those that have left the line and wait for a busy handler; older than any in line."""

    @property
    def reason(self) -> str:
        """Under which word a drop at a full lane is counted."""
        return "drop_newest" if isinstance(self.policy, DropNewest) else "drop_oldest"

    def _key(self, event: Event[Any]) -> Hashable:
        """Return what makes the event the same thing as another of its type."""
        key = self.policy.key if isinstance(self.policy, LatestByKey) else None
        return key(event) if key is not None else None

    def slot(self, event: Event[Any], lane: Lane) -> Slot:
        """Make a slot for an event that gets in line, and remember it."""
        slot = Slot(event, lane, self)
        if self.keeps_latest:
            slot.key = self._key(event)
            self._by_key[slot.key] = slot
        _remember(slot, self._in_line)
        return slot

    def oldest(self, lane: Lane) -> Slot | None:
        """Return the slot of the type's oldest event in the lane, or None."""
        return _first(self._moved, lane.priority) or _first(self._in_line, lane.priority)

    def replace(self, event: Event[Any], lane: Lane) -> bool:
        """Put the event in the place of a waiting one with its key, if there is one in the same lane.

        One in another lane is dropped.
        """
        slot = self._by_key.get(self._key(event))
        if slot is None or slot.event is None:
            return False
        if slot.lane is lane:
            old, slot.event = slot.event, event
            self.route.drop(old, "replaced")
            return True
        self.empty(slot, "replaced")
        return False

    def empty(self, slot: Slot, reason: str) -> None:
        """Drop the event in a slot."""
        event, slot.event = slot.event, None
        self._forget(slot)
        if event is not None:
            self.route.drop(event, reason)
        if slot.moved:
            slot.lane.leave_backlog(slot)
        else:
            slot.lane.holes += 1
            if slot.lane.close_holes():
                self._lanes.current = None  # the taker's run of entries has become shorter

    def taken(self, slot: Slot) -> None:
        """Note that the slot's event has been taken out."""
        self._forget(slot)
        _first(self._moved if slot.moved else self._in_line, slot.lane.priority)

    def moves(self, slot: Slot, event: Event[Any]) -> bool:
        """Note that the slot's event now waits for its busy handler; False when a newer one is in line."""
        if self.keeps_latest:
            if slot.key in self._by_key:
                self.route.drop(event, "replaced")
                return False
            self._by_key[slot.key] = slot
        _remember(slot, self._moved)
        return True

    def _forget(self, slot: Slot) -> None:
        """Let the slot no longer be the latest of its key."""
        if self._by_key.get(slot.key) is slot:
            del self._by_key[slot.key]


class Policies(dict[EventKey, TypePolicy]):
    """The types with a policy of their own; the others block."""

    def choose(self, key: EventKey, policy: OverloadPolicy, route: Route, lanes: Lanes) -> None:
        """Choose the policy of a type; what waits already stays under the old one."""
        if isinstance(policy, Block):
            self.pop(key, None)
        else:
            self[key] = TypePolicy(policy, route, lanes)


def open_slot(slot: Slot) -> Event[Any] | None:
    """Take the event out of a slot that has left its lane; None when it was dropped."""
    event, slot.event = slot.event, None
    if event is not None:
        slot.owner.taken(slot)
    elif not slot.moved:
        slot.lane.holes -= 1
    return event


def slot_again(slot: Slot, event: Event[Any]) -> bool:
    """Put an event back into the slot it came from, to wait for its handler; False when it was replaced."""
    if not slot.owner.moves(slot, event):
        return False
    slot.event = event
    slot.moved = True
    return True


def _remember(slot: Slot, lines: _Lines) -> None:
    """Add a slot to the line of its priority."""
    lane = slot.lane
    line = lines.get(lane.priority)
    if line is None:
        line = lines[lane.priority] = deque()  # bounded by the lane, twice over
    elif len(line) > 2 * lane.live + _SLACK:
        kept = [each for each in line if each.event is not None]
        line.clear()
        line.extend(kept)
    line.append(slot)


def _first(lines: _Lines, priority: int) -> Slot | None:
    """Return the first slot of a line that still holds its event; a line without any is forgotten."""
    line = lines.get(priority)
    if line is None:
        return None
    while line:
        if line[0].event is not None:
            return line[0]
        line.popleft()
    del lines[priority]
    return None
