"""Supervision: a source that fails is restarted, then called degraded and probed, and never given up."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import pytest

from nexus import (
    AsyncEventNexus,
    DropNewest,
    Event,
    EventConverter,
    EventProducer,
    Fail,
    SimpleEventConverter,
    SourceState,
    SourceStateEvent,
    Timer,
)
from nexus.errors import NoMoreEvents
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


def event(number: int, priority: int = 0) -> Event[None]:
    return Event(number, "t", priority, None)


def now() -> float:
    return asyncio.get_running_loop().time()


class Flaky(SimpleEventConverter):
    """Fails `times` times, each with what `make` makes, then gives an event a second."""

    def __init__(self, times: float, make: Any = lambda: OSError("no link")) -> None:
        self.times = times
        self.make = make
        self.tries: list[float] = []
        self.given = 0

    async def obtain_event(self) -> Event[Any]:
        if len(self.tries) < self.times:
            self.tries.append(now())
            raise self.make()
        await asyncio.sleep(1)
        self.given += 1
        return event(self.given)


def nexus_for(*sources: Any, seed: int = 0) -> tuple[AsyncEventNexus, Recorder, Recorder]:
    """Make a nexus with sources, what records their events, and what records their states."""
    nexus = AsyncEventNexus(rng=random.Random(seed))
    seen, states = Recorder(), Recorder()
    nexus.add_handler("t", seen)
    nexus.add_handler(SourceStateEvent, states)
    for source in sources:
        nexus.register(source)
    return nexus, seen, states


def told(states: Recorder) -> list[str]:
    return [state.state for state in states.payloads]


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_source_that_fails_a_few_times_is_restarted(times: int, seed: int) -> None:
    """Up to three failures are borne: first retry at once, the others soon; then it runs."""

    @virtual_time
    async def go() -> None:
        source = Flaky(times)
        nexus, seen, states = nexus_for(source, seed=seed)
        async with nexus:
            await seen.wait_for(2, timeout=5)
        waits = [b - a for a, b in zip(source.tries, source.tries[1:], strict=False)]
        assert waits[:1] in ([], [0])
        assert all(0 <= wait <= 0.1 for wait in waits)
        assert told(states)[:3] == ["running", "restarting", "running"]
        assert nexus.stats().sources["Flaky"].failures == times

    go()


@pytest.mark.parametrize("seed", range(5))
def test_source_that_goes_on_failing_is_degraded_and_probed(seed: int) -> None:
    """The fourth failure in 5 s degrades the source; it is tried every 15 to 30 s, for ever."""

    @virtual_time
    async def go() -> None:
        source = Flaky(float("inf"))
        nexus, _, states = nexus_for(source, seed=seed)
        async with nexus:
            await asyncio.sleep(24 * 3600)
            assert nexus.stats().sources["Flaky"].state == "degraded"
        probes = [b - a for a, b in zip(source.tries[3:], source.tries[4:], strict=False)]
        assert len(probes) >= 24 * 3600 / 30
        assert all(15 <= wait <= 30 for wait in probes)
        assert told(states) == ["running", "restarting", "degraded"]

    go()


@virtual_time
async def test_recovery_is_announced() -> None:
    """A degraded source that works again is running again, and says so, with what was wrong."""
    nexus, seen, states = nexus_for(Flaky(6))
    async with nexus:
        await seen.wait_for(1, timeout=200)
        await asyncio.sleep(0)
        assert told(states) == ["running", "restarting", "degraded", "running"]
        degraded = states.payloads[2]
        assert (degraded.name, degraded.failures, degraded.error) == ("Flaky", 4, "OSError: no link")
        assert nexus.stats().sources["Flaky"] == SourceState("Flaky", "running", 6, "OSError: no link")


@virtual_time
async def test_states_are_announced_only_where_a_handler_takes_them() -> None:
    """Without a handler for SourceStateEvent no event is made of it, and nothing is unhandled."""
    nexus = AsyncEventNexus()
    nexus.add_handler("t", Recorder())
    nexus.add_converter(Flaky(5))
    async with nexus:
        await asyncio.sleep(100)
    assert_ledger_balanced(nexus, unhandled=0)


ERRORS = [
    OSError("link"),
    KeyError("k"),
    RecursionError("deep"),
    ExceptionGroup("both", [OSError("a"), ValueError("b")]),
    asyncio.CancelledError("from within"),
    SystemExit(3),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_whatever_a_source_raises_it_is_restarted(error: BaseException) -> None:
    """No exception of a source ends it or the nexus: not even SystemExit, nor a CancelledError of its own."""

    @virtual_time
    async def go() -> None:
        nexus, seen, _ = nexus_for(Flaky(2, lambda: error), Timer(1, event_type="t", type=Timer.ONGOING))
        async with nexus:
            await seen.wait_for(6, timeout=10)
            assert nexus.stats().sources["Flaky"].failures == 2

    go()


@virtual_time
async def test_generator_that_raises_begins_anew() -> None:
    """A generator that has raised cannot go on: a new one is made, and the old one's finally has run."""
    made: list[str] = []

    class Generator(EventConverter):
        async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
            made.append("made")
            try:
                yield event(len(made))
                if len(made) < 3:
                    raise OSError("unplugged")
            finally:
                made.append("closed")

    nexus, seen, _ = nexus_for(Generator())
    async with nexus:
        await asyncio.sleep(1)
    assert made == ["made", "closed"] * 2
    assert [each.id for each in seen.events] == [1, 3]


