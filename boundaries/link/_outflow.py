"""The sending half of a link: lanes, sequence numbers, credit, and what comes again. No I/O.

It holds every event from the moment it was accepted until the other side has accepted it. Fed with
acknowledgements and a clock, it says which frames may go now.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import Final

from nexus.boundaries.link._frames import LEAST, MOST, Ack, LaneAck, pack_events
from nexus.errors import BadCall

__all__ = ["FRAME_EVENTS", "Outflow"]

FRAME_EVENTS: Final = 128
"""Events of one frame at most."""
FRAME_BYTES: Final = 64 * 1024
"""Bytes of one frame at which it goes; one larger event goes alone."""
MAX_LANES: Final = 64
INFINITY: Final = float("inf")


class _Lane:
    """One priority: what is on its way, and what waits behind it."""

    __slots__ = ("base", "bytes", "flight", "gap", "held", "limit", "priority", "resend_at", "waiting")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.base = 1
        """Sequence number of the first that is not accepted."""
        self.flight: deque[bytes] = deque()  # bounded by the outflow's maxsize and max_bytes
        self.waiting: deque[bytes] = deque()  # bounded by the outflow's maxsize and max_bytes
        self.bytes = 0
        self.limit = 0
        """The last sequence number that may be sent; 0 before the other side has said so."""
        self.held: tuple[tuple[int, int], ...] = ()
        """Ranges that the other side holds beyond a gap."""
        self.gap = 0
        """Where the gap began for which something was sent again last."""
        self.resend_at = INFINITY

    @property
    def count(self) -> int:
        """Events it holds."""
        return len(self.flight) + len(self.waiting)


class Outflow:
    """What is to go to the other side, and what has gone and is not accepted there.

    Args:
        maxsize: events a lane holds.
        max_bytes: bytes a lane holds; one larger event is let in when it is alone.
        patience: seconds after which what was sent and not acknowledged is sent again, at first; doubled
            each time in a row. Over a transport that loses nothing it is never needed.
    """

    def __init__(self, maxsize: int = 10_000, max_bytes: int = 64 * 2**20, patience: float = 1.0) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self.patience = patience
        self.accepted = 0
        """Events the other side has accepted."""
        self.given_up = 0
        """Events that were given up while nobody was there."""
        self.resent = 0
        """Events that were sent more than once."""
        self._lanes: dict[int, _Lane] = {}
        self._order: list[int] = []
        self._window = 0
        self._open = False
        self._tries = 0

    def __len__(self) -> int:
        """Events that are held, on their way or not."""
        return sum(lane.count for lane in self._lanes.values())

    @property
    def lanes(self) -> tuple[tuple[int, int], ...]:
        """Priority, and the first sequence number that may still come, of each lane."""
        return tuple((lane.priority, lane.base) for lane in self._lanes.values())

    def depths(self) -> dict[int, int]:
        """Return how many events each priority holds."""
        return {lane.priority: lane.count for lane in self._lanes.values() if lane.count}

    def push(self, priority: int, row: bytes) -> bool:
        """Take an event, as JSON; False when its lane has no room.

        Raises:
            BadCall: the priority is out of range, or one too many.
        """
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lane(priority)
        size = lane.bytes + len(row)
        held = len(lane.flight) + len(lane.waiting)
        if held >= self.maxsize or (held and size > self.max_bytes):
            return False
        lane.waiting.append(row)
        lane.bytes = size
        return True

    def has_room(self, priority: int, size: int) -> bool:
        """Say whether `push` would take a row of so many bytes."""
        lane = self._lanes.get(priority)
        if lane is None:
            self._lane(priority)
            return True
        return not lane.count or (lane.count < self.maxsize and lane.bytes + size <= self.max_bytes)

    def shed(self, priority: int) -> bool:
        """Give up the oldest event of a lane, while there is no connection; False if there is none."""
        lane = self._lanes.get(priority)
        if lane is None or not lane.count:
            return False
        lane.bytes -= len((lane.flight or lane.waiting).popleft())
        lane.base += 1
        self.given_up += 1
        return True

    def opened(self) -> None:
        """Note that there is a new connection; nothing may go before its first `acknowledged`."""
        self._open = False
        self._tries = 0
        for lane in self._lanes.values():
            self.resent += len(lane.flight)
            lane.waiting.extendleft(reversed(lane.flight))
            lane.flight.clear()
            lane.limit = lane.gap = 0
            lane.held = ()
            lane.resend_at = INFINITY

    def acknowledged(self, ack: Ack, now: float) -> int:
        """Let go of what is accepted, and go by the new limits; return how many events were accepted.

        What the other side cannot know (a lane that never was, a number that was not given) is ignored.
        """
        self._open = True
        self._window = ack.window
        count = 0
        for found in ack.lanes:
            lane = self._lanes.get(found.priority)
            if lane is not None:
                count += self._acknowledge(lane, found, now)
        self.accepted += count
        if count:
            self._tries = 0
        return count

    def frames(self, now: float) -> Iterator[bytes]:
        """Give the frames that may go now, the most urgent first.

        Args:
            now: seconds on the clock.
        """
        if not self._open:
            return
        for priority in self._order:
            lane = self._lanes[priority]
            if now >= lane.resend_at:
                yield from self._again(lane, now)
            limit = lane.limit or lane.base - 1 + self._window
            while lane.waiting and lane.base + len(lane.flight) <= limit:
                yield self._frame(lane, limit, now)

    @property
    def next_time(self) -> float:
        """The moment at which `frames` may have something though nobody called; infinity for none."""
        return min((lane.resend_at for lane in self._lanes.values()), default=INFINITY)

    @property
    def is_stalled(self) -> bool:
        """Whether events wait for credit, or for a connection."""
        return any(lane.waiting for lane in self._lanes.values())

    def _lane(self, priority: int) -> _Lane:
        if not LEAST <= priority <= MOST:
            raise BadCall(f"a priority on a link is from {LEAST} to {MOST}, not {priority}")
        if len(self._lanes) >= MAX_LANES:
            raise BadCall(f"a link carries {MAX_LANES} priorities; {priority} would be one more")
        lane = self._lanes[priority] = _Lane(priority)
        insort(self._order, priority)
        return lane

    def _acknowledge(self, lane: _Lane, found: LaneAck, now: float) -> int:
        # After a reconnect the other side may have accepted what was not sent on this connection.
        count = max(0, min(found.accepted - lane.base + 1, lane.count))
        for _ in range(count):
            lane.bytes -= len((lane.flight or lane.waiting).popleft())
        lane.base += count
        lane.limit = max(lane.limit, found.limit, lane.base - 1)
        lane.held = found.held
        if not lane.flight:
            lane.resend_at = INFINITY
        elif found.held and lane.gap != lane.base:
            lane.resend_at = now  # something came after it: it is lost, or late
        elif count:
            lane.resend_at = now + self.patience
        return count

    def _again(self, lane: _Lane, now: float) -> Iterator[bytes]:
        """Send again what is not known to be there; of a gap, what lies before the last that is there."""
        known = lane.held[-1][0] if lane.held else 2**63
        lane.gap = lane.base
        rows: list[bytes] = []
        size = 0
        missing = _missing(lane.base, min(lane.base + len(lane.flight), known), lane.held)
        first = 0
        for number in missing:
            row = lane.flight[number - lane.base]
            if rows and (
                number != first + len(rows) or len(rows) >= FRAME_EVENTS or size + len(row) > FRAME_BYTES
            ):
                yield pack_events(lane.priority, first, _micros(now), rows)
                rows, size = [], 0
            if not rows:
                first = number
            rows.append(row)
            size += len(row)
            self.resent += 1
        if rows:
            yield pack_events(lane.priority, first, _micros(now), rows)
        self._tries += 1
        lane.resend_at = now + self.patience * 2.0 ** min(self._tries, 6)

    def _frame(self, lane: _Lane, limit: int, now: float) -> bytes:
        """Make the next frame of a lane; there is something that may go."""
        first = lane.base + len(lane.flight)
        rows: list[bytes] = []
        size = 0
        waiting, flight = lane.waiting, lane.flight
        most = min(len(waiting), limit - first + 1, FRAME_EVENTS)
        while len(rows) < most and (not rows or size + len(waiting[0]) <= FRAME_BYTES):
            row = waiting.popleft()
            flight.append(row)
            rows.append(row)
            size += len(row)
        if lane.resend_at == INFINITY:
            lane.resend_at = now + self.patience
        return pack_events(lane.priority, first, _micros(now), rows)


def _missing(first: int, end: int, held: tuple[tuple[int, int], ...]) -> Iterator[int]:
    """Give the numbers from first up to end that are in no range."""
    number = first
    for low, high in held:
        yield from range(number, min(low, end))
        number = max(number, high + 1)
    yield from range(number, end)


def _micros(now: float) -> int:
    return int(now * 1e6)
