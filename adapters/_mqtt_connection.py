"""One connection to an MQTT broker: handshake, keep-alive, subscriptions, bytes in and out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, cast

import attrs

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._mqtt_topics import check_filter
from nexus.adapters._net import no_name_raises_os_error

__all__ = ["QUICK_ACK", "REASONS", "Connection", "Line", "Login", "Take", "check_granted"]

SEND_BUFFER = 2**20
"""Bytes asked of the system, so that a batch goes with one call."""
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux: confirm what was read at once; a broker that gathers small packets waits up to 40 ms for that."""
CLOSE_WAIT = 0.5
"""Seconds that the end of a connection may take."""

REFUSALS = {
    1: "the protocol version",
    2: "the client id",
    3: "all service now",
    4: "user or password",
    5: "access",
}
REASONS: Mapping[int, str] = {
    0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x84: "protocol version",
    0x85: "client id", 0x86: "user or password", 0x87: "not authorised", 0x88: "server unavailable",
    0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down", 0x8D: "keep-alive timeout",
    0x8E: "another client came with the same client_id", 0x8F: "topic filter", 0x90: "topic name",
    0x93: "receive maximum exceeded", 0x95: "packet too large", 0x97: "quota exceeded",
    0x98: "administrative action", 0x9A: "no retained messages", 0x9B: "QoS", 0x9E: "no shared subscriptions",
    0xA2: "no wildcards",
}  # fmt: skip
"""What reason codes mean (MQTT 5, 2.4)."""


@attrs.frozen(kw_only=True)
class Login:
    """What a connection begins with."""

    host: str
    port: int
    server_name: str
    """The name that the broker's certificate must hold."""
    client_id: str
    user: str | None = attrs.field(repr=False)
    password: str | None = attrs.field(repr=False)
    v5: bool
    clean: bool
    session_expiry: int
    receive_maximum: int
    keep_alive: float
    timeout: float
    will: tuple[str, bytes, int, bool] | None = attrs.field(repr=False)
    """Topic, payload, QoS and whether the broker keeps it."""
    max_packet: int
    websocket_path: str | None
    """None where there are no WebSockets."""
    websocket_headers: Mapping[str, str] = attrs.field(repr=False)
    tls: ssl.SSLContext | None = None

    def packet(self) -> bytes:
        """Make the CONNECT (3.1)."""
        flags = 0x02 * self.clean
        body = wire.text(self.client_id)
        if self.will is not None:
            topic, payload, qos, retain = self.will
            flags |= 0x04 | qos << 3 | 0x20 * retain
            body += b"\0" * self.v5 + wire.text(topic) + wire.text(payload)
        if self.user is not None:
            flags |= 0x80
            body += wire.text(self.user)
        if self.password is not None:
            flags |= 0x40
            body += wire.text(self.password)
        head = wire.text("MQTT") + bytes((5 if self.v5 else 4, flags))
        head += round(self.keep_alive).to_bytes(2, "big")
        if self.v5:
            properties = b"\x21" + self.receive_maximum.to_bytes(2, "big")
            if not self.clean:
                properties += b"\x11" + self.session_expiry.to_bytes(4, "big")
            head += bytes((len(properties),)) + properties
        return wire.packet(wire.CONNECT, head + body)


Take = Callable[[int, bytes], None]
"""Called with the first byte and the body of packets that carry or acknowledge messages, in their order.

A `ConnectionError` that it raises ends the connection.
"""


class Line(Protocol):
    """What the two halves need of a connection, whatever carries its packets.

    Attributes:
        session_present: the broker remembered an earlier connection of this client.
        receive_maximum: how many messages of QoS 1 and 2 the broker takes at once.
        maximum_packet: the longest packet it takes, in bytes.
        maximum_qos: the highest QoS it takes.
        lost: done when the connection has ended; holds why.
    """

    session_present: bool
    receive_maximum: int
    maximum_packet: int
    maximum_qos: int
    lost: asyncio.Future[Exception]

    def write(self, data: bytes) -> None:
        """Send packets, without waiting; see `drained`. Does nothing when the connection is lost."""

    def write_soon(self, data: bytes) -> None:
        """Send a packet together with all else that is sent in this turn of the event loop."""

    async def drained(self) -> bool:
        """Wait until the system has all that was written; False if the connection was lost. One at a time."""
        ...

    async def subscribe(self, topics: Mapping[str, int], retained: int) -> None:
        """Subscribe to filters by their QoS.

        Args:
            retained: which retained messages come again, with MQTT 5: 0 for all, 1 for those of new filters.

        Raises:
            ConnectionRefusedError: the broker refuses one of them.
            ConnectionError: the connection is lost.
        """

    async def unsubscribe(self, topic: str) -> None:
        """End a subscription.

        Raises:
            ConnectionError: the connection is lost.
        """

    def pause(self) -> None:
        """Read no further until `resume`."""

    def resume(self) -> None:
        """Read on."""

    async def close(self) -> None:
        """Say goodbye and close, within half a second. Closed already, does nothing."""

    def fail(self, error: Exception) -> None:
        """End the connection for a reason."""


