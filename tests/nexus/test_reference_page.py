"""Programs written against async-nexus's reference page, with their import changed and nothing else."""

import asyncio
import enum
import inspect
import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import pytest

import nexus as async_nexus
import nexus.boundaries as boundaries
import nexus.boundaries.zmq as async_nexus_zmq
from nexus import errors
from nexus.testing import virtual_time

NAMES: dict[ModuleType, dict[str, str]] = {
    async_nexus: {
        "AbstractNexus": "",
        "AbstractNexus.ingest": "event",
        "AsyncEventNexus": "multiple bitmode",
        "AsyncEventNexus.add_converter": "converter",
        "AsyncEventNexus.add_filter": "handler",
        "AsyncEventNexus.add_handler": "type handler",
        "AsyncEventNexus.add_producer": "producer",
        "AsyncEventNexus.cleanup": "",
        "AsyncEventNexus.ingest": "event",
        "AsyncEventNexus.loop_forever": "",
        "AsyncEventNexus.register": "item",
        "AsyncEventNexus.start": "",
        "AsyncEventNexus.stop": "",
        "AsyncEventPriorityQueue": "",
        "AsyncEventPriorityQueue.get_nowait": "",
        "AsyncEventPriorityQueue.put": "event",
        "Event": "id type priority payload",
        "EventConsumer.handle": "event queue",
        "EventConverter.close": "",
        "EventConverter.event_generator": "",
        "EventConverter.obtain_event": "",
        "EventDiscarder.handle": "event queue",
        "EventDispatcher": "",
        "EventFactory": "",
        "EventFactory.create_event": "payload *event_type *id *priority",
        "EventFactory.next_id": "",
        "EventFactory.random_id": "",
        "EventFanout": "",
        "EventFanout.deregister": "handler",
        "EventFanout.handle": "event queue",
        "EventFanout.register": "handler",
        "EventProducer": "event_factory",
        "EventProducer.distribute_event": "event",
        "EventProducer.register_nexus": "nexus",
        "EventProducer.start": "",
        "EventSource.close": "",
        "EventSource.start": "",
        "NamedEvent": "id payload *priority",
        "SimpleEventConverter.obtain_event": "",
        "Timer": "interval *event_type *type *count *event_factory",
        "Timer.create_event": "value",
        "Timer.start": "",
        "Timer.stop": "",
        "create_handler_coro": "handler event queue",
    },
    boundaries: {
        "AsyncEventBoundary": "",
        "AsyncEventBoundary.close": "",
        "AsyncEventBoundary.handle": "event queue",
        "AsyncEventBoundary.start": "",
        "AsyncEventBoundary.transfer_events": "",
    },
    async_nexus_zmq: {
        "ZmqEventConverter": "socket *event_type *event_factory",
        "ZmqEventConverter.convert_to_event": "s",
        "ZmqEventConverter.obtain_event": "",
        "ZmqEventReceiver": "socket",
        "ZmqEventReceiver.obtain_event": "",
        "ZmqEventSender": "socket",
        "ZmqEventSender.handle": "event queue",
        "send_event": "event socket",
    },
}

PARAMETERS = [(module, name, words) for module, names in NAMES.items() for name, words in names.items()]


@pytest.mark.parametrize(
    ("module", "name", "words"), PARAMETERS, ids=lambda each: getattr(each, "__name__", each)
)
def test_names_take_the_arguments_of_the_page(module: ModuleType, name: str, words: str) -> None:
    """Every class, function and method is there and takes the page's arguments, by place or by name."""
    thing: Any = module
    for part in name.split("."):
        thing = getattr(thing, part)
    parameters = inspect.signature(thing).parameters
    places = [each for each in words.split() if not each.startswith("*")]
    positional = [
        each.name
        for each in parameters.values()
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"
    ]
    assert positional[: len(places)] == places
    for word in words.split():
        assert word.strip("*") in parameters
    own = {word.strip("*") for word in words.split()}
    for each in parameters.values():
        if each.name not in {*own, "self"}:
            assert each.default is not each.empty or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL), (
                each
            )


