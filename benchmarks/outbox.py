"""Rows of 200 to 250 bytes to the disk: through an outbox, and as plain SQLite stores them.

*rate*: rows a second that are durable. The outbox gets rows from the event loop as fast as it has room, 100
in a turn, and says after each turn when they are safe; the loop goes on meanwhile, which is the point. SQLite
gets the same rows in transactions of 100, with `executemany`, a write-ahead log and ``synchronous=FULL``, and
the loop would stand still.

*lone*: how long one row waits until it is durable, with 1 ms of nothing after each; against a write of the
same size to a plain file and its `fsync`. Both are the disk's; the outbox has a thread and a log on the way.
*Bound* is what is promised: for the outbox its p99, for the plain file 4 times its p99 plus 2 ms.

The files are where temporary files go: `TMPDIR` chooses another disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._harness import Contest, Outcome, Target, percentile
from nexus.boundaries.outbox import Outbox

OUTBOX = "outbox"
SQLITE = "sqlite3, FULL, batches of 100"
FSYNC = "write and fsync"
BATCH = 100
ROWS = [b'["readings",%d,{"value":%s}]' % (number, b"1" * (170 + number % 50)) for number in range(1000)]
AHEAD = 16_384
"""Rows that the loop gives before it waits for the disk."""


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="outbox-") as folder:
        yield folder


def _outbox(seconds: float) -> Outcome:
    async def run(path: str) -> float:
        safe = number = 0
        turned = asyncio.Event()

        def note(upto: int) -> None:
            nonlocal safe
            safe = upto
            outbox.accepted("far", 0, upto)
            turned.set()

        async with Outbox(path) as outbox:
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                for _ in range(BATCH):
                    number += 1
                    outbox.put("far", 0, number, ROWS[number % 1000])
                outbox.then(lambda upto=number: note(upto))
                if number - safe >= AHEAD:
                    turned.clear()
                    await turned.wait()
                else:
                    await asyncio.sleep(0)
            await outbox.durable()
            return number / (time.perf_counter() - began)

    with _folder() as folder:
        return Outcome({"rows": asyncio.run(run(os.path.join(folder, "out.box")))})


def _sqlite(seconds: float) -> Outcome:
    with _folder() as folder:
        con = sqlite3.connect(os.path.join(folder, "raw.db"), isolation_level=None)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            con.execute(f"PRAGMA {pragma}").fetchall()
        con.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, row BLOB)")
        number = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            rows = [(each, ROWS[each % 1000]) for each in range(number + 1, number + BATCH + 1)]
            con.execute("BEGIN")
            con.executemany("INSERT INTO rows VALUES (?, ?)", rows)
            con.execute("COMMIT")
            number += BATCH
        rate = number / (time.perf_counter() - began)
        con.close()
    return Outcome({"rows": rate})


def _waits(waits: list[float], factor: float = 1, plus: float = 0) -> Outcome:
    p99 = percentile(waits, 99) * 1e3
    return Outcome({"p99": p99, "p50": percentile(waits, 50) * 1e3, "bound": factor * p99 + plus})


def _lone_outbox(count: int) -> Outcome:
    async def run(path: str) -> list[float]:
        waits = []
        async with Outbox(path) as outbox:
            for number in range(1, count + 1):
                began = time.perf_counter()
                outbox.put("far", 0, number, ROWS[number % 1000])
                await outbox.durable()
                waits.append(time.perf_counter() - began)
                await asyncio.sleep(0.001)
        return waits

    with _folder() as folder:
        return _waits(asyncio.run(run(os.path.join(folder, "out.box"))))


def _lone_fsync(count: int) -> Outcome:
    waits = []
    with _folder() as folder, open(os.path.join(folder, "probe"), "wb", buffering=0) as file:
        for number in range(count):
            began = time.perf_counter()
            file.write(ROWS[number % 1000])
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - began)
            time.sleep(0.001)
    return _waits(waits, factor=4, plus=2)


CONTESTS = (
    Contest(
        name="outbox.rate",
        title="rows of 200 to 250 bytes made durable",
        figures={"rows": "rows/s"},
        contestants={OUTBOX: _outbox, SQLITE: _sqlite},
        full={"seconds": 3.0},
        quick={"seconds": 0.3},
        targets=(Target(OUTBOX, SQLITE, at_least=0.5),),
    ),
    Contest(
        name="outbox.lone",
        title="one row until it is durable",
        figures={"p99": "ms", "p50": "ms", "bound": "ms"},
        contestants={OUTBOX: _lone_outbox, FSYNC: _lone_fsync},
        full={"count": 2000},
        quick={"count": 100},
        targets=(Target(OUTBOX, FSYNC, at_most=1.0, figure="bound"),),
    ),
)
