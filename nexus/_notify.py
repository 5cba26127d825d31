"""Telling the service manager how the process fares, as systemd asks for it (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]

logger = logging.getLogger(__name__)


class Notifier:
    """Sends notes to the socket that ``NOTIFY_SOCKET`` names; without one it does nothing.

    Each note opens the socket anew, so nothing is held between two, and a manager that was started again
    hears the next one. A note that cannot be sent is left out; the first one is logged.

    Args:
        environ: where the variables are; None for those of the process.

    Attributes:
        interval: seconds after which the manager takes the process for dead, ``WATCHDOG_USEC``; None when it
            does not, or asks another process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._is_silent = False
        self.interval = _interval(environ) if self.is_wanted else None

    @property
    def is_wanted(self) -> bool:
        """Whether there is somebody to tell."""
        return self._address[:1] in ("/", "\0") and bool(self._address) and hasattr(socket, "AF_UNIX")

    def tell(self, note: str) -> None:
        """Send a note, such as ``READY=1``, without waiting."""
        if not self.is_wanted:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(self._address)
                sock.send(note.encode())
        except OSError as exc:
            if not self._is_silent:
                logger.warning("the service manager was not told %s: %s", note, exc)
            self._is_silent = True


def _interval(environ: Mapping[str, str]) -> float | None:
    """Read the seconds of the service manager's own watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    asked = environ.get("WATCHDOG_USEC", "")
    return int(asked) / 1e6 if asked.isdecimal() and int(asked) > 0 else None
