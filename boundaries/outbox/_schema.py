"""The tables of an outbox, and what SQLite's errors mean for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any, TypeAlias

from nexus.boundaries.outbox._group import checksum
from nexus.boundaries.outbox._kinds import Connection

__all__ = [
    "APPLICATION",
    "TABLES",
    "VERSION",
    "Broken",
    "Busy",
    "Connect",
    "Meta",
    "Trouble",
    "connect",
    "create",
    "is_the_files",
    "judge",
    "save_cursor",
    "save_lane",
    "save_meta",
]

APPLICATION = 0x4E58_4F42
"""What SQLite's header says of the kind of the file: NXOB."""
VERSION = 1
"""Of these tables."""

TABLES = {
    "outbox": "id INTEGER PRIMARY KEY, version, source, epoch, generation, marks, lanes, crc",
    "lanes": "stream, priority, accepted, last, crc, PRIMARY KEY (stream, priority)",
    "groups": "stream, priority, first, count, epoch, rows, PRIMARY KEY (stream, priority, first)",
    "cursors": "source, priority, accepted, beyond, crc, PRIMARY KEY (source, priority)",
}

PAGE = 4096

FULL, IOERR, BUSY, CORRUPT, NOTADB = 13, 10, 5, 11, 26
DISK = {IOERR, FULL, 6, 7, 8, 14, 15, 23}
"""Primary codes of errors that pass: also locked, out of memory, read-only, cannot open, and two more."""
SHORT_READ = 522
FSYNC = {1034, 1290}
"""Extended codes after which written data may never reach the disk: of a file, of a directory."""


Connect: TypeAlias = Callable[[str], Connection]
Meta: TypeAlias = dict[str, Any]


class Trouble(Exception):
    """The disk does not do what it should; it may again.

    Attributes:
        suspect: what was written before may never reach the disk, whatever it says now.
    """

    def __init__(self, why: str, *, suspect: bool = False) -> None:
        super().__init__(why)
        self.suspect = suspect


class Broken(Exception):
    """What is in the file is not what was stored."""


class Busy(Exception):
    """Somebody else has the file."""


def connect(path: str) -> sqlite3.Connection:
    """Open a database with the library of the interpreter."""
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def judge(exc: BaseException) -> Trouble | Broken | Busy:
    """Say what an error of SQLite or of the system means; what is none of them means damage."""
    if isinstance(exc, Trouble | Broken | Busy):
        return exc
    code = getattr(exc, "sqlite_errorcode", None) or getattr(exc, "extendedresult", None)
    if isinstance(exc, OSError) and not isinstance(code, int):
        return Trouble(f"{exc.strerror or exc} ({os.path.basename(str(exc.filename or ''))})", suspect=True)
    if not isinstance(code, int):
        return Broken(f"{type(exc).__name__}: {exc}")
    if code & 0xFF == BUSY:
        return Busy(str(exc))
    if code & 0xFF in DISK and code != SHORT_READ:
        # A read or a write that failed says nothing of earlier ones; a failed flush does.
        return Trouble(str(exc), suspect=code & 0xFF == IOERR)
    return Broken(str(exc))


def is_the_files(exc: BaseException) -> bool:
    """Say whether an error tells of the disk or of the file, rather than of what was asked."""
    code = getattr(exc, "sqlite_errorcode", None) or getattr(exc, "extendedresult", None)
    return isinstance(code, int) and code & 0xFF in DISK | {CORRUPT, NOTADB, BUSY}


def create(con: Connection, meta: Meta) -> None:
    """Make the tables of a new outbox; within a transaction."""
    for name, columns in TABLES.items():
        rowid = "" if name == "outbox" else " WITHOUT ROWID"
        con.execute(f"CREATE TABLE {name} ({columns}){rowid}")
    con.execute(f"PRAGMA application_id={APPLICATION}")
    con.execute(f"PRAGMA user_version={VERSION}")
    save_meta(con, meta)


def save_meta(con: Connection, meta: Meta) -> None:
    """Write what is known of the outbox as a whole."""
    values = (VERSION, *(meta[key] for key in ("source", "epoch", "generation", "marks", "lanes")))
    con.execute(
        "INSERT OR REPLACE INTO outbox VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (*values, checksum("outbox", *values)),
    )


def save_lane(con: Connection, epoch: int, stream: str, priority: int, accepted: int, last: int) -> None:
    """Write how far a lane is."""
    crc = checksum("lane", epoch, stream, priority, accepted, last)
    con.execute(
        "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?)", (stream, priority, accepted, last, crc)
    )


def save_cursor(con: Connection, source: str, priority: int, accepted: int, beyond: str) -> None:
    """Write how far a source's rows have come in."""
    crc = checksum("cursor", source, priority, accepted, beyond)
    con.execute(
        "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?)", (source, priority, accepted, beyond, crc)
    )
