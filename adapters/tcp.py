"""Data over TCP: lines or other frames, with or without TLS, each half as client or as server.

``tcp://host:port`` connects, ``tcp://host:port?listen=1`` listens, ``tcps://`` does so with TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import attrs

from nexus.adapters._base import Again, OnBad, Overflow, Receiver, Sender
from nexus.adapters._config import WrongOption, option
from nexus.adapters._endpoint import Adapter, Url
from nexus.adapters._framing import Framer, FramingError, make_framer
from nexus.adapters._net import place_of
from nexus.adapters._tcp_intake import Held, Intake, watch_unfinished
from nexus.adapters._tcp_listen import Listener, PeerCut
from nexus.adapters._tcp_stream import Stream, connect
from nexus.adapters._tls import TlsConfig, TlsFiles
from nexus.adapters.packing import Packer, Unpacker
from nexus.errors import ConfigError

__all__ = ["ADAPTER", "TcpConfig", "TcpReceiver", "TcpSender"]

T = TypeVar("T")

BATCH = 1000
"""Frames written at once."""
BATCH_BYTES = 64 * 1024
BEHIND = 2**20
"""Bytes by which a peer of a listening sender may be behind before the others wait for it."""
FAREWELL = 0.5
"""Seconds that a receiver gives the other side to end TLS in good order."""


@attrs.frozen(kw_only=True)
class TcpConfig(TlsConfig):
    """Options of a TCP connection, or of a port to listen at."""

    host: str = option("localhost", help="where to connect, or to listen")
    port: int = option(6000, low=0, high=65535, help="the same; 0 listens at a free one")
    listen: bool = option(False, help="wait for peers instead of connecting to one")
    insecure: bool = option(
        False, help="listen beyond loopback though peers need not show who they are by a certificate"
    )
    frame: Literal["line", "fixed", "length"] = option("line", help="how frames are told from each other")
    terminator: bytes = option(b"\n", help="what ends a line")
    size: int | None = option(None, low=1, unit="bytes", help="of every frame, where frame is fixed")
    width: int = option(4, low=1, high=8, unit="bytes", help="of the length, where frame is length")
    byteorder: Literal["big", "little"] = option("big", help="of the length, where frame is length")
    max_size: int = option(2**20, low=1, unit="bytes", help="the largest frame")
    maxsize: int = option(1000, low=1, help="frames that each half holds")
    overflow: Overflow = option(
        "block", help="what happens to frames that find no room; block lets the peer wait"
    )
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    retry: Again = option("always", help="how often to connect again; who listens always goes on")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")
    connect_timeout: float = option(10.0, low=0.001, unit="s", help="how long connecting may take")
    keepalive: float = option(
        15.0, low=0, unit="s", help="silence until the system probes the peer; 0: never"
    )
    user_timeout: float = option(
        30.0, low=0, unit="s", help="how long what was sent may stay unacknowledged; 0: as the system likes"
    )
    handshake_timeout: float = option(5.0, low=0.001, unit="s", help="how long the begin of TLS may take")
    frame_timeout: float = option(
        10.0, low=0.01, unit="s", help="how long a frame of a peer may take, where it listens"
    )
    slow_timeout: float = option(
        5.0, low=0.01, unit="s", help="how long a sender that listens waits for a peer that is 1 MiB behind"
    )
    max_peers: int = option(64, low=1, help="peers at once, where it listens")
    max_held: int = option(
        16 * 2**20, low=1, unit="bytes", help="the unfinished frames of all peers; at least max_size"
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        try:
            self.framer()
        except ConfigError as exc:
            raise ConfigError(f"{type(self).__name__}.{exc}") from None
        if self.max_held < self.max_size:
            raise WrongOption(
                "max_held",
                type(self).__name__,
                f"found {self.max_held}, allowed: from max_size, {self.max_size}",
            )

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        return super()._from_url(url) | ({"tls": True} if url.scheme == "tcps" else {})

    @property
    def name(self) -> str:
        """The URL without options."""
        return f"{'tcps' if self.tls else 'tcp'}://{place_of((self.host, self.port))}"

    def framer(self) -> Framer:
        """Make what tells the frames of one connection apart."""
        return make_framer(
            self.frame,
            terminator=self.terminator,
            size=self.size,
            width=self.width,
            byteorder=self.byteorder,
            max_size=self.max_size,
        )


class TcpSender(Sender[T]):
    """Sends frames to the one it connects to, or, where it listens, to all who have connected.

    A frame counts as sent when the system has it (beyond TLS and, where it listens, 1 MiB a peer). What the
    system has when a connection breaks may be lost; what was being written comes again after.

    Args:
        config: where, how, and the bounds.
        packer: turns data into a frame; JSON unless told otherwise.
    """

    def __init__(self, config: TcpConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or TcpConfig()
        super().__init__(self.config.name, self.config, packer, overflow=self.config.overflow)
        self._framer = self.config.framer()
        self._tls = TlsFiles(self.config, server=self.config.listen)
        self._until: float | None = None
        self._listener = Listener(
            self.name,
            self.config,
            self._link,
            make=Stream,
            serve=self._serve,
            context=self._tls.context,
            patience=self._patience,
        )

    @property
    def port(self) -> int:
        """The port it listens at, or connects to."""
        return self._listener.port or self.config.port

    @property
    def refused(self) -> Mapping[str, int]:
        """Peers that were turned away or cut since it was made, by reason."""
        return dict(self._listener.refused)

    def _pack(self, data: Any) -> bytes:
        return self._framer.pack(super()._pack(data))

    async def _open(self) -> None:
        self._until = None
        self._tls.context()
        if self.config.listen:
            await self._listener.open()

    async def _run(self) -> None:
        if not self.config.listen:
            await self._link.keep(self._session)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listener.run(), name=f"adapter[{self.name}].listen")
            group.create_task(self._broadcast(), name=f"adapter[{self.name}].write")

    async def _wind_down(self) -> None:
        self._until = asyncio.get_running_loop().time() + self.config.flush_timeout
        await super()._wind_down()

    async def _close(self) -> None:
        self._listener.close()

    def _patience(self) -> float:
        """How long the end of a connection may take: at a stop, what is left of the time to flush."""
        left = self.config.flush_timeout
        if self._until is not None:
            left = min(left, self._until - asyncio.get_running_loop().time())
        return left

    async def _session(self) -> None:
        config = self.config
        stream = Stream()
        name = config.server_name or config.host
        await connect(stream, config.host, config.port, config, self._tls.context(), name)
        stream.limit(1)  # with 0, asyncio's TLS pauses when nothing is left, and for ever
        self._link.up()
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(stream), name=f"adapter[{self.name}].write")
                await stream.ended()
                writer.cancel()
        finally:
            await stream.close(self._patience())
        raise stream.error or EOFError("the peer closed the connection")

    async def _write(self, stream: Stream) -> None:
        """Write to one peer until the connection is over."""
        backlog = self._backlog
        while not stream.is_over:
            await backlog.wait()
            items = backlog.take(BATCH, BATCH_BYTES)
            try:
                stream.write(b"".join([item.payload for item in items]))
                await stream.drained()
                backlog.done_all(items)
                items = []
            except ConnectionError:
                return  # the session has seen it too
            finally:
                backlog.put_back(items)
            await asyncio.sleep(0)  # nothing above waits while the system takes all

    async def _serve(self, stream: Stream) -> None:
        """Let a peer of a listener have what is sent, until it goes."""
        stream.limit(BEHIND)
        await stream.ended()

    async def _broadcast(self) -> None:
        """Write to all peers there are; while there is none, frames wait."""
        backlog, listener = self._backlog, self._listener
        while True:
            await listener.somebody()
            await backlog.wait()
            peers = [peer for peer in listener.peers if not peer.is_over]
            items = backlog.take(BATCH, BATCH_BYTES) if peers else []
            try:
                data = b"".join([item.payload for item in items])
                for peer in peers:
                    peer.write(data)
                await self._wait_for(peers)
                if not all(peer.is_over for peer in peers):
                    backlog.done_all(items)
                    items = []
            finally:
                backlog.put_back(items)
            await asyncio.sleep(0)

    async def _wait_for(self, peers: list[Stream]) -> None:
        """Wait until no peer is too far behind; cut those that do not catch up."""
        slow = [peer for peer in peers if peer.is_behind]
        if not slow:
            return
        try:
            async with asyncio.timeout(self.config.slow_timeout):
                await asyncio.gather(*(peer.drained() for peer in slow), return_exceptions=True)
        except TimeoutError:
            for peer in slow:
                if peer.is_behind:
                    peer.cut(PeerCut("slow", f"it was behind for {self.config.slow_timeout:g} s"))


class TcpReceiver(Receiver[T]):
    """Receives frames from the one it connects to, or, where it listens, from all who connect.

    Each item's meta has ``peer``, the ``host:port`` it came from.

    Args:
        config: where, how, and the bounds.
        unpacker: turns a frame into data; JSON unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    def __init__(
        self,
        config: TcpConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or TcpConfig()
        super().__init__(
            self.config.name, self.config, unpacker, overflow=self.config.overflow, on_bad=on_bad
        )
        self._tls = TlsFiles(self.config, server=self.config.listen)
        self._held = Held(self.config.max_held)
        self._listener = Listener(
            self.name,
            self.config,
            self._link,
            make=self._intake,
            serve=Intake.pump,
            context=self._tls.context,
            patience=lambda: FAREWELL,
        )

    @property
    def port(self) -> int:
        """The port it listens at, or connects to."""
        return self._listener.port or self.config.port

    @property
    def refused(self) -> Mapping[str, int]:
        """Peers that were turned away or cut since it was made, by reason."""
        return dict(self._listener.refused)

    async def _open(self) -> None:
        self._tls.context()
        if self.config.listen:
            await self._listener.open()

    async def _run(self) -> None:
        if not self.config.listen:
            await self._link.keep(self._session, lost=(FramingError,))
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listener.run(), name=f"adapter[{self.name}].listen")
            group.create_task(
                watch_unfinished(lambda: self._listener.peers, self.config.frame_timeout),
                name=f"adapter[{self.name}].watch",
            )

    async def _close(self) -> None:
        self._listener.close()

    async def _session(self) -> None:
        config = self.config
        stream = self._intake()
        name = config.server_name or config.host
        await connect(stream, config.host, config.port, config, self._tls.context(), name)
        self._link.up()
        try:
            await stream.pump()
        finally:
            await stream.close(FAREWELL)

    def _intake(self) -> Intake:
        framer = self.config.framer()
        framer.rejected = self._bad  # counted for all peers together
        return Intake(self._inbox, framer, self._held)


ADAPTER = Adapter(
    name="TCP",
    schemes=("tcp", "tcps"),
    config=TcpConfig,
    sender=TcpSender,
    receiver=TcpReceiver,
    summary="lines or frames over TCP, as client or as server: tcp://host:port, tcps:// with TLS",
)
