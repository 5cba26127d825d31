"""A program that listens for a link, writes down and answers each event, is watched, and can be blocked.

    python watched_far.py PORT FILE PERIOD

A "block" event keeps the processor busy for two seconds, once for each payload: one that comes again in the
next process, for the last one could not acknowledge it, does nothing. Ends in good order at SIGTERM.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any

from nexus import AsyncEventNexus, Event, SecondaryQueue, Watchdog
from nexus.boundaries.link import Link


def main(port: int, path: Path, period: float) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig()
    nexus = AsyncEventNexus(name="far", maxsize=500)
    nexus.register(Link.listen(f"tcp://127.0.0.1:{port}", name="far"))
    blocked = path.with_suffix(".blocked")
    blocked.touch()
    with path.open("a", buffering=1) as file:

        async def note(event: Event[Any], queue: SecondaryQueue) -> None:
            file.write(f"{event.payload}\n")
            await queue.put(event.reply(event.payload, type="done"))

        def block_for_two_seconds(event: Event[Any]) -> None:
            if str(event.payload) in blocked.read_text().split():
                return
            with blocked.open("a") as told:
                told.write(f"{event.payload}\n")
            until = time.monotonic() + 2
            while time.monotonic() < until:
                pass

        nexus.add_handler("t", note)
        nexus.add_handler("block", block_for_two_seconds)
        nexus.run(watchdog=Watchdog(period, abort=True))


main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
