"""Dispatch: who gets an event, in which order, and who may register for what."""

import asyncio
import functools
from typing import Any

import pytest

from nexus import (
    AsyncEventNexus,
    Event,
    EventConsumer,
    EventDiscarder,
    EventDispatcher,
    EventFanout,
    EventType,
    NamedEvent,
    SecondaryQueue,
)
from nexus.errors import MisconfiguredEventConsumer, UnhandledEvent
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


class Alarm(NamedEvent[float]):
    """Something is too hot."""


def event(number: int, type_: Any = "a", priority: int = 0) -> Event[Any]:
    return Event(number, type_, priority, None)


class Said(list[str]):
    """Words in the order they were said, by handlers and filters made here."""

    def handler(self, word: str) -> Any:
        async def handle(event: Event[Any]) -> None:
            self.append(f"{word}{event.id}")

        return handle

    def filter(self, word: str, *consumed: int) -> Any:
        def see(event: Event[Any]) -> bool:
            self.append(f"{word}{event.id}")
            return event.id in consumed

        return see


@virtual_time
async def test_filters_see_every_event_first_in_their_order() -> None:
    """The first filter that says True consumes: no further filter and no handler gets the event."""
    said = Said()
    nexus = AsyncEventNexus()
    for name, consumed in (("f", 1), ("g", 2)):
        nexus.add_filter(said.filter(name, consumed))
    nexus.add_handler("a", said.handler("h"))
    async with nexus:
        await nexus.ingest_many(event(n, "nobody" if n == 2 else "a") for n in (1, 2, 3))
        await nexus.drained()
    assert said == ["f1", "f2", "g2", "f3", "g3", "h3"]
    assert_ledger_balanced(nexus, handled=3, unhandled=0)


@pytest.mark.parametrize("consume", [True, False])
@virtual_time
async def test_filters_may_be_async_or_take_the_queue(consume: bool) -> None:
    """A filter is any function of (event) or (event, queue), and its queue takes secondary events."""
    seen = Recorder()

    async def see(event: Event[Any], queue: SecondaryQueue) -> bool:
        await asyncio.sleep(0.1)
        if event.type == "a":
            await queue.put(Event(event.id, "b", 0, None))
        return consume and event.type == "a"

    nexus = AsyncEventNexus()
    nexus.add_filter(see)
    nexus.add_handler("a", seen)
    nexus.add_handler("b", seen)
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.drained()
    assert [e.type for e in seen.events] == (["b"] if consume else ["a", "b"])


@virtual_time
async def test_the_fallback_gets_what_nobody_takes() -> None:
    """Type -1 stands for every type without a handler; without it they are counted as unhandled."""
    seen, rest = Recorder(), Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("a", seen)
    async with nexus:
        await nexus.ingest(event(1, "b"))
        await nexus.drained()
        nexus.add_handler(-1, rest)
        await nexus.ingest_many(event(n, type_) for n, type_ in ((2, "b"), (3, "a"), (4, 7)))
        await nexus.drained()
        nexus.remove_handler(-1)
        await nexus.ingest(event(5, "b"))
        await nexus.drained()
    assert [e.id for e in rest.events] == [2, 4]
    assert_ledger_balanced(nexus, handled=3, unhandled=2)


