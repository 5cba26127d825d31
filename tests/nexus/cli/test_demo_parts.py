"""Laws about the parts of the demo that need no second process."""

import io
import itertools
import random
from collections import Counter

import pytest
from rich.console import Console

import nexus
from nexus.cli.demo._machine import Machine, Processes
from nexus.cli.demo._recording import Passage, Recording, through_fifo, waits
from nexus.cli.demo._screen import duration, line, table
from nexus.cli.demo._sources import Limits, Maker, ProcessReadings
from nexus.cli.demo._view import Row, View, view_of

VIEW = View(
    elapsed=4.25,
    seconds=10.0,
    plant_pid=11,
    control_pid=12,
    rows=[
        Row("Alarm", -10, 50.0, 49.6, 0, 1, 0.00021, 0.0015, 0, "Block"),
        Row("ProcessReading", 10, 15000.0, 7421.4, 1000, 2000, 0.4321, 1.25, 12345, "DropOldest"),
        Row("Quiet", 0, 0.0, 0.0, 0, 0, None, None, 0, "Block"),
    ],
    alarm="7.busy 97 % (test: python is the busiest)",
)


def drawn(width: int) -> str:
    """Draw the table as plain text."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table(VIEW))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_shows_a_row_for_each_kind() -> None:
    """A fixed moment gives a fixed table: rates, depths, times with units, and what was dropped."""
    rows = [" ".join(text.split()) for text in drawn(80).splitlines()]
    assert rows[0] == "plant (pid 11) ── ZMQ ──▶ control (pid 12) 4.2 s of 10 s"
    assert "Alarm -10 50 50 0 1 210 µs 1.5 ms 0" in rows
    assert "ProcessReading 10 15,000 7,421 1,000 2,000 432 ms 1.25 s 12,345" in rows
    assert "Quiet 0 0 0 0 0 - - 0" in rows
    assert "last alarm 7.busy 97 % (test: python is the busiest)" in rows
    assert rows[-1] == "policies: ProcessReading DropOldest, others Block"


def test_table_fits_eighty_columns() -> None:
    """No line is broken or cut at eighty columns."""
    assert max(len(text.rstrip()) for text in drawn(300).splitlines()) <= 80


def test_line_says_the_same_in_plain_text() -> None:
    """The plain form is one line of printable characters with every kind in it."""
    said = line(VIEW)
    assert said.isprintable()
    assert "Alarm [-10] 50/s of 50/s, queued 0+1, p50 210 µs, p99 1.5 ms, dropped 0" in said
    assert "dropped 12,345" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 µs"),
        (9.99e-5, "100 µs"),
        (0.00025, "250 µs"),
        (0.0123, "12.3 ms"),
        (2.5, "2.5 s"),
    ],
)
def test_duration_has_a_unit_that_fits(seconds: float | None, text: str) -> None:
    """Short times are written with three digits and their unit."""
    assert duration(seconds) == text


def test_rates_are_over_the_time_between_two_states() -> None:
    """A view counts what happened since the state before, each side on its own clock readings."""
    kinds = {"A": {"priority": 1, "policy": "Block"}}
    plant = [
        {"at": at, "made": {"A": made}, "kinds": kinds, "queued": {"1": 5}, "dropped": {"A": {"full": 2}}}
        for at, made in ((10.0, 100), (12.0, 500))
    ]
    control = [{"at": 12.0, "handled": {"A": 90}, "queued": {}, "latency": {}, "alarm": ""}]
    view = view_of(plant, control, began=9.0, seconds=60.0, pids=(1, 2))
    assert view is not None
    assert view.elapsed == 3.0
    assert view.rows == [Row("A", 1, 200.0, 0.0, 5, 0, None, None, 2, "Block")]
    assert view_of(plant, [], began=9.0, seconds=60.0, pids=(1, 2)) is None


def test_machine_gives_named_numbers() -> None:
    """A sweep reads processors, memory and kernel counters of the real machine; all are numbers."""
    figures = dict(Machine().sweep())
    assert {"cpu0.busy", "memory.percent", "kernel.ctx_switches", "load.1min"} <= figures.keys()
    assert all(isinstance(value, float | int) for value in figures.values())


def test_processes_find_the_hottest() -> None:
    """After a round the hottest process is one of those that were read."""
    processes = Processes()
    assert processes.hottest is None
    pids = {process.pid for process in processes.round()}
    assert processes.hottest is not None
    assert processes.hottest.pid in pids


def test_limit_is_crossed_once_until_it_was_well_below() -> None:
    """A figure that stays high, or only dips, is one alarm; after it was clearly below it may be another."""
    limits = Limits()
    values = [50.0, 91.0, 99.0, 80.0, 95.0, 60.0, 91.0]
    assert [limits.crossed(("cpu0.busy", value)) for value in values] == [
        each in (1, 6) for each in range(len(values))
    ]
    assert not limits.crossed(("cpu0.user", 100.0))


async def test_source_counts_what_it_gives() -> None:
    """A source's own count is what was taken from it, by type."""
    maker = Maker(nexus.EventFactory())
    flood = ProcessReadings(maker, processes=Processes(), rate=1e9, rng=random.Random(1))
    taken = Counter([(await flood.obtain_event()).type for _ in range(50)])
    await flood.aclose()
    assert maker.made == taken


def test_recording_tells_cost_from_waiting() -> None:
    """An event's cost begins when the one before has ended; its waiting is counted from its arrival."""
    recording = Recording(window=60.0)
    recording.arrived(1)
    recording.arrived(2)
    for id, priority in ((2, -1), (1, 0), (99, 0)):
        recording.done(id, priority)
    first, second = recording.passages
    assert (first.priority, second.priority) == (-1, 0)
    assert second.cost == pytest.approx(second.done - first.done, abs=1e-9)
    assert first.cost == pytest.approx(first.done - first.arrived, abs=1e-9)


async def test_fifo_lets_urgent_events_wait_their_turn() -> None:
    """In the FIFO queue an urgent event that arrives behind a backlog ends after all of it."""
    flood = [Passage(0, arrived=1.0, done=1.001, cost=0.0005) for _ in range(40)]
    urgent = Passage(-10, arrived=1.001, done=1.0015, cost=0.0001)
    handled = await through_fifo([urgent, *flood])
    assert [each.priority for each in handled] == [0] * 40 + [-10]
    assert [a.done <= b.done for a, b in itertools.pairwise(handled)] == [True] * 40
    (waited,) = waits(handled, urgent=True)
    assert waited >= 40 * 0.0005 - 0.001


async def test_fifo_of_nothing_is_nothing() -> None:
    """Without a recorded event there is nothing to compare."""
    assert await through_fifo([]) == []
