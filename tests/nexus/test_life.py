"""The life of a nexus: start, graceful stop, what it reports, and that nothing is left of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from nexus import (
    AsyncEventNexus,
    Event,
    EventConverter,
    EventProducer,
    SecondaryQueue,
    SimpleEventConverter,
    Timer,
    errors,
)
from nexus.testing import Recorder, assert_ledger_balanced, assert_order, virtual_time

States = AsyncEventNexus.States


def event(number: int, priority: int = 0, type: str = "t") -> Event[None]:
    return Event(number, type, priority, None)


def tasks_left() -> set[asyncio.Task[Any]]:
    """Give the tasks other than the one that asks."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def nexus_with(handler: Any, **options: Any) -> AsyncEventNexus:
    nexus = AsyncEventNexus(**options)
    nexus.add_handler("t", handler)
    return nexus


async def sleep_an_hour(event: Event[Any]) -> None:
    await asyncio.sleep(3600)


# Clean stop.


@virtual_time
async def test_stop_handles_what_is_queued_by_priority() -> None:
    """A stop within its grace handles all that is queued, the most urgent first, and leaves no task."""
    seen = Recorder()
    nexus = nexus_with(seen)
    nexus.start()
    await nexus.ingest_many(event(n, -n % 3) for n in range(60))
    report = await nexus.stop()
    assert report.clean
    assert (report.handled_during_stop, report.stats.handled) == (60, 60)
    assert_order(seen)
    assert nexus.state is States.STOPPED
    assert not tasks_left()
    assert not nexus.tasks


@virtual_time
async def test_grace_bounds_the_stop_and_the_rest_is_reported() -> None:
    """What is not handled when the grace is over is reported, in order, and still on the ledger."""

    async def slow(event: Event[Any]) -> None:
        await asyncio.sleep(1)

    nexus = nexus_with(slow)
    task = nexus.start()
    await nexus.ingest_many([event(1), event(2), event(3), event(4, -1)])
    report = await nexus.stop(grace=2.5)
    assert asyncio.get_running_loop().time() == 2.5
    assert [each.id for each in report.remaining] == [2, 3]
    assert not report.clean
    assert_ledger_balanced(report.stats, ingested=4, handled=2, queued=2)
    await task


@virtual_time
async def test_report_of_a_cancelled_nexus_counts_what_the_stop_handled() -> None:
    """However a stop begins, events settled before it are not among those handled during it."""
    nexus = nexus_with(Recorder())
    task = nexus.start()
    await nexus.ingest_many(event(n) for n in range(5))
    await nexus.drained()
    task.cancel()
    await asyncio.wait([task])
    report = await nexus.stop()
    assert (report.handled_during_stop, report.stats.handled) == (0, 5)


@virtual_time
async def test_stop_works_without_await() -> None:
    """A stop goes on though nobody awaits it."""
    seen = Recorder()
    nexus = nexus_with(seen)
    task = nexus.start()
    await nexus.ingest(event(1))
    nexus.stop()
    await task
    assert seen.count == 1
    assert nexus.state is States.STOPPED


@virtual_time
async def test_handler_stops_its_own_nexus() -> None:
    """A handler may call stop; events queued behind it are still handled."""
    seen: list[int] = []

    def handler(event: Event[Any]) -> None:
        seen.append(event.id)
        if event.id == 1:
            nexus.stop()

    nexus = nexus_with(handler)
    task = nexus.start()
    await nexus.ingest_many([event(1), event(2)])
    await task
    assert seen == [1, 2]


@pytest.mark.parametrize("concurrency", [None, 2])
def test_awaiting_stop_in_a_handler_says_what_to_do(concurrency: int | None) -> None:
    """A handler that awaits the stop would wait for itself: it gets an error that says so."""

    async def handler(event: Event[Any]) -> None:
        await nexus.stop()

    nexus = AsyncEventNexus()
    nexus.add_handler("t", handler, concurrency=concurrency)

    @virtual_time
    async def go() -> None:
        task = nexus.start()
        await nexus.ingest(event(1))
        await task
        (letter,) = nexus.dead_letters
        assert isinstance(letter.exception, errors.BadCall)
        assert "without await" in str(letter.exception)

    go()


