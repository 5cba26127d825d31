"""The kit and a nexus together: whole applications in virtual time."""

import asyncio
import random
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event, NamedEvent, Timer
from nexus.testing import (
    Recorder,
    Script,
    VirtualTimeLoop,
    assert_ledger_balanced,
    assert_order,
    assert_waited_less,
    run,
    virtual_time,
)

DAY = 24 * 3600


class Reading(NamedEvent[float]):
    """A measured value."""


class Alarm(NamedEvent[float]):
    """A value too high."""


def reading(number: int) -> Reading:
    """Make the reading of this number; every hundredth is too high."""
    return Reading(number, 99.0 if number % 100 == 99 else 20.0)


async def raise_alarm(event: Event[float], queue: Any) -> None:
    """Answer a value that is too high with an urgent event."""
    if event.payload > 90:
        await queue.put(Alarm(event.id, event.payload, priority=-10))


@virtual_time
async def test_script_passes_through_a_nexus() -> None:
    """What a script plays is handled at the moments of the script, and secondary events at once."""
    nexus, alarms = AsyncEventNexus(), Recorder()
    nexus.add_converter(Script.every(0.5, 250, reading))
    nexus.add_handler(Reading, raise_alarm)
    nexus.add_handler(Alarm, alarms)
    async with nexus:
        await alarms.wait_for(2, timeout=100)
        await asyncio.sleep(30)
    assert alarms.times == [49.5, 99.5]
    assert alarms.payloads == [99.0, 99.0]
    assert_ledger_balanced(nexus, ingested=252, handled=252, queued=0)


@pytest.mark.parametrize("seed", range(5))
@virtual_time
async def test_queued_events_come_out_in_order(seed: int) -> None:
    """Events queued together are handled by priority, first in first out within one, without waiting."""
    rng = random.Random(seed)
    nexus, recorder = AsyncEventNexus(), Recorder()
    nexus.add_handler("step", recorder)
    async with nexus:
        for number in range(500):
            nexus.ingest_nowait(Event(number, "step", rng.randrange(-3, 4), number))
        await recorder.wait_for(500)
    assert_order(recorder)
    assert_ledger_balanced(nexus, ingested=500, handled=500)
    assert_waited_less(nexus, 0, 100, 0.001)


@virtual_time
async def test_waiting_is_measured_in_virtual_time() -> None:
    """A slow handler makes those behind it wait, and the urgent ones less."""
    nexus, done = AsyncEventNexus(), Recorder()

    async def work(event: Event[int], queue: Any) -> None:
        await asyncio.sleep(1)
        await done.handle(event, queue)

    nexus.add_handler("job", work)
    async with nexus:
        for number in range(10):
            nexus.ingest_nowait(Event(number, "job", 0, number))
        nexus.ingest_nowait(Event(10, "job", -1, 10))
        await done.wait_for(11)
    assert_order(done)
    assert_waited_less(nexus, -1, 100, 0.01)
    with pytest.raises(AssertionError, match="waited up to 10 s"):
        assert_waited_less(nexus, 0, 100, 9.9)


def test_a_day_of_an_application_is_cheap() -> None:
    """A day of a reading a second, alarms and an hourly timer takes a bounded number of turns a reading."""

    async def main() -> int:
        nexus, alarms, hours = AsyncEventNexus(), Recorder(), Recorder()
        nexus.add_converter(Script.every(1.0, DAY, reading))
        timer = Timer(3600.0, event_type="hour", type=Timer.ONGOING)
        nexus.add_producer(timer)
        nexus.add_handler(Reading, raise_alarm)
        nexus.add_handler(Alarm, alarms)
        nexus.add_handler("hour", hours)
        async with nexus:
            await asyncio.sleep(DAY + 0.5)
        assert hours.times == [3600.0 * hour for hour in range(1, 25)]
        assert alarms.count == DAY // 100
        assert_ledger_balanced(nexus, handled=DAY + DAY // 100 + 24)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return loop.turns

    assert run(main(), debug=False) < 10 * DAY


def test_same_seed_same_application() -> None:
    """An application that takes chance from a seed handles the same events at the same times in every run."""

    async def main(seed: int) -> list[tuple[float, int]]:
        rng = random.Random(seed)
        nexus, recorder = AsyncEventNexus(rng=random.Random(seed)), Recorder()
        steps = sorted((rng.choice((0.1, 0.2, 0.3)) * rng.randrange(9), number) for number in range(100))
        for part in range(3):
            script = [(moment, Event(n, "step", rng.randrange(3), None)) for moment, n in steps[part::3]]
            nexus.add_converter(Script(script))

        async def work(event: Event[None], queue: Any) -> None:
            await asyncio.sleep(rng.choice((0.0, 0.05)))
            await recorder.handle(event, queue)

        nexus.add_handler("step", work, concurrency=3)
        async with nexus:
            await recorder.wait_for(100)
        return [(record.time, record.event.id) for record in recorder]

    first = run(main(1))
    assert all(run(main(1)) == first for _ in range(20))
    assert run(main(2)) != first
