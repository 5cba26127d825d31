"""Events over ZMQ sockets, in the wire form of async-nexus: one JSON object in one frame.

The program makes, binds and connects its sockets; these classes read and write them. Nothing is acknowledged
here: PUSH/PULL keeps the order and holds the sender back, but what is on its way when a process dies is lost,
and PUB drops what a slow subscriber has no room for, unless ``ZMQ_XPUB_NODROP`` is set on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import zmq

from nexus import Event, EventConsumer, SecondaryQueue
from nexus.adapters._wire import Wire
from nexus.adapters._zmq_socket import ZmqWire
from nexus.boundaries._envelope import MAX_SIZE, BadFrame, pack
from nexus.boundaries._zmq_converters import (
    AnySocket,
    SocketUser,
    ZmqAbstractConverter,
    ZmqEventConverter,
    ZmqEventReceiver,
)
from nexus.errors import BadCall, PackerError

__all__ = [
    "BadFrame",
    "ZmqAbstractConverter",
    "ZmqEventConverter",
    "ZmqEventReceiver",
    "ZmqEventSender",
    "send_event",
]


class ZmqEventSender(SocketUser, EventConsumer):
    """Sends the events it handles over a socket; waits while the socket has no room.

    A nexus runs it in a task beside its own, so that a full socket holds up nobody but itself. `NamedEvent`
    objects go with their type's name and arrive as plain events; metadata stays here. At the end of ``with``
    or ``async with`` the socket is closed.

    Args:
        socket: bound or connected by the caller, of a type that sends; a `Wire` serves as well.
        topic: None for messages of one frame; what to put into a first frame before each event.
        max_message: bytes of one event; a larger one raises `PackerError`, for no receiver would take it.
        linger: seconds, 0 or more, that sending may go on after the end of ``with``.
    """

    concurrency = 1
    leads_out = True

    def __init__(
        self,
        socket: AnySocket | Wire,
        *,
        topic: str | bytes | None = None,
        max_message: int = MAX_SIZE,
        linger: float = 1.0,
    ) -> None:
        if not linger >= 0:
            raise BadCall(f"linger must be 0 seconds or more, not {linger!r}")
        self.socket = socket
        self.linger = linger
        self.max_message = max_message
        self.topic = topic.encode() if isinstance(topic, str) else topic
        self._wire: Wire = (
            ZmqWire(socket, max_message=max_message) if isinstance(socket, zmq.Socket) else socket
        )
        self._sending = 0
        self._idle: asyncio.Future[None] | None = None

    def handle_nowait(self, event: Event[Any], queue: SecondaryQueue | None = None) -> bool:
        """Send the event if the socket has room for it now; say whether it was sent.

        Any other `Wire` than a socket is left to `handle`. Raises what `handle` raises.
        """
        wire = self._wire
        if not isinstance(wire, ZmqWire):
            return False
        try:
            return wire.send_nowait(_frames(event, self.topic, self.max_message))
        except ConnectionError as exc:
            raise BadCall(f"event {event.id} was not sent: {exc}") from exc

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        """Send the event; return when the socket has accepted it. Cancelled while waiting, it was not sent.

        Raises:
            PackerError: the payload is not JSON, or too large.
            BadCall: the sender or the socket is closed.
        """
        frames = _frames(event, self.topic, self.max_message)
        self._sending += 1
        try:
            await self._wire.send(frames)
        except ConnectionError as exc:
            raise BadCall(f"event {event.id} was not sent: {exc}") from exc
        finally:
            self._sending -= 1
            if self._idle is not None and not self._sending and not self._idle.done():
                self._idle.set_result(None)

    async def flush(self, *, timeout: float | None = None) -> bool:
        """Wait until everything that is being handled is in the socket.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            False if the time was up before, or the socket is closed.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._sending:
                    if self._idle is None or self._idle.done():
                        self._idle = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._idle)
                if isinstance(self._wire, ZmqWire):
                    await self._wire.flush()
        except (TimeoutError, ConnectionError):
            return False
        return True

    def close(self) -> None:
        """Stop using the socket, which stays open; an event that waits for room fails.

        May be called twice.
        """
        if isinstance(self._wire, ZmqWire):
            self._wire.close()

    async def aclose(self) -> None:
        """Give events that wait for room the time of ``linger``, then close."""
        await self.flush(timeout=self.linger)
        self.close()


async def send_event(event: Event[Any], socket: AnySocket | Wire) -> None:
    """Send one event; return when the socket, plain or asyncio, has accepted it.

    Cancelled while waiting for room, it was not sent. For many events a `ZmqEventSender` is quicker.

    Raises:
        PackerError: the payload is not JSON, or too large.
        BadCall: the socket is closed, or of a type that does not send.
    """
    frames = _frames(event, None, MAX_SIZE)
    wire = ZmqWire(socket) if isinstance(socket, zmq.Socket) else socket
    try:
        await wire.send(frames)
    except ConnectionError as exc:
        raise BadCall(f"event {event.id} was not sent: {exc}") from exc
    finally:
        if wire is not socket:
            wire.close()


def _frames(event: Event[Any], topic: bytes | None, max_message: int) -> list[bytes]:
    """Make the message of an event."""
    data = pack(event)
    if len(data) > max_message:
        raise PackerError(
            event, f"event {event.id} of type {event.type!r} has {len(data)} bytes; {max_message} are allowed"
        )
    return [data] if topic is None else [topic, data]
