"""The inbound boundary: data becomes events by rules, the rest is put aside, acceptance follows handling."""

import asyncio
from typing import Any

import attrs
import pytest

from nexus import AsyncEventNexus, Event, Fail, NamedEvent
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.boundaries.inbound import InboundBoundary, Quarantined, Rule
from nexus.testing import Recorder, virtual_time

TOPIC = MemoryConfig(topic="inbound")


class Acknowledging(MemoryReceiver[Any]):
    """A receiver whose transport wants to know what was accepted."""

    def __init__(self) -> None:
        super().__init__(TOPIC)
        self.accepted: list[Any] = []

    async def give(self, payload: bytes) -> None:
        await self._inbox.put(payload, {"topic": "t", "payload": payload})

    def accept(self, meta: dict[str, Any]) -> None:
        if meta["payload"] not in self.accepted:
            self.accepted.append(meta["payload"])


class Alarm(NamedEvent[Any]):
    """Something is too hot."""


async def through(rules: Any, *items: Any, **options: Any) -> tuple[list[Event[Any]], InboundBoundary]:
    """Send data through an inbound boundary; return what was handled, in order, and the boundary."""
    seen: list[Event[Any]] = []
    boundary = InboundBoundary(MemoryReceiver[Any](TOPIC), rules, **options)
    nexus = AsyncEventNexus()
    nexus.add_handler(-1, seen.append)
    nexus.register(boundary)
    async with MemorySender[Any](TOPIC, lambda data: data) as sender, nexus:
        for item in items:
            await sender.deliver(item)
        await asyncio.sleep(1)
    return seen, boundary


@virtual_time
async def test_one_type_for_all() -> None:
    """With an event type alone, each item is the payload of an event of that type, in order."""
    seen, _ = await through("reading", b'{"n": 1}', b"[2]", b"3")
    assert [(event.type, event.payload) for event in seen] == [
        ("reading", {"n": 1}),
        ("reading", [2]),
        ("reading", 3),
    ]


@virtual_time
async def test_the_first_rule_that_takes_it_makes_the_event() -> None:
    """Rules say type, priority, payload and lifetime by topic and data; the rest is put aside."""
    rules = [
        Rule(type=Alarm, where=lambda data, meta: data["t"] > 80, priority=-10, payload="t", ttl=5),
        Rule(type=lambda data, meta: meta["topic"], topic="in+", payload=lambda data, meta: "never"),
        Rule(type="reading", topic="inbound", where=lambda data, meta: data["t"] > 0),
    ]
    seen, boundary = await through(rules, b'{"t": 90}', b'{"t": 20}', b'{"t": -1}')
    assert [(event.type, event.priority, event.payload) for event in seen] == [
        ("Alarm", -10, 90),
        ("reading", 0, {"t": 20}),
    ]
    assert isinstance(seen[0], Alarm)
    assert seen[0].deadline is not None
    assert boundary.quarantined == {"unmatched": 1}


@virtual_time
async def test_a_function_may_leave_data_out() -> None:
    """A function makes any event, or none, which is counted and is no mistake."""
    seen, boundary = await through(
        lambda data, meta: Event(data, "odd", 0, None) if data % 2 else None, b"1", b"2", b"3"
    )
    assert [event.id for event in seen] == [1, 3]
    assert (boundary.left_out, dict(boundary.quarantined)) == (1, {})


@virtual_time
async def test_bad_items_cost_themselves_only() -> None:
    """Bytes that are no data, and data that is no event, go to the quarantine handler with the cause."""
    aside: list[Quarantined] = []
    seen, boundary = await through(
        Rule(type="t", payload="value.deep"),
        *(b"{", b'{"value": 1}', b'{"value": {"deep": 2}}', b"\xff"),
        quarantine=aside.append,
    )
    assert [event.payload for event in seen] == [2]
    assert [(item.reason, item.data) for item in aside] == [
        ("unpack", b"{"),
        ("convert", {"value": 1}),
        ("unpack", b"\xff"),
    ]
    assert boundary.quarantined == {"unpack": 2, "convert": 1}
    assert "no field 'deep'" in str(aside[1].error)


@virtual_time
async def test_urgent_items_of_a_batch_come_first() -> None:
    """What arrives together is handed over by priority, each priority in its order."""
    receiver = MemoryReceiver[Any](TOPIC)
    boundary = InboundBoundary(receiver, Rule(type="t", priority=lambda data, meta: data % 3))
    async with receiver:
        for number in range(9):
            await receiver.give(str(number).encode())
        events = await boundary.obtain_events()
    assert [event.payload for event in events] == [0, 3, 6, 1, 4, 7, 2, 5, 8]


