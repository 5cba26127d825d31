"""A bucket of tokens: so many events a second, the most urgent first."""

import asyncio
import heapq
import itertools

__all__ = ["Bucket"]


class Bucket:
    """Lets so many through in a second; of those who wait, the lowest priority first.

    What was not used is saved for a tenth of a second, or one token.

    Args:
        rate: tokens a second, more than 0.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._size = max(1.0, rate / 10)
        self._tokens = 1.0
        self._since: float | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, priority: int) -> None:
        """Wait for a token. Cancelled, none was taken, or one that had come is lost."""
        self._fill()
        if not self._waiting and self._tokens >= 1:
            self._tokens -= 1
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), future))
        self._schedule()
        await future

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._since is not None:
            self._tokens = min(self._size, self._tokens + (now - self._since) * self.rate)
        self._since = now

    def _schedule(self) -> None:
        if self._timer is None and self._waiting:
            wait = max(0.0, 1 - self._tokens) / self.rate
            self._timer = asyncio.get_running_loop().call_later(wait, self._give)

    def _give(self) -> None:
        self._timer = None
        self._fill()
        while self._waiting and self._tokens >= 1 - 1e-9:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                self._tokens -= 1
                future.set_result(None)
        self._schedule()
