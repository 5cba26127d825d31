"""A process that takes what comes over a link more slowly than it could come, and says how that went.

    python overload_far.py PORT SECONDS_PER_EVENT

An "urgent" event, whose payload is when it was given on the clock of this machine, is timed and not slow.
Each "look" notes how much memory is resident, and the waiting times of urgent events since the last one. At
the end of standard input all is said: that, what was handled, and the accounts of the nexus and of the link.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

from memory_use import resident

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link


async def main(port: int, seconds: float) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    nexus = AsyncEventNexus(name="far", maxsize=500)
    link = Link.connect(f"tcp://127.0.0.1:{port}", name="far")
    nexus.register(link)
    last, in_order = -1, True
    waits: list[float] = []
    looks: list[dict[str, Any]] = []

    def bulk(event: Event[Any]) -> None:
        nonlocal last, in_order
        in_order = in_order and event.payload["n"] > last
        last = event.payload["n"]
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    def look(event: Event[Any]) -> None:
        gc.collect()
        waits.sort()
        p99 = waits[int(len(waits) * 0.99)] if waits else 0.0
        looks.append({"resident": resident(), "p99": p99, "count": len(waits)})
        waits.clear()

    nexus.add_handler("bulk", bulk)
    nexus.add_handler("urgent", lambda event: waits.append(time.monotonic() - event.payload))
    nexus.add_handler("look", look)
    async with nexus:
        await reader.read()
        await nexus.drained()
        stats = nexus.stats()
    found = {
        "looks": looks,
        "in_order": in_order,
        "bulk": stats.types["bulk"].handled,
        "urgent": stats.types["urgent"].handled,
        "balanced": stats.balanced,
        "received": link.counts.received,
        "duplicates": link.counts.duplicates,
    }
    sys.stdout.write(json.dumps(found))


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
