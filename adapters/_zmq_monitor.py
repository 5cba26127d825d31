"""Who is connected to a ZMQ socket, and what went wrong with those who are not.

See zmq_socket_monitor(3). Its events name the descriptor of a connection when it begins and ends, but not
when the handshake succeeds: that is taken to be the newest one that has not yet. Where a peer that never
shakes hands came in between, the count may be off by it until it leaves.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable
from typing import Any

import zmq

from nexus.adapters._zmq_port import AnySocket
from nexus.adapters._zmq_socket import ZmqWire

__all__ = ["Monitor"]

_numbers = itertools.count(1)

_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_DELAYED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_CRYPTOGRAPHIC = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)


class Monitor:
    """Follows the connections of one socket; made before it is connected or bound.

    Args:
        socket: whose connections.
        has_name: the host is a name, which may have no address.
        on_peers: called when the number of peers has changed from or to none.
        on_failed: called with a word and a sentence on why a connection could not be made.
    """

    def __init__(
        self,
        socket: AnySocket,
        *,
        has_name: bool,
        on_peers: Callable[[], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
        address = f"inproc://nexus.monitor.{next(_numbers)}"
        socket.monitor(address, int(_EVENTS))
        self._pair: zmq.Socket[Any] = socket.context.socket(zmq.PAIR)
        self._pair.setsockopt(zmq.LINGER, 0)
        self._pair.connect(address)
        self._has_name = has_name
        self._on_peers = on_peers
        self._on_failed = on_failed
        self._open: dict[int, bool] = {}
        """The connections by descriptor, and whether each has shaken hands."""
        self._told = 0
        """Failed handshakes whose connections have not ended yet."""
        self._was_lost = False
        self._has_address = False
        self.peers = 0
        """How many have shaken hands."""
        self.is_trying = True
        """Whether libzmq connects again by itself: not after a peer that broke the protocol."""

    async def run(self) -> None:
        """Follow until cancelled or closed, whichever of the two is noticed first."""
        wire = ZmqWire(self._pair)
        try:
            while True:
                for frames in await wire.receive():
                    if len(frames) == 2 and len(frames[0]) == 6:
                        event, value = struct.unpack("=HI", frames[0])
                        self._take(event, value)
        except ConnectionAbortedError:
            if not self._pair.closed:
                raise
        finally:
            wire.close()

    def close(self) -> None:
        """Let go of the events; after the socket."""
        self._pair.close(linger=0)

    def _take(self, event: int, value: int) -> None:
        match event:
            case zmq.EVENT_CONNECTED | zmq.EVENT_ACCEPTED:
                self._open[value] = False
                self.is_trying = True
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                fresh = [descriptor for descriptor, is_shaken in self._open.items() if not is_shaken]
                if fresh:
                    self._open[fresh[-1]] = True
                    self._count()
            case zmq.EVENT_DISCONNECTED:
                self._disconnected(value)
            case zmq.EVENT_CONNECT_DELAYED:
                self._has_address = True
            case zmq.EVENT_CONNECT_RETRIED:
                self.is_trying = True
                if not self._was_lost:
                    is_known = self._has_address or not self._has_name
                    why = "nobody answers there" if is_known else "the name of the host has no address"
                    self._on_failed("connect", why)
                self._was_lost = self._has_address = False
            case _:
                self._fail(event, value)

    def _disconnected(self, descriptor: int) -> None:
        self._was_lost = True
        self.is_trying = False
        if self._open.pop(descriptor, False):
            self._count()
        elif self._told:
            self._told -= 1
        else:
            self._on_failed("handshake", "the peer does not speak ZMTP, or left at once")

    def _fail(self, event: int, value: int) -> None:
        match event:
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                kind, why = "key", f"the key is not let in (status {value})"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL if value == _MISMATCH:
                kind, why = "security", "one end has CURVE and the other has not"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL if value == _CRYPTOGRAPHIC:
                kind, why = "key", "the client does not have the server's key"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                kind, why = "protocol", f"the handshake failed (protocol error {value:#x})"
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                kind, why = "handshake", f"the peer left during the handshake ({os.strerror(value)})"
            case _:
                return
        self._told += 1
        self._on_failed(kind, why)

    def _count(self) -> None:
        before, self.peers = self.peers, sum(self._open.values())
        if bool(before) is not bool(self.peers):
            self._on_peers()
