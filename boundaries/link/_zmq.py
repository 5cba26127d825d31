"""Links over ZMQ, with or without CURVE: a DEALER connects, one ROUTER serves many.

libzmq holds no more than a few messages for each peer, so that little bulk stands there before an urgent
event. A message of the link is one frame. An empty one asks whether the peer is there, and one of a single
zero says that the connection is over: neither is a frame of the link.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import zmq

from nexus.adapters._link import Link as Connection
from nexus.adapters._link import LinkState
from nexus.adapters._safe import why
from nexus.adapters._url import Url
from nexus.adapters._wire import Wire
from nexus.adapters._zmq_config import ZmqConfig
from nexus.adapters._zmq_curve import Curve
from nexus.adapters._zmq_end import End
from nexus.boundaries.link._ends import FIRST, FIRST_SIZE, MakeDoor
from nexus.boundaries.link._frames import MAX_WIRE
from nexus.boundaries.link._mailbox import HandOn, Mailbox
from nexus.errors import BadCall, ConfigError, LinkDown

__all__ = ["DealerWire", "RouterWire", "ZmqDialler", "ZmqDoor", "dialler", "door"]

logger = logging.getLogger(__name__)

HWM: Final = 8
"""Messages that libzmq holds for a peer, and from one: a few, for nothing overtakes them. It wakes who sends
each time half of them have gone, which a lone event may have to wait for."""
BUFFER: Final = 64 * 1024
"""Bytes that the operating system holds of what is sent."""
FULL: Final = 1024
"""Messages of a peer that wait to be taken; more than an honest one has on its way."""
HELD: Final = 4 * 2**20
"""Bytes of a peer that wait to be taken."""
FULL_FIRST: Final = 8
"""Messages that wait of a peer who has not shown yet who it is."""
MOST_PEERS: Final = 256
"""Peers at a time; who comes when there are so many is not answered."""
PAUSE: Final = (0.001, 0.02)
"""Seconds between tries to send to a peer that has no room, at first and at most."""
CLOSED: Final = b"\0"

_OPTIONS: Final = (
    "connect_timeout",
    "handshake_timeout",
    "heartbeat_interval",
    "heartbeat_timeout",
    "ipv6",
    "insecure",
    "curve_secret",
    "curve_server",
    "curve_clients",
)


class DealerWire:
    """A connection to a router."""

    is_whole = True

    def __init__(self, end: End, following: asyncio.Task[None]) -> None:
        self._end = end
        self._following = following
        self._is_over = False

    async def send(self, frames: Sequence[bytes]) -> None:
        if self._is_over:
            raise ConnectionResetError("the connection is over")
        await self._end.wire.send([b"".join(frames)])
        await self._end.wire.flush()  # held back, it would let nothing overtake it

    def send_nowait(self, frame: bytes) -> bool:
        """Send a message if libzmq has room; say whether it was sent.

        Raises:
            ConnectionError: the connection is over.
        """
        if self._is_over:
            raise ConnectionResetError("the connection is over")
        return self._end.wire.offer([frame])

    async def receive(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        def sort(messages: list[list[bytes]]) -> bool:
            found = self._frames_of(messages)
            return (not found or (hand_on is not None and hand_on(found))) and not self._is_over

        while True:
            if self._is_over:
                raise ConnectionResetError("the connection is over")
            messages = await self._end.wire.receive(None if hand_on is None else sort)
            if (found := self._frames_of(messages)) or not messages:
                return found

    def _frames_of(self, messages: list[list[bytes]]) -> list[list[bytes]]:
        """Give the frames among what came, and note if there will be no more."""
        if any(message[-1] == CLOSED for message in messages):
            self._is_over = True  # what came before is taken first
        return [message[-1:] for message in messages if message[-1] not in (b"", CLOSED)]

    def lost(self) -> None:
        """Note that the connection is gone; whoever waits is told."""
        self._is_over = True
        self._end.wire.close()

    def close(self) -> None:
        """End the connection at once."""
        self._is_over = True
        self._following.cancel()
        self._end.cut()


class ZmqDialler:
    """Connects to a router, with a new socket each time."""

    def __init__(self, config: ZmqConfig) -> None:
        self.name = f"zmq to {config.address('sender')}"
        self._config = config

    async def dial(self) -> Wire:
        """Make a connection.

        Raises:
            LinkDown: there is nobody, or the keys will not do.
            TimeoutError: there is no answer.
        """
        config = self._config
        connection = Connection(self.name)
        end = End(config, "sender", zmq.DEALER, connection)
        end.socket.setsockopt(zmq.SNDBUF, BUFFER)
        following = asyncio.get_running_loop().create_task(end.run(), name=f"link.follow[{self.name}]")
        wire = DealerWire(end, following)

        up = asyncio.get_running_loop().create_future()

        def changed(state: LinkState) -> None:
            if state.state == "down":
                wire.lost()
            if state.state in ("up", "down") and not up.done():
                up.set_result(state)

        connection.listen(changed)
        try:
            end.open()
            async with asyncio.timeout(config.connect_timeout + config.handshake_timeout):
                state = await up
            if state.state == "down":
                raise LinkDown(f"{self.name}: {state.error}")
        except BaseException:
            wire.close()
            raise
        return wire

    async def aclose(self) -> None:
        """Do nothing: there is nothing but the wires."""


class RouterWire:
    """One peer of a router."""

    is_whole = True

    def __init__(self, door: ZmqDoor, identity: bytes) -> None:
        self._mail = Mailbox(self._check)
        self.refused = 0
        """Messages that found no room; they come again."""
        self._door = door
        self._identity = identity
        self._is_over = False
        self._full = FULL_FIRST
        self._held = 0

    def trust(self) -> None:
        """Take many messages of any size: whoever is there has shown who it is."""
        self._full = FULL

    def came(self, message: list[bytes]) -> None:
        """Take a message off the socket."""
        size = sum(map(len, message))
        waiting = len(self._mail.messages)
        if message[-1] == CLOSED:
            self.lost()
        elif waiting >= self._full or (waiting and self._held + size > HELD):
            self.refused += 1
        elif message[-1]:
            self._mail.put([message[1:]])
            self._held = self._held + size if self._mail.messages else 0

    def lost(self) -> None:
        """Note that the peer is gone; whoever waits is told."""
        self._is_over = True
        self._mail.stir()

    def is_there(self) -> bool:
        """Ask libzmq whether it still has this peer."""
        try:
            self._door.offer([self._identity, b""])
        except ConnectionError:
            return False
        return True

    async def send(self, frames: Sequence[bytes]) -> None:
        message = [self._identity, b"".join(frames)]
        pause, most = PAUSE
        while True:
            self._check()
            if self._door.offer(message):
                return
            await asyncio.sleep(pause)  # nobody says which peer has room
            pause = min(2 * pause, most)

    def send_nowait(self, frame: bytes) -> bool:
        """Send a message if this peer has room for it; say whether it was sent.

        Raises:
            ConnectionError: the peer is gone.
        """
        self._check()
        return self._door.offer([self._identity, frame])

    async def receive(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        messages = await self._mail.taken(hand_on)
        self._held = 0
        return messages

    def close(self) -> None:
        """End the connection, and tell the peer if there is room."""
        self._is_over = True
        self._door.forget(self._identity)
        self._mail.stir()

    def _check(self) -> None:
        if self._is_over:
            raise ConnectionResetError("the peer is gone")


class ZmqDoor:
    """Serves whoever connects to a router."""

    def __init__(self, config: ZmqConfig) -> None:
        self.name = f"zmq at {config.address('receiver')}"
        self._config = config
        self._end: End | None = None
        self._wires: dict[bytes, RouterWire] = {}

    @property
    def port(self) -> int:
        """The port it listens at; 0 while it does not."""
        return 0 if self._end is None else int(self._end.address.rpartition(":")[2])

    async def open(self) -> None:
        """Listen.

        Raises:
            OpenError: the port is in use.
            ConfigError: other machines could connect, and need not show who they are.
        """
        end = End(self._config, "receiver", zmq.ROUTER, Connection(self.name))
        try:
            end.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            end.socket.setsockopt(zmq.SNDBUF, BUFFER)
            end.open()
        except BaseException:
            end.cut()
            raise
        self._end = end

    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        """Let each that connects be served, until cancelled."""
        end = self._end
        assert end is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(end.run(), name=f"link.follow[{self.name}]")
            while True:
                fresh = False
                strange = deque[list[bytes]]()  # bounded by what libzmq gives at once
                messages = await end.wire.receive(partial(self._hand_on, strange))
                for message in strange or messages:
                    identity = message[0]
                    wire = self._wires.get(identity)
                    if wire is None and _is_first(message) and len(self._wires) < MOST_PEERS:
                        if not fresh:
                            fresh = True
                            await self._drop_gone()
                        wire = self._wires[identity] = RouterWire(self, identity)
                        group.create_task(self._meet(serve, wire), name=f"link.serve[{self.name}]")
                    if wire is not None:
                        wire.came(message)
                    elif message[-1] not in (b"", CLOSED):
                        self.forget(identity)  # it does not know yet that its connection is over

    def _hand_on(self, strange: deque[list[bytes]], messages: list[list[bytes]]) -> bool:
        """Give messages to their wires, up to the first from somebody unknown; say whether there was none."""
        for place, message in enumerate(messages):
            wire = self._wires.get(message[0])
            if wire is None:
                strange.extend(messages[place:])
                return False
            wire.came(message)
        return True

    def offer(self, message: list[bytes]) -> bool:
        """Send a message if that peer has room for it; say whether it was sent.

        Raises:
            ConnectionError: the peer is gone, or the socket is closed.
        """
        if self._end is None:
            raise ConnectionAbortedError("the door is closed")
        try:
            return self._end.wire.send_nowait(message)
        except BadCall as exc:  # libzmq knows no such peer
            raise ConnectionResetError("the peer is gone") from exc

    def forget(self, identity: bytes) -> None:
        """Know a peer no more, and tell it so."""
        self._wires.pop(identity, None)
        try:
            self.offer([identity, CLOSED])
        except ConnectionError:
            logger.debug("%s: a peer was gone before it was told so", self.name)

    def close(self) -> None:
        """Listen no more, and end every connection."""
        end, self._end = self._end, None
        for wire in list(self._wires.values()):
            wire.lost()
        self._wires.clear()
        if end is not None:
            end.cut()

    async def _drop_gone(self) -> None:
        """Let those end that are not there any more: one of them may have come back."""
        gone = [wire for wire in self._wires.values() if not wire.is_there()]
        for wire in gone:
            wire.lost()
        for _ in range(10):
            if not any(wire in self._wires.values() for wire in gone):
                return
            await asyncio.sleep(0)

    async def _meet(self, serve: Callable[[Wire], Awaitable[None]], wire: RouterWire) -> None:
        try:
            await serve(wire)
        except OSError as exc:
            logger.debug("%s: a connection has ended: %s", self.name, why(exc))
        except Exception:
            logger.exception("%s: serving a peer failed", self.name)
        finally:
            wire.close()


def _is_first(message: list[bytes]) -> bool:
    """Say whether somebody begins with a message."""
    return message[-1].startswith(FIRST) and sum(map(len, message)) <= FIRST_SIZE


def dialler(url: Url, options: Mapping[str, Any]) -> ZmqDialler:
    """Make what connects there.

    Raises:
        ConfigError: an option or a key is wrong.
    """
    config = _config(url, options)
    Curve.read(config.curve_secret, config.curve_server, binds=False)  # now, and not at the first try
    if config.curve_clients:
        raise ConfigError(f"{url.place}: found curve_clients, allowed: at the end that listens")
    return ZmqDialler(config)


def door(url: Url, options: Mapping[str, Any]) -> MakeDoor:
    """Make what listens there.

    Raises:
        ConfigError: an option or a key is wrong.
    """
    config = _config(url, options)
    Curve.read(config.curve_secret, config.curve_server, binds=True)
    return lambda _: ZmqDoor(config)


def _config(url: Url, options: Mapping[str, Any]) -> ZmqConfig:
    """Read the options that make sense for a link."""
    unknown = sorted({*url.options, *options} - {*_OPTIONS})
    if unknown:
        raise ConfigError(f"{url.place}: found option {unknown[0]!r}, allowed: {', '.join(_OPTIONS)}")
    if url.port is None or url.path not in ("", "/"):
        raise ConfigError(f"{url.place}: allowed: a host and a port, as in zmq+tcp://127.0.0.1:5557")
    own = {"pattern": "pushpull", "port": url.port, "send_hwm": HWM, "receive_hwm": HWM}
    place = {"host": url.host or "127.0.0.1", "max_size": MAX_WIRE}
    given = {name: values[0] if len(values) == 1 else values for name, values in url.options.items()}
    return ZmqConfig.from_mapping({**given, **options, **own, **place})
