"""Laws that programs on an event loop with one queue have been hurt by when they were not kept."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import zmq
import zmq.asyncio

from nexus import (
    AsyncEventNexus,
    Event,
    EventConverter,
    EventFactory,
    EventProducer,
    LatestByKey,
    NamedEvent,
    SecondaryQueue,
    SimpleEventConverter,
    Timer,
    errors,
)
from nexus.boundaries import AsyncEventBoundary
from nexus.boundaries.zmq import ZmqEventReceiver, ZmqEventSender
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


class Alarm(NamedEvent[str]):
    """An event registered by its class."""


class Steady(SimpleEventConverter):
    """Gives an event every millisecond."""

    def __init__(self) -> None:
        self.given = 0

    async def obtain_event(self) -> Event[int]:
        await asyncio.sleep(0.001)
        self.given += 1
        return Event(self.given, "t", 0, self.given)


def event(number: int, priority: int = 0, type: str = "t") -> Event[int]:
    return Event(number, type, priority, number)


@virtual_time
async def test_urgent_secondary_events_come_first() -> None:
    """Events that a handler puts come out by priority, whatever order it put them in."""
    seen = Recorder()

    async def handler(first: Event[Any], queue: SecondaryQueue) -> None:
        for priority in (9, 0, 4):
            await queue.put(event(1, priority, "second"))

    nexus = AsyncEventNexus()
    nexus.add_handler("t", handler)
    nexus.add_handler("second", seen)
    async with nexus:
        await nexus.ingest(event(1))
    assert [each.priority for each in seen.events] == [0, 4, 9]


@virtual_time
async def test_handler_puts_thousands_of_secondary_events_without_waiting() -> None:
    """A handler never waits for its own nexus, however short the lanes are."""
    seen = Recorder()

    async def handler(first: Event[Any], queue: SecondaryQueue) -> None:
        for number in range(5000):
            await queue.put(event(number, type="second"))

    nexus = AsyncEventNexus(maxsize=5)
    nexus.add_handler("t", handler)
    nexus.add_handler("second", seen)
    async with nexus:
        await nexus.ingest(event(1))
    assert seen.count == 5000


@virtual_time
async def test_handlers_run_one_at_a_time_whoever_ingests() -> None:
    """Five callers at once have their events handled one after the other, in the nexus's own task."""
    tasks = set()
    busy = most = 0

    async def handler(event: Event[Any]) -> None:
        nonlocal busy, most
        tasks.add(asyncio.current_task())
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        raise ValueError("not the caller's concern")

    async with AsyncEventNexus() as nexus:
        nexus.add_handler("t", handler)
        await asyncio.gather(*(nexus.ingest(event(n)) for n in range(5)))
        await nexus.drained()
    assert most == len(tasks) == 1
    assert nexus.stats().failed == 5


@virtual_time
async def test_nexus_lives_on_without_converters() -> None:
    """A nexus whose last converter has ended, or that never had one, goes on."""

    class One(EventConverter):
        async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
            yield event(1)

    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", seen)
    nexus.add_converter(One())
    nexus.add_producer(Timer(10, event_type="t"))
    task = nexus.start()
    await asyncio.sleep(20)
    assert seen.count == 2
    assert not task.done()
    assert nexus.state is nexus.States.LOOPING
    await nexus.stop()


@virtual_time
async def test_failing_handler_stops_neither_the_nexus_nor_its_timers() -> None:
    """A handler's exception is the failure of one event; timers and converters go on."""
    seen: list[int] = []

    def handler(event: Event[Any]) -> None:
        if event.payload == 2:
            raise RuntimeError("bad tick")
        seen.append(event.payload)

    nexus = AsyncEventNexus()
    nexus.add_handler("tick", handler)
    nexus.add_handler("t", lambda event: None)
    nexus.add_producer(Timer(1, event_type="tick", type=Timer.ONGOING))
    nexus.add_converter(Steady())
    async with nexus:
        await asyncio.sleep(5.5)
        assert seen == [1, 3, 4, 5]
        assert nexus.stats().failed == 1
        assert {state.state for state in nexus.stats().sources.values()} == {"running"}


