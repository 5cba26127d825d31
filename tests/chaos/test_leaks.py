"""Starting and stopping for ever leaves nothing: no task, thread, descriptor, memory or complaint."""

import asyncio
import gc
import os
import threading
from typing import Any, ClassVar

import pytest
from memory_use import resident

from nexus import AsyncEventNexus, Event, EventProducer, NamedEvent, SimpleEventConverter, Timer
from nexus.testing import run


class Ping(SimpleEventConverter):
    """Gives one event and waits."""

    given = False

    async def obtain_event(self) -> Event[Any]:
        if self.given:
            await asyncio.Event().wait()
        self.given = True
        return Event(1, "t", 0, None)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def cycle(make: type[AsyncEventNexus]) -> None:
    """Live once: sources of each kind, handlers inline and beside, an urgent event, a stop."""
    nexus = make(grace=0)
    nexus.add_handler("t", lambda event: None)
    nexus.add_handler("beside", lambda event: asyncio.sleep(0), concurrency=2)
    nexus.add_converter(Ping())
    nexus.add_producer(Timer(3600, event_type="t"))
    nexus.add_producer(EventProducer())
    async with nexus:
        await nexus.ingest(Event(2, "beside", -1, None))
        await nexus.drained()


async def cycles(number: int, make: type[AsyncEventNexus] = AsyncEventNexus) -> dict[str, float]:
    """Live `number` times; return what has grown since the first tenth."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    for place in range(number):
        if place == number // 10:
            gc.collect()
            before = {
                "threads": threading.active_count(),
                "fds": descriptors(),
                "objects": len(gc.get_objects()),
                "rss": resident(),
            }
        await cycle(make)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()) - 1,
        "threads": threading.active_count() - before["threads"],
        "fds": descriptors() - before["fds"],
        "objects": len(gc.get_objects()) - before["objects"],
        "rss_bytes": resident() - before["rss"],
        "complaints": len(complaints),
    }


def judge(grown: dict[str, float]) -> None:
    assert grown["tasks"] == grown["threads"] == grown["fds"] == grown["complaints"] == 0, grown
    assert grown["objects"] < 500, grown
    assert grown["rss_bytes"] <= 2 << 20, grown


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what a process holds is read from /proc")
def test_cycles_of_life_leave_nothing(form: Any, figures: Any) -> None:
    """Thousands of starts and stops leave no task, thread, descriptor or growing memory."""
    number = form.size(600, 10_000)
    grown = run(cycles(number))
    figures(offered=2 * number, delivered=2 * number, lost=0, **grown)
    judge(grown)


class KeepsItself(AsyncEventNexus):
    """Is remembered by the class for ever."""

    kept: ClassVar[list[AsyncEventNexus]] = []

    async def drained(self) -> None:
        self.kept.append(self)
        await super().drained()


class LeavesATask(AsyncEventNexus):
    """Leaves a task waiting."""

    waiting: ClassVar[set[asyncio.Task[Any]]] = set()

    async def drained(self) -> None:
        self.waiting.add(asyncio.create_task(asyncio.sleep(1e6), name="left"))
        await super().drained()


class LeavesADescriptor(AsyncEventNexus):
    """Leaves a pipe open."""

    pipes: ClassVar[list[int]] = []

    async def drained(self) -> None:
        self.pipes += os.pipe()
        await super().drained()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what a process holds is read from /proc")
@pytest.mark.parametrize("mutant", [KeepsItself, LeavesATask, LeavesADescriptor])
def test_each_kind_of_leak_is_seen(mutant: type[AsyncEventNexus]) -> None:
    """A nexus made to leak is found out."""
    with pytest.raises(AssertionError):
        judge(run(cycles(50, mutant)))
    KeepsItself.kept.clear()
    LeavesATask.waiting.clear()
    for descriptor in LeavesADescriptor.pipes:
        os.close(descriptor)
    LeavesADescriptor.pipes.clear()


def test_types_without_end_fill_no_memory(form: Any, figures: Any) -> None:
    """A million distinct types, from a peer who invents them, share one account."""
    number = form.size(20_000, 1_000_000)

    async def go() -> float:
        nexus = AsyncEventNexus()
        async with nexus:
            for place in range(number):
                if place == 2000:
                    before = resident()
                await nexus.ingest(Event(place, f"type-{place}", 0, None))
            await nexus.drained()
            stats = nexus.stats()
            assert stats.unhandled == number
            assert stats.balanced
            assert len(stats.types) <= 1001
            gc.collect()
            return resident() - before

    grown = run(go())
    figures(offered=number, unhandled=number, lost=0, rss_bytes=grown)
    assert grown <= 16 << 20


def test_failures_priorities_and_sources_without_end_fill_no_memory(form: Any, figures: Any) -> None:
    """Dead letters, lanes, and the states of sources that are gone are all bounded."""
    number = form.size(1500, 20_000)

    async def go() -> None:
        def fail(event: Event[Any]) -> None:
            raise ValueError

        nexus = AsyncEventNexus(max_lanes=8)
        nexus.add_handler("t", fail)
        async with nexus:
            for place in range(number):
                await nexus.ingest(Event(place, "t", place, None))
                await nexus.drained()
                source = Ping()
                source.name = f"source-{place}"  # type: ignore[attr-defined]
                nexus.add_converter(source)
                await nexus.remove_source(source)
            assert len(nexus.dead_letters) == 1000
            assert len(nexus.queue.lanes) <= 8
            assert len(nexus.stats().sources) <= 1000
            assert nexus.stats().balanced

    run(go())
    figures(offered=2 * number)


class Fresh(NamedEvent[int]):
    """Used once."""


def test_handlers_that_come_and_go_leave_nothing() -> None:
    """Registering and removing a handler over and over keeps nothing of it."""

    async def go() -> int:
        async with AsyncEventNexus() as nexus:
            for place in range(400):
                if place == 100:
                    gc.collect()
                    before = len(gc.get_objects())
                nexus.add_handler(Fresh, lambda event: asyncio.sleep(0), concurrency=1 + place % 3)
                await nexus.ingest(Fresh(1, 1))
                await nexus.drained()
                nexus.remove_handler(Fresh)
            gc.collect()
            return len(gc.get_objects()) - before

    assert run(go()) < 200
