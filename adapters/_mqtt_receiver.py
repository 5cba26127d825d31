"""The half of the MQTT adapter that subscribes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, TypeVar

import attrs

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._base import Meta, OnBad, Receiver
from nexus.adapters._inbox import Item
from nexus.adapters._mqtt_config import MqttConfig, QoS
from nexus.adapters._mqtt_connection import Line, Login
from nexus.adapters._mqtt_topics import check_filter
from nexus.adapters._mqtt_websockets import open_line
from nexus.adapters._tls import TlsFiles
from nexus.adapters.packing import Unpacker
from nexus.errors import ConfigError, LinkDown

__all__ = ["MqttReceiver"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

KNOWN_TOPICS = 1024
NEW_ONLY = 1
"""Retained messages come only to filters that were not subscribed to (MQTT 5)."""


class Token:
    """A message that the broker waits to hear of."""

    __slots__ = ("accepted", "content", "mid", "qos", "queue")

    def __init__(self, mid: int, qos: int, content: int, queue: deque[Token]) -> None:
        self.mid = mid
        self.qos = qos
        self.content = content
        """Hash of its topic and payload."""
        self.queue = queue
        """Those of its connection and QoS, in the order they came."""
        self.accepted = False


class MqttReceiver(Receiver[T]):
    """Receives what is published to the topics.

    The meta of an item has ``topic``, ``qos``, ``retain`` and ``dup``; with MQTT 5 ``properties``, if there
    are any; and with QoS 1 or 2 ``ack``, which `accept` needs. Acknowledgements go in the order the messages
    came, as MQTT demands: an item that is not accepted holds back those behind it, and the broker stops
    sending when `max_inflight` of them wait (MQTT 5), or as many as it allows itself (3.1.1).

    Args:
        config: the broker, the topics, and the bounds.
        unpacker: turns a frame into data; JSON unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    def __init__(
        self,
        config: MqttConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or MqttConfig()
        self._check_qos(self.config.qos)
        name = f"{self.config.place}/{','.join(self.config.filters)}"
        # The policy is for QoS 0 alone and is applied here; what is to be acknowledged is never dropped.
        super().__init__(name, self.config, unpacker, overflow="block", on_bad=on_bad)
        self._v5 = self.config.protocol == "5"
        self._tls = TlsFiles(self.config, server=False)
        self._login: Login | None = None
        self._connection: Line | None = None
        self._wanted: dict[str, int] = dict.fromkeys(self.config.filters, self.config.qos)
        self._granted: dict[str, int] = {}
        """What the broker's session of this client is subscribed to."""
        self._known: dict[bytes, str] = {}
        self._queues: tuple[deque[Token], ...] = ()
        self._held: dict[int, Token] = {}
        """Not acknowledged on this connection, by identifier."""
        self._stale: dict[int, Token] = {}
        """Not acknowledged on the connection before, which the broker remembers."""
        self._expected: set[int] = set()
        """Identifiers of QoS 2 that were accepted and that the broker has not released."""
        self._backlog: deque[Item] = deque()  # bounded by what one read brings: reading stops meanwhile
        self._stir = asyncio.Event()

    @property
    def topics(self) -> dict[str, int]:
        """The filters it subscribes to, with their QoS."""
        return dict(self._wanted)

    async def subscribe(self, topic: str, qos: QoS | None = None) -> None:
        """Subscribe to a filter, now if it is connected, and after every connect from now on.

        Args:
            topic: may have the wildcards ``+`` and ``#``, and begin with ``$share/GROUP/``.
            qos: the most that messages come with; None for the config's.

        Raises:
            ConfigError: the filter or the QoS is none.
            LinkDown: the broker refuses it.
        """
        check_filter(topic)
        level = self.config.qos if qos is None else qos
        if isinstance(level, bool) or level not in (0, 1, 2):
            raise ConfigError(f"qos: found {level!a}, allowed: 0, 1 or 2")
        self._check_qos(level)
        self._wanted[topic] = level
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.subscribe({topic: level}, 0)
            self._granted[topic] = level
        except ConnectionRefusedError as exc:
            self._wanted.pop(topic, None)
            raise LinkDown(str(exc)) from exc
        except OSError as exc:
            connection.fail(exc)  # the next connection subscribes

    async def unsubscribe(self, topic: str) -> None:
        """End a subscription, now if it is connected; what has come stays. Not subscribed, does nothing."""
        if self._wanted.pop(topic, None) is None:
            return
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.unsubscribe(topic)
            self._granted.pop(topic, None)
        except OSError as exc:
            connection.fail(exc)

    def accept(self, meta: Meta) -> None:
        """Acknowledge an item with QoS 1 or 2 to the broker, after those that came before it.

        Of an item that came over an earlier connection, the broker hears when it sends it again; the program
        does not get it twice.
        """
        token = meta.get("ack")
        if isinstance(token, Token) and not token.accepted:
            token.accepted = True
            self._settle(token.queue)

    def _check_qos(self, qos: int) -> None:
        # paho takes a message of QoS 2 off the broker before anybody has seen it.
        if qos == 2 and self.config.transport == "websockets":
            raise ConfigError("qos: found 2, allowed: 0 or 1, which loses nothing, where WebSockets receive")

    async def _open(self) -> None:
        self._login = self.config.login()
        self._tls.context()
        self._stir = asyncio.Event()

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        assert self._login is not None
        await self._take_backlog()
        login = attrs.evolve(self._login, tls=self._tls.context())
        connection = await open_line(login, self._welcome, self._take)
        connection.lost.add_done_callback(self._stir_up)
        try:
            async with asyncio.TaskGroup() as group:
                # The answer to a subscription may come behind more messages than there is room for.
                joining = group.create_task(self._join(connection), name=f"mqtt join[{self.name}]")
                try:
                    while not connection.lost.done():
                        await self._stir.wait()
                        self._stir.clear()
                        await self._take_backlog()
                        connection.resume()
                finally:
                    joining.cancel()
            raise connection.lost.result()
        finally:
            self._connection = None
            await connection.close()

    async def _join(self, connection: Line) -> None:
        """Let the broker's subscriptions be those that are wanted."""
        try:
            missing = {topic: qos for topic, qos in self._wanted.items() if self._granted.get(topic) != qos}
            if missing:
                await connection.subscribe(missing, NEW_ONLY if self.link.ups else 0)
                self._granted |= missing
            for topic in self._granted.keys() - self._wanted.keys():
                await connection.unsubscribe(topic)
                del self._granted[topic]
        except OSError as exc:
            connection.fail(exc)
        else:
            self._link.up()

    async def _take_backlog(self) -> None:
        """Hand over what found no room, as there comes some."""
        while self._backlog:
            await self._inbox.put(*self._backlog[0])
            self._backlog.popleft()

    def _stir_up(self, _: object = None) -> None:
        self._stir.set()

    def _welcome(self, connection: Line) -> None:
        """Begin with a new connection."""
        self._connection = connection
        self._queues = (deque(), deque(), deque())  # bounded by what the broker sends unacknowledged
        if connection.session_present:
            self._stale |= self._held
        else:
            if self.link.ups and not self.config.clean_session:
                logger.warning(
                    "%s: the broker has forgotten the session; what was published meanwhile is lost",
                    self.name,
                )
            self._stale = {}
            self._granted.clear()
            self._expected.clear()
        self._held = {}

    def _take(self, first: int, body: bytes) -> None:
        """Take a packet."""
        kind = first & 0xF0
        if kind == wire.PUBLISH:
            self._take_publish(first, body)
        elif first & 0xFF == wire.PUBREL:
            mid = body[0] << 8 | body[1]
            self._expected.discard(mid)
            self._answer(wire.acknowledge(wire.PUBCOMP, mid))
        else:
            raise wire.Malformed(f"the broker sent a packet of kind {first:#x} to a receiver")

    def _take_publish(self, first: int, body: bytes) -> None:
        at = (body[0] << 8 | body[1]) + 2
        name = body[2:at]
        qos = first >> 1 & 3
        mid = 0
        if qos:
            if qos == 3:
                raise wire.Malformed("a message of QoS 3")
            mid = body[at] << 8 | body[at + 1]
            at += 2
        if at > len(body):
            raise wire.Malformed("a message without its topic")
        if first & wire.OVERSIZE:
            self._put_aside("size", mid, qos)
            return
        properties: dict[str, Any] | None = None
        if self._v5:
            if body[at]:
                properties, at = wire.properties_of(body, at)
            else:
                at += 1
        if len(body) - at > self.config.max_size:
            self._put_aside("size", mid, qos)
            return
        topic = self._known.get(name) or self._topic(name)
        if not topic:
            self._put_aside("topic", mid, qos)
            return
        payload = body[at:]
        meta: Meta = {"topic": topic, "qos": qos, "retain": bool(first & 1), "dup": bool(first & 8)}
        if qos:
            token = self._token(first, mid, qos, hash((name, payload)))
            if token is None:
                return
            meta["ack"] = token
        if properties:
            meta["properties"] = properties
        if self._backlog or not self._inbox.offer(payload, meta):
            self._find_room(payload, meta)

    def _token(self, first: int, mid: int, qos: int, content: int) -> Token | None:
        """Note that a message came; None if the program has had it already."""
        queue = self._queues[qos]
        if self._stale and first & 8:
            token = self._stale.get(mid)
            if token is not None and token.content == content and token.qos == qos:
                del self._stale[mid]
                token.queue = queue
                queue.append(token)
                self._held[mid] = token
                self._settle(queue)
                return None
        if qos == 2 and (mid in self._expected or mid in self._held):
            if mid in self._expected:
                self._answer(wire.acknowledge(wire.PUBREC, mid))
            return None
        token = self._held[mid] = Token(mid, qos, content, queue)
        queue.append(token)
        return token

    def _settle(self, queue: deque[Token]) -> None:
        """Acknowledge those at the head that are accepted [MQTT-4.6.0-2] [MQTT-4.6.0-3]."""
        connection = self._connection
        if connection is None or connection.lost.done() or not any(queue is each for each in self._queues):
            return
        while queue and queue[0].accepted:
            token = queue.popleft()
            self._held.pop(token.mid, None)
            if token.qos == 2:
                self._expected.add(token.mid)
            connection.write_soon(wire.acknowledge(wire.PUBACK if token.qos == 1 else wire.PUBREC, token.mid))

    def _answer(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write_soon(data)

    def _put_aside(self, why: str, mid: int, qos: int) -> None:
        """Count a message that the program will not get, and acknowledge it in its turn."""
        self._count_bad(why)
        if qos:
            queue = self._queues[qos]
            token = self._held[mid] = Token(mid, qos, 0, queue)
            token.accepted = True
            queue.append(token)
            self._settle(queue)

    def _find_room(self, payload: bytes, meta: Meta) -> None:
        """Apply the policy to a message of QoS 0; let all others wait, and read no further meanwhile."""
        inbox = self._inbox
        policy = self.config.overflow
        if meta["qos"] or policy == "block":
            self._backlog.append((payload, meta))
            self._link.up()  # whatever is still to be answered
            self._stir_up()
            if self._connection is not None:
                self._connection.pause()
            return
        while policy == "drop_oldest" and not self._backlog and len(inbox) and not inbox.peek()[1]["qos"]:
            inbox.drop("drop_oldest", inbox.take_nowait()[1])
            if inbox.offer(payload, meta):
                return
        inbox.drop("drop_newest", meta)

    def _topic(self, name: bytes) -> str | None:
        """Decode a topic; None if it is no text."""
        try:
            topic = name.decode()
        except UnicodeDecodeError:
            return None
        if len(self._known) >= KNOWN_TOPICS:
            self._known.clear()
        self._known[name] = topic
        return topic
