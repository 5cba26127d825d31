"""Bytes a queued event takes, and what `import nexus` costs."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter

from benchmarks._harness import OURS, ROOT, Contest, Limit, Outcome, Target
from benchmarks.peers import SlottedEvent
from nexus import AsyncEventNexus, Event

TRANSPORTS = (
    "zmq",
    "aiomqtt",
    "paho",
    "serial",
    "serial_asyncio",
    "nats",
    "aiokafka",
    "orjson",
    "click",
    "rich",
)


def _queued(events: int) -> Outcome:
    return asyncio.run(_queue_in_a_nexus(events))


async def _queue_in_a_nexus(events: int) -> Outcome:
    nexus = AsyncEventNexus(maxsize=events)
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait_at_the_gate(event: Event[float]) -> None:
        entered.set()
        await gate.wait()

    nexus.add_handler("gate", wait_at_the_gate)
    nexus.add_handler("reading", lambda event: None)
    nexus.start()
    # While the first event is being handled, what follows stays queued.
    await nexus.ingest(Event(0, "gate", 0, 0.0))
    await entered.wait()
    ids, values = _ids_and_values(events)

    def fill() -> object:
        for n, value in zip(ids, values, strict=True):
            nexus.ingest_nowait(Event(n, "reading", 0, value))
        return nexus

    size = _grown_by(fill) / events
    lanes = nexus.stats().lanes
    if sum(lanes.values()) != events:
        raise AssertionError(f"{events} events ingested, but the lanes hold {dict(lanes)}")
    gate.set()
    await nexus.drained()
    report = await nexus.stop()
    return Outcome({"bytes": size}, report.stats.balanced)


def _in_a_deque(events: int) -> Outcome:
    ids, values = _ids_and_values(events)

    def fill() -> object:
        return deque(SlottedEvent(n, "reading", 0, value) for n, value in zip(ids, values, strict=True))

    return Outcome({"bytes": _grown_by(fill) / events})


def _ids_and_values(count: int) -> tuple[list[int], list[float]]:
    # Made beforehand, so that only the event and its place in the queue are weighed.
    return list(range(1000, 1000 + count)), [float(n) for n in range(count)]


def _grown_by(fill: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = fill()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        del held
    finally:
        tracemalloc.stop()
    return grown


_PROBE = """
import json, sys, time
start = time.perf_counter()
{statement}
took = time.perf_counter() - start
loaded = [name for name in {transports!r} if name in sys.modules]
print(json.dumps([took, len(sys.modules), loaded]))
"""


def _imported(statement: str) -> Outcome:
    program = _PROBE.format(statement=statement, transports=TRANSPORTS)
    _python(program)  # writes the bytecode if it is not there yet
    took, modules, loaded = json.loads(_python(program))
    start = perf_counter()
    _python(statement)
    whole = perf_counter() - start
    return Outcome(
        {"import": took * 1e3, "process": whole * 1e3, "modules": modules, "transports": len(loaded)}
    )


def _python(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


CONTESTS = (
    Contest(
        name="memory.event",
        title="a queued event, beside a slotted attrs object of the same four fields in a deque",
        figures={"bytes": "bytes/event"},
        contestants={OURS: _queued, "attrs.define in a deque": _in_a_deque},
        full={"events": 100_000},
        quick={"events": 2_000},
        targets=(Target(OURS, "attrs.define in a deque", at_most=1.15),),
    ),
    Contest(
        name="memory.import",
        title="the import statement alone, and a whole process that does nothing else",
        figures={"import": "ms", "process": "ms", "modules": "modules", "transports": "transports"},
        contestants={
            statement: partial(_imported, statement)
            for statement in (
                "import nexus",
                "import asyncio",
                "import asyncio, attrs",
                "from nexus import AsyncEventNexus",
            )
        },
        full={},
        quick={},
        targets=(
            Target("import nexus", "import asyncio", at_most=1.25),
            Target("import nexus", "import asyncio", at_most=1.25, figure="process"),
        ),
        limits=(
            Limit("import nexus", "transports", at_most=0),
            Limit("from nexus import AsyncEventNexus", "transports", at_most=0),
        ),
        rounds=21,
    ),
)