@virtual_time
async def test_an_item_is_accepted_when_its_event_is_settled() -> None:
    """Not before its handler has ended; also when that fails, when no event comes of it, or it is refused."""
    receiver = Acknowledging()
    done: list[Any] = []

    async def handle(event: Event[Any]) -> None:
        assert str(event.payload).encode() not in receiver.accepted
        await asyncio.sleep(1)
        done.append(event.payload)
        if event.payload == 2:
            raise ValueError(event.payload)

    nexus = AsyncEventNexus(maxsize=1)
    nexus.add_handler("t", handle)
    nexus.add_handler("f", handle)
    nexus.set_policy("f", Fail())
    nexus.register(
        InboundBoundary(
            receiver,
            [
                Rule(type="t", where=lambda data, meta: data < 4),
                Rule(type="f", where=lambda data, meta: data < 9),
            ],
        )
    )
    async with nexus:
        await asyncio.sleep(0)
        for payload in (b"1", b"2", b"nonsense", b"9", b"5", b"6", b"7", b"8"):
            await receiver.give(payload)
        await asyncio.sleep(20)
        refused = nexus.stats().types["f"].refused
    assert refused > 0
    assert sorted(receiver.accepted) == [b"1", b"2", b"5", b"6", b"7", b"8", b"9", b"nonsense"]


@virtual_time
async def test_what_remains_at_a_stop_is_not_accepted() -> None:
    """A stop accepts what is handled in its grace, and leaves the rest to come again."""
    receiver = Acknowledging()
    nexus = AsyncEventNexus(grace=1.5)
    nexus.add_handler("t", lambda event: asyncio.sleep(1))
    nexus.register(InboundBoundary(receiver, "t"))
    nexus.start()
    await asyncio.sleep(0.01)
    for payload in (b"1", b"2", b"3", b"4"):
        await receiver.give(payload)
    await asyncio.sleep(0.5)
    report = await nexus.stop()
    assert receiver.accepted == [b"1", b"2"]
    assert [event.payload for event in report.remaining] == [3, 4]
    assert receiver.link.state == "stopped"


@virtual_time
async def test_typed_payloads_keep_their_class() -> None:
    """A rule's payload function may make objects of the user's own class."""

    @attrs.frozen
    class Reading:
        volts: float

    seen, _ = await through(Rule(type="r", payload=lambda data, meta: Reading(**data)), b'{"volts": 1.5}')
    assert seen[0].payload == Reading(1.5)


@virtual_time
async def test_the_end_of_data_is_the_end_of_the_source() -> None:
    """When the receiver has nothing further the converter ends, and the nexus runs on."""
    receiver = MemoryReceiver[Any](TOPIC)
    nexus, recorder = AsyncEventNexus(), Recorder()
    nexus.add_handler(-1, recorder)
    boundary = InboundBoundary(receiver, "t", name="door")
    nexus.register(boundary)
    async with nexus:
        await asyncio.sleep(0.01)
        await receiver.stop()
        await asyncio.sleep(0.01)
        assert nexus.stats().sources["door"].state == "ended"
        await nexus.ingest(Event(1, "t", 0, None))
        await nexus.drained()
    assert len(recorder) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": 1.5}, "type is an event type or a function"),
        ({"type": "t", "priority": "high"}, "priority is an int or a function"),
        ({"type": "t", "ttl": 0}, "ttl must be more than 0"),
    ],
)
def test_wrong_rules_are_told(options: dict[str, Any], message: str) -> None:
    """A rule says what is wrong with it when it is made."""
    with pytest.raises((TypeError, ValueError), match=message):
        Rule(**options)


@pytest.mark.parametrize(
    ("filter", "topic", "matches"),
    [
        ("a/b", "a/b", True), ("a/+", "a/b", True), ("+/b", "a/b", True), ("a/#", "a/b/c", True),
        ("a/#", "a", True), ("#", "a/b", True), ("a/+", "a", False), ("a/+", "a/b/c", False),
        ("+", "/a", False), ("/+", "/a", True), ("#", "$SYS/x", False), ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True), ("a", "A", False),
    ],
)  # fmt: skip
def test_topics_match_as_mqtt_says(filter: str, topic: str, matches: bool) -> None:
    """``+`` is one level, ``#`` the rest; neither begins with a ``$``. See MQTT 5.0, section 4.7."""
    rule = Rule(type="t", topic=filter)
    assert rule.takes({}, {"topic": topic}) is matches
