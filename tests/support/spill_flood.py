"""A process whose nexus is given twice what it can handle, of a type that spills to a file.

    python spill_flood.py FILE LOG FIRST SECONDS

Gives events with numbers from FIRST on for so many seconds and then drains; 0 seconds only drain. LOG gets a
line for each thing that happened: ``durable N`` when all up to N that went to the disk are there, ``handled
N``, ``memory BYTES``, ``urgent SECONDS`` an urgent event has waited. Standard output says ``ready`` and, at a
good end, ``done``.
"""

import asyncio
import gc
import sys
import time
from typing import Any, TextIO

from memory_use import resident

from nexus import AsyncEventNexus, Event, Spill
from nexus.boundaries.outbox import SpillFile

LANE = 500
LOTS_A_SECOND = 200
LOT = 30
"""Events given at once; the handler takes half as many meanwhile."""
WORK = 1 / (LOTS_A_SECOND * LOT) * 2
"""Seconds of the processor for each event."""


class Watched(SpillFile):
    """Knows which events went to the disk."""

    def __init__(self, path: str, log: TextIO) -> None:
        super().__init__(path)
        self.log = log
        self.spilled: list[int] = []

    def put(self, event: Event[Any]) -> int | None:
        number = super().put(event)
        if number is not None:
            self.spilled.append(event.payload)
        return number

    async def report(self) -> None:
        """Wait until what was spilled so far is on the disk, and write that down."""
        spilled, self.spilled = self.spilled, []
        await self.durable()
        self.log.write("".join(f"durable {number}\n" for number in spilled))


async def main(path: str, log: TextIO, first: int, seconds: float) -> None:
    """Flood a nexus, and drain it."""
    nexus = AsyncEventNexus(maxsize=LANE)
    file = Watched(path, log)

    def handle(event: Event[int]) -> None:
        log.write(f"handled {event.payload}\n")
        until = time.perf_counter() + WORK
        while seconds and time.perf_counter() < until:
            pass

    def urgent(event: Event[float]) -> None:
        log.write(f"urgent {time.perf_counter() - event.payload}\n")

    nexus.add_handler("t", handle)
    nexus.add_handler("urgent", urgent)
    nexus.set_policy("t", Spill(file))
    async with nexus:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        began = time.perf_counter()
        number, lots = first, 0
        reporting = asyncio.ensure_future(file.report())
        while time.perf_counter() - began < seconds:
            await nexus.ingest_many(Event(n, "t", 0, n) for n in range(number, number + LOT))
            number += LOT
            lots += 1
            await nexus.ingest(Event(0, "urgent", -1, time.perf_counter()))
            if lots % 20 == 0:
                gc.collect()
                log.write(f"memory {resident()}\n")
            if reporting.done():
                reporting.result()
                reporting = asyncio.ensure_future(file.report())
            await asyncio.sleep(max(0.0, began + lots / LOTS_A_SECOND - time.perf_counter()))
        await reporting
        await nexus.drained()
    sys.stdout.write("done\n")
    sys.stdout.flush()


with open(sys.argv[2], "a", buffering=1, encoding="ascii") as log:
    asyncio.run(main(sys.argv[1], log, int(sys.argv[3]), float(sys.argv[4])))
