"""Which sockets this process has open to whoever comes, as the kernel tells it (proc(5), /proc/net)."""

import contextlib
import ipaddress
import os
import sys
from pathlib import Path

__all__ = ["exposed", "open_to_peers"]

LISTENS = "0A"
UNCONNECTED = "07"
TABLES = (("tcp", LISTENS), ("tcp6", LISTENS), ("udp", UNCONNECTED), ("udp6", UNCONNECTED))


def open_to_peers() -> set[tuple[str, str, int]]:
    """Return table, address and port of each socket that listens, or takes datagrams from anybody."""
    own = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{fd}"))
    found = set()
    for table, wanted in TABLES:
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == wanted and f"socket:[{fields[9]}]" in own:
                host, _, port = fields[1].partition(":")
                found.add((table, _address(host), int(port, 16)))
    return found


def exposed(sockets: set[tuple[str, str, int]]) -> set[tuple[str, str, int]]:
    """Return those that other machines can reach."""
    return {each for each in sockets if not _ip(each[1]).is_loopback}


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _address(digits: str) -> str:
    """Read an address: words of 32 bits, each in the machine's own order."""
    packed = b"".join(
        int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)
    )
    return str(ipaddress.ip_address(packed))
