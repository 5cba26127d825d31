"""Ten thousand timers of 100 ms: do they drift, and what do they cost?

`timers.ticking` measures the clockwork alone: each tick calls a function that counts. In `timers.many` each
tick is an event that goes through a nexus to its handler; there the tasks feed the same nexus, so the price
of queue, dispatch, ledger and statistics is on both sides.

One timer in a hundred is watched: its ticks carry its own type, and each tick's time is compared
with start + n * interval. The others share one type. Drift is how much later the watched timers are
in their last second than in their first.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

from benchmarks._harness import OURS, Contest, Limit, Outcome, Target, peer
from benchmarks.peers import async_nexus_idle_converter
from nexus import AsyncEventNexus, Timer

INTERVAL = 0.1
ONE_IN = 100
COMMON = "tick"
SPAN = 10
"""Ticks of a second."""
START_TIMEOUT = 40

Running = Callable[[], Awaitable[bool | None]]


class Watch:
    """When the ticks came."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.ticks = 0
        self.clock = asyncio.get_running_loop().time

    async def handle_watched(self, event: Any, queue: object = None) -> None:
        """Note the time of a watched timer's tick."""
        self.ticks += 1
        self.times.setdefault(event.type, []).append(self.clock())

    async def handle_common(self, event: Any, queue: object = None) -> None:
        """Count the tick."""
        self.ticks += 1

    def note(self, n: int, value: int) -> None:
        """Count a tick that is no event, and note its time where its timer is watched."""
        self.ticks += 1
        if n % ONE_IN == 0:
            self.times.setdefault(str(n), []).append(self.clock())

    def drift(self) -> tuple[float, float]:
        """Return the drift of the watched timers in seconds, its median and its largest."""
        growth = [_growth(times) for times in self.times.values() if len(times) >= 2]
        return statistics.median(growth), max(growth)


