"""The receiving half of a link: order, duplicates, gaps, and how much more may come. No I/O.

Fed with frames and a clock, it gives events in the order of their lane, each once, and makes the
acknowledgements. An event counts as accepted when `accepted` says so, and not when it came; where tracks are
kept, when `settled` says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import orjson

from nexus.boundaries.link._bucket import Bucket
from nexus.boundaries.link._frames import MAX_RANGES, Ack, Events, Hello, LaneAck, Row
from nexus.boundaries.link._window import Window
from nexus.boundaries.outbox._receipts import Track

__all__ = ["Inflow"]

MAX_LANES: Final = 64
INFINITY: Final = float("inf")
SLACK: Final = 2 * 64 * 1024
"""Bytes of a lane beyond the bound: both sides count exactly, but frames that are there in part."""


class _Lane:
    """One priority of the other side."""

    __slots__ = (
        "accepted",
        "bytes",
        "expected",
        "given",
        "granted",
        "held",
        "priority",
        "taken",
        "track",
        "window",
    )

    def __init__(self, priority: int, window: Window, track: Track | None) -> None:
        self.priority = priority
        self.track = track
        """What is settled; None where an event is accepted once the nexus has taken it."""
        self.accepted = track.accepted if track is not None else 0
        """All up to it is accepted."""
        self.taken = self.accepted
        """All up to it has been taken by the nexus."""
        self.expected = self.accepted + 1
        """The next number that is to be given."""
        self.granted = 0
        """The limit that the other side was told last."""
        self.window = window
        self.held: dict[int, tuple[list[Row], int]] = {}
        """Beyond a gap, by the first number, with their bytes; bounded by the window."""
        self.given: deque[tuple[int, int]] = deque()  # bounded by the window
        """How many were given together and are not accepted, and their bytes."""
        self.bytes = 0
        """Bytes of those that are held, or given and not accepted."""

    @property
    def limit(self) -> int:
        return self.accepted + self.window.size

    def begin(self) -> None:
        """Forget what the nexus has not taken: it comes again."""
        self.taken = max(self.taken, self.accepted)
        over = self.expected - 1 - self.taken
        self.expected = self.taken + 1
        self.granted = 0
        self.held.clear()
        while over > 0 and self.given:
            rows, size = self.given.pop()
            if rows > over:
                self.given.append((rows - over, size - size * over // rows))
            over -= rows
        self.bytes = sum(size for _, size in self.given)

    def skip_to(self, number: int) -> None:
        """Note that nothing up to a number comes any more: whoever accepted it was another, or nobody."""
        self.let_go(number - self.accepted)
        self.accepted = number
        self.taken = max(self.taken, number)
        self.expected = max(self.expected, number + 1)
        if self.track is not None:
            self.track.skip_to(number)

    def go_past(self, number: int) -> None:
        """Expect nothing up to a number: an earlier life has settled the last of it, and the other side need
        not send that. What is held beyond comes again, for nobody would give it."""
        self.taken += number + 1 - self.expected
        self.expected = number + 1
        self.bytes -= sum(size for _, size in self.held.values())
        self.held.clear()

    def take(self, count: int, size: int) -> None:
        """Note that the next events are given, of so many bytes."""
        self.expected += count
        self.given.append((count, size))
        self.bytes += size

    def let_go(self, count: int) -> None:
        """Count the bytes of events that are accepted no more."""
        given = self.given
        while count and given:
            rows, size = given[0]
            if rows > count:
                part = size * count // rows
                given[0] = (rows - count, size - part)
                self.bytes -= part
                return
            given.popleft()
            self.bytes -= size
            count -= rows


class Inflow:
    """What comes from one source.

    It outlives connections: after a reconnect it goes on where it was, and what comes twice is left out.

    Args:
        least: events a lane's window never falls below.
        most: events it never exceeds.
        target: seconds of delay on the way that the window is adapted to.
        lane_bytes: bytes of one lane that are held, or given and not accepted; one event always may.
        total_bytes: the same of all lanes together.
        track: gives what of a priority was settled, and notes what is; None where an event is accepted once
            the nexus has taken it.
        bucket: how many may come in a time; None for any number. It may belong to several sources.
    """

    def __init__(
        self,
        *,
        least: int = 2,
        most: int = 8192,
        target: float = 0.005,
        lane_bytes: int = 8 * 2**20,
        total_bytes: int = 64 * 2**20,
        track: Callable[[int], Track] | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        self._bucket = bucket
        self._hungry: set[int] = set()
        """Priorities of which more may come as soon as there is something in the bucket."""
        self._track = track
        self.least = least
        self.most = most
        self.target = target
        self.lane_bytes = lane_bytes
        self.total_bytes = total_bytes
        self.duplicates = 0
        """Events that came again and were left out."""
        self.refused = 0
        """Events beyond a limit, which were not taken; they come again."""
        self._lanes: dict[int, _Lane] = {}
        self._due: set[int] = set()
        self._always = False

    def remember(self, priorities: Iterable[int]) -> None:
        """Begin the lanes of which something was settled in an earlier life: the other side is to hear it."""
        for priority in priorities:
            self._lane(priority)

    def opened(self, hello: Hello) -> None:
        """Note a new connection, with what may still come on it."""
        for lane in self._lanes.values():
            lane.begin()
        for priority, first in hello.lanes:
            known = self._lane(priority)
            if known is not None and first > known.accepted + 1:
                known.skip_to(first - 1)
        self.tell_all()

    def received(self, frame: Events) -> Events | list[Row]:
        """Take a frame; give the events that are next in their lane, those that waited for it included.

        Returns:
            The frame itself, unread, where that is all of it and no more: the usual case.

        Raises:
            BadLinkFrame: it had to be read, and is none.
        """
        lane = self._lanes.get(frame.priority) or self._lane(frame.priority)
        if lane is None:
            self.refused += len(frame)
            return []
        self._due.add(frame.priority)
        count, size = frame.count, frame.size
        if (
            frame.first == lane.expected
            and frame.first + count - 1 <= lane.granted
            and not lane.held
            and (not lane.given or self._has_room(lane, size))
        ):  # the usual case: all of it is next, and was granted
            lane.take(count, size)
            return frame
        end = frame.first + len(frame)
        first = min(max(frame.first, lane.expected), end)
        self.duplicates += first - frame.first
        limit = lane.granted if self._bucket is not None else max(lane.granted, lane.limit)
        last = max(first, min(end, limit + 1))
        self.refused += end - last
        count = last - first
        if not count:
            return []
        rows: list[Row] = []
        is_whole = count == len(frame)
        is_enough = is_whole and first == lane.expected and not lane.held
        if not is_enough:
            rows = frame.read()[first - frame.first : last - frame.first]
        if not is_whole:
            size = _size(rows)
        # What is next may come where nothing of its lane is given: the lane goes on, whatever it holds beyond
        # a gap.
        if (lane.given or first != lane.expected) and not self._has_room(lane, size):
            self.refused += count
            return []
        if first > lane.expected:
            self._hold(lane, first, rows)
            return []
        lane.take(count, size)
        if is_enough:
            return frame
        return rows + self._released(lane)

    def accepted(self, priority: int, count: int, sent: int, now: float) -> None:
        """Note that the nexus has taken the next events of a lane.

        Args:
            sent: microseconds on the sender's clock at which the last of them went; 0 if unknown.
            now: seconds on the clock.
        """
        lane = self._lanes[priority]
        lane.taken += count
        if sent:
            lane.window.record(count, sent, now)
        if lane.track is None:
            lane.accepted += count
            lane.let_go(count)
            self._due.add(priority)

    def settled(self, priority: int, number: int) -> None:
        """Note that all events of a lane up to a number are settled, and that it is known for good."""
        lane = self._lanes[priority]
        if number > lane.accepted:
            lane.let_go(number - lane.accepted)
            lane.accepted = number
            if number >= lane.expected:
                lane.go_past(number)
            self._due.add(priority)

    def given(self, priority: int, count: int) -> tuple[int, Track | None]:
        """Return the number of the first of the last so many events given, and where to note that they are
        settled."""
        lane = self._lanes[priority]
        return lane.expected - count, lane.track

    def window(self, priority: int) -> int:
        """Return how many events of a priority may be under way; 0 where none came."""
        lane = self._lanes.get(priority)
        return lane.window.size if lane is not None else 0

    def ack(self, now: float = 0.0) -> Ack | None:
        """Make an acknowledgement of what is new; None if nothing is.

        Args:
            now: seconds on the clock.
        """
        if self._bucket is not None:
            self._bucket.fill(now)
            if self._hungry and now >= self._bucket.next_time:
                self._due |= self._hungry
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
        if self._always:
            return True
        for priority in self._due:
            lane = self._lanes[priority]
            if lane.held or 2 * (lane.granted - lane.accepted) <= lane.window.size:
                return True
        return False

    @property
    def next_time(self) -> float:
        """The moment at which `ack` may have something though nothing came; infinity for none."""
        return self._bucket.next_time if self._bucket is not None and self._hungry else INFINITY

    @property
    def bytes(self) -> int:
        """Bytes of events that are held, or given and not accepted."""
        return sum(lane.bytes for lane in self._lanes.values())

    def _has_room(self, lane: _Lane, size: int) -> bool:
        """Say whether so many bytes may be taken."""
        total = self.total_bytes + SLACK * len(self._lanes)
        return lane.bytes + size <= self.lane_bytes + SLACK and self.bytes + size <= total

    @property
    def _first_window(self) -> int:
        return max(self.least, min(64, self.most)) if self._bucket is None else self._bucket.first

    def _lane(self, priority: int) -> _Lane | None:
        lane = self._lanes.get(priority)
        if lane is None and len(self._lanes) < MAX_LANES:
            window = Window(max(self.least, min(64, self.most)), self.least, self.most, self.target)
            track = self._track(priority) if self._track is not None else None
            lane = self._lanes[priority] = _Lane(priority, window, track)
            if self._bucket is not None:
                lane.granted = lane.accepted + self._bucket.first
                self._bucket.owe(self._bucket.first)
        return lane

    def _hold(self, lane: _Lane, first: int, rows: list[Row]) -> None:
        """Keep what came beyond a gap, unless it is there already."""
        for low, (kept, _) in lane.held.items():
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
            size = _size(rows)
            lane.held[first] = (rows, size)
            lane.bytes += size

    def _released(self, lane: _Lane) -> list[Row]:
        """Give what waited for a gap to close."""
        found: list[Row] = []
        for first in sorted(lane.held):
            if first > lane.expected:
                break
            rows, size = lane.held.pop(first)
            new = rows[lane.expected - first :]
            self.duplicates += len(rows) - len(new)
            found += new
            lane.expected += len(new)
            left = _size(new) if len(new) < len(rows) else size
            lane.bytes += left - size
            if new:
                lane.given.append((len(new), left))
        return found

    def _grant(self, lane: _Lane) -> None:
        """Let more come: all that the window has room for, or what the bucket gives of it."""
        if self._bucket is None:
            lane.granted = max(lane.granted, lane.limit)
            return
        lane.granted = max(lane.granted, lane.accepted)
        more = max(0, lane.limit - lane.granted)
        given = self._bucket.take(more)
        lane.granted += given
        if given < more:
            self._hungry.add(lane.priority)
        else:
            self._hungry.discard(lane.priority)

    def _ack(self, lane: _Lane) -> LaneAck:
        self._grant(lane)
        ranges: list[tuple[int, int]] = []
        for first in sorted(lane.held):
            last = first + len(lane.held[first][0]) - 1
            if ranges and ranges[-1][1] + 1 == first:
                ranges[-1] = (ranges[-1][0], last)
            else:
                ranges.append((first, last))
        # What is given and not yet accepted is there, and need not come again either.
        if lane.expected - 1 > lane.accepted:
            ranges.insert(0, (lane.accepted + 1, lane.expected - 1))
        if lane.track is not None:
            ranges = _union([*ranges, *lane.track.beyond], lane.accepted)
        if len(ranges) > MAX_RANGES:  # the last one tells how far it has come
            ranges = [*ranges[: MAX_RANGES - 1], ranges[-1]]
        return LaneAck(lane.priority, lane.accepted, lane.granted, tuple(ranges))


def _union(ranges: list[tuple[int, int]], after: int) -> list[tuple[int, int]]:
    """Join ranges that overlap or touch, without what is not after a number."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if high <= after:
            continue
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((max(low, after + 1), high))
    return found


def _size(rows: list[Row]) -> int:
    """Count the bytes of events, as the other side does."""
    return len(orjson.dumps(rows)) - len(rows) - 1 if rows else 0
