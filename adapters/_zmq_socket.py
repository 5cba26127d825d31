"""A ZMQ socket as a wire: everything libzmq has ready in one go, and real back-pressure."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq
import zmq.asyncio

from nexus.adapters._zmq_port import AnySocket, ZmqPort
from nexus.errors import BadCall

__all__ = ["MAX_MESSAGE", "ZmqWire"]

MAX_MESSAGE = 1024 * 1024
"""Bytes a message may have unless told otherwise."""

SLACK = 4
"""How many times ``max_message`` libzmq itself lets in. It cuts the connection of a peer that claims more,
before it allocates anything; what is between the two costs one message and not the connection."""

BURST = 64
"""Messages that are held back at most, to go together."""
SMALL = 16 * 1024
"""Bytes of the last frame of a message up to which it may be held back."""

FLOOD = 1e-3
"""Seconds for which they are held back at most while they flood."""

TURN = 256
"""Sends between two turns given to the event loop: a socket with room never waits by itself."""

logger = logging.getLogger(__name__)

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = zmq.EVENTS
_POLLIN = int(zmq.POLLIN)
_sends = itertools.count(1)


class ZmqWire:
    """Send and receive over a socket that the caller made, connected or bound, and will close.

    Works with a `zmq.asyncio.Socket` and with a plain `zmq.Socket`, which it never blocks on. Several wires
    may share one socket. Calls made past them on the same socket are safe, but may delay a waiting wire by
    a tenth of a second.

    A message sent after a turn of the loop without any goes at once. Those that follow without such a pause
    go, if they are small, together: at the end of the turn, and in a flood once they are `BURST` or a
    millisecond has passed. Waking libzmq's thread costs more than a message. `flush` and `close` send them
    before.

    Args:
        socket: of any type that sends or receives; the high-water marks set on it are honoured.
        max_message: bytes. A longer frame is cut to one byte more, and the frames after that many bytes are
            left out, so that the reader sees a message that is too long. libzmq is told to refuse four times
            as much, which holds for what is bound or connected *after* this; a ``ZMQ_MAXMSGSIZE`` that is
            already set is left as it is.
        batch: messages taken at once; the rest waits in libzmq, under its high-water mark.
    """

    def __init__(self, socket: AnySocket, *, max_message: int = MAX_MESSAGE, batch: int = 256) -> None:
        if not isinstance(socket, zmq.Socket):
            raise BadCall(f"a ZMQ wire needs a zmq.Socket or a zmq.asyncio.Socket, not {socket!r}")
        if max_message < 1 or batch < 1:
            raise BadCall(f"max_message and batch must be 1 or more, not {max_message!r} and {batch!r}")
        if socket.closed:
            raise BadCall(f"{socket!r} is closed; a wire needs an open one")
        self.max_message = max_message
        self.batch = batch
        self._port = ZmqPort.of(socket)
        self._port.wires.add(self)
        self._closed = False
        self._held: deque[Sequence[bytes]] = deque()  # bounded by BURST
        self._bursting: asyncio.AbstractEventLoop | None = None
        self._waits_for_room = False
        # Only where sending fails for no reason but want of room.
        self._may_hold = self._port.get(zmq.TYPE) in (zmq.PUSH, zmq.PUB, zmq.XPUB, zmq.PAIR, zmq.DEALER)
        self._waited = True
        self._is_mute = self._port.get(zmq.TYPE) in (zmq.PUSH, zmq.PUB)  # libzmq would let them wait for ever
        if self._port.get(zmq.MAXMSGSIZE) == -1:
            socket.setsockopt(zmq.MAXMSGSIZE, SLACK * max_message)

    async def send(self, frames: Sequence[bytes]) -> None:
        """Give the socket one message; wait while it has no peer, or one too many unsent.

        Messages of one task keep their order. Cancelled, the message was not sent.

        Raises:
            ConnectionError: the wire or its socket is closed.
            BadCall: the socket is of a type that does not send.
        """
        if not next(_sends) % TURN:
            await asyncio.sleep(0)
        if self.send_nowait(frames):
            return
        port = self._port
        port.attach()
        async with port.turn:  # those who wait for room get it in the order they came
            while not (self._send_held() and self._offer(frames)):
                await port.wait(port.writers)
        self._bursting = None

    def send_nowait(self, frames: Sequence[bytes]) -> bool:
        """Give the socket one message if it has room and nobody waits for it; say whether it was taken.

        Raises what `send` raises.
        """
        if self._port.turn.locked():
            return False
        loop = asyncio.get_running_loop()
        if self._bursting is loop and not self._closed and len(frames[-1]) <= SMALL:
            if len(self._held) >= BURST and not self._send_held():
                return False
            self._held.append(frames)
            return True
        if not (self._send_held() and self._offer(frames)):
            return False
        if self._may_hold:
            self._bursting = loop
            loop.call_soon(self._end_burst)
        return True

    def offer(self, frames: Sequence[bytes]) -> bool:
        """Give the socket one message at once, without holding it back, if it has room and nobody waits for
        it; say whether it was taken.

        Raises what `send` raises.
        """
        return not self._port.turn.locked() and self._send_held() and self._offer(frames)

    async def flush(self) -> None:
        """Wait until the socket has all that was sent. Cancelled, the rest is still to be sent.

        Raises:
            ConnectionError: the socket is closed.
        """
        port = self._port
        if self._held:
            async with port.turn:
                while not self._send_held():
                    await port.wait(port.writers)

    async def receive(self, hand_on: Callable[[list[list[bytes]]], bool] | None = None) -> list[list[bytes]]:
        """Wait for messages and take those that are ready: at least one, at most ``batch``.

        Cancelled, none was taken.

        Args:
            hand_on: called with those that come while this waits, in the turn of the loop in which they come.
                This goes on waiting while it returns True, and returns no messages once it returns False.

        Raises:
            ConnectionError: the wire or its socket is closed.
            BadCall: the socket is of a type that does not receive.
        """
        port = self._port
        is_over = False

        def attempt() -> bool:
            nonlocal is_over
            if not self._closed and hand_on is not None:
                try:
                    messages = self._take(asked=True)
                except (ConnectionError, BadCall):
                    return True  # the next try raises it again
                is_over = bool(messages) and not hand_on(messages)
            return is_over or self._closed

        if not self._waited:  # a peer that never pauses must not keep the loop to itself
            await asyncio.sleep(0)
        self._waited = False
        while True:
            if self._closed:
                raise ConnectionAbortedError("the wire is closed")
            messages = self._take()
            if messages:
                return messages
            if self._is_mute:
                raise BadCall(f"a {zmq.SocketType(port.get(zmq.TYPE)).name} socket cannot receive")
            self._waited = True
            await port.wait(port.readers, None if hand_on is None else attempt)
            if is_over:
                return []

    def close(self) -> None:
        """Let go of the socket, which stays open; whoever waits on this wire is told. May be called twice."""
        try:
            if not self._send_held():
                self._drop_held("the wire was closed while there was no room")
        except (ConnectionError, BadCall) as exc:
            self._drop_held(str(exc))
        self._closed = True
        self._port.wires.discard(self)
        self._port.wake()
        if not self._port.wires:
            self._port.detach()

    def _end_burst(self) -> None:
        """Send what was held back; what finds no room goes when there is some."""
        loop, self._bursting = self._bursting, None
        flood = bool(self._held)
        try:
            if self._send_held():
                if flood and loop is not None and not self._waits_for_room:
                    # More is likely to come: it goes together too, and wakes libzmq's thread once.
                    self._bursting = loop
                    loop.call_later(FLOOD, self._end_burst)
                return
            if self._waits_for_room:
                return
            self._bursting = self._port.attach()  # those that follow stay behind these
        except (
            ConnectionError,
            BadCall,
            RuntimeError,
        ) as exc:  # RuntimeError: closed after the loop has ended
            self._drop_held(str(exc))
            return
        self._waits_for_room = True
        self._port.when_writable(self._found_room)

    def _found_room(self) -> None:
        self._waits_for_room = False
        if not self._closed:
            self._end_burst()

    def _send_held(self) -> bool:
        """Try to send what was held back; False when there is no room for all of it."""
        held = self._held
        send = self._port.send
        while held:
            frames = held[0]
            if len(held) > 1 and len(frames) < 3 and not self._closed:
                try:
                    if len(frames) == 2:
                        send(frames[0], _MORE)
                    send(frames[-1], _NOBLOCK)
                except zmq.ZMQError:
                    if not self._offer(frames):  # which knows what to make of it
                        return False
            elif not self._offer(frames):
                return False
            held.popleft()
        return True

    def _drop_held(self, why: str) -> None:
        if self._held:
            logger.warning("%d messages were not sent: %s", len(self._held), why)
            self._held.clear()

    def _offer(self, frames: Sequence[bytes]) -> bool:
        """Try to send now; False when there is no room."""
        if self._closed:
            raise ConnectionAbortedError("the wire is closed")
        port = self._port
        is_full = False
        try:
            if len(frames) > 1:
                for frame in frames[:-1]:  # only the first can find no room: a message goes as a whole
                    port.send(frame, _MORE)
            port.send(frames[-1], _NOBLOCK)
        except zmq.Again:
            # A look would take the signal that there is room, where asking does not tell.
            is_full = port.is_vague
            return False
        except zmq.ZMQError as exc:
            raise self._error("send", exc) from exc
        finally:
            if not is_full:
                port.sent()
        return True

    def _take(self, *, asked: bool = False) -> list[list[bytes]]:
        """Take what is ready now, perhaps nothing.

        Args:
            asked: there is probably something.
        """
        port = self._port
        is_empty = False
        limit = self.max_message
        recv = port.recv
        messages: list[list[bytes]] = []
        try:
            if not asked and not port.get(_EVENTS) & _POLLIN:
                is_empty = True
                return messages
            while len(messages) < self.batch:
                frame = recv(_NOBLOCK, False)
                if frame.more:
                    messages.append(self._take_parts(frame, recv(_NOBLOCK, False)))
                elif len(frame) > limit:
                    messages.append([bytes(frame.buffer[: limit + 1])])
                else:
                    messages.append([frame.bytes])
                # Asking is cheaper than being told EAGAIN: for the lone message, not for the flood.
                if len(messages) == 1 and not port.get(_EVENTS) & _POLLIN:
                    is_empty = True
                    break
        except zmq.Again:
            is_empty = True
        except zmq.ZMQError as exc:
            if not messages:
                raise self._error("receive", exc) from exc
        finally:
            # Found empty, libzmq signals the next message to all who wait for one.
            if port.writers or (port.readers and not is_empty) or (port.is_async and port.has_own_waits):
                port.look_soon()
        return messages

    def _take_parts(self, frame: Any, second: Any) -> list[bytes]:
        """Take the rest of a message, and keep no more of it than is allowed.

        Args:
            second: the frame after the first.
        """
        if not second.more and len(frame) + 1 + len(second) <= self.max_message:
            return [frame.bytes, second.bytes]
        frames: list[bytes] = []
        room = self.max_message
        upcoming = second
        while True:
            if room >= 0:
                frames.append(
                    frame.bytes
                    if len(frame) <= self.max_message
                    else bytes(frame.buffer[: self.max_message + 1])
                )
                room -= len(frame) + 1  # one for the frame itself: a million empty ones are not nothing
            if not frame.more:
                return frames
            # libzmq gives a message whole or not at all
            frame, upcoming = upcoming or self._port.recv(_NOBLOCK, False), None

    def _error(self, what: str, exc: zmq.ZMQError) -> Exception:
        """Say a libzmq error in our own words."""
        if exc.errno in (zmq.ENOTSOCK, zmq.ETERM):
            return ConnectionAbortedError(f"the socket under the wire is closed; it cannot {what} any more")
        name = zmq.SocketType(self._port.get(zmq.TYPE)).name
        return BadCall(f"the {name} socket cannot {what} now: {exc}")
