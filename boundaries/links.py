"""Link and outbox states as events: how a nexus hears that a peer is gone or back, and that a disk fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from nexus import AsyncEventNexus, NamedEvent
from nexus._queue import Giver
from nexus.adapters._base import LinkState
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.outbound import OutboundBoundary
from nexus.boundaries.outbox import Outbox, OutboxState, SpillFile

__all__ = ["LinkStateEvent", "OutboxStateEvent", "announce_links", "announce_outboxes"]


class LinkStateEvent(NamedEvent[LinkState]):
    """Says that a link stands differently now."""


class OutboxStateEvent(NamedEvent[OutboxState]):
    """Says that an outbox is full, failing, damaged, or well again, or was taken over."""


class Linked(Protocol):
    """What has a link: a sender, a receiver, a `nexus.boundaries.link.Link`."""

    def on_link(self, listener: Callable[[LinkState], object], /) -> None: ...


def announce_links(
    nexus: AsyncEventNexus, *halves: Linked | InboundBoundary | OutboundBoundary, priority: int = -1
) -> None:
    """Give the nexus a `LinkStateEvent` at every change of these links, where a handler takes it.

    ``@nexus.on(LinkStateEvent)`` hears of it; while the nexus does not run, nobody is told.

    Args:
        priority: of these events.
    """
    tell = partial(_tell, nexus, LinkStateEvent, priority)
    for half in halves:
        if isinstance(half, InboundBoundary):
            half.receiver.on_link(tell)
        elif isinstance(half, OutboundBoundary):
            half.sender.on_link(tell)
        else:
            half.on_link(tell)


def announce_outboxes(nexus: AsyncEventNexus, *outboxes: Outbox | SpillFile, priority: int = -1) -> None:
    """Give the nexus an `OutboxStateEvent` whenever one of these is full, damaged, fails, or is well.

    Also when it stands by for another process, or has taken over. As with `announce_links`, where a handler
    takes it and while the nexus runs.

    Args:
        priority: of these events.
    """
    for outbox in outboxes:
        outbox.on_state(partial(_tell, nexus, OutboxStateEvent, priority))


def _tell(nexus: AsyncEventNexus, kind: type[NamedEvent[Any]], priority: int, state: object) -> None:
    running = nexus.state in (nexus.States.STARTING, nexus.States.LOOPING)
    if running and nexus.queue.closed is None and nexus.ledger.has_handlers(kind.event_type):
        event = nexus.create_event(state, event_type=kind, priority=priority)
        nexus.queue.admit(event, Giver.HOLDER)
