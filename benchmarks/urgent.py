"""How long an urgent event waits in a flood: from its due time to its handler.

On every side 50,000 bulk events stand queued, and at each of its turns a producer makes as many new
ones as were handled since its last, then yields to the loop. An urgent event is due every
millisecond on an absolute schedule; what is late because the loop is busy counts as waiting.

It comes from a converter that sleeps until the due time, the way both nexuses document, or from a
callback of the loop: our `ingest_nowait`, the floor's `append`, and for async-nexus, which has
nothing of the kind, a task that ingests. The callback is the kinder way for async-nexus: of the
urgent events that fell due during one of its drains only the first waits for the next drain, while
from a converter each waits for its own.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from benchmarks._harness import OURS, Contest, Outcome, Target, peer, percentile
from benchmarks.peers import SlottedEvent, async_nexus_idle_converter
from nexus import AsyncEventNexus, Event, SimpleEventConverter

INTERVAL = 0.001
TURN = 0.0001
URGENT = -1


NextDue = Callable[[], Awaitable[float]]


class Side(Protocol):
    """One runtime under flood."""

    async def start(self, watch: Watch) -> None:
        """Begin, with the watch's two handlers."""

    def bulk(self, count: int) -> None:
        """Make and queue so many bulk events at once, without a turn of the loop."""

    def urgent(self, due: float) -> None:
        """Make and hand over an urgent event whose payload is its due time."""

    def pull(self, next_due: NextDue) -> None:
        """Add a converter that makes an urgent event of each due time."""

    async def stop(self) -> bool | None:
        """End; say whether the ledger balanced, None where there is none."""


class Watch:
    """The handlers, and what they saw."""

    def __init__(self, work: float, expected: int) -> None:
        self.work = work
        self.expected = expected
        self.done = asyncio.Event()
        self.handled = 0
        self.waits: list[float] = []

    async def handle_bulk(self, event: Any, queue: object = None) -> None:
        """Count it, after `work` seconds of keeping the processor busy."""
        if self.work:
            end = perf_counter() + self.work
            while perf_counter() < end:
                pass
        self.handled += 1

    async def handle_urgent(self, event: Any, queue: object = None) -> None:
        """Note how long after its due time it came."""
        self.waits.append(perf_counter() - event.payload)
        if len(self.waits) == self.expected:
            self.done.set()


class Ours:
    """An AsyncEventNexus whose lanes hold the whole backlog."""

    def __init__(self, backlog: int) -> None:
        self.nexus = AsyncEventNexus(maxsize=backlog)

    async def start(self, watch: Watch) -> None:
        self.nexus.add_handler("bulk", watch.handle_bulk)
        self.nexus.add_handler("urgent", watch.handle_urgent)
        self.nexus.start()
        await asyncio.sleep(0)

    def bulk(self, count: int) -> None:
        ingest = self.nexus.ingest_nowait
        for n in range(count):
            ingest(Event(n, "bulk", 0, 1.0))

    def urgent(self, due: float) -> None:
        self.nexus.ingest_nowait(Event(0, "urgent", URGENT, due))

    def pull(self, next_due: NextDue) -> None:
        class Alarms(SimpleEventConverter):
            async def start(self) -> None: ...

            def close(self) -> None: ...

            async def obtain_event(self) -> Event[float]:
                return Event(0, "urgent", URGENT, await next_due())

        self.nexus.add_converter(Alarms())

    async def stop(self) -> bool | None:
        await self.nexus.drained()
        report = await self.nexus.stop()
        return report.stats.balanced