def _growth(times: list[float]) -> float:
    span = min(SPAN, len(times) // 2)
    offsets = [time - n * INTERVAL for n, time in enumerate(times)]
    return statistics.median(offsets[-span:]) - statistics.median(offsets[:span])


async def _ours(count: int, watch: Watch) -> Running:
    nexus = AsyncEventNexus(maxsize=10 * count)
    nexus.add_handler(COMMON, watch.handle_common)
    for n in range(count):
        type_ = _type(n)
        if type_ != COMMON:
            nexus.add_handler(type_, watch.handle_watched)
        nexus.add_producer(Timer(INTERVAL, event_type=type_, type=Timer.ONGOING, event_factory=nexus))
    nexus.start()

    async def stop() -> bool | None:
        report = await nexus.stop()
        return report.stats.balanced

    return stop


async def _async_nexus(count: int, watch: Watch) -> Running:
    module = peer("async_nexus", "async-nexus")
    nexus = module.AsyncEventNexus()
    nexus.add_converter(async_nexus_idle_converter())
    nexus.add_handler(COMMON, watch.handle_common)
    for n in range(count):
        type_ = _type(n)
        if type_ != COMMON:
            nexus.add_handler(type_, watch.handle_watched)
        nexus.add_producer(
            module.Timer(INTERVAL, event_type=type_, type=module.Timer.ONGOING, event_factory=nexus)
        )
    task = nexus.start()

    async def stop() -> bool | None:
        task.cancel()
        for timer in nexus.producers:
            timer.stop()
        return None

    return stop


def _begin_tasks(count: int, tick: Callable[[int, int], Awaitable[None] | None]) -> Running:
    loop = asyncio.get_running_loop()

    async def run(n: int) -> None:
        deadline = loop.time()
        value = 0
        while True:
            deadline += INTERVAL
            await asyncio.sleep(deadline - loop.time())
            value += 1
            done = tick(n, value)
            if done is not None:
                await done

    tasks = [asyncio.create_task(run(n)) for n in range(count)]

    async def stop() -> bool | None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return None

    return stop


async def _tasks(count: int, watch: Watch) -> Running:
    nexus = AsyncEventNexus(maxsize=10 * count)
    nexus.add_handler(COMMON, watch.handle_common)
    for n in range(0, count, ONE_IN):
        nexus.add_handler(_type(n), watch.handle_watched)
    nexus.start()
    types = [_type(n) for n in range(count)]
    stop_tasks = _begin_tasks(
        count, lambda n, value: nexus.ingest(nexus.create_event(value, event_type=types[n]))
    )

    async def stop() -> bool | None:
        await stop_tasks()
        report = await nexus.stop()
        return report.stats.balanced

    return stop


async def _bare_tasks(count: int, watch: Watch) -> Running:
    return _begin_tasks(count, watch.note)


class _Bare(Timer):
    """A timer whose ticks are no events."""

    def __init__(self, n: int, watch: Watch) -> None:
        super().__init__(INTERVAL, event_type=COMMON, type=Timer.ONGOING)
        self.n = n
        self.watch = watch

    def create_event(self, value: int) -> None:
        self.watch.note(self.n, value)


async def _bare(count: int, watch: Watch) -> Running:
    nexus = AsyncEventNexus()
    timers = [_Bare(n, watch) for n in range(count)]
    for timer in timers:
        timer.register_nexus(nexus)
        await timer.start()

    async def stop() -> bool | None:
        for timer in timers:
            timer.stop()
        return None

    return stop


def _type(n: int) -> str:
    return COMMON if n % ONE_IN else f"tick-{n}"


def _contestant(begin: Callable[[int, Watch], Awaitable[Running]]) -> Callable[..., Outcome]:
    def contestant(timers: int, seconds: float) -> Outcome:
        return asyncio.run(_ticking(begin, timers, seconds))

    return contestant


async def _ticking(begin: Any, timers: int, seconds: float) -> Outcome:
    watch = Watch()
    stop = await begin(timers, watch)
    # Until every timer has started and the first ticks are over: starting is not what is measured.
    async with asyncio.timeout(START_TIMEOUT):
        while watch.ticks < timers:  # noqa: ASYNC110 (an event would cost every tick a comparison)
            await asyncio.sleep(0.01)
    watch.times.clear()
    gc.collect()
    ticks, used = watch.ticks, process_time()
    await asyncio.sleep(seconds)
    used, ticks = process_time() - used, watch.ticks - ticks
    median, largest = watch.drift()
    balanced = await stop()
    return Outcome(
        {
            "cpu": used / ticks * 1e6,
            "drift": median * 1e3,
            "worst": largest * 1e3,
            "kept": 100 * ticks / (timers * seconds / INTERVAL),
        },
        balanced,
    )


_TASK = "a task per timer, asyncio.sleep to an absolute deadline"
_FIGURES = {"cpu": "us of CPU/tick", "drift": "ms", "worst": "ms", "kept": "% of the ticks due"}
_SIZES: dict[str, Any] = {
    "full": {"timers": 10_000, "seconds": 10.0},
    "quick": {"timers": 500, "seconds": 1.0},
    "limits": (Limit(OURS, "drift", at_most=5.0),),
}

CONTESTS = (
    Contest(
        name="timers.ticking",
        title="10,000 ongoing timers of 100 ms for 10 s, each tick calls a function",
        figures=_FIGURES,
        contestants={OURS: _contestant(_bare), _TASK: _contestant(_bare_tasks)},
        targets=(Target(OURS, _TASK, at_most=0.35),),
        **_SIZES,
    ),
    Contest(
        name="timers.many",
        title="10,000 ongoing timers of 100 ms for 10 s, each tick is an event handled by a nexus",
        figures=_FIGURES,
        contestants={
            OURS: _contestant(_ours),
            "async-nexus": _contestant(_async_nexus),
            _TASK: _contestant(_tasks),
        },
        **_SIZES,
    ),
)
