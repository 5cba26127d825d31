"""Damaged outboxes: never a wrong row, never a program that stops; what can be read is, the file is kept."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from outbox_damage import LANES, flipped, judge_some, make, row

from nexus.boundaries.outbox import Outbox, OutboxState
from nexus.boundaries.outbox._pages import records
from nexus.boundaries.outbox._salvage import remains
from nexus.boundaries.outbox._store import Batch, Store
from nexus.boundaries.outbox._tend import look


@pytest.fixture
def folder() -> Iterator[str]:
    """Give a folder in memory where there is one: nothing here is about flushing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as found:
        yield found


def test_one_wrong_bit_costs_a_page_at_most(folder: str) -> None:
    """Whichever bit is wrong, no row is, the others are read, and the outbox goes on."""
    cases, lost, most, wrong = judge_some(folder, "bit", 0, 291)
    assert not wrong
    assert cases > 1800
    assert most <= 70
    assert lost < cases


def test_file_may_end_anywhere(folder: str) -> None:
    """A file that was cut gives the rows that are left, and no others. An empty one is new."""
    cases, _, _, wrong = judge_some(folder, "cut", 1, 97)
    assert not wrong
    assert cases > 670


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count"), [("bit", 2**19), ("cut", 2**16)])
def test_damage_everywhere(kind: str, count: int, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every single bit, and every length."""
    began = time.perf_counter()
    script = Path(__file__).parents[2] / "support" / "outbox_damage.py"

    def part(first: int) -> tuple[int, int, int, list[str]]:
        command = (sys.executable, str(script), folder, kind, str(first), "64")
        found = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        cases, lost, most, wrong = json.loads(found.stdout)
        return cases, lost, most, wrong

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begin = 1 if kind == "cut" else 0  # an empty file is a new one
        done = list(pool.map(part, range(begin, begin + 64)))
    wrong = [each for part in done for each in part[3]]
    cases, lost, most = (
        sum(part[0] for part in done),
        sum(part[1] for part in done),
        max(p[2] for p in done),
    )
    with capsys.disabled():
        line = {
            "law": f"damage: {kind}",
            "cases": cases,
            "rows_lost": lost,
            "most": most,
        }
        sys.stdout.write(f"\n{json.dumps(line | {'wall_s': round(time.perf_counter() - began)})}\n")
    assert not wrong[:5]
    assert cases >= count - begin


async def test_damage_is_found_while_reading_and_told(folder: str) -> None:
    """A row that went bad is a tombstone, the others are there, and listeners are told."""
    path, states = os.path.join(folder, "out.box"), list[OutboxState]()
    async with Outbox(path) as outbox:
        outbox.on_state(states.append)
        for number in range(1, 1001):
            outbox.put("far", 0, number, b"row %d" % number)
        await outbox.durable()
    change(path, b"row 500", b"row 50O")
    async with Outbox(path) as outbox:
        outbox.on_state(states.append)
        rows = await outbox.read("far", 0, 1)
        assert rows[499] == b"null"
        assert [row for row in rows if row != b"null"] == [b"row %d" % n for n in range(1, 1001) if n != 500]
        (damaged,) = outbox.state.damaged
        assert (damaged.stream, damaged.priority, damaged.first, damaged.last) == ("far", 0, 500, 500)
        (kept,) = outbox.state.set_aside
        assert kept == path + ".damaged-1"
        assert os.stat(kept).st_size
        outbox.put("far", 0, 1001, b"next")
        await outbox.durable()
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 499, most_rows=3) == [b"row 499", b"null", b"row 501"]
        assert await outbox.read("far", 0, 1001) == [b"next"]
        assert outbox.state.damaged == (damaged,)


def change(path: str, old: bytes, new: bytes) -> None:
    """Change some bytes of a file."""
    data = Path(path).read_bytes()
    assert data.count(old) == 1
    Path(path).write_bytes(data.replace(old, new))


async def test_tables_of_effects_are_salvaged(folder: str) -> None:
    """What effects have stored comes along, with its indexes."""
    path, told = os.path.join(folder, "out.box"), list[Any]()
    async with Outbox(path) as outbox:
        outbox.effect(lambda con: con.execute("CREATE TABLE mine (n UNIQUE)"), told.append)
        outbox.effect(lambda con: con.execute("CREATE INDEX by_n ON mine (n)"), told.append)
        outbox.effect(lambda con: con.execute("INSERT INTO mine VALUES (1), (2), (3)"), told.append)
        outbox.put("far", 0, 1, b"the only row")
    change(path, b"the only row", b"the 0nly row")
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 1) == [b"null"]
        sql = "SELECT n, (SELECT count(*) FROM sqlite_master WHERE name='by_n') FROM mine"
        outbox.effect(lambda con: told.append(list(con.execute(sql))), told.append)
        await outbox.durable()
    assert told == [None, None, None, [(1, 1), (2, 1), (3, 1)], None]


@pytest.mark.parametrize(("wrong", "right"), [(9, 11), (3, 31), (2, 1), (35, 11)])
async def test_rows_under_a_wrong_number_find_their_place(folder: str, wrong: int, right: int) -> None:
    """Rows whose number is damaged, and looks sound, are put back where their checksums say."""
    path = os.path.join(folder, "out.box")
    rows = [b"row %d" % number for number in range(1, 41)]
    async with Outbox(path) as outbox:
        for number, each in enumerate(rows, start=1):
            outbox.put("far", 0, number, each)
            if number % 10 == 0:
                await outbox.durable()
    con = sqlite3.connect(path)
    con.execute(f"UPDATE groups SET first = {wrong} WHERE first = {right}")
    con.commit()
    con.close()
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 1) == rows
        assert outbox.state.set_aside
        assert not outbox.state.damaged


@pytest.mark.parametrize("name", ["lanes", "outbox"])
async def test_numbers_are_not_given_twice_when_their_record_is_lost(folder: str, name: str) -> None:
    """Where nobody knows how far the numbers went, a new source begins."""
    path = os.path.join(folder, "out.box")
    async with Outbox(path) as outbox:
        source = outbox.source
        for number in range(1, 11):
            outbox.put("far", 0, number, b"row %d" % number)
        await outbox.durable()
        outbox.accepted("far", 0, 5)
    con = sqlite3.connect(path)
    con.execute(f"DELETE FROM {name}")
    con.commit()
    con.close()
    async with Outbox(path) as outbox:
        assert outbox.source != source
        found = await outbox.read("far", 0, 1)
        assert found[-5:] == [b"row %d" % n for n in range(6, 11)]


async def test_process_that_dies_while_it_salvages_loses_nothing(folder: str) -> None:
    """A salvaged file that was not put in its place yet is put there by the next process."""
    path = os.path.join(folder, "out.box")
    async with Outbox(path) as outbox:
        outbox.put("far", 0, 1, b"row 1")
    os.rename(path, path + ".salvaged")
    shutil.copy(path + ".salvaged", path)
    change(path, b"row 1", b"rov 1")
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 1) == [b"row 1"]
    assert sorted(each.name for each in os.scandir(folder)) == ["out.box", "out.box.damaged-1"]


def test_log_that_is_damaged_costs_what_was_hit(folder: str) -> None:
    """Whichever bit of the log of a dead process is wrong, no row is, and what comes after it is read."""
    path = os.path.join(folder, "out.box")
    store = Store(path)
    store.open()
    for first in range(1, 201, 10):
        rows = [row(LANES[0], number) for number in range(first, first + 10)]
        store.commit(Batch(rows={LANES[0]: (first, rows)}))
    data, log = Path(path).read_bytes(), Path(path + "-wal").read_bytes()
    store.close()
    lost = 0
    for bit in range(0, len(log) * 8, 8 * 397 + 3):
        Path(path).write_bytes(data)
        Path(path + "-wal").write_bytes(flipped(log, bit))
        store = Store(path)
        store.open()
        rows = store.read(*LANES[0], 1, 1000, 10**6)
        assert all(each in (row(LANES[0], number), b"null") for number, each in enumerate(rows, start=1))
        assert store.set_aside or len(rows) >= 190
        lost += 200 - sum(each != b"null" for each in rows)
        store.close()
        for each in os.scandir(folder):
            os.remove(each.path)
    assert lost < 20 * len(log) // 397


def test_looking_at_a_damaged_log_costs_nothing(folder: str) -> None:
    """What lies behind damage in a log is still there when somebody has looked at the outbox."""
    path = os.path.join(folder, "out.box")
    store = Store(path)
    store.open()
    for number in range(1, 21):
        store.commit(Batch(rows={LANES[0]: (number, [b"row %d" % number])}))
    data, log = Path(path).read_bytes(), Path(path + "-wal").read_bytes()
    store.close()
    Path(path).write_bytes(data)
    Path(path + "-wal").write_bytes(flipped(log, len(log) * 4))
    assert look(path, 0).damage
    store = Store(path)
    store.open()
    assert store.read(*LANES[0], 1, 100, 10_000)[-1] == b"row 20"
    store.close()


def test_random_bytes_hold_no_record(folder: str) -> None:
    """The search for records ends on anything, and believes nothing."""
    sound = make(folder)
    for begin in range(0, len(sound.data), 4096):
        mixed = sound.data[:4096] + sound.data[begin:][::-1]
        assert sum(1 for _ in records(mixed, sound.data, 4096)) < 20_000
        found = remains(mixed, sound.data[::-1])
        for key in LANES:
            for number, each in found.rows.get(key, {}).items():
                assert each == row(key, number)
