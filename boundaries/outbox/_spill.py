"""A file for the policy `Spill`: where events wait that found their lane full."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal

from nexus import Event, EventKey, NamedEvent
from nexus.boundaries.outbox._kinds import OutboxState
from nexus.boundaries.outbox._outbox import Outbox
from nexus.boundaries.outbox._spill_rows import SpillRows
from nexus.errors import BadCall, PackerError, UnpackerError

__all__ = ["SpillFile"]

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Events that are given at once, so that making them holds nobody up."""
AHEAD_ROWS: Final = 1024
AHEAD_BYTES: Final = 2**18
"""Rows and bytes of a line that are read at once."""


class _Line:
    """One type and priority."""

    __slots__ = ("ahead", "ahead_first", "last", "settled", "stream", "type", "unsaved", "unsaved_first")

    def __init__(self, type: EventKey, stream: str, last: int) -> None:
        self.type = type
        self.stream = stream
        self.last = last
        self.settled = 0
        self.unsaved: deque[bytes] = deque()  # bounded by what may wait in the outbox
        self.unsaved_first = last + 1
        self.ahead: deque[bytes] = deque()  # bounded by AHEAD_ROWS and AHEAD_BYTES
        self.ahead_first = 0

    def saved(self, number: int) -> None:
        """Forget the rows up to a number: they are on the disk."""
        while self.unsaved and self.unsaved_first <= number:
            self.unsaved.popleft()
            self.unsaved_first += 1


