"""The receiving half of a link: order, duplicates, gaps, and how much more may come. No I/O.

Fed with frames and a clock, it gives events in the order of their lane, each once, and makes the
acknowledgements. An event counts as accepted when `accepted` says so, and not when it came.
"""

from __future__ import annotations

from typing import Any, Final

from nexus.boundaries.link._frames import MAX_RANGES, Ack, Events, Hello, LaneAck
from nexus.boundaries.link._window import Window

__all__ = ["Inflow"]

MAX_LANES: Final = 64


class _Lane:
    """One priority of the other side."""

    __slots__ = ("accepted", "expected", "granted", "held", "priority", "window")

    def __init__(self, priority: int, first: int, window: Window) -> None:
        self.priority = priority
        self.expected = first
        """The next number that is to be given."""
        self.accepted = first - 1
        """All up to it is accepted."""
        self.granted = 0
        """The limit that the other side was told last."""
        self.window = window
        self.held: dict[int, list[list[Any]]] = {}
        """Beyond a gap, by the first number; bounded by the window."""

    @property
    def limit(self) -> int:
        return self.accepted + self.window.size


class Inflow:
    """What comes from one source.

    It outlives connections: after a reconnect it goes on where it was, and what comes twice is left out.

    Args:
        least: events a lane's window never falls below.
        most: events it never exceeds.
        target: seconds of delay on the way that the window is adapted to.
    """

    def __init__(self, *, least: int = 2, most: int = 8192, target: float = 0.005) -> None:
        self.least = least
        self.most = most
        self.target = target
        self.duplicates = 0
        """Events that came again and were left out."""
        self.refused = 0
        """Events beyond the limit, which were not taken; they come again."""
        self._lanes: dict[int, _Lane] = {}
        self._due: set[int] = set()
        self._always = False

    def opened(self, hello: Hello) -> None:
        """Note a new connection, with what may still come on it."""
        for lane in self._lanes.values():
            lane.expected = lane.accepted + 1  # what was given and not accepted comes again
            lane.granted = 0
            lane.held.clear()
        for priority, first in hello.lanes:
            known = self._lane(priority)
            if known is not None and first > known.expected:
                known.expected, known.accepted = first, first - 1  # whoever accepted the rest is not us
        self.tell_all()

    def received(self, frame: Events) -> list[list[Any]]:
        """Take a frame; give the events that are next in their lane, those that waited for it included."""
        lane = self._lane(frame.priority)
        if lane is None:
            self.refused += len(frame.rows)
            return []
        self._due.add(frame.priority)
        rows, first = frame.rows, frame.first
        if first < lane.expected:
            again = min(len(rows), lane.expected - first)
            self.duplicates += again
            rows, first = rows[again:], first + again
        over = first + len(rows) - 1 - max(lane.granted, lane.limit)
        if over > 0:
            self.refused += min(over, len(rows))
            rows = rows[: max(0, len(rows) - over)]
        if not rows:
            return []
        if first > lane.expected:
            self._hold(lane, first, rows)
            return []
        lane.expected += len(rows)
        if lane.held:
            rows = rows + self._released(lane)
        return rows

    def accepted(self, priority: int, count: int, sent: int, now: float) -> None:
        """Note that the next events of a lane are accepted.

        Args:
            sent: microseconds on the sender's clock at which the last of them went; 0 if unknown.
            now: seconds on the clock.
        """
        lane = self._lanes[priority]
        lane.accepted += count
        if sent:
            lane.window.record(count, sent, now)
        self._due.add(priority)

    def ack(self) -> Ack | None:
        """Make an acknowledgement of what is new; None if nothing is."""
        if not self._due and not self._always:
            return None
        self._always = False
        lanes = tuple(self._ack(self._lanes[priority]) for priority in sorted(self._due))
        self._due.clear()
        return Ack(self._first_window, lanes)

    def tell_all(self) -> None:
        """Let the next acknowledgement say how all lanes stand: the other side asks, or missed one."""
        self._due.update(self._lanes)
        self._always = True

    @property
    def is_urging(self) -> bool:
        """Whether the other side may soon stand still for want of an acknowledgement, or has a gap."""
        return self._always or any(
            lane.held or 2 * (lane.granted - lane.accepted) <= lane.window.size
            for lane in map(self._lanes.__getitem__, self._due)
        )

    @property
    def _first_window(self) -> int:
        return max(self.least, min(64, self.most))

    def _lane(self, priority: int) -> _Lane | None:
        lane = self._lanes.get(priority)
        if lane is None and len(self._lanes) < MAX_LANES:
            window = Window(self._first_window, self.least, self.most, self.target)
            lane = self._lanes[priority] = _Lane(priority, 1, window)
        return lane

    def _hold(self, lane: _Lane, first: int, rows: list[list[Any]]) -> None:
        """Keep what came beyond a gap, unless it is there already."""
        for low, kept in lane.held.items():
            if low <= first < low + len(kept):
                again = min(len(rows), low + len(kept) - first)
                self.duplicates += again
                rows, first = rows[again:], first + again
                if not rows:
                    return
        after = min((low for low in lane.held if low > first), default=None)
        if after is not None and first + len(rows) > after:
            self.duplicates += first + len(rows) - after
            rows = rows[: after - first]
        if rows and len(lane.held) < MAX_RANGES:
            lane.held[first] = rows

    def _released(self, lane: _Lane) -> list[list[Any]]:
        """Give what waited for a gap to close."""
        found: list[list[Any]] = []
        for first in sorted(lane.held):
            if first > lane.expected:
                break
            rows = lane.held.pop(first)
            new = rows[lane.expected - first :]
            self.duplicates += len(rows) - len(new)
            found += new
            lane.expected += len(new)
        return found

    def _ack(self, lane: _Lane) -> LaneAck:
        lane.granted = max(lane.granted, lane.limit)
        ranges: list[tuple[int, int]] = []
        for first in sorted(lane.held):
            last = first + len(lane.held[first]) - 1
            if ranges and ranges[-1][1] + 1 == first:
                ranges[-1] = (ranges[-1][0], last)
            else:
                ranges.append((first, last))
        # What is given and not yet accepted is there, and need not come again either.
        if lane.expected - 1 > lane.accepted and ranges:
            ranges.insert(0, (lane.accepted + 1, lane.expected - 1))
        return LaneAck(lane.priority, lane.accepted, lane.granted, tuple(ranges))
