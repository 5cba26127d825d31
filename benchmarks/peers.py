"""The peers, each driven in the way its own documentation shows.

An adapter is an async function of (number of events, handlers of their one type). It makes its
events first, then returns the seconds from handing over the first to the end of the last handler. A
handler takes (event, queue=None).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import process_time
from typing import Any

import attrs

from benchmarks._harness import peer

AsyncHandler = Callable[..., Awaitable[None]]
PlainHandler = Callable[..., None]
# Peers that make a task an event are given this many before their tasks are waited for.
LOT = 1000


@attrs.define
class SlottedEvent:
    """The least an event can be: four fields in slots."""

    id: int
    type: str
    priority: int
    payload: float


def slotted_events(count: int, types: Sequence[str] = ("reading",)) -> list[SlottedEvent]:
    """Make events of the types in turn."""
    return [SlottedEvent(n, types[n % len(types)], 0, 1.0) for n in range(count)]


async def bare_await(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Await each handler; nothing else. The floor."""
    events = slotted_events(count)
    start = process_time()
    for event in events:
        for handler in handlers:
            await handler(event, None)
    return process_time() - start


async def bare_call(count: int, handlers: Sequence[PlainHandler]) -> float:
    """Call each handler; nothing else. The floor of plain functions."""
    events = slotted_events(count)
    start = process_time()
    for event in events:
        for handler in handlers:
            handler(event, None)
    return process_time() - start


async def priority_queue(count: int, handlers: Sequence[AsyncHandler], *, maxsize: int = 10_000) -> float:
    """Run the loop everybody writes: a PriorityQueue, a consumer task, a dict of handlers, `join`."""
    events = slotted_events(count)
    queue: asyncio.PriorityQueue[tuple[int, int, SlottedEvent]] = asyncio.PriorityQueue(maxsize)
    routes = {"reading": list(handlers)}

    async def consume() -> None:
        while True:
            _, _, event = await queue.get()
            for handler in routes[event.type]:
                await handler(event, queue)
            queue.task_done()

    consumer = asyncio.create_task(consume())
    start = process_time()
    for number, event in enumerate(events):
        await queue.put((event.priority, number, event))
    await queue.join()
    seconds = process_time() - start
    consumer.cancel()
    return seconds


def async_nexus_idle_converter() -> Any:
    """Return a converter that gives nothing: without one, its loop ends at once with a ValueError."""
    module = peer("async_nexus", "async-nexus")

    class Idle(module.SimpleEventConverter):  # type: ignore[misc,name-defined]
        async def start(self) -> None: ...

        def close(self) -> None: ...

        async def obtain_event(self) -> Any:
            await asyncio.Event().wait()

    return Idle()


