"""One priority of what a link sends: what is on its way, and what waits behind it. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final

from nexus.boundaries.link._frames import NOTHING

__all__ = ["INFINITY", "SendingLane"]

INFINITY: Final = float("inf")


class SendingLane:
    """One priority: what is on its way, and what waits behind it."""

    __slots__ = (
        "base",
        "behind",
        "bytes",
        "deadlines",
        "flight",
        "flying",
        "full_base",
        "full_last",
        "full_since",
        "gap",
        "given_before",
        "given_up",
        "held",
        "is_slow",
        "limit",
        "priority",
        "resend_at",
        "sent",
        "sizes",
        "stored",
        "tries",
        "waiting",
    )

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.base = 1
        """Sequence number of the first that is not accepted."""
        self.flight: deque[bytes] = deque()  # bounded by the outflow's maxsize and max_bytes
        self.waiting: deque[bytes] = deque()  # bounded by maxsize and max_bytes, and one reading more
        self.behind = 0
        """Those that follow and are in the store alone."""
        self.stored = 2**63
        """The last number that may be sent because it is durable."""
        self.bytes = 0
        self.limit = 0
        """The last sequence number that may be sent; 0 before the other side has said so."""
        self.held: tuple[tuple[int, int], ...] = ()
        """Ranges that the other side has, and has not accepted."""
        self.gap = 0
        """Where the gap began for which something was sent again last."""
        self.resend_at = INFINITY
        self.tries = 0
        """How often in a row it was sent again."""
        self.sent = 0
        """The last number that was ever sent."""
        self.given_before = 0
        """The last number that may have been sent in an earlier life."""
        self.flying = 0
        """Bytes of what is on its way."""
        self.sizes: deque[int] = deque()  # bounded by `flight`
        """Bytes of each on its way, where that does not hold them itself."""
        self.deadlines: dict[int, float] = {}
        """By number, of those that were not sent yet and have one."""
        self.given_up: set[int] = set()
        """Numbers of those that are no events any more."""
        self.is_slow = False
        """Whether nobody waits for it when it is full."""
        self.full_base = 0
        """The first that was not accepted when it was full last."""
        self.full_last = 0
        """The last it held when it was full; all that is accepted from then on is timed."""
        self.full_since = 0.0

    @property
    def first_gap(self) -> int:
        """The first number that the other side does not have, though it has later ones; 0 for none."""
        if not self.held or self.held[0][0] > self.base:
            return self.base if self.held else 0
        return self.held[0][1] + 1 if len(self.held) > 1 else 0

    @property
    def count(self) -> int:
        """Events it holds here, and places of those that were given up."""
        return len(self.flight) + len(self.waiting)

    @property
    def last(self) -> int:
        """The last number that was given; 0 if none was."""
        return self.base + len(self.flight) + len(self.waiting) + self.behind - 1

    def give_up(self, number: int, place: deque[bytes]) -> None:
        """Put nothing in the place of an event."""
        at = number - self.base - (len(self.flight) if place is self.waiting else 0)
        self.bytes += len(NOTHING) - len(place[at])
        place[at] = NOTHING
        self.given_up.add(number)

    def let_go(self, count: int) -> int:
        """Let go of the first ones; return how many of them were events."""
        if count > self.count:  # those that are in the store alone are events as far as is known here
            stored = min(count - self.count, self.behind)
            found = self.let_go(self.count) + stored
            self.base += stored
            self.behind -= stored
            self.sent = max(self.sent, self.base - 1)
            return found
        flight = self.flight
        flew = min(count, len(flight))
        size = flown = sum(len(flight.popleft()) for _ in range(flew))
        if self.sizes:
            flown = sum(self.sizes.popleft() for _ in range(flew))
        size += sum(len(self.waiting.popleft()) for _ in range(count - flew))
        self.bytes -= size
        self.flying -= flown
        numbers = range(self.base, self.base + count)
        self.base += count
        if self.deadlines and self.base > self.sent + 1:
            for number in numbers:
                self.deadlines.pop(number, None)
        self.sent = max(self.sent, self.base - 1)
        if not self.given_up:
            return count
        gone = self.given_up.intersection(numbers)
        self.given_up -= gone
        return count - len(gone)