@virtual_time
async def test_stop_ends_the_sources_and_loses_nothing() -> None:
    """After a stop no source runs, and every event it gave was handled; a stop may come before the start."""
    source, seen = Steady(), Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", seen)
    nexus.add_converter(source)
    nexus.start()
    await asyncio.sleep(0.0205)
    await nexus.stop()
    assert seen.count == source.given > 15
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (await AsyncEventNexus().stop()).clean


@virtual_time
async def test_cancelled_loop_says_that_it_was_cancelled() -> None:
    """Cancelling the task of a nexus is not swallowed."""
    nexus = AsyncEventNexus()
    task = nexus.start()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert nexus.state is nexus.States.STOPPED


@virtual_time
async def test_key_error_of_a_handler_stays_a_key_error() -> None:
    """A KeyError raised in a handler is reported as it is, and not as a missing handler."""
    nexus = AsyncEventNexus()
    nexus.add_handler("t", lambda event: {}["absent"])
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.drained()
    (letter,) = nexus.dead_letters
    assert isinstance(letter.exception, KeyError)
    assert_ledger_balanced(nexus, failed=1, unhandled=0)
    with pytest.raises(KeyError, match="absent"):
        await nexus.dispatch(event(1), SecondaryQueue(nexus.queue))


@virtual_time
async def test_boundary_closes_at_any_time() -> None:
    """A boundary closes inside of a running loop, twice, and loses nothing that was on its way."""
    boundary, seen = AsyncEventBoundary(), Recorder()
    one, two = AsyncEventNexus(name="one"), AsyncEventNexus(name="two")
    one.add_handler("t", boundary)
    two.add_producer(boundary)
    two.add_handler("t", seen)
    async with two:
        async with one:
            await one.ingest_many(event(n) for n in range(20))
            await one.drained()
        boundary.close()
        boundary.close()
    assert seen.count == 20
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_generator_closes() -> None:
    """A converter's generator is closed, begun or not."""
    closed: list[str] = []

    class Numbers(EventConverter):
        async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
            try:
                while True:
                    yield event(1)
            finally:
                closed.append("closed")

    begun = Numbers()
    await begun.obtain_event()
    begun.close()
    begun.close()
    Numbers().close()
    assert closed == ["closed"]


@virtual_time
async def test_handler_registered_by_class_is_found() -> None:
    """A NamedEvent class and its name are one type."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler(Alarm, seen)
    async with nexus:
        await nexus.ingest(Alarm(1, "hot"))
        await nexus.ingest(Event(2, "Alarm", 0, "hotter"))
    assert seen.payloads == ["hot", "hotter"]


@virtual_time
async def test_plain_function_is_a_handler() -> None:
    """A lambda or plain function handles, filters and is a fallback."""
    seen: list[int] = []
    nexus = AsyncEventNexus()
    nexus.add_handler(-1, lambda event, queue: seen.append(event.id))
    nexus.add_filter(lambda event, queue: event.id == 2)
    async with nexus:
        await nexus.ingest_many([event(1), event(2), event(3)])
    assert seen == [1, 3]
    assert_ledger_balanced(nexus, handled=3)


@virtual_time
async def test_failing_converter_stops_nobody() -> None:
    """A converter that raises is tried again; the nexus and its other sources go on."""

    class Bad(SimpleEventConverter):
        async def obtain_event(self) -> Event[Any]:
            raise ValueError("not JSON")

    good, seen = Steady(), Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", seen)
    nexus.add_converter(Bad())
    nexus.add_converter(good)
    async with nexus:
        await asyncio.sleep(1)
        assert nexus.stats().sources["Bad"].state == "degraded"
    assert seen.count == good.given > 900


async def test_malformed_frame_stops_nobody() -> None:
    """Whoever reaches a socket with rubbish is counted; the next good frame is an event."""
    seen = Recorder()
    with zmq.asyncio.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")
        nexus = AsyncEventNexus()
        nexus.add_handler("t", seen)
        nexus.add_converter(ZmqEventReceiver(pull))
        async with nexus:
            for frame in (b"rubbish", b"[]", b'{"id": 1}', b"\xff", b"x" * 100_000):
                await push.send(frame)
            await push.send(b'{"id": 7, "type": "t", "priority": 3, "payload": 1.5}')
            await seen.wait_for(1, timeout=10)
    assert seen.events == [Event(7, "t", 3, 1.5)]


async def test_sender_is_held_up_by_its_socket_and_says_what_fails() -> None:
    """A sender waits at the high-water mark; bytes in a payload fail that event alone."""
    with zmq.asyncio.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.set_hwm(5)
        push.set_hwm(5)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")
        nexus = AsyncEventNexus(grace=20)
        nexus.add_handler("t", ZmqEventSender(push))
        async with nexus:
            await nexus.ingest(Event(0, "t", 0, b"bytes"))  # type: ignore[arg-type]
            await nexus.ingest_many(event(n) for n in range(1, 501))
            got = [(await asyncio.wait_for(pull.recv_json(), 10))["id"] for _ in range(500)]
    assert got == list(range(1, 501))
    assert_ledger_balanced(nexus, handled=500, failed=1)


@virtual_time
async def test_factory_given_to_a_producer_lives_as_long_as_it() -> None:
    """A factory that nobody else holds is there when the first event is made."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", seen)
    nexus.add_producer(Timer(1, event_type="t", event_factory=EventFactory()))
    async with nexus:
        await asyncio.sleep(2)
    assert [each.id for each in seen.events] == [1]


