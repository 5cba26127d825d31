"""CURVE: who an end of a ZMQ connection is, and whom a bound end lets in.

libzmq asks one socket of its context, at every handshake, whether a key may come in (RFC 27, ZAP). Where
there is a list of clients, that question is answered here; nobody else can connect in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import zmq
import zmq.auth
from zmq.auth.base import Authenticator
from zmq.utils import z85

from nexus.adapters._zmq_port import AnySocket
from nexus.adapters._zmq_socket import ZmqWire
from nexus.errors import ConfigError

__all__ = ["ZAP_DOMAIN", "Curve", "Gate"]

_KEY_LENGTH = 40
ZAP_DOMAIN = b"nexus"
"""What a socket is called where its context has a gate."""


@attrs.frozen
class Curve:
    """The keys of one end; all of them in Z85."""

    secret: bytes = attrs.field(repr=False)
    server: bytes | None
    """The public key of the far end, where that is bound; None for the bound end itself."""

    @classmethod
    def read(cls, secret: str | None, server: str | None, *, binds: bool) -> Curve | None:
        """Read the keys of the options; None if there are none. Blocks while it reads files.

        Raises:
            ConfigError: a key is none, or is not for this end.
        """
        if secret is None and server is None:
            return None
        if binds:
            if secret is None or server is not None:
                raise ConfigError(
                    "curve_secret: missing or beside curve_server, allowed: curve_secret alone at a bound end"
                )
            return cls(_key("curve_secret", secret, 1), None)
        if server is None:
            raise ConfigError("curve_server: found None, allowed: the public key of the bound end")
        own = zmq.curve_keypair()[1] if secret is None else _key("curve_secret", secret, 1)
        return cls(own, _key("curve_server", server, 0))

    @property
    def public(self) -> bytes:
        """The key that the other end knows this one by."""
        return zmq.curve_public(self.secret)

    def apply(self, socket: AnySocket) -> None:
        """Set the keys on a socket that is not connected or bound yet."""
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        if self.server is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        else:
            socket.setsockopt(zmq.CURVE_SERVER, 1)


class Gate:
    """Lets the clients of a list in, and nobody else, for all sockets of one context.

    Args:
        context: the sockets' own; it can have one gate.
        clients: public keys in Z85, files with one on each line or certificates, folders of certificates.

    Raises:
        ConfigError: one of them is no such thing.
    """

    def __init__(self, context: zmq.Context[Any], clients: Iterable[str]) -> None:
        self._clients = tuple(clients)
        self.keys = keys_of(self._clients)
        self.refused = 0
        """How many keys that are not on the list have asked."""
        self._authenticator = Authenticator(context)
        self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), credentials_provider=self)
        self._authenticator.start()  # before anything is bound, or libzmq lets everybody in

    def callback(self, domain: str, key: bytes) -> bool:
        """Say whether a key may come in."""
        allowed = key in self.keys
        self.refused += not allowed
        return allowed

    def reload(self) -> bool:
        """Read the list again; say whether somebody is no longer on it. Blocks while it reads files."""
        before, self.keys = self.keys, keys_of(self._clients)
        return not before <= self.keys

    async def run(self) -> None:
        """Answer libzmq until cancelled or closed, whichever of the two is noticed first."""
        socket = self._authenticator.zap_socket
        wire = ZmqWire(socket)
        try:
            while True:
                for message in await wire.receive():
                    await self._authenticator.handle_zap_message(message)
        except ConnectionAbortedError:
            if not socket.closed:
                raise
        finally:
            wire.close()

    def close(self) -> None:
        """Close the socket that libzmq asks; after those it answers for."""
        self._authenticator.stop()


def keys_of(clients: Iterable[str]) -> frozenset[bytes]:
    """Read a list of clients.

    Raises:
        ConfigError: one of its parts is neither a key nor a file or folder with some.
    """
    found: set[bytes] = set()
    for client in clients:
        path = Path(client)
        if _is_key(client):
            found.add(client.encode())
        elif _is_there(path.is_dir):
            found.update(zmq.auth.load_certificates(path))
        elif _is_there(path.is_file):
            found.update(_keys_in(path))
        else:
            raise ConfigError(
                f"curve_clients: found {client!r}, allowed: a key in Z85, a file or a folder that is there"
            )
    return frozenset(found)


def _keys_in(path: Path) -> Iterable[bytes]:
    text = path.read_text(encoding="utf-8")
    if "curve" in text.partition("public-key")[0]:
        yield _certificate("curve_clients", path)[0]
        return
    for number, line in enumerate(text.splitlines(), 1):
        key = line.partition(" #")[0].strip()
        if key and not key.startswith("# "):
            if not _is_key(key):
                raise ConfigError(f"curve_clients: {path}, line {number}, is no key in Z85")
            yield key.encode()


def _key(option: str, value: str, which: int) -> bytes:
    """Read a key, or the first (public) or second (secret) one of a certificate file."""
    if _is_key(value):
        return value.encode()
    path = Path(value)
    if not _is_there(path.is_file):
        raise ConfigError(f"{option}: found neither a key of {_KEY_LENGTH} characters in Z85 nor a file")
    key = _certificate(option, path)[which]
    if key is None:
        raise ConfigError(f"{option}: {path} has no secret key")
    return key


def _is_there(ask: Callable[[], bool]) -> bool:
    """Ask for a file that may be no path at all; the error would show what may be a secret."""
    try:
        return ask()
    except (OSError, ValueError):
        return False


def _certificate(option: str, path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{option}: {path} is not to be read as a certificate") from exc


def _is_key(text: str) -> bool:
    if len(text) != _KEY_LENGTH:
        return False
    try:
        return len(z85.decode(text.encode())) == 32
    except Exception:  # struct.error or KeyError: not a digit of Z85
        return False
