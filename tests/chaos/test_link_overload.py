"""A source that gives twice what the far side can do: level memory, urgent events in time, exact accounts."""

import asyncio
import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
from memory_use import resident

from nexus import AsyncEventNexus, DropOldest, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.testing import assert_ledger_balanced

FAR = Path(__file__).parent.parent / "support" / "overload_far.py"
CAPACITY = 2000
"""Events a second that the far side handles."""
WAIT = 60.0


@attrs.define(eq=False)
class Flood:
    """One nexus that gives, and its link to a process that cannot keep up."""

    nexus: AsyncEventNexus
    link: Link
    bulk: int = 0
    urgent: int = 0

    async def give(self, seconds: float, rate: float) -> None:
        """Give bulk at a rate, as far as there is room, and an urgent event every 20 ms."""
        began = time.monotonic()
        giving = asyncio.ensure_future(self._bulk(began, seconds, rate))
        while (now := time.monotonic()) < began + seconds:
            await self.nexus.ingest(Event(self.urgent, "urgent", -10, now))
            self.urgent += 1
            await asyncio.sleep(0.02)
        giving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving

    async def _bulk(self, began: float, seconds: float, rate: float) -> None:
        given = 0
        while True:
            due = int((time.monotonic() - began) * rate)
            for _ in range(max(0, due - given)):
                await self.nexus.ingest(Event(self.bulk, "bulk", 0, {"n": self.bulk, "text": "x" * 100}))
                self.bulk += 1
            given = due
            await asyncio.sleep(0.002)

    async def look(self) -> int:
        """Have the far side look at its memory and its times, and return the own memory."""
        await self.nexus.ingest(Event(0, "look", -10, None))
        gc.collect()
        return resident()


@pytest.mark.parametrize("policy", ["block", "shed"])
async def test_twice_what_the_far_side_can_do(policy: str, form: Any, figures: Any) -> None:
    """Whether the source waits or drops, memory stays level on both sides, urgent events do not wait in line,
    and the two accounts together add up to the event."""
    asyncio.get_running_loop().set_debug(False)
    seconds = form.size(2, 120)
    nexus = AsyncEventNexus(name="near", maxsize=500)
    if policy == "shed":
        nexus.set_policy("bulk", DropOldest())
    link = Link.listen("tcp://127.0.0.1:0", name="near", limits=LinkLimits(maxsize=500))
    nexus.register(link)
    for type_ in ("bulk", "urgent", "look"):
        nexus.add_handler(type_, link)
    async with nexus:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(FAR), str(link.port), str(1 / CAPACITY)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        flood = Flood(nexus, link)
        async with asyncio.timeout(WAIT):
            while not link.counts.peers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await flood.give(seconds / 2, CAPACITY / 4)
        await flood.look()  # unloaded
        await flood.give(max(1.0, seconds / 10), 2 * CAPACITY)  # warm
        before = await flood.look()
        await flood.give(seconds, 2 * CAPACITY)
        grown = await flood.look() - before
        async with asyncio.timeout(WAIT):
            await nexus.drained()
            assert await link.flushed(WAIT)
            out, _ = await process.communicate(b"")
        counts, stats = link.counts, nexus.stats()
    far = json.loads(out)
    unloaded, warm, loaded = far["looks"]
    dropped = stats.types["bulk"].dropped
    figures(
        offered=flood.bulk + flood.urgent,
        delivered=far["bulk"] + far["urgent"],
        dropped_by_policy=dropped,
        lost=flood.bulk - dropped - far["bulk"] + flood.urgent - far["urgent"],
        duplicated=0,
        urgent_p99_ms=round(loaded["p99"] * 1e3, 2),
        unloaded_p99_ms=round(unloaded["p99"] * 1e3, 2),
        near_drift_bytes=grown,
        far_drift_bytes=loaded["resident"] - warm["resident"],
    )
    assert_ledger_balanced(stats, queued=0, failed=0, unhandled=0)
    assert far["balanced"]
    assert far["in_order"]
    assert far["bulk"] == flood.bulk - dropped
    assert far["urgent"] == flood.urgent
    assert counts.taken == counts.accepted == far["received"] == far["bulk"] + far["urgent"] + 3
    assert bool(dropped) is (policy == "shed")
    assert max(grown, loaded["resident"] - warm["resident"]) <= 8 << 20
    # In line an urgent event would wait for up to 1,500 others, three quarters of a second.
    assert loaded["p99"] < 10 * unloaded["p99"] + 0.25
