"""Disks that fail at any call: nothing is called safe that is not, and the outbox goes on when they do."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import pytest
from real import require

from nexus.boundaries.outbox import Cursor, Outbox
from nexus.boundaries.outbox._schema import Broken, Trouble
from nexus.boundaries.outbox._store import Batch, Lane, Store
from nexus.errors import OpenError
from nexus.testing import run

try:
    import apsw
    from power_cut import FAULTS, Disk, SimulatedFile, simulated
except ImportError:
    apsw = None

T = TypeVar("T")

PATH = "/out.box"
AGAIN = 1.0
"""Seconds after which it must go on when the disk works again."""


@pytest.fixture(autouse=True)
def sqlite_with_a_disk_of_ours() -> None:
    """Skip by name where SQLite cannot be given another disk."""
    require("apsw, which gives SQLite another disk", apsw, "pip install apsw")


async def inline(work: Callable[[], T]) -> T:
    """Do what blocks, after a moment."""
    await asyncio.sleep(0.001)
    return work()


@attrs.define
class Told:
    """What was given to the outbox, and what it said is safe."""

    put: int = 0
    safe: int = 0
    table: list[BaseException | None] = attrs.field(factory=list)
    refused: list[BaseException] = attrs.field(factory=list)
    effects_safe: list[int] = attrs.field(factory=list)
    waited: float = 0.0
    """Seconds from the end of the fault until all was safe."""


async def live(disk: "Disk", how: dict[str, Any], rng: random.Random, told: Told) -> None:
    """Use an outbox while its disk fails, mend the disk after a while, and close it."""
    outbox = Outbox(PATH, run=inline, **how)
    while True:
        try:
            await outbox.open()
            break
        except OpenError:
            await asyncio.sleep(0.01)
            if rng.random() < 0.2:
                disk.mend()
    create = "CREATE TABLE IF NOT EXISTS mine (n)"
    outbox.effect(lambda con: con.execute(create), told.table.append)
    for _ in range(25):
        for _ in range(rng.choice([1, 2, 30])):
            told.put += 1
            outbox.put("far", 0, told.put, row(told.put))
        number = told.put
        outbox.effect(
            lambda con, number=number: _insert(con, number), lambda exc, n=number: note(told, n, exc)
        )
        outbox.advance("source", 0, Cursor(number))
        outbox.then(lambda number=number: setattr(told, "safe", number))
        if rng.random() < 0.3 and told.safe:
            outbox.accepted("far", 0, rng.randint(0, told.safe))
        await asyncio.sleep(rng.choice([0, 0.001, 0.005]))
    disk.mend()
    began = asyncio.get_running_loop().time()
    await outbox.durable()
    told.waited = asyncio.get_running_loop().time() - began
    assert told.safe == told.put
    assert told.table == [None], told.table
    await outbox.aclose()


def _insert(con: Any, number: int) -> None:
    con.execute("INSERT INTO mine VALUES (?)", (number,))


def note(told: Told, number: int, exc: BaseException | None) -> None:
    """Note what became of an effect."""
    if exc is None:
        told.effects_safe.append(number)
    else:
        told.refused.append(exc)


def row(number: int) -> bytes:
    """Make the row that belongs to a number."""
    return f"row {number} ".encode() * (number % 30)


def judge(disk: "Disk", told: Told) -> None:
    """Check that all that was safe is in what a cut has left, whole and once."""
    assert not told.refused, told.refused
    with simulated(disk) as how:
        store = Store(PATH, **how)
        store.open()
        assert not store.set_aside, "damaged"
        assert not store.damaged, "rows are missing"
        lane = store.lanes.get(("far", 0))
        last, accepted = (lane.last, lane.accepted) if lane else (0, 0)
        assert told.safe <= last <= told.put, f"{told.safe} safe, {last} there"
        rows = store.read("far", 0, accepted + 1, 10**6, 10**9)
        assert rows == [row(number) for number in range(accepted + 1, last + 1)]
        con = store._con
        assert con is not None
        cursor = store.cursors.get(("source", 0), Cursor(0)).accepted
        effects = [n for (n,) in con.execute("SELECT n FROM mine")] if cursor else []
        assert len(effects) == len(set(effects)), "twice"
        assert set(told.effects_safe) <= set(effects), "lost"
        assert max(effects, default=0) == cursor
        store.close()


def fail_once(seed: str, at: int = 0, fault: Any = None) -> tuple[Told, int]:
    """Let a disk fail at some call, perhaps cut the power at another, and judge what is there."""
    rng = random.Random(seed)
    disk, told = Disk(rng, tears=rng.random() < 0.5), Told()
    disk.fault = fault or rng.choice(FAULTS)
    disk.fault_at = at or rng.randint(1, 500)
    disk.fault_calls = rng.choice([1, 1, 1, 2, 10, 1000])
    # Often soon after the fault: what was not really flushed is lost then.
    if rng.random() < 0.6:
        disk.cut_at = disk.fault_at + rng.choice([rng.randint(2, 30), rng.randint(2, 400)])
    with simulated(disk, checkpoint=rng.choice([5, 20, 100])) as how:

        async def until_cut() -> None:
            task = asyncio.create_task(live(disk, how, rng, told), name="live")
            while not task.done() and not disk.is_off:
                await asyncio.wait([task], timeout=0.01)
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

        run(until_cut(), limit=600)
    struck = disk.struck
    disk.restart()
    judge(disk, told)
    return told, struck


def test_disk_that_fails_anywhere_loses_nothing(form: Any, figures: Callable[..., None]) -> None:
    """Whichever call fails, however often: nothing safe is lost, nothing done twice, and it goes on soon."""
    points = struck = offered = 0
    slowest = 0.0
    while struck < form.size(300, 5000):
        points += 1
        told, hits = fail_once(f"{form.seed}/{points}", at=points % 600 + 1)
        assert told.waited <= AGAIN, points
        struck += bool(hits)
        offered += told.put
        slowest = max(slowest, told.waited)
    figures(points=points, struck=struck, offered=offered, lost=0, duplicated=0, slowest_s=round(slowest, 3))


def early(commit: Callable[[Store, Batch], None]) -> Callable[[Store, Batch], None]:
    """Say that rows are safe although the commit failed."""

    def mutant(store: Store, batch: Batch) -> None:
        try:
            commit(store, batch)
        except Trouble:
            store.recover()

    return mutant


def test_early_word_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgement sees an outbox that takes a failure for a success."""
    monkeypatch.setattr(Store, "commit", early(Store.commit))
    caught = 0
    for number in range(60):
        try:
            fail_once(f"mutant/{number}")
        except (AssertionError, Trouble, Broken, apsw.Error):
            caught += 1
    assert caught >= 3


