"""Sources: converters that are pulled, producers that push, and how each is closed."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from nexus import (
    AbstractNexus,
    AsyncEventNexus,
    Event,
    EventConverter,
    EventFactory,
    EventProducer,
    EventSource,
    SimpleEventConverter,
)
from nexus._source import close_source
from nexus.errors import MisconfiguredEventProducer, NoMoreEvents
from nexus.testing import Recorder, virtual_time


def event(number: int) -> Event[None]:
    return Event(number, "t", 0, None)


class Sink(AbstractNexus):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[int] = []

    async def ingest(self, event: Event[Any]) -> None:
        self.got.append(event.id)


class Numbers(EventConverter):
    """Gives 1 to 3; its end takes a moment if asked to."""

    def __init__(self, *, slow_end: bool = False) -> None:
        super().__init__()
        self.slow_end = slow_end
        self.ended = 0

    async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
        try:
            for number in (1, 2, 3):
                yield event(number)
        finally:
            if self.slow_end:
                await asyncio.sleep(0.1)
            self.ended += 1


# Converters.


def test_abstract_converters_cannot_be_made() -> None:
    """A converter without its one method is refused."""
    for kind in (SimpleEventConverter, EventConverter):
        with pytest.raises(TypeError, match="abstract"):
            kind()


@virtual_time
async def test_generator_gives_its_events_and_ends() -> None:
    """obtain_event gives what the generator yields, then raises NoMoreEvents, again and again."""
    numbers = Numbers()
    assert [(await numbers.obtain_event()).id for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(NoMoreEvents, match="Numbers"):
            await numbers.obtain_event()
    assert numbers.ended == 1


@virtual_time
async def test_cancelled_obtain_event_of_a_generator_ends_it() -> None:
    """A generator that waits when it is cancelled has had its finally run, and gives no more."""

    class Waits(EventConverter):
        ended = False

        async def event_generator(self) -> AsyncGenerator[Event[Any], None]:
            try:
                await asyncio.sleep(3600)
                yield event(1)
            finally:
                self.ended = True

    waits = Waits()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waits.obtain_event(), 1)
    assert waits.ended
    with pytest.raises(NoMoreEvents):
        await waits.obtain_event()


@virtual_time
async def test_generator_that_waits_for_its_end_wants_aclose() -> None:
    """close says so when it cannot do it; aclose waits; both may come twice."""
    numbers = Numbers(slow_end=True)
    await numbers.obtain_event()
    with pytest.raises(RuntimeError, match="await aclose"):
        numbers.close()
    await numbers.aclose()
    assert numbers.ended == 0
    other = Numbers(slow_end=True)
    await other.obtain_event()
    await other.aclose()
    await other.aclose()
    assert other.ended == 1


@virtual_time
async def test_restarted_generator_begins_anew() -> None:
    """restart closes the old generator and makes a new one."""
    numbers = Numbers()
    await numbers.obtain_event()
    await numbers.restart()
    assert numbers.ended == 1
    assert (await numbers.obtain_event()).id == 1
    await numbers.aclose()


@virtual_time
async def test_batches_are_taken_in_order() -> None:
    """A converter with obtain_events is asked for many at once; their order is kept."""

    class Batches(SimpleEventConverter):
        given = 0

        async def obtain_event(self) -> Event[Any]:
            raise AssertionError("never asked")

        async def obtain_events(self) -> list[Event[Any]]:
            if self.given >= 60:
                raise NoMoreEvents
            self.given += 20
            return [event(self.given - 20 + n) for n in range(20)]

    seen = Recorder()
    nexus = AsyncEventNexus(maxsize=7)
    nexus.add_handler("t", seen)
    nexus.add_converter(Batches())
    async with nexus:
        await asyncio.sleep(1)
    assert [each.id for each in seen.events] == list(range(60))


@virtual_time
async def test_converter_that_never_waits_lets_others_run() -> None:
    """A converter whose events are always ready starves neither timers nor other tasks."""

    class Greedy(SimpleEventConverter):
        given = 0

        async def obtain_event(self) -> Event[Any]:
            self.given += 1
            if self.given > 5000:
                raise NoMoreEvents
            return event(self.given)

    greedy = Greedy()
    turns: list[int] = []
    nexus = AsyncEventNexus(maxsize=100_000)
    nexus.add_handler("t", lambda event: None)
    nexus.add_converter(greedy)
    async with nexus:
        while greedy.given <= 5000:
            turns.append(greedy.given)
            await asyncio.sleep(0)
    assert len(turns) > 20


# Producers.


@virtual_time
async def test_producer_gives_to_every_nexus_in_order_of_registration() -> None:
    """distribute_event serves all; registering twice changes nothing; one deregistered gets no more."""
    sinks = [Sink() for _ in range(3)]
    producer = EventProducer()
    for sink in (*sinks, sinks[0]):
        producer.register_nexus(sink)
    assert producer.nexuses == sinks
    await producer.distribute_event(event(1))
    producer.deregister_nexus(sinks[1])
    producer.deregister_nexus(sinks[1])
    await producer.distribute_event(event(2))
    assert [sink.got for sink in sinks] == [[1, 2], [1], [1, 2]]


def test_producer_keeps_no_nexus_alive() -> None:
    """A nexus that nobody else holds is gone, and with it its place in the producer."""
    producer = EventProducer()
    nexus = AsyncEventNexus()
    nexus.add_producer(producer)
    ref = weakref.ref(nexus)
    del nexus
    gc.collect()
    assert ref() is None
    assert producer.nexuses == []


async def test_producer_without_a_nexus_does_not_start() -> None:
    """The error says what to do."""
    with pytest.raises(MisconfiguredEventProducer, match="add_producer"):
        await EventProducer().start()


def test_producer_finds_its_factory() -> None:
    """The one it was given, or else its first nexus, or else one of its own."""
    factory = EventFactory()
    assert EventProducer(factory).event_factory is factory
    nexus = AsyncEventNexus()
    producer = EventProducer()
    producer.register_nexus(Sink())
    producer.register_nexus(nexus)
    assert producer.event_factory is nexus
    alone = EventProducer()
    assert alone.event_factory is alone.event_factory


def test_nexus_given_as_factory_is_held_weakly() -> None:
    """A producer whose factory is a nexus does not keep it alive."""
    nexus = AsyncEventNexus()
    producer = EventProducer(nexus)
    assert producer.event_factory is nexus
    ref = weakref.ref(nexus)
    del nexus
    gc.collect()
    assert ref() is None
    assert isinstance(producer.event_factory, EventFactory)


# What is no source.


@pytest.mark.parametrize("thing", [None, 3, "source", object()])
def test_what_is_no_source_is_refused(thing: Any) -> None:
    """register, add_converter and add_producer say what was found."""
    nexus = AsyncEventNexus()
    for add in (nexus.register, nexus.add_converter, nexus.add_producer):
        with pytest.raises(TypeError, match=type(thing).__name__ if add == nexus.register else "method"):
            add(thing)


@virtual_time
async def test_a_plain_source_is_started_and_closed() -> None:
    """A source that is neither pulled nor pushes has its life with the nexus, and no more."""
    story: list[str] = []

    class Resource(EventSource):
        async def start(self) -> None:
            story.append("start")

        def close(self) -> None:
            story.append("close")

    nexus = AsyncEventNexus()
    nexus.register(Resource())
    async with nexus:
        await asyncio.sleep(0)
    assert story == ["start", "close"]


# Closing.


@pytest.mark.parametrize("way", ["close", "async close", "aclose", "future", "nothing"])
def test_anything_that_can_be_closed_is_closed(way: str) -> None:
    """close_source knows every way to close, and does nothing where there is none."""
    closed: list[str] = []

    class Thing:
        pass

    async def later() -> None:
        await asyncio.sleep(0)
        closed.append(way)

    thing: Any = Thing()
    if way == "close":
        thing.close = lambda: closed.append(way)
    elif way in ("async close", "aclose"):
        setattr(thing, way.split()[-1], later)
    elif way == "future":
        thing.close = lambda: asyncio.ensure_future(later())

    @virtual_time
    async def go() -> None:
        await close_source(thing)

    go()
    assert closed == ([] if way == "nothing" else [way])


class Late(SimpleEventConverter):
    """A source that wants to know what became of its events before it closes."""

    closes_late = True

    def __init__(self) -> None:
        self.story: list[str] = []
        self.given = 0

    async def obtain_event(self) -> Event[Any]:
        await asyncio.sleep(0.1)
        self.given += 1
        return Event(self.given, "t", 0, None, on_settled=self.story.append)

    async def aclose(self) -> None:
        await asyncio.sleep(0.1)
        self.story.append("closed")


@pytest.mark.parametrize("use", ["stop", "remove"])
@virtual_time
async def test_a_source_may_close_when_all_is_settled(use: str) -> None:
    """At a stop it closes after its last event was handled; when it is removed, at once."""
    late = Late()
    nexus = AsyncEventNexus()
    nexus.add_handler("t", lambda event: asyncio.sleep(0.5))
    nexus.add_converter(late)
    nexus.start()
    await asyncio.sleep(0.35)
    if use == "remove":
        await nexus.remove_source(late)
        assert late.story == ["closed"]
    report = await nexus.stop()
    assert report.clean
    assert late.given == 3
    assert late.story == (["handled"] * 3 + ["closed"] if use == "stop" else ["closed"] + ["handled"] * 3)


@virtual_time
async def test_a_late_close_is_bounded() -> None:
    """A source that never ends its closing is cancelled, and the stop goes on."""

    class Stubborn(Late):
        async def aclose(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.story.append("gave up")

    source = Stubborn()
    nexus = AsyncEventNexus()
    nexus.add_converter(source)
    nexus.start()
    await asyncio.sleep(0.01)
    await nexus.stop(grace=2)
    assert source.story == ["gave up"]
