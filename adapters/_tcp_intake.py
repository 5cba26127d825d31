"""What comes over one TCP connection: cut into frames, and handed to an inbox as fast as that has room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from nexus.adapters._framing import Framer
from nexus.adapters._inbox import Inbox
from nexus.adapters._tcp_listen import PeerCut
from nexus.adapters._tcp_stream import Stream

__all__ = ["Held", "Intake", "watch_unfinished"]


class Held:
    """The bytes of unfinished frames, of all peers together.

    Args:
        limit: bytes; beyond it the peer that holds most is cut.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._peers: set[Intake] = set()

    def changed(self, peer: Intake, change: int) -> None:
        """Note that a peer holds more or less than before."""
        self._peers.add(peer)
        self.total += change
        while self.total > self.limit:
            largest = max(self._peers, key=lambda each: each.held)
            largest.cut(PeerCut("held", f"unfinished frames hold more than {self.limit} bytes"))
            self.forget(largest)

    def forget(self, peer: Intake) -> None:
        """Note that a peer is over."""
        self._peers.discard(peer)
        self.total -= peer.held
        peer.held = 0


class Intake(Stream):
    """A connection whose frames go to an inbox.

    Args:
        framer: finds the frames.
        held: what is shared with the other peers.
    """

    def __init__(self, inbox: Inbox, framer: Framer, held: Held) -> None:
        super().__init__()
        self.is_proven = False
        self.held = 0
        """Bytes of its unfinished frame."""
        self.begun: float | None = None
        """When its unfinished frame began to come; None while there is none, or it is not to blame."""
        self._inbox = inbox
        self._framer = framer
        self._shared = held
        self._rest: deque[bytes] = deque()  # bounded by one chunk: reading is paused while there is any
        self._work = asyncio.Event()
        self._over.add_done_callback(lambda _: self._work.set())

    def received(self, data: memoryview) -> None:
        framer = self._framer
        frames = framer.feed(data)
        if frames:
            self.is_proven = True
            self._hand(frames)
        if framer.unfinished:
            if frames or self.begun is None:
                self.begun = asyncio.get_running_loop().time()
        else:
            self.begun = None
        change = framer.held - self.held
        if change:
            self.held += change
            self._shared.changed(self, change)
        framer.feed(b"")  # raises if the stream cannot go on

    def _hand(self, frames: list[bytes]) -> None:
        """Hand over what finds room now; the rest waits, and the peer with it."""
        done = 0
        if not self._rest:
            offer, peer = self._inbox.offer, self.peer
            for frame in frames:
                if not offer(frame, {"peer": peer}):
                    break
                done += 1
        if done < len(frames):
            self._rest.extend(frames[done:])
            self.pause_reading()
            self._work.set()

    async def pump(self) -> None:
        """Hand over the rest, again and again; return when the peer has closed and all is handed over.

        Raises:
            OSError: the connection was lost; what came before is handed over.
            FramingError, PeerCut: the peer broke the rules.
        """
        try:
            while not self.is_over or self._rest:
                await self._work.wait()
                self._work.clear()
                await self._hand_rest()
                if self.begun is not None:
                    self.begun = asyncio.get_running_loop().time()
                self.resume_reading()
            if self.error is None:
                self._rest.extend(self._framer.finish())
                await self._hand_rest()
        finally:
            self._framer.cut()
            self._shared.forget(self)
            if self._rest:
                self._inbox.drop("stopped", count=len(self._rest))
                self._rest.clear()
        if self.error is not None:
            raise self.error

    async def _hand_rest(self) -> None:
        rest, inbox, peer = self._rest, self._inbox, self.peer
        while rest:
            if not inbox.offer(rest[0], meta := {"peer": peer}):
                await inbox.put(rest[0], meta)
            rest.popleft()

    def end_if_late(self, latest: float) -> None:
        """Cut the peer if its frame began before that moment and is not there yet."""
        if self.begun is not None and self.begun < latest and not self._rest and not self.is_over:
            self.cut(PeerCut("unfinished", "a frame began and did not end in time"))


async def watch_unfinished(peers: Callable[[], set[Intake]], timeout: float) -> None:
    """Cut peers whose frame takes longer than the timeout, in seconds; for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(1.0, timeout / 4))
        latest = loop.time() - timeout
        for peer in list(peers()):
            peer.end_if_late(latest)
