"""The outbound boundary: any sender as a handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from nexus import Event, EventConsumer, EventSource, SecondaryQueue
from nexus.adapters._base import Sender
from nexus.adapters._plain import plain
from nexus.errors import BadCall

__all__ = ["OutboundBoundary", "Outgoing"]

Outgoing: TypeAlias = "tuple[Any, Mapping[str, Any]]"
"""Data, and the options of the transport's `send`, such as ``topic``."""


class OutboundBoundary(EventConsumer, EventSource):
    """Sends the payload of the events it handles.

    ``nexus.add_handler("alarm", OutboundBoundary(open_sender("mqtt://host/alarms?qos=1")))``

    Urgent events overtake: the sender's backlog has a lane for each priority, and each priority waits for
    itself alone. Registered as a source as well (``nexus.register(boundary)``) the nexus starts the sender
    and, when its queue is drained, stops it, which sends what is accepted within the sender's
    `flush_timeout`. Not registered, the sender starts with its first event and whoever made it stops it.

    Args:
        sender: takes the data.
        topic: for transports that have topics, that of every event; a function of the event, or a table from
            event type to topic (an event of another type fails); None for the transport's own default.
        payload: makes data of an event; None for its payload.
        convert: in place of both, makes ``(data, options)`` of an event, or None for what is not to be sent.
        confirm: False: an event is handled when the sender has accepted it. True: when the transport has it,
            acknowledged where it acknowledges; what a process had not confirmed when it died was not handled.
        concurrency: events of one priority that may be on their way at once, where `confirm` is True.
        name: for logs and graphs; None for the sender's.

    Raises:
        TypeError: a function is async: none is awaited here.

    Attributes:
        left_out: events for which `convert` returned None.
    """

    lanewise = True
    closes_late = True

    def __init__(
        self,
        sender: Sender[Any],
        *,
        topic: str | Callable[[Event[Any]], str] | Mapping[Any, str] | None = None,
        payload: Callable[[Event[Any]], Any] | None = None,
        convert: Callable[[Event[Any]], Outgoing | None] | None = None,
        confirm: bool = False,
        concurrency: int = 256,
        name: str | None = None,
    ) -> None:
        if convert is not None and (topic is not None or payload is not None):
            raise BadCall("convert says both what is sent and where; leave topic and payload out")
        if not isinstance(concurrency, int) or concurrency < 1:
            raise BadCall(f"concurrency must be 1 or more, not {concurrency!r}")
        self.sender = sender
        self.name = name or sender.name
        self.left_out = 0
        self.confirm = confirm
        # One at a time keeps the order where it is the backlog that takes them.
        self.concurrency = concurrency if confirm else 1
        self._payload = plain(payload, "payload")
        self._topic = plain(topic, "topic")
        self._convert = plain(convert, "convert") or self._plain

    async def start(self) -> None:
        """Start the sender.

        Raises:
            OpenError: what it needs on this machine cannot be opened.
        """
        await self.sender.start()

    async def aclose(self) -> None:
        """Stop the sender, after what it has accepted, within its `flush_timeout`."""
        await self.sender.stop()

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        """Send an event; see `confirm` for when it returns. Cancelled while waiting for room, it is not sent.

        Raises:
            PackerError: its payload cannot be packed, or is too large.
            ConfigError: the transport does not take its topic.
            LinkDown: the sender was stopped, or its link has failed for good.
        """
        outgoing = self._convert(event)
        if outgoing is None:
            self.left_out += 1
            return
        data, options = outgoing
        send = self.sender.deliver if self.confirm else self.sender.send
        await send(data, priority=event.priority, **options)

    def handle_nowait(self, event: Event[Any]) -> bool:
        """Give the event to the sender if that needs no waiting; say whether it was given.

        Raises what `handle` raises.
        """
        if self.confirm:
            return False
        outgoing = self._convert(event)
        if outgoing is None:
            self.left_out += 1
            return True
        return self.sender.send_nowait(outgoing[0], priority=event.priority, **outgoing[1])

    def _plain(self, event: Event[Any]) -> Outgoing:
        data = event.payload if self._payload is None else self._payload(event)
        topic = self._topic
        if topic is None:
            return data, {}
        if isinstance(topic, Mapping):
            if event.type not in topic:
                raise LookupError(
                    f"no topic for events of type {event.type!r}; there is one for: {list(topic)}"
                )
            topic = topic[event.type]
        elif callable(topic):
            topic = topic(event)
        return data, {"topic": topic}
