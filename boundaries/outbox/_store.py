"""The file of an outbox. All calls block; they come from one thread at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import attrs

from nexus.boundaries.outbox._files import Files
from nexus.boundaries.outbox._group import checksum, chunks, join, seed, split
from nexus.boundaries.outbox._kinds import Connection, Cursor, NoOutbox, OutboxDamaged, OutboxInUse
from nexus.boundaries.outbox._pages import commits, logged
from nexus.boundaries.outbox._salvage import BAD_LOG, finish, is_ours, salvage
from nexus.boundaries.outbox._schema import (
    APPLICATION,
    PAGE,
    TABLES,
    VERSION,
    Broken,
    Busy,
    Connect,
    Meta,
    Trouble,
    connect,
    create,
    is_the_files,
    judge,
    save_cursor,
    save_lane,
    save_meta,
)
from nexus.errors import BadCall

__all__ = ["Batch", "Effect", "Lane", "Store"]

logger = logging.getLogger(__name__)

CHECKED = 2**26
"""Bytes of a file that is checked as a whole when it is opened; what a larger one holds, when it is read."""
READONLY = 8
"""What SQLite says of a file that only newer versions of it may write."""
MOST_SOURCES = 1000
"""Sources whose cursors are kept: each process without an outbox of its own has another one."""
AT_ONCE = 32
"""Groups that one statement inserts: while the event loop is busy, the thread gets the interpreter back only
some milliseconds after each."""
TOMBSTONE = b"null"
"""Stands for a row that is lost."""

Key = tuple[str, int]


@attrs.define(eq=False)
class Effect:
    """Something that is done within a transaction."""

    apply: Callable[[Any], object]
    done: Callable[[BaseException | None], object]
    error: BaseException | None = None
    is_over: bool = False
    """Whether it has ended the transaction, which it must not, and is not done again."""


@attrs.define(eq=False)
class Batch:
    """What goes into one commit."""

    forgotten: set[str] = attrs.field(factory=set)
    rows: dict[Key, tuple[int, list[bytes]]] = attrs.field(factory=dict)
    """The number of the first row of each lane, and its rows."""
    accepted: dict[Key, int] = attrs.field(factory=dict)
    cursors: dict[Key, Cursor] = attrs.field(factory=dict)
    effects: list[Effect] = attrs.field(factory=list)
    calls: list[Callable[[], object]] = attrs.field(factory=list)
    """What is called when it is durable."""
    size: int = 0
    """Bytes of the rows."""
    is_urgent: bool = False
    """Whether it is committed even if it only deletes."""
    mark: int = 0
    """What the file counts when the effects are in it; 0 before the first try."""


@attrs.define(eq=False)
class Lane:
    """What is stored of one priority of a stream."""

    accepted: int = 0
    last: int = 0
    bytes: int = 0


class Store:
    """One outbox file, one connection.

    Args:
        path: of the file.
        synchronous: what SQLite is told, ``full`` or ``normal``.
        connect: opens a database.
        files: what is done beside SQLite.
    """

    def __init__(
        self, path: str, synchronous: str = "full", connect: Connect = connect, files: Files | None = None
    ) -> None:
        # SQLite follows links, and puts the log beside the file itself.
        self.path = os.path.realpath(path)
        self.lanes: dict[Key, Lane] = {}
        self.cursors: dict[Key, Cursor] = {}
        self.meta: Meta = {}
        self.damaged: tuple[OutboxDamaged, ...] = ()
        self.set_aside: list[str] = []
        self._synchronous = synchronous
        self._connect = connect
        self._files = files or Files()
        self._con: Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._suspect = False

    @property
    def source(self) -> str:
        return str(self.meta["source"])

    def open(self, *, create: bool = True) -> None:
        """Open the file, and make it if it is missing; what can be read of a damaged one goes into a new one.

        Raises:
            OutboxInUse: somebody else has it.
            NoOutbox: it is something else; or it is missing, and `create` is False.
            Trouble: the disk does not let it.
        """
        names = (self.path, f"{self.path}.salvaged")
        if not create and not any(map(self._files.identity, names)):
            raise NoOutbox(f"there is no outbox at {self.path}")
        try:
            self._open()
        except Broken as exc:
            self._shut()
            if not is_ours(self.path, self._files):
                raise NoOutbox(
                    f"{self.path} is no outbox: {exc}; give another path, or move it away"
                ) from exc
            self.repair(str(exc))
        except Busy as exc:
            self._shut()
            raise OutboxInUse(f"{self.path} is in use; one outbox at a time has a file") from exc

    def look(self) -> None:
        """Open a file that is there, as it is: nothing is made, repaired or counted.

        Raises:
            OutboxInUse, NoOutbox: see `open`.
            Broken: it is damaged.
            Trouble: the disk does not let it.
        """
        if self._files.identity(self.path) is None:
            raise NoOutbox(f"there is no outbox at {self.path}")
        try:
            self._open(look=True)
        except Broken as exc:
            if not is_ours(self.path, self._files):
                raise NoOutbox(f"{self.path} is no outbox: {exc}") from exc
            raise
        except Busy as exc:
            raise OutboxInUse(f"{self.path} is in use; stop the program that has it") from exc

    @property
    def connection(self) -> Connection:
        """The open database.

        Raises:
            Trouble: it is closed.
        """
        if self._con is None:
            raise Trouble("the file is not open")
        return self._con

    def save_lane(self, key: Key) -> None:
        """Write how far a lane is; within a transaction."""
        lane = self.lanes[key]
        save_lane(self.connection, self.meta["epoch"], *key, lane.accepted, lane.last)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._shut()

    def repair(self, why: str) -> None:
        """Put what can be read of a damaged file into a new one, and keep the damaged one beside it."""
        self._shut()
        kept, missing = salvage(self.path, self._connect, self._files)
        self.set_aside.append(kept)
        logger.warning("%s is damaged (%s): kept as %s, %d rows are missing", self.path, why, kept, missing)
        try:
            self._open()
        except Broken as exc:
            self._shut()
            raise Trouble(f"still damaged after a repair: {exc}") from exc
        except Busy as exc:
            self._shut()
            raise Trouble(f"somebody else has {self.path}") from exc

    def recover(self) -> None:
        """Begin again after the disk failed: close, open, and read what is there.

        Raises:
            Trouble: it still fails.
        """
        try:
            if self._con is not None:
                found = self._files.identity(self.path)
                if found is None:
                    self._rescue(self._con)
                elif found != self._identity:
                    raise Trouble(f"another file was put in the place of {self.path}; put the outbox back")
                elif self._suspect:
                    # A second flush may succeed although the data is lost: what closing moves
                    # into the database is written to another file first.
                    self._rewrite_log()
            self._shut()
            self._open()
        except Broken as exc:
            self.repair(str(exc))
        except Busy as exc:
            self._shut()
            raise Trouble(f"somebody else has {self.path}") from exc
        except Trouble:
            raise
        except Exception as exc:
            raise Trouble(str(judge(exc))) from exc
        self._suspect = False

    def commit(self, batch: Batch) -> None:
        """Store a batch, all of it or nothing.

        Raises:
            Trouble, Broken: it is not known whether it is stored; `recover` or `repair`, and do it again.
        """
        if self._con is None:
            raise Trouble("the file is not open")
        if self._files.identity(self.path) != self._identity:
            raise Trouble(f"{self.path} was moved or removed")
        if batch.mark and self.meta["marks"] >= batch.mark:
            return  # it was stored, although the disk said otherwise
        meta = dict(self.meta)
        lanes: dict[Key, Lane | None] = {}
        try:
            self._con.execute("BEGIN IMMEDIATE")
            for stream in batch.forgotten:
                self._forget(self._con, stream, meta, lanes)
            for key, (first, rows) in batch.rows.items():
                self._put(self._con, key, first, rows, meta, lanes)
            for key, number in batch.accepted.items():
                self._accept(self._con, key, number, meta, lanes)
            for (source, priority), cursor in batch.cursors.items():
                save_cursor(self._con, source, priority, cursor.accepted, cursor.text())
            gone = self._gone(batch)
            for source in gone:
                self._con.execute("DELETE FROM cursors WHERE source = ?", (source,))
            if batch.effects:
                meta["marks"] = batch.mark = self.meta["marks"] + 1
                for effect in batch.effects:
                    _apply(self._con, effect)
            if meta != self.meta:
                save_meta(self._con, meta)
            self._con.execute("COMMIT")
        except Exception as exc:
            found = judge(exc)
            self._suspect |= isinstance(found, Trouble) and found.suspect
            raise (Trouble(str(found)) if isinstance(found, Busy) else found) from exc
        self.meta = meta
        for key, cursor in batch.cursors.items():
            self.cursors.pop(key, None)  # the last one is the latest
            self.cursors[key] = cursor
        for key in [key for key in self.cursors if key[0] in gone] if gone else ():
            del self.cursors[key]
        for key, lane in lanes.items():
            if lane is None:
                self.lanes.pop(key, None)
            else:
                self.lanes[key] = lane

    def _gone(self, batch: Batch) -> set[str]:
        """Say which sources have not been heard of for so long that their cursors are dropped."""
        if all(key in self.cursors for key in batch.cursors):
            return set()
        latest = [*self.cursors, *batch.cursors]
        sources = list(dict.fromkeys(source for source, _ in reversed(latest)))
        return set(sources[MOST_SOURCES:])

    def read(self, stream: str, priority: int, first: int, most_rows: int, most_bytes: int) -> list[bytes]:
        """Return stored rows from a number on, at least one if there are any; a tombstone for each lost one.

        Raises:
            Trouble, Broken: they cannot be read.
        """
        lane = self.lanes.get((stream, priority))
        rows: list[bytes] = []
        if lane is None or not lane.accepted < first <= lane.last:
            return rows
        size = 0
        for start, group in self.groups(stream, priority, first):
            self._expect_hole(stream, priority, first + len(rows), start - 1)
            missing = min(start - first - len(rows), most_rows - len(rows))
            rows.extend([TOMBSTONE] * missing)
            for row in group[max(0, first + len(rows) - start) :]:
                if rows and (len(rows) >= most_rows or size + len(row) > most_bytes):
                    return rows
                rows.append(row)
                size += len(row)
            if len(rows) >= most_rows:
                return rows
        self._expect_hole(stream, priority, first + len(rows), lane.last)
        missing = min(lane.last + 1 - first, most_rows) - len(rows)
        return rows + [TOMBSTONE] * missing

    def renew(self) -> None:
        """Begin a new source: what is stored is numbered from 1, what is lost is left out.

        Raises:
            Trouble, Broken: it was not done, or it is not known.
        """
        if self._con is None:
            raise Trouble("the file is not open")
        try:
            self._con.execute("BEGIN IMMEDIATE")
            meta = dict(self.meta, source=secrets.token_hex(16), epoch=self.meta["epoch"] + 1)
            for (stream, priority), lane in self.lanes.items():
                number = 1
                start = seed(meta["epoch"], stream, priority)
                following = lane.accepted + 1
                for first, rows in self.groups(stream, priority, following):
                    self._expect_hole(stream, priority, following, first - 1)
                    following = first + len(rows)
                    kept = rows[max(0, lane.accepted + 1 - first) :]
                    self._con.execute(
                        "DELETE FROM groups WHERE stream=? AND priority=? AND first=?",
                        (stream, priority, first),
                    )
                    for part in chunks(kept):
                        values = (
                            stream,
                            priority,
                            number,
                            len(part),
                            meta["epoch"],
                            join(start + number, part),
                        )
                        self._con.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?)", values)
                        number += len(part)
                self._con.execute(
                    "DELETE FROM groups WHERE stream=? AND priority=? AND epoch<>?",
                    (stream, priority, meta["epoch"]),
                )
                save_lane(self._con, meta["epoch"], stream, priority, 0, number - 1)
            save_meta(self._con, meta)
            self._con.execute("COMMIT")
            self._load(self._con)
        except Exception as exc:
            found = judge(exc)
            self._suspect |= isinstance(found, Trouble) and found.suspect
            raise found from exc

    # Opening

    def _open(self, *, look: bool = False) -> None:
        try:
            if not look:
                finish(self.path, self._files)
                self._files.create(self.path)
            if 0 < self._files.size(self.path) < 512:
                raise Broken("it is shorter than any database")  # SQLite would begin a new one in it
            if self._files.identity(f"{self.path}{BAD_LOG}") is not None:
                raise Broken("its log is damaged")
            log = self._files.size(f"{self.path}-wal")
            content = self._files.read(f"{self.path}-wal")
            self._con, is_new = self._connected(look)
            if log:
                # What a process wrote that died may not have reached the disk, and is about to be believed.
                self._rewrite_log()
                self._doubt_log(self._con, content)
                self._shut()
                self._con, is_new = self._connected(look)
            self._identity = self._files.identity(self.path)
            if is_new:
                meta = {"source": secrets.token_hex(16), "epoch": 1, "generation": 0, "marks": 0, "lanes": 0}
                self._con.execute("BEGIN IMMEDIATE")
                create(self._con, meta)
                self._con.execute("COMMIT")
            self._load(self._con)
            if look:
                return
            self.meta["generation"] += 1
            self._con.execute("BEGIN IMMEDIATE")
            save_meta(self._con, self.meta)
            self._con.execute("COMMIT")
            list(self._con.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
            self._files.sync_folder(self.path)
        except NoOutbox:
            self._shut()
            raise
        except Exception as exc:
            found = judge(exc)
            self._shut()
            if getattr(exc, "sqlite_errorcode", 0) == READONLY and os.access(self.path, os.W_OK):
                found = Broken("the header says that the file is for newer programs")
            raise found from exc

    def _connected(self, look: bool) -> tuple[Connection, bool]:
        con = self._connect(self.path)
        try:
            list(con.execute("PRAGMA locking_mode=EXCLUSIVE"))
            is_new = self._refuse(con, look=look)
            for pragma in (
                f"page_size={PAGE}",
                "cell_size_check=ON",
                "trusted_schema=OFF",
                "journal_mode=WAL",
                f"synchronous={self._synchronous}",
            ):
                list(con.execute(f"PRAGMA {pragma}"))
            con.execute("BEGIN EXCLUSIVE")
            con.execute("COMMIT")
        except BaseException:
            con.close()
            raise
        return con, is_new

    def _doubt_log(self, con: Connection, content: bytes) -> None:
        """Keep a log that has commits behind damage: SQLite ends at the damage, and forgets the rest."""
        ((_, known, _),) = con.execute("PRAGMA wal_checkpoint(PASSIVE)")
        (size,) = _one(con, "PRAGMA page_size")
        # One commit may be torn where the power was cut while it was written; with less flushing, many.
        beyond = sum(mark > known for mark in commits(content, size))
        if beyond < 2 or self._synchronous != "full":
            return
        data = self._files.read(self.path)  # this may end our lock, but the file is closed next
        if any(
            data[(number - 1) * size : number * size] != page
            for number, page in logged(content, size).items()
        ):
            self._files.write(f"{self.path}{BAD_LOG}", content)
            raise Broken("its log is damaged")

    def _refuse(self, con: Connection, *, look: bool) -> bool:
        """Refuse a file that holds something else, before it is changed; tell whether it is new."""
        names = {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        kind, version = _one(con, "PRAGMA application_id")[0], _one(con, "PRAGMA user_version")[0]
        if not names and kind in (0, APPLICATION):
            if look:
                raise NoOutbox(f"{self.path} is empty: no outbox was made of it yet")
            return True
        if kind != APPLICATION and not TABLES.keys() <= names:
            raise NoOutbox(f"{self.path} is another program's database; give another path")
        # Both say so: it is no damage.
        if version > VERSION and _one(con, "SELECT version FROM outbox")[0] == version:
            raise NoOutbox(
                f"{self.path} was made by a newer event-nexus: it has version {version}, and this one knows "
                f"none above {VERSION}; update event-nexus"
            )
        if kind != APPLICATION or version != VERSION:
            raise Broken("the header is not what it was")
        return False

    def _load(self, con: Connection) -> None:
        """Read everything but the rows, and check it."""
        if self._files.size(self.path) <= CHECKED:
            (found,) = _one(con, "PRAGMA quick_check(1)")
            if found != "ok":
                raise Broken(found)
        (row,) = con.execute("SELECT version, source, epoch, generation, marks, lanes, crc FROM outbox")
        if checksum("outbox", *row[:-1]) != row[-1]:
            raise Broken("the record of the outbox")
        meta: Meta = dict(zip(("source", "epoch", "generation", "marks", "lanes"), row[1:-1], strict=True))
        lanes: dict[Key, Lane] = {}
        for stream, priority, accepted, last, crc in con.execute("SELECT * FROM lanes"):
            if checksum("lane", meta["epoch"], stream, priority, accepted, last) != crc:
                raise Broken("the record of a lane")
            lanes[stream, priority] = Lane(accepted, last)
        if len(lanes) != meta["lanes"]:
            raise Broken("the record of a lane is missing")
        cursors: dict[Key, Cursor] = {}
        for source, priority, accepted, beyond, crc in con.execute("SELECT * FROM cursors"):
            if checksum("cursor", source, priority, accepted, beyond) != crc:
                raise Broken("a cursor")
            cursors[source, priority] = Cursor.of(accepted, beyond)
        self.damaged = ()
        self.meta, self.lanes, self.cursors = meta, lanes, cursors
        self._measure(con)

    def _measure(self, con: Connection) -> None:
        """Find out how much is stored of each lane, and what is missing."""
        sums = (
            "SELECT stream, priority, min(first), max(first), max(first + count), sum(count), "
            "sum(length(rows)) FROM groups GROUP BY stream, priority"
        )
        damaged: list[OutboxDamaged] = []
        found = set()
        for stream, priority, first, start, end, count, size in list(con.execute(sums)):
            lane = self.lanes.get((stream, priority))
            if lane is None:
                raise Broken("rows without a lane")
            found.add((stream, priority))
            # The last group says how far the lane goes: it is believed only if its rows are whole.
            for _ in self.groups(stream, priority, start):
                pass
            lane.last, lane.bytes = max(lane.last, end - 1), size
            if end - first != count or first > lane.accepted + 1 or end <= lane.last:
                self._scan(con)
                damaged.extend(self._holes(stream, priority, lane))
        for (stream, priority), lane in self.lanes.items():
            if (stream, priority) not in found and lane.last > lane.accepted:
                damaged.append(OutboxDamaged(stream, priority, lane.accepted + 1, lane.last))
        self.damaged = tuple(damaged)

    def _holes(self, stream: str, priority: int, lane: Lane) -> Iterator[OutboxDamaged]:
        number = lane.accepted + 1
        for first, rows in self.groups(stream, priority, number):
            if first > number:
                yield OutboxDamaged(stream, priority, number, first - 1)
            number = max(number, first + len(rows))
        if number <= lane.last:
            yield OutboxDamaged(stream, priority, number, lane.last)

    def groups(self, stream: str, priority: int, number: int) -> Iterator[tuple[int, list[bytes]]]:
        """Give the groups of a lane from the one that holds a number, with the number of their first row."""
        con = self._con
        if con is None:
            raise Trouble("the file is not open")
        lane = (stream, priority)
        start = seed(self.meta["epoch"], stream, priority)
        where = "FROM groups WHERE stream=? AND priority=? AND first"
        try:
            ((before,),) = con.execute(f"SELECT max(first) {where}<=?", (*lane, number))
            at = number if before is None else before
            while found := list(
                con.execute(f"SELECT first, count, rows {where}>=? ORDER BY first LIMIT 4", (*lane, at))
            ):
                for first, count, blob in found:
                    rows = split(start + first, blob)
                    if rows is None or len(rows) != count or first < at:
                        raise Broken(f"rows from {first} of priority {priority}")
                    at = first + count
                    if at > number:
                        yield first, rows
        except Exception as exc:
            raise judge(exc) from exc

    def _scan(self, con: Connection) -> None:
        """Check every group under its own key: a damaged key looks like a hole, or like rows twice."""
        for stream, priority, first, count, blob in con.execute(
            "SELECT stream, priority, first, count, rows FROM groups"
        ):
            lane = self.lanes.get((stream, priority))
            rows = split(seed(self.meta["epoch"], stream, priority) + first, blob)
            if lane is None or rows is None or len(rows) != count or first + count - 1 <= lane.accepted:
                raise Broken(f"rows from {first} of priority {priority}")

    def _expect_hole(self, stream: str, priority: int, first: int, last: int) -> None:
        """See that rows that are not there are known to be lost: a damaged key may look sound."""
        if first <= last and not any(
            (each.stream, each.priority) == (stream, priority) and each.first <= first and last <= each.last
            for each in self.damaged
        ):
            raise Broken(f"rows {first} to {last} of priority {priority} are not in their place")

    # Parts of a commit

    def _lane(self, key: Key, lanes: dict[Key, Lane | None]) -> Lane | None:
        """Give the copy of a lane that this commit changes."""
        if key not in lanes and key in self.lanes:
            lanes[key] = attrs.evolve(self.lanes[key])
        return lanes.get(key)

    def _put(
        self,
        con: Connection,
        key: Key,
        first: int,
        rows: Sequence[bytes],
        meta: Meta,
        lanes: dict[Key, Lane | None],
    ) -> None:
        stream, priority = key
        lane = self._lane(key, lanes)
        epoch = meta["epoch"]
        if lane is None:
            lane = lanes[key] = Lane(first - 1, first - 1)
            meta["lanes"] += 1
            save_lane(con, epoch, stream, priority, lane.accepted, lane.last)
        start = seed(epoch, stream, priority)
        end = first + len(rows)
        if lane.last >= first:  # it was stored, although the disk said otherwise
            where = "FROM groups WHERE stream=? AND priority=? AND first BETWEEN ? AND ?"
            values = (stream, priority, first, end - 1)
            ((size,),) = con.execute(f"SELECT sum(length(rows)) {where}", values)
            con.execute(f"DELETE {where}", values)
            lane.bytes -= size or 0
        parts = chunks(rows)
        while some := list(islice(parts, AT_ONCE)):
            groups: list[Any] = []
            for part in some:
                blob = join(start + first, part)
                groups += (stream, priority, first, len(part), epoch, blob)
                first += len(part)
                lane.bytes += len(blob)
            places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(some))
            con.execute(f"INSERT OR REPLACE INTO groups VALUES {places}", groups)
        lane.last = max(lane.last, end - 1)

    def _accept(
        self, con: Connection, key: Key, number: int, meta: Meta, lanes: dict[Key, Lane | None]
    ) -> None:
        lane = self._lane(key, lanes)
        if lane is None or number <= lane.accepted:
            return
        lane.accepted = min(number, lane.last)
        where = "FROM groups WHERE stream=? AND priority=? AND first<=? AND first+count<=?"
        values = (*key, lane.accepted, lane.accepted + 1)
        ((size,),) = con.execute(f"SELECT sum(length(rows)) {where}", values)
        con.execute(f"DELETE {where}", values)
        lane.bytes -= size or 0
        save_lane(con, meta["epoch"], *key, lane.accepted, lane.last)

    def _forget(self, con: Connection, stream: str, meta: Meta, lanes: dict[Key, Lane | None]) -> None:
        # Its numbers may begin again: nothing of it may be found in a damaged file later.
        gone = [key for key in self.lanes if key[0] == stream]
        list(con.execute("PRAGMA secure_delete=ON"))
        for table in ("groups", "lanes"):
            con.execute(f"DELETE FROM {table} WHERE stream=?", (stream,))
        list(con.execute("PRAGMA secure_delete=OFF"))
        meta["lanes"] -= len(gone)
        lanes.update(dict.fromkeys(gone))

    # After a failure

    def _rewrite_log(self) -> None:
        log = f"{self.path}-wal"
        if self._files.size(log):
            self._files.rewrite(log)

    def _rescue(self, con: Connection) -> None:
        """Bring back a file that was removed while it was in use: the system keeps it until it is closed."""
        copy = f"{self.path}.salvaging"
        self._files.remove(copy)
        self._files.create(copy)  # its owner's alone
        with contextlib.suppress(Exception):
            con.execute("ROLLBACK")
        try:
            con.execute("VACUUM INTO ?", (copy,))
        except Exception as exc:
            raise judge(exc) from exc
        self._files.rewrite(copy)
        self._files.replace(copy, f"{self.path}.salvaged")
        self._files.remove(f"{self.path}-wal")  # the copy has what was in it

    def _shut(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            try:
                con.close()
            except Exception as exc:
                logger.debug("closing %s: %s", self.path, exc)


def _apply(con: Connection, effect: Effect) -> None:
    if effect.is_over:
        return
    con.execute("SAVEPOINT effect")
    effect.error = None
    try:
        effect.apply(con)
    except BaseException as exc:
        if is_the_files(exc):
            raise
        effect.error = exc
    try:
        if effect.error is not None:
            con.execute("ROLLBACK TO effect")
        con.execute("RELEASE effect")
    except Exception as exc:
        if is_the_files(exc):
            raise
        if effect.error is None:
            effect.is_over = True
            effect.error = BadCall(
                "an effect has ended the transaction of the outbox; leave that to the outbox"
            )
        raise Trouble("the transaction has ended") from exc


def _one(con: Connection, sql: str) -> Any:
    (row,) = con.execute(sql)
    return row
