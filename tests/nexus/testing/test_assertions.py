"""Laws of the assertions: they pass what is right, and say what is wrong."""

from typing import Any

import attrs
import pytest

from nexus._event import Event
from nexus._stats import Histogram, LatencyRecorder, Stats, TypeCounts
from nexus.testing import assert_ledger_balanced, assert_order, assert_waited_less


def waited(*seconds: float) -> Histogram:
    """Make the histogram of these waits."""
    recorder = LatencyRecorder()
    for each in seconds:
        recorder.record(each)
    return recorder.snapshot()


BALANCED = Stats(
    ingested=10,
    handled=6,
    failed=1,
    unhandled=0,
    expired=0,
    dropped=1,
    queued=2,
    active=1,
    refused=3,
    types={"reading": TypeCounts(10, 6, 1, queued=2, active=1, refused=3, drops={"drop-oldest": 1})},
    lanes={0: 1},
    waiting={-1: waited(0.001, 0.002), 0: waited(*[0.1] * 99, 5.0)},
    handling={},
    sources={},
)


@attrs.frozen
class Holder:
    """Something that has statistics."""

    found: Stats

    def stats(self) -> Stats:
        """Return them."""
        return self.found


def test_balanced_ledger_passes() -> None:
    """A ledger that adds up passes, from statistics or from what has them, with counts as expected."""
    assert_ledger_balanced(BALANCED)
    assert_ledger_balanced(Holder(BALANCED), handled=6, dropped=1, refused=3, active=1)


def test_unbalanced_ledger_is_shown() -> None:
    """What does not add up is named, in all or for a type, and the table has every count and reason."""
    with pytest.raises(AssertionError) as caught:
        assert_ledger_balanced(attrs.evolve(BALANCED, handled=5))
    lines = str(caught.value).splitlines()
    assert "total: 10 ingested, 9 accounted for" in lines
    assert any("ingested" in line and "refused" in line for line in lines)
    assert any(line.split() == ["total", "10", "5", "1", "0", "0", "1", "2", "1", "3"] for line in lines)
    assert any(line.split() == ["dropped,", "drop-oldest:", "1"] for line in lines)
    types: dict[int | str, TypeCounts] = {"reading": attrs.evolve(BALANCED.types["reading"], handled=7)}
    with pytest.raises(AssertionError, match="'reading': 10 ingested, 11 accounted for"):
        assert_ledger_balanced(attrs.evolve(BALANCED, types=types))


def test_unexpected_counts_are_shown() -> None:
    """A count that is not as expected is named; a count that does not exist is a mistake of the caller."""
    with pytest.raises(AssertionError, match="dropped: expected 0, found 1"):
        assert_ledger_balanced(BALANCED, dropped=0)
    with pytest.raises(TypeError, match="no count is named lost; there are ingested"):
        assert_ledger_balanced(BALANCED, lost=0)


def test_short_waits_pass() -> None:
    """A share of the events that waited less passes."""
    assert_waited_less(BALANCED, -1, 100, 0.01)
    assert_waited_less(Holder(BALANCED), 0, 99, 0.2)


@pytest.mark.parametrize(("percentile", "seconds"), [(100, 5.0), (50, 0.05)])
def test_long_waits_are_shown(percentile: float, seconds: float) -> None:
    """A share that waited longer, or just as long, fails with the figures of every priority."""
    with pytest.raises(AssertionError, match=r"of priority 0 waited up to(.|\n)*priority -1: (.|\n)*p99"):
        assert_waited_less(BALANCED, 0, percentile, seconds)


def test_no_wait_is_no_short_wait() -> None:
    """A priority without a single event fails: the test would prove nothing."""
    with pytest.raises(AssertionError, match=r"no event of priority 7 waited; measured are \[-1, 0\]"):
        assert_waited_less(BALANCED, 7, 99, 1.0)


def events(*pairs: tuple[int, int]) -> list[Event[Any]]:
    """Make events from pairs of priority and id."""
    return [Event(id, "step", priority, None) for priority, id in pairs]


@pytest.mark.parametrize("pairs", [[], [(0, 1)], [(-5, 9), (-5, 10), (0, 1), (0, 7), (3, 2)]])
def test_order_passes(pairs: list[tuple[int, int]]) -> None:
    """Priorities that never fall back, with ids that grow within each, are in order."""
    assert_order(events(*pairs))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 1), (0, 2), (-1, 3)], "number 2: priority -1 came after the less urgent 0"),
        ([(0, 1), (0, 3), (0, 2)], "number 2: within priority 0, 2 came after 3"),
        ([(0, 1), (0, 1)], "number 1: within priority 0, 1 came after 1"),
    ],
)
def test_disorder_is_shown(pairs: list[tuple[int, int]], message: str) -> None:
    """The first event out of order is named: a less urgent one before it, a younger one, or itself."""
    with pytest.raises(AssertionError, match=message):
        assert_order(events(*pairs))


def test_order_by_something_else() -> None:
    """Where ids say nothing, another key tells the order of ingestion."""
    assert_order(events((0, 9), (0, 8), (0, 7)), by=lambda event: -event.id)
