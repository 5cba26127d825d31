"""The outbound boundary: events become data, urgent ones overtake, and handled means what it says."""

import asyncio
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.links import LinkStateEvent, announce_links
from nexus.boundaries.outbound import OutboundBoundary
from nexus.errors import BadCall, ConfigError
from nexus.testing import virtual_time

TOPIC = MemoryConfig(topic="outbound", maxsize=5, flush_timeout=1.0)


class Topical(MemorySender[Any]):
    """A memory sender that takes topics, and remembers them."""

    def __init__(self) -> None:
        super().__init__(TOPIC)
        self.topics: list[str] = []

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        if "/" not in options["topic"]:
            raise ConfigError(f"topic: found {options['topic']!r}")
        self.topics.append(options["topic"])
        return options


async def receive_all(receiver: MemoryReceiver[Any], count: int) -> list[Any]:
    return [(await receiver.receive())[0] for _ in range(count)]


@virtual_time
async def test_payloads_are_sent_in_order() -> None:
    """Each payload goes, those of one priority in their order, and the nexus starts and stops the sender."""
    sender, receiver = MemorySender[Any](TOPIC), MemoryReceiver[Any](TOPIC)
    boundary = OutboundBoundary(sender)
    nexus = AsyncEventNexus()
    nexus.add_handler("t", boundary)
    nexus.register(boundary)
    async with receiver, nexus:
        await nexus.ingest_many([Event(number, "t", 0, {"n": number}) for number in range(100)])
        assert await receive_all(receiver, 100) == [{"n": number} for number in range(100)]
    assert sender.link.state == "stopped"
    assert nexus.stats().types["t"].handled == 100


@virtual_time
async def test_urgent_events_overtake_in_the_outbox() -> None:
    """With the outbox full of bulk and the peer away, an urgent event is the first that goes."""
    sender, receiver = MemorySender[Any](TOPIC), MemoryReceiver[Any](TOPIC)
    nexus = AsyncEventNexus()
    nexus.add_handler("t", OutboundBoundary(sender))
    async with nexus, sender:
        for number in range(50):
            await nexus.ingest(Event(number, "t", 0, number))
        await asyncio.sleep(1)
        await nexus.ingest(Event(99, "t", -1, "urgent"))
        await asyncio.sleep(1)
        async with receiver:
            assert await receive_all(receiver, 51) == ["urgent", *range(50)]


@virtual_time
async def test_confirmed_means_that_the_transport_has_it() -> None:
    """Without `confirm` an event is handled when the sender has it, with it when the peer has."""
    handled: list[tuple[bool, int]] = []
    for confirm in (False, True):
        sender, receiver = MemorySender[Any](TOPIC), MemoryReceiver[Any](TOPIC)
        nexus = AsyncEventNexus()
        nexus.add_handler("t", OutboundBoundary(sender, confirm=confirm))
        async with nexus, sender:
            await nexus.ingest(Event(1, "t", 0, None))
            await asyncio.sleep(1)
            handled.append((confirm, nexus.stats().types["t"].handled))
            async with receiver:
                await receive_all(receiver, 1)
                await asyncio.sleep(1)
                assert nexus.stats().types["t"].handled == 1
    assert handled == [(False, 1), (True, 0)]


@virtual_time
async def test_confirmed_events_are_on_their_way_together() -> None:
    """With `confirm` many events of one priority wait for their confirmation at once, in their order."""
    config = MemoryConfig(topic="many", maxsize=100)
    sender, receiver = MemorySender[Any](config), MemoryReceiver[Any](config)
    nexus = AsyncEventNexus()
    nexus.add_handler("t", OutboundBoundary(sender, confirm=True, concurrency=50))
    async with nexus, sender:
        await nexus.ingest_many([Event(number, "t", 0, number) for number in range(200)])
        await asyncio.sleep(1)
        assert sender.counts.waiting == 50
        async with receiver:
            assert await receive_all(receiver, 200) == list(range(200))


@pytest.mark.parametrize(
    "topic", ["a/t", lambda event: f"a/{event.type}", {"t": "a/t"}], ids=["text", "function", "table"]
)
@virtual_time
async def test_topics_by_text_function_and_table(topic: Any) -> None:
    """The topic may be one for all, a function of the event, or a table by type."""
    sender = Topical()
    boundary = OutboundBoundary(sender, topic=topic, payload=lambda event: [event.id])
    async with MemoryReceiver[Any](TOPIC) as receiver, sender:
        await boundary.handle(Event(7, "t", 0, None))
        assert await receive_all(receiver, 1) == [[7]]
    assert sender.topics == ["a/t"]


@virtual_time
async def test_convert_says_both_and_may_leave_out() -> None:
    """`convert` makes data and options, or None for what is not to go."""
    sender = Topical()
    boundary = OutboundBoundary(sender, convert=lambda e: ([e.id], {"topic": "x/y"}) if e.id else None)
    nexus = AsyncEventNexus()
    nexus.add_handler("t", boundary)
    async with MemoryReceiver[Any](TOPIC) as receiver, sender, nexus:
        await nexus.ingest_many([Event(number, "t", 0, None) for number in (0, 1, 0, 2)])
        assert await receive_all(receiver, 2) == [[1], [2]]
    assert boundary.left_out == 2
    with pytest.raises(BadCall, match="leave topic and payload out"):
        OutboundBoundary(sender, convert=lambda event: None, topic="a")


@virtual_time
async def test_what_cannot_be_sent_fails_alone() -> None:
    """A payload the packer refuses, and a type without a topic, fail their own event; the next one goes."""
    sender = Topical()
    nexus = AsyncEventNexus()
    boundary = OutboundBoundary(sender, topic={"t": "a/t", "bad": "none"})
    for type in ("t", "bad", "unknown"):
        nexus.add_handler(type, boundary)
    async with MemoryReceiver[Any](TOPIC) as receiver, sender, nexus:
        await nexus.ingest(Event(1, "t", 0, {1, 2}))
        await nexus.ingest(Event(2, "bad", 0, 2))
        await nexus.ingest(Event(3, "unknown", 0, 3))
        await nexus.ingest(Event(4, "t", 0, 4))
        assert await receive_all(receiver, 1) == [4]
        stats = nexus.stats()
    assert (stats.failed, stats.handled) == (3, 1)


@virtual_time
async def test_links_are_announced_to_a_nexus() -> None:
    """Where a handler takes them, each change of each link is an event, and a nexus without one gets none."""
    sender, receiver = MemorySender[Any](TOPIC), MemoryReceiver[Any](TOPIC)
    outbound, inbound = OutboundBoundary(sender), InboundBoundary(receiver, "t")
    seen: list[tuple[str, str]] = []
    nexus, deaf = AsyncEventNexus(), AsyncEventNexus()
    nexus.add_handler(LinkStateEvent, lambda event: seen.append((event.payload.name, event.payload.state)))
    nexus.register(outbound)
    announce_links(nexus, outbound, inbound)
    announce_links(deaf, sender)
    async with deaf, nexus:
        await asyncio.sleep(1)
        nexus.register(inbound)
        await asyncio.sleep(1)
    assert [state for _, state in seen[:3]] == ["connecting", "down", "connecting"]
    assert ("mem://outbound", "up") in seen[3:]
    assert deaf.stats().ingested == 0