@virtual_time
async def test_overload_is_bounded_chosen_and_counted() -> None:
    """A full lane holds up its giver, or does what its type's policy says; all of it is on the ledger."""
    nexus = AsyncEventNexus(maxsize=3)
    nexus.add_handler("t", lambda event: asyncio.sleep(1))
    nexus.set_policy("state", LatestByKey())
    nexus.add_handler("state", lambda event: None)
    async with nexus:
        await nexus.ingest_many(event(n) for n in range(3))
        with pytest.raises(errors.QueueFull):
            nexus.ingest_nowait(event(9))
        for number in range(100):
            nexus.ingest_nowait(event(number, 5, "state"))
        assert nexus.stats().lanes[5] == 1
    assert_ledger_balanced(nexus, refused=1)
    assert nexus.stats().types["state"].drops == {"replaced": 99}


@virtual_time
async def test_replies_cross_a_boundary() -> None:
    """What a handler on the far side answers comes back to the nexus that asked."""
    boundary, seen = AsyncEventBoundary(), Recorder()
    one, two = AsyncEventNexus(name="one"), AsyncEventNexus(name="two")

    async def answer(event: Event[Any], queue: SecondaryQueue) -> None:
        await queue.put(event.reply(event.payload * 2, type="answer"))

    one.add_handler("t", boundary)
    one.add_handler("answer", seen)
    two.add_producer(boundary)
    two.add_handler("t", answer)
    async with one, two:
        await one.ingest(event(21))
        await seen.wait_for(1, timeout=5)
    assert seen.payloads == [42]
    assert seen.events[0].correlation == 21


@virtual_time
async def test_handlers_filters_and_sources_go_while_it_runs() -> None:
    """Whatever can be registered can be removed, also from a running nexus."""
    seen = Recorder()
    source: EventProducer = Timer(1, event_type="t", type=Timer.ONGOING)

    def consume(event: Event[Any]) -> bool:
        return True

    async with AsyncEventNexus() as nexus:
        nexus.add_handler("t", seen)
        nexus.add_filter(consume)
        nexus.add_producer(source)
        await asyncio.sleep(1.5)
        nexus.remove_filter(consume)
        await asyncio.sleep(1)
        nexus.remove_handler("t")
        await asyncio.sleep(1)
        await nexus.remove_source(source)
        await asyncio.sleep(10)
    assert_ledger_balanced(nexus, ingested=3, handled=2, unhandled=1)
    assert seen.count == 1


@virtual_time
async def test_converters_cost_one_task_each_and_none_for_an_event() -> None:
    """A thousand events from each of twenty converters make no task beyond those of the start."""

    class Burst(SimpleEventConverter):
        given = 0

        async def obtain_event(self) -> Event[Any]:
            if self.given == 1000:
                raise errors.NoMoreEvents
            self.given += 1
            return event(self.given)

    made: list[str] = []
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(options.get("name") or "")
        return asyncio.Task(coro, loop=loop, **options)

    nexus = AsyncEventNexus()
    nexus.add_handler("t", lambda event: None)
    for _ in range(20):
        nexus.add_converter(Burst())
    loop.set_task_factory(factory)  # type: ignore[arg-type]
    async with nexus:
        await asyncio.sleep(1)
    assert nexus.stats().handled == 20_000
    assert len(made) < 20 + 15
