"""Assertions about a nexus: its ledger, its waiting times, its order."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Protocol

from nexus._event import Event
from nexus._stats import Stats, TypeCounts

from ._recorder import Recorder

OUTCOMES = ("handled", "failed", "unhandled", "expired", "dropped", "queued")
COUNTS = ("ingested", *OUTCOMES, "active", "refused")


class HasStats(Protocol):
    """A nexus, as far as assertions are concerned."""

    def stats(self) -> Stats:
        """Return its statistics."""
        ...


def assert_ledger_balanced(nexus: HasStats | Stats, /, **expected: int) -> None:
    """Assert that every event is accounted for, in all and for each type, and that counts are as expected.

    Args:
        nexus: a nexus, or the statistics of one.
        expected: totals by name, ``handled=100, dropped=0``; those not named may be anything.

    Raises:
        AssertionError: with a table of all counts.
        TypeError: there is no count of that name.
    """
    unknown = expected.keys() - set(COUNTS)
    if unknown:
        raise TypeError(f"no count is named {', '.join(sorted(unknown))}; there are {', '.join(COUNTS)}")
    stats = _stats(nexus)
    rows: dict[str, Stats | TypeCounts] = {"total": stats, **{repr(k): v for k, v in stats.types.items()}}
    wrong = [
        f"{name}: {row.ingested} ingested, {_settled(row)} accounted for"
        for name, row in rows.items()
        if row.ingested != _settled(row)
    ]
    wrong += [
        f"{name}: expected {value}, found {getattr(stats, name)}"
        for name, value in expected.items()
        if getattr(stats, name) != value
    ]
    if wrong:
        raise AssertionError("\n".join(["the ledger is not as it should be", *wrong, "", _table(rows)]))


def assert_waited_less(nexus: HasStats | Stats, priority: int, percentile: float, seconds: float) -> None:
    """Assert that this share of the events of a priority waited less in the queue.

    Args:
        percentile: from 0 to 100; 100 for all.
        seconds: on the loop's clock, so 0 in virtual time unless something waits on purpose.

    Raises:
        AssertionError: they waited longer, or no event of that priority was measured.
    """
    waiting = _stats(nexus).waiting
    if priority not in waiting or not waiting[priority].count:
        raise AssertionError(f"no event of priority {priority} waited; measured are {sorted(waiting)}")
    found = waiting[priority].percentile(percentile)
    if not found < seconds:
        lines = [f"  priority {each}: {histogram.as_dict()}" for each, histogram in sorted(waiting.items())]
        raise AssertionError(
            f"{percentile:g} % of the events of priority {priority} waited up to {found:g} s, "
            f"not less than {seconds:g} s\n" + "\n".join(lines)
        )


def assert_order(
    events: Iterable[Event[Any]] | Recorder, *, by: Callable[[Event[Any]], Any] | None = None
) -> None:
    """Assert that events queued together came out by priority, and first in first out within one.

    Args:
        events: in the order they were handled, or the recorder that handled them.
        by: what grows with the order of ingestion; None for the event's id.

    Raises:
        AssertionError: at the first event that is out of order, with its neighbours; a repeated one is too.
    """
    rank = by or _id
    found = events.events if isinstance(events, Recorder) else list(events)
    for place, (earlier, later) in enumerate(pairwise(found)):
        if earlier.priority > later.priority:
            fault = f"priority {later.priority} came after the less urgent {earlier.priority}"
        elif earlier.priority == later.priority and not rank(earlier) < rank(later):
            fault = f"within priority {later.priority}, {rank(later)!r} came after {rank(earlier)!r}"
        else:
            continue
        shown = "\n".join(
            f"  {i}: {found[i]!r}" for i in range(max(0, place - 1), min(place + 4, len(found)))
        )
        raise AssertionError(f"events are out of order at number {place + 1}: {fault}\n{shown}")


def _stats(nexus: HasStats | Stats) -> Stats:
    return nexus if isinstance(nexus, Stats) else nexus.stats()


def _settled(row: Stats | TypeCounts) -> int:
    return sum(getattr(row, name) for name in OUTCOMES)


def _table(rows: dict[str, Stats | TypeCounts]) -> str:
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>11}" for name in COUNTS)]
    for name, row in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{getattr(row, count):>11}" for count in COUNTS))
        lines += [f"{'':<{width}}    dropped, {reason}: {number}" for reason, number in _drops(row)]
    return "\n".join(lines)


def _drops(row: Stats | TypeCounts) -> list[tuple[str, int]]:
    return sorted(row.drops.items()) if isinstance(row, TypeCounts) else []


def _id(event: Event[Any]) -> int:
    return event.id
