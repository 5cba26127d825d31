"""What is done to an outbox by hand, while no program uses it: looking, dropping, putting back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import attrs

from nexus.boundaries.outbox._files import Files
from nexus.boundaries.outbox._group import chunks, join, seed
from nexus.boundaries.outbox._kinds import OutboxDamaged
from nexus.boundaries.outbox._salvage import BAD_LOG, Remains, remains
from nexus.boundaries.outbox._schema import Broken
from nexus.boundaries.outbox._store import Store

__all__ = ["LaneView", "View", "damaged_beside", "drop", "look", "requeue"]

Key = tuple[str, int]


@attrs.frozen
class LaneView:
    """What one priority of a stream holds."""

    stream: str
    priority: int
    first: int
    last: int
    rows: int
    """How many of them are there."""
    size: int
    """Bytes that they take."""
    oldest: tuple[tuple[int, bytes], ...]
    """The oldest rows with their numbers."""


@attrs.frozen
class View:
    """What an outbox holds."""

    source: str
    generation: int
    damage: str
    """What is wrong with the file; empty if nothing is."""
    lanes: tuple[LaneView, ...]
    cursors: tuple[tuple[str, int, int], ...]
    """Source, priority, and how far it was accepted."""
    missing: tuple[OutboxDamaged, ...]
    set_aside: tuple[str, ...]


def look(path: str, rows: int) -> View:
    """Say what an outbox holds, and change nothing; what can be read, if it is damaged.

    Args:
        rows: how many of the oldest rows of each lane are given.

    Raises:
        OutboxInUse, NoOutbox: it cannot be looked at.
        Trouble: the disk does not let it.
    """
    store = Store(path)
    try:
        store.look()
        lanes = []
        for (stream, priority), lane in sorted(store.lanes.items()):
            lost = sum(each.last - each.first + 1 for each in _of(store, (stream, priority)))
            count = lane.last - lane.accepted - lost
            oldest = tuple(itertools.islice(_rows(store, (stream, priority)), rows)) if rows else ()
            lanes.append(LaneView(stream, priority, lane.accepted + 1, lane.last, count, lane.bytes, oldest))
        cursors = tuple((*key, cursor.accepted) for key, cursor in sorted(store.cursors.items()))
        aside = tuple(damaged_beside(path))
        return View(store.source, store.meta["generation"], "", tuple(lanes), cursors, store.damaged, aside)
    except Broken as exc:
        store.close()
        return _look_at_ruins(path, rows, str(exc))
    finally:
        store.close()


def _look_at_ruins(path: str, rows: int, why: str) -> View:
    files = Files()
    found = remains(files.read(path), files.read(f"{path}{BAD_LOG}") or files.read(f"{path}-wal"))
    lanes = []
    for key in sorted(found.lanes.keys() | found.rows.keys()):
        held = sorted(found.rows.get(key, {}).items())
        first = held[0][0] if held else found.last(key) + 1
        size = sum(len(row) for _, row in held)
        lanes.append(LaneView(*key, first, found.last(key), len(held), size, tuple(held[:rows])))
    meta = found.meta or {"source": "", "generation": 0}
    cursors = tuple((*key, accepted) for key, (accepted, _) in sorted(found.cursors.items()))
    aside = tuple(damaged_beside(path))
    return View(meta["source"], meta["generation"], why, tuple(lanes), cursors, (), aside)


def drop(path: str, stream: str | None, priority: int | None, upto: int | None) -> int:
    """Take rows out that are not accepted; the other side gets an empty row for each.

    Their numbers stay: the other side waits for them, and would wait for ever.

    Args:
        stream: None for all.
        priority: None for all.
        upto: the last number that goes; None for all.

    Returns:
        How many rows were taken out.

    Raises:
        OutboxInUse, NoOutbox, Broken, Trouble: nothing was.
    """
    store = Store(path)
    try:
        store.look()
        con = store.connection
        dropped = 0
        con.execute("BEGIN IMMEDIATE")
        for key, lane in store.lanes.items():
            if stream not in (None, key[0]) or priority not in (None, key[1]):
                continue
            for first, rows in store.groups(*key, lane.accepted + 1):
                end = first + len(rows) - 1 if upto is None else min(upto, first + len(rows) - 1)
                if end < first:
                    continue
                con.execute("DELETE FROM groups WHERE stream=? AND priority=? AND first=?", (*key, first))
                dropped += end - max(first, lane.accepted + 1) + 1
                _insert(store, key, {first + at: row for at, row in enumerate(rows) if first + at > end})
            # The numbers are known from the lane alone now.
            store.save_lane(key)
        con.execute("COMMIT")
        return dropped
    finally:
        store.close()


def requeue(path: str, other: str) -> tuple[int, int]:
    """Put rows back that are missing in an outbox, and intact in another file of the same source.

    Args:
        other: a damaged file that was kept, or a copy; it is only read.

    Returns:
        How many rows were put back at their numbers, and how many are missing still.

    Raises:
        OutboxInUse, NoOutbox, Broken, Trouble: none was.
    """
    store = Store(path)
    try:
        store.look()
        files = Files()
        found = remains(files.read(other), files.read(f"{other}-wal"))
        missing = sum(each.last - each.first + 1 for each in store.damaged)
        if not _is_of(store, found):
            return 0, missing
        back = 0
        store.connection.execute("BEGIN IMMEDIATE")
        for hole in store.damaged:
            key = hole.stream, hole.priority
            known = found.rows.get(key, {})
            rows = {number: known[number] for number in known if hole.first <= number <= hole.last}
            _insert(store, key, rows)
            back += len(rows)
        store.connection.execute("COMMIT")
        return back, missing - back
    finally:
        store.close()


def damaged_beside(path: str) -> Iterator[str]:
    """Name the damaged files of an outbox that were kept."""
    files = Files()
    number = 1
    while any(files.identity(f"{path}.damaged-{number}{end}") for end in ("", "-wal")):
        yield f"{path}.damaged-{number}"
        number += 1


def _is_of(store: Store, found: Remains) -> bool:
    return found.meta is not None and all(
        found.meta[each] == store.meta[each] for each in ("source", "epoch")
    )


def _of(store: Store, key: Key) -> list[OutboxDamaged]:
    return [each for each in store.damaged if (each.stream, each.priority) == key]


def _rows(store: Store, key: Key) -> Iterator[tuple[int, bytes]]:
    accepted = store.lanes[key].accepted
    for first, rows in store.groups(*key, accepted + 1):
        yield from (each for each in enumerate(rows, start=first) if each[0] > accepted)


def _insert(store: Store, key: Key, rows: dict[int, bytes]) -> None:
    """Insert rows at their numbers, in groups without holes."""
    epoch = store.meta["epoch"]
    start = seed(epoch, *key)
    for _, run in itertools.groupby(enumerate(sorted(rows)), key=lambda each: each[1] - each[0]):
        numbers = [number for _, number in run]
        first = numbers[0]
        for part in chunks([rows[number] for number in numbers]):
            values = (*key, first, len(part), epoch, join(start + first, part))
            store.connection.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?)", values)
            first += len(part)
