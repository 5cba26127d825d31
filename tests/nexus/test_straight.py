"""The straight way: a lone event past an empty queue, and nothing else past anything."""

import asyncio
from typing import Any

import pytest

from nexus import AsyncEventNexus, DropOldest, Event, EventConsumer
from nexus.errors import BadEvent, QueueFull
from nexus.testing import assert_ledger_balanced, virtual_time


class Prompt(EventConsumer):
    """Takes events at once, unless told otherwise."""

    lanewise = True

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.takes = True

    async def handle(self, event: Event[Any], queue: object) -> None:
        self.got.append(event.payload)

    def handle_nowait(self, event: Event[Any]) -> bool:
        if self.takes:
            if event.payload == "bad":
                raise ValueError("as told")
            self.got.append(event.payload)
        return self.takes


def event(payload: Any, type: str = "t", priority: int = 0) -> Event[Any]:
    return Event(1, type, priority, payload)


async def warm(nexus: AsyncEventNexus, handler: Prompt) -> None:
    """Let the first event of the lane pass: the lane and its pool are there then, and all is at rest."""
    await nexus.ingest(event("first"))
    await nexus.drained()
    await asyncio.sleep(0.001)
    handler.got.clear()


@virtual_time
async def test_a_lone_event_is_handled_before_ingest_returns() -> None:
    """Nothing waits, so nothing is waited for; all three ways in."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    async with nexus:
        await warm(nexus, handler)
        await nexus.ingest(event(1))
        assert handler.got == [1]
        await asyncio.sleep(0)
        nexus.ingest_nowait(event(2))
        assert handler.got == [1, 2]
        await asyncio.sleep(0)
        assert nexus.offer(event(3))
        assert handler.got == [1, 2, 3]
        assert nexus.stats().types["t"].handled == 4
        assert_ledger_balanced(nexus)


@virtual_time
async def test_who_gives_without_a_pause_lets_others_run() -> None:
    """One event a turn goes straight; the next waits in the queue, and who gives more waits for room."""
    nexus, handler = AsyncEventNexus(maxsize=5), Prompt()
    nexus.add_handler("t", handler)
    async with nexus:
        await warm(nexus, handler)
        for number in range(6):
            nexus.ingest_nowait(event(number))
        assert handler.got == [0]
        with pytest.raises(QueueFull):
            nexus.ingest_nowait(event(6))
        await nexus.drained()
        assert handler.got == [0, 1, 2, 3, 4, 5]
        assert_ledger_balanced(nexus)


@virtual_time
async def test_nothing_is_overtaken() -> None:
    """Behind what the handler has not taken yet, or what is queued, an event waits its turn."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    async with nexus:
        await warm(nexus, handler)
        handler.takes = False
        await nexus.ingest(event(1))
        handler.takes = True
        await nexus.ingest(event(2))
        assert handler.got == []
        await nexus.drained()
        assert handler.got == [1, 2]
        await nexus.ingest(event(3, type="nobody"))
        await nexus.ingest(event(4))
        assert handler.got == [1, 2]


@virtual_time
async def test_a_handler_of_the_nexus_goes_through_its_queue() -> None:
    """What it ingests comes after it; so it is never called within itself."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    seen: list[list[Any]] = []

    async def other(_: Event[Any]) -> None:
        await nexus.ingest(event(1))
        seen.append(list(handler.got))

    nexus.add_handler("other", other, concurrency=1)
    async with nexus:
        await warm(nexus, handler)
        await nexus.ingest(event(0, type="other"))
        await nexus.drained()
    assert seen == [[]]
    assert handler.got == [1]


@virtual_time
async def test_what_handling_gives_in_turn_waits_for_its_end() -> None:
    """A consumer that ingests while `ingest` is calling it is not called again before it is done."""
    nexus, handler = AsyncEventNexus(), Prompt()
    depth: list[int] = []

    class Chain(Prompt):
        def handle_nowait(self, event_: Event[Any]) -> bool:
            depth.append(len(depth))
            if event_.payload:
                nexus.ingest_nowait(event(event_.payload - 1))
                assert depth[-1] == len(depth) - 1
            return True

    handler = Chain()
    nexus.add_handler("t", handler)
    async with nexus:
        nexus.ingest_nowait(event(0))
        await nexus.drained()
        await asyncio.sleep(0.001)
        await nexus.ingest(event(5))
        await nexus.drained()
        assert len(depth) == 7
        assert_ledger_balanced(nexus)


@virtual_time
async def test_a_failure_is_told_as_any_other() -> None:
    """The event has failed, who gave it does not notice, and the next one is handled after that is told."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    told: list[Any] = []
    nexus.set_error_handler(lambda failed, exc, name: told.append((failed.payload, str(exc))))
    async with nexus:
        await warm(nexus, handler)
        await nexus.ingest(event("bad"))
        await nexus.ingest(event(1))
        await nexus.drained()
        assert told == [("bad", "as told")]
        assert handler.got == [1]
        assert nexus.stats().types["t"].failed == 1
        assert [letter.event.payload for letter in nexus.dead_letters] == ["bad"]
        assert_ledger_balanced(nexus)


@virtual_time
@pytest.mark.parametrize("reason", ["filter", "policy", "metadata", "late", "stopping"])
async def test_whatever_wants_a_closer_look_gets_it(reason: str) -> None:
    """Filters, policies, deadlines and a closed door hold for a lone event as well."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    if reason == "filter":
        nexus.add_filter(lambda _: False)
    if reason == "policy":
        nexus.set_policy("t", DropOldest())
    async with nexus:
        await warm(nexus, handler)
        deadline = {"metadata": 1e9, "late": -1.0}.get(reason)
        given = Event(1, "t", 0, 1) if deadline is None else Event(1, "t", 0, 1, deadline=deadline)
        if reason == "stopping":
            stopping = nexus.stop()
            with pytest.raises(Exception, match="stop"):
                await nexus.ingest(given)
            await stopping
            return
        await nexus.ingest(given)
        assert handler.got == []
        await nexus.drained()
        assert handler.got == ([] if reason == "late" else [1])
        assert_ledger_balanced(nexus)


@virtual_time
async def test_what_is_no_event_is_refused() -> None:
    """A priority that is no integer is not taken for the lane it equals."""
    nexus, handler = AsyncEventNexus(), Prompt()
    nexus.add_handler("t", handler)
    async with nexus:
        await warm(nexus, handler)
        for thing in (Event(1, "t", 0.0, 1), "no event", None):  # type: ignore[arg-type]
            with pytest.raises(BadEvent):
                await nexus.ingest(thing)  # type: ignore[arg-type]
        assert handler.got == []
