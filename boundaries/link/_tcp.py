"""Links over TCP, with or without TLS: frames led by their length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nexus.adapters._framing import LengthFramer
from nexus.adapters._link import Link as Connection
from nexus.adapters._tcp_listen import Listener, PeerCut
from nexus.adapters._tcp_stream import Stream, connect
from nexus.adapters._tls import TlsFiles
from nexus.adapters._url import Url
from nexus.adapters._wire import Wire
from nexus.adapters.tcp import TcpConfig
from nexus.boundaries.link._ends import FIRST_SIZE, MakeDoor
from nexus.boundaries.link._frames import MAX_WIRE
from nexus.boundaries.link._mailbox import HandOn, Mailbox

__all__ = ["TcpDialler", "TcpDoor", "TcpWire", "dialler", "door"]

FULL = 256
"""Frames that are read and not taken, beyond which reading stops."""
HELD = 64 * 2**20
"""Bytes of unfinished frames of all that are connected; beyond them whoever has most of it is cut."""
STRANGERS = 4
"""What part of those that may be connected can be of one address and have not shown who they are."""
BEHIND = 64 * 1024
"""Bytes that the transport holds at most: what it has, nothing overtakes."""


class FrameStream(Stream):
    """A TCP connection that keeps the frames that came until somebody takes them.

    Args:
        growing: told when an unfinished frame grows large.
    """

    def __init__(self, framer: LengthFramer, growing: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.is_proven = False
        self.framer = framer
        self._growing = growing
        self._mail = Mailbox(self._check)
        self._paused = False
        self._over.add_done_callback(lambda _: self._mail.stir())

    def received(self, data: memoryview) -> None:
        frames = self.framer.feed(data)
        if self._growing is not None and self.framer.held > FIRST_SIZE:
            self._growing()
        if frames:
            self._mail.put([[frame] for frame in frames])
            if len(self._mail.messages) > FULL and not self._paused:
                self._paused = True
                self.pause_reading()

    async def taken(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        """Wait for frames and take all there are.

        Args:
            hand_on: see `HandOn`.

        Raises:
            ConnectionError: the connection is over, and all is taken.
        """
        messages = await self._mail.taken(hand_on)
        if self._paused:
            self._paused = False
            self.resume_reading()
        return messages

    def _check(self) -> None:
        if self.is_over:
            raise ConnectionResetError("the other side has closed the connection") from self.error


class TcpWire:
    """A TCP connection as a wire. A message is one frame."""

    is_whole = True

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._framer = stream.framer
        self._write = stream.transport.write

    async def send(self, frames: Sequence[bytes]) -> None:
        stream = self._stream
        if stream.is_over:
            raise ConnectionResetError("the connection is over") from stream.error
        stream.write(stream.framer.pack(b"".join(frames)))
        await stream.drained()

    def send_nowait(self, frame: bytes) -> bool:
        """Send a message if the transport has room; say whether it was sent.

        Raises:
            ConnectionError: the connection is over.
        """
        if self._stream.is_over:
            raise ConnectionResetError("the connection is over") from self._stream.error
        if self._stream.is_behind:
            return False
        self._write(self._framer.pack(frame))
        return True

    async def receive(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        return await self._stream.taken(hand_on)

    def trust(self) -> None:
        """Let it carry frames of any size: whoever is there has shown who it is."""
        self._stream.is_proven = True
        self._stream.framer.max_size = MAX_WIRE

    def close(self) -> None:
        """End the connection at once; what the system has still goes."""
        transport = self._stream.transport
        if transport.get_write_buffer_size():
            transport.abort()  # the other side takes nothing, and closing would wait for it
        else:
            transport.close()


class TcpDialler:
    """Connects to a listening link."""

    def __init__(self, config: TcpConfig) -> None:
        self.name = config.name
        self._config = config
        self._tls = TlsFiles(config, server=False)

    async def dial(self) -> Wire:
        """Make a connection.

        Raises:
            OSError: there is nobody, or the certificate will not do.
        """
        config = self._config
        stream = FrameStream(LengthFramer(max_size=MAX_WIRE))
        name = config.server_name or config.host
        await connect(stream, config.host, config.port, config, self._tls.context(), name)
        stream.limit(BEHIND)
        return TcpWire(stream)

    async def aclose(self) -> None:
        """Do nothing: there is nothing but the wires."""


class TcpDoor:
    """Listens for links."""

    def __init__(self, config: TcpConfig) -> None:
        self.name = config.name
        self._config = config
        self._tls = TlsFiles(config, server=True)
        self._serve: Callable[[Wire], Awaitable[None]] | None = None
        self._listener: Listener[FrameStream] = Listener(
            config.name,
            config,
            Connection(config.name),  # that of the link is up when somebody has said who he is
            make=lambda: FrameStream(LengthFramer(max_size=FIRST_SIZE), self._limit_held),
            serve=self._meet,
            context=self._tls.context,
            patience=lambda: 0.5,
            most_strangers=max(1, config.max_peers // STRANGERS),
        )

    @property
    def port(self) -> int:
        """The port it listens at; 0 while it does not."""
        return self._listener.port

    @property
    def refused(self) -> dict[str, int]:
        """Peers that were turned away or cut, by reason."""
        return dict(self._listener.refused)

    async def open(self) -> None:
        """Listen.

        Raises:
            OpenError: the port is in use.
            ConfigError: other machines could connect, and need not show who they are.
        """
        self._tls.context()
        await self._listener.open()

    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        """Let each that connects be served, until cancelled."""
        self._serve = serve
        await self._listener.run()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _limit_held(self) -> None:
        """Cut whoever has sent most of a frame, if all unfinished ones are too much."""
        peers = [peer for peer in self._listener.peers if not peer.is_over]
        if sum(peer.framer.held for peer in peers) > HELD:
            largest = max(peers, key=lambda peer: peer.framer.held)
            largest.cut(PeerCut("held", "its unfinished frame is the largest of too many"))

    async def _meet(self, stream: FrameStream) -> None:
        assert self._serve is not None
        stream.limit(BEHIND)
        await self._serve(TcpWire(stream))


def dialler(url: Url, options: Mapping[str, Any]) -> TcpDialler:
    """Make what connects there."""
    return TcpDialler(_config(url, options))


def door(url: Url, options: Mapping[str, Any]) -> MakeDoor:
    """Make what listens there."""
    config = _config(url, options)
    return lambda _: TcpDoor(config)


def _config(url: Url, options: Mapping[str, Any]) -> TcpConfig:
    return TcpConfig.from_url(url, **{**options, "frame": "length", "max_size": MAX_WIRE})
