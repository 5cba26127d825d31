"""What comes over a link: from rows to events in the queue of a nexus."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from nexus import AsyncEventNexus, Event, EventMeta
from nexus._event import make_event, make_events
from nexus._queue import Giver
from nexus.boundaries._requests import Requests
from nexus.boundaries.link._authority import Authority
from nexus.boundaries.link._frames import Events, Row
from nexus.boundaries.link._rows import Rows
from nexus.errors import BadEvent, NexusError

__all__ = ["Arrivals"]

logger = logging.getLogger(__name__)


class Arrivals:
    """Makes events of rows, and gives them to a nexus as it has room.

    Args:
        name: of the link, for the log.
        authority: what may come; None for everything.
        requests: which answers are waited for.
    """

    def __init__(self, name: str, rows: Rows, authority: Authority | None, requests: Requests) -> None:
        self.nexus: AsyncEventNexus | None = None
        self.received = 0
        """Events that the nexus has taken, and answers that were waited for."""
        self.left_out: dict[str, int] = {}
        """Events that were left out, by reason."""
        self._name = name
        self._rows = rows
        self._authority = authority
        self._requests = requests

    def events(
        self, rows: list[Row], priority: int, ahead: float, plain: EventMeta
    ) -> list[Event[Any] | None]:
        """Make events; None for each that is left out, and for what is none."""
        if self._authority is None and not self._rows.classes:
            try:
                return make_events(rows, priority, plain)  # type: ignore[arg-type,return-value]  # it looks
            except (TypeError, ValueError):
                pass  # some are not of the ordinary form
        return [None if row is None else self._event(row, priority, ahead, plain) for row in rows]

    def may_answer(self, unread: Events) -> bool:
        """Say whether there may be an answer among events that somebody waits for."""
        return self.is_asking() and b'"route"' in unread.data

    def is_asking(self) -> bool:
        """Say whether somebody waits for an answer."""
        return self._requests.is_asking

    def _event(self, row: list[Any], priority: int, ahead: float, plain: EventMeta) -> Event[Any] | None:
        """Make an event; None for one that is left out, which is counted."""
        if len(row) == 3 and self._authority is None and row[1] not in self._rows.classes:
            return make_event(row[0], row[1], priority, row[2], plain)
        assert self.nexus is not None
        try:
            event = self._rows.unpack(row, priority, ahead, plain)
        except BadEvent as exc:
            logger.warning("%s leaves out an event: %s", self._name, exc)
            self.leave_out("bad")
            return None
        if event._meta is not plain and event.route:
            late = self._requests.late
            if self._requests.answer(event):
                self.received += self._requests.late == late
                return None
        if self._authority is not None and not self._authority.admits(event):
            self.leave_out("forbidden")
            return None
        if event._meta is not plain and self.nexus.domain in event.path:
            self.leave_out("loop")
            return None
        return event

    def give(self, events: deque[Event[Any]], priority: int) -> int:
        """Give events of one priority from the front for as long as there is room; return how many.

        A nexus that stops takes none; its link goes on until what it holds is sent.
        """
        assert self.nexus is not None
        if self.nexus.queue.closed is not None:
            return 0
        before = len(events)
        self.nexus.queue.give_arrivals(events, priority)
        count = before - len(events)
        self.received += count
        return count

    def begin(self, event: Event[Any]) -> bool:
        """Have a lone event handled here and now, if nothing is before it and its handler is inline; say
        whether the nexus has taken it."""
        assert self.nexus is not None
        if not self.nexus._straight.begin(event):
            return False
        self.received += 1
        return True

    async def give_when_room(self, event: Event[Any]) -> None:
        """Wait until there is room for an event, and give it; for ever, where the nexus stops before."""
        assert self.nexus is not None
        queue = self.nexus.queue
        try:
            if queue.closed is None:
                await queue.wait_for_room(event, Giver.ARRIVAL)
        except NexusError:
            if queue.closed is None:
                raise
        if queue.closed is not None:
            await asyncio.Event().wait()  # not accepted: it comes again, in the next life
        self.received += 1

    def leave_out(self, reason: str) -> None:
        """Count an event that is left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
