"""What the subscribers of a publisher want, as an XPUB socket tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

__all__ = ["Subscribers"]

MAX_PREFIXES = 1000
"""Prefixes that are kept; with more, everything counts as wanted, and libzmq alone sorts it out."""


class Subscribers:
    """The prefixes subscribed to, and how long somebody who may still come is waited for.

    Args:
        patience: seconds to wait from `begin` on; None for ever.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._prefixes: dict[bytes, None] = {}  # bounded by MAX_PREFIXES
        self.wanted: tuple[bytes, ...] = ()
        """The prefixes subscribed to."""
        self._since = 0.0
        self._waiters: list[asyncio.Future[None]] = []

    def begin(self, *, anew: bool = False) -> None:
        """Be patient from now on; anew, forget what was subscribed to."""
        self._since = asyncio.get_running_loop().time()
        if anew:
            self._prefixes.clear()
            self.wanted = ()

    def take(self, message: Sequence[bytes]) -> None:
        """Note what an XPUB socket received: 1 and a prefix to subscribe, 0 and a prefix to unsubscribe."""
        frame = message[0]
        if frame[:1] == b"\x01":
            if len(self._prefixes) < MAX_PREFIXES:
                self._prefixes[frame[1:]] = None
            else:
                self._prefixes = {b"": None}
        elif frame[:1] == b"\x00":
            self._prefixes.pop(frame[1:], None)
        self.wanted = tuple(self._prefixes)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def want(self, topic: bytes) -> bool:
        """Say whether somebody subscribes to it."""
        return topic.startswith(self.wanted)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody may still come who is worth waiting for."""
        patience = self._patience
        return patience is None or asyncio.get_running_loop().time() < self._since + patience

    async def wait(self, topic: bytes) -> None:
        """Wait until somebody subscribes to it."""
        while not self.want(topic):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    async def wait_a_while(self, topic: bytes) -> bool:
        """Wait as long as it is worth it; say whether somebody subscribes to it."""
        until = None if self._patience is None else self._since + self._patience
        try:
            async with asyncio.timeout_at(until):
                await self.wait(topic)
        except TimeoutError:
            return self.want(topic)
        return True
