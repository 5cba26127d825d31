"""The other sides that one end of a link knows, connected or not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

from nexus.boundaries.link._frames import Hello
from nexus.boundaries.link._peer import LinkBroken, Peer
from nexus.errors import BadCall

__all__ = ["Peers"]

logger = logging.getLogger(__name__)


class Peers:
    """Finds the state of whoever connects; who comes back under its name goes on where it was.

    Args:
        most: how many are known at once; then the first that is not connected is given up.
        make: makes the state of a new one of that name.
        drop: told the name of one that is given up.
        is_connected: says whether one is.
    """

    def __init__(
        self,
        name: str,
        most: int,
        make: Callable[[str], Peer],
        is_connected: Callable[[Peer], bool],
        drop: Callable[[str], None],
    ) -> None:
        self.lost: dict[str, int] = {}
        """Events given up, by reason, of those who are given up themselves."""
        self.accepted_before = 0
        """Events that those had accepted who are given up."""
        self._name = name
        self._most = most
        self._make = make
        self._is_connected = is_connected
        self._drop = drop
        self._known: dict[str, Peer] = {}
        self.all: list[Peer] = []
        """Those that are known."""

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def only(self) -> Peer:
        """Return the one there is of an end that connects."""
        return self._known.get("") or self.add("")

    def add(self, name: str) -> Peer:
        """Make the state of one that is not known."""
        peer = self._known[name] = self._make(name)
        self.all = list(self._known.values())
        return peer

    def begin_anew(self) -> None:
        """Forget all, but not their figures: what is held for them lies elsewhere and is not given up."""
        for peer in self:
            self._keep_figures(peer)
            if peer.stream is not None:
                peer.stream.close()
        self._known = {}
        self.all = []

    def find(self, hello: Hello) -> Peer:
        """Return the state of whoever says hello; that of a connected one to the process that follows it.

        Raises:
            LinkBroken: one of that name is connected, and this one has not taken over its outbox.
            BadCall: too many are.
        """
        peer = self._known.get(hello.name)
        if peer is None:
            if len(self._known) >= self._most:
                self._forget_one()
            peer = self.add(hello.name)
        elif self._is_connected(peer) and not _follows(hello, peer.hello):
            raise LinkBroken(f"{hello.name!a} is connected already")
        return peer

    def lose(self, reason: str, count: int) -> None:
        """Count events that are given up."""
        self.lost[reason] = self.lost.get(reason, 0) + count

    def lost_of_all(self) -> dict[str, int]:
        """Return how many events were given up, by reason."""
        found = Counter(self.lost)
        for peer in self:
            found.update(peer.outflow.lost)
        return dict(found)

    def forget(self, peer: Peer) -> None:
        """Give up one that is away, with what is held for it."""
        for name in [name for name, each in self._known.items() if each is peer]:
            del self._known[name]
            self._drop(name)
        self.all = list(self._known.values())
        self._keep_figures(peer)
        if held := len(peer.outflow):
            self.lose("forgotten", held)
            logger.warning("%s gives up %d events for somebody who did not come back", self._name, held)

    def _keep_figures(self, peer: Peer) -> None:
        self.accepted_before += peer.outflow.accepted
        for reason, count in peer.outflow.lost.items():
            self.lose(reason, count)

    def _forget_one(self) -> None:
        for peer in list(self):
            if not self._is_connected(peer):
                self.forget(peer)
                return
        raise BadCall(f"{self._most} others are connected; no more are allowed")


def _follows(hello: Hello, before: Hello | None) -> bool:
    """Say whether somebody has opened the outbox after the one who is connected with it."""
    return before is not None and hello.source == before.source and hello.generation > before.generation
