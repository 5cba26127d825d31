"""What an outbox tells of itself, and its errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from nexus.errors import OpenError

__all__ = [
    "Condition",
    "Connection",
    "Cursor",
    "LaneContents",
    "NoOutbox",
    "OutboxDamaged",
    "OutboxInUse",
    "OutboxState",
]

Condition: TypeAlias = Literal["closed", "standby", "open", "failing", "full"]


class Connection(Protocol):
    """What is used of `sqlite3.Connection`, and of the connection of ``apsw``."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Iterable[Any]: ...
    def close(self) -> object: ...


class OutboxInUse(OpenError):
    """Another process, or another outbox of this one, uses the file."""


class NoOutbox(OpenError):
    """The file is something else, or was made by a newer version."""


@attrs.frozen
class LaneContents:
    """What is stored for one priority of a stream and not yet accepted."""

    first: int
    """Number of the first row; one more than `last` if there is none."""
    last: int
    """Number of the last row that was ever stored; 0 if none was."""
    bytes: int
    """What the rows take in the file."""


@attrs.frozen
class Cursor:
    """How far the rows of one source and priority have come in."""

    accepted: int = 0
    """All numbers up to this one were accepted."""
    beyond: tuple[tuple[int, int], ...] = ()
    """First and last of the runs after it that were accepted as well; ascending."""

    @classmethod
    def of(cls, accepted: int, text: str) -> Cursor:
        """Read what `text` has made of the runs."""
        runs = (run.split("-") for run in text.split())
        return cls(accepted, tuple((int(first), int(last)) for first, last in runs))

    def text(self) -> str:
        """Write the runs as text."""
        return " ".join(f"{first}-{last}" for first, last in self.beyond)


@attrs.frozen
class OutboxDamaged:
    """Rows that were stored and cannot be read any more."""

    stream: str
    priority: int
    first: int
    last: int


@attrs.frozen
class OutboxState:
    """How an outbox is at one moment."""

    condition: Condition = "closed"
    """``standby`` while another process has the file, ``failing`` while the disk does not take what waits,
    ``full`` while there is no room."""
    reason: str = ""
    """Why it stands by, is failing or full; empty otherwise."""
    pending_rows: int = 0
    """Rows that wait to be stored."""
    pending_bytes: int = 0
    stored_rows: int = 0
    """Rows that are stored and not accepted."""
    stored_bytes: int = 0
    commits: int = 0
    """Commits since it was opened."""
    damaged: tuple[OutboxDamaged, ...] = ()
    """Rows that were lost to damage, are not accepted yet, and whose numbers are known."""
    set_aside: tuple[str, ...] = ()
    """Paths of damaged files that were kept."""
    taken_over: str = ""
    """What became of the process from which it was taken over; empty if nobody had it."""

    def __str__(self) -> str:
        return f"{self.condition}: {self.reason}" if self.reason else self.condition
