"""UDP sockets: bound or connected, groups, broadcast, buffers, and how many datagrams the kernel dropped."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Protocol

from nexus.adapters._net import Address, is_loopback, is_multicast
from nexus.errors import ConfigError

__all__ = ["ANCILLARY", "UdpOptions", "connected_socket", "is_exposed", "prepare_receiving", "read_drops"]

_LINUX = sys.platform.startswith("linux")
# Not in the socket module; the numbers are those of <asm/socket.h> and <linux/in.h>.
_SO_RXQ_OVFL = 40
_IP_MULTICAST_ALL = 49
ANCILLARY = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
"""Bytes to leave for what comes beside a datagram."""


class UdpOptions(Protocol):
    """What a socket wants to know of a config."""

    @property
    def interface(self) -> str | None: ...
    @property
    def ttl(self) -> int: ...
    @property
    def loopback(self) -> bool: ...
    @property
    def broadcast(self) -> bool: ...
    @property
    def receive_buffer(self) -> int: ...


def is_exposed(address: Address, config: UdpOptions) -> bool:
    """Say whether other machines could send to a socket that receives at this address."""
    host = address.where[0]
    if is_multicast(host):
        return not _is_local_interface(config.interface)
    return not is_loopback(host)


def prepare_receiving(sock: socket.socket, host: str, config: UdpOptions) -> None:
    """Set what must be set before a socket is bound, and join the group if the host is one."""
    if config.receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.receive_buffer)
    if _LINUX:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    if is_multicast(host):
        # Everybody on this machine who joins a group receives at the same port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _join(sock, host, config.interface)


def connected_socket(address: Address, config: UdpOptions) -> socket.socket:
    """Make a socket that sends to one address, and hears of it when nobody is there.

    Raises:
        OSError: the system has no way there.
    """
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if config.broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if is_multicast(address.where[0]):
            _send_to_group(sock, config)
        sock.connect(address.where)
    except BaseException:
        sock.close()
        raise
    return sock


def read_drops(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Find the kernel's count of dropped datagrams beside a datagram; None if it does not say."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL and len(data) >= 4:
            return int(struct.unpack("=I", data[:4])[0])
    return None


def _join(sock: socket.socket, group: str, interface: str | None) -> None:
    if sock.family == socket.AF_INET6:
        request = socket.inet_pton(socket.AF_INET6, group.partition("%")[0])
        request += struct.pack("@I", _index(interface))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        return
    if _LINUX:
        with contextlib.suppress(OSError):  # or what others on this machine have joined would come too
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    request = socket.inet_aton(group) + _member(interface)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)


def _send_to_group(sock: socket.socket, config: UdpOptions) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, config.ttl)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(config.loopback))
        if config.interface:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _index(config.interface))
        return
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, config.ttl)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(config.loopback))
    if config.interface:
        member = _member(config.interface)
        # Either an address, or ip_mreqn: group, address, index.
        request = member if len(member) == 4 else bytes(4) + member
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)


def _member(interface: str | None) -> bytes:
    """Say which interface as IPv4 wants it: its address, or no address and its index."""
    if not interface:
        return bytes(4)
    try:
        return socket.inet_pton(socket.AF_INET, interface)
    except OSError:
        return bytes(4) + struct.pack("@i", _index(interface))


def _index(interface: str | None) -> int:
    if not interface:
        return 0
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise ConfigError(
            f"interface: found {interface!r}, allowed: the name of an interface of this machine, or for IPv4 "
            "its address"
        ) from None


def _is_local_interface(interface: str | None) -> bool:
    if interface in ("lo", "lo0"):
        return True
    try:
        return interface is not None and is_loopback(interface)
    except ValueError:
        return False
