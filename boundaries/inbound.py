"""The inbound boundary: any receiver as a converter."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, cast

from nexus import Event, EventFactory, EventKey, NamedEvent, SimpleEventConverter
from nexus.adapters._base import Meta, Receiver
from nexus.adapters._plain import plain
from nexus.boundaries._quarantine import Quarantine, Quarantined
from nexus.boundaries._rules import Convert, Rule, Unmatched, table
from nexus.errors import EndOfData, NoMoreEvents, UnpackerError

__all__ = ["InboundBoundary", "Quarantined", "Rule"]

_urgency = attrgetter("priority")


class InboundBoundary(SimpleEventConverter):
    """Makes events of what a receiver gives; the nexus pulls them whenever it has room.

    ``nexus.register(InboundBoundary(open_receiver("mqtt://host/oven/#"), "reading"))``

    The nexus starts and stops the receiver. Where the transport acknowledges, an item is accepted when its
    event is settled in the nexus (handled, failed for good, unhandled, expired or dropped by policy), so what
    a process had not handled when it died comes again.

    Args:
        receiver: gives the data.
        rules: what becomes of it: an event type for all of it, a `Rule`, a list of them (the first that takes
            an item makes its event; an item that none takes is put aside), or a function of
            ``(data, meta)`` that makes an event, or None for what it leaves out.
        event_factory: gives the events their ids, usually the nexus; None for one of its own.
        quarantine: called with each item that is put aside; None to count and log it only.
        name: for logs and statistics; None for the receiver's.

    Raises:
        TypeError: a function is async: none is awaited here.
    """

    closes_late = True

    def __init__(
        self,
        receiver: Receiver[Any],
        rules: EventKey | type[NamedEvent[Any]] | Rule | Iterable[Rule] | Convert,
        *,
        event_factory: EventFactory | None = None,
        quarantine: Callable[[Quarantined], object] | None = None,
        name: str | None = None,
    ) -> None:
        self.receiver = receiver
        self.name = name or receiver.name
        self.event_factory = event_factory or EventFactory()
        self._quarantine = Quarantine(self.name, quarantine)
        self._convert = _converter(rules, self.event_factory)
        self._acknowledges = receiver.acknowledges
        self._ready: deque[Event[Any]] = deque()  # bounded by one `receive_many`
        self._unpack_listener = receiver.on_bad
        receiver.on_bad = self._bad
        receiver.manual = True
        self.left_out = 0
        """Items of which the function made no event."""

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Items put aside, by reason: ``unpack``, ``convert`` or ``unmatched``."""
        return self._quarantine.counts

    async def start(self) -> None:
        """Start the receiver.

        Raises:
            OpenError: what it needs on this machine cannot be opened.
        """
        await self.receiver.start()

    async def obtain_event(self) -> Event[Any]:
        """Wait for the next event. Cancelled, none is lost.

        Raises:
            NoMoreEvents: the receiver has nothing further.
        """
        if not self._ready:
            self._ready.extend(await self.obtain_events())
        return self._ready.popleft()

    async def obtain_events(self) -> list[Event[Any]]:
        """Wait for events and take all that are ready, at least one, the most urgent first.

        Cancelled, none is lost.

        Raises:
            NoMoreEvents: the receiver has nothing further.
        """
        while True:
            try:
                items = await self.receiver.receive_many()
            except EndOfData as exc:
                raise NoMoreEvents(f"{self.name} has no more events: {exc}") from exc
            events = [event for data, meta in items if (event := self._make(data, meta)) is not None]
            if events:
                events.sort(key=_urgency)
                return events

    async def aclose(self) -> None:
        """Stop the receiver."""
        await self.receiver.stop()

    def _make(self, data: Any, meta: Meta) -> Event[Any] | None:
        """Make an event; None if it was put aside or left out."""
        try:
            event = self._convert(data, meta)
            if event is not None and self._acknowledges:
                return event.evolve(on_settled=lambda outcome: self.receiver.accept(meta))
            if event is not None:
                return event
        except Unmatched:
            self._quarantine.put(Quarantined("unmatched", data, meta, None))
        except Exception as exc:
            self._quarantine.put(Quarantined("convert", data, meta, exc))
        else:
            self.left_out += 1
        self.receiver.accept(meta)
        return None

    def _bad(self, error: UnpackerError) -> None:
        self._quarantine.put(Quarantined("unpack", error.payload, error.meta, error))
        if self._unpack_listener is not None:
            self._unpack_listener(error)


def _converter(rules: Any, factory: EventFactory) -> Convert:
    """Make one function of whatever says what becomes of data."""
    if isinstance(rules, int | str) or (isinstance(rules, type) and issubclass(rules, NamedEvent)):
        rules = Rule(type=rules)
    if isinstance(rules, Rule):
        rules = (rules,)
    if callable(rules):
        return cast("Convert", plain(rules, "what makes events"))
    return table(rules, factory, lambda: asyncio.get_running_loop().time())