@virtual_time
async def test_a_handler_of_the_type_star_is_no_fallback() -> None:
    """A type may have any name, also that of the shared account, when the ledger is full of other types."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler("*", seen)
    async with nexus:
        for number in range(1500):
            await nexus.ingest(event(number, f"type-{number}"))
        await nexus.ingest(event(0, "*"))
        await nexus.drained()
    assert_ledger_balanced(nexus, handled=1, unhandled=1500)


@virtual_time
async def test_several_handlers_run_in_the_order_of_registration() -> None:
    """With multiple=True each event goes through all handlers of its type before the next event."""
    said = Said()
    nexus = AsyncEventNexus(multiple=True)
    for word in "xyz":
        nexus.add_handler("a", said.handler(word))
    async with nexus:
        await nexus.ingest_many(map(event, (1, 2)))
        await nexus.drained()
        nexus.remove_handler("a", nexus.handlers["a"][1])
        await nexus.ingest(event(3))
        await nexus.drained()
    assert said == ["x1", "y1", "z1", "x2", "y2", "z2", "x3", "z3"]
    assert_ledger_balanced(nexus, handled=3)


def test_without_multiple_a_second_handler_is_refused() -> None:
    """One type, one handler; the error says what to do."""
    nexus = AsyncEventNexus()
    nexus.add_handler(Alarm, EventDiscarder())
    with pytest.raises(LookupError, match=r"'Alarm' already present.*multiple=True"):
        nexus.add_handler("Alarm", EventDiscarder())
    nexus.remove_handler("Alarm")
    nexus.add_handler("Alarm", EventDiscarder())
    with pytest.raises(LookupError, match="no handler"):
        nexus.remove_handler("Alarm", Recorder())


@virtual_time
async def test_bitmode_handlers_take_a_mask_of_types() -> None:
    """In bitmode a type is a power of two, and a handler has those that its mask has."""
    said = Said()
    nexus = AsyncEventNexus(bitmode=True)
    nexus.add_handler(1 | 4, said.handler("x"))
    nexus.add_handler(2, said.handler("y"))
    nexus.add_handler(-1, said.handler("rest"))
    async with nexus:
        await nexus.ingest_many(event(n, 1 << n) for n in range(4))
        await nexus.drained()
        nexus.remove_handler(1 | 4)
        await nexus.ingest(event(4, 1))
        await nexus.drained()
    assert said == ["x0", "y1", "x2", "rest3", "rest4"]


def test_bitmode_masks_overlap_only_with_multiple() -> None:
    """Two masks that share a bit would both claim it."""
    nexus = AsyncEventNexus(bitmode=True)
    nexus.add_handler(3, EventDiscarder())
    with pytest.raises(LookupError, match="type 3 already present"):
        nexus.add_handler(6, EventDiscarder())
    nexus.add_handler(4, EventDiscarder())
    for wrong in (0, -2, "a"):
        with pytest.raises(ValueError, match="mask of at least one bit"):
            nexus.add_handler(wrong, EventDiscarder())
    both = AsyncEventNexus(multiple=True, bitmode=True)
    both.add_handler(3, EventDiscarder())
    both.add_handler(6, EventDiscarder())


@pytest.mark.parametrize(
    ("register", "remove"), [(Alarm, "Alarm"), ("Alarm", Alarm), (EventType("Alarm"), Alarm)]
)
@virtual_time
async def test_a_class_and_its_name_are_the_same_type(register: Any, remove: Any) -> None:
    """Handlers of a NamedEvent are registered and removed by the class or by its name."""
    seen = Recorder()
    nexus = AsyncEventNexus()
    nexus.add_handler(register, seen)
    async with nexus:
        await nexus.ingest(Alarm(1, 99.5))
        await nexus.ingest(event(2, "Alarm"))
        await nexus.drained()
        nexus.remove_handler(remove)
        await nexus.ingest(Alarm(3, 1.0))
        await nexus.drained()
    assert [e.id for e in seen.events] == [1, 2]


@pytest.mark.parametrize("kind", ["plain", "async"])
@virtual_time
async def test_a_registration_holds_from_the_next_event_on(kind: str) -> None:
    """A handler that adds a filter or gives way to another is obeyed at the very next event."""
    said = Said()
    nexus = AsyncEventNexus()

    def change(event: Event[Any]) -> None:
        said.append(f"h{event.id}")
        if event.id == 2:
            nexus.remove_handler("a")
            nexus.add_handler("a", said.handler("new"))
        if event.id == 0:
            nexus.add_filter(said.filter("f", 1))

    async def change_too(event: Event[Any]) -> None:
        change(event)

    nexus.add_handler("a", change if kind == "plain" else change_too)
    async with nexus:
        await nexus.ingest_many(map(event, range(5)))
        await nexus.drained()
        nexus.remove_filter(next(iter(nexus.filters)))  # type: ignore[arg-type]
        await nexus.ingest(event(5))
        await nexus.drained()
    assert said == ["h0", "f1", "f2", "h2", "f3", "new3", "f4", "new4", "new5"]
    assert_ledger_balanced(nexus, handled=6)


@virtual_time
async def test_plain_handlers_give_way_at_once() -> None:
    """A plain handler that removes itself has had its last event, though more stand in line."""
    seen: list[int] = []
    nexus = AsyncEventNexus()

    def once(event: Event[Any]) -> None:
        seen.append(event.id)
        if len(seen) == 20:
            nexus.remove_handler("a")

    nexus.add_handler("a", once)
    async with nexus:
        await nexus.ingest_many(map(event, range(200)))
        await nexus.drained()
    assert seen == list(range(20))
    assert_ledger_balanced(nexus, handled=20, unhandled=180)


@virtual_time
async def test_a_handler_that_removes_itself_and_fails_disturbs_no_other() -> None:
    """Of several handlers the failing one is named, and each of the others gets the event once."""
    said = Said()
    nexus = AsyncEventNexus(multiple=True)

    async def leave(event: Event[Any]) -> None:
        nexus.remove_handler("a", leave)
        raise ValueError("gone")

    for handler in (leave, said.handler("x"), said.handler("y")):
        nexus.add_handler("a", handler)
    async with nexus:
        await nexus.ingest_many(map(event, (1, 2)))
        await nexus.drained()
    assert said == ["x1", "y1", "x2", "y2"]
    assert nexus.dead_letters[0].handler.endswith("leave")
    assert_ledger_balanced(nexus, handled=1, failed=1)


@virtual_time
async def test_one_of_several_fails_and_the_others_still_run() -> None:
    """An event that one of its handlers could not handle has failed, once."""
    said = Said()

    def fail(event: Event[Any]) -> None:
        raise KeyError(event.id)

    nexus = AsyncEventNexus(multiple=True)
    for handler in (said.handler("x"), fail, said.handler("y")):
        nexus.add_handler("a", handler)
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.drained()
    assert said == ["x1", "y1"]
    assert [type(letter.exception) for letter in nexus.dead_letters] == [KeyError]
    assert_ledger_balanced(nexus, failed=1, handled=0)


@virtual_time
async def test_a_key_error_of_a_handler_stays_a_key_error() -> None:
    """It is not taken for a missing handler, neither by the nexus nor by `dispatch`."""

    async def fail(event: Event[Any]) -> None:
        raise KeyError("mine")

    nexus = AsyncEventNexus()
    nexus.add_handler("a", fail)
    with pytest.raises(KeyError, match="mine"):
        await nexus.dispatch(event(1), SecondaryQueue(nexus.queue))
    with pytest.raises(UnhandledEvent, match="ID=1 and type='b'"):
        await nexus.dispatch(event(1, "b"), SecondaryQueue(nexus.queue))
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.drained()
    assert_ledger_balanced(nexus, failed=1, unhandled=0)


class Consumer(EventConsumer):
    """A handler of every shape."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        self.seen.append(event.id)

    async def one(self, event: Event[Any]) -> None:
        self.seen.append(event.id)

    def two(self, event: Event[Any], queue: SecondaryQueue) -> None:
        assert isinstance(queue, SecondaryQueue)
        self.seen.append(event.id)

    def __call__(self, event: Event[Any], *rest: Any) -> Any:
        return self.one(event)