@virtual_time
async def test_start_that_raises_is_tried_again_by_restart() -> None:
    """A failing start counts like any failure; further tries call restart."""
    calls: list[str] = []

    class Reluctant(Flaky):
        async def start(self) -> None:
            calls.append("start")
            raise ConnectionRefusedError

        async def restart(self) -> None:
            calls.append("restart")
            if len(calls) < 3:
                raise ConnectionRefusedError

    nexus, seen, _ = nexus_for(Reluctant(0))
    async with nexus:
        await seen.wait_for(1, timeout=5)
    assert calls == ["start", "restart", "restart"]


@virtual_time
async def test_start_that_hangs_disturbs_nobody() -> None:
    """A source whose start hangs is "starting"; the others run, and the stop ends in time."""

    class Hangs(EventProducer):
        async def start(self) -> None:
            await asyncio.Event().wait()

    nexus, seen, _ = nexus_for(Hangs(), Flaky(0))
    nexus.start()
    await seen.wait_for(2, timeout=5)
    assert nexus.stats().sources["Hangs"].state == "starting"
    began = now()
    assert (await nexus.stop()).stuck == ()
    assert now() - began < 1


@virtual_time
async def test_converter_that_ends_is_removed() -> None:
    """NoMoreEvents is an end and no failure: the converter is closed, removed, and announced as ended."""

    class Ends(Flaky):
        closed = 0

        async def obtain_event(self) -> Event[Any]:
            if self.given == 2:
                raise NoMoreEvents
            return await super().obtain_event()

        def close(self) -> None:
            self.closed += 1

    source = Ends(0)
    nexus, seen, states = nexus_for(source)
    async with nexus:
        await asyncio.sleep(5)
        assert (seen.count, source.closed, nexus.converters) == (2, 1, ())
        assert told(states) == ["running", "ended"]
        assert nexus.stats().sources["Ends"].failures == 0


@virtual_time
async def test_failing_source_leaves_the_others_alone() -> None:
    """One source that fails for ever costs the others not one event."""
    nexus, seen, _ = nexus_for(Flaky(float("inf")), Timer(1, event_type="t", type=Timer.ONGOING))
    async with nexus:
        await asyncio.sleep(100.5)
    assert seen.count == 100


@virtual_time
async def test_batch_with_a_bad_event_keeps_the_good_ones() -> None:
    """What is no event is the source's failure; the events beside it are accepted."""

    class Batches(SimpleEventConverter):
        batches: ClassVar[list[Any]] = [[event(1), "no event", event(2), event(3)]]

        async def obtain_event(self) -> Event[Any]:
            raise AssertionError("obtain_events is there")

        async def obtain_events(self) -> list[Any]:
            if not self.batches:
                raise NoMoreEvents
            return self.batches.pop()  # type: ignore[no-any-return]

    nexus, seen, _ = nexus_for(Batches())
    async with nexus:
        await asyncio.sleep(1)
    assert [each.id for each in seen.events] == [1, 2, 3]
    assert nexus.stats().sources["Batches"].failures == 1


