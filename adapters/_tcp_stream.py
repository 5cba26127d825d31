"""One TCP connection, with or without TLS: opened, read, written and closed without half-dead states."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Protocol

from nexus.adapters._net import no_name_raises_os_error, place_of

__all__ = ["Stream", "StreamOptions", "adopt", "connect"]

CHUNK = 64 * 1024
"""Bytes read at once."""
TLS_FAREWELL = 60.0
"""Seconds that asyncio gives the end of TLS, data included; `Stream.close` bounds it better."""


class StreamOptions(Protocol):
    """What a connection wants to know of a config."""

    @property
    def connect_timeout(self) -> float: ...
    @property
    def handshake_timeout(self) -> float: ...
    @property
    def keepalive(self) -> float: ...
    @property
    def user_timeout(self) -> float: ...


class Stream(asyncio.BufferedProtocol):
    """A connection.

    What comes is given to `received`, which a subclass overrides, and is thrown away here. After the peer's
    end of data, or an error, `ended` returns; the connection is then closed for good, in both directions.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.peer = "?"
        """``host:port`` of the other side."""
        self.since = loop.time()
        """When it came, on the loop's clock."""
        self.is_proven = True
        """Whether it may keep its place when many come: it has done what peers are for."""
        self.error: BaseException | None = None
        """Why the connection is over; None while it is not, or if the peer closed it in good order."""
        self.is_over = False
        self._transport: asyncio.Transport | None = None
        self._view = memoryview(bytearray(CHUNK))
        self._over: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._may_write: asyncio.Future[None] | None = None

    def received(self, data: memoryview) -> None:
        """Take what came; the memory is used again after."""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self.peer = place_of(transport.get_extra_info("peername"))

    def get_buffer(self, sizehint: int) -> memoryview:
        # asyncio's TLS slices what it gets, so it must not be a bytearray, whose slices are copies; and what
        # is left when the peer closes must fit, for it asks once.
        if sizehint > len(self._view):
            self._view = memoryview(bytearray(sizehint))
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self.received(self._view[:nbytes])
        except Exception as exc:
            self.cut(exc)

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        if self._may_write is None:
            self._may_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self._may_write = self._may_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What its owner calls.

    @property
    def transport(self) -> asyncio.Transport:
        """The transport; there is one from the moment the connection is made."""
        assert self._transport is not None
        return self._transport

    async def ended(self) -> None:
        """Wait until the peer has closed, or the connection is lost; see `error`."""
        await asyncio.shield(self._over)

    def write(self, data: bytes) -> None:
        """Write without waiting; see `drained`."""
        self.transport.write(data)

    def limit(self, high: int) -> None:
        """Let `drained` wait while more than this many bytes have not gone to the system."""
        self.transport.set_write_buffer_limits(high=high, low=high // 2)

    @property
    def is_behind(self) -> bool:
        """Whether more than `limit` allows has not gone to the system."""
        return self._may_write is not None and not self.is_over

    async def drained(self) -> None:
        """Wait until what was written has gone to the system, but for what `limit` allows.

        Raises:
            ConnectionError: the connection was lost before.
        """
        if self._may_write is not None and not self.is_over:
            await asyncio.shield(self._may_write)
        if self.is_over:
            raise ConnectionResetError("the connection was lost while data was on its way") from self.error

    def pause_reading(self) -> None:
        """Let the peer wait."""
        if not self.is_over:
            with contextlib.suppress(RuntimeError):  # it is closing
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if not self.is_over:
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()

    def cut(self, why: BaseException) -> None:
        """End the connection at once, for a reason of this side; what is not written is lost."""
        self._end(why)
        self.transport.abort()

    async def close(self, patience: float) -> None:
        """Write what is left, tell the peer that it was all, and let go.

        Args:
            patience: seconds until what is left is thrown away; cancelled, that is done at once.
        """
        transport = self.transport
        try:
            if self.is_over:
                transport.abort()
            transport.close()
            async with asyncio.timeout(max(patience, 0.001)):
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            transport.abort()
        if not self._gone.done():
            await asyncio.shield(self._gone)

    def _end(self, why: BaseException | None) -> None:
        if not self.is_over:
            self.is_over, self.error = True, why
            if not self._over.done():
                self._over.set_result(None)
            self.resume_writing()


async def connect(
    stream: Stream, host: str, port: int, options: StreamOptions, context: ssl.SSLContext | None, name: str
) -> None:
    """Connect a stream.

    Args:
        name: the name that the certificate of the server must hold.

    Raises:
        OSError: there is no such host, nobody answers, or the certificate will not do.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(options.connect_timeout):
            with no_name_raises_os_error():
                await loop.create_connection(lambda: stream, host, port, **_tls(context, options, name))
    except TimeoutError:
        raise TimeoutError(f"no connection to {host}:{port} within {options.connect_timeout:g} s") from None
    _watch(stream.transport, options)


async def adopt(
    stream: Stream, sock: socket.socket, options: StreamOptions, context: ssl.SSLContext | None
) -> None:
    """Make a stream of a socket that was accepted; it is closed if that fails.

    Raises:
        OSError: the peer did not do its part of TLS in time, or its certificate will not do.
    """
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(lambda: stream, sock, **_tls(context, options, None))
    except BaseException:
        sock.close()
        raise
    _watch(stream.transport, options)


def _tls(context: ssl.SSLContext | None, options: StreamOptions, name: str | None) -> dict[str, Any]:
    if context is None:
        return {}
    return {
        "ssl": context,
        "ssl_handshake_timeout": options.handshake_timeout,
        "ssl_shutdown_timeout": TLS_FAREWELL,
        **({} if name is None else {"server_hostname": name}),
    }


def _watch(transport: asyncio.BaseTransport, options: StreamOptions) -> None:
    """Let the system send at once what is written, and find out that a peer is gone without a word."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    # asyncio does the first as well, but not for a socket made without a protocol, as the accepted ones are.
    wanted: list[tuple[int, str, int]] = [(socket.IPPROTO_TCP, "TCP_NODELAY", 1)]
    if options.keepalive:
        idle = max(1, round(options.keepalive))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wanted += [
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL", max(1, idle // 3)),
            (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        ]
    if options.user_timeout:
        wanted.append((socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", round(options.user_timeout * 1000)))
    for level, name, value in wanted:
        number = getattr(socket, name, None)  # not every system has them
        if number is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, number, value)
