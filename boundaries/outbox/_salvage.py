"""What can be read of a damaged outbox goes into a new one; the damaged one is kept."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs

from nexus.boundaries.outbox._files import Files
from nexus.boundaries.outbox._group import MOST_BYTES, MOST_ROWS, checksum, intact, join, seed
from nexus.boundaries.outbox._kinds import Connection
from nexus.boundaries.outbox._pages import records
from nexus.boundaries.outbox._schema import (
    APPLICATION,
    PAGE,
    TABLES,
    VERSION,
    Connect,
    Meta,
    Trouble,
    create,
    judge,
    save_cursor,
    save_lane,
    save_meta,
)

__all__ = ["BAD_LOG", "Remains", "finish", "is_ours", "remains", "salvage"]

logger = logging.getLogger(__name__)

Key = tuple[str, int]
MAGIC = b"SQLite format 3\0"
MOST_ORPHANS = 64
"""Groups without a place for which one is looked for."""
MOST_KEPT = 100
"""Damaged files that are kept; then somebody has to look."""
BAD_LOG = "-wal.damaged"
"""Ends the name of a log of which SQLite has read a part, until the rest is salvaged."""


@attrs.define
class Remains:
    """What was found intact in a file."""

    meta: Meta | None = None
    """None if the record of the outbox is lost."""
    lanes: dict[Key, tuple[int, int]] = attrs.field(factory=dict)
    """How far each was accepted, and its last number."""
    rows: dict[Key, dict[int, bytes]] = attrs.field(factory=dict)
    groups: dict[Key, list[tuple[int, int, bool]]] = attrs.field(factory=dict)
    """The first and last number of each group, as it says, and whether any of its rows is intact."""
    cursors: dict[Key, tuple[int, str]] = attrs.field(factory=dict)
    epoch: int = 1
    broken: int = 0
    """Rows that were found and are not intact."""

    def last(self, key: Key) -> int:
        """Return the last number of a lane that was given, as far as it is known."""
        known = max(*self.lanes.get(key, (0, 0)), *self.rows.get(key, [0]))
        for first, last, is_sure in sorted(self.groups.get(key, [])):
            # A number alone may be damaged; one that follows, or has a sound row beside it, is not.
            if is_sure or first == known + 1:
                known = max(known, last)
        return known

    def certain(self) -> bool:
        """Say whether no number can be given a second time: whether the records of all lanes are there."""
        return (
            self.meta is not None
            and len(self.lanes) >= self.meta["lanes"]
            and self.rows.keys() <= self.lanes.keys()
        )


def is_ours(path: str, files: Files) -> bool:
    """Say whether a file that is no sound outbox was one once."""
    head = files.read(path, PAGE)
    if len(head) < 100 or not head.strip(b"\0"):
        return head == MAGIC[: len(head)] or head.startswith(MAGIC) or not head.strip(b"\0")
    known = int.from_bytes(head[68:72], "big")
    named = sum(f"TABLE {name} (".encode() in head for name in TABLES)
    return (known ^ APPLICATION).bit_count() <= 1 or named >= 2


def finish(path: str, files: Files) -> None:
    """Put a salvaged file in its place, if a process died before it had done so."""
    if files.identity(f"{path}.salvaged") is None:
        return
    _set_aside(path, files)
    files.replace(f"{path}.salvaged", path)


def salvage(path: str, connect: Connect, files: Files) -> tuple[str, int]:
    """Make a new file of what can be read, and keep the damaged one.

    Returns:
        The path under which it is kept, and how many rows were found damaged.

    Raises:
        Trouble: the new file cannot be written; nothing has changed.
    """
    kept_log = f"{path}{BAD_LOG}"
    found = remains(files.read(path), files.read(kept_log) or files.read(f"{path}-wal"))
    new = f"{path}.salvaging"
    try:
        for each in (new, f"{new}-journal", f"{new}-wal"):
            files.remove(each)
        files.create(new)
        con = connect(new)
        try:
            list(con.execute(f"PRAGMA page_size={PAGE}"))
            list(con.execute("PRAGMA synchronous=FULL"))
            con.execute("BEGIN IMMEDIATE")
            _fill(con, found)
            _copy_others(path, con, connect)
            con.execute("COMMIT")
        finally:
            con.close()
        files.replace(new, f"{path}.salvaged")
        kept = _set_aside(path, files)
        files.replace(f"{path}.salvaged", path)
    except Exception as exc:
        raise judge(exc) from exc
    return kept, found.broken


def remains(data: bytes, log: bytes) -> Remains:
    """Find what is intact in the bytes of a file and of its log."""
    found = Remains()
    best = (0, 0)
    epochs = Counter[int]()
    for values in records(data, log, PAGE):
        match values:
            case [
                _,
                int(version),
                bytes(source),
                int(epoch),
                int(generation),
                int(marks),
                int(lanes),
                int(crc),
            ]:
                if version == VERSION and (epoch, generation) >= best:
                    name = source.decode(errors="replace")
                    if checksum("outbox", version, name, epoch, generation, marks, lanes) == crc:
                        best = (epoch, generation)
                        keys = ("source", "epoch", "generation", "marks", "lanes")
                        # Of two copies with the same numbers, the one that knows more was written later.
                        if found.meta and (found.meta["epoch"], found.meta["generation"]) == best:
                            marks, lanes = max(marks, found.meta["marks"]), max(lanes, found.meta["lanes"])
                        found.meta = dict(zip(keys, (name, epoch, generation, marks, lanes), strict=True))
            case [bytes(), int(), int(), int(), int(known), bytes()]:
                epochs[known] += 1
    if not best[0]:
        best = (epochs.most_common(1)[0][0] if epochs else 1, 0)
    epoch = found.epoch = best[0]
    orphans: list[bytes] = []
    for values in records(data, log, PAGE):
        match values:
            case [bytes(stream), int(priority), int(accepted), int(last), int(crc)]:
                name = _text(stream)
                if checksum("lane", epoch, name, priority, accepted, last) == crc:
                    older = found.lanes.get((name, priority), (0, 0))
                    found.lanes[name, priority] = (max(accepted, older[0]), max(last, older[1]))
            case [bytes(source), int(priority), int(accepted), bytes(beyond), int(crc)]:
                name, text = _text(source), _text(beyond)
                if checksum("cursor", name, priority, accepted, text) == crc:
                    at = (accepted, text)
                    found.cursors[name, priority] = max(
                        at, found.cursors.get((name, priority), at), key=lambda each: (each[0], len(each[1]))
                    )
            case [bytes(stream), int(priority), int(first), int(count), int(known), bytes(blob)] if (
                known == epoch and 0 < count <= MOST_ROWS
            ):
                name = _text(stream)
                rows = found.rows.setdefault((name, priority), {})
                parts = list(intact(seed(epoch, name, priority) + first, blob))
                rows |= {number: row for number, row in enumerate(parts, start=first) if row is not None}
                found.broken += parts.count(None)
                is_sure = any(row is not None for row in parts)
                last = first - 1 + (len(parts) if is_sure else count)
                found.groups.setdefault((name, priority), []).append((first, last, is_sure))
                if not is_sure and len(orphans) < MOST_ORPHANS:
                    orphans.append(blob)
    for key in list(found.rows):
        accepted = found.lanes.get(key, (0, 0))[0]
        rows = {number: row for number, row in found.rows[key].items() if number > accepted}
        if rows:
            found.rows[key] = rows
        else:
            del found.rows[key]
    for blob in orphans:
        _adopt(found, blob)
    return found


def _adopt(found: Remains, blob: bytes) -> None:
    """Find the place of rows whose key is damaged: one of the holes, which their checksums tell."""
    for key, (accepted, _) in found.lanes.items():
        held = found.rows.get(key, {})
        start = seed(found.epoch, *key)
        known = [accepted, *sorted(held)]
        holes = [before + 1 for before, after in pairwise(known) if after > before + 1]
        for first in (*holes, max(known) + 1, found.last(key) + 1):
            if next(intact(start + first, blob), None) is not None:
                parts = enumerate(intact(start + first, blob), start=first)
                found.rows.setdefault(key, {}).update((at, row) for at, row in parts if row is not None)
                return


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _fill(con: Connection, found: Remains) -> None:
    certain = found.certain()
    meta: Meta = dict(found.meta or {"epoch": found.epoch, "generation": 0, "marks": 0})
    if found.meta is None or not certain:
        # Numbers may have been given that nobody knows of any more: nothing is numbered as before.
        meta |= {"source": secrets.token_hex(16), "epoch": meta["epoch"] + 1}
        logger.warning("what is salvaged begins a new source: the records of its lanes are damaged")
    keys = found.lanes.keys() | found.rows.keys()
    meta["lanes"] = len(keys)
    create(con, meta)
    for stream, priority in keys:
        accepted, _ = found.lanes.get((stream, priority), (0, 0))
        rows = found.rows.get((stream, priority), {})
        if certain:
            last = found.last((stream, priority))
        else:
            accepted, last = 0, len(rows)
            rows = {number: row for number, (_, row) in enumerate(sorted(rows.items()), start=1)}
        start = seed(meta["epoch"], stream, priority)
        for first, part in _runs(rows):
            values = (stream, priority, first, len(part), meta["epoch"], join(start + first, part))
            con.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?)", values)
        save_lane(con, meta["epoch"], stream, priority, accepted, last)
    for (source, priority), (accepted, beyond) in found.cursors.items():
        save_cursor(con, source, priority, accepted, beyond)
    save_meta(con, meta)


def _runs(rows: dict[int, bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Cut numbered rows into groups without a hole."""
    first, part, size = 0, list[bytes](), 0
    for number, row in sorted(rows.items()):
        if part and (number != first + len(part) or len(part) >= MOST_ROWS or size + len(row) > MOST_BYTES):
            yield first, part
            part, size = [], 0
        if not part:
            first = number
        part.append(row)
        size += len(row)
    if part:
        yield first, part