@virtual_time
async def test_stop_before_start_is_a_stop() -> None:
    """A nexus stopped before its start is stopped, cleanly, and does not start."""
    nexus = AsyncEventNexus()
    assert (await nexus.stop()).clean
    assert nexus.state is States.STOPPED
    with pytest.raises(errors.InvalidLoopState, match="STOPPED"):
        nexus.start()
    with pytest.raises(errors.LoopStopped):
        await nexus.loop_forever()


@virtual_time
async def test_second_stop_shortens_the_grace_and_gives_the_same_report() -> None:
    """Of two stops the shorter grace counts, and both get the one report."""
    nexus = nexus_with(sleep_an_hour)
    nexus.start()
    await nexus.ingest(event(1))
    first = nexus.stop(grace=100)
    await asyncio.sleep(1)
    report = await nexus.stop(grace=2)
    assert asyncio.get_running_loop().time() == 3
    assert await first is report
    assert await nexus.stop() is report
    nexus.stop(grace=500)


@virtual_time
async def test_second_stop_does_not_lengthen_the_grace() -> None:
    """A second stop with a longer grace changes nothing."""
    nexus = nexus_with(sleep_an_hour)
    nexus.start()
    await nexus.ingest(event(1))
    nexus.stop(grace=1)
    await nexus.stop(grace=100)
    assert asyncio.get_running_loop().time() == 1


def test_wrong_grace_is_refused() -> None:
    """A negative grace or one that is no number is refused."""
    with pytest.raises(ValueError, match="grace must be 0"):
        AsyncEventNexus(grace=-1)
    with pytest.raises(ValueError, match="-2"):
        AsyncEventNexus().stop(grace=-2)
    with pytest.raises(ValueError, match="nan"):
        AsyncEventNexus(grace=float("nan"))


def test_wrong_on_error_is_refused() -> None:
    """on_error takes two words, and the error names them."""
    with pytest.raises(ValueError, match='"continue" or "stop"'):
        AsyncEventNexus(on_error="ignore")


# Hung and stubborn handlers.


@pytest.mark.parametrize("concurrency", [None, 3])
@pytest.mark.parametrize("grace", [0, 0.25])
def test_hung_handler_gives_its_event_back(concurrency: int | None, grace: float) -> None:
    """A handler that hangs is cancelled when the grace is over; its event is among the remaining."""

    @virtual_time
    async def go() -> None:
        nexus = AsyncEventNexus()
        nexus.add_handler("t", sleep_an_hour, concurrency=concurrency)
        nexus.start()
        await nexus.ingest_many([event(1), event(2)])
        await asyncio.sleep(1)
        report = await nexus.stop(grace=grace)
        assert asyncio.get_running_loop().time() == 1 + grace
        assert [each.id for each in report.remaining] == [1, 2]
        assert report.stuck == ()
        assert_ledger_balanced(report.stats, queued=2)

    go()


@pytest.mark.parametrize("concurrency", [None, 1])
def test_handler_that_swallows_cancellation_is_reported_as_stuck(concurrency: int | None) -> None:
    """A handler that ignores its cancellation cannot hold up the stop; the report names its task."""

    @virtual_time
    async def go() -> None:
        let_go = asyncio.Event()

        async def stubborn(event: Event[Any]) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        nexus = AsyncEventNexus()
        nexus.add_handler("t", stubborn, concurrency=concurrency)
        nexus.start()
        await nexus.ingest(event(1))
        await asyncio.sleep(0)
        report = await nexus.stop(grace=1)
        assert asyncio.get_running_loop().time() <= 3.001
        assert len(report.stuck) == 1
        assert not report.clean
        assert {task.get_name() for task in nexus.tasks} == set(report.stuck)
        assert_ledger_balanced(report.stats, queued=1)
        let_go.set()
        await asyncio.wait(nexus.tasks, timeout=1)
        assert not nexus.tasks

    go()


# Sources at a stop.


class Counting(SimpleEventConverter):
    """Gives 1, 2, 3, ...; remembers the last one it gave, and how often it was closed."""

    def __init__(self, pause: float = 0.001) -> None:
        self.pause = pause
        self.given = 0
        self.closed = 0

    async def obtain_event(self) -> Event[Any]:
        await asyncio.sleep(self.pause)
        self.given += 1
        return event(self.given)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("turns", range(12))
