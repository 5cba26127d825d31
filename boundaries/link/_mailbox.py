"""What has come over a connection and was not taken, and whoever waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Mailbox"]


class Mailbox:
    """Messages between whoever reads a connection and the one task that takes them.

    Args:
        check: raises when the connection is over; asked only when all is taken.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.messages: deque[list[bytes]] = deque()  # bounded by whoever fills it: he stops, or counts
        self._check = check
        self._waiter: asyncio.Future[None] | None = None

    def stir(self) -> None:
        """Let whoever waits look: something came, or the connection is over."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def taken(self) -> list[list[bytes]]:
        """Wait for messages and take all there are. Cancelled, none was taken.

        Raises:
            ConnectionError: the connection is over, and all is taken.
        """
        while not self.messages:
            self._check()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        messages = list(self.messages)
        self.messages.clear()
        return messages
