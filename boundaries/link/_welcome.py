"""How a link meets whoever is at the other end of a new connection, before anything else is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from nexus.adapters._safe import why
from nexus.adapters._wire import Wire
from nexus.boundaries.link._ends import trust
from nexus.boundaries.link._frames import Hello, unpack
from nexus.boundaries.link._line import Line, say_bye
from nexus.boundaries.link._peer import LinkBroken, Peer
from nexus.boundaries.link._peers import Peers
from nexus.boundaries.link._room import Room
from nexus.boundaries.link._seal import SealedWire
from nexus.errors import BadCall, BadEvent

__all__ = ["HELLO_TIMEOUT", "Welcome"]

logger = logging.getLogger(__name__)

HELLO_TIMEOUT = 5.0
"""Seconds within which whoever connects must say who it is."""


class Welcome:
    """Lets in who knows the token and has a name that is free.

    Args:
        name: of the link, for the log.
        token: what both sides must know; empty for nothing.
        patience: seconds after which what was not answered is said again.
        lines: those that are connected.
        room: told when there is somebody to give events to.
    """

    def __init__(
        self,
        name: str,
        token: str,
        patience: float,
        peers: Peers,
        lines: Mapping[Peer, Line],
        room: Room,
    ) -> None:
        self.forged = 0
        """Frames that came with a wrong seal and were left out."""
        self._name = name
        self._token = token
        self._patience = patience
        self._peers = peers
        self._lines = lines
        self._room = room
        self._turned_away = 0

    async def meet(self, wire: Wire) -> tuple[Peer, Wire, list[list[bytes]]] | None:
        """Find out who has connected; before, nothing is held for it.

        Returns:
            Its state, the wire to go on with, and the messages that were read already; None for one that was
            turned away.
        """
        raw = wire
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                wire = await self.seal(wire)
                first = await wire.receive()
            hello = unpack(b"".join(first[0]))
            if not isinstance(hello, Hello):
                raise LinkBroken(f"the first frame is a hello, not {type(hello).__name__}")
            self._peers.find(hello)
            trust(raw)
            peer = await self._make_way(hello)
            self._room.changed()
        except (BadEvent, TimeoutError, LinkBroken, BadCall) as exc:
            reason = f"no hello within {HELLO_TIMEOUT} s" if isinstance(exc, TimeoutError) else why(exc)
            self._turned_away += 1
            if self._turned_away & (self._turned_away - 1) == 0:  # a crowd of strangers fills no log
                logger.warning(
                    "%s turns somebody away: %s (number %d)", self._name, reason, self._turned_away
                )
            await say_bye(wire, reason)
            wire.close()
            return None
        return peer, wire, first

    async def _make_way(self, hello: Hello) -> Peer:
        """Return the state of whoever says hello; end the connection of the process that it follows.

        Raises:
            LinkBroken: it follows nobody, and one of its name is connected.
            BadCall: too many are.
        """
        while (line := self._lines.get(peer := self._peers.find(hello))) is not None:
            logger.warning("%s: another process has taken over from %a", self._name, hello.name)
            await line.leave("another process has taken over")
            line.cut()
            while self._lines.get(peer) is line:
                await self._room.wait()
        return peer

    async def seal(self, wire: Wire) -> Wire:
        """Let the other side show that it knows the token, if there is one.

        Raises:
            LinkBroken: it does not.
            ConnectionError: the wire is closed.
        """
        if not self._token:
            return wire
        sealed = SealedWire(wire, self._token, self._patience, self._count_forged)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await sealed.meet()
        except TimeoutError:
            raise LinkBroken(f"no answer within {HELLO_TIMEOUT} s: {sealed.trouble}") from None
        return sealed

    def _count_forged(self) -> None:
        self.forged += 1
