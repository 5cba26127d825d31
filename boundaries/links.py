"""Link states as events: how a nexus hears that a peer is gone or back."""

from __future__ import annotations

from nexus import AsyncEventNexus, NamedEvent
from nexus._queue import Giver
from nexus.adapters._base import Adapted, LinkState
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.outbound import OutboundBoundary

__all__ = ["LinkStateEvent", "announce_links"]


class LinkStateEvent(NamedEvent[LinkState]):
    """Says that a link stands differently now."""


def announce_links(
    nexus: AsyncEventNexus, *halves: Adapted | InboundBoundary | OutboundBoundary, priority: int = -1
) -> None:
    """Give the nexus a `LinkStateEvent` at every change of these links, where a handler takes it.

    ``@nexus.on(LinkStateEvent)`` hears of it; while the nexus does not run, nobody is told.

    Args:
        priority: of these events.
    """

    def tell(state: LinkState) -> None:
        running = nexus.state in (nexus.States.STARTING, nexus.States.LOOPING)
        if running and nexus.queue.closed is None and nexus.ledger.has_handlers(LinkStateEvent.event_type):
            event = nexus.create_event(state, event_type=LinkStateEvent, priority=priority)
            nexus.queue.admit(event, Giver.HOLDER)

    for half in halves:
        if isinstance(half, InboundBoundary):
            half.receiver.on_link(tell)
        elif isinstance(half, OutboundBoundary):
            half.sender.on_link(tell)
        else:
            half.on_link(tell)
