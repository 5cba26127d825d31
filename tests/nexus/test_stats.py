"""Statistics: percentiles, waiting and handling times, and their form for JSON."""

import asyncio
import json
import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from nexus import AsyncEventNexus, DropOldest, Event, SecondaryQueue, Stats
from nexus._stats import LatencyRecorder
from nexus.testing import assert_ledger_balanced, run, virtual_time

TIMES = st.floats(2e-7, 1e7)


@given(st.lists(st.tuples(TIMES, st.integers(1, 20)), min_size=1, max_size=40), st.floats(0, 100))
def test_a_percentile_is_right_to_nine_percent(times: list[tuple[float, int]], percent: float) -> None:
    """A percentile is that of the sorted list, or up to 9.1 % more; mean, maximum and count are exact."""
    recorder = LatencyRecorder()
    for seconds, count in times:
        recorder.record(seconds, count)
    everything = sorted(seconds for seconds, count in times for _ in range(count))
    exact = everything[max(1, math.ceil(len(everything) * percent / 100)) - 1]
    found = recorder.snapshot()
    assert exact * 0.999999 <= found.percentile(percent) <= exact * 1.091
    assert found.count == len(everything)
    assert found.max == pytest.approx(everything[-1])
    assert found.mean == pytest.approx(math.fsum(everything) / len(everything))


def test_an_empty_histogram_is_all_zero() -> None:
    """Nothing measured: no division by zero, and JSON."""
    found = LatencyRecorder().snapshot()
    assert set(json.loads(json.dumps(found.as_dict())).values()) == {0.0}


@given(st.lists(TIMES, max_size=20), st.lists(TIMES, max_size=20))
def test_merging_is_the_same_as_recording_together(one: list[float], other: list[float]) -> None:
    """Two recorders merged say what one would have said."""
    recorders = [LatencyRecorder() for _ in range(3)]
    for recorder, times in zip(recorders, (one, other, one + other), strict=True):
        for seconds in times:
            recorder.record(seconds)
    recorders[0].merge(recorders[1])
    merged, together = recorders[0].snapshot(), recorders[2].snapshot()
    assert (merged.count, merged.max, merged.buckets) == (together.count, together.max, together.buckets)


class Measured:
    """Handles events, each for the seconds in its payload, and keeps how long each really waited."""

    def __init__(self, nexus: AsyncEventNexus) -> None:
        self.nexus = nexus
        self.came: dict[int, float] = {}
        self.waited: list[float] = []

    async def handle(self, event: Event[float], queue: SecondaryQueue) -> None:
        self.waited.append(asyncio.get_running_loop().time() - self.came[event.id])
        if event.payload:
            await asyncio.sleep(event.payload)

    async def ingest(self, event: Event[float]) -> None:
        self.came[event.id] = asyncio.get_running_loop().time()
        await self.nexus.ingest(event)


@example([(0.0, 1, 2.0), (0.5, 1, 0.0)], None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.001, 0.5]), st.integers(1, 40), st.sampled_from([0.0, 0.0, 0.2, 2.0])
        ),
        max_size=15,
    ),
    st.sampled_from([None, "a"]),
)
def test_waiting_times_are_right_to_two_percent(bursts: list[Any], policy: str | None) -> None:
    """Waits are known to 2 % of the longest or 50 us, whatever handlers and gaps do."""

    async def play() -> None:
        nexus = AsyncEventNexus()
        measured = Measured(nexus)
        nexus.add_handler("a", measured)
        if policy:
            nexus.set_policy(policy, DropOldest())
        async with nexus:
            number = 0
            for gap, count, sleep in bursts:
                await asyncio.sleep(gap)
                for _ in range(count):
                    number += 1
                    await measured.ingest(Event(number, "a", 0, sleep))
            await nexus.drained()
            check_waits(nexus.stats(), sorted(measured.waited))

    run(play())


def check_waits(stats: Stats, exact: list[float], share: float = 0.02) -> None:
    found = stats.waiting.get(0)
    assert (found.count if found else 0) == len(exact)
    if found is not None:
        for place, seconds in enumerate(exact):
            percent = 100 * (place + 0.5) / len(exact)
            fault = share * exact[-1] + 5e-5
            assert seconds - fault <= found.percentile(percent) <= (seconds + fault) * 1.091


