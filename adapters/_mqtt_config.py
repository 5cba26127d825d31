"""The options of the MQTT adapter."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Url
from nexus.adapters._inbox import Overflow
from nexus.adapters._mqtt_connection import Login
from nexus.adapters._mqtt_topics import check_filter, check_topic
from nexus.adapters._retry import Again
from nexus.adapters._tls import TlsConfig
from nexus.errors import ConfigError

__all__ = ["MqttConfig", "QoS", "Will"]

QoS = Literal[0, 1, 2]

TLS_PORT = 8883
HTTP_PORT, HTTPS_PORT = 80, 443
LONGEST_HEAD = 2 * 65535
"""Bytes of a packet that are not its payload: topic, identifier, properties."""

_PATH = re.compile(r"/[!-~]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")


@attrs.frozen(kw_only=True)
class Will(Config):
    """What the broker publishes when this client is gone without having said so."""

    topic: str = option(help="where to publish it")
    payload: bytes = option(b"", help="what to publish")
    qos: QoS = option(0, help="quality of service")
    retain: bool = option(False, help="whether the broker keeps it for later subscribers")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        check_topic(self.topic)
        if len(self.payload) > 65535:
            raise ConfigError(f"will.payload: found {len(self.payload)} bytes, allowed: up to 65535")


@attrs.frozen(kw_only=True)
class MqttConfig(TlsConfig):
    """Options of both halves. Port 8883 means `tls`.

    The halves are two clients of the broker. Give each its own `client_id`: a broker keeps one connection
    for an id, and lets the newer push the older out.
    """

    host: str = option("localhost", help="name or address of the broker")
    port: int = option(1883, low=1, high=65535, help="its port; 8883 means TLS")
    topic: str = option("mqtt", help="where a sender publishes, and a receiver subscribes if topics is empty")
    topics: tuple[str, ...] = option((), help="filters that a receiver subscribes to, in place of topic")
    qos: QoS = option(0, help="quality of service: 0 at most once, 1 at least once, 2 exactly once")
    retain: bool = option(False, help="whether the broker keeps the last frame for later subscribers")
    user: str | None = option(None, help="user name")
    password: str | None = option(None, secret=True, help="password")
    client_id: str | None = option(None, help="name of the client; unset: one that is made up")
    clean_session: bool = option(
        True, help="whether the broker forgets the client when it goes; false needs a client_id"
    )
    session_expiry: int = option(
        2**32 - 1, low=0, high=2**32 - 1, unit="s",
        help="how long it remembers the client, with MQTT 5; the greatest means always",
    )  # fmt: skip
    protocol: Literal["3.1.1", "5"] = option("3.1.1", help="version of MQTT")
    max_inflight: int = option(
        1000, low=1, high=60_000, help="frames sent and not acknowledged, or received and not accepted"
    )
    transport: Literal["tcp", "websockets"] = option("tcp", help="what carries the packets")
    websocket_path: str = option("/mqtt", help="where the broker's WebSockets are, behind host and port")
    websocket_headers: Mapping[str, str] = option(
        attrs.Factory(dict),
        secret=True,
        help="headers of HTTP that the connection begins with, such as a token",
    )
    keep_alive: int = option(
        60, low=0, high=65535, unit="s", help="how long the line may be quiet; 0 for always"
    )
    timeout: float = option(10.0, low=0.01, unit="s", help="how long the broker may take to answer")
    will: Will | None = option(None, help="what the broker publishes when the client is gone unexpectedly")
    maxsize: int = option(1000, low=1, help="frames that each half holds")
    max_size: int = option(2**20, low=1, high=2**28 - 1, unit="bytes", help="the largest frame")
    overflow: Overflow = option("block", help="what happens to frames that find no room")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    retry: Again = option("always", help="whether to connect again")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    def __attrs_post_init__(self) -> None:
        if self.port == TLS_PORT:
            object.__setattr__(self, "tls", True)
        super().__attrs_post_init__()
        for topic in self.filters:
            check_filter(topic)
        if not self.clean_session and self.client_id is None:
            raise ConfigError("client_id: found none, allowed: a name, as clean_session is false")
        if self.password is not None and self.user is None and self.protocol == "3.1.1":
            raise ConfigError("user: found none, allowed: a name, as there is a password")
        for name in ("client_id", "user"):
            value = getattr(self, name)
            if value is not None and ("\0" in value or len(value.encode("utf-8", "replace")) > 65535):
                raise ConfigError(f"{name}: found {value[:80]!a}, allowed: up to 65535 bytes without a NUL")
        for name in ("client_id", "host"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name}: found '', allowed: a name")
        if not _PATH.fullmatch(self.websocket_path):
            found = self.websocket_path[:80]
            raise ConfigError(f"websocket_path: found {found!a}, allowed: / and what follows it in a URL")
        for name, value in self.websocket_headers.items():
            if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(
                    "websocket_headers: found a secret that will not do, allowed: names and ASCII"
                )

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        secure = url.scheme.startswith("mqtts")
        websockets = url.scheme.endswith("+ws")
        usual = (HTTPS_PORT if secure else HTTP_PORT) if websockets else TLS_PORT if secure else None
        given: dict[str, Any] = {
            "host": url.host or None,
            "port": url.port or usual,
            "user": url.user,
            "password": url.password,
            "topic": url.path.removeprefix("/") or None,
            "tls": secure or None,
            "transport": "websockets" if websockets else None,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def filters(self) -> tuple[str, ...]:
        """What a receiver subscribes to; nothing if both `topics` and `topic` are empty."""
        return self.topics or ((self.topic,) if self.topic else ())

    @property
    def place(self) -> str:
        """The broker, without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = ("mqtts" if self.tls else "mqtt") + "+ws" * (self.transport == "websockets")
        return f"{scheme}://{host}:{self.port}"

    def login(self) -> Login:
        """Make what a connection begins with, but for the certificates."""
        will = self.will
        return Login(
            host=self.host,
            port=self.port,
            server_name=self.server_name or self.host,
            client_id=self.client_id or f"nexus-{secrets.token_hex(8)}",
            user=self.user,
            password=self.password,
            v5=self.protocol == "5",
            clean=self.clean_session,
            session_expiry=self.session_expiry,
            receive_maximum=self.max_inflight,
            keep_alive=self.keep_alive,
            timeout=self.timeout,
            will=None if will is None else (will.topic, will.payload, will.qos, will.retain),
            max_packet=self.max_size + LONGEST_HEAD,
            websocket_path=self.websocket_path if self.transport == "websockets" else None,
            websocket_headers=self.websocket_headers,
        )
