"""What became of numbered events whose effects are ranges in the file of an outbox."""

import contextlib
import sqlite3
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

__all__ = ["effects_found"]


def effects_found(path: Path, count: int, priorities: Iterable[int]) -> dict[str, int]:
    """Count what is missing, what is there twice, and what came too late, of events 1 to `count` of each."""
    lost = twice = disorder = 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for priority in priorities:
            rows = connection.execute(
                "SELECT first, last FROM effect WHERE priority = ? ORDER BY rowid", (priority,)
            ).fetchall()
            disorder += sum(before[1] > after[0] for before, after in pairwise(rows))
            seen = bytearray(count + 1)
            for first, last in rows:
                for number in range(first, last + 1):
                    twice += seen[number]
                    seen[number] = 1
            lost += count - sum(seen)
    return {"lost": lost, "duplicated": twice, "disorder": disorder}
