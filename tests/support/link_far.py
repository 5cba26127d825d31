"""A process with a nexus that listens for a link, and writes down each event it has handled.

    python link_far.py PORT FILE

Ends in good order when its standard input does.
"""

import asyncio
import sys
from typing import Any

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link


async def main(port: int, path: str) -> None:
    """Serve until standard input ends."""
    nexus = AsyncEventNexus(name="far", maxsize=500)
    nexus.register(Link.listen(f"tcp://127.0.0.1:{port}", name="far"))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with open(path, "a", buffering=1, encoding="ascii") as file:  # noqa: ASYNC230

        def note(event: Event[Any]) -> None:
            file.write(f"{event.priority} {event.payload}\n")

        nexus.add_handler("t", note)
        async with nexus:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await reader.read()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
