"""The half of the MQTT adapter that publishes."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import attrs

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._backlog import OutItem, SendOverflow
from nexus.adapters._base import Sender
from nexus.adapters._mqtt_config import MqttConfig
from nexus.adapters._mqtt_connection import Line, Login
from nexus.adapters._mqtt_topics import check_topic
from nexus.adapters._mqtt_websockets import open_line
from nexus.adapters._tls import TlsFiles
from nexus.adapters.packing import Packer
from nexus.errors import ConfigError

__all__ = ["MqttSender"]

T = TypeVar("T")

BATCH = 512
BATCH_BYTES = 256 * 1024
TWOS = 20
"""Frames of QoS 2 on their way to a broker of MQTT 3.1.1, which cannot say how many it takes.

mosquitto takes as many unless told otherwise, and hangs up above that.
"""
REFUSED = 0x80
"""Reason codes from here on are errors."""


class MqttSender(Sender[T]):
    """Publishes to a broker, many frames at once.

    ``send(data, topic=..., qos=..., retain=...)``: what is left out is as the config says. A frame of QoS 0
    is done when the system has it; one of QoS 1 or 2 when the broker has acknowledged it, and until then it
    is sent again after every reconnect.

    Args:
        config: the broker, and the bounds; its `topic` may be empty, then every `send` names one.
        packer: turns data into a frame; JSON unless told otherwise.
    """

    def __init__(self, config: MqttConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or MqttConfig()
        overflow: SendOverflow = self.config.overflow
        super().__init__(f"{self.config.place}/{self.config.topic}", self.config, packer, overflow=overflow)
        self._v5 = self.config.protocol == "5"
        self._usual = self._options({}) if self.config.topic else {}
        self._tls = TlsFiles(self.config, server=False)
        self._login: Login | None = None
        self._flight: dict[int, OutItem] = {}
        """Sent and not acknowledged, by identifier, in the order they were sent."""
        self._twos = 0
        """How many of them are of QoS 2."""
        self._released: set[int] = set()
        """Identifiers of QoS 2 that the broker has received and that wait for its last word."""
        self._last_mid = 0
        self._room: asyncio.Future[None] | None = None
        self._window = self._two_window = self.config.max_inflight
        self._connection: Line | None = None

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        if not options and self._usual:
            return self._usual
        return self._options(dict(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        config = self.config
        topic = check_topic(options.pop("topic", config.topic))
        qos = options.pop("qos", config.qos)
        retain = options.pop("retain", config.retain)
        if isinstance(qos, bool) or qos not in (0, 1, 2):
            raise ConfigError(f"qos: found {qos!a}, allowed: 0, 1 or 2")
        if not isinstance(retain, bool):
            raise ConfigError(f"retain: found {retain!a}, allowed: True or False")
        super()._check(options)
        return {"topic": topic, "qos": qos, "first": wire.PUBLISH | qos << 1 | retain}

    async def _open(self) -> None:
        self._login = self.config.login()
        if self._login.websocket_path is not None:
            # paho cannot go on where another of its clients ended: what the broker has begun it must forget.
            self._login = attrs.evolve(self._login, clean=True)
        self._tls.context()

    async def _run(self) -> None:
        try:
            await self._link.keep(self._session)
        finally:
            self._recall()

    async def _session(self) -> None:
        assert self._login is not None
        login = attrs.evolve(self._login, tls=self._tls.context())
        connection = await open_line(login, self._welcome, self._take)
        try:
            # While one half is on its way the other fills, and goes in one piece.
            half = (self.config.maxsize + 1) // 2
            self._window = min(self.config.max_inflight, connection.receive_maximum, half)
            self._two_window = self._window if self._v5 else min(self._window, TWOS)
            if connection.session_present:
                self._send_again(connection)
            else:
                self._recall()
            self._link.up()
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump(connection), name=f"mqtt pump[{self.name}]")
                try:
                    await asyncio.wait([connection.lost])
                finally:
                    pump.cancel()
            raise connection.lost.result()
        finally:
            self._connection = None
            await connection.close()

    async def _pump(self, connection: Line) -> None:
        """Send what is in the backlog for as long as the connection stands."""
        backlog, flight, v5 = self._backlog, self._flight, self._v5
        while not connection.lost.done():
            room = self._window - len(flight)
            if room <= 0:
                await self._wait_for_room()
                continue
            await backlog.wait()
            unconfirmed: list[OutItem] = []
            parts: list[bytes] = []
            is_full = False
            items = backlog.take(min(room, BATCH), BATCH_BYTES)
            for number, item in enumerate(items):
                options = item.options
                if options["qos"]:
                    if options["qos"] > connection.maximum_qos:
                        backlog.reject(item, "qos")
                        continue
                    if options["qos"] == 2:
                        if is_full := self._twos >= self._two_window:
                            backlog.put_back(items[number:])
                            break
                        self._twos += 1
                    mid = self._next_mid()
                    flight[mid] = item
                else:
                    mid = 0
                    unconfirmed.append(item)
                part = wire.publish(options["first"], options["topic"], mid, item.payload, v5=v5)
                if len(part) > connection.maximum_packet:
                    backlog.reject(self._landed(mid) if mid else unconfirmed.pop(), "size")
                    continue
                parts.append(part)
            written = False
            try:
                if parts:
                    connection.write(b"".join(parts))
                    written = await connection.drained()
            finally:
                for item in unconfirmed:
                    if written:
                        backlog.done(item)
                    else:
                        # It may have gone in part; QoS 0 says at most once.
                        backlog.reject(item, "disconnected")
            if is_full and not connection.lost.done():
                await self._wait_for_room()

    def _landed(self, mid: int) -> OutItem:
        """Take a frame out of those on their way."""
        item = self._flight.pop(mid)
        self._twos -= item.options["qos"] == 2
        return item

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _next_mid(self) -> int:
        mid = self._last_mid
        while True:
            mid = mid % 65535 + 1
            if mid not in self._flight:
                self._last_mid = mid
                return mid

    def _send_again(self, connection: Line) -> None:
        """Go on where the last connection ended [MQTT-4.4.0-1]."""
        parts = [
            wire.acknowledge(wire.PUBREL, mid)
            if mid in self._released
            else wire.publish(
                item.options["first"] | 8, item.options["topic"], mid, item.payload, v5=self._v5
            )
            for mid, item in self._flight.items()
        ]
        connection.write(b"".join(parts))

    def _recall(self) -> None:
        """Put what was not acknowledged back into the backlog, in order."""
        self._backlog.put_back(list(self._flight.values()))
        self._flight.clear()
        self._twos = 0
        self._released.clear()

    def _welcome(self, connection: Line) -> None:
        """Begin with a new connection."""
        self._connection = connection

    def _take(self, first: int, body: bytes) -> None:
        """Take an acknowledgement."""
        kind = first & 0xF0
        mid = body[0] << 8 | body[1]
        if kind == wire.PUBREC and wire.code_of(body) < REFUSED:
            if mid in self._flight:
                self._released.add(mid)
            if self._connection is not None:
                self._connection.write_soon(wire.acknowledge(wire.PUBREL, mid))
            return
        if kind not in (wire.PUBACK, wire.PUBREC, wire.PUBCOMP):
            raise wire.Malformed(f"the broker sent a packet of kind {first:#x} to a sender")
        if mid not in self._flight:
            return
        item = self._landed(mid)
        if kind == wire.PUBCOMP:
            self._released.discard(mid)
            self._backlog.done(item)
        elif wire.code_of(body) >= REFUSED:
            self._backlog.reject(item, "refused")
        else:
            self._backlog.done(item)
        room = self._room
        few = len(self._flight) <= self._window // 2 and self._twos <= self._two_window // 2
        if few and room is not None and not room.done():
            room.set_result(None)
