"""Giving the event loop a turn."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Self

__all__ = ["TURN_COUNT", "TURN_SECONDS", "LastInTurn", "turn"]

TURN_SECONDS = 5e-5
"""For how long a task of ours works before sources, timers and urgent events get their turn."""
TURN_COUNT = 1024
"""How many events it handles at most before that; what counts where the clock stands still."""


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Let everything else that is ready run once."""
    yield


class LastInTurn:
    """To be awaited by one task, to let everything else run once: what is ready, and then what sockets and
    timers have for this very turn of the loop.

    A task that only yields comes before those in the loop's next turn, and what they bring waits for the
    turn after that. This stands in line with the timers, behind those that are due. It does what a task asks
    of a future (`asyncio.Future`, "Future-like objects"), and no more.
    """

    __slots__ = ("_asyncio_future_blocking", "_clock", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._clock = clock

    def __await__(self) -> Generator[Self, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def add_done_callback(self, wake: Callable[[Self], object], *, context: Context | None = None) -> None:
        """Have the task wake after all else."""
        self._loop.call_at(self._clock(), wake, self, context=context)

    def result(self) -> None:
        """Tell the task, which has been woken, that there is nothing to tell."""

    def cancel(self, msg: Any = None) -> bool:
        """Leave it to the task to be cancelled in its turn."""
        return False

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task."""
        return self._loop
