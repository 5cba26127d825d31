"""How a command goes on, once a second: one line that changes on a terminal, else a line each time."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Progress"]


class Progress:
    """Shows a line on the standard error while its block runs.

    Args:
        line: gives a number, of which the rate is shown, and words.
        plain: print a line each time, also on a terminal.
        interval: seconds.
    """

    def __init__(self, line: Callable[[], tuple[int, str]], *, plain: bool, interval: float = 1.0) -> None:
        self._line = line
        self._in_place = sys.stderr.isatty() and not plain
        self._interval = interval
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._task = self._group.create_task(self._show(), name="progress")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await self._group.__aexit__(None, None, None)  # what the block raised stays itself

    async def _show(self) -> None:
        loop = asyncio.get_running_loop()
        before, since = self._line()[0], loop.time()
        try:
            while True:
                await asyncio.sleep(self._interval)
                now, words = self._line()
                rate = (now - before) / max(loop.time() - since, 1e-9)
                before, since = now, loop.time()
                self._print(f"{words}, {rate:,.0f}/s")
        finally:
            if self._in_place:
                self._print("")

    def _print(self, text: str) -> None:
        # When nobody reads it any more, the work goes on.
        with contextlib.suppress(OSError):
            print(f"\r\x1b[K{text}" if self._in_place else text, end="", file=sys.stderr)
            print("", end="" if self._in_place else "\n", file=sys.stderr, flush=True)
