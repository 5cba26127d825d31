"""The broker between publishers and subscribers: XSUB for those who send, XPUB for those who receive."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

import attrs
import zmq

from nexus.adapters._zmq_config import ZmqConfig, is_exposed
from nexus.adapters._zmq_curve import Curve, Gate
from nexus.adapters._zmq_end import open_socket, set_options
from nexus.adapters._zmq_monitor import Monitor
from nexus.adapters._zmq_port import AnySocket
from nexus.adapters._zmq_socket import ZmqWire
from nexus.errors import BadCall, ConfigError

__all__ = ["BrokerCounts", "ZmqBroker"]

logger = logging.getLogger(__name__)


@attrs.frozen
class BrokerCounts:
    """What a broker has done since it was started."""

    messages: int
    """From publishers to subscribers."""
    size: int
    """Their bytes, topics included."""
    subscriptions: int
    """Prefixes subscribed to or given up."""
    publishers: int
    """Connected now."""
    subscribers: int
    """Connected now."""
    too_large: int
    """Messages over the size allowed, which were not passed on."""
    refused: int
    """Peers that did not get past the handshake."""

    def as_dict(self) -> dict[str, int]:
        """Return it as JSON-ready data."""
        return attrs.asdict(self)


class ZmqBroker:
    """Passes what publishers send on to who subscribes to it, and subscriptions back.

    Publishers connect to one port and subscribers to the other: the layout of `zmq://` and of heisskleber. A
    subscriber that does not keep up loses what is over its high-water mark, as in any XPUB, so that it does
    not hold up the others.

    Args:
        config: host, the two ports (0 for free ones), high-water marks, the size of messages, CURVE keys.
    """

    def __init__(self, config: ZmqConfig | None = None) -> None:
        self.config = config or ZmqConfig()
        self.publisher_address = ""
        """Where publishers connect, once it is started."""
        self.subscriber_address = ""
        """Where subscribers connect, once it is started."""
        self._context: zmq.Context[Any] | None = None
        self._sockets: list[AnySocket] = []
        self._monitors: list[Monitor] = []
        self._gate: Gate | None = None
        self._messages = self._size = self._subscriptions = 0
        self._too_large = self._refused = 0

    @property
    def counts(self) -> BrokerCounts:
        """What it has done."""
        publishers, subscribers = [monitor.peers for monitor in self._monitors] or [0, 0]
        return BrokerCounts(
            self._messages,
            self._size,
            self._subscriptions,
            publishers,
            subscribers,
            self._too_large,
            self._refused,
        )

    def open(self) -> None:
        """Bind both ports.

        Raises:
            OpenError: one cannot be bound; it says which.
            ConfigError: other machines could come in without CURVE.
        """
        if self._context is not None:
            raise BadCall("the broker is open")
        config = self.config
        curve = Curve.read(config.curve_secret, config.curve_server, binds=True)
        if curve is None and not config.insecure and is_exposed(config.protocol, config.host):
            raise ConfigError(
                f"insecure: {config.host} is open to other machines; allowed: a loopback address, CURVE "
                "keys, or insecure=True"
            )
        if config.curve_clients and curve is None:
            raise ConfigError("curve_clients: found some, allowed: with curve_secret")
        self._context = zmq.Context()
        try:
            if config.curve_clients:
                self._gate = Gate(self._context, config.curve_clients)
            # The direct pattern makes an address of host and port.
            ports = (config.publisher_port, config.subscriber_port)
            found = [
                self._bind(kind, config.with_options(pattern="pubsub", port=port), curve)
                for kind, port in zip((zmq.XSUB, zmq.XPUB), ports, strict=True)
            ]
            self.publisher_address, self.subscriber_address = found
        except BaseException:
            self._close_all()
            raise

    async def run(self) -> None:
        """Pass messages on until cancelled."""
        if self._context is None:
            self.open()
        publishers, subscribers = (
            ZmqWire(socket, max_message=self.config.max_message) for socket in self._sockets
        )
        try:
            async with asyncio.TaskGroup() as group:
                for monitor in self._monitors:
                    group.create_task(monitor.run(), name="zmq-broker.peers")
                if self._gate is not None:
                    group.create_task(self._gate.run(), name="zmq-broker.gate")
                group.create_task(self._down(publishers, subscribers), name="zmq-broker.messages")
                await self._up(subscribers, publishers)
        finally:
            publishers.close()
            subscribers.close()

    async def close(self) -> None:
        """Let go of both ports. May be called twice."""
        self._close_all()

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _bind(self, kind: int, config: ZmqConfig, curve: Curve | None) -> str:
        assert self._context is not None
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        set_options(socket, config)
        if curve is not None:
            curve.apply(socket)
        ZmqWire(
            socket, max_message=config.max_message
        ).close()  # which sets the bound before the socket is bound
        self._monitors.append(
            Monitor(socket, has_name=False, on_peers=lambda: None, on_failed=self._note_refused)
        )
        open_socket(socket, config.address("sender"), binds=True)
        address: str = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return address

    async def _down(self, publishers: ZmqWire, subscribers: ZmqWire) -> None:
        limit = self.config.max_message
        while True:
            for frames in await publishers.receive():
                size = sum(map(len, frames))
                if size + len(frames) > limit:  # the wire may have cut it short
                    self._too_large += 1
                    continue
                self._messages += 1
                self._size += size
                if not subscribers.send_nowait(frames):
                    await subscribers.send(frames)

    async def _up(self, subscribers: ZmqWire, publishers: ZmqWire) -> None:
        while True:
            for frames in await subscribers.receive():
                self._subscriptions += 1
                await publishers.send(frames)

    def _note_refused(self, kind: str, why: str) -> None:
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:
            logger.warning("the broker refused %d peers so far: %s", self._refused, why)

    def _close_all(self) -> None:
        for socket in self._sockets:
            socket.close(linger=0)
        for monitor in self._monitors:
            monitor.close()
        if self._gate is not None:
            self._gate.close()
        if self._context is not None:
            self._context.term()
        self._sockets, self._monitors, self._gate, self._context = [], [], None, None
