"""Whole events between two nexuses in two processes over a durable link: how many are handled for good.

Each side has an outbox on the same disk. An event counts when the far nexus has handled it and the near one
knows: it was committed here, sent, handled, its cursor committed there, acknowledged. The clock runs from the
first event to the last acknowledgement.

The floor is SQLite alone, in one process: rows of the same bytes, 100 in a transaction, `synchronous=FULL`, a
write-ahead log. The folder is in the working directory: what is measured is the disk under it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import orjson

from benchmarks._harness import ROOT, Contest, Outcome, Target
from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link

DURABLE = "event-nexus: durable link, TCP"
FLOOR = "floor: raw sqlite3, FULL, 100 a commit"
PAYLOAD = {
    "sensor": "oven-3",
    "value": 21.5,
    "unit": "C",
    "at": 1763764500.25,
    "note": "x" * 120,
}
BATCH = 100


async def _durable(events: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix=".outbox-", dir=".") as folder:
        far = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.link_durable", f"{os.getcwd()}/{folder}/far",
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert far.stdin is not None
        assert far.stdout is not None
        try:
            port = int(await asyncio.wait_for(far.stdout.readline(), 30))
            nexus = AsyncEventNexus()
            link = Link.connect(f"tcp://127.0.0.1:{port}", name="near", outbox=f"{folder}/near")
            nexus.register(link)
            nexus.add_handler("reading", link)
            made = [Event(n, "reading", 0, PAYLOAD) for n in range(events)]
            async with nexus:
                await link.connected(10)
                gc.collect()
                start = perf_counter()
                for n in range(0, events, BATCH):
                    await nexus.ingest_many(made[n : n + BATCH])
                await nexus.drained()
                all_there = await link.flushed(100) and link.counts.accepted == events
                took = perf_counter() - start
                balanced = nexus.stats().balanced
        finally:
            far.stdin.close()
            await far.wait()
    return Outcome({"rate": events / took}, bool(balanced and all_there))


async def _floor(events: int) -> Outcome:
    row = orjson.dumps((1, "reading", PAYLOAD))
    with tempfile.TemporaryDirectory(prefix=".outbox-", dir=".") as folder:
        connection = sqlite3.connect(f"{folder}/floor", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, data BLOB)")
        gc.collect()
        start = perf_counter()
        for first in range(0, events, BATCH):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO row VALUES (?, ?)", [(n, row) for n in range(first, first + BATCH)]
            )
            connection.execute("COMMIT")
        took = perf_counter() - start
        connection.close()
    return Outcome({"rate": events / took})


async def _far(path: str) -> None:
    """Handle what comes until standard input ends; prints its port."""
    nexus = AsyncEventNexus()
    link = Link.listen("tcp://127.0.0.1:0", name="far", outbox=path)
    nexus.register(link)
    nexus.add_handler("reading", lambda event: None)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with nexus:
        while not link.port:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        print(link.port, flush=True)
        await reader.read()


def _here(measure: Callable[[int], Awaitable[Outcome]]) -> Callable[..., Outcome]:
    def contestant(events: int) -> Outcome:
        run: Any = measure(events)
        return asyncio.run(run)

    return contestant


CONTESTS = (
    Contest(
        name="link.durable",
        title="events of about 210 bytes handled for good on the far side of a durable link",
        figures={"rate": "events/s"},
        contestants={DURABLE: _here(_durable), FLOOR: _here(_floor)},
        full={"events": 200_000},
        quick={"events": 2_000},
        targets=(Target(DURABLE, FLOOR, at_least=0.5),),
    ),
)


if __name__ == "__main__":
    asyncio.run(_far(sys.argv[1]))