def test_event_in_a_sources_hand_is_not_lost_by_a_stop(turns: int) -> None:
    """At whatever moment the stop comes, each event a converter has given is handled or remains."""

    @virtual_time
    async def go() -> None:
        source, seen = Counting(pause=0), Recorder()
        nexus = nexus_with(seen, maxsize=2)
        nexus.add_converter(source)
        nexus.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        report = await nexus.stop(grace=0 if turns % 2 else 5)
        assert seen.count + len(report.remaining) == source.given
        assert report.stats.ingested == source.given
        assert source.closed == 1
        assert all(state.failures == 0 for state in report.stats.sources.values())

    go()


@virtual_time
async def test_source_waiting_for_room_keeps_its_event_through_the_stop() -> None:
    """A converter that waits for room with an event in hand gets it in when the nexus stops."""
    source = Counting()
    nexus = nexus_with(sleep_an_hour, maxsize=3)
    nexus.add_converter(source)
    nexus.start()
    await asyncio.sleep(1)
    report = await nexus.stop(grace=1)
    assert [each.id for each in report.remaining] == list(range(1, source.given + 1))
    assert_ledger_balanced(report.stats)


@virtual_time
async def test_hung_close_of_a_source_is_bounded() -> None:
    """A source whose close hangs is cut off, and the stop ends."""

    class Hanging(Counting):
        async def aclose(self) -> None:
            await asyncio.sleep(3600)

    nexus = nexus_with(Recorder())
    nexus.add_converter(Hanging())
    nexus.start()
    await asyncio.sleep(0)
    report = await nexus.stop()
    assert asyncio.get_running_loop().time() <= 2
    assert report.stuck == ()


@virtual_time
async def test_stop_in_the_moment_of_the_start_closes_the_sources() -> None:
    """A source added to a nexus that stops at once is closed all the same."""
    source = Counting()
    nexus = nexus_with(Recorder())
    nexus.add_converter(source)
    nexus.start()
    await nexus.stop()
    assert source.closed == 1
    assert not tasks_left()


# Failure.


@pytest.mark.parametrize("options", [{}, {"concurrency": 1}, {"retries": 1}])
def test_on_error_stop_ends_the_nexus_with_the_handlers_error(options: dict[str, Any]) -> None:
    """With on_error="stop" the first failure ends the nexus, and the task raises what the handler raised."""

    @virtual_time
    async def go() -> None:
        def handler(event: Event[Any]) -> None:
            if event.id == 2:
                raise KeyError("gone")

        nexus = AsyncEventNexus(on_error="stop")
        nexus.add_handler("t", handler, **options)
        task = nexus.start()
        await nexus.ingest_many(event(n) for n in range(1, 5))
        with pytest.raises(KeyError, match="gone"):
            await task
        report = await nexus.stop()
        assert_ledger_balanced(report.stats, ingested=4, failed=1)
        assert report.stats.handled + len(report.remaining) == 3

    go()


@virtual_time
async def test_on_error_stop_raises_out_of_the_async_with() -> None:
    """The block raises the failure of its nexus, and an error of the block itself goes first."""

    def handler(event: Event[Any]) -> None:
        raise ValueError("handler")

    async def block(error: Exception | None) -> None:
        async with nexus_with(handler, on_error="stop") as nexus:
            await nexus.ingest(event(1))
            await asyncio.sleep(1)
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="handler"):
        await block(None)
    with pytest.raises(RuntimeError, match="block"):
        await block(RuntimeError("block"))


@virtual_time
async def test_failure_of_the_drain_ends_the_nexus() -> None:
    """If the nexus's own task fails, the nexus stops, says why, and keeps what was queued."""
    seen = Recorder()
    nexus = nexus_with(seen)
    task = nexus.start()
    await asyncio.sleep(0)
    nexus.queue.room.release_all = None  # type: ignore[method-assign, assignment]
    await nexus.ingest(event(1))
    with pytest.raises(TypeError):
        await task
    assert nexus.state is States.STOPPED
    assert_ledger_balanced(nexus, ingested=1, handled=1)


# Nexuses of every shape.


