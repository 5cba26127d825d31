"""One connection of a link: a wire on one side, a peer's state on the other, events into a nexus."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from nexus import Event, EventMeta
from nexus._clock import clock_of
from nexus._event import tell_of
from nexus._turn import turn
from nexus.adapters._wire import Wire
from nexus.boundaries.link._depth import Depth
from nexus.boundaries.link._frames import Bye, Events, Row, pack
from nexus.boundaries.link._peer import Arrival, LinkBroken, LinkEnded, Peer
from nexus.boundaries.link._stored import Stream
from nexus.boundaries.link._writer import PromptWire, Writer
from nexus.boundaries.outbox._receipts import Receipt, Track, receipts

__all__ = ["Line", "say_bye"]

BYE_TIMEOUT = 0.5
"""Seconds that saying why a connection ends may take."""

Give = Callable[[deque[Event[Any]], int], int]
"""Gives events of a priority to the nexus from the front, while it has room; returns how many."""

Make = Callable[[list[Row], int, float, EventMeta], "list[Event[Any] | None]"]
"""Makes events of rows, a priority, the seconds that the own clock is ahead of the sender's, and the
metadata of plain events; None for each that is left out."""


class Line:
    """Carries the frames of a peer over a wire until one of them ends.

    Args:
        make: see `Make`.
        may_answer: says whether there may be an answer among unread events that somebody waits for.
        give: see `Give`.
        begin: has a lone event handled at once, if it may be; says whether the nexus has taken it.
        wait: waits until the nexus has room for an event, and gives it.
        moved: told when the other side has accepted something, so that there may be room.
        greeted: told when the other side has said who it is; returns the metadata of its plain events.
        depth: of what this connection has in the lanes of the nexus.
    """

    def __init__(
        self,
        peer: Peer,
        wire: Wire,
        *,
        make: Make,
        may_answer: Callable[[Events], bool],
        give: Give,
        begin: Callable[[Event[Any]], bool],
        wait: Callable[[Event[Any]], Any],
        moved: Callable[[], None],
        greeted: Callable[[], EventMeta],
        depth: Depth,
    ) -> None:
        self._peer = peer
        self._wire = wire
        self._make = make
        self._may_answer = may_answer
        self._give = give
        self._begin = begin
        self._wait = wait
        self._moved = moved
        self._greeted = greeted
        self._depth = depth
        self._writer = Writer(peer, wire)
        self.pushed = self._writer.pushed
        self._failure: Exception | None = None
        """What was wrong with what came, until `run` raises it."""
        self._is_ending = False
        self._pending: dict[int, deque[_Batch]] = {}
        self._plain = EventMeta()
        self._group: asyncio.TaskGroup | None = None
        self._hungry = asyncio.Event()
        """Set when there may be something to read from the outbox."""
        self._loop = asyncio.get_running_loop()
        self._now = clock_of(self._loop)
        self._unsettled: list[tuple[Arrival, float]] = []  # bounded by what comes in a turn of the loop
        """Lone events that the nexus has, and when it got them; they are settled in the next turn."""

    def cut(self) -> None:
        """End the connection at once."""
        self._wire.close()

    def committed(self) -> None:
        """Note that more is durable, and may be sent."""
        self._hungry.set()
        self._writer.now()

    async def run(self, first: list[list[bytes]] | None = None) -> None:
        """Carry frames until the connection ends.

        Args:
            first: messages that were read already.

        Raises:
            LinkBroken: the other side breaks the protocol, ends it, or is silent.
            ConnectionError: the wire is gone.
        """
        loop = asyncio.get_running_loop()
        peer = self._peer
        peer.opened(loop.time())
        peer.stir = self._writer.heard
        prompt = self._wire if isinstance(self._wire, PromptWire) else None
        task = asyncio.current_task()
        cancels = 0 if task is None else task.cancelling()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start(self._writer.run, "link.write")
                self._start(self._watch, "link.watch")
                if peer.stream is not None:
                    self._start(partial(self._refill, peer.stream), "link.refill")
                for frames in first or ():
                    self._take(frames)
                while True:
                    receiving = prompt.receive(self._hand_on) if prompt else self._wire.receive()
                    for frames in await receiving:
                        self._take(frames)
                    if self._failure is not None:
                        raise self._failure
        except BaseExceptionGroup as found:
            if task is not None and task.cancelling() > cancels:
                # A group that ends already lets a cancellation go by.
                raise asyncio.CancelledError from None
            error = _first(found)
            if isinstance(error, LinkBroken) and not isinstance(error, LinkEnded):
                await say_bye(self._wire, str(error))
            raise error from None
        finally:
            self._group = None
            self._settle_lone()
            peer.stir = None
            self._pending.clear()  # not accepted: it comes again
            peer.closed()
            self._wire.close()

    async def leave(self, reason: str) -> None:
        """Tell the other side that the connection ends, and why; for `BYE_TIMEOUT` seconds at most."""
        self._peer.leave(reason)
        self._writer.now()
        try:
            async with asyncio.timeout(BYE_TIMEOUT):
                await self._writer.left.wait()
        except TimeoutError:
            return  # it takes nothing, and will notice

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Let something go on until the connection ends, which it does when that fails."""

        async def watched() -> None:
            try:
                await work()
            except BaseException:
                self._is_ending = True
                raise

        assert self._group is not None
        self._group.create_task(watched(), name=name)

    def _hand_on(self, messages: list[list[bytes]]) -> bool:
        """Take what came in the turn of the loop in which it did; False once the connection ends."""
        try:
            for frames in messages:
                if self._is_ending:
                    return False
                self._take(frames)
        except Exception as exc:
            self._failure = exc
            return False
        return True

    def _take(self, frames: list[bytes]) -> None:
        now, peer = self._now(), self._peer
        before, was_up = peer.outflow.passed, peer.hello is not None
        arrival = peer.feed(frames[0] if len(frames) == 1 else b"".join(frames), now)
        if not was_up and peer.is_up:
            self._plain = self._greeted()
        if peer.outflow.passed != before:
            self._moved()
            self._hungry.set()
        if arrival is not None and self._arrived(arrival, now):
            return
        self._writer.heard()

    def _arrived(self, arrival: Arrival, now: float) -> bool:
        """Give events to the nexus; those that find no room wait, and with them those of their priority.

        Returns:
            Whether it is done, but for what can wait until a lone event has got to its handler.
        """
        priority = arrival.priority
        batch = _Batch(arrival, now)
        if priority in self._pending or self._depth.is_reached(priority):
            if isinstance(arrival.rows, list) or self._may_answer(arrival.rows):
                batch.fill(self._events(arrival, now))
            self._let_wait(batch, priority)
            return False
        events = batch.fill(made := self._events(arrival, now))
        if len(made) == len(events) == 1 and not self._unsettled:
            try:
                if self._begin(events[0]) or self._hand_over(events, priority):
                    self._unsettled.append((arrival, now))
                    return True
            finally:
                self._loop.call_soon(self._after_lone)  # after: what it goes to comes first
        self._settle(batch, self._hand_over(events, priority), now)
        if events:
            self._let_wait(batch, priority)
        return False

    def _let_wait(self, batch: _Batch, priority: int) -> None:
        """Let what came at a priority wait, and what comes after it."""
        waiting = self._pending.get(priority)
        if waiting is not None:
            waiting.append(batch)
            return
        waiting = self._pending[priority] = deque([batch])  # bounded by the window
        self._start(partial(self._drain, priority, waiting), f"link.wait[{priority}]")

    def _hand_over(self, events: deque[Event[Any]], priority: int) -> int:
        """Give events of a priority to the nexus, from the front, while it has room; return how many."""
        given = self._give(events, priority)
        if given:
            self._depth.note(priority)
        return given

    def _events(self, arrival: Arrival, now: float) -> list[Event[Any] | None]:
        """Make the events of what has come; None for each that is none for the nexus.

        Args:
            now: when they came.

        Raises:
            LinkBroken: what came is not what it says.
        """
        plain = self._plain
        made = self._make(arrival.read(), arrival.priority, now - arrival.sent / 1e6, plain)
        if arrival.track is not None:
            made = _tracked(made, arrival.track, arrival.first, plain)
        return made

    def _settle_lone(self) -> None:
        """Note that the nexus has accepted lone events."""
        for arrival, now in self._unsettled:
            self._peer.accepted(arrival, 1, now)
        self._unsettled.clear()

    def _after_lone(self) -> None:
        """Do what had to wait while a lone event got to its handler."""
        if self._group is not None:
            self._settle_lone()
            self._writer.heard()

    def _settle(self, batch: _Batch, given: int, now: float) -> None:
        """Note what the nexus has accepted, and with it those rows before that are no events for it."""
        if batch.steps is not None:
            given = batch.rows_of(given)
        if given:
            self._peer.accepted(batch.arrival, given, now)

    async def _drain(self, priority: int, waiting: deque[_Batch]) -> None:
        """Give what waits."""
        loop = asyncio.get_running_loop()
        while waiting:
            await self._depth.wait(priority)
            batch = waiting[0]
            events = batch.events
            if events is None:
                events = batch.fill(self._events(batch.arrival, batch.came))
            given = self._hand_over(events, priority)  # there may be room since this was told to wait
            if events and not given:
                await self._wait(events[0])
                events.popleft()
                given = 1 + self._hand_over(events, priority)
            self._settle(batch, given, loop.time())
            self._writer.heard()
            if not events:
                waiting.popleft()
                await turn()
        del self._pending[priority]

    async def _refill(self, stream: Stream) -> None:
        """Read from the outbox what found no room in memory, as soon as there is some."""
        outflow = self._peer.outflow
        while True:
            self._hungry.clear()
            while (place := outflow.hungry()) is not None:
                outflow.loaded(*place, await stream.read(*place))
                self._writer.now()
            await self._hungry.wait()

    async def _watch(self) -> None:
        """Notice that the other side is silent, also while it takes nothing and the writer waits."""
        while True:
            await asyncio.sleep(self._peer.limits.heartbeat)
            self._peer.check(asyncio.get_running_loop().time())


