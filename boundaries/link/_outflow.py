"""The sending half of a link: lanes, sequence numbers, credit, and what comes again. No I/O.

It holds every event from the moment it was accepted until the other side has accepted it. Fed with
acknowledgements and a clock, it says which frames may go now. What is given up after it has got its number
leaves `NOTHING` in its place, so that numbers have no gaps.

With a store it keeps a part of each lane here, and sends nothing before the store says that it is durable.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

import orjson

from nexus.boundaries.link._frames import LEAST, MOST, NOTHING, Ack, LaneAck, pack_event, pack_events
from nexus.boundaries.link._sending_lane import INFINITY, SendingLane
from nexus.errors import BadCall

__all__ = ["FRAME_EVENTS", "Outflow", "Store"]

FRAME_EVENTS: Final = 256
"""Events of one frame at most."""
FRAME_BYTES: Final = 64 * 1024
"""Bytes of one frame at which it goes; one larger event goes alone."""
MAX_LANES: Final = 64


class Store(Protocol):
    """Where rows are kept that are to outlive the process."""

    def put(self, priority: int, number: int, row: bytes) -> None:
        """Keep a row, the next of its lane; `Outflow.stored` says when it is durable."""
        ...

    def put_many(self, priority: int, number: int, rows: list[bytes]) -> int:
        """Keep the first of some rows, the next of their lane, as far as there is room; return how many."""
        ...

    def accepted(self, priority: int, number: int) -> None:
        """Let go of all rows of a lane up to a number."""
        ...

    def has_room(self, size: int) -> bool:
        """Say whether a row of so many bytes can be kept."""
        ...


class Outflow:
    """What is to go to the other side, and what has gone and is not accepted there.

    Args:
        maxsize: events a lane holds.
        max_bytes: bytes a lane holds; one larger event is let in when it is alone.
        patience: seconds after which what was sent and not acknowledged is sent again, at first; doubled
            each time in a row. Over a transport that loses nothing it is never needed.
        keeps: whether what was sent is kept until it is accepted. Otherwise it goes once, and what would have
            to go again is given up.
        store: keeps what is given; then a lane that is full here goes on there. None for nothing but memory.
    """

    def __init__(
        self,
        maxsize: int = 10_000,
        max_bytes: int = 64 * 2**20,
        patience: float = 1.0,
        *,
        keeps: bool = True,
        store: Store | None = None,
    ) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self.patience = patience
        self.keeps = keeps
        self._store = store
        self.epoch = 0.0
        """Seconds by which the clock that goes over the wire shows more than the own one."""
        self.accepted = 0
        """Events the other side has accepted."""
        self.passed = 0
        """The same, and the places of those that were given up."""
        self.lost: dict[str, int] = {}
        """Events that were given up, by reason: ``shed``, ``slow``, ``expired``, ``unacknowledged``."""
        self.resent = 0
        """Events that were sent more than once."""
        self.is_overtaken = False
        """Whether the other side has what was never sent: the store is an old copy of itself."""
        self._lanes: dict[int, SendingLane] = {}
        self._order: list[int] = []
        self._window = 0
        self._lane_bytes = self._total_bytes = 2**63
        self._open = False

    def __len__(self) -> int:
        """Events that are held, on their way or not."""
        return sum(lane.count + lane.behind - len(lane.given_up) for lane in self._lanes.values())

    @property
    def lanes(self) -> tuple[tuple[int, int], ...]:
        """Priority, and the first sequence number that may still come, of each lane."""
        return tuple((lane.priority, lane.base) for lane in self._lanes.values())

    def depths(self) -> dict[int, int]:
        """Return how many events each priority holds."""
        counts = {
            lane.priority: lane.count + lane.behind - len(lane.given_up) for lane in self._lanes.values()
        }
        return {priority: count for priority, count in counts.items() if count}

    def push(self, priority: int, row: bytes, deadline: float | None = None) -> bool:
        """Take an event, as JSON; False when its lane has no room.

        Args:
            deadline: seconds on the clock after which it is not sent any more.

        Raises:
            BadCall: the priority is out of range, or one too many.
        """
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lane(priority)
        size = lane.bytes + len(row)
        held = len(lane.flight) + len(lane.waiting)
        if self._store is not None:
            if not self._store.has_room(len(row)):
                return False
            self._store.put(priority, lane.last + 1, row)
            if lane.behind or held >= self.maxsize or (held and size > self.max_bytes):
                lane.behind += 1
                return True
        elif held >= self.maxsize or (held and size > self.max_bytes):
            return False
        lane.waiting.append(row)
        lane.bytes = size
        if deadline is not None:
            lane.deadlines[lane.base + held] = deadline
        return True

    def push_many(self, priority: int, rows: list[bytes]) -> int:
        """Take the first of some events, as JSON; return how many. The first one of a lane is for `push`."""
        lane = self._lanes.get(priority)
        if lane is None:
            return 0
        size = lane.bytes + sum(map(len, rows))
        fits = lane.count + len(rows) <= self.maxsize and size <= self.max_bytes
        if self._store is not None and (fits or lane.behind):
            count = self._store.put_many(priority, lane.last + 1, rows)
            if lane.behind:
                lane.behind += count
                return count
            if count < len(rows):
                rows = rows[:count]
                size = lane.bytes + sum(map(len, rows))
        if fits:
            lane.waiting += rows
            lane.bytes = size
            return len(rows)
        for place, row in enumerate(rows):
            if not self.push(priority, row):
                return place
        return len(rows)

    def has_room(self, priority: int, size: int) -> bool:
        """Say whether `push` would take a row of so many bytes."""
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lane(priority)
        if self._store is not None:
            return self._store.has_room(size)
        return not lane.count or (lane.count < self.maxsize and lane.bytes + size <= self.max_bytes)

    def places(self, priority: int) -> int:
        """Return how many events, as far as their number goes, `push_many` might take; 0 before the first one
        of a lane."""
        lane = self._lanes.get(priority)
        if lane is None:
            return 0
        return max(0, self.maxsize - lane.count) if self._store is None else self.maxsize

    def shed(self, priority: int) -> bool:
        """Give up the oldest event of a lane, while there is no connection; False if there is none."""
        lane = self._lanes.get(priority)
        if lane is None or not lane.count + lane.behind:
            return False
        if lane.let_go(1):
            self._lose("shed")
        if self._store is not None:
            self._store.accepted(priority, lane.base - 1)
        return True

    def shed_unsent(self, priority: int) -> bool:
        """Give up the oldest event of a lane that has never gone; False if there is none, or they are stored.

        Those behind it move up. In a lane with deadlines, whose places are noted, a few go at once.
        """
        lane = self._lanes[priority]
        gone = max(0, lane.sent + 1 - lane.base - len(lane.flight))
        count = min(len(lane.waiting) - gone, len(lane.waiting) // 64 + 1 if lane.deadlines else 1)
        if count <= 0 or self._store is not None:
            return False
        for _ in range(count):
            lane.bytes -= len(lane.waiting[gone])
            del lane.waiting[gone]
            self.give_up_slow()
        if lane.deadlines:
            first = lane.base + len(lane.flight) + gone
            kept = {number: due for number, due in lane.deadlines.items() if number < first}
            later = {number - count: due for number, due in lane.deadlines.items() if number >= first + count}
            lane.deadlines = kept | later
        return True

    def give_up_slow(self) -> None:
        """Count an event that is given up because the other side is slower than others."""
        self._lose("slow")

    def is_slow(self, priority: int, now: float, after: float) -> bool:
        """Say whether a lane that is full now takes longer than so many seconds for what it holds.

        Once it does, it is slow until half of it has been accepted from one time it is full to the next.
        """
        lane = self._lanes[priority]
        if lane.is_slow and 2 * (lane.base - lane.full_base) >= lane.count:
            lane.is_slow = False
            lane.full_last = 0
        lane.full_base = lane.base
        if not lane.is_slow:
            if lane.base > lane.full_last:
                lane.full_last, lane.full_since = lane.base + lane.count - 1, now
            lane.is_slow = now - lane.full_since >= after
        return lane.is_slow

    def restore(self, priority: int, first: int, last: int) -> None:
        """Begin a lane with what its store holds, from one number to another; with none, first is last + 1.

        Raises what `push` raises.
        """
        lane = self._lane(priority)
        lane.base, lane.behind, lane.stored, lane.sent = first, last - first + 1, last, first - 1
        lane.given_before = last

    def stored(self, priority: int, number: int) -> None:
        """Note that all rows of a lane up to a number are durable, and may be sent."""
        self._lanes[priority].stored = number

    def hungry(self) -> tuple[int, int] | None:
        """Give priority and number of what should be read from the store next, the most urgent first; None if
        enough is here."""
        for priority in self._order:
            lane = self._lanes[priority]
            if lane.behind and 4 * lane.count < 3 * self.maxsize and 2 * lane.bytes < self.max_bytes:
                return priority, lane.base + lane.count
        return None

    def loaded(self, priority: int, first: int, rows: list[bytes]) -> None:
        """Take what was read from the store; what was accepted meanwhile is left out."""
        lane = self._lanes[priority]
        next_ = lane.base + lane.count
        if first == next_ and len(rows) <= lane.behind and NOTHING not in rows:
            joined = b"".join(rows)
            if b'"due":' not in joined:  # the usual case
                lane.behind -= len(rows)
                lane.waiting += rows
                lane.bytes += len(joined)
                return
        for number, row in enumerate(rows, first):
            if number != next_ or not lane.behind:
                continue
            next_ += 1
            lane.behind -= 1
            lane.waiting.append(row)
            lane.bytes += len(row)
            if row == NOTHING:
                lane.given_up.add(number)
                self._lose("damaged")
            elif (deadline := _deadline(row)) is not None:
                lane.deadlines[number] = deadline - self.epoch

    def opened(self) -> None:
        """Note that there is a new connection; nothing may go before its first `acknowledged`."""
        self._open = False
        self._lane_bytes = self._total_bytes = 2**63
        for lane in self._lanes.values():
            self.resent += len(lane.flight)
            lane.tries = 0
            lane.waiting.extendleft(reversed(lane.flight))
            lane.flight.clear()
            lane.sizes.clear()
            lane.flying = 0
            lane.limit = lane.gap = 0
            lane.held = ()
            lane.resend_at = INFINITY

    def allowed(self, lane_bytes: int, total_bytes: int) -> None:
        """Note how many bytes may be on their way, of one lane and of all; one event of a lane always may."""
        self._lane_bytes = lane_bytes
        self._total_bytes = total_bytes

    def acknowledged(self, ack: Ack, now: float) -> int:
        """Let go of what is accepted, and go by the new limits; return how many events were accepted.

        What the other side cannot know (a lane that never was, a number that was not given) is ignored.
        """
        self._open = True
        self._window = ack.window
        count = 0
        for found in ack.lanes:
            lane = self._lanes.get(found.priority)
            if self._store is not None and _highest(found) > (
                max(lane.sent, lane.given_before) if lane is not None else 0
            ):
                self.is_overtaken = True
            elif lane is not None:
                count += self._acknowledge(lane, found, now)
        self.accepted += count
        return count

    def frames(self, now: float) -> Iterator[bytes]:
        """Give the frames that may go now, the most urgent first.

        Args:
            now: seconds on the clock.
        """
        if not self._open or self.is_overtaken:
            return
        for priority in self._order:
            lane = self._lanes[priority]
            if now >= lane.resend_at:
                yield from self._again(lane, now)
            limit = min(lane.limit or lane.base - 1 + self._window, lane.stored)
            while lane.waiting and lane.base + len(lane.flight) <= limit:
                is_lone = not lane.flight and len(lane.waiting) == 1
                room = FRAME_BYTES if is_lone else self._room(lane)
                if lane.flight and len(lane.waiting[0]) > room:
                    break
                yield self._frame(lane, limit, room, now)

    def lone(self, now: float) -> bytes | None:
        """Give what `frames` would, where that is one frame of the one event that waits; else None."""
        if not self._open or self.is_overtaken or not self.keeps:
            return None
        found: SendingLane | None = None
        for lane in self._lanes.values():
            if lane.waiting:
                if found is not None:
                    return None
                found = lane
            if now >= lane.resend_at:
                return None
        if found is None or len(found.waiting) > 1 or found.deadlines:
            return None
        row, number = found.waiting[0], found.base + len(found.flight)
        if number > min(found.limit or found.base - 1 + self._window, found.stored):
            return None
        size = len(row)
        if found.flight and size > self._room(found):
            return None
        found.waiting.clear()
        found.flight.append(row)
        found.flying += size
        found.sent = max(found.sent, number)
        if found.resend_at == INFINITY:
            found.resend_at = now + self.patience
        return pack_event(found.priority, number, self._micros(now), row)

    @property
    def next_time(self) -> float:
        """The moment at which `frames` may have something though nobody called; infinity for none."""
        return min((lane.resend_at for lane in self._lanes.values()), default=INFINITY)

    def hasten(self, now: float) -> None:
        """Send again at once what is on its way: the other side is heard again after a silence."""
        for lane in self._lanes.values():
            if lane.flight:
                lane.resend_at = now
                lane.tries = -1  # this time does not count

    def is_due(self, now: float) -> bool:
        """Say whether something waits to go, or to go again."""
        for lane in self._lanes.values():  # noqa: SIM110 (a third of the time of `any`)
            if lane.waiting or now >= lane.resend_at:
                return True
        return False

    @property
    def is_stalled(self) -> bool:
        """Whether events wait to be accepted, for credit, or for a connection."""
        for lane in self._lanes.values():  # noqa: SIM110 (a third of the time of `any`)
            if lane.flight or lane.waiting or lane.behind:
                return True
        return False

    def _room(self, lane: SendingLane) -> int:
        """Return how many bytes more may be on their way."""
        flying = 0
        for each in self._lanes.values():
            flying += each.flying
        return min(self._lane_bytes - lane.flying, self._total_bytes - flying)

    def _micros(self, now: float) -> int:
        return int((now + self.epoch) * 1e6)

    def _lose(self, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + 1

    def _lane(self, priority: int) -> SendingLane:
        if not LEAST <= priority <= MOST:
            raise BadCall(f"a priority on a link is from {LEAST} to {MOST}, not {priority}")
        if len(self._lanes) >= MAX_LANES:
            raise BadCall(f"a link carries {MAX_LANES} priorities; {priority} would be one more")
        lane = self._lanes[priority] = SendingLane(priority)
        if self._store is not None:
            lane.stored = 0
        insort(self._order, priority)
        return lane

    def _acknowledge(self, lane: SendingLane, found: LaneAck, now: float) -> int:
        # After a reconnect the other side may have accepted what was not sent on this connection.
        count = max(0, min(found.accepted - lane.base + 1, lane.count + lane.behind))
        accepted = lane.let_go(count)
        self.passed += count
        if count and self._store is not None:
            self._store.accepted(lane.priority, lane.base - 1)
        if count:
            lane.tries = 0
        lane.limit = max(lane.limit, found.limit, lane.base - 1)
        lane.held = found.held
        if not lane.flight:
            lane.resend_at = INFINITY
        elif lane.first_gap not in (0, lane.gap):
            lane.resend_at = now  # something came after it: it is lost, or late
        elif count:
            lane.resend_at = now + self.patience
        return accepted

    def _again(self, lane: SendingLane, now: float) -> Iterator[bytes]:
        """Send again what is not known to be there; of a gap, what lies before the last that is there."""
        lane.gap = lane.first_gap
        known = lane.held[-1][0] if lane.gap else 2**63
        rows: list[bytes] = []
        size = 0
        missing = _missing(lane.base, min(lane.base + len(lane.flight), known), lane.held)
        first = 0
        for number in missing:
            if not self.keeps and number not in lane.given_up:
                lane.give_up(number, lane.flight)
                self._lose("unacknowledged")
            row = lane.flight[number - lane.base]
            if rows and (
                number != first + len(rows) or len(rows) >= FRAME_EVENTS or size + len(row) > FRAME_BYTES
            ):
                yield pack_events(lane.priority, first, self._micros(now), rows)
                rows, size = [], 0
            if not rows:
                first = number
            rows.append(row)
            size += len(row)
            self.resent += 1
        if rows:
            yield pack_events(lane.priority, first, self._micros(now), rows)
        lane.tries += 1
        lane.resend_at = now + self.patience * 2.0 ** min(lane.tries, 6)

    def _frame(self, lane: SendingLane, limit: int, room: int, now: float) -> bytes:
        """Make the next frame of a lane; there is something that may go."""
        first = lane.base + len(lane.flight)
        rows: list[bytes] = []
        size = 0
        waiting, flight = lane.waiting, lane.flight
        most = min(len(waiting), limit - first + 1, FRAME_EVENTS)
        is_plain = self.keeps and not lane.deadlines
        if is_plain:
            room = min(room, FRAME_BYTES)
            rows = list(islice(waiting, most))
            size = sum(map(len, rows))
            while size > room and len(rows) > 1:
                size -= len(rows.pop())
            flight += rows
            for _ in rows:
                waiting.popleft()
        while not is_plain and len(rows) < most:
            self._look(lane, first + len(rows), now)
            row = waiting[0]
            if rows and size + len(row) > min(room, FRAME_BYTES):
                break
            waiting.popleft()
            flight.append(row)
            rows.append(row)
            size += len(row)
        lane.flying += size
        if not is_plain:
            self._went(lane, first, rows)
        lane.sent = max(lane.sent, first + len(rows) - 1)
        if lane.resend_at == INFINITY:
            lane.resend_at = now + self.patience
        return pack_events(lane.priority, first, self._micros(now), rows)

    def _look(self, lane: SendingLane, number: int, now: float) -> None:
        """Give up the event that is to go next if it is too late, or must not go again."""
        if number in lane.given_up:
            return
        if number <= lane.sent:
            # What went before may be there, and may have been accepted: only the other side knows.
            if not self.keeps:
                lane.give_up(number, lane.waiting)
                self._lose("unacknowledged")
        elif now > lane.deadlines.get(number, INFINITY):
            lane.give_up(number, lane.waiting)
            self._lose("expired")

    def _went(self, lane: SendingLane, first: int, rows: list[bytes]) -> None:
        """Forget what need not be known any more of rows that were sent."""
        if lane.deadlines:
            for number in range(first, first + len(rows)):
                lane.deadlines.pop(number, None)
        if not self.keeps:
            for place, row in enumerate(rows, len(lane.flight) - len(rows)):
                lane.sizes.append(len(row))
                lane.bytes += len(NOTHING) - len(row)
                lane.flight[place] = NOTHING


def _missing(first: int, end: int, held: tuple[tuple[int, int], ...]) -> Iterator[int]:
    """Give the numbers from first up to end that are in no range."""
    number = first
    for low, high in held:
        yield from range(number, min(low, end))
        number = max(number, high + 1)
    yield from range(number, end)


def _highest(found: LaneAck) -> int:
    """Return the highest number that the other side has."""
    return found.held[-1][1] if found.held else found.accepted


def _deadline(row: bytes) -> float | None:
    """Read the deadline of a row, in seconds on the clock of the wire; None for none."""
    if b'"due":' not in row:
        return None
    found = orjson.loads(row)
    due = found[3].get("due") if len(found) == 4 else None
    return None if due is None else float(due / 1e6)
