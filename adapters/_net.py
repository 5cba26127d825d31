"""Addresses and sockets of this machine: who may reach them, and what they are called."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs

from nexus.errors import ConfigError, OpenError

__all__ = [
    "Address",
    "bind_all",
    "is_loopback",
    "is_multicast",
    "no_name_raises_os_error",
    "place_of",
    "refuse_exposed",
    "resolve",
]

SocketAddress: TypeAlias = "tuple[Any, ...]"


@attrs.frozen
class Address:
    """What a host and a port have been resolved to."""

    family: socket.AddressFamily
    where: SocketAddress
    """As the socket module wants it."""


async def resolve(host: str, port: int, kind: socket.SocketKind) -> list[Address]:
    """Look a host up; an empty one stands for every interface.

    Raises:
        OSError: there is no such host, or nobody who knows.
    """
    with no_name_raises_os_error():
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=kind, flags=socket.AI_PASSIVE
        )
    return list(dict.fromkeys(Address(family, where) for family, _, _, _, where in found))


@contextlib.contextmanager
def no_name_raises_os_error() -> Iterator[None]:
    """Make an OSError of what the look-up of a text raises that can be no host's name."""
    try:
        yield
    except UnicodeError as exc:
        raise OSError(socket.EAI_NONAME, f"it can be no host's name: {exc}") from exc


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an IP address."""
    return _ip(host).is_loopback


def is_multicast(host: str) -> bool:
    """Say whether a host is the IP address of a group; a name is none."""
    try:
        return _ip(host).is_multicast
    except ValueError:
        return False


def place_of(where: SocketAddress | str | None) -> str:
    """Write the address of a socket as ``host:port``."""
    if not isinstance(where, tuple):
        return str(where or "?")
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse_exposed(name: str, addresses: list[Address], remedy: str) -> None:
    """Refuse to listen where other machines could reach it.

    Raises:
        ConfigError: one of the addresses is beyond loopback; the text gives the remedy.
    """
    for address in addresses:
        if not is_loopback(address.where[0]):
            raise ConfigError(
                f"insecure: {name} would accept anybody at {place_of(address.where)}; allowed: a loopback "
                f"address, {remedy}"
            )


def bind_all(
    name: str, addresses: list[Address], kind: socket.SocketKind, prepare: Callable[[socket.socket], None]
) -> list[socket.socket]:
    """Bind a socket to each address; port 0 means one free port, the same for all.

    An address of a family that this machine does not have is left out, if another is bound.

    Raises:
        OpenError: one of them cannot be bound.
    """
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in addresses:
            where = address.where
            if bound and where[1] == 0:
                where = (where[0], bound[0].getsockname()[1], *where[2:])
            try:
                bound.append(_bind(address.family, where, kind, prepare))
            except OSError as exc:
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise _cannot(name, where, exc) from exc
                missing = exc
        if missing is not None and not bound:
            raise _cannot(name, addresses[0].where, missing) from missing
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


def _bind(
    family: socket.AddressFamily,
    where: SocketAddress,
    kind: socket.SocketKind,
    prepare: Callable[[socket.socket], None],
) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _cannot(name: str, where: SocketAddress, exc: OSError) -> OpenError:
    return OpenError(exc.errno, f"{name} cannot listen at {place_of(where)}: {exc.strerror or exc}")


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
