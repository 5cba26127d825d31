"""Those who wait until a link has room, or until something else of it has changed."""

from __future__ import annotations

import asyncio

__all__ = ["Room"]


class Room:
    """Lets all who wait look again."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until something has changed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def changed(self) -> None:
        """Have everybody look who waits."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
