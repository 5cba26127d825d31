"""Running a nexus as a whole program: an event loop of its own, signals, and the garbage collector out of the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ._life import StopReport
from .errors import BadCall

if TYPE_CHECKING:
    from ._nexus import AsyncEventNexus

__all__ = ["run_nexus"]


def run_nexus(nexus: AsyncEventNexus, grace: float, *, freeze: bool) -> StopReport:
    """Run the nexus until it has stopped, and return its report."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise BadCall("run() makes an event loop of its own, and one is running here; await loop_forever() instead")
    with asyncio.Runner() as runner:
        return runner.run(_run(nexus, grace, freeze))


async def _run(nexus: AsyncEventNexus, grace: float, freeze: bool) -> StopReport:
    """Run the nexus in this loop."""
    with _signals(nexus, grace):
        task = nexus.start()
        if freeze:
            gc.collect()
            gc.freeze()
        try:
            await task
        finally:
            if freeze:
                gc.unfreeze()
    return await nexus.stop()


@contextlib.contextmanager
def _signals(nexus: AsyncEventNexus, grace: float) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a graceful stop; the second one interrupts, whatever is running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    seen = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(lambda: nexus.stop(grace=grace))

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
