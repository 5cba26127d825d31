"""Timers: tick n is due at start + n * interval, in whatever company, and none is lost."""

import asyncio
import gc
import math
import weakref
from typing import Any

import pytest

from nexus import AbstractNexus, AsyncEventNexus, Event, EventFactory, NamedEvent, Timer, _wheel
from nexus.errors import MisconfiguredEventProducer, MultipleStart
from nexus.testing import Recorder, assert_ledger_balanced, run, virtual_time


class Tick(NamedEvent[int]):
    """A tick with a name."""


class Sink(AbstractNexus):
    """Takes events, each with the time; can be made to wait."""

    def __init__(self) -> None:
        self.got: list[tuple[float, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def ingest(self, event: Event[Any]) -> None:
        await self.gate.wait()
        self.got.append((now(), event.payload))


def now() -> float:
    return asyncio.get_running_loop().time()


def timer_for(nexus: AbstractNexus, interval: float = 1.0, **options: Any) -> Timer:
    timer = Timer(interval, event_type=options.pop("event_type", "tick"), **options)
    timer.register_nexus(nexus)
    return timer


def entries() -> int:
    """Count what the wheel of the running loop holds."""
    wheel = _wheel._wheels.get(asyncio.get_running_loop())
    return 0 if wheel is None else sum(1 + len(head[3]) for head in wheel._heap)


# The four kinds.

KINDS = [
    (Timer.ONE_SHOT, 0, [1]),
    (Timer.ONE_SHOT, 1, [1]),
    (Timer.COUNT_UP, 4, [1, 2, 3, 4]),
    (Timer.COUNT_DOWN, 4, [3, 2, 1, 0]),
    (Timer.ONGOING, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
]


@pytest.mark.parametrize(("kind", "count", "values"), KINDS)
def test_each_kind_ticks_with_its_values(kind: int, count: int, values: list[int]) -> None:
    """The payloads are those of the kind, tick n at start + n * interval, and it ends by itself or never."""

    @virtual_time(start=7)
    async def go() -> None:
        sink = Sink()
        timer = timer_for(sink, 0.5, type=kind, count=count)
        task = await timer.start()
        await asyncio.sleep(4.75)
        assert sink.got == [(7 + 0.5 * (n + 1), value) for n, value in enumerate(values)]
        assert task.done() is (kind != Timer.ONGOING)
        assert timer.stop() is (kind == Timer.ONGOING)

    go()


BAD = [
    ({"interval": 0}, "interval"),
    ({"interval": -1}, "-1"),
    ({"interval": math.inf}, "inf"),
    ({"interval": math.nan}, "nan"),
    ({"interval": True}, "True"),
    ({"interval": "1"}, "'1'"),
    ({"type": Timer.COUNT_DOWN}, "Countdown value invalid"),
    ({"type": Timer.COUNT_UP, "count": -1}, "Countup value invalid"),
    ({"type": Timer.ONGOING, "count": 3}, "Counter value supplied when irrelevant"),
    ({"type": Timer.ONE_SHOT, "count": 2}, "Oneshot value invalid"),
    ({"type": 9}, "Invalid timer type 9"),
]


@pytest.mark.parametrize(("options", "word"), BAD)
def test_wrong_arguments_are_refused(options: dict[str, Any], word: str) -> None:
    """What makes no sense is refused where the timer is made, and the error says what was found."""
    with pytest.raises(ValueError, match=word):
        Timer(options.pop("interval", 1), event_type="t", **options)


def test_wrong_type_is_refused() -> None:
    """An event type is an int, a str or a NamedEvent class."""
    with pytest.raises(TypeError, match="event type"):
        Timer(1, event_type=None)  # type: ignore[arg-type]


# Exactness.


def test_ten_thousand_timers_tick_to_the_moment() -> None:
    """Ten thousand timers of many intervals each tick exactly at start + n * interval, in order."""

    async def go() -> None:
        late: list[float] = []
        count = 0

        class Exact(Timer):
            def create_event(self, value: int) -> None:
                nonlocal count
                count += 1
                if now() != self.began + value * self.interval:
                    late.append(now())

        sink = Sink()
        timers = []
        for number in range(10_000):
            timer = Exact(0.1 + number % 7 * 0.013, event_type="t", type=Timer.ONGOING)
            timer.register_nexus(sink)
            timer.began = now()  # type: ignore[attr-defined]
            await timer.start()
            timers.append(timer)
        await asyncio.sleep(0.55)
        assert count == sum(int(0.55 / timer.interval) for timer in timers)
        assert not late
        for timer in timers:
            timer.stop()

    run(go())


@pytest.mark.parametrize("interval", [0.1, 1 / 3, 7.0])
def test_no_drift_in_a_day(interval: float) -> None:
    """After 24 hours the tick is where it should be, to the last bit."""

    async def go() -> None:
        nexus = AsyncEventNexus()
        ticks = 0

        def count(event: Event[int]) -> None:
            nonlocal ticks
            ticks += 1
            assert event.payload == ticks
            assert now() == 5.0 + ticks * interval

        nexus.add_handler("tick", count)
        nexus.add_producer(Timer(interval, event_type="tick", type=Timer.ONGOING))
        async with nexus:
            await asyncio.sleep(24 * 3600 if interval > 0.5 else 1800)
        assert ticks == nexus.stats().handled
        assert ticks >= int((24 * 3600 if interval > 0.5 else 1800) / interval) - 1

    run(go(), start=5.0)


@virtual_time
async def test_back_pressured_tick_comes_late_and_none_is_lost() -> None:
    """Ticks that find no room wait, come in order when there is room, and then catch up."""
    sink = Sink()
    timer = timer_for(sink, type=Timer.COUNT_UP, count=8)
    task = await timer.start()
    await asyncio.sleep(2.5)
    sink.gate.clear()
    await asyncio.sleep(3)
    sink.gate.set()
    await task
    assert [value for _, value in sink.got] == list(range(1, 9))
    assert [moment for moment, _ in sink.got] == [1, 2, 5.5, 5.5, 5.5, 6, 7, 8]


@virtual_time
async def test_slow_handler_delays_ticks_and_loses_none() -> None:
    """A nexus with a short lane and a slow handler gets every tick of a fast timer."""
    seen: list[int] = []

    async def slow(event: Event[int]) -> None:
        await asyncio.sleep(0.35)
        seen.append(event.payload)

    nexus = AsyncEventNexus(maxsize=2, grace=60)
    nexus.add_handler("tick", slow)
    nexus.add_producer(Timer(0.1, event_type="tick", type=Timer.COUNT_UP, count=50))
    async with nexus:
        await asyncio.sleep(30)
    assert seen == list(range(1, 51))
    assert_ledger_balanced(nexus, handled=50)


# Stop, cancel, start again.


@virtual_time
async def test_stopped_timer_ticks_no_more_and_starts_again() -> None:
    """stop ends the ticks at once; a new start counts from the beginning, from its own moment."""
    sink = Sink()
    timer = timer_for(sink, type=Timer.COUNT_UP, count=2)
    assert timer.stop()
    await timer.start()
    await asyncio.sleep(1.5)
    assert timer.stop()
    await asyncio.sleep(5)
    task = await timer.start()
    await asyncio.sleep(3)
    assert sink.got == [(1, 1), (7.5, 1), (8.5, 2)]
    assert task.done()
    assert not timer.stop()


@virtual_time
async def test_started_timer_does_not_start_twice() -> None:
    """A second start raises and leaves the timer ticking."""
    sink = Sink()
    timer = timer_for(sink)
    await timer.start()
    with pytest.raises(MultipleStart, match="already started"):
        await timer.start()
    await asyncio.sleep(2)
    assert sink.got == [(1, 1)]


@virtual_time
async def test_timer_without_a_nexus_does_not_start() -> None:
    """There is nobody to tick for."""
    timer = Timer(1, event_type="t")
    with pytest.raises(MisconfiguredEventProducer, match="add_producer"):
        await timer.start()
    assert timer.task is None


@virtual_time
async def test_cancelling_the_run_stops_the_timer() -> None:
    """What start returns is cancelled like a task, and may be awaited."""
    sink = Sink()
    timer = timer_for(sink, type=Timer.ONGOING)
    task = await timer.start()
    asyncio.get_running_loop().call_later(2.5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(5)
    assert len(sink.got) == 2
    await timer.start()
    await asyncio.sleep(1)
    assert len(sink.got) == 3
    timer.stop()


@virtual_time
async def test_stop_while_a_tick_waits_for_room() -> None:
    """A timer stopped while its tick waits leaves no task, and the tick is not given."""
    sink = Sink()
    sink.gate.clear()
    timer = timer_for(sink, type=Timer.ONGOING)
    await timer.start()
    await asyncio.sleep(3.5)
    assert timer.stop()
    sink.gate.set()
    await asyncio.sleep(3)
    assert sink.got == []
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_timer_stopped_by_its_own_event_maker_ends() -> None:
    """A timer may stop itself while it ticks."""
    sink = Sink()

    class Once(Timer):
        def create_event(self, value: int) -> Event[int]:
            if value == 2:
                self.stop()
            return super().create_event(value)  # type: ignore[return-value]

    timer = Once(1, event_type="t", type=Timer.ONGOING)
    timer.register_nexus(sink)
    await timer.start()
    await asyncio.sleep(5)
    assert len(sink.got) <= 2
    assert timer.deadline is None


# Events.


@virtual_time
async def test_timer_may_make_other_events_or_none() -> None:
    """create_event may be overridden; None stands for nothing."""

    class Odd(Timer):
        def create_event(self, value: int) -> Event[Any] | None:
            return Event(value, "odd", 0, value * 10) if value % 2 else None

    sink = Sink()
    timer = Odd(1, event_type="t", type=Timer.COUNT_UP, count=5)
    timer.register_nexus(sink)
    await (await timer.start())
    assert sink.got == [(1, 10), (3, 30), (5, 50)]


@virtual_time
async def test_events_come_from_the_factory_with_type_and_priority() -> None:
    """Named types and priorities are honoured, ids come from the factory given or else from the nexus."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler(Tick, seen)
    factory = EventFactory()
    factory.current_event_id = 500
    nexus.add_producer(Timer(1, event_type=Tick, event_factory=factory, priority=-3))
    nexus.add_producer(Timer(2, event_type=Tick))
    async with nexus:
        await asyncio.sleep(3)
    first, second = seen.events
    assert (type(first), first.id, first.priority) == (Tick, 500, -3)
    assert (second.id, second.payload) == (1, 1)


@virtual_time
async def test_event_maker_that_raises_ends_the_run_with_the_error() -> None:
    """Alone, a timer whose create_event raises ends; its run raises what it raised."""

    class Broken(Timer):
        def create_event(self, value: int) -> Event[Any]:
            raise KeyError("maker")

    sink = Sink()  # a timer holds its nexus weakly
    timer = Broken(1, event_type="t", type=Timer.ONGOING)
    timer.register_nexus(sink)
    with pytest.raises(KeyError, match="maker"):
        await (await timer.start())


@virtual_time
async def test_timer_whose_event_maker_raises_is_restarted_in_a_nexus() -> None:
    """In a nexus such a timer is a failing source: restarted, more than once, and never given up."""

    class Broken(Timer):
        fails = 2

        def create_event(self, value: int) -> Event[Any] | None:
            if self.fails:
                self.fails -= 1
                raise KeyError("maker")
            return super().create_event(value)

    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", seen)
    nexus.add_producer(Broken(1, event_type="t", type=Timer.ONGOING))
    async with nexus:
        await asyncio.sleep(10)
        assert seen.count >= 6
        assert nexus.stats().sources["Broken"].failures == 2


# What is left.


@virtual_time
async def test_wheel_forgets_stopped_timers() -> None:
    """A timer set and stopped over and over again, as a watchdog is, leaves nothing behind."""
    sink = Sink()
    ticking = timer_for(sink, type=Timer.ONGOING)
    await ticking.start()
    watchdog = timer_for(sink, 3600.0)
    for _ in range(5000):
        await watchdog.start()
        watchdog.stop()
    assert entries() < 400
    ticking.stop()
    assert entries() == 0
    assert sink.got == []


@virtual_time
async def test_stopped_timers_are_freed() -> None:
    """Nothing of the wheel keeps a stopped timer, or a nexus, alive."""
    sink = Sink()
    keep = timer_for(sink, 0.5, type=Timer.ONGOING)
    await keep.start()
    timers = [timer_for(sink, 1000.0 + n) for n in range(200)]
    for timer in timers:
        await timer.start()
    gone = [weakref.ref(timer) for timer in timers]
    for timer in timers:
        timer.stop()
    del timer, timers
    await asyncio.sleep(1)
    gc.collect()
    assert sum(ref() is not None for ref in gone) <= 64
    keep.stop()


def test_loop_left_with_timers_is_freed() -> None:
    """A loop that ends with timers still set is let go by the next loop that has any."""

    async def go() -> weakref.ref[asyncio.AbstractEventLoop]:
        await timer_for(sink, 3600.0).start()
        return weakref.ref(asyncio.get_running_loop())

    sink = Sink()
    first = run(go())
    run(go())
    gc.collect()
    assert first() is None
