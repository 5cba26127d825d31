"""Data over UDP: one datagram a frame, to one, to all on a network, or to a group.

``udp://host:port`` sends there or receives there; a host such as 239.1.2.3 is a group that is joined.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, TypeVar

import attrs

from nexus.adapters._base import Again, OnBad, Overflow, Receiver, Sender
from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Adapter
from nexus.adapters._net import Address, bind_all, place_of, refuse_exposed, resolve
from nexus.adapters._safe import why
from nexus.adapters._udp_socket import ANCILLARY, connected_socket, is_exposed, prepare_receiving, read_drops
from nexus.adapters.packing import Packer, Unpacker
from nexus.errors import OpenError

__all__ = ["ADAPTER", "UdpConfig", "UdpReceiver", "UdpSender"]

T = TypeVar("T")

LARGEST = 65_507
"""Bytes of data that a datagram of IPv4 can hold."""
BATCH = 64
"""Datagrams sent or received before others have their turn."""
QUIET = 0.25
"""Seconds after a datagram within which the answer that nobody is there would have come."""


@attrs.frozen(kw_only=True)
class UdpConfig(Config):
    """Options of a UDP socket."""

    host: str = option("127.0.0.1", help="where to send, or to receive; a group's address joins it")
    port: int = option(1234, low=0, high=65535, help="the same; 0 receives at a free one")
    interface: str | None = option(
        None, help="name or address of the interface for a group; unset: as the system likes"
    )
    ttl: int = option(1, low=0, high=255, help="how many networks a datagram to a group may cross")
    loopback: bool = option(True, help="whether this machine receives what it sends to a group")
    broadcast: bool = option(False, help="allow sending to all on a network")
    insecure: bool = option(False, help="receive beyond loopback; UDP cannot tell who sends")
    receive_buffer: int = option(
        2**20, low=0, unit="bytes", help="what the system holds for a receiver; 0: as the system likes"
    )
    max_size: int = option(LARGEST, low=1, high=LARGEST, unit="bytes", help="the largest datagram")
    maxsize: int = option(1000, low=1, help="datagrams that each half holds")
    overflow: Overflow | None = option(
        None, help="what happens without room; unset: a receiver drops the oldest, a sender waits"
    )
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    retry: Again = option("always", help="how often to open the socket again")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    @property
    def name(self) -> str:
        """The URL without options."""
        return f"udp://{place_of((self.host, self.port))}"


class UdpSender(Sender[T]):
    """Sends each frame as a datagram.

    A frame counts as sent when the system has it; nobody knows whether it arrives. When the far machine says
    that nobody receives there, the link is down until it stops saying so; sending goes on.

    Args:
        config: where to, and the bounds.
        packer: turns data into a frame; JSON unless told otherwise.
    """

    def __init__(self, config: UdpConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or UdpConfig()
        super().__init__(self.config.name, self.config, packer, overflow=self.config.overflow or "block")
        self._quiet: asyncio.TimerHandle | None = None

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        loop, config = asyncio.get_running_loop(), self.config
        address = (await resolve(config.host, config.port, socket.SOCK_DGRAM))[0]
        sock = connected_socket(address, config)
        try:
            loop.add_reader(sock.fileno(), self._listen, sock)
            self._link.up()
            while True:
                await self._backlog.wait()
                await self._send(sock)
                await asyncio.sleep(0)  # nothing above waits while the system takes all
        finally:
            if self._quiet is not None:
                self._quiet.cancel()
            loop.remove_reader(sock.fileno())
            sock.close()

    async def _send(self, sock: socket.socket) -> None:
        items = self._backlog.take(BATCH)
        try:
            while items:
                try:
                    sock.send(items[0].payload)
                except BlockingIOError:
                    await _writable(sock)
                    continue
                except ConnectionRefusedError as exc:
                    self._refused(exc)  # of one before: this one has not gone yet
                    continue
                except OSError as exc:
                    if exc.errno == errno.ENOBUFS:
                        await asyncio.sleep(0.001)
                        continue
                    if exc.errno != errno.EMSGSIZE:
                        raise
                    self._backlog.reject(items.pop(0), "size")
                    continue
                self._backlog.done(items.pop(0))
        finally:
            self._backlog.put_back(items)
        if self._quiet is None and not self._link.is_up:
            self._quiet = asyncio.get_running_loop().call_later(QUIET, self._heard_nothing)

    def _listen(self, sock: socket.socket) -> None:
        """Hear that nobody is there; whatever else comes is thrown away."""
        for _ in range(BATCH):
            try:
                sock.recv(1)
            except BlockingIOError:
                return
            except OSError as exc:
                self._refused(exc)

    def _refused(self, exc: OSError) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self._link.is_up:
            self._link.down(f"nobody receives there: {why(exc)}")

    def _heard_nothing(self) -> None:
        self._quiet = None
        self._link.up()


class UdpReceiver(Receiver[T]):
    """Receives each datagram as a frame; its meta has ``peer``, the ``host:port`` it came from.

    Nothing holds a sender up. Without room the oldest is dropped and counted. With ``block`` datagrams wait
    in the system's buffer instead, and the system drops the newest when that is full; Linux tells how many,
    and they are counted as ``kernel`` when the next datagram comes.

    Args:
        config: where, and the bounds.
        unpacker: turns a frame into data; JSON unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    def __init__(
        self,
        config: UdpConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or UdpConfig()
        super().__init__(
            self.config.name,
            self.config,
            unpacker,
            overflow=self.config.overflow or "drop_oldest",
            on_bad=on_bad,
        )
        self._sock: socket.socket | None = None
        self._full = asyncio.Event()
        self._failed: OSError | None = None
        self._buffer = bytearray(self.config.max_size)
        self._view = memoryview(self._buffer)
        self._kernel_drops = 0
        self._last: tuple[Any, str] = (None, "")

    @property
    def port(self) -> int:
        """The port it receives at."""
        return int(self._sock.getsockname()[1]) if self._sock is not None else self.config.port

    async def _open(self) -> None:
        self._sock = await self._bound()

    async def _bound(self) -> socket.socket:
        config = self.config
        try:
            addresses: list[Address] = await resolve(config.host, config.port, socket.SOCK_DGRAM)
        except OSError as exc:
            raise OpenError(exc.errno, f"{self.name}: no such host: {exc.strerror or exc}") from exc
        if not config.insecure:
            exposed = [address for address in addresses if is_exposed(address, config)]
            refuse_exposed(self.name, exposed, "interface='127.0.0.1' for a group, or insecure=True")

        def prepare(sock: socket.socket) -> None:
            prepare_receiving(sock, addresses[0].where[0], config)

        (sock,) = bind_all(self.name, addresses[:1], socket.SOCK_DGRAM, prepare)
        self._kernel_drops = 0
        return sock

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        if self._sock is None:
            self._sock = await self._bound()
        loop, sock = asyncio.get_running_loop(), self._sock
        self._full, self._failed = asyncio.Event(), None
        self._link.up()
        try:
            while self._failed is None:
                loop.add_reader(sock.fileno(), self._drain, sock)
                await self._full.wait()
                self._full.clear()
                await self._inbox.room()
            raise self._failed
        finally:
            loop.remove_reader(sock.fileno())
            sock.close()
            self._sock = None

    async def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _drain(self, sock: socket.socket) -> None:
        """Take what has come, up to a batch."""
        inbox, view = self._inbox, self._view
        may_wait = inbox.overflow == "block"
        for _ in range(BATCH):
            if may_wait and inbox.is_full:
                return self._pause(sock)
            try:
                size, ancillary, flags, where = sock.recvmsg_into([view], ANCILLARY)
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionError:
                continue  # about something this socket never sent
            except OSError as exc:
                self._failed = exc
                return self._pause(sock)
            if ancillary:
                self._note_drops(ancillary)
            if flags & socket.MSG_TRUNC:
                self._count_bad("size")
            elif not inbox.offer(bytes(view[:size]), {"peer": self._peer(where)}):
                inbox.drop("drop_newest")  # too many bytes: only the kernel could hold them
        return None

    def _pause(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock.fileno())
        self._full.set()

    def _peer(self, where: Any) -> str:
        if where != self._last[0]:
            self._last = (where, place_of(where))
        return self._last[1]

    def _note_drops(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        count = read_drops(ancillary)
        if count is not None and count != self._kernel_drops:
            self._inbox.drop("kernel", count=(count - self._kernel_drops) % 2**32)
            self._kernel_drops = count


async def _writable(sock: socket.socket) -> None:
    """Wait until the system takes more."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(sock.fileno(), _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


ADAPTER = Adapter(
    name="UDP",
    schemes=("udp",),
    config=UdpConfig,
    sender=UdpSender,
    receiver=UdpReceiver,
    summary="datagrams, to one, to all or to a group: udp://host:port, udp://239.1.2.3:5000",
)
