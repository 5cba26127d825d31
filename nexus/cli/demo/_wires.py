"""The two wires between the domains: one for what is urgent, one for the bulk.

Plain ZMQ keeps the order of what is in a pipe, so nothing overtakes there. Hence the urgent events have a
pipe of their own, and that of the bulk is kept short: what does not fit waits in the plant's lanes, where the
policies are.
"""

import zmq
import zmq.asyncio

__all__ = ["BULK_HWM", "URGENT_HWM", "connect", "listen"]

URGENT_HWM = 1000
"""Events that either end of the urgent wire may hold; it is never near full."""
BULK_HWM = 50
"""Events that either end of the bulk wire may hold."""
KERNEL_BUFFER = 4096
"""Bytes of the bulk wire that the kernel may hold at either end: with its own sizes it would hide 20,000
events.
"""


def listen(context: zmq.asyncio.Context, *, bulk: bool) -> tuple[zmq.asyncio.Socket, str]:
    """Open control's end of a wire on a free port of the loopback; return it and its endpoint."""
    socket = context.socket(zmq.PULL)
    limit(socket, zmq.RCVHWM, zmq.RCVBUF, bulk=bulk)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, f"tcp://127.0.0.1:{port}"


def connect(context: zmq.asyncio.Context, endpoint: str, *, bulk: bool) -> zmq.asyncio.Socket:
    """Open the plant's end of a wire."""
    socket = context.socket(zmq.PUSH)
    limit(socket, zmq.SNDHWM, zmq.SNDBUF, bulk=bulk)
    socket.connect(endpoint)
    return socket


def limit(socket: zmq.asyncio.Socket, mark: int, buffer: int, *, bulk: bool) -> None:
    """Bound what an end of a wire holds; to be done before it is bound or connected."""
    socket.set(mark, BULK_HWM if bulk else URGENT_HWM)
    if bulk:
        socket.set(buffer, KERNEL_BUFFER)