class AsyncNexus:
    """The ancestor, its bound lifted by its class attribute, its queue fed as its handlers feed it.

    Its `ingest` handles the whole queue before it returns: bulk to stand queued goes to `nexus.queue`.
    """

    def __init__(self, backlog: int) -> None:
        module = peer("async_nexus", "async-nexus")

        class Unbounded(module.AsyncEventNexus):  # type: ignore[misc,name-defined]
            QUEUE_MAXLEN = 0

        self.nexus = Unbounded()
        self.module = module
        self.event = module.Event
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self, watch: Watch) -> None:
        if not self.nexus.converters:
            self.nexus.add_converter(async_nexus_idle_converter())
        self.nexus.add_handler("bulk", watch.handle_bulk)
        self.nexus.add_handler("urgent", watch.handle_urgent)
        self.loop = self.nexus.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def bulk(self, count: int) -> None:
        put = self.nexus.queue.put_nowait
        for n in range(count):
            put(self.event(n, "bulk", 0, 1.0))

    def urgent(self, due: float) -> None:
        task = asyncio.create_task(self.nexus.ingest(self.event(0, "urgent", URGENT, due)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def pull(self, next_due: NextDue) -> None:
        make = self.event

        class Alarms(self.module.SimpleEventConverter):  # type: ignore[misc,name-defined]
            async def start(self) -> None: ...

            def close(self) -> None: ...

            async def obtain_event(self) -> Any:
                return make(0, "urgent", URGENT, await next_due())

        self.nexus.add_converter(Alarms())

    async def stop(self) -> bool | None:
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.loop.cancel()
        return None


class Floor:
    """Two lanes, a batch of about 100 us, a turn for the loop; no ledger, no bound, no statistics."""

    def __init__(self, backlog: int) -> None:
        self.lanes: tuple[deque[SlottedEvent], deque[SlottedEvent]] = (deque(), deque())

    async def start(self, watch: Watch) -> None:
        self.routes = {"bulk": watch.handle_bulk, "urgent": watch.handle_urgent}
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Handle the most urgent first, for ever."""
        soon, later = self.lanes
        routes = self.routes
        while True:
            end = perf_counter() + TURN
            while soon or later:
                event = soon.popleft() if soon else later.popleft()
                await routes[event.type](event, None)
                if perf_counter() >= end:
                    break
            await asyncio.sleep(0)

    def bulk(self, count: int) -> None:
        append = self.lanes[1].append
        for n in range(count):
            append(SlottedEvent(n, "bulk", 0, 1.0))

    def urgent(self, due: float) -> None:
        self.lanes[0].append(SlottedEvent(0, "urgent", URGENT, due))

    def pull(self, next_due: NextDue) -> None:
        raise TypeError("a deque has no converters")

    async def stop(self) -> bool | None:
        self.task.cancel()
        return None


def _run(
    make: Callable[[int], Side], *, pulled: bool, work: float, freeze: bool, seconds: float, backlog: int
) -> Outcome:
    return asyncio.run(_flooded(make, pulled, work, freeze, seconds, backlog))


async def _flooded(
    make: Callable[[int], Side], pulled: bool, work: float, freeze: bool, seconds: float, backlog: int
) -> Outcome:
    schedule = Schedule(seconds)
    watch = Watch(work, schedule.count)
    side = make(backlog)
    if pulled:
        side.pull(schedule.next_due)
    await side.start(watch)
    side.bulk(backlog)
    gc.collect()
    if freeze:
        gc.freeze()
    start = schedule.begin()
    if not pulled:
        schedule.call(side.urgent)
    made = backlog
    while perf_counter() < schedule.end:
        room = backlog - (made - watch.handled)
        side.bulk(room)
        made += room
        await asyncio.sleep(0)
    bulk_rate = watch.handled / (perf_counter() - start)
    await asyncio.wait_for(watch.done.wait(), 60)
    balanced = await side.stop()
    if freeze:
        gc.unfreeze()
    waits = watch.waits
    return Outcome(
        {
            "p99": percentile(waits, 99) * 1e3,
            "p50": percentile(waits, 50) * 1e3,
            "max": max(waits) * 1e3,
            "bulk": bulk_rate,
        },
        balanced,
    )


class Schedule:
    """When the urgent events are due: every INTERVAL after the beginning, whatever became of those before."""

    def __init__(self, seconds: float) -> None:
        self.count = int(seconds / INTERVAL)
        self.given = 0
        self.begun = asyncio.Event()

    def begin(self) -> float:
        """Start the clock, and return what it says."""
        self.start = perf_counter()
        self.end = self.start + self.count * INTERVAL
        self.begun.set()
        return self.start

    def due(self) -> float:
        """Return the next due time."""
        return self.start + (self.given + 1) * INTERVAL

    async def next_due(self) -> float:
        """Wait for the next due time; for ever after the last."""
        await self.begun.wait()
        if self.given == self.count:
            await asyncio.Event().wait()
        if (left := self.due() - perf_counter()) > 0:
            await asyncio.sleep(left)
        due = self.due()
        self.given += 1
        return due

    def call(self, urgent: Callable[[float], None]) -> None:
        """Call with each due time, by a callback of the loop."""
        loop = asyncio.get_running_loop()
        # The two clocks may count from different moments.
        shift = loop.time() - perf_counter()

        def fire() -> None:
            while self.given < self.count and self.due() <= perf_counter():
                urgent(self.due())
                self.given += 1
            if self.given < self.count:
                loop.call_at(self.due() + shift, fire)

        loop.call_at(self.due() + shift, fire)


_CONVERTER = "urgent from a converter"
_PEER = "async-nexus"
_FLOOR = "floor: minimal lane loop"


def _contest(name: str, title: str, *, work: float, freeze: bool) -> Contest:
    def side(make: Callable[[int], Side], *, pulled: bool = False) -> Callable[..., Outcome]:
        return partial(_run, make, pulled=pulled, work=work, freeze=freeze)

    return Contest(
        name=f"urgent.{name}",
        title=f"an urgent event every 1 ms against 50,000 queued and a steady flood, {title}",
        figures={"p99": "ms", "p50": "ms", "max": "ms", "bulk": "events/s"},
        contestants={
            f"{OURS}, {_CONVERTER}": side(Ours, pulled=True),
            f"{_PEER}, {_CONVERTER}": side(AsyncNexus, pulled=True),
            f"{_PEER}, a task per urgent event": side(AsyncNexus),
            OURS: side(Ours),
            _FLOOR: side(Floor),
        },
        full={"seconds": 2.0, "backlog": 50_000},
        quick={"seconds": 0.1, "backlog": 500},
        targets=(
            Target(f"{OURS}, {_CONVERTER}", f"{_PEER}, {_CONVERTER}", at_most=1 / 300),
            Target(OURS, f"{_PEER}, a task per urgent event", at_most=1 / 300),
            Target(OURS, _FLOOR, at_most=1.5),
        ),
    )


_BUSY = "20 us of work in each bulk handler"

CONTESTS = (
    _contest("idle", "handlers that do nothing", work=0.0, freeze=False),
    _contest("idle-frozen", "handlers that do nothing, gc.freeze on every side", work=0.0, freeze=True),
    _contest("busy", _BUSY, work=20e-6, freeze=False),
    _contest("busy-frozen", f"{_BUSY}, gc.freeze on every side", work=20e-6, freeze=True),
)
