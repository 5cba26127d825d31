"""What a ZMQ sender and a ZMQ receiver have in common: an end of a connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from nexus.adapters._base import Adapted
from nexus.adapters._zmq_config import Half, ZmqConfig
from nexus.adapters._zmq_end import End
from nexus.errors import BadCall

__all__ = ["ZmqHalf", "first_error"]


class ZmqHalf(Adapted):
    """What both halves have for being at an end of a connection."""

    config: ZmqConfig
    _half: ClassVar[Half]
    _at: End | None = None

    @property
    def refused(self) -> dict[str, int]:
        """Peers that did not get past the handshake since the start, by reason; of a bound end."""
        return {} if self._at is None else dict(self._at.refused)

    @property
    def address(self) -> str:
        """Where it is bound or connected to; the real port once it is started."""
        return self.config.address(self._half) if self._at is None else self._at.address

    async def _open_end(self, kind: int, options: Iterable[tuple[int, bytes | int]]) -> None:
        """Make a socket of a kind with these options, and bind or connect it."""
        self._at = end = End(self.config, self._half, kind, self._link)
        try:
            for option, value in options:
                end.socket.setsockopt(option, value)
            end.open()
        except BaseException:
            self._at = None
            await end.close(0)
            raise

    async def reload_clients(self) -> None:
        """Read `curve_clients` again, and let nobody go on who is no longer on the list.

        Where somebody is gone from it, every peer has to connect again, and libzmq loses what it holds.

        Raises:
            BadCall: it is not started, or has no such list.
            ConfigError: the list is not to be read; the old one holds.
        """
        if self._at is None or self._at.gate is None:
            raise BadCall(f"{self.name} is not started, or has no curve_clients")
        if self._at.gate.reload():
            await self.stop()
            await self.start()


def first_error(group: ExceptionGroup) -> Exception:
    """Give the error that ended a group of tasks."""
    found = group.exceptions[0]
    return first_error(found) if isinstance(found, ExceptionGroup) else found
