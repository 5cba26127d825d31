"""A process with ten nexuses, each connected to the same link, one of which can be made slow.

    python ten_sides.py PORT

Its sides are called side-0 to side-9. An event "pace" tells side-0 how many seconds it waits at each event;
the others do not wait. Ends in good order when its standard input does, and prints for each side how many
events it has handled, and whether they came in order.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link


class Side:
    """One nexus, and what it has handled."""

    def __init__(self, number: int, port: int) -> None:
        self.nexus = AsyncEventNexus(name=f"side-{number}", maxsize=100)
        self.nexus.register(Link.connect(f"tcp://127.0.0.1:{port}", name=f"side-{number}"))
        self.nexus.add_handler("t", self.work)
        self.nexus.add_handler("pace", self.pace)
        self.is_slow = number == 0
        self.seconds = 0.0
        self.count = 0
        self.last = -1
        self.in_order = True

    def pace(self, event: Event[float]) -> None:
        self.seconds = event.payload if self.is_slow else 0.0

    async def work(self, event: Event[Any]) -> None:
        self.in_order = self.in_order and event.payload > self.last
        self.last = event.payload
        self.count += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)


async def main(port: int) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sides = [Side(number, port) for number in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        for side in sides:
            await stack.enter_async_context(side.nexus)
        await reader.read()
    sys.stdout.write(json.dumps([[side.count, side.in_order] for side in sides]))


asyncio.run(main(int(sys.argv[1])))
