"""Damaged outboxes, one after the other: what they cost, and whether anything in them is wrong.

    python outbox_damage.py FOLDER KIND FIRST STEP

prints as JSON what `judge_some` returns.
"""

import functools
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import attrs

from nexus.boundaries.outbox import Cursor
from nexus.boundaries.outbox._schema import Broken
from nexus.boundaries.outbox._store import TOMBSTONE, Batch, Store

SIZE = 2**16
LANES = [("far", -1), ("far", 0), ("other", 7)]


@functools.cache
def row(key: tuple[str, int], number: int) -> bytes:
    """Make the row that belongs to a number, and to no other."""
    return f"{key}{number}".encode() * (number % 8)


@attrs.frozen
class Sound:
    """A sound outbox: its bytes, and what is in it."""

    data: bytes
    source: str
    lanes: dict[tuple[str, int], tuple[int, int]]


def make(folder: str) -> Sound:
    """Make an outbox of 64 KiB with full, half accepted and empty lanes, cursors, and a table of effects."""
    path = os.path.join(folder, "sound.box")
    store = Store(path, "normal")
    store.open()
    last = dict.fromkeys(LANES, 0)
    batch = Batch(cursors={("src", priority): Cursor(9, ((12, 14),)) for priority in range(3)})
    store.commit(batch)
    while os.path.getsize(path) < SIZE:
        for key in LANES:
            first, count = last[key] + 1, 1 + last[key] % 29
            last[key] += count
            store.commit(
                Batch(rows={key: (first, [row(key, number) for number in range(first, first + count)])})
            )
        list(store._con.execute("PRAGMA wal_checkpoint(TRUNCATE)"))  # type: ignore[union-attr]
    store.commit(Batch(accepted={LANES[0]: 33, LANES[2]: last[LANES[2]]}))
    lanes = {key: (lane.accepted, lane.last) for key, lane in store.lanes.items()}
    source = store.source
    store.close()
    return Sound(Path(path).read_bytes(), source, lanes)


def judge(sound: Sound, folder: str, data: bytes) -> int:
    """Open a damaged outbox, read all of it, and tell how many rows are lost; anything wrong is an error."""
    path = os.path.join(folder, "out.box")
    Path(path).write_bytes(data)
    store = Store(path, "normal")
    try:
        store.open()
        read = {}
        for key in LANES:
            try:
                read[key] = everything(store, key)
            except Broken as exc:
                store.repair(str(exc))
                read = {}
                break
        read = read or {key: everything(store, key) for key in LANES}
        lost = 0
        for key, (accepted, last) in sound.lanes.items():
            lane = store.lanes.get(key)
            rows = read[key]
            assert len(rows) <= last
            if store.source == sound.source and lane is not None:
                assert accepted <= lane.accepted + 200, "accepted rows come back"
                first = lane.accepted + 1
                for number, found in enumerate(rows, start=first):
                    assert found in (row(key, number), TOMBSTONE), (key, number, found)
                    assert number <= last
                lost += sum(
                    not first <= number < first + len(rows) or rows[number - first] == TOMBSTONE
                    for number in range(accepted + 1, last + 1)
                    if row(key, number) != TOMBSTONE
                )
                # No number is given twice: what comes next was never given.
                assert lane.last >= last or store.set_aside or data != sound.data
            else:
                wanted = [row(key, number) for number in range(1, last + 1)]
                rest = iter(wanted)
                assert all(each in rest for each in rows), "wrong, or out of order"
                lost += max(0, last - accepted - len(rows))
        for (_, priority), cursor in store.cursors.items():
            assert (priority in range(3), cursor) == (True, Cursor(9, ((12, 14),)))
        if lost:
            assert store.set_aside, "lost, and nothing was kept"
        # It goes on.
        key = LANES[0]
        next_number = store.lanes[key].last + 1 if key in store.lanes else 1
        store.commit(Batch(rows={key: (next_number, [b"new"])}))
        assert store.read(*key, next_number, 1, 100) == [b"new"]
        return lost
    finally:
        store.close()
        for each in os.scandir(folder):
            if each.name.startswith("out.box"):
                os.remove(each.path)


def everything(store: Store, key: tuple[str, int]) -> list[bytes]:
    """Read a whole lane, piece by piece."""
    lane = store.lanes.get(key)
    if lane is None:
        return []
    rows: list[bytes] = []
    while more := store.read(*key, lane.accepted + 1 + len(rows), 100, 10_000):
        rows += more
        assert len(rows) < 10_000, "no end"
    return rows


def flipped(data: bytes, bit: int) -> bytes:
    """Turn one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def judge_some(folder: str, kind: str, first: int, step: int) -> tuple[int, int, int, list[str]]:
    """Damage a sound outbox at every so many places, one at a time.

    Args:
        folder: where to work.
        kind: ``bit`` turns one bit, ``cut`` ends the file there.

    Returns:
        How many cases, how many rows were lost in all, and at most in one; and what was wrong.
    """
    logging.disable(logging.WARNING)
    folder = tempfile.mkdtemp(dir=folder)
    sound = make(folder)
    cases = lost = most = 0
    wrong: list[str] = []
    for place in range(first, len(sound.data) * (8 if kind == "bit" else 1), step):
        try:
            data = flipped(sound.data, place) if kind == "bit" else sound.data[:place]
            cost = judge(sound, folder, data)
        except Exception as exc:
            wrong.append(f"{kind} {place}: {exc!r}"[:300])
            continue
        cases, lost, most = cases + 1, lost + cost, max(most, cost)
    shutil.rmtree(folder)
    logging.disable(logging.NOTSET)
    return cases, lost, most, wrong


if __name__ == "__main__":
    folder, kind, first, step = sys.argv[1:]
    sys.stdout.write(json.dumps(judge_some(folder, kind, int(first), int(step))))