def check_granted(topics: Iterable[str], codes: Iterable[int], *, v5: bool) -> None:
    """Read the answer to a subscription.

    Raises:
        ConnectionRefusedError: the broker refuses one of them.
    """
    for topic, code in zip(topics, codes, strict=False):
        if code >= 0x80:
            why = REASONS.get(code, f"code {code:#x}") if v5 else "not allowed"
            raise ConnectionRefusedError(f"the broker refuses the subscription to {topic!r}: {why}")


class Connection(asyncio.Protocol):
    """A connection over TCP or TLS that stands; made by `open`. A `Line`."""

    def __init__(self, login: Login, welcome: Callable[[Connection], None], take: Take) -> None:
        self._login = login
        self._on_welcome = welcome
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._reader = wire.PacketReader(login.max_packet)
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._last_mid = 0
        self._soon: list[bytes] = []
        self._flushing: asyncio.Handle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._keep_alive = login.keep_alive
        self._sent_at = self._received_at = self._loop.time()
        self._ping_at: float | None = None
        self._is_paused = False
        self._is_closing = False
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        self.session_present = False
        self.receive_maximum = 65535
        self.maximum_packet = 268_435_460
        self.maximum_qos = 2

    @classmethod
    async def open(cls, login: Login, welcome: Callable[[Connection], None], take: Take) -> Connection:
        """Connect.

        Args:
            welcome: called when the broker has let the connection in, before `take` is called first.
            take: takes what comes.

        Raises:
            ConnectionRefusedError: the broker says no, and why.
            OSError: it cannot be reached, does not answer in time, or its certificate will not do.
        """
        self = cls(login, welcome, take)
        try:
            async with asyncio.timeout(login.timeout):
                with no_name_raises_os_error():
                    await self._loop.create_connection(
                        lambda: self,
                        login.host,
                        login.port,
                        ssl=login.tls,
                        server_hostname=login.server_name if login.tls else None,
                        ssl_shutdown_timeout=CLOSE_WAIT if login.tls else None,
                    )
                self.write(login.packet())
                await self._welcome
        except BaseException as exc:
            await self.close()
            if isinstance(exc, TimeoutError) and not str(exc):
                raise TimeoutError(f"no answer within {login.timeout:g} s") from None
            raise
        return self

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.lost.done():
            self._sent_at = self._loop.time()
            self._transport.write(data)

    def write_soon(self, data: bytes) -> None:
        self._soon.append(data)
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    async def drained(self) -> bool:
        if self._drained is not None:
            await self._drained
        return not self.lost.done()

    async def subscribe(self, topics: Mapping[str, int], retained: int) -> None:
        options = retained << 4 if self._login.v5 else 0
        fields = b"".join(check_filter(topic) + bytes((qos | options,)) for topic, qos in topics.items())
        codes = await self._ask(wire.SUBSCRIBE, fields)
        check_granted(topics, codes, v5=self._login.v5)

    async def unsubscribe(self, topic: str) -> None:
        await self._ask(wire.UNSUBSCRIBE, check_filter(topic))

    def pause(self) -> None:
        if self._transport is not None and not self._is_paused and not self.lost.done():
            self._transport.pause_reading()
            self._is_paused = True

    def resume(self) -> None:
        if self._transport is not None and self._is_paused and not self.lost.done():
            self._ping_at = None
            self._received_at = self._loop.time()
            self._is_paused = False
            self._transport.resume_reading()

    async def close(self) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            if not self.lost.done():
                self._flush()
                # Whoever does not take what was written will not take this either.
                if transport.get_write_buffer_size() or not self._welcome.done():
                    transport.abort()
                else:
                    self._is_closing = True
                    self.write(wire.packet(wire.DISCONNECT))
                    # Until the broker has read it all and closed, another connection of the same client may
                    # be heard before what this one has acknowledged.
                    if self._login.clean:
                        transport.close()
                    else:
                        self.resume()
                await asyncio.wait([self.lost], timeout=CLOSE_WAIT)
        finally:
            transport.abort()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not all loops derive theirs from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        sock = self._socket = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._received_at = self._loop.time()
        self._ping_at = None
        if QUICK_ACK is not None and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        take = self._take
        try:
            for first, body in self._reader.feed(data):
                kind = first & 0xF0
                if 0x30 <= kind <= 0x70 and self._welcome.done():
                    take(first, body)
                else:
                    self._answer(first, body)
        except ConnectionError as error:
            self.fail(error)
        except (IndexError, UnicodeDecodeError) as error:
            self.fail(wire.Malformed(f"the broker does not speak MQTT: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        for handle in (self._tick, self._flushing):
            if handle is not None:
                handle.cancel()
        error = self._error or exc or ConnectionResetError("the broker closed the connection")
        self.resume_writing()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        if not self._welcome.done():
            self._welcome.set_exception(error)
            self._welcome.exception()  # or asyncio would complain where nobody waits any more
        self.lost.set_result(error)

    # Below the two.

    def _flush(self) -> None:
        self._flushing = None
        if self._soon:
            data = b"".join(self._soon)
            self._soon.clear()
            self.write(data)

    async def _ask(self, first: int, fields: bytes) -> bytes:
        """Send a packet that is answered by one with the same identifier; return the answer's codes."""
        mid = self._last_mid = self._last_mid % 65535 + 1
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers[mid] = answer
        try:
            self.write(wire.packet(first, mid.to_bytes(2, "big") + b"\0" * self._login.v5 + fields))
            if self.lost.done():
                raise self.lost.result()
            # What was sent before it comes before it, however long the program takes for that.
            while not (await asyncio.wait([answer], timeout=self._login.timeout))[0]:
                if not self._is_paused and self._loop.time() - self._received_at >= self._login.timeout:
                    raise TimeoutError(f"no answer within {self._login.timeout:g} s")
            body = answer.result()
        finally:
            del self._answers[mid]
        return body[wire.properties_of(body, 2)[1] if self._login.v5 else 2 :]

    def _answer(self, first: int, body: bytes) -> None:
        """Take a packet that carries no message."""
        kind = first & 0xF0
        if kind == wire.CONNACK and not self._welcome.done():
            self._welcomed(body)
        elif kind in (wire.SUBACK, wire.UNSUBACK):
            answer = self._answers.get(body[0] << 8 | body[1])
            if answer is not None and not answer.done():
                answer.set_result(body)
        elif kind == wire.DISCONNECT and self._login.v5:
            code = body[0] if body else 0
            raise ConnectionResetError(f"the broker disconnects: {REASONS.get(code, f'code {code:#x}')}")
        elif kind != wire.PINGRESP:
            raise wire.Malformed(f"the broker sent a packet of kind {first:#x}")

    def _welcomed(self, body: bytes) -> None:
        """Take the CONNACK (3.2)."""
        code = body[1]
        properties = wire.properties_of(body, 2)[0] if self._login.v5 and len(body) > 2 else {}
        if code:
            what = REASONS.get(code) if self._login.v5 else REFUSALS.get(code)
            why = what or f"code {code:#x}"
            raise ConnectionRefusedError(f"the broker refuses {why} {properties.get('reason', '')}".strip())
        self.session_present = bool(body[0] & 1)
        self.receive_maximum = properties.get("receive_maximum", 65535)
        self.maximum_packet = properties.get("maximum_packet", self.maximum_packet)
        self.maximum_qos = properties.get("maximum_qos", 2)
        self._keep_alive = properties.get("keep_alive", self._keep_alive)
        self._welcome.set_result(None)
        self._on_welcome(self)
        if self._keep_alive:
            self._check()

    def _check(self) -> None:
        """Ping when the line was quiet, and give up when nothing answers."""
        now = self._loop.time()
        half = self._keep_alive / 2
        if self._ping_at is not None and not self._is_paused and now - self._ping_at >= self._login.timeout:
            self.fail(TimeoutError(f"the broker was silent for {now - self._received_at:.1f} s"))
            return
        if self._ping_at is None and now - min(self._sent_at, self._received_at) >= half:
            self._ping_at = now
            self.write(wire.packet(wire.PINGREQ))
        elif self._is_paused and now - self._sent_at >= half:
            self.write(wire.packet(wire.PINGREQ))
        self._tick = self._loop.call_later(min(half, self._login.timeout) / 2, self._check)