BASES = [
    ("AsyncEventNexus", ("EventDispatcher", "AbstractNexus", "EventFactory")),
    ("EventConverter", ("SimpleEventConverter", "EventSource")),
    ("EventProducer", ("EventSource",)),
    ("Timer", ("EventProducer",)),
    ("EventFanout", ("EventConsumer",)),
    ("EventDiscarder", ("EventConsumer",)),
    ("NamedEvent", ("Event",)),
]


@pytest.mark.parametrize(("name", "bases"), BASES)
def test_classes_have_the_bases_of_the_page(name: str, bases: tuple[str, ...]) -> None:
    """isinstance answers as the page says."""
    for base in bases:
        assert issubclass(getattr(async_nexus, name), getattr(async_nexus, base))
    assert issubclass(boundaries.AsyncEventBoundary, async_nexus.EventProducer)
    assert issubclass(boundaries.AsyncEventBoundary, async_nexus.EventConsumer)


ERRORS = {
    "BadCall": Exception,
    "InvalidLoopState": errors.BadCall,
    "LoopAlreadyStarted": errors.BadCall,
    "LoopStopped": errors.BadCall,
    "MisconfiguredEventConsumer": errors.BadCall,
    "MisconfiguredEventProducer": errors.BadCall,
    "MultipleStart": Exception,
    "NoMoreEvents": RuntimeError,
    "UnhandledEvent": Exception,
}


@pytest.mark.parametrize(("name", "base"), ERRORS.items())
def test_errors_have_the_bases_of_the_page(name: str, base: type[Exception]) -> None:
    """Every error is there and is caught by what the page lets it be caught by."""
    assert issubclass(getattr(errors, name), base)


def test_constants_have_the_values_of_the_page() -> None:
    """The numbers a program may have written down are the same."""
    timer, factory = async_nexus.Timer, async_nexus.EventFactory
    assert (timer.COUNT_UP, timer.COUNT_DOWN, timer.ONGOING, timer.ONE_SHOT) == (1, 2, 3, 4)
    assert (factory.AUTO, factory.RANDOM) == (-1, -2)
    states = {state.name: state.value for state in async_nexus.AsyncEventNexus.States}
    assert states == {"READY": 1, "STARTING": 2, "LOOPING": 3, "STOPPED": 4}
    assert isinstance(async_nexus.AsyncEventNexus.QUEUE_MAXLEN, int)


# Programs.


class Colour(enum.IntEnum):
    RED = 10
    BLUE = 11


class OverTemperature(async_nexus.NamedEvent):  # type: ignore[type-arg]
    pass


class Lines(async_nexus.SimpleEventConverter):
    """A custom converter."""

    def __init__(self, lines: list[str], factory: async_nexus.EventFactory) -> None:
        self.lines = lines
        self.factory = factory
        self.started = self.closed = False

    async def start(self) -> None:
        await super().start()
        self.started = True

    def close(self) -> None:
        self.closed = True

    async def obtain_event(self) -> async_nexus.Event[str]:
        await asyncio.sleep(0.1)
        if not self.lines:
            raise errors.NoMoreEvents
        return self.factory.create_event(self.lines.pop(0), event_type="line")


@virtual_time
async def test_program_with_a_converter_of_its_own() -> None:
    """obtain_event is awaited again and again; one that raises NoMoreEvents is removed."""
    seen = []

    async def handler(event: Any, queue: Any) -> None:
        seen.append((event.id, event.type, event.payload))

    nexus = async_nexus.AsyncEventNexus()
    lines = Lines(["a", "b"], nexus)
    nexus.add_converter(lines)
    nexus.add_handler("line", handler)
    task = nexus.start()
    await asyncio.sleep(1)
    assert seen == [(1, "line", "a"), (2, "line", "b")]
    assert lines.started
    assert lines not in nexus.converters
    assert nexus.state == nexus.States.LOOPING
    nexus.stop()
    await task
    assert nexus.state == nexus.States.STOPPED
    nexus.cleanup()
    assert lines.closed


@virtual_time
async def test_program_with_a_generator() -> None:
    """An EventConverter's generator makes the stream; super().__init__() is called."""

    class Numbers(async_nexus.EventConverter):
        def __init__(self, upto: int) -> None:
            super().__init__()
            self.upto = upto

        async def event_generator(self) -> AsyncGenerator[async_nexus.Event[int], None]:
            for number in range(self.upto):
                yield async_nexus.Event(number, Colour.RED, 0, number * number)

    seen: list[int] = []
    with async_nexus.AsyncEventNexus() as nexus:
        nexus.register(Numbers(4))
        nexus.add_handler(Colour.RED, lambda event, queue: seen.append(event.payload))
        task = nexus.start()
        await asyncio.sleep(1)
    await task
    assert seen == [0, 1, 4, 9]