def _tracked(
    made: list[Event[Any] | None], track: Track, first: int, plain: EventMeta
) -> list[Event[Any] | None]:
    """Give events that say when they are settled; without those that were settled in an earlier life."""
    if track.is_new(first):  # the usual case
        events = [event for event in made if event is not None and event._meta is plain]
        if len(events) == len(made):
            tell_of(events, receipts(track, first, len(made)), plain)  # type: ignore[arg-type]  # callable
            return made
    found: list[Event[Any] | None] = []
    for number, event in enumerate(made, first):
        if event is None or track.has(number):
            track.settled(number)
            found.append(None)
        else:
            found.append(event.evolve(on_settled=Receipt((track, number))))
    return found


class _Batch:
    """What came in one frame and is on its way into the nexus."""

    __slots__ = ("arrival", "came", "events", "steps")

    def __init__(self, arrival: Arrival, came: float) -> None:
        self.arrival = arrival
        self.came = came
        """When that was, in seconds on the loop's clock."""
        self.events: deque[Event[Any]] | None = None  # bounded by a frame
        """Those that the nexus has not taken; None as long as they are unread."""
        self.steps: deque[int] | None = None  # bounded by a frame
        """How many rows each event accounts for, and those after the last; None where it is one each."""

    def fill(self, made: list[Event[Any] | None]) -> deque[Event[Any]]:
        """Take the events, of which None is none, and give those that are for the nexus."""
        self.events = deque([event for event in made if event is not None])  # bounded by a frame
        if len(self.events) < len(made):
            self.steps = deque([0])  # bounded by a frame
            for event in made:
                self.steps[-1] += 1
                if event is not None:
                    self.steps.append(0)
        return self.events

    def rows_of(self, given: int) -> int:
        """Return how many rows are dealt with after so many further events."""
        assert self.steps is not None
        rows = sum(self.steps.popleft() for _ in range(given))
        if not self.events and self.steps:
            rows += self.steps.popleft()
        return rows


async def say_bye(wire: Wire, reason: str) -> None:
    """Tell whoever is there why the connection ends, if it listens."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(BYE_TIMEOUT):
            await wire.send([pack(Bye(reason))])


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the error that ended the tasks."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
