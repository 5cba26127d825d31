"""A domain's end of the line to the process that started it: orders on stdin, states on stdout.

The line is also the life: a domain whose parent is gone sees the end of its stdin and ends, whatever killed
the parent. It keeps a session of its own, so Ctrl-C in the terminal reaches the parent alone.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

__all__ = ["Orders", "run_domain", "tell"]

LAST_RESORT = 2.0
"""Seconds that a domain without a parent may take to clean up."""

Domain = Callable[[Mapping[str, Any], "Orders"], Awaitable[None]]


def tell(says: str, **content: object) -> None:
    """Send the parent one line."""
    os.write(
        sys.stdout.fileno(), orjson.dumps({"says": says, **content}, option=orjson.OPT_NON_STR_KEYS) + b"\n"
    )


class Orders:
    """The orders that come in, in their order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(16)
        threading.Thread(target=self._read, name="nexus demo orders", daemon=True).start()

    async def next(self, order: str) -> dict[str, Any]:
        """Wait for an order of this name; others before it are passed over."""
        while True:
            found = await self._queue.get()
            if found["order"] == order:
                return found

    def _read(self) -> None:
        # os.read, because a lock held in sys.stdin would stop the interpreter's shutdown.
        rest = b""
        while chunk := os.read(sys.stdin.fileno(), 4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._loop.call_soon_threadsafe(self._queue.put_nowait, orjson.loads(line))
        logging.disable()  # nobody is left to be told what is given up
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            if self._main is not None:
                self._loop.call_soon_threadsafe(self._main.cancel)
        time.sleep(LAST_RESORT)
        os._exit(1)


def run_domain(domain: Domain, settings: Mapping[str, Any]) -> int:
    """Run a domain to its end; return the exit status."""

    async def main() -> None:
        await domain(settings, Orders())

    try:
        asyncio.run(main())
    except (asyncio.CancelledError, BrokenPipeError):
        return 1
    return 0
