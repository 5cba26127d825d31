"""Power cuts under the outbox: what was said to be safe is there, whole, whatever else a cut has kept."""

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from real import require

from nexus.boundaries.outbox import Cursor
from nexus.boundaries.outbox._schema import Broken, Trouble
from nexus.boundaries.outbox._store import Batch, Effect, Store

try:
    import apsw
    from power_cut import Disk, simulated
except ImportError:
    apsw = None

PATH = "/out.box"
LANES = [("far", -1), ("far", 0), ("other", 3)]


@pytest.fixture(autouse=True)
def sqlite_with_a_disk_of_ours() -> None:
    """Skip by name where SQLite cannot be given another disk."""
    require("apsw, which gives SQLite another disk", apsw, "pip install apsw")


@attrs.define
class Promise:
    """What the outbox said is safe."""

    last: dict[tuple[str, int], int] = attrs.field(factory=lambda: dict.fromkeys(LANES, 0))
    cursor: int = 0
    commits: int = 0


def row(key: tuple[str, int], number: int) -> bytes:
    """Make the row that belongs to a number, and to no other."""
    return f"{key}{number}".encode() * (1 + number * 7 % 40)


def batch_after(given: Promise, rng: random.Random) -> Batch:
    """Make a commit of rows, of what was accepted, and of an effect with its cursor; count it as given."""
    batch = Batch()
    for key in rng.sample(LANES, rng.randint(1, 3)):
        first, count = given.last[key] + 1, rng.choice([1, 3, 40])
        batch.rows[key] = (first, [row(key, number) for number in range(first, first + count)])
        given.last[key] += count
        if rng.random() < 0.4:
            batch.accepted[key] = rng.randint(0, first - 1)
    given.cursor += 1
    batch.cursors["source", 0] = Cursor(given.cursor)
    number = given.cursor
    batch.effects.append(
        Effect(lambda con: con.execute("INSERT INTO mine VALUES (?)", (number,)), lambda exc: None)
    )
    return batch


def work(disk: "Disk", store: Store, rng: random.Random, *, commits: int) -> tuple[Promise, Promise, Promise]:
    """Commit until the power is cut; tell what was safe, what of it was flushed, and what was given."""
    safe, flushed, given = Promise(), Promise(), Promise()

    def note(name: str) -> None:
        nonlocal flushed
        if name.endswith("-wal"):
            flushed = attrs.evolve(safe, last=dict(safe.last))

    disk.on_flush = note
    try:
        store.open()
        table = Batch(effects=[Effect(lambda con: con.execute("CREATE TABLE mine (n)"), lambda exc: None)])
        store.commit(table)
        safe.commits = given.commits = 1
        for _ in range(commits):
            batch = batch_after(given, rng)
            given.commits += 1
            store.commit(batch)
            safe = attrs.evolve(given, last=dict(given.last))
    except (Trouble, Broken):
        assert disk.is_off
    else:
        disk.is_off = True
    disk.on_flush = lambda name: None
    return safe, flushed, given


def judge(store: Store, given: Promise) -> Promise:
    """Open what a cut has left, check that all of it is whole, and tell how much is there."""
    store.open()
    assert not store.set_aside, "damaged"
    assert not store.damaged, "rows are missing"
    found = Promise(commits=given.commits)
    for key, lane in store.lanes.items():
        numbers = range(lane.accepted + 1, lane.last + 1)
        assert store.read(*key, lane.accepted + 1, 10**6, 10**9) == [row(key, number) for number in numbers]
        assert lane.last <= given.last[key]
        found.last[key] = lane.last
    found.cursor = store.cursors.get(("source", 0), Cursor(0)).accepted
    con = store._con
    assert con is not None
    if list(con.execute("SELECT name FROM sqlite_master WHERE name='mine'")):
        effects = [number for (number,) in con.execute("SELECT n FROM mine ORDER BY n")]
        assert effects == list(range(1, found.cursor + 1)), "an effect without its cursor, or twice"
    return found


def cut_once(seed: str, synchronous: str, *, commits: int = 60) -> tuple[Promise, Promise, Promise]:
    """Cut the power at some call, sometimes again during recovery; tell what was safe and what is there."""
    rng = random.Random(seed)
    disk = Disk(rng, tears=rng.random() < 0.7)
    disk.cut_at = rng.randint(1, 1200)
    with simulated(disk, checkpoint=rng.choice([5, 20, 100])) as how:
        safe, flushed, given = work(disk, Store(PATH, synchronous, **how), rng, commits=commits)
    disk.restart()
    while rng.random() < 0.4:
        disk.cut_at = disk.calls + rng.randint(1, 60)
        with simulated(disk) as how:
            try:
                Store(PATH, synchronous, **how).open()
            except Trouble:
                assert disk.is_off
        disk.restart()
    with simulated(disk) as how:
        return safe, flushed, judge(Store(PATH, synchronous, **how), given)


def lacks(found: Promise, promised: Promise) -> bool:
    """Say whether something is not there that was promised."""
    return found.cursor < promised.cursor or any(found.last[key] < promised.last[key] for key in LANES)


def test_full_loses_nothing_that_was_safe(form: Any, figures: Callable[..., None]) -> None:
    """With `full`, no cut loses a row, a cursor or an effect that was safe, and none does damage."""
    cuts, promised = form.size(60, 3000), 0
    for number in range(cuts):
        safe, _, found = cut_once(f"{form.seed}/full/{number}", "full")
        assert not lacks(found, safe), number
        promised += safe.commits
    assert promised > cuts * 5
    figures(cuts=cuts, offered=promised, lost=0, damaged=0)


def test_normal_loses_the_tail_at_most(form: Any, figures: Callable[..., None]) -> None:
    """With `normal`, a cut loses what was committed since the log was last flushed, and does no damage."""
    cuts, lost, promised = form.size(40, 2000), 0, 0
    for number in range(cuts):
        safe, flushed, found = cut_once(f"{form.seed}/normal/{number}", "normal")
        assert not lacks(found, flushed), number
        promised += safe.commits
        lost += safe.cursor - min(safe.cursor, found.cursor)
    assert lost, "no cut has cost anything: the cuts are not sharp"
    figures(cuts=cuts, offered=promised, lost=lost, damaged=0)


def test_cuts_are_sharp() -> None:
    """Without any flush, cuts lose and damage: a judgement that sees nothing would say nothing."""
    harmed = 0
    for number in range(20):
        try:
            safe, _, found = cut_once(f"off/{number}", "off")
            harmed += lacks(found, safe)
        except (AssertionError, Broken, Trouble):
            harmed += 1
    assert harmed >= 15


def test_early_word_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outbox that says that rows are safe before they are committed is found out."""

    def early(store: Store, batch: Batch) -> None:
        try:
            commit(store, batch)
        except Trouble:
            return  # said to be safe all the same

    commit = Store.commit
    monkeypatch.setattr(Store, "commit", early)
    caught = 0
    for number in range(10):
        try:
            safe, _, found = cut_once(f"early/{number}", "full")
            caught += lacks(found, safe)
        except (AssertionError, Broken, Trouble):
            caught += 1
    assert caught >= 5