def test_second_flush_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgement sees an outbox that flushes again what could not be flushed, and takes it for safe."""

    def stubborn(file: Any, flags: int) -> None:
        try:
            flush(file, flags)
        except apsw.IOError:
            flush(file, flags)

    flush = SimulatedFile.xSync
    monkeypatch.setattr(SimulatedFile, "xSync", stubborn)
    caught = 0
    for number in range(60):
        try:
            fail_once(f"flush/{number}", fault="sync")
        except (AssertionError, Trouble, Broken, apsw.Error):
            caught += 1
    assert caught >= 3


def die_and_return(seed: str) -> bool:
    """Let a process die when a flush has failed, and cut the power while the next one opens the file."""
    rng = random.Random(seed)
    disk, told = Disk(rng), Told()
    with simulated(disk) as how:
        store = Store(PATH, **how)
        store.open()
        disk.fault, disk.fault_calls, disk.fault_at = "sync", 1, disk.calls + rng.randint(1, 60)
        try:
            while True:
                first, count = told.put + 1, rng.choice([1, 5, 60])
                told.put += count
                rows = [row(number) for number in range(first, told.put + 1)]
                store.commit(Batch(rows={("far", 0): (first, rows)}))
                told.safe = told.put
        except Trouble:
            pass
        disk.cut_at = disk.calls + rng.randint(1, 80)
        returned = Store(PATH, **how)
        try:
            returned.open()
            told.safe = returned.lanes.get(("far", 0), Lane()).last
        except Trouble:
            pass
        is_cut, disk.is_off = disk.is_off, True
    disk.restart()
    judge(disk, told)
    return is_cut


def test_file_of_a_dead_process_is_not_believed(form: Any, figures: Callable[..., None]) -> None:
    """What could not be flushed before a process died does no damage when another one opens the file."""
    points = form.size(150, 3000)
    cuts = sum(die_and_return(f"{form.seed}/die/{number}") for number in range(points))
    assert cuts > points / 5
    figures(points=points, cuts=cuts, lost=0)


def test_believed_log_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgement sees an outbox that goes on with the log of a dead process as it finds it."""
    monkeypatch.setattr(Store, "_rewrite_log", lambda store: None)
    caught = 0
    for number in range(150):
        try:
            die_and_return(f"believed/{number}")
        except (AssertionError, Trouble, Broken, apsw.Error):
            caught += 1
    assert caught
