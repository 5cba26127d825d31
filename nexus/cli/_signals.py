"""Signals for commands that run in an event loop: the first one asks for an end, the second makes one."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["signals"]


@contextlib.contextmanager
def signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM, and cancel the task that runs this at the second."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    seen = 0

    def came() -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            stop()
        else:
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, came)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
