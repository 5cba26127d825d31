"""The options of ZMQ, and the addresses they mean."""

from __future__ import annotations

import ipaddress
from typing import Any, Final, Literal, TypeAlias

import attrs

from nexus.adapters._config import Config, option
from nexus.adapters._inbox import Overflow
from nexus.adapters._retry import Again
from nexus.adapters._url import Url
from nexus.errors import ConfigError

__all__ = ["MAX_TOPIC", "Half", "ZmqConfig", "is_exposed"]

MAX_TOPIC: Final = 4096
"""Bytes of a topic."""

Half: TypeAlias = Literal["sender", "receiver"]

_PATTERNS = {"zmq": "broker", "pub": "pubsub", "sub": "pubsub", "push": "pushpull", "pull": "pushpull"}


@attrs.frozen(kw_only=True)
class ZmqConfig(Config):
    """Options of both halves of the ZMQ adapter."""

    protocol: Literal["tcp", "ipc", "inproc"] = option("tcp", help="what carries it")
    host: str = option("127.0.0.1", help="host to connect to or to bind; a path for ipc, a name for inproc")
    pattern: Literal["broker", "pubsub", "pushpull"] = option(
        "broker", help="through an XSUB/XPUB broker, or directly as PUB/SUB or PUSH/PULL"
    )
    publisher_port: int = option(5555, low=0, high=65535, help="where senders connect to the broker")
    subscriber_port: int = option(5556, low=0, high=65535, help="where receivers connect to the broker")
    port: int | None = option(None, low=0, high=65535, help="port of a direct pattern; 0 binds a free one")
    bind: bool | None = option(
        None, help="whether this end binds in a direct pattern; None: PUB and PULL bind, SUB and PUSH connect"
    )
    topic: tuple[str, ...] = option(
        (), help="sender: topic of what is sent without one (zmq); receiver: prefixes to subscribe (all)"
    )
    topic_frame: bool = option(True, help="whether a message is [topic, data], or the data alone")
    packstyle: Literal["json", "text", "bytes", "csv", "msgpack"] = option(
        "json", help="packing where no packer or unpacker is given"
    )
    wait_for_subscriber: float | None = option(
        1.0, low=0, unit="s", help="how long data waits for a subscriber after a (re)connect; None: for ever"
    )
    maxsize: int = option(1000, low=1, help="frames that each half holds")
    max_size: int = option(2**20, low=1, unit="bytes", help="the largest frame; 4 times as much cuts a peer")
    overflow: Overflow = option("block", help="what happens to frames that find no room")
    send_hwm: int = option(1000, low=1, help="messages libzmq holds for each peer to send")
    receive_hwm: int = option(1000, low=1, help="messages libzmq holds from each peer")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    linger: float = option(1.0, low=0, unit="s", help="how long libzmq may go on after that")
    retry: Again = option("always", help="whether to connect again")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")
    connect_timeout: float = option(5.0, low=0, unit="s", help="how long TCP may take to connect; 0: its own")
    handshake_timeout: float = option(5.0, low=0.001, unit="s", help="how long a peer may take to greet")
    heartbeat_interval: float = option(5.0, low=0, unit="s", help="pause between heartbeats; 0: none")
    heartbeat_timeout: float = option(10.0, low=0.001, unit="s", help="silence after which a peer is gone")
    ipv6: bool = option(False, help="resolve names to IPv6 too; IPv6 addresses always work")
    insecure: bool = option(False, help="whether to bind beyond loopback without CURVE")
    curve_secret: str | None = option(
        None, secret=True, help="own secret key in Z85, or a certificate file that has it"
    )
    curve_server: str | None = option(None, help="public key of the bound end, or a certificate file")
    curve_clients: tuple[str, ...] = option(
        (), help="bound end: public keys, files of them or folders of certificates that may connect (all)"
    )

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        kind = url.scheme.rpartition("+")[2]
        found: dict[str, Any] = {"pattern": _PATTERNS.get(kind, "broker")}
        if url.user is not None or url.password is not None:
            raise ConfigError(f"{url.place}: ZMQ has no users; CURVE keys say who may connect")
        if url.options.get("protocol") == ("ipc",):
            return found | {"host": url.host + url.path}
        if url.port is not None and found["pattern"] == "broker":
            raise ConfigError(
                f"{url.place}: found port {url.port}, allowed: publisher_port and subscriber_port as options"
            )
        found |= {"host": url.host} if url.host else {}
        found |= {"port": url.port} if url.port is not None else {}
        if url.path not in ("", "/"):
            found["topic"] = (url.path[1:],)
        return found

    def binds(self, half: Half) -> bool:
        """Say whether that half binds."""
        if self.pattern == "broker":
            if self.bind:
                raise ConfigError("bind: found True, allowed: False; both halves connect to a broker")
            return False
        if self.bind is not None:
            return self.bind
        return (half == "sender") is (self.pattern == "pubsub")

    def address(self, half: Half) -> str:
        """Give the endpoint as libzmq wants it."""
        port = self.port
        if self.pattern == "broker":
            port = self.publisher_port if half == "sender" else self.subscriber_port
        elif port is None and self.protocol == "tcp":
            raise ConfigError(f"port: found None, allowed: a number, for {self.pattern} has no broker")
        host = f"[{self.host}]" if self.is_ipv6_address and self.protocol == "tcp" else self.host
        return f"{self.protocol}://{host}" + ("" if port is None else f":{port}")

    def name(self, half: Half) -> str:
        """Say what is connected to what."""
        kinds = {"broker": ("pub", "sub"), "pubsub": ("pub", "sub"), "pushpull": ("push", "pull")}
        kind = kinds[self.pattern][half == "receiver"]
        return f"zmq+{kind} {'at' if self.binds(half) else 'to'} {self.address(half)}"

    @property
    def max_message(self) -> int:
        """Bytes of a topic and a frame together, with one for each."""
        return self.max_size + MAX_TOPIC + 2

    @property
    def is_ipv6_address(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host


def is_exposed(protocol: str, host: str) -> bool:
    """Say whether other machines may reach what is bound there; a name is taken for the worst."""
    if protocol != "tcp" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True
