"""Effects: what events do to a database, committed together with how far their source has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from nexus import Event, EventConsumer, SecondaryQueue
from nexus.adapters._plain import plain
from nexus.boundaries.outbox._kinds import Connection
from nexus.boundaries.outbox._outbox import Outbox
from nexus.boundaries.outbox._receipts import Cursors, Receipt
from nexus.boundaries.outbox._schema import is_the_files

__all__ = ["Apply", "Effects"]

Apply: TypeAlias = "Callable[[Connection, Sequence[Event[Any]]], object]"
"""Does to the database what events ask for; runs in the outbox's own thread, inside its transaction."""

Done = Callable[[BaseException | None], None]


class Effects(EventConsumer):
    """A handler that writes to tables of its own in the file of an outbox.

    What it writes is committed in one transaction with the cursor of the link that the event came over. So
    the effect of an event is there once, whichever process is killed at whatever moment.

    Args:
        outbox: the outbox of the link; it must be open.
        apply: called with the connection and some events, in the order of their lane. It executes statements
            and leaves the transaction alone. Where it raises, it is called again for each event alone, and
            those for which it raises again have failed. Where the disk fails, the commit is done again: let
            those errors out.
        maxsize: events that may be under way; more wait in the nexus.

    Raises:
        TypeError: `apply` is async: the outbox's thread has no event loop.
    """

    lanewise = True

    def __init__(self, outbox: Outbox, apply: Apply, *, maxsize: int = 10_000) -> None:
        self._outbox = outbox
        self._apply = plain(apply, "apply")
        self._maxsize = maxsize
        self._taken: list[tuple[Event[Any], Done]] = []
        self._under_way = 0
        self._room: list[asyncio.Future[None]] = []

    def handle_later(self, event: Event[Any], done: Done) -> bool:
        """Take an event, and say when its effect is durable; False while too many are under way."""
        if self._under_way >= self._maxsize:
            return False
        self._under_way += 1
        self._taken.append((event, done))
        if len(self._taken) == 1:
            asyncio.get_running_loop().call_soon(self._hand_in)
        return True

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        """Wait until the effect of an event is durable.

        Raises:
            Exception: what `apply` raised; then there is none.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        while not self.handle_later(event, partial(_finish, over)):
            room = loop.create_future()
            self._room.append(room)
            await room
        await over

    def _hand_in(self) -> None:
        """Let the next commit have what was taken in this turn of the loop, and the cursors with it."""
        taken, self._taken = self._taken, []
        work = _Work(self._apply, [event for event, _ in taken])
        self._outbox.effect(work, partial(self._committed, taken, work))
        cursors: dict[Cursors, None] = {}
        for event, _ in taken:
            receipt = event.meta.on_settled
            if isinstance(receipt, Receipt) and receipt.track.cursors.outbox is self._outbox:
                # They are settled by that commit, and it has to know of them.
                receipt.track.settled(receipt.number)
                cursors[receipt.track.cursors] = None
        for each in cursors:
            each.store()

    def _committed(
        self, taken: list[tuple[Event[Any], Done]], work: _Work, exc: BaseException | None
    ) -> None:
        self._under_way -= len(taken)
        for place, (_, done) in enumerate(taken):
            done(exc or work.failures.get(place))
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Work:
    """The effects of some events; may be done again when a commit has failed."""

    def __init__(self, apply: Apply, events: list[Event[Any]]) -> None:
        self._apply = apply
        self._events = events
        self.failures: dict[int, Exception] = {}
        """What failed alone, by its place."""

    def __call__(self, connection: Connection) -> None:
        self.failures = {}
        if self._try(connection, self._events) is None:
            return
        for place, event in enumerate(self._events):
            if (exc := self._try(connection, [event])) is not None:
                self.failures[place] = exc

    def _try(self, connection: Connection, events: list[Event[Any]]) -> Exception | None:
        connection.execute("SAVEPOINT some")
        try:
            self._apply(connection, events)
        except Exception as exc:
            if is_the_files(exc):
                raise  # nothing is wrong with the events: the whole commit is done again
            connection.execute("ROLLBACK TO some")
            connection.execute("RELEASE some")
            return exc
        connection.execute("RELEASE some")
        return None


def _finish(over: asyncio.Future[None], exc: BaseException | None) -> None:
    if over.done():
        return
    if exc is None:
        over.set_result(None)
    else:
        over.set_exception(exc)