@virtual_time
async def test_nexus_without_sources_lives_until_it_is_stopped() -> None:
    """A nexus with no source runs, takes what is ingested, and stops."""
    seen = Recorder()
    async with nexus_with(seen) as nexus:
        await asyncio.sleep(100)
        assert nexus.state is States.LOOPING
        await nexus.ingest(event(1))
    assert seen.count == 1


@virtual_time
async def test_nexus_with_only_producers_lives_on() -> None:
    """A nexus whose sources are all producers, or have all ended, lives on."""
    seen = Recorder()
    nexus = nexus_with(seen)
    nexus.add_producer(Timer(1, event_type="t", type=Timer.COUNT_UP, count=3))
    async with nexus:
        await asyncio.sleep(10)
        assert seen.times == [1, 2, 3]
        assert nexus.producers == ()
        await nexus.ingest(event(1))
        await asyncio.sleep(1)
    assert seen.count == 4


@virtual_time
async def test_sources_come_and_go_while_it_runs() -> None:
    """A source added to a running nexus starts at once; a removed one is closed and gives nothing more."""
    source, seen = Counting(), Recorder()
    async with nexus_with(seen) as nexus:
        nexus.register(source)
        await asyncio.sleep(0.1)
        assert source in nexus.converters
        await nexus.remove_source(source)
        given = source.given
        assert source.closed == 1
        await asyncio.sleep(1)
        assert (source.given, seen.count, nexus.converters) == (given, given, ())
        with pytest.raises(LookupError):
            await nexus.remove_source(source)


@virtual_time
async def test_source_removed_at_once_is_closed() -> None:
    """A source removed before it has had a turn is closed."""
    source = Counting()
    async with nexus_with(Recorder()) as nexus:
        nexus.add_converter(source)
        await nexus.remove_source(source)
        assert source.closed == 1


@virtual_time
async def test_thousands_of_sources_live_in_one_nexus() -> None:
    """The number of sources is not bounded by what the statistics keep of those that are gone."""
    seen = Recorder()
    nexus = nexus_with(seen)
    for _ in range(1200):
        nexus.add_producer(Timer(1, event_type="t"))
    async with nexus:
        assert len(nexus.stats().sources) == 1200
        await asyncio.sleep(2)
        assert seen.count == 1200
        assert len(nexus.stats().sources) <= 1000


@virtual_time
async def test_names_of_sources_are_used_again() -> None:
    """A source that comes and goes for ever leaves one line in the statistics."""
    async with nexus_with(Recorder()) as nexus:
        for _ in range(100):
            timer = Timer(60, event_type="t")
            nexus.add_producer(timer)
            await nexus.remove_source(timer)
        assert list(nexus.stats().sources) == ["Timer"]


@virtual_time
async def test_two_nexuses_share_a_producer() -> None:
    """A producer shared by two nexuses outlives the first to stop, and is closed by the last."""
    seen = Recorder()
    timer = Timer(1, event_type="t", type=Timer.ONGOING)
    one, two = AsyncEventNexus(name="one"), nexus_with(seen, name="two")
    for nexus in (one, two):
        nexus.add_producer(timer)
    async with two:
        async with one:
            await asyncio.sleep(3.5)
        await asyncio.sleep(3)
        assert seen.payloads == [1, 2, 3, 4, 5, 6]
        assert two.stats().sources["Timer"].failures == 0
    assert timer.deadline is None
    assert one.stats().unhandled == 3


@virtual_time
async def test_removing_a_shared_producer_leaves_it_to_the_other() -> None:
    """A shared producer that one nexus removes goes on for the other."""
    seen, other = Recorder(), Recorder()
    timer = Timer(1, event_type="t", type=Timer.ONGOING)
    async with nexus_with(seen) as one, nexus_with(other) as two:
        one.add_producer(timer)
        two.add_producer(timer)
        await asyncio.sleep(2.5)
        await one.remove_source(timer)
        await asyncio.sleep(2)
    assert (seen.count, other.count) == (2, 4)


@virtual_time
async def test_timer_started_again_by_its_owner_ends_with_the_nexus() -> None:
    """A timer that ended and was started anew by hand does not outlive the nexus."""
    seen = Recorder()
    timer = Timer(1, event_type="t")
    nexus = nexus_with(seen)
    nexus.add_producer(timer)
    async with nexus:
        await asyncio.sleep(1.5)
        await timer.start()
        await asyncio.sleep(1.5)
        await timer.start()
    assert seen.count == 2
    assert timer.deadline is None


