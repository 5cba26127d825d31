"""A slow line: a relay that passes TCP connections on at so many bytes a second, each way."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ._child import Orders, tell

__all__ = ["SlowLine", "relay"]

CHUNK = 2048
"""Bytes passed on at once: what comes behind waits for the line to carry them."""
BUFFER = 64 * 1024
"""Bytes that the system is asked to hold of what came; Linux doubles it."""
SEGMENT = 1448
"""Bytes of one packet."""


class SlowLine:
    """Listens at a free port of the loopback and passes what comes on to another one.

    It receives packets of the size of an Ethernet's into a small buffer, as a modem does, for on the loopback
    a sender's system would take three times as much; how much that is, the sender's system decides. It runs
    in threads, for their pauses are exact to a tenth of a millisecond.

    Args:
        port: where to pass it on to.
        rate: bytes a second, each way.
    """

    def __init__(self, port: int, rate: float) -> None:
        self._to = port
        self._rate = rate
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        if sys.platform == "linux":
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._sockets: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        _start(self._accept)

    def close(self) -> None:
        """Cut all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it was over before
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(each)
            _start(self._pass_on, near, far)
            _start(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way until either end is closed."""
        free = time.monotonic()
        """When the line will have carried what it was given."""
        try:
            while data := source.recv(CHUNK):
                # What a pause took too long is made good, as far as one chunk goes.
                free = max(free, time.monotonic() - CHUNK / self._rate) + len(data) / self._rate
                if (pause := free - time.monotonic()) > 0:
                    time.sleep(pause)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # cut


def _start(run: Any, *arguments: Any) -> None:
    threading.Thread(target=run, args=arguments, name="nexus demo: slow line", daemon=True).start()


async def relay(settings: Mapping[str, Any], orders: Orders) -> None:
    """Run a slow line of its own for each way, until the order to close."""
    lines = {way: SlowLine(port, settings["rate"]) for way, port in settings["ports"].items()}
    tell("ready", ports={way: line.port for way, line in lines.items()})
    await orders.next("close")
    for line in lines.values():
        line.close()
    tell("end")
