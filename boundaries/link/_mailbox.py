"""What has come over a connection and was not taken, and whoever waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["HandOn", "Mailbox"]

HandOn: TypeAlias = Callable[[list[list[bytes]]], bool]
"""Called with what comes while somebody waits for it, in the turn of the loop in which it comes; returns
False when he waits no more."""


class Mailbox:
    """Messages between whoever reads a connection and the one task that takes them.

    Args:
        check: raises when the connection is over; asked only when all is taken.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.messages: deque[list[bytes]] = deque()  # bounded by whoever fills it: he stops, or counts
        self._check = check
        self._waiter: asyncio.Future[bool] | None = None
        self._hand_on: HandOn | None = None

    def put(self, messages: list[list[bytes]]) -> None:
        """Add what came; whoever waits has it at once."""
        if self._hand_on is None or self.messages or self._waiter is None or self._waiter.done():
            self.messages.extend(messages)
            self.stir()
        elif not self._hand_on(messages) and not self._waiter.done():
            self._waiter.set_result(True)

    def stir(self) -> None:
        """Let whoever waits look: something came, or the connection is over."""
        if self._waiter is None or self._waiter.done():
            return
        is_over = False
        if self._hand_on is not None and self.messages:
            if self._hand_on(self._all()):
                return
            is_over = True
        if not self._waiter.done():
            self._waiter.set_result(is_over)

    async def taken(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        """Wait for messages and take all there are. Cancelled, none was taken.

        Args:
            hand_on: see `HandOn`; once it returns False, this returns no messages.

        Raises:
            ConnectionError: the connection is over, and all is taken.
        """
        while not self.messages:
            self._check()
            self._waiter, self._hand_on = asyncio.get_running_loop().create_future(), hand_on
            try:
                if await self._waiter:
                    return []
            finally:
                self._waiter = self._hand_on = None
        return self._all()

    def _all(self) -> list[list[bytes]]:
        messages = list(self.messages)
        self.messages.clear()
        return messages