async def async_nexus(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Ingest one at a time; several handlers stand in an EventFanout, since `multiple` is not implemented."""
    module = peer("async_nexus", "async-nexus")
    events = [module.Event(n, "reading", 0, 1.0) for n in range(count)]
    nexus = module.AsyncEventNexus()
    nexus.add_converter(async_nexus_idle_converter())
    if len(handlers) == 1:
        nexus.add_handler("reading", handlers[0])
    else:
        fanout = module.EventFanout()
        for handler in handlers:
            fanout.register(_Consumer(handler))
        nexus.add_handler("reading", fanout)
    task = nexus.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ingest = nexus.ingest
    start = process_time()
    for event in events:
        await ingest(event)
    seconds = process_time() - start
    task.cancel()
    return seconds


class _Consumer:
    def __init__(self, handler: AsyncHandler) -> None:
        self.handle = handler


async def blinker_async(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Await `send_async` with the event as the sender."""
    signal = peer("blinker", "blinker").Signal()
    events = slotted_events(count)
    for handler in handlers:
        signal.connect(handler)
    send = signal.send_async
    start = process_time()
    for event in events:
        await send(event)
    return process_time() - start


async def blinker_plain(count: int, handlers: Sequence[PlainHandler]) -> float:
    """Call `send` with the event as the sender."""
    signal = peer("blinker", "blinker").Signal()
    events = slotted_events(count)
    for handler in handlers:
        signal.connect(handler)
    send = signal.send
    start = process_time()
    for event in events:
        send(event)
    return process_time() - start


async def pyee_async(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Emit a lot on an AsyncIOEventEmitter, which makes a task each, then `wait_for_complete`."""
    emitter = peer("pyee.asyncio", "pyee").AsyncIOEventEmitter()
    events = slotted_events(count)
    for handler in handlers:
        emitter.on("reading", handler)
    emit = emitter.emit
    start = process_time()
    for first in range(0, count, LOT):
        for event in events[first : first + LOT]:
            emit("reading", event)
        await emitter.wait_for_complete()
    return process_time() - start


async def pyee_plain(count: int, handlers: Sequence[PlainHandler]) -> float:
    """Emit on an EventEmitter."""
    emitter = peer("pyee", "pyee").EventEmitter()
    events = slotted_events(count)
    for handler in handlers:
        emitter.on("reading", handler)
    emit = emitter.emit
    start = process_time()
    for event in events:
        emit("reading", event)
    return process_time() - start


async def psygnal_async(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Emit to coroutine slots over the asyncio back-end, one task that awaits them in turn."""
    psygnal = peer("psygnal", "psygnal")
    backend = psygnal.set_async_backend("asyncio")
    await backend.running.wait()
    signal = psygnal.SignalInstance((object,), name="reading")
    events = slotted_events(count)
    done = asyncio.Event()
    last = events[-1]

    async def finish(event: SlottedEvent) -> None:
        if event is last:
            done.set()

    for handler in handlers:
        signal.connect(handler, check_nargs=False, max_args=1)
    start = process_time()
    for event in events[:-1]:
        signal.emit(event)
    signal.connect(finish, check_nargs=False, max_args=1)
    signal.emit(last)
    await done.wait()
    return process_time() - start


async def psygnal_plain(count: int, handlers: Sequence[PlainHandler]) -> float:
    """Emit to plain slots."""
    signal = peer("psygnal", "psygnal").SignalInstance((object,), name="reading")
    events = slotted_events(count)
    for handler in handlers:
        signal.connect(handler, check_nargs=False, max_args=1)
    start = process_time()
    for event in events:
        signal.emit(event)
    return process_time() - start


async def reactivex_async(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Push into a Subject whose `flat_map` makes a future of each handler."""
    reactivex = peer("reactivex", "reactivex")
    flat_map = peer("reactivex.operators", "reactivex").flat_map
    subject = peer("reactivex.subject", "reactivex").Subject()
    events = slotted_events(count)
    left = 0
    done = asyncio.Event()

    def finished(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    for handler in handlers:
        subject.pipe(
            flat_map(
                lambda event, handler=handler: reactivex.from_future(asyncio.ensure_future(handler(event)))
            )
        ).subscribe(finished)
    start = process_time()
    for first in range(0, count, LOT):
        lot = events[first : first + LOT]
        left = len(lot) * len(handlers)
        done.clear()
        for event in lot:
            subject.on_next(event)
        await done.wait()
    return process_time() - start


async def reactivex_plain(count: int, handlers: Sequence[PlainHandler]) -> float:
    """Push into a Subject that plain functions subscribe to."""
    subject = peer("reactivex.subject", "reactivex").Subject()
    events = slotted_events(count)
    for handler in handlers:
        subject.subscribe(handler)
    push = subject.on_next
    start = process_time()
    for event in events:
        push(event)
    return process_time() - start


async def bubus(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Await each dispatched event: its bus refuses more than 100 pending ones."""
    logging.disable(logging.WARNING)
    module = peer("bubus", "bubus")

    class Reading(module.BaseEvent):  # type: ignore[misc,name-defined]
        payload: float

    bus = module.EventBus()
    for handler in handlers:
        bus.on(Reading, handler)
    events = [Reading(payload=1.0) for _ in range(count)]
    start = process_time()
    for event in events:
        await bus.dispatch(event)
    seconds = process_time() - start
    await bus.stop()
    return seconds


async def pyventus(count: int, handlers: Sequence[AsyncHandler]) -> float:
    """Emit a lot on an AsyncIOEventEmitter, which makes a task each, then `wait_for_tasks`."""
    module = peer("pyventus.events", "pyventus")
    service = peer("pyventus.core.processing.asyncio", "pyventus").AsyncIOProcessingService()

    class Linker(module.EventLinker):  # type: ignore[misc,name-defined]
        """A registry of its own."""

    for handler in handlers:
        Linker.subscribe("reading", event_callback=handler)
    emitter = module.EventEmitter(event_linker=Linker, event_processor=service)
    events = slotted_events(count)
    start = process_time()
    for first in range(0, count, LOT):
        for event in events[first : first + LOT]:
            emitter.emit("reading", event)
        await service.wait_for_tasks()
    return process_time() - start