def _copy_others(path: str, con: Connection, connect: Connect) -> None:
    """Copy the tables that effects have made, as far as SQLite can read them."""
    old = connect(path)
    try:
        list(_readable(old, "PRAGMA locking_mode=EXCLUSIVE"))
        listed = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        made = [
            (kind, name, sql)
            for kind, name, table, sql in _readable(old, listed)
            if table not in TABLES and not name.startswith("sqlite_")
        ]
        # Indexes, views and triggers come when the rows are there.
        for kind, name, sql in sorted(made, key=lambda each: each[0] != "table"):
            con.execute(sql)
            if kind == "table":
                quoted = name.replace('"', '""')
                for row in _readable(old, f'SELECT * FROM "{quoted}"'):
                    con.execute(f'INSERT OR IGNORE INTO "{quoted}" VALUES ({",".join("?" * len(row))})', row)
    finally:
        old.close()


def _readable(con: Connection, sql: str) -> Iterator[Any]:
    """Give rows until one cannot be read."""
    try:
        yield from con.execute(sql)
    except Exception as exc:
        found = judge(exc)
        if isinstance(found, Trouble):
            raise
        logger.warning("what effects have stored is damaged: %s", found)


def _set_aside(path: str, files: Files) -> str:
    number = 1
    while any(files.identity(f"{path}.damaged-{number}{end}") for end in ("", "-wal")):
        number += 1
    if number > MOST_KEPT:
        raise Trouble(
            f"{path} was damaged {MOST_KEPT} times: see to the disk, and move the damaged files away"
        )
    kept = f"{path}.damaged-{number}"
    for old, new in (("-wal", "-wal"), (BAD_LOG, "-wal"), ("", "")):
        if files.identity(f"{path}{old}") is not None:
            files.replace(f"{path}{old}", f"{kept}{new}")
    return kept