async def test_obtain_event_of_a_converter_by_hand() -> None:
    """obtain_event works without a nexus, and says when it is over; so does anext."""

    class Two(async_nexus.EventConverter):
        async def event_generator(self) -> AsyncGenerator[async_nexus.Event[int], None]:
            yield async_nexus.Event(1, "t", 0, 1)

    two = Two()
    assert (await two.obtain_event()).payload == 1
    with pytest.raises(errors.NoMoreEvents):
        await two.obtain_event()
    two.close()
    assert (await async_nexus.anext(Two().event_generator())).id == 1


@virtual_time
async def test_program_with_a_producer() -> None:
    """A producer kicks itself off in start and gives each event to every nexus it is registered with."""

    class Burst(async_nexus.EventProducer):
        async def start(self) -> None:
            await super().start()
            assert self.event_factory is not None
            await self.distribute_event(self.event_factory.create_event("x", event_type=7))

    seen: list[str] = []
    first, second = async_nexus.AsyncEventNexus(), async_nexus.AsyncEventNexus()
    for name, nexus in (("first", first), ("second", second)):
        nexus.add_handler(7, lambda event, queue, name=name: seen.append(name))
    producer = Burst(first)
    second.start()
    producer.register_nexus(second)
    first.add_producer(producer)
    first.start()
    await asyncio.sleep(1)
    assert sorted(seen) == ["first", "second"]
    await asyncio.gather(first.stop(), second.stop())


async def test_producer_without_a_nexus() -> None:
    """A producer that is registered nowhere does not start."""
    with pytest.raises(errors.MisconfiguredEventProducer):
        await async_nexus.EventProducer().start()
    nexus = async_nexus.AsyncEventNexus()
    producer = async_nexus.EventProducer()
    nexus.add_producer(producer)
    assert nexus in producer.nexus_set
    assert producer in nexus.producers


@virtual_time
async def test_program_with_the_four_timers() -> None:
    """Each timer counts as its type says; all are registered as producers."""
    timer = async_nexus.Timer
    seen: dict[str, list[int]] = {"up": [], "down": [], "on": [], "once": []}
    nexus = async_nexus.AsyncEventNexus()
    nexus.add_handler(-1, lambda event, queue: seen[event.type].append(event.payload))
    nexus.register(timer(1, event_type="up", type=timer.COUNT_UP, count=3))
    nexus.register(timer(1, event_type="down", type=timer.COUNT_DOWN, count=3, event_factory=nexus))
    nexus.register(timer(2, event_type="on", type=timer.ONGOING))
    nexus.register(timer(1, event_type="once"))
    nexus.start()
    await asyncio.sleep(6.5)
    await nexus.stop()
    assert seen == {"up": [1, 2, 3], "down": [2, 1, 0], "on": [1, 2, 3], "once": [1]}


@virtual_time
async def test_timer_started_and_stopped_by_hand() -> None:
    """start returns something to await, a second one raises, stop tells if there was anything to stop."""
    nexus = async_nexus.AsyncEventNexus()
    seen: list[Any] = []
    nexus.add_handler("t", lambda event, queue: seen.append(event.payload))
    nexus.start()
    timer = async_nexus.Timer(1, event_type="t", event_factory=nexus)
    assert (timer.starting_value, timer.ending_value, timer.direction_value) == (0, 1, 1)
    assert timer.task is None
    assert timer.stop()
    timer.register_nexus(nexus)
    task = await timer.start()
    assert timer.task is task
    with pytest.raises(errors.MultipleStart):
        await timer.start()
    await task
    assert not timer.stop()
    await timer.start()
    assert timer.stop()
    await asyncio.sleep(5)
    assert seen == [1]
    await nexus.stop()


