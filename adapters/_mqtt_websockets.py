"""A connection to an MQTT broker over WebSockets, by aiomqtt and the paho client below it.

It takes and gives packets as `Connection` does: each becomes a call of paho's, each call back a packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._mqtt_connection import QUICK_ACK, REASONS, Connection, Line, Login, Take, check_granted
from nexus.adapters._net import resolve

__all__ = ["WebSocketConnection", "open_line"]

CLOSE_WAIT = 0.5
"""Seconds that the goodbye may take."""
READS = 32
"""Packets read in one turn of the event loop."""


async def open_line(login: Login, welcome: Callable[[Line], None], take: Take) -> Line:
    """Connect over what the login says; see `Connection.open`."""
    if login.websocket_path is None:
        return await Connection.open(login, welcome, take)
    return await WebSocketConnection.open(login, welcome, take)


class WebSocketConnection:
    """A connection over WebSockets that stands; made by `open`. A `Line`.

    A new client of aiomqtt serves each. It gives paho to the event loop; all that has to do with messages is
    said to paho itself. Of paho's own insides it touches one: where the socket comes from, so that connecting
    can be given up at any moment.
    """

    def __init__(self, login: Login, welcome: Callable[[Line], None], take: Take) -> None:
        self._login = login
        self._on_welcome = welcome
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._written = wire.PacketReader(2**28)
        self._client = _client_of(login, self._headers)
        self._paho = self._client._client
        self._prepare()
        self._socket: socket.socket | None = None
        self._handle: socket.socket | None = None
        """The same connection: TLS puts another socket in place of the first."""
        self._fd = -1
        self._mids: dict[int, tuple[int, int]] = {}
        """Packet and identifier that acknowledge what paho sends, by paho's identifier."""
        self._answers: dict[int, asyncio.Future[list[int]]] = {}
        self._is_writing = False
        self._drained: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_welcome = False
        self._is_paused = False
        self._received_at = self._loop.time()
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        self.session_present = False
        self.receive_maximum = 65535
        self.maximum_packet = 268_435_460
        self.maximum_qos = 2

    @classmethod
    async def open(cls, login: Login, welcome: Callable[[Line], None], take: Take) -> WebSocketConnection:
        """Connect; see `Connection.open`."""
        self = cls(login, welcome, take)
        try:
            async with asyncio.timeout(login.timeout):
                await self._reach()
                await self._enter()
        except BaseException as exc:
            await self.close()
            if isinstance(exc, TimeoutError) and not str(exc):
                raise TimeoutError(f"no answer within {login.timeout:g} s") from None
            raise
        return self

    def write(self, data: bytes) -> None:
        for first, body in self._written.feed(data):
            if self.lost.done():
                return
            mid = body[0] << 8 | body[1]
            if first & 0xF0 == wire.PUBLISH:
                self._publish(first, body)
            elif first == wire.PUBACK:
                self._paho.ack(mid, 1)
            else:
                raise wire.Malformed(f"a packet of kind {first:#x} is not sent over WebSockets")

    def write_soon(self, data: bytes) -> None:
        self.write(data)  # paho gathers what it can

    async def drained(self) -> bool:
        while self._is_writing and not self.lost.done():
            self._drained = self._loop.create_future()
            await self._drained
        return not self.lost.done()

    async def subscribe(self, topics: Mapping[str, int], retained: int) -> None:
        wanted: list[tuple[str, Any]] = [
            (topic, SubscribeOptions(qos, retainHandling=retained) if self._login.v5 else qos)
            for topic, qos in topics.items()
        ]
        codes = await self._ask(*self._paho.subscribe(wanted))
        check_granted(topics, codes, v5=self._login.v5)

    async def unsubscribe(self, topic: str) -> None:
        await self._ask(*self._paho.unsubscribe(topic))

    def pause(self) -> None:
        if not self._is_paused and not self.lost.done():
            self._is_paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if self._is_paused and not self.lost.done():
            self._is_paused = False
            self._received_at = self._loop.time()
            self._loop.add_reader(self._fd, self._read)
            self._loop.call_soon(self._read)  # of what TLS holds already, the system tells nothing

    async def close(self) -> None:
        try:
            if self._is_welcome and not self.lost.done():
                self._is_paused = True
                self._loop.remove_reader(self._fd)
                self._paho.disconnect()
                with contextlib.suppress(OSError):
                    async with asyncio.timeout(CLOSE_WAIT):
                        await asyncio.wait([self.lost])
                        # See `Connection.close`.
                        handle = None if self._login.clean else self._handle
                        while handle is not None and await self._loop.sock_recv(handle, 2**16):
                            pass
        finally:
            self._cut()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._loop.call_soon(self._cut)  # paho may be in the midst of calling

    # Connecting.

    async def _reach(self) -> None:
        """Connect over TCP."""
        failure: OSError | None = None
        for address in await resolve(self._login.host, self._login.port, socket.SOCK_STREAM):
            sock = socket.socket(address.family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                await self._loop.sock_connect(sock, address.where)
                self._handle = sock.dup()
            except OSError as exc:
                failure = exc
                sock.close()
                continue
            except BaseException:
                sock.close()
                raise
            self._socket = sock
            return
        raise failure or ConnectionRefusedError(f"{self._login.host} has no address")

    async def _enter(self) -> None:
        """Let aiomqtt do the rest: TLS, the handshake of HTTP, and the first packets."""
        async with asyncio.TaskGroup() as group:
            entering = group.create_task(self._try_to_enter(), name=f"mqtt connect[{self._login.host}]")
            try:
                await asyncio.wait([entering])
            finally:
                if not entering.done():
                    # A thread cannot be cancelled; without the connection it ends at once, and so does all.
                    self._break()
                while not entering.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([entering])
        if not self._is_welcome:
            raise self._error or ConnectionResetError("the broker closed the connection")

    async def _try_to_enter(self) -> None:
        try:
            await self._client.__aenter__()
        except Exception as exc:  # an answer that is no HTTP raises whatever comes to paho's mind
            why = f"the server speaks no WebSockets at {self._login.websocket_path}: {exc}"
            self._error = self._error or ConnectionRefusedError(why)

    def _encrypted(self) -> socket.socket:
        """Give paho its socket; called in a thread."""
        assert self._socket is not None
        try:
            self._socket.settimeout(self._login.timeout)
            if self._login.tls is not None:
                encrypted = self._login.tls.wrap_socket(
                    self._socket, server_hostname=self._login.server_name, do_handshake_on_connect=False
                )
                self._socket = encrypted
                encrypted.do_handshake()
        except Exception as exc:
            self._error = self._error or exc
            raise
        return self._socket

    def _headers(self, usual: dict[str, str]) -> dict[str, str]:
        """Make the headers of HTTP from paho's, which knows neither of TLS nor of `server_name`."""
        name, secure = self._login.server_name, self._login.tls is not None
        name = f"[{name}]" if ":" in name else name
        host = name if self._login.port == (443 if secure else 80) else f"{name}:{self._login.port}"
        origin = f"{'https' if secure else 'http'}://{host}"
        return usual | {"Host": host, "Origin": origin} | dict(self._login.websocket_headers)

    def _prepare(self) -> None:
        """Let paho call us, and aiomqtt where it waits."""
        client = self._paho
        client.disable_logger()  # the link says it all
        client.manual_ack_set(True)
        client.max_inflight_messages_set(65535)  # whoever sends keeps to a bound of its own
        client.connect_timeout = self._login.timeout
        client._create_socket_connection = self._encrypted  # type: ignore[method-assign]
        self._told: Any = client.on_connect
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._published
        client.on_subscribe = self._answered
        client.on_unsubscribe = self._answered
        client.on_socket_register_write = self._writing
        client.on_socket_unregister_write = self._wrote

    # What paho calls.

    def _connected(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if not code.is_failure and not self._is_welcome:
            self.session_present = bool(flags.session_present)
            self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
            self.maximum_packet = getattr(properties, "MaximumPacketSize", self.maximum_packet)
            self.maximum_qos = getattr(properties, "MaximumQoS", self.maximum_qos)
            self._fd = self._paho.socket().fileno()  # type: ignore[union-attr]
            self._is_welcome = True
            self._loop.add_reader(self._fd, self._read)
            self._loop.call_soon(self._read)
            self._on_welcome(self)
        elif code.is_failure:
            what = REASONS.get(code.value, f"code {code.value:#x}")
            reason = getattr(properties, "ReasonString", "")
            error = ConnectionRefusedError(f"the broker refuses {what} {reason}".strip())
            self._error = self._error or error
        self._told(client, data, flags, code, properties)

    def _disconnected(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if not self._is_welcome:
            # aiomqtt would wait for its whole timeout.
            failed = ReasonCode(PacketTypes.CONNACK, "Unspecified error")
            self._told(client, data, flags, failed, properties)
        if flags.is_disconnect_packet_from_server:
            why = f"the broker disconnects: {REASONS.get(code.value, f'code {code.value:#x}')}"
        elif code.getName() == "Keep alive timeout":
            why = f"the broker was silent for {self._loop.time() - self._received_at:.1f} s"
        else:
            why = "the broker closed the connection"
        self._end(self._error or ConnectionResetError(why))

    def _received(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        if self.lost.done():
            return
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = b"\xff"
        first = wire.PUBLISH | 8 * message.dup | message.qos << 1 | message.retain
        body = wire.text(topic) + (message.mid.to_bytes(2, "big") if message.qos else b"")
        if self._login.v5:
            body += b"\0" if message.properties is None else message.properties.pack()  # type: ignore[no-untyped-call]
        self._give(first, body + message.payload)

    def _published(self, client: Any, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        kind, own = self._mids.pop(mid, (0, 0))
        if kind:
            self._give(kind, own.to_bytes(2, "big") + bytes((code.value,)))

    def _answered(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result([code.value for code in codes])

    def _writing(self, client: Any, data: Any, sock: Any) -> None:
        self._is_writing = True
        self._loop.call_soon_threadsafe(self._write_when_possible)  # the first time, in a thread

    def _wrote(self, client: Any, data: Any, sock: Any) -> None:
        self._is_writing = False
        self._loop.remove_writer(sock.fileno())
        self._wake()

    # Below all of them.

    def _read(self) -> None:
        """Read what has come: one packet, and what TLS has taken from the system with it."""
        for _ in range(READS):
            if self._is_paused or self.lost.done():
                return
            self._received_at = self._loop.time()
            if QUICK_ACK is not None and self._handle is not None:
                with contextlib.suppress(OSError):
                    self._handle.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
            try:
                self._paho.loop_read()
            except Exception as exc:  # paho trusts what it reads
                self.fail(wire.Malformed(f"the broker does not speak MQTT: {exc!r}"))
                return
            if self._login.tls is None or self.lost.done() or not self._socket.pending():  # type: ignore[union-attr]
                return
        self._loop.call_soon(self._read)

    def _write_when_possible(self) -> None:
        sock = self._paho.socket()
        if self._is_writing and sock is not None:  # or it is closed meanwhile, and its number somebody else's
            self._loop.add_writer(sock.fileno(), self._write_out)

    def _write_out(self) -> None:
        try:
            self._paho.loop_write()
        except Exception as exc:
            self.fail(exc)

    def _publish(self, first: int, body: bytes) -> None:
        """Send a message; paho gives it an identifier of its own."""
        at = (body[0] << 8 | body[1]) + 2
        topic, qos, mid = body[2:at].decode(), first >> 1 & 3, 0
        if qos:
            mid = body[at] << 8 | body[at + 1]
            at += 2
        payload = body[at + self._login.v5 :]
        while True:
            info = self._paho.publish(topic, payload, qos, bool(first & 1))
            # The identifiers begin again, and one that is still in use is passed over.
            if info.rc != paho.MQTT_ERR_QUEUE_SIZE:
                break
        if qos:
            self._mids[info.mid] = (wire.PUBACK if qos == 1 else wire.PUBCOMP, mid)

    def _give(self, first: int, body: bytes) -> None:
        try:
            self._take(first, body)
        except ConnectionError as exc:
            self.fail(exc)

    async def _ask(self, code: int, mid: int | None) -> list[int]:
        """Wait for the answer to a subscription or its end."""
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionResetError("the connection is lost")
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        self._answers[mid] = answer
        timeout = self._login.timeout
        try:
            # What was sent before it comes before it, however long the program takes for that.
            while not (await asyncio.wait([answer], timeout=timeout))[0]:
                if not self._is_paused and self._loop.time() - self._received_at >= timeout:
                    raise TimeoutError(f"no answer within {timeout:g} s")
            return answer.result()
        finally:
            del self._answers[mid]

    def _break(self) -> None:
        """End the connection below paho: whatever reads or writes, fails."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        """End it at once, and let go of all."""
        self._break()
        if self._paho.socket() is not None:
            self._paho.disconnect()
            with contextlib.suppress(Exception):
                self._paho.loop_write()
        self._end(self._error or ConnectionResetError("the connection was closed"))
        for sock in (self._socket, self._handle):
            if sock is not None:
                sock.close()

    def _end(self, error: Exception) -> None:
        if self.lost.done():
            return
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self.lost.set_result(error)
        self._wake()

    def _wake(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _client_of(login: Login, headers: Callable[[dict[str, str]], dict[str, str]]) -> aiomqtt.Client:
    """Make the client of one connection."""
    will = None
    if login.will is not None:
        topic, payload, qos, retain = login.will
        will = aiomqtt.Will(topic, payload, qos, retain)
    given: dict[str, Any] = {"clean_session": login.clean}
    if login.v5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = login.receive_maximum
        if not login.clean:
            properties.SessionExpiryInterval = login.session_expiry
        given = {"clean_start": login.clean, "properties": properties}
    return aiomqtt.Client(
        login.host,
        login.port,
        identifier=login.client_id,
        username=login.user,
        password=login.password,
        protocol=aiomqtt.ProtocolVersion.V5 if login.v5 else aiomqtt.ProtocolVersion.V311,
        will=will,
        transport="websockets",
        timeout=login.timeout,
        keepalive=round(login.keep_alive),
        websocket_path=login.websocket_path,
        websocket_headers=headers,
        **given,
    )
