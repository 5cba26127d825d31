"""Running a nexus as a whole program: an event loop of its own, signals, and the garbage collector out of
the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
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

logger = logging.getLogger(__name__)

_PATIENCE = 1.0
"""Seconds that tasks which outlive the nexus have to end."""


def run_nexus(nexus: AsyncEventNexus, grace: float, *, freeze: bool) -> StopReport:
    """Run the nexus until it has stopped, and return its report."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise BadCall(
            "run() makes an event loop of its own, and one is running here; await loop_forever() instead"
        )
    runner = asyncio.Runner()
    try:
        return runner.run(_run(nexus, grace, freeze))
    finally:
        try:
            runner.run(_end_tasks())
        finally:
            runner.close()


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


async def _end_tasks() -> None:
    """Cancel what is left in the loop, and abandon what does not end within a second.

    `asyncio.Runner` would wait for it for ever.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=_PATIENCE)
    for task in left:
        logger.error("%s will not end and is abandoned", task.get_name())
        asyncio._unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def _signals(nexus: AsyncEventNexus, grace: float) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a graceful stop; the second one interrupts, whatever is
    running."""
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

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