@virtual_time
async def test_program_with_fanout_discarder_filter_and_fallback() -> None:
    """Filters come first, then the type's handler, then the one for -1; a fanout serves all of its own."""
    seen: list[str] = []

    class Consumer(async_nexus.EventConsumer):
        async def handle(self, event: Any, queue: Any) -> None:
            seen.append(f"consumer {event.payload}")

    async def first(event: Any, queue: Any) -> None:
        seen.append(f"first {event.payload}")

    async def drop_secrets(event: Any, queue: Any) -> bool:
        return event.payload == "secret"

    fanout = async_nexus.EventFanout()
    consumer = Consumer()
    fanout.register(consumer)
    fanout.register(first)
    nexus = async_nexus.AsyncEventNexus()
    nexus.add_filter(drop_secrets)
    nexus.add_handler("a", fanout)
    nexus.add_handler("noise", async_nexus.EventDiscarder())
    nexus.add_handler(-1, lambda event, queue: seen.append(f"other {event.type}"))
    assert set(nexus.handlers) == {"a", "noise", -1}
    assert nexus.filters
    nexus.start()
    for type_, payload in (("a", "secret"), ("a", "1"), ("noise", "2"), ("b", "3")):
        await nexus.ingest(nexus.create_event(payload, event_type=type_))
    await nexus.drained()
    fanout.deregister(first)
    await nexus.ingest(nexus.create_event("4", event_type="a"))
    await nexus.stop()
    assert seen == ["consumer 1", "first 1", "other b", "consumer 4"]


async def test_fanout_without_handlers() -> None:
    """An empty fanout is misconfigured."""
    with pytest.raises(errors.MisconfiguredEventConsumer):
        await async_nexus.EventFanout().handle(async_nexus.Event(1, "t", 0, ""), None)  # type: ignore[arg-type]


@virtual_time
async def test_program_with_secondary_events() -> None:
    """A handler puts events on its queue; all are handled one at a time, the more urgent first."""
    seen: list[int] = []
    busy = 0

    async def handler(event: Any, queue: Any) -> None:
        nonlocal busy
        busy += 1
        assert busy == 1
        await asyncio.sleep(0.01)
        seen.append(event.priority)
        if event.type == "first":
            for priority in (9, 0, 5):
                await queue.put(async_nexus.Event(2, "second", priority, ""))
        busy -= 1

    nexus = async_nexus.AsyncEventNexus()
    nexus.add_handler("first", handler)
    nexus.add_handler("second", handler)
    nexus.start()
    await asyncio.gather(*(nexus.ingest(async_nexus.Event(1, "first", 0, "")) for _ in range(2)))
    await nexus.stop()
    assert seen == [0, 0, 0, 0, 5, 5, 9, 9]


def test_events_are_made_in_every_way_of_the_page() -> None:
    """By place, by name, by a factory with AUTO, RANDOM or an id, and as a NamedEvent."""
    event = async_nexus.Event(1, "t", 0, "p")
    assert event == async_nexus.Event(id=1, type="t", priority=0, payload="p")
    named = OverTemperature(5, "hot", priority=-1)
    assert (named.id, named.type, named.priority, named.payload) == (5, "OverTemperature", -1, "hot")
    factory = async_nexus.EventFactory()
    assert factory.current_event_id == 1
    assert [factory.create_event("", event_type="t").id for _ in range(2)] == [1, 2]
    assert factory.next_id() == 3
    assert 1 <= factory.create_event("", event_type=1, id=factory.RANDOM).id <= 1000
    assert 1 <= factory.random_id() <= 1000
    made = factory.create_event("hot", event_type=OverTemperature, id=9, priority=4)
    assert isinstance(made, OverTemperature)
    assert (made.id, made.priority) == (9, 4)
    with pytest.raises(TypeError):
        factory.create_event("", event_type=dict)  # type: ignore[type-var]


@virtual_time
async def test_handlers_by_int_enum_and_by_class() -> None:
    """An IntEnum member or a NamedEvent class stands for the type."""
    seen: list[Any] = []
    nexus = async_nexus.AsyncEventNexus()
    nexus.add_handler(Colour.BLUE, lambda event, queue: seen.append(Colour(event.type).name))
    nexus.add_handler(OverTemperature, lambda event, queue: seen.append(event.payload))
    nexus.start()
    await nexus.ingest(nexus.create_event("", event_type=Colour.BLUE))
    await nexus.ingest(nexus.create_event("hot", event_type=OverTemperature))
    await nexus.stop()
    assert seen == ["BLUE", "hot"]


