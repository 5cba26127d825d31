"""TLS for every transport over TCP: 1.3 unless told otherwise, certificate and host name always checked."""

from __future__ import annotations

import logging
import os
import ssl
from typing import Literal

import attrs

from nexus.adapters._config import Config, WrongOption, option
from nexus.errors import ConfigError, OpenError

__all__ = ["TlsConfig", "TlsFiles", "client_context", "server_context"]

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class TlsConfig(Config):
    """The options of TLS, which the configs of transports over TCP inherit."""

    tls: bool = option(False, help="speak TLS")
    tls_version: Literal["1.3", "1.2"] = option("1.3", help="the oldest version allowed")
    ca_file: str | None = option(
        None, help="PEM file of the authorities that sign the peer's certificate; unset: the system's"
    )
    cert_file: str | None = option(None, help="PEM file of the own certificate and those between")
    key_file: str | None = option(None, help="PEM file of the own key; unset: it is in cert_file")
    key_password: str | None = option(None, secret=True, help="what the own key is locked with")
    crl_file: str | None = option(None, help="PEM file of revoked certificates; unset: none is known")
    server_name: str | None = option(
        None, help="the name that the server's certificate must hold; unset: the host"
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for name in ("ca_file", "cert_file", "key_file", "crl_file"):
            if getattr(self, name) is not None and not self.tls:
                raise WrongOption(name, type(self).__name__, "is given and tls is off, allowed: both or none")
        if self.key_file is not None and self.cert_file is None:
            raise WrongOption(
                "cert_file", type(self).__name__, "found none, allowed: a file, as there is key_file"
            )

    @property
    def asks_for_certificates(self) -> bool:
        """Whether it, as a server, takes only clients whose certificate an authority has signed."""
        return self.tls and self.ca_file is not None


def client_context(config: TlsConfig) -> ssl.SSLContext:
    """Make the context of a client: the server's certificate and name are checked.

    Reads files, and blocks while it does.

    Raises:
        OpenError: a file cannot be read, or is not what it should be.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, config)
    # The name must be among the alternative names: a common name is free text.
    context.hostname_checks_common_name = False
    if config.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Make the context of a server; with `ca_file`, clients without a good certificate are refused.

    Raises:
        ConfigError: there is no certificate.
        OpenError: a file cannot be read, or is not what it should be.
    """
    if config.cert_file is None:
        raise ConfigError(
            "cert_file: found none, allowed: a PEM file, for whoever listens with TLS needs one"
        )
    context = _context(ssl.PROTOCOL_TLS_SERVER, config)
    if config.asks_for_certificates:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsFiles:
    """A context that follows its files: certificates may be renewed while it is in use.

    Args:
        server: whether the own side listens.
    """

    def __init__(self, config: TlsConfig, *, server: bool) -> None:
        self._config = config
        self._make = server_context if server else client_context
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()

    def context(self) -> ssl.SSLContext | None:
        """Return the context for the next connection; None without TLS.

        Raises:
            ConfigError, OpenError: see `client_context`; only the first time, for later the old one is kept.
        """
        if not self._config.tls:
            return None
        now = self._stamp()
        if self._context is None:
            self._context = self._make(self._config)
        elif now != self._seen:
            try:
                self._context = self._make(self._config)
            except OSError as exc:
                logger.warning("the old certificates stay in use: %s", exc)
        self._seen = now
        return self._context

    def _stamp(self) -> tuple[object, ...]:
        return tuple(_stamp_of(file) for _, file in _files(self._config))


def _context(side: int, config: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    oldest = ssl.TLSVersion.TLSv1_2 if config.tls_version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = oldest
    # What is weaker than 112 bits, SHA-1 signatures among it, is refused whatever the system allows.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2")
    for option_name, file in _files(config):
        try:
            if option_name == "cert_file":
                context.load_cert_chain(file, config.key_file, config.key_password or "")
            elif option_name != "key_file":
                context.load_verify_locations(file)
        except OSError as exc:
            raise _unreadable(option_name, file, exc) from exc
    if config.crl_file is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _files(config: TlsConfig) -> list[tuple[str, str]]:
    names = ("ca_file", "crl_file", "cert_file", "key_file")
    return [(name, file) for name in names if (file := getattr(config, name)) is not None]


def _unreadable(option_name: str, file: str, exc: OSError) -> OpenError:
    if option_name == "cert_file":
        option_name, file = "cert_file and key_file", f"{file} and its key"
    why = exc.strerror if not isinstance(exc, ssl.SSLError) else exc.reason or "not PEM, or another key"
    return OpenError(exc.errno, f"{option_name}: cannot use {file}: {why}")


def _stamp_of(file: str) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
