"""Durable links whose disk fails for a while, in virtual time: nothing is said to be safe before it is."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from failing_world import FULL, IO_FSYNC, IO_WRITE, Disk, Net, QuickFiles, Trace

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.outbox import Connection, Effects, Outbox
from nexus.testing import assert_ledger_balanced, virtual_time

TABLE = "CREATE TABLE IF NOT EXISTS effect (number INTEGER)"
LIMITS = LinkLimits(patience=1.0, heartbeat=60.0)


class End:
    """One side: a nexus, a link, an outbox, and a disk that can be broken."""

    def __init__(self, name: str, folder: Path, net: Net) -> None:
        trace = Trace()
        self.disk = Disk(folder / name, random.Random(1), trace)
        self.outbox = Outbox(self.disk.path, connect=self.disk.connect, run=self.disk.run, files=QuickFiles())
        self.nexus = AsyncEventNexus(name=name, maxsize=100)
        self.link = Link.over(net.dial, name=name, outbox=self.outbox, limits=LIMITS)
        self.nexus.register(self.link)

    def numbers(self) -> list[int]:
        """Read what was done here."""
        with sqlite3.connect(self.disk.path) as connection:
            found = [row[0] for row in connection.execute("SELECT number FROM effect ORDER BY rowid")]
        connection.close()
        return found


@asynccontextmanager
async def ends(folder: Path) -> AsyncIterator[tuple[End, End]]:
    """Run both sides, connected; what comes has an effect on the far one."""
    net = Net(random.Random(1), Trace())
    near, far = End("near", folder, net), End("far", folder, net)
    near.nexus.add_handler("n", near.link)
    async with near.outbox, far.outbox:
        far.outbox.effect(lambda connection: connection.execute(TABLE), lambda exc: None)
        far.nexus.add_handler("n", Effects(far.outbox, write))
        async with far.nexus, near.nexus:
            await near.link.connected(10)
            await far.link.connected(10)
            yield near, far
    net.retire()


def write(connection: Connection, events: Sequence[Event[Any]]) -> None:
    for event in events:
        connection.execute("INSERT INTO effect VALUES (?)", (event.payload,))


def some(first: int, count: int) -> list[Event[int]]:
    return [Event(number, "n", 0, number) for number in range(first, first + count)]


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait, in virtual time, for no longer than allowed."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("code", [FULL, IO_WRITE, IO_FSYNC])
@virtual_time
async def test_what_the_near_disk_does_not_take_waits(tmp_path: Path, code: int) -> None:
    """While the near disk fails nothing goes and nothing counts as handled; the giver waits in the end; a
    second after it works again all is there."""
    async with ends(tmp_path) as (near, far):
        near.disk.fails = code
        giving = asyncio.ensure_future(near.nexus.ingest_many(some(0, 300)))
        await asyncio.sleep(60)
        assert near.outbox.state.condition == "failing"
        assert_ledger_balanced(near.nexus, handled=0)
        assert far.link.counts.received == near.link.counts.accepted == 0
        near.disk.fails = 0
        await until(lambda: near.link.counts.accepted == 300, 1.0)
        await giving
        assert_ledger_balanced(near.nexus, handled=300)
    assert far.numbers() == list(range(300))


@pytest.mark.parametrize("code", [FULL, IO_WRITE, IO_FSYNC])
@virtual_time
async def test_what_the_far_disk_does_not_take_is_not_accepted(tmp_path: Path, code: int) -> None:
    """While the far disk fails it accepts nothing and handles nothing, and has nothing twice afterwards."""
    async with ends(tmp_path) as (near, far):
        await near.nexus.ingest_many(some(0, 50))
        await near.nexus.drained()
        assert await near.link.flushed(10)
        far.disk.fails = code
        await near.nexus.ingest_many(some(50, 500))
        await asyncio.sleep(60)
        assert far.outbox.state.condition == "failing"
        assert near.link.counts.accepted == 50
        assert_ledger_balanced(far.nexus, handled=50, failed=0)
        far.disk.fails = 0
        await until(lambda: near.link.counts.accepted == 550, 1.0)
        assert_ledger_balanced(far.nexus, handled=550, failed=0)
    assert far.numbers() == list(range(550))


@virtual_time
async def test_a_disk_that_fails_between_the_row_and_the_word_for_it_repeats_nothing(tmp_path: Path) -> None:
    """Commits that the disk reports as failed, some of them stored all the same, neither lose nor repeat."""
    async with ends(tmp_path) as (near, far):
        near.disk.rate = far.disk.rate = 0.4
        for first in range(0, 400, 20):
            await near.nexus.ingest_many(some(first, 20))
            await asyncio.sleep(0.5)
        near.disk.rate = far.disk.rate = 0.0
        await near.nexus.drained()
        assert await near.link.flushed(60)
        assert_ledger_balanced(near.nexus, handled=400)
        assert_ledger_balanced(far.nexus, handled=400)
    assert far.numbers() == list(range(400))
