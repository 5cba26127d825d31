"""What goes over a link: to which of the other sides, and whether there is room for it with all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nexus import Event
from nexus.boundaries.link._line import Line
from nexus.boundaries.link._peer import LinkLimits, Peer
from nexus.boundaries.link._peers import Peers
from nexus.boundaries.link._rows import MAX_HOPS, Rows
from nexus.errors import QueueFull

__all__ = ["Spread"]


class Spread:
    """Gives each event to those it is for.

    Args:
        name: of the link, for errors.
        lines: those that are connected.
        leave_out: counts an event that goes to nobody, by reason.
        look_again: lets those try again that wait for room.
    """

    def __init__(
        self,
        name: str,
        limits: LinkLimits,
        rows: Rows,
        peers: Peers,
        lines: Mapping[Peer, Line],
        leave_out: Callable[[str], None],
        look_again: Callable[[], None],
    ) -> None:
        self.taken = 0
        """Events given, once for each other side."""
        self._name = name
        self._limits = limits
        self._rows = rows
        self._peers = peers
        self._lines = lines
        self._leave_out = leave_out
        self._try_again = look_again
        self._alarm: asyncio.TimerHandle | None = None
        """Set while somebody waits for a side that may turn out to be slow."""

    def close(self) -> None:
        """Wait for nobody any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def push(self, event: Event[Any]) -> bool:
        """Take an event if there is room for it; say whether it was taken.

        Raises:
            PackerError: its payload is not JSON.
            BadCall: its priority is one too many for a link.
        """
        if event._meta is None and len(self._lines) == len(self._peers.all) == 1:
            # The short way: one other side, connected, and an event without anything but its four fields.
            ((only, its_line),) = self._lines.items()
            if only.outflow.push(event.priority, self._rows.pack(event)):
                self.taken += 1
                if only.stream is None:
                    its_line.pushed(event.priority)
                return True
            if self._limits.slow_after is None:
                return False
        targets = self._targets(event)
        if targets is None:
            return False
        if not targets:
            return True
        priority = event.priority
        row, deadline = self._rows.pack(event), event.deadline
        if len(targets) > 1 or self._limits.slow_after is not None:
            if len(targets) > 1:
                targets = [peer for peer in targets if not self._is_forgotten(peer, priority, len(row))]
            if not targets:
                return False  # all of them were given up: as where nobody has come yet
            size = len(row) if targets[0].stream is None else 2 * len(row) * len(targets)  # they share a file
            full = [peer for peer in targets if not self._has_room(peer, priority, size)]
            slow = [peer for peer in full if self._is_slow(peer, priority)]
            if len(slow) < len(full):
                return False
            for peer in full:
                if not self._makes_room(peer, priority, len(row)):
                    targets.remove(peer)
                    peer.outflow.give_up_slow()
                    self.taken += 1
        for peer in targets:
            if not peer.outflow.push(priority, row, deadline) and not (
                self._has_room(peer, priority, len(row)) and peer.outflow.push(priority, row, deadline)
            ):
                return False
            self.taken += 1
            line = self._lines.get(peer)
            if line is not None and peer.stream is None:
                line.pushed(priority)
        return True

    def push_many(self, events: list[Event[Any]]) -> int:
        """Take the first of some events of one priority, where there is one other side, that is connected or
        has a file; return how many."""
        if len(self._peers.all) != 1:
            return 0
        (only,) = self._peers.all
        its_line = self._lines.get(only)
        if its_line is None and only.stream is None:
            return 0
        priority = events[0].priority
        if not (places := only.outflow.places(priority)):
            return 0
        count = only.outflow.push_many(priority, self._rows.pack_many(events[:places]))
        self.taken += count
        if count and its_line is not None and only.stream is None:
            its_line.pushed(priority, count)
        return count

    def reply(self, peer: Peer, reply: Event[Any]) -> None:
        """Take an answer back to where the question came from."""
        back = reply.evolve(route=reply.route[:-1], path=())
        if not peer.outflow.push(reply.priority, self._rows.pack(back), reply.deadline):
            raise QueueFull(
                f"{self._name}: {self._limits.maxsize} events of priority {reply.priority} wait already"
            )
        self.taken += 1
        if (line := self._lines.get(peer)) is not None and peer.stream is None:
            line.pushed(reply.priority)

    def _targets(self, event: Event[Any]) -> list[Peer] | None:
        """Give those an event goes to; None while there is nobody to hold it for."""
        if not len(self._peers):
            return None
        if event._meta is None:
            return self._peers.all
        if len(event.path) >= MAX_HOPS:
            self._leave_out("hops")
            return []
        targets = [peer for peer in self._peers if peer.domain not in event.path]
        if not targets:
            self._leave_out("loop")
        return targets

    def _has_room(self, peer: Peer, priority: int, size: int) -> bool:
        """Say whether an event can be held for a peer; for one that is away the oldest may have to go."""
        while not peer.outflow.has_room(priority, size):
            if self._limits.away == "block" or peer in self._lines or not peer.outflow.shed(priority):
                return False
            if peer.stream is not None:  # the file has room when it has written that: later
                for _ in range(peer.outflow.depths().get(priority, 0) // 50):
                    peer.outflow.shed(priority)
                return False
        return True

    def _is_slow(self, peer: Peer, priority: int) -> bool:
        """Say whether to wait no longer for a side that is full; else look again when it may be so."""
        after = self._limits.slow_after
        if after is None or peer not in self._lines or peer.stream is not None:
            return False
        loop = asyncio.get_running_loop()
        if peer.outflow.is_slow(priority, loop.time(), after):
            return True
        if self._alarm is None:
            self._alarm = loop.call_later(after, self._look_again)
        return False

    def _look_again(self) -> None:
        self._alarm = None
        self._try_again()

    def _makes_room(self, peer: Peer, priority: int, size: int) -> bool:
        """Give up the oldest that have not gone to a slow side; say whether there is room then."""
        while not peer.outflow.has_room(priority, size):
            if not peer.outflow.shed_unsent(priority):
                return False
        return True

    def _is_forgotten(self, peer: Peer, priority: int, size: int) -> bool:
        """Give up a peer that is in the way of the others, and has been away for too long."""
        if peer in self._lines or peer.outflow.has_room(priority, size):
            return False
        now = asyncio.get_running_loop().time()
        if now - peer.away_since < self._limits.forget_after:
            return False
        self._peers.forget(peer)
        return True