@virtual_time
async def test_waits_of_what_a_flood_has_left_are_their_own() -> None:
    """Events that outlived a flood of dropped ones have waited since they came, not since the flood began."""
    nexus = AsyncEventNexus(maxsize=100)
    measured = Measured(nexus)
    nexus.add_handler("a", measured)
    nexus.set_policy("a", DropOldest())
    async with nexus:
        await measured.ingest(Event(0, "a", 0, 100.0))
        for number in range(1, 1000):
            await asyncio.sleep(0.1)
            await measured.ingest(Event(number, "a", 0, 0.0))
        await nexus.drained()
        check_waits(nexus.stats(), sorted(measured.waited), share=0.05)


@virtual_time
async def test_handling_times_are_those_of_the_handlers() -> None:
    """A handler that sleeps is measured by the loop's clock; the quick ones beside it stay quick."""
    nexus = AsyncEventNexus()
    measured = Measured(nexus)
    nexus.add_handler("a", measured)
    async with nexus:
        for number in range(100):
            await measured.ingest(Event(number, "a", 0, 2.0 if number % 10 == 3 else 0.0))
        await nexus.drained()
        found = nexus.stats().handling[0]
        assert found.count == 100
        assert found.total == pytest.approx(20.0)
        assert found.percentile(89) < 1e-6
        assert found.percentile(91) == pytest.approx(2.0)
        assert found.max == pytest.approx(2.0)


@virtual_time
async def test_priorities_are_measured_apart() -> None:
    """Urgent events do not share their figures with those that wait."""
    nexus = AsyncEventNexus()
    measured = Measured(nexus)
    nexus.add_handler("a", measured)
    async with nexus:
        for number in range(5):
            await measured.ingest(Event(number, "a", 5, 1.0))
        await asyncio.sleep(0.5)
        await measured.ingest(Event(10, "a", -1, 0.0))
        await nexus.drained()
        stats = nexus.stats()
        assert stats.waiting[-1].max == pytest.approx(0.5)
        assert stats.waiting[5].max == pytest.approx(4.0)
        assert list(stats.waiting) == [-1, 5]


@virtual_time
async def test_as_dict_is_ready_for_json() -> None:
    """All figures of a nexus that has seen every outcome pass through JSON."""

    async def fail(event: Event[Any]) -> None:
        raise ValueError("no")

    nexus = AsyncEventNexus(maxsize=2)
    nexus.add_handler("a", lambda event: None)
    nexus.add_handler(7, fail)
    nexus.set_policy("a", DropOldest())
    async with nexus:
        for number in range(5):
            nexus.ingest_nowait(Event(number, "a", 0, object()))
        for type_ in (7, "nobody"):
            await nexus.ingest(Event(9, type_, -1, None))
        await nexus.ingest(Event(10, "a", -2, None, deadline=-1.0))
        await nexus.drained()
        plain = json.loads(json.dumps(nexus.stats().as_dict()))
        assert plain["balanced"] is True
        assert (plain["ingested"], plain["dropped"], plain["failed"]) == (8, 3, 1)
        assert plain["types"]["a"]["drops"] == {"drop_oldest": 3}
        assert plain["types"]["7"]["failed"] == 1
        assert plain["waiting"]["0"].keys() == {"count", "mean", "p50", "p90", "p99", "p99.9", "max"}
        assert_ledger_balanced(nexus, handled=2, unhandled=1, expired=1)


@virtual_time
async def test_every_event_is_measured_once() -> None:
    """Types that take turns in one lane, with plain handlers and others, are each measured once."""
    nexus = AsyncEventNexus(multiple=True)

    async def wait(event: Event[object]) -> None:
        await asyncio.sleep(0)

    nexus.add_handler("a", lambda event: None)
    nexus.add_handler("b", lambda event: None)
    nexus.add_handler("c", wait)
    nexus.add_handler("d", lambda event: None)
    nexus.add_handler("d", wait)
    async with nexus:
        await nexus.ingest_many(Event(n, "aabbabcdacbd"[n % 12], 0, None) for n in range(1200))
        await nexus.drained()
        stats = nexus.stats()
    assert stats.waiting[0].count == stats.handling[0].count == stats.handled == 1200