async def with_word(word: str, event: Event[Any], *, seen: list[Any]) -> None:
    assert word == "word"
    seen.append(event.id)


HANDLERS = {
    "consumer": lambda seen: type("Plain", (), {"handle": Consumer(seen).handle})(),
    "bound method": lambda seen: Consumer(seen).one,
    "bound method of two": lambda seen: Consumer(seen).two,
    "callable object": Consumer,
    "lambda": lambda seen: lambda event: seen.append(event.id),
    "lambda of two": lambda seen: lambda event, queue: seen.append(event.id),
    "lambda that returns an awaitable": lambda seen: lambda event: Consumer(seen).one(event),
    "default argument": lambda seen: lambda event, seen=seen: seen.append(event.id),
    "partial": lambda seen: functools.partial(with_word, "word", seen=seen),
    "fanout": lambda seen: fanout_of(Consumer(seen)),
}


def fanout_of(handler: Any) -> EventFanout:
    fanout = EventFanout()
    fanout.register(handler)
    return fanout


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"timeout": 1.0}, {"retries": 1}], ids=str)
@pytest.mark.parametrize("kind", HANDLERS)
@virtual_time
async def test_handlers_come_in_every_shape(kind: str, options: dict[str, Any]) -> None:
    """Whatever can be called with an event, or an event and the queue, is a handler, with all options."""
    seen: list[int] = []
    nexus = AsyncEventNexus()
    nexus.add_handler("a", HANDLERS[kind](seen), **options)
    async with nexus:
        await nexus.ingest_many(map(event, range(3)))
        await nexus.drained()
    assert seen == [0, 1, 2]
    assert_ledger_balanced(nexus, handled=3)


