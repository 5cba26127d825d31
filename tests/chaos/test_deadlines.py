"""Deadlines under overload: nothing is handled after its time, all that expired is counted.

The wall clock does not matter.
"""

import ast
import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

import nexus as package
from nexus import AsyncEventNexus, Event, Timer
from nexus.testing import assert_ledger_balanced, run

HANDLING = 0.001


async def overload(make: type[AsyncEventNexus], number: int, rng: random.Random) -> dict[str, Any]:
    """Give events with a random time to live at twice the rate they are handled."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    handled = 0

    async def handler(event: Event[Any]) -> None:
        nonlocal handled
        if event.deadline is not None and loop.time() > event.deadline:
            late.append(loop.time() - event.deadline)
        handled += 1
        await asyncio.sleep(HANDLING)

    nexus = make(maxsize=2000, grace=1e6)
    nexus.add_handler("t", handler)
    nexus.add_handler("beside", handler, concurrency=1)
    async with nexus:
        for place in range(number):
            deadline = None if place % 10 == 0 else loop.time() + rng.uniform(0.0, 1.5)
            kind = "t" if place % 3 else "beside"
            await nexus.ingest(Event(place, kind, rng.randint(-1, 1), None, deadline=deadline))
            if place % 4 == 0:
                await asyncio.sleep(HANDLING)
    stats = nexus.stats()
    assert_ledger_balanced(stats, ingested=number, handled=handled, queued=0)
    assert late == []
    assert stats.handled + stats.expired == number
    assert stats.expired > number // 20
    return {"offered": number, "delivered": handled, "expired": stats.expired, "lost": 0, "late": len(late)}


def test_no_event_is_handled_after_its_deadline(form: Any, figures: Any) -> None:
    """Under overload each event is handled in time or counted as expired, inline or beside."""
    figures(**run(overload(AsyncEventNexus, form.size(20_000, 1_000_000), random.Random(form.seed))))


class ForgetsDeadlines(AsyncEventNexus):
    """Gives an event a second more than it has."""

    async def ingest(self, event: Event[Any]) -> None:
        if event.deadline is not None:
            event = _Told(event)
        await super().ingest(event)


class _Told(Event[Any]):
    """Tells its handler the deadline it was given, and the nexus another."""

    def __init__(self, event: Event[Any]) -> None:
        asked = event.deadline or 0.0
        super().__init__(
            event.id, event.type, event.priority, event.payload, deadline=asked + 1, source=str(asked)
        )

    @property
    def deadline(self) -> float:
        return float(self.source or 0)


def test_nexus_that_forgets_deadlines_would_be_seen() -> None:
    """Events that outlive their deadline fail the judgement above."""
    with pytest.raises(AssertionError):
        run(overload(ForgetsDeadlines, 4000, random.Random(0)))


WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today"}


def wall_clock_calls(text: str) -> list[int]:
    """Name the lines that read the wall clock: time.time(), datetime.now() and their kin."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in WALL:
            owner = ast.unparse(node.value)
            if owner in ("time", "datetime", "date", "datetime.datetime", "datetime.date"):
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            found += [node.lineno for alias in node.names if alias.name in WALL | {"datetime", "date"}]
    return found


def test_core_never_reads_the_wall_clock() -> None:
    """All time is the loop's: a stepped wall clock changes no timer and no deadline."""
    root = Path(package.__file__).parent
    modules = [*root.glob("*.py"), *(root / "testing").glob("*.py")]
    assert len(modules) > 20
    assert {path.name: wall_clock_calls(path.read_text()) for path in modules} == {
        p.name: [] for p in modules
    }


@pytest.mark.parametrize(
    "text", ["time.time()", "from time import time", "datetime.now()", "f(datetime.datetime.utcnow)"]
)
def test_wall_clock_would_be_seen(text: str) -> None:
    """The search finds each way to ask for the wall clock."""
    assert wall_clock_calls(text)


def test_stepped_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wall clock a day off at every look, timers and deadlines keep their moments."""
    steps = iter(range(10**9))
    monkeypatch.setattr("time.time", lambda: 1e9 + (-1) ** next(steps) * 86_400)

    async def go() -> None:
        moments: list[float] = []
        nexus = AsyncEventNexus()
        nexus.add_handler("t", lambda event: moments.append(asyncio.get_running_loop().time()))
        nexus.add_producer(Timer(60, event_type="t", type=Timer.COUNT_UP, count=100))
        async with nexus:
            await nexus.ingest(Event(1, "t", 0, None, deadline=1.0))
            await asyncio.sleep(6001)
        assert moments == [0.0, *(60.0 * n for n in range(1, 101))]

    run(go())