# States.


@virtual_time
async def test_states_follow_each_other() -> None:
    """READY, STARTING until every source has been started, LOOPING, STOPPED."""
    may_start = asyncio.Event()

    class Slow(EventProducer):
        async def start(self) -> None:
            await super().start()
            await may_start.wait()

    nexus = AsyncEventNexus()
    nexus.add_producer(Slow())
    assert nexus.state is States.READY
    nexus.start()
    await asyncio.sleep(10)
    assert nexus.state is States.STARTING
    may_start.set()
    await asyncio.sleep(0.1)
    assert nexus.state is States.LOOPING
    await nexus.stop()
    assert nexus.state is States.STOPPED


@virtual_time
async def test_events_are_handled_while_a_source_is_still_starting() -> None:
    """A source that takes long to start does not hold up the others, nor the stop."""

    class Never(EventProducer):
        async def start(self) -> None:
            await asyncio.Event().wait()

    seen = Recorder()
    nexus = nexus_with(seen)
    nexus.add_producer(Never())
    nexus.start()
    await nexus.ingest(event(1))
    await seen.wait_for(1, timeout=1)
    assert (await nexus.stop()).clean


@virtual_time
async def test_second_start_is_refused() -> None:
    """start and loop_forever of a running nexus raise, and do it no harm."""
    nexus = nexus_with(Recorder())
    nexus.start()
    with pytest.raises(errors.InvalidLoopState, match="STARTING"):
        nexus.start()
    with pytest.raises(errors.LoopAlreadyStarted):
        await nexus.loop_forever()
    assert (await nexus.stop()).clean


def test_start_without_a_loop_leaves_the_nexus_ready() -> None:
    """start outside of an event loop raises, and the nexus is as it was."""
    nexus = AsyncEventNexus()
    with pytest.raises(errors.BadCall, match="inside a running event loop"):
        nexus.start()
    assert nexus.state is States.READY


@virtual_time
async def test_task_cancelled_before_its_first_step_ends_the_nexus() -> None:
    """A nexus whose task is cancelled at once is stopped, and what it had accepted is reported."""
    nexus = nexus_with(Recorder())
    nexus.start().cancel()
    await nexus.ingest(event(1))
    report = await nexus.stop()
    assert [each.id for each in report.remaining] == [1]
    assert nexus.state is States.STOPPED
    await nexus.drained()


# Giving at the wrong time or place.


@virtual_time
async def test_giving_before_the_start_or_after_the_stop_is_refused() -> None:
    """Each way in says that the nexus is not running, and whether it may still come."""
    nexus = nexus_with(Recorder())
    with pytest.raises(errors.BadCall, match="start"):
        await nexus.ingest(event(1))
    async with nexus:
        await nexus.ingest(event(2))
    for give in (nexus.ingest_nowait, nexus.ingest_threadsafe):
        with pytest.raises(errors.LoopStopped, match="takes no more events"):
            give(event(3))
    with pytest.raises(errors.LoopStopped):
        await nexus.ingest_many([event(4)])
    with pytest.raises(errors.BadCall, match="no more sources"):
        nexus.add_converter(Counting())
    assert_ledger_balanced(nexus, ingested=1, handled=1)


@virtual_time
async def test_stop_refuses_whoever_waits_for_room() -> None:
    """An ingest that waits for room when the stop comes raises; its event was not accepted."""
    nexus = nexus_with(sleep_an_hour, maxsize=1)
    nexus.start()
    await nexus.ingest(event(1))
    await nexus.ingest(event(2))
    waiting = asyncio.ensure_future(nexus.ingest(event(3)))
    await asyncio.sleep(1)
    report = await nexus.stop(grace=0)
    with pytest.raises(errors.LoopStopped):
        await waiting
    assert [each.id for each in report.remaining] == [1, 2]