@pytest.mark.parametrize(
    "wrong", [None, 3, "handler", object(), lambda: None, lambda a, b, c: None, lambda *, k: 1]
)
def test_what_is_no_handler_is_refused(wrong: Any) -> None:
    """The error says what was found and what a handler or filter is."""
    nexus = AsyncEventNexus()
    with pytest.raises(TypeError, match=r"\(event\) or \(event, queue\)"):
        nexus.add_handler("a", wrong)
    with pytest.raises(TypeError, match=r"filter.*\(event\) or \(event, queue\)"):
        nexus.add_filter(wrong)
    assert nexus.handlers == {}
    assert nexus.filters == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"retry_delay": -0.1}, "retry_delay must be 0 seconds or more"),
        ({"retry_delay": float("nan")}, "retry_delay must be 0 seconds or more"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    """The error names the option, what it may be, and what was found."""
    with pytest.raises(ValueError, match=f"{message}.*not"):
        AsyncEventNexus().add_handler("a", EventDiscarder(), **options)


@pytest.mark.parametrize("wrong", [None, 2.5, object(), int, NamedEvent, True])
def test_what_is_no_type_is_refused(wrong: Any) -> None:
    """A type is an int, a str or a subclass of NamedEvent."""
    with pytest.raises(TypeError, match="an event type is an int, a str or a subclass of NamedEvent"):
        EventDispatcher().add_handler(wrong, EventDiscarder())


@virtual_time
async def test_on_registers_the_function_and_returns_it() -> None:
    """The decorator takes the options of add_handler and leaves the function as it is."""
    nexus = AsyncEventNexus()
    seen: list[int] = []

    @nexus.on(Alarm, retries=1)
    async def on_alarm(event: Event[float]) -> None:
        seen.append(event.id)
        if len(seen) == 1:
            raise ValueError("once")

    assert asyncio.iscoroutinefunction(on_alarm)
    async with nexus:
        await nexus.ingest(Alarm(4, 1.0))
        await nexus.drained()
    assert seen == [4, 4]


async def test_an_empty_fanout_says_so() -> None:
    """A fanout without handlers is a mistake that is told."""
    with pytest.raises(MisconfiguredEventConsumer, match="register one"):
        await EventFanout().handle(event(1), SecondaryQueue(AsyncEventNexus().queue))
