"""Mistakes of a new user are said at once, with what was found and what is allowed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event, EventConverter
from nexus.errors import BadCall
from nexus.testing import virtual_time


def test_a_name_is_no_option() -> None:
    """A name given as the first argument is told from `multiple`."""
    with pytest.raises(TypeError, match="multiple is True or False, not 'oven'; a name is given as name="):
        AsyncEventNexus("oven")  # type: ignore[arg-type]


def test_a_decorator_without_a_type_is_an_error() -> None:
    """`@nexus.on` without its brackets registers nothing, and says so at once."""

    def handler(event: Any) -> None:
        pass

    with pytest.raises(TypeError, match="an event type is"):
        AsyncEventNexus().on(handler)  # type: ignore[arg-type]


async def yields_later(event: Any) -> Any:
    """Look like a handler, and be a generator."""
    yield event


def yields(event: Any) -> Any:
    """Look like a plain handler, and be a generator."""
    yield event


@pytest.mark.parametrize("handler", [yields, yields_later])
def test_a_generator_is_no_handler(handler: Any) -> None:
    """Calling a generator function runs none of its body, so it is refused where it is registered."""
    with pytest.raises(TypeError, match="yield"):
        AsyncEventNexus().add_handler("a", handler)
    with pytest.raises(TypeError, match="yield"):
        AsyncEventNexus().add_filter(handler)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", True),
        ("concurrency", 0),
        ("timeout", "1"),
        ("timeout", 0),
        ("retries", "3"),
        ("retry_delay", -1),
    ],
)
def test_an_option_out_of_range_names_itself(option: str, value: object) -> None:
    """An option that makes no sense is refused by its name, with what was found."""
    with pytest.raises(ValueError, match=f"{option} must be .*, not {value!r}"):
        AsyncEventNexus().add_handler("x", print, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["set_error_handler", "set_dead_letter_handler"])
def test_a_listener_is_a_function(name: str) -> None:
    """A listener that cannot be called is refused when it is set."""
    setter: Callable[[object], None] = getattr(AsyncEventNexus(), name)
    with pytest.raises(TypeError, match="is a function or None, not 3"):
        setter(3)


def test_a_start_outside_a_loop_says_what_to_do() -> None:
    """A start without an event loop names the two ways out."""
    nexus = AsyncEventNexus()
    with pytest.raises(BadCall, match="inside a running event loop, or run"):
        nexus.start()


@virtual_time
async def test_a_generator_of_the_wrong_kind_is_named() -> None:
    """A converter whose generator is a plain coroutine says so in its source state."""

    class Wrong(EventConverter):
        async def event_generator(self) -> object:  # type: ignore[override]
            return Event(1, "x", 0, None)

    nexus = AsyncEventNexus()
    nexus.add_converter(Wrong())
    async with nexus:
        await asyncio.sleep(1)
        assert "must be written as `async def` with `yield`" in str(nexus.stats().sources["Wrong"].error)


@virtual_time
async def test_a_converter_may_forget_its_parents_init() -> None:
    """A generator converter with an __init__ of its own works though it does not call its parent's."""

    class Own(EventConverter):
        def __init__(self) -> None:
            self.number = 7

        async def event_generator(self):  # type: ignore[no-untyped-def]
            yield Event(self.number, "x", 0, None)

    nexus = AsyncEventNexus()
    nexus.add_handler("x", lambda event: None)
    nexus.add_converter(Own())
    async with nexus:
        await asyncio.sleep(1)
    assert nexus.report is not None
    assert nexus.report.stats.handled == 1


@virtual_time
async def test_second_tries_keep_their_order() -> None:
    """Events that are tried again after equal pauses come in the order of their first tries."""
    seen: list[int] = []
    nexus = AsyncEventNexus()

    def fail_once(event: Event[object]) -> None:
        seen.append(event.id)
        if seen.count(event.id) == 1:
            raise RuntimeError

    nexus.add_handler("x", fail_once, retries=1, retry_delay=1.0)
    async with nexus:
        await nexus.ingest_many(Event(n, "x", 0, None) for n in range(4))
        await nexus.drained()
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3]


@virtual_time
async def test_room_is_given_while_a_handler_waits() -> None:
    """A giver gets the room in a lane as soon as it is there, not when the handler has finished."""
    nexus = AsyncEventNexus(maxsize=1)
    accepted: list[float] = []

    async def slow(event: Event[object]) -> None:
        await asyncio.sleep(3)

    nexus.add_handler("x", slow)
    async with nexus:
        for n in range(3):
            await nexus.ingest(Event(n, "x", 0, None))
            accepted.append(asyncio.get_running_loop().time())
    assert accepted[:2] == [0.0, 0.0]


@virtual_time
async def test_a_handler_that_ingests_does_not_wait_for_itself() -> None:
    """A handler may ingest into its own full nexus: its events are secondary events."""
    nexus = AsyncEventNexus(maxsize=2)

    async def burst(event: Event[object]) -> None:
        for n in range(50):
            await nexus.ingest(Event(n, "echo", 0, None))
        await nexus.ingest_many(Event(n, "echo", 0, None) for n in range(50))

    nexus.add_handler("burst", burst)
    nexus.add_handler("echo", lambda event: nexus.ingest_nowait(Event(0, "last", 0, None)), concurrency=2)
    nexus.add_handler("last", lambda event: None)
    async with nexus:
        await nexus.ingest(Event(1, "burst", 0, None))
        await nexus.drained()
        assert nexus.stats().handled == 201


@virtual_time
async def test_a_handler_that_awaits_the_drain_is_told() -> None:
    """A handler that would wait for itself gets an error instead."""
    nexus = AsyncEventNexus()
    nexus.add_handler("x", lambda event: nexus.drained())
    async with nexus:
        await nexus.ingest(Event(1, "x", 0, None))
        await nexus.drained()
    assert "waits for itself" in str(nexus.dead_letters[0].exception)


@virtual_time
async def test_a_source_that_never_starts_does_not_keep_the_door_shut() -> None:
    """A start that hangs delays an `async with` for ten seconds and no longer."""

    class Hanging(EventConverter):
        async def start(self) -> None:
            await asyncio.Event().wait()

        async def event_generator(self):  # type: ignore[no-untyped-def]
            yield Event(1, "x", 0, None)

    nexus = AsyncEventNexus()
    nexus.add_converter(Hanging())
    async with nexus:
        assert asyncio.get_running_loop().time() == 10.0
        assert nexus.stats().sources["Hanging"].state == "starting"