async def test_giving_from_elsewhere_is_refused() -> None:
    """From another loop or a bare thread, ingest raises and names the way that works."""
    nexus = nexus_with(Recorder())
    async with nexus:

        def elsewhere() -> None:
            with pytest.raises(errors.BadCall, match=r"another event loop.*ingest_threadsafe"):
                asyncio.run(nexus.ingest(event(1)))
            with pytest.raises(errors.BadCall, match=r"thread.*ingest_threadsafe"):
                nexus.ingest_nowait(event(2))

        await asyncio.to_thread(elsewhere)
    assert_ledger_balanced(nexus, ingested=0)


async def test_four_threads_give_events() -> None:
    """ingest_threadsafe takes events from several threads; each future is done when its event is accepted."""
    seen = Recorder()
    async with nexus_with(seen, maxsize=50) as nexus:

        def give(first: int) -> None:
            futures = [nexus.ingest_threadsafe(event(first + n)) for n in range(250)]
            for future in futures:
                future.result(timeout=20)

        await asyncio.gather(*(asyncio.to_thread(give, 1000 * n) for n in range(4)))
        await nexus.drained()
        assert seen.count == len({each.id for each in seen.events}) == 1000
        for thread in range(4):
            own = [each.id for each in seen.events if each.id // 1000 == thread]
            assert own == sorted(own)
    assert_ledger_balanced(nexus, ingested=1000, handled=1000)


# With blocks.


@virtual_time
async def test_with_block_cleans_up() -> None:
    """A with block ends a running nexus at once and forgets sources and handlers."""
    source = Counting()
    with AsyncEventNexus() as nexus:
        nexus.add_handler("t", Recorder())
        nexus.add_filter(lambda event: False)
        nexus.add_converter(source)
        task = nexus.start()
        await asyncio.sleep(0.1)
    await task
    assert source.closed == 1
    assert (nexus.converters, dict(nexus.handlers), nexus.filters) == ((), {}, ())
    assert nexus.state is States.STOPPED


def test_with_block_wants_a_new_nexus() -> None:
    """A with block that begins with a nexus in use is refused."""
    nexus = AsyncEventNexus()
    nexus.add_converter(Counting())
    with pytest.raises(errors.BadCall, match="new nexus"), nexus:
        pass
    nexus.cleanup()


def test_cleanup_closes_what_never_ran() -> None:
    """cleanup closes every source, and one whose close raises does not keep the others open."""

    class Bad(Counting):
        def close(self) -> None:
            raise OSError("stuck")

    good = Counting()
    nexus = AsyncEventNexus()
    nexus.add_converter(Bad())
    nexus.add_converter(good)
    nexus.cleanup()
    nexus.cleanup()
    assert good.closed == 1


@virtual_time
async def test_cancelled_in_the_middle_of_its_start_the_block_leaves_nothing() -> None:
    """An async with that is cancelled while its sources start stops the nexus before it leaves."""

    class Never(EventProducer):
        async def start(self) -> None:
            await asyncio.Event().wait()

    nexus = AsyncEventNexus()
    nexus.add_producer(Never())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), nexus:
            raise AssertionError("never started")
    assert nexus.state is States.STOPPED
    assert not nexus.tasks


@virtual_time
async def test_cleanup_of_a_generator_runs_at_the_stop() -> None:
    """The finally of a converter's generator has run when the stop is over."""
    left: list[str] = []

    class Generator(EventConverter):
        async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
            try:
                yield event(1)
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.1)
                left.append("closed")

    nexus = nexus_with(Recorder())
    nexus.add_converter(Generator())
    async with nexus:
        await asyncio.sleep(1)
    assert left == ["closed"]


@virtual_time
async def test_handlers_that_come_and_go_leave_no_task() -> None:
    """A handler with tasks of its own takes them along when it is removed, once its events are handled."""
    seen: list[int] = []

    async def handler(event: Event[Any], queue: SecondaryQueue) -> None:
        await asyncio.sleep(1)
        seen.append(event.id)

    async with AsyncEventNexus() as nexus:
        before = len(nexus.tasks)
        for number in range(20):
            nexus.add_handler("t", handler, concurrency=2)
            await nexus.ingest_many([event(number)] * 5)
            await asyncio.sleep(0.5)
            nexus.remove_handler("t")
        await nexus.drained()
        await asyncio.sleep(1)
        assert len(nexus.tasks) == before
    assert len(seen) == 100
