"""One end of a ZMQ connection: its socket, who it is, and who is at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from typing import Any

import zmq

from nexus.adapters._link import Link
from nexus.adapters._retry import Retry, Waits
from nexus.adapters._zmq_config import Half, ZmqConfig, is_exposed
from nexus.adapters._zmq_curve import ZAP_DOMAIN, Curve, Gate
from nexus.adapters._zmq_monitor import Monitor
from nexus.adapters._zmq_port import AnySocket
from nexus.adapters._zmq_socket import ZmqWire
from nexus.errors import ConfigError, LinkDown, OpenError

__all__ = ["End", "close_context", "open_socket"]

logger = logging.getLogger(__name__)


class End:
    """An open socket, connected or bound as the config says.

    libzmq connects again by itself; this end says through the link how that goes, and connects anew where
    libzmq has given up. It has a context of its own, so that nothing else waits for its linger or its gate;
    only ``inproc`` shares ``zmq.Context.instance()``.

    Args:
        config: what to open.
        half: which of the two ends.
        kind: the type of the socket.
        link: told how the connection stands.
        prepare: set more on the socket before it is connected or bound.

    Raises:
        ConfigError: an option makes no sense here.
        OpenError: the address cannot be bound.
    """

    def __init__(self, config: ZmqConfig, half: Half, kind: int, link: Link) -> None:
        self.config = config
        self.binds = config.binds(half)
        self.address = config.address(half)
        self.refused: dict[str, int] = {}
        """Peers that did not get past the handshake, by reason; of a bound end."""
        curve = Curve.read(config.curve_secret, config.curve_server, binds=self.binds)
        if self.binds and curve is None and not config.insecure and is_exposed(config.protocol, config.host):
            raise ConfigError(
                f"insecure: {self.address} is open to other machines; allowed: a loopback address, "
                "CURVE keys, or insecure=True"
            )
        if config.curve_clients and not (self.binds and curve):
            raise ConfigError("curve_clients: found some, allowed: at a bound end with curve_secret alone")
        self._link = link
        self._failures = 0
        self._waits = Waits(Retry(base=min(0.02, config.retry_cap), cap=config.retry_cap))
        self._timer: asyncio.TimerHandle | None = None
        self._is_shared = config.protocol == "inproc"
        self.context: zmq.Context[Any] = zmq.Context.instance() if self._is_shared else zmq.Context()
        self.gate: Gate | None = None
        self.monitor: Monitor | None = None
        self.socket: AnySocket = self.context.socket(kind)
        try:
            if config.curve_clients:
                self.gate = Gate(self.context, config.curve_clients)
            set_options(self.socket, config)
            if curve is not None:
                curve.apply(self.socket)
            self.wire = ZmqWire(self.socket, max_message=config.max_message)
            has_name = config.protocol == "tcp" and not config.host.replace(".", "").isdigit()
            self.monitor = Monitor(
                self.socket, has_name=has_name, on_peers=self._on_peers, on_failed=self._on_failed
            )
        except BaseException:
            self._close_all(0)
            if not self._is_shared:
                self.context.term()
            raise

    def open(self) -> None:
        """Connect or bind.

        Raises:
            OpenError: it cannot be done on this machine.
        """
        self._link.connecting()
        open_socket(self.socket, self.address, binds=self.binds)
        if self.binds:
            self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if self._is_shared:
            self._link.up()  # libzmq has no events about inproc

    async def run(self) -> None:
        """Follow who comes and goes, and let in who may; until cancelled.

        Raises:
            LinkDown: the connection has ended, and is not to be tried again.
        """
        assert self.monitor is not None
        if self.gate is None:
            await self.monitor.run()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self.gate.run(), name=f"zmq[{self.address}].gate")
            await self.monitor.run()

    async def close(self, linger: float) -> None:
        """Close it; wait until libzmq has sent what it holds, at most that many seconds.

        Cancelled, libzmq goes on for the rest of the time by itself.
        """
        self._close_all(linger)
        if not self._is_shared:
            await close_context(self.context, linger)

    def cut(self) -> None:
        """Close it at once, with all that libzmq holds."""
        self._close_all(0)
        if not self._is_shared:
            self.context.term()

    def _close_all(self, linger: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if hasattr(self, "wire"):
            self.wire.close()
        self.socket.close(linger=round(linger * 1000))
        if self.monitor is not None:
            self.monitor.close()
        if self.gate is not None:
            self.gate.close()

    def _on_peers(self) -> None:
        assert self.monitor is not None
        if self.monitor.peers:
            self._waits.reset()
            self._link.up()
        elif self.binds:
            self._link.down("the last peer left")
        else:
            self._lost("the peer closed the connection")

    def _on_failed(self, kind: str, why: str) -> None:
        if not self.binds:
            self._lost(why)
            return
        count = self.refused[kind] = self.refused.get(kind, 0) + 1
        if count & (count - 1) == 0:
            logger.warning("%s refused %d peers so far: %s", self.address, count, why)

    def _lost(self, why: str) -> None:
        self._link.down(why)
        self._failures += 1
        again = self.config.retry
        if again == "never" or (again == "once" and self._failures > 1):
            raise LinkDown(f"{self.address}: {why}")
        self._link.connecting()
        if self._timer is None:
            # libzmq does not connect again where the peer broke the protocol.
            wait = self.config.retry_cap / 2 + self._waits.next()
            self._timer = asyncio.get_running_loop().call_later(wait, self._connect_anew)

    def _connect_anew(self) -> None:
        self._timer = None
        assert self.monitor is not None
        if not self.monitor.is_trying:
            with contextlib.suppress(zmq.ZMQError):  # that connection is gone already
                self.socket.disconnect(self.address)
            with contextlib.suppress(zmq.ZMQError):
                self.socket.connect(self.address)


def set_options(socket: AnySocket, config: ZmqConfig) -> None:
    """Set what the config says on a socket that is not connected or bound yet."""

    def milliseconds(seconds: float) -> int:
        return round(min(seconds, 2e6) * 1000)

    cap = max(1, milliseconds(config.retry_cap))
    options = {
        zmq.SNDHWM: config.send_hwm,
        zmq.RCVHWM: config.receive_hwm,
        zmq.LINGER: 0,
        zmq.IPV6: int(config.ipv6 or config.is_ipv6_address),
        zmq.RECONNECT_IVL: min(20, cap),
        zmq.RECONNECT_IVL_MAX: cap,
        zmq.CONNECT_TIMEOUT: milliseconds(config.connect_timeout),
        zmq.HANDSHAKE_IVL: max(1, milliseconds(config.handshake_timeout)),
    }
    if config.retry == "never":
        options[zmq.RECONNECT_IVL] = -1
    if config.heartbeat_interval:
        options[zmq.HEARTBEAT_IVL] = max(1, milliseconds(config.heartbeat_interval))
        options[zmq.HEARTBEAT_TIMEOUT] = max(1, milliseconds(config.heartbeat_timeout))
    for name, value in options.items():
        socket.setsockopt(name, value)
    # With a domain libzmq refuses ZMTP 1 and 2, which know no handshake: any garbage passes for ZMTP 1.
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)


def open_socket(socket: AnySocket, address: str, *, binds: bool) -> None:
    """Connect or bind a socket.

    Raises:
        OpenError: it cannot be done on this machine.
        ConfigError: libzmq does not understand the address.
    """
    try:
        if binds:
            socket.bind(address)
        else:
            socket.connect(address)
    except zmq.ZMQError as exc:
        number = exc.errno or 0
        why = os.strerror(number) if 0 < number < 1000 else exc.strerror  # with libzmq's own above
        verb = "bind" if binds else "connect to"
        if exc.errno in (errno.EINVAL, zmq.EPROTONOSUPPORT, zmq.ENOCOMPATPROTO):
            raise ConfigError(f"host: libzmq cannot {verb} {address!r}: {why}") from exc
        raise OpenError(number, f"cannot {verb} {address}: {why}") from exc


async def close_context(context: zmq.Context[Any], linger: float) -> None:
    """Wait until the sockets of a context, all of them closed, have sent what they hold.

    Cancelled, that goes on on its own for as long as they linger.
    """
    if not linger:
        context.term()
        return
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    def term() -> None:
        context.term()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=term, name="zmq.linger", daemon=True).start()
    await done