class SpillFile:
    """Where events wait on the disk until their lane has room: ``nexus.set_policy(type, Spill(file))``.

    The nexus opens and closes it; one nexus at a time. An event is safe from the death of the process once it
    is committed, some milliseconds after it was given, and until its story has ended; so it may come twice.

    What comes back is equal to what was given, or it does not go to the disk: the payload is plain JSON
    (strings, numbers, booleans, None, lists, dicts with strings as keys), or the event's class is among
    `types` and its payload an attrs object of plain fields. Others wait for their lane, as with `Block`.

    A deadline goes on while its event is on the disk: by the loop's clock, and from one process to the next
    by the system's.

    Args:
        path: of the file; made for its owner alone if it is missing.
        types: the classes of named events that may go there.
        max_bytes: of rows that it holds, more than 0.
        synchronous: ``full`` survives a power cut, ``normal`` the death of the process.
        wall: seconds since 1970.
        options: of the `Outbox` that it is, for tests.

    Raises:
        BadCall: the path is ``:memory:``.
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        types: Iterable[type[NamedEvent[Any]]] = (),
        max_bytes: int = 2**30,
        synchronous: Literal["full", "normal"] = "full",
        wall: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        self._outbox = Outbox(path, max_bytes=max_bytes, synchronous=synchronous, **options)
        self._outbox.on_state(self._changed)
        self._types = tuple(types)
        self._wall = wall
        self._rows = SpillRows(self._types, wall=wall)
        self._lines: dict[tuple[EventKey, int], _Line] = {}
        self._told: set[EventKey] = set()
        self._is_watching = False
        self._is_wanted = False
        self._has_room: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self._outbox.path!r} {self.state}>"

    @property
    def state(self) -> OutboxState:
        """How the file is."""
        return self._outbox.state

    def on_state(self, listener: Callable[[OutboxState], object]) -> None:
        """Call a listener, in the loop, when the file fails, is full, is damaged, or is well again."""
        self._outbox.on_state(listener)

    async def durable(self) -> None:
        """Wait until all that was put so far is on the disk.

        Raises:
            BadCall: it is not open.
            OpenError: it was closed before.
        """
        await self._outbox.durable()

    # The protocol.

    async def open(self) -> None:
        """Open the file.

        Raises:
            BadCall: it is open: another nexus has it.
            OutboxInUse: another process has it.
            NoOutbox: it is another kind of file, or was made by a newer version.
            OpenError: the disk does not let it.
        """
        if self._outbox.is_open:
            raise BadCall(f"{self!r} belongs to a nexus already; each needs a file of its own")
        await self._outbox.open()
        self._rows = SpillRows(self._types, wall=self._wall)  # another life: perhaps of another loop
        self._lines.clear()
        self._is_watching = self._is_wanted = False

    async def close(self) -> Sequence[Event[Any]]:
        """Commit what waits, for some seconds, and close the file.

        Returns:
            What was put, and neither stored nor settled.
        """
        if self._outbox.is_open:
            marks = self._marks()
            self._outbox.then(lambda: self._saved(marks))
        await self._outbox.aclose()
        now = asyncio.get_running_loop().time()
        lost = [
            self._rows.unpack(row, priority, now)
            for (_, priority), line in self._lines.items()
            for number, row in enumerate(line.unsaved, line.unsaved_first)
            if number > line.settled
        ]
        self._lines.clear()
        return lost

    def held(self, type: EventKey) -> Mapping[int, range]:
        """Return the numbers of what is held of a type, by priority."""
        try:
            lanes = self._outbox.lanes(_stream(type))
        except PackerError:
            return {}
        return {priority: range(lane.first, lane.last + 1) for priority, lane in lanes.items()}

    def put(self, event: Event[Any]) -> int | None:
        """Take an event at the end of its line; None when there is no room, or it would come back changed."""
        try:
            line = self._line(event.type, event.priority)
            row = self._rows.pack(event, asyncio.get_running_loop().time())
        except PackerError as exc:
            if event.type not in self._told:
                self._told.add(event.type)
                logger.warning("events of type %r wait for their lane, not on the disk: %s", event.type, exc)
            return None
        outbox = self._outbox
        if not outbox.is_open or not outbox.has_room(len(row)):
            self._is_wanted = True
            return None
        outbox.put(line.stream, event.priority, line.last + 1, row)
        line.last += 1
        line.unsaved.append(row)
        if not self._is_watching:
            self._watch()
        return line.last

    async def read(self, type: EventKey, priority: int, first: int) -> Sequence[Event[Any] | None]:
        """Return the next events of a line, from memory those that are not stored yet; None for damaged
        ones."""
        line = self._line(type, priority)
        if first >= line.unsaved_first and line.unsaved:
            start = first - line.unsaved_first
            rows = list(islice(line.unsaved, start, start + AT_ONCE))
        else:
            if not line.ahead or line.ahead_first != first:
                found = await self._outbox.read(
                    line.stream, priority, first, most_rows=AHEAD_ROWS, most_bytes=AHEAD_BYTES
                )
                line.ahead, line.ahead_first = deque(found), first  # bounded by AHEAD_ROWS and AHEAD_BYTES
            rows = [line.ahead.popleft() for _ in range(min(AT_ONCE, len(line.ahead)))]
            line.ahead_first += len(rows)
        if not rows:  # they were stored, and were lost with what told of them
            return [None] * min(AT_ONCE, line.unsaved_first - first)
        now = asyncio.get_running_loop().time()
        return [self._unpack(row, priority, now) for row in rows]

    def _unpack(self, row: bytes, priority: int, now: float) -> Event[Any] | None:
        """Make an event of a row; None if that cannot be."""
        if row == b"null":
            return None
        try:
            return self._rows.unpack(row, priority, now)
        except UnpackerError as exc:
            logger.warning("%r holds something that is no event: %s", self, exc)
            return None

    def settled(self, type: EventKey, priority: int, number: int) -> None:
        """Forget all events of a line up to this number; nothing when the file is closed."""
        if self._outbox.is_open:
            line = self._line(type, priority)
            line.settled = max(line.settled, number)
            self._outbox.accepted(line.stream, priority, number)

    def on_room(self, listener: Callable[[], object]) -> None:
        """Call this whenever there may be room again."""
        self._has_room = listener

    # What is stored, and what is not.

    def _line(self, type: EventKey, priority: int) -> _Line:
        """Return a line, a new one if need be."""
        line = self._lines.get((type, priority))
        if line is None:
            stream = _stream(type)
            contents = self._outbox.lanes(stream).get(priority)
            line = _Line(type, stream, contents.last if contents is not None else 0)
            self._lines[type, priority] = line
        return line

    def _marks(self) -> list[tuple[_Line, int]]:
        """Say up to which number the lines go now."""
        return [(line, line.last) for line in self._lines.values() if line.unsaved]

    def _watch(self) -> None:
        """Ask to be told when all that was put so far is stored."""
        marks = self._marks()
        self._is_watching = True
        self._outbox.then(lambda: self._saved(marks))

    def _saved(self, marks: list[tuple[_Line, int]]) -> None:
        """Forget what is stored, and let those go on who found no room."""
        for line, last in marks:
            line.saved(last)
        self._is_watching = False
        if any(line.unsaved for line in self._lines.values()):
            self._watch()
        if self._is_wanted:
            self._is_wanted = False
            self._has_room()

    def _changed(self, state: OutboxState) -> None:
        """Let those go on who found no room, once the file has some."""
        if state.condition == "open":
            self._is_wanted = False
            self._has_room()


def _stream(type: EventKey) -> str:
    """Name the stream of a type.

    Raises:
        PackerError: there cannot be one.
    """
    if isinstance(type, int):
        return f"i{int(type)}"
    if "\0" in type or type != type.encode(errors="replace").decode():
        raise PackerError(type, "the name of its type has a NUL or half a character")
    return f"s{type}"
