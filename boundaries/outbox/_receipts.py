"""Receipts: what of a lane that came in has been settled, so that a cursor can be kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat

from nexus.boundaries.outbox._kinds import Cursor
from nexus.boundaries.outbox._outbox import Outbox

__all__ = ["Cursors", "Receipt", "Track", "receipts"]


class Track:
    """One lane of one source: all up to `accepted` is settled, and some of what lies beyond.

    Args:
        cursors: keeps it.
        cursor: where it was left in an earlier life.
        stored: told up to which number it is known for good what is settled.
    """

    __slots__ = ("_beyond", "_is_due", "accepted", "cursors", "priority", "source", "stored")

    def __init__(
        self, cursors: Cursors, source: str, priority: int, cursor: Cursor, stored: Callable[[int], None]
    ) -> None:
        self.cursors = cursors
        self.source = source
        self.priority = priority
        self.stored = stored
        self.accepted = cursor.accepted
        self._beyond = {number for low, high in cursor.beyond for number in range(low, high + 1)}
        self._is_due = False

    def has(self, number: int) -> bool:
        """Say whether an event is settled."""
        return number <= self.accepted or number in self._beyond

    def is_new(self, first: int) -> bool:
        """Say whether neither an event nor any that follows it is settled."""
        return first > self.accepted and not self._beyond

    def settled(self, number: int) -> None:
        """Note that an event is settled; once more changes nothing."""
        if number == self.accepted + 1:
            self.accepted = number
            if self._beyond:
                self._join()
        elif self.has(number):
            return
        else:
            self._beyond.add(number)  # bounded by the window of its lane
        if not self._is_due:
            self._is_due = True
            self.cursors.due(self)

    def _join(self) -> None:
        """Take in what lies beyond and follows without a gap."""
        while self.accepted + 1 in self._beyond:
            self.accepted += 1
            self._beyond.remove(self.accepted)

    def skip_to(self, accepted: int) -> None:
        """Note that nothing up to a number comes any more."""
        if accepted > self.accepted:
            self.accepted = accepted
            self._beyond = {number for number in self._beyond if number > accepted}
            self._join()
            if not self._is_due:
                self._is_due = True
                self.cursors.due(self)

    @property
    def beyond(self) -> tuple[tuple[int, int], ...]:
        """Ranges of what is settled after `accepted`, first and last."""
        if not self._beyond:
            return ()
        ranges: list[tuple[int, int]] = []
        for number in sorted(self._beyond):
            if ranges and ranges[-1][1] + 1 == number:
                ranges[-1] = (ranges[-1][0], number)
            else:
                ranges.append((number, number))
        return tuple(ranges)

    def fetch(self) -> Cursor:
        """Give the cursor as it is now, to be stored."""
        self._is_due = False
        return Cursor(self.accepted, self.beyond)


class Receipt(tuple["Track", int]):
    """What a nexus calls when the event it belongs to is settled: ``Event(..., on_settled=receipt)``.

    Made of its track and its number.
    """

    __slots__ = ()

    @property
    def track(self) -> Track:
        """Where it is noted."""
        return self[0]

    @property
    def number(self) -> int:
        """Which event of the track it is."""
        return self[1]

    def __call__(self, outcome: str) -> None:
        self[0].settled(self[1])


def receipts(track: Track, first: int, count: int) -> Iterator[Receipt]:
    """Give the receipts of some events that follow each other."""
    return map(Receipt, zip(repeat(track), range(first, first + count), strict=False))


class Cursors:
    """Keeps in an outbox how far the lanes have come that came in."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._due: list[Track] = []
        self._is_closed = False

    def track(self, source: str, priority: int, stored: Callable[[int], None]) -> Track:
        """Begin a lane where it was left; see `Track`."""
        cursor = self.outbox.cursors(source).get(priority, Cursor(0))
        return Track(self, source, priority, cursor, stored)

    def due(self, track: Track) -> None:
        """Note that a lane has moved; those that do in one turn of the loop are stored together."""
        self._due.append(track)  # each once: bounded by the lanes
        if len(self._due) == 1:
            asyncio.get_running_loop().call_soon(self.store)

    def store(self) -> None:
        """Let the next commit have what has moved."""
        if not self._due or self._is_closed or not self.outbox.is_open:
            return
        due, self._due = self._due, []
        found = []
        for track in due:
            cursor = track.fetch()
            self.outbox.advance(track.source, track.priority, cursor)
            found.append((track, cursor.accepted))
        self.outbox.then(partial(_stored, found))

    def close(self) -> None:
        """Store what has moved, and nothing any more: whoever comes next begins with what is stored."""
        self.store()
        self._is_closed = True


def _stored(found: list[tuple[Track, int]]) -> None:
    for track, accepted in found:
        track.stored(accepted)
