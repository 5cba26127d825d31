"""A UDP sender and receiver with a relay between them, for the contract."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Self

from real import free_port

from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender


class UdpPair:
    """Sends to a relay that sends on; the link breaks when the relay closes its port."""

    name = "udp"
    receiver_first = True
    lossy = True
    """A datagram goes where it can, and nobody asks."""
    can_break = True

    def __init__(self) -> None:
        self.near = free_port(socket.SOCK_DGRAM)
        self.far = free_port(socket.SOCK_DGRAM)
        self._sock: socket.socket | None = None
        self._senders: list[UdpSender[Any]] = []

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def sender(self, *, packer: Any = None, **options: Any) -> UdpSender[Any]:
        self._senders.append(UdpSender(UdpConfig(port=self.near, **options), packer))
        return self._senders[-1]

    def receiver(self, *, unpacker: Any = None, **options: Any) -> UdpReceiver[Any]:
        return UdpReceiver(UdpConfig(port=self.far, **options), unpacker)

    async def ready(self, sender: UdpSender[Any], receiver: UdpReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Let a datagram arrive as it is."""
        assert self._sock is not None
        self._sock.sendto(payload, ("127.0.0.1", self.far))

    async def break_link(self) -> None:
        """Close the relay: who sends there is told that nobody is."""
        while any(sender.link.state == "down" for sender in self._senders):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it waits whether the last break is over
        self._close()

    async def mend_link(self) -> None:
        """Open it at the same port, when what was sent meanwhile is gone."""
        while any(sender.is_started and len(sender._backlog) for sender in self._senders):  # noqa: ASYNC110
            await asyncio.sleep(0)
        self._open()

    def _open(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(("127.0.0.1", self.near))
        asyncio.get_running_loop().add_reader(self._sock, self._pass_on, self._sock)

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._pass_on(sock)
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _pass_on(self, sock: socket.socket) -> None:
        while True:
            try:
                sock.sendto(sock.recv(65536), ("127.0.0.1", self.far))
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # nobody receives just now