def test_second_handler_of_a_type_is_refused_unless_multiple() -> None:
    """Without `multiple` a type has one handler."""
    nexus = async_nexus.AsyncEventNexus()
    nexus.add_handler("t", async_nexus.EventDiscarder())
    with pytest.raises(LookupError, match="already present"):
        nexus.add_handler("t", async_nexus.EventDiscarder())


@virtual_time
async def test_multiple_and_bitmode_are_what_their_names_say() -> None:
    """With multiple=True each handler of a type runs; with bitmode=True handlers take masks."""
    seen: list[str] = []
    nexus = async_nexus.AsyncEventNexus(True, True)
    nexus.add_handler(0b011, lambda event, queue: seen.append(f"low {event.type}"))
    nexus.add_handler(0b110, lambda event, queue: seen.append(f"high {event.type}"))
    nexus.start()
    for type_ in (1, 2, 4):
        await nexus.ingest(async_nexus.Event(1, type_, 0, ""))
    await nexus.stop()
    assert seen == ["low 1", "low 2", "high 2", "high 4"]


@virtual_time
async def test_life_errors_of_the_page() -> None:
    """What makes no sense in a state raises the page's errors."""
    nexus = async_nexus.AsyncEventNexus()
    with pytest.raises(errors.BadCall):
        await nexus.ingest(async_nexus.Event(1, "t", 0, ""))
    loop = asyncio.create_task(nexus.loop_forever())
    await asyncio.sleep(0.1)
    with pytest.raises(errors.LoopAlreadyStarted):
        await nexus.loop_forever()
    with pytest.raises(errors.InvalidLoopState):
        nexus.start()
    nexus.stop()
    await loop
    with pytest.raises(errors.LoopStopped):
        await nexus.loop_forever()
    nexus.cleanup()


@virtual_time
async def test_loop_forever_ends_by_cancellation() -> None:
    """A task that runs loop_forever may be cancelled; then the nexus is stopped."""
    nexus = async_nexus.AsyncEventNexus()
    task = asyncio.create_task(nexus.loop_forever())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert nexus.state == nexus.States.STOPPED


async def test_create_handler_coro_runs_any_handler() -> None:
    """It makes something to await of a function, a method or a consumer, and calls nothing before."""
    seen: list[str] = []

    async def function(event: Any, queue: Any) -> str:
        seen.append("function")
        return "result"

    class Consumer(async_nexus.EventConsumer):
        async def handle(self, event: Any, queue: Any) -> None:
            seen.append("consumer")

    event = async_nexus.Event(1, "t", 0, "")
    coros = [async_nexus.create_handler_coro(each, event, None) for each in (function, Consumer())]  # type: ignore[arg-type]
    assert seen == []
    assert await coros[0] == "result"
    await coros[1]
    assert seen == ["function", "consumer"]


async def test_priority_queue_by_hand() -> None:
    """put and get_nowait are the page's; the more urgent event comes first."""
    queue = async_nexus.AsyncEventPriorityQueue()
    for priority in (5, -1, 0):
        await queue.put(async_nexus.Event(1, "t", priority, ""))
    assert [queue.get_nowait().priority for _ in range(3)] == [-1, 0, 5]
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


@virtual_time
async def test_program_with_a_boundary() -> None:
    """A boundary is a handler in one nexus and a producer in another."""
    seen: list[str] = []
    boundary = boundaries.AsyncEventBoundary()
    one, two = async_nexus.AsyncEventNexus(), async_nexus.AsyncEventNexus()
    one.add_handler("t", boundary)
    two.add_producer(boundary)
    two.add_handler("t", lambda event, queue: seen.append(event.payload))
    two.start()
    one.start()
    await asyncio.sleep(0.1)
    await one.ingest(one.create_event("over", event_type="t"))
    await asyncio.sleep(1)
    await one.stop()
    await two.stop()
    boundary.close()
    assert seen == ["over"]


def test_page_names_are_all_tested() -> None:
    """This page and the modules agree on what there is; nothing is imported from elsewhere."""
    for module, names in NAMES.items():
        for name in names:
            assert hasattr(module, name.partition(".")[0])
        assert module.__name__ in sys.modules
