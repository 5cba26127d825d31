"""The loop's clock, read without a detour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

__all__ = ["clock_of"]


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the loop's clock, without the way through the loop where it is the monotonic clock anyway."""
    if getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time or type(loop).__module__ == "uvloop":
        return monotonic
    return loop.time
