"""Giving the event loop a turn."""

from __future__ import annotations

import types
from collections.abc import Generator

__all__ = ["TURN_COUNT", "TURN_SECONDS", "turn"]

TURN_SECONDS = 5e-5
"""For how long a task of ours works before sources, timers and urgent events get their turn."""
TURN_COUNT = 1024
"""How many events it handles at most before that; what counts where the clock stands still."""


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Let everything else that is ready run once."""
    yield
