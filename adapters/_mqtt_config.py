"""The options of the MQTT adapter."""

from __future__ import annotations

import secrets
import ssl as tls
from typing import Any, Literal

import attrs

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Url
from nexus.adapters._inbox import Overflow
from nexus.adapters._mqtt_connection import Login
from nexus.adapters._mqtt_topics import check_filter, check_topic
from nexus.adapters._retry import Again
from nexus.errors import ConfigError, OpenError

__all__ = ["MqttConfig", "QoS", "Will"]

QoS = Literal[0, 1, 2]

TLS_PORT = 8883
LONGEST_HEAD = 2 * 65535
"""Bytes of a packet that are not its payload: topic, identifier, properties."""


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
class MqttConfig(Config):
    """Options of both halves.

    The halves are two clients of the broker. Give each its own `client_id`: a broker keeps one connection
    for an id, and lets the newer push the older out.
    """

    host: str = option("localhost", help="name or address of the broker")
    port: int = option(1883, low=1, high=65535, help="its port; 8883 means TLS")
    topic: str = option("mqtt", help="where a sender publishes, and a receiver subscribes if topics is empty")
    topics: tuple[str, ...] = option((), help="filters that a receiver subscribes to, in place of topic")
    qos: QoS = option(0, help="quality of service: 0 at most once, 1 at least once, 2 exactly once")
    retain: bool = option(False, help="whether the broker keeps the last frame for later subscribers")
    user: str = option("", help="user name; empty for none")
    password: str = option("", secret=True, help="password; empty for none")
    client_id: str = option("", help="name of the client; empty for one that is made up")
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
    ssl: bool = option(False, help="whether to use TLS")
    ca_file: str = option("", help="certificates to trust; empty for those of the system")
    cert_file: str = option("", help="certificate of the client")
    key_file: str = option("", help="its key, if that is in a file of its own")
    verify: bool = option(True, help="whether to check the broker's certificate and name")
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
        super().__attrs_post_init__()
        for topic in self.filters:
            check_filter(topic)
        if not self.clean_session and not self.client_id:
            raise ConfigError("client_id: found '', allowed: a name, as clean_session is false")
        if self.password and not self.user and self.protocol == "3.1.1":
            raise ConfigError("user: found '', allowed: a name, as there is a password")
        if self.key_file and not self.cert_file:
            raise ConfigError("cert_file: found '', allowed: a file, as there is a key_file")
        for name in ("client_id", "user"):
            value = getattr(self, name)
            if "\0" in value or len(value.encode("utf-8", "replace")) > 65535:
                raise ConfigError(f"{name}: found {value[:80]!a}, allowed: up to 65535 bytes without a NUL")
        if not self.host:
            raise ConfigError("host: found '', allowed: a name or an address")

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        tls = url.scheme == "mqtts"
        given: dict[str, Any] = {
            "host": url.host or None,
            "port": url.port or (TLS_PORT if tls else None),
            "user": url.user,
            "password": url.password,
            "topic": url.path.removeprefix("/") or None,
            "ssl": tls or None,
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
        return f"{'mqtts' if self.uses_tls else 'mqtt'}://{host}:{self.port}"

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.ssl or self.port == TLS_PORT

    def login(self) -> Login:
        """Make what a connection begins with; reads the certificates.

        Raises:
            OpenError: they cannot be read.
        """
        will = None
        flags = 0
        if self.will is not None:
            flags = 0x04 | self.will.qos << 3 | 0x20 * self.will.retain
            will = (
                b"\0" * (self.protocol == "5") + check_topic(self.will.topic) + wire.text(self.will.payload)
            )
        return Login(
            host=self.host,
            port=self.port,
            tls=self._context() if self.uses_tls else None,
            client_id=self.client_id or f"nexus-{secrets.token_hex(8)}",
            user=self.user or None,
            password=self.password or None,
            v5=self.protocol == "5",
            clean=self.clean_session,
            session_expiry=self.session_expiry,
            receive_maximum=self.max_inflight,
            keep_alive=self.keep_alive,
            timeout=self.timeout,
            will=will,
            will_flags=flags,
            max_packet=self.max_size + LONGEST_HEAD,
        )

    def _context(self) -> tls.SSLContext:
        at = self.ca_file
        try:
            context = tls.create_default_context(cafile=self.ca_file or None)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = tls.CERT_NONE
            if self.cert_file:
                at = self.cert_file
                context.load_cert_chain(self.cert_file, self.key_file or None, password=_no_password)
        except OSError as error:
            raise OpenError(error.errno, f"cannot use the certificate: {error.strerror}", at) from error
        return context


def _no_password() -> bytes:
    """Stand in for the terminal, which would be asked for the password of an encrypted key."""
    return b""
