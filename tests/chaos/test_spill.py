"""A flood that spills to the disk, in a process that is killed again and again: nothing durable is lost."""

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

FLOOD = Path(__file__).parent.parent / "support" / "spill_flood.py"
WAIT = 60.0
FAR_APART = 1_000_000
"""Between the first numbers of two lives."""

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")


async def live(path: Path, log: Path, first: int, seconds: float, kill_after: float | None) -> None:
    """Run the process, and kill it after so many seconds; None for a good end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(FLOOD), str(path), str(log), str(first), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), WAIT) == b"ready\n"
        if kill_after is None:
            assert await asyncio.wait_for(process.stdout.readline(), 10 * WAIT) == b"done\n"
        else:
            await asyncio.sleep(kill_after)
    finally:
        if process.returncode is None and kill_after is not None:
            process.kill()
        await asyncio.wait_for(process.wait(), WAIT)


def read(log: Path) -> dict[str, list[float]]:
    """Read what the lives have written down; the last line of one that was killed may be half a line."""
    found: dict[str, list[float]] = {"durable": [], "handled": [], "memory": [], "urgent": []}
    for line in log.read_text().splitlines():
        word, _, value = line.partition(" ")
        if word in found and value:
            found[word].append(float(value))
    return found


@needs_proc
async def test_killed_in_a_flood(form: Any, figures: Any, tmp_path: Path) -> None:
    """At twice the capacity, killed at any moment: all that was durable is handled, in its order, by a later
    life; memory stays level, and urgent events do not wait in line."""
    rng = random.Random(form.seed)
    path, kills = tmp_path / "spilled", form.size(4, 200)
    durable: set[float] = set()
    handled: list[float] = []
    drift = 0.0
    urgent: list[float] = []
    for number in range(kills + 1):
        log = tmp_path / f"log-{number}"
        is_last = number == kills
        after = None if is_last else rng.uniform(0.5, 2.0)
        await live(path, log, number * FAR_APART, 0 if is_last else 1000, after)
        told = read(log)
        durable.update(told["durable"])
        handled += told["handled"]
        urgent += told["urgent"]
        assert told["handled"] == sorted(told["handled"])
        memory = told["memory"]
        if len(memory) > 4:
            drift = max(drift, max(memory) - memory[2])
        log.unlink()
    urgent.sort()
    lost = durable - set(handled)
    figures(
        offered=len(durable),
        delivered=len(set(handled)),
        lost=len(lost),
        duplicated=len(handled) - len(set(handled)),
        rss_drift_bytes=drift,
        urgent_p99_ms=urgent[int(len(urgent) * 0.99)] * 1e3,
    )
    assert not lost
    assert len(durable) > 200 * kills
    assert drift < 8 << 20
    assert urgent[len(urgent) // 2] < 0.02  # in line it would be a tenth of a second and more
