"""A process that connects many times, says a part of something or nothing, and waits until all are cut.

    python half_open.py PORT COUNT

Prints for how many seconds the one that stayed longest was connected.
"""

import contextlib
import selectors
import socket
import sys
import time

SAYS = (b"", b"\0\0\1", b"\0\0\0\x40\x01{", b"\0\0\0\x80\x01" + b"x" * 100)


def main(port: int, count: int) -> None:
    """Connect, and wait."""
    found = selectors.DefaultSelector()
    longest = 0.0
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(SAYS[number % 4])
        sock.setblocking(False)
        found.register(sock, selectors.EVENT_READ, time.monotonic())
        longest = max(longest, drop_cut(found, 0))
    while found.get_map():
        longest = max(longest, drop_cut(found, None))
    sys.stdout.write(f"{longest:.3f}\n")


def drop_cut(found: selectors.BaseSelector, timeout: float | None) -> float:
    """Let go of those that were cut; return how long the longest of them was connected."""
    longest = 0.0
    for key, _ in found.select(timeout):
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        with contextlib.suppress(ConnectionError):  # it was cut with something on its way
            if sock.recv(65536):
                continue
        longest = max(longest, time.monotonic() - key.data)
        found.unregister(sock)
        sock.close()
    return longest


main(int(sys.argv[1]), int(sys.argv[2]))