@virtual_time
async def test_batch_larger_than_its_lane_keeps_order_and_bound() -> None:
    """A batch goes in as far as there is room, and the rest as room comes; each priority keeps its order."""
    batches = [[event(n, n // 40 % 3) for n in range(400)]]

    class Batches(SimpleEventConverter):
        async def obtain_events(self) -> list[Event[Any]]:
            if not batches:
                raise NoMoreEvents
            return batches.pop()

        async def obtain_event(self) -> Event[Any]:
            raise AssertionError("obtain_events is there")

    nexus = AsyncEventNexus(maxsize=10)
    nexus.add_converter(Batches())
    seen: list[Event[Any]] = []
    most = 0

    async def handle(event: Event[Any]) -> None:
        nonlocal most
        most = max(most, 0, *nexus.stats().lanes.values())
        seen.append(event)
        await asyncio.sleep(0)

    nexus.add_handler("t", handle)
    async with nexus:
        await asyncio.sleep(1)
    for priority in range(3):
        ids = [e.id for e in seen if e.priority == priority]
        assert ids == sorted(ids)
    assert len(seen) == 400
    assert most <= 10


class Burst(SimpleEventConverter):
    """Gives a hundred events without a pause."""

    def __init__(self) -> None:
        self.given = 0

    async def obtain_event(self) -> Event[Any]:
        if self.given == 100:
            raise NoMoreEvents
        self.given += 1
        return event(self.given)


@pytest.mark.parametrize("policy", [Fail(), DropNewest()])
def test_source_of_a_type_that_does_not_wait_goes_on(policy: Any) -> None:
    """An event turned away by its policy is counted; it is no failure of the source."""

    @virtual_time
    async def go() -> None:
        nexus = AsyncEventNexus(maxsize=10)
        nexus.set_policy("t", policy)
        nexus.add_handler("t", lambda event: None)
        nexus.add_converter(Burst())
        async with nexus:
            await asyncio.sleep(1)
        stats = nexus.stats()
        assert stats.sources["Burst"].failures == 0
        assert stats.handled + stats.dropped + stats.refused == 100
        assert stats.dropped + stats.refused > 0
        assert_ledger_balanced(stats)

    go()


@virtual_time
async def test_producer_whose_run_fails_is_restarted() -> None:
    """A producer's start may return a future; its failure is the producer's."""

    class Runs(EventProducer):
        runs = 0

        async def start(self) -> asyncio.Task[None]:  # type: ignore[override]
            await super().start()
            return asyncio.create_task(self.run(), name="runs")

        async def run(self) -> None:
            self.runs += 1
            await self.distribute_event(event(self.runs))
            if self.runs < 3:
                raise OSError("gone")

    nexus, seen, states = nexus_for(Runs())
    async with nexus:
        await asyncio.sleep(5)
    assert [each.id for each in seen.events] == [1, 2, 3]
    assert told(states)[-1] == "ended"


@virtual_time
async def test_names_of_sources_tell_them_apart() -> None:
    """Sources of one class get numbers; one with a name keeps it."""
    named = Flaky(0)
    named.name = "bath"  # type: ignore[attr-defined]
    nexus, _, _ = nexus_for(Flaky(0), Flaky(0), named)
    async with nexus:
        assert list(nexus.stats().sources) == ["Flaky", "Flaky-2", "bath"]
        assert {state.state for state in nexus.stats().sources.values()} == {"running"}


# Handlers: their failures are failures of that event only.


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"retries": 1}, {"timeout": 5.0}], ids=str)
@pytest.mark.parametrize("error", [*ERRORS, Exception("plain"), TimeoutError()], ids=repr)
def test_whatever_a_handler_raises_only_its_event_fails(
    error: BaseException, options: dict[str, Any]
) -> None:
    """The event fails with the very exception; the next one is handled."""

    @virtual_time
    async def go() -> None:
        seen: list[int] = []

        def handler(event: Event[Any]) -> None:
            if event.id == 2:
                raise error
            seen.append(event.id)

        nexus = AsyncEventNexus()
        nexus.add_handler("t", handler, **options)
        task = nexus.start()
        await nexus.ingest_many([event(1), event(2), event(3)])
        await nexus.drained()
        (letter,) = nexus.dead_letters
        assert letter.exception is error
        assert letter.attempts == 1 + options.get("retries", 0)
        assert seen == [1, 3]
        assert not task.done()
        await nexus.stop()
        assert_ledger_balanced(nexus, handled=2, failed=1)

    go()


@virtual_time
async def test_on_error_stop_takes_a_cancelled_error_for_a_failure() -> None:
    """With on_error="stop" a handler's own CancelledError ends the nexus too, instead of hanging it."""

    def handler(event: Event[Any]) -> None:
        raise asyncio.CancelledError

    nexus = AsyncEventNexus(on_error="stop")
    nexus.add_handler("t", handler)
    task = nexus.start()
    await nexus.ingest(event(1))
    await asyncio.wait([task], timeout=10)
    assert task.done()
    assert type(task.exception()).__name__ == "HandlerError"
