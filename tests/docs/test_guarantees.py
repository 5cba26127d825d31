"""The table at the end of docs/guarantees.md: a test for each line."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio
from spill_memory import SpillMemory

import nexus
from nexus import AsyncEventNexus, Event, errors
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.boundaries import AsyncEventBoundary
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.outbound import OutboundBoundary
from nexus.boundaries.zmq import ZmqEventReceiver, ZmqEventSender
from nexus.testing import MemoryWire, Recorder, assert_ledger_balanced, assert_order, virtual_time

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"


def made(*payloads: Any, type: str = "a", priority: int = 0) -> list[Event[Any]]:
    """Make events with these payloads, and their places as ids."""
    return [Event(number, type, priority, payload) for number, payload in enumerate(payloads)]


async def slow(event: Event[Any]) -> None:
    """Take as many seconds as the payload says."""
    await asyncio.sleep(event.payload)


def spilling(store: nexus.SpillStore) -> tuple[AsyncEventNexus, Recorder]:
    """Make a nexus with a lane of two that spills, and a handler that takes a second."""
    domain, recorder = AsyncEventNexus(maxsize=2), Recorder()

    async def handle(event: Event[Any], queue: nexus.SecondaryQueue) -> None:
        await asyncio.sleep(1)
        await recorder.handle(event, queue)

    domain.add_handler("a", handle)
    domain.set_policy("a", nexus.Spill(store))
    return domain, recorder


def failing(event: Event[Any]) -> None:
    """Fail on every event."""
    raise ValueError(event.payload)


def test_the_table_names_these_tests() -> None:
    """Every test named on the page is here, and every test here is named there."""
    named = re.findall(r"\| `(test_\w+)` \|", PAGE.read_text(encoding="utf-8"))
    here = [name for name in globals() if name.startswith("test_") and "table" not in name]
    assert sorted(named) == sorted(here)


@virtual_time
async def test_the_most_urgent_is_next() -> None:
    """An urgent event waits for the handler that runs now and for no other."""
    domain, recorder = AsyncEventNexus(), Recorder()
    domain.add_handler("a", slow)
    domain.add_handler("urgent", recorder)
    async with domain:
        await domain.ingest_many(made(*[1.0] * 4))
        await asyncio.sleep(0.5)
        await domain.ingest(Event(9, "urgent", -1, None))
    assert recorder.times == [1.0]


@virtual_time
async def test_a_full_lane_holds_the_giver_back() -> None:
    """Ingest waits while its lane is full, and nothing is lost."""
    domain = AsyncEventNexus(maxsize=2)
    domain.add_handler("a", slow)
    async with domain:
        await domain.ingest_many(made(*[1.0] * 5))
        assert asyncio.get_running_loop().time() >= 2.0
    assert_ledger_balanced(domain, ingested=5, handled=5)


@virtual_time
async def test_a_refused_event_is_not_in_the_sum() -> None:
    """Who gets QueueFull has not given the event."""
    domain = AsyncEventNexus(maxsize=1)
    domain.add_handler("a", slow)
    domain.set_policy("b", nexus.Fail())
    async with domain:
        domain.ingest_nowait(Event(1, "a", 0, 0.0))
        with pytest.raises(errors.QueueFull):
            domain.ingest_nowait(Event(2, "a", 0, 0.0))
        with pytest.raises(errors.QueueFull):
            await domain.ingest(Event(3, "b", 0, 0.0))
    assert_ledger_balanced(domain, ingested=1, handled=1, refused=2)


@virtual_time
async def test_what_a_policy_drops_is_counted_by_reason() -> None:
    """Each policy drops as it says, and the ledger has the reason."""
    domain = AsyncEventNexus(maxsize=2)
    recorders = {type_: Recorder() for type_ in "abc"}
    for type_, policy in zip("abc", (nexus.DropOldest, nexus.DropNewest, nexus.LatestByKey), strict=True):
        domain.set_policy(type_, policy())
        domain.add_handler(type_, recorders[type_])
    async with domain:
        for priority, type_ in enumerate("abc"):
            await domain.ingest_many(made(1, 2, 3, type=type_, priority=priority))
    assert [recorder.payloads for recorder in recorders.values()] == [[2, 3], [1, 2], [3]]
    drops = {type_: counts.drops for type_, counts in domain.stats().types.items()}
    assert drops == {"a": {"drop_oldest": 1}, "b": {"drop_newest": 1}, "c": {"replaced": 2}}
    assert_ledger_balanced(domain, ingested=9, handled=5, dropped=4)


@virtual_time
async def test_a_full_lane_spills_and_loses_nothing() -> None:
    """Nobody waits, and what was on the disk is handled in its order."""
    domain, recorder = spilling(SpillMemory())
    async with domain:
        await domain.ingest_many(made(*range(100)))
        assert asyncio.get_running_loop().time() == 0
        assert domain.stats().spilled == {0: 98}
        await domain.drained()
    assert recorder.payloads == list(range(100))
    assert_ledger_balanced(domain, ingested=100, handled=100)


@virtual_time
async def test_what_is_on_the_disk_delays_nothing_urgent() -> None:
    """An urgent event waits for the handler that runs now and for no other."""
    domain, recorder = spilling(SpillMemory())
    async with domain:
        await domain.ingest_many(made(*range(100)))
        await asyncio.sleep(10.5)
        await domain.ingest_many(made("urgent", priority=-1))
        await domain.drained()
    assert recorder.payloads[11] == "urgent"


@virtual_time
async def test_a_full_disk_holds_the_giver_back() -> None:
    """Where the disk takes no more, or takes this event not at all, the policy is to block."""
    domain, recorder = spilling(SpillMemory(most=5))
    async with domain:
        await domain.ingest_many(made(*range(7)))
        with pytest.raises(errors.QueueFull):
            domain.ingest_nowait(made("no")[0])
        await domain.ingest_many(made(*range(7, 20)))
        assert asyncio.get_running_loop().time() > 10
        await domain.drained()
    assert recorder.payloads == list(range(20))


@virtual_time
async def test_a_full_lane_keeps_no_urgent_event_out() -> None:
    """Each priority has a bound of its own."""
    domain, recorder = AsyncEventNexus(maxsize=1), Recorder()
    domain.add_handler("a", recorder)
    async with domain:
        domain.ingest_nowait(Event(1, "a", 0, None))
        domain.ingest_nowait(Event(2, "a", -1, None))
    assert_order(recorder)
    assert len(recorder) == 2


@virtual_time
async def test_a_cancelled_ingest_gave_nothing() -> None:
    """Cancelled while it waits for room, an event was not given."""
    domain = AsyncEventNexus(maxsize=1)
    domain.add_handler("a", slow)
    async with domain:
        domain.ingest_nowait(Event(1, "a", 0, 3.0))
        await asyncio.sleep(1)
        domain.ingest_nowait(Event(2, "a", 0, 1.0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await domain.ingest(Event(3, "a", 0, 1.0))
    assert_ledger_balanced(domain, ingested=2, handled=2)


@virtual_time
async def test_a_failure_is_counted_and_the_nexus_goes_on() -> None:
    """What a handler raises ends its event and nothing else."""
    domain, recorder = AsyncEventNexus(), Recorder()
    domain.add_handler("a", failing)
    domain.add_handler("b", recorder)
    async with domain:
        await domain.ingest(Event(1, "a", 0, "x"))
        await domain.ingest(Event(2, "b", 0, "y"))
    assert [letter.event.payload for letter in domain.dead_letters] == ["x"]
    assert_ledger_balanced(domain, failed=1, handled=1)


@virtual_time
async def test_a_retried_event_is_seen_again() -> None:
    """At least once: a retried handler sees its event twice."""
    domain, seen = AsyncEventNexus(), []

    def handle(event: Event[Any]) -> None:
        seen.append(event.payload)
        if len(seen) == 1:
            raise ConnectionError("not yet")

    domain.add_handler("a", handle, retries=1)
    async with domain:
        await domain.ingest_many(made("x"))
    assert seen == ["x", "x"]
    assert_ledger_balanced(domain, handled=1, failed=0)


@virtual_time
async def test_a_timeout_is_a_failure() -> None:
    """A try that takes too long is cancelled and has failed."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow, timeout=1.0)
    async with domain:
        await domain.ingest_many(made(60.0, 0.5))
        await domain.drained()
        assert asyncio.get_running_loop().time() == 1.5
    assert isinstance(domain.dead_letters[0].exception, errors.HandlerTimeout)
    assert_ledger_balanced(domain, failed=1, handled=1)


@virtual_time
async def test_an_event_of_many_handlers_counts_once() -> None:
    """Where one of several handlers fails, the others get the event, and it counts once."""
    domain, recorder = AsyncEventNexus(multiple=True), Recorder()
    domain.add_handler("a", failing)
    domain.add_handler("a", recorder)
    async with domain:
        await domain.ingest_many(made(1))
    assert recorder.payloads == [1]
    assert_ledger_balanced(domain, ingested=1, failed=1, handled=0)


@virtual_time
async def test_nobody_takes_it() -> None:
    """An event without a handler is counted."""
    async with AsyncEventNexus() as domain:
        await domain.ingest_many(made(1))
    assert_ledger_balanced(domain, unhandled=1)


@virtual_time
async def test_a_late_event_expires() -> None:
    """An event whose deadline passes in the queue is not handled."""
    domain, recorder = AsyncEventNexus(), Recorder()
    domain.add_handler("a", slow)
    domain.add_handler("b", recorder)
    async with domain:
        await domain.ingest(Event(1, "a", 0, 2.0))
        await domain.ingest(Event(2, "b", 0, None, deadline=1.0))
    assert len(recorder) == 0
    assert_ledger_balanced(domain, expired=1, handled=1)


@virtual_time
async def test_a_late_event_expires_on_the_disk() -> None:
    """A deadline goes on on the disk."""
    domain, recorder = spilling(SpillMemory())
    async with domain:
        await domain.ingest_many(made(*range(10)))
        await domain.ingest(Event(10, "a", 0, 10, deadline=5.0))
        await domain.drained()
    assert recorder.payloads == list(range(10))
    assert_ledger_balanced(domain, handled=10, expired=1)


@virtual_time
async def test_a_deadline_does_not_stop_a_handler() -> None:
    """A deadline is looked at before the handler, not during it."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow)
    async with domain:
        await domain.ingest(Event(1, "a", 0, 2.0, deadline=1.0))
    assert_ledger_balanced(domain, expired=0, handled=1)


@virtual_time
async def test_secondary_events_never_wait() -> None:
    """A handler puts events into a full lane, up to a bound of its own."""
    domain, recorder = AsyncEventNexus(maxsize=1, max_secondary=4), Recorder()

    def spread(event: Event[Any], queue: nexus.SecondaryQueue) -> None:
        for each in made(*range(event.payload), type="b"):
            queue.put_nowait(each)

    domain.add_handler("a", spread)
    domain.add_handler("b", recorder)
    async with domain:
        await domain.ingest_many(made(5, 6))
    assert recorder.payloads == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert_ledger_balanced(domain, handled=11, failed=1, refused=1)


async def test_a_watchdog_tells_of_a_blocked_loop() -> None:
    """What comes after a handler that blocks is handled when it returns, and the watchdog has told of it."""
    domain, recorder, told = AsyncEventNexus(), Recorder(), threading.Event()
    domain.register(nexus.Watchdog(0.05, on_stall=lambda stall: told.set()))
    domain.add_handler("a", lambda event: told.wait(10))
    domain.add_handler("b", recorder)
    async with domain:
        await domain.ingest_many([Event(1, "a", 0, None), Event(2, "b", 0, None)])
        await domain.drained()
    assert told.is_set()
    assert len(recorder.events) == 1


@virtual_time
async def test_a_failed_source_is_started_again() -> None:
    """A source that fails goes on after a restart, and what it gave before is handled."""
    domain, recorder = AsyncEventNexus(), Recorder()

    class Shaky(nexus.EventConverter):
        starts = 0

        async def event_generator(self) -> Any:
            self.starts += 1
            yield Event(self.starts, "a", 0, self.starts)
            if self.starts == 1:
                raise OSError("gone")

    domain.add_handler("a", recorder)
    domain.add_converter(Shaky())
    async with domain:
        assert [event.payload for event in await recorder.wait_for(2)] == [1, 2]
    assert domain.stats().sources["Shaky"].failures == 1


@virtual_time
async def test_events_of_a_removed_source_stay() -> None:
    """Removing a source takes none of its events back."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow)
    timer = nexus.Timer(1.0, event_type="a", type=nexus.Timer.ONGOING)
    domain.add_producer(timer)
    async with domain:
        await asyncio.sleep(2.5)
        await domain.remove_source(timer)
        await asyncio.sleep(10)
    assert_ledger_balanced(domain, ingested=2, handled=2)


@virtual_time
async def test_a_stop_in_time_handles_everything() -> None:
    """A stop with enough grace leaves nothing."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow)
    domain.start()
    await domain.ingest_many(made(1.0, 1.0))
    report = await domain.stop(grace=3.0)
    assert (report.clean, report.handled_during_stop, report.remaining) == (True, 2, ())


@virtual_time
async def test_a_stop_cut_short_reports_the_rest() -> None:
    """What the grace period does not suffice for is reported, the event of the cancelled handler first."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow)
    domain.start()
    await domain.ingest_many(made(1.0, 2.0, 3.0))
    report = await domain.stop(grace=1.5)
    assert [event.payload for event in report.remaining] == [2.0, 3.0]
    assert_ledger_balanced(report.stats, handled=1, queued=2)


@virtual_time
async def test_a_stop_leaves_the_disk_as_it_is() -> None:
    """What is on the disk at a stop stays there, and comes first at the next start."""
    store = SpillMemory()
    domain, before = spilling(store)
    async with domain:
        await domain.ingest_many(made(*range(20)))
        await asyncio.sleep(2.5)
        report = await domain.stop()
    assert (report.spilled, report.remaining, report.stats.queued) == (
        20 - len(before.events),
        (),
        report.spilled,
    )
    domain, after = spilling(store)
    async with domain:
        await domain.ingest_many(made("new"))
        await domain.drained()
    assert [*before.payloads, *after.payloads] == [*range(20), "new"]


@virtual_time
async def test_after_the_stop_the_door_is_closed() -> None:
    """A stopped nexus takes nothing and says so."""
    async with AsyncEventNexus() as domain:
        pass
    with pytest.raises(errors.LoopStopped):
        await domain.ingest(Event(1, "a", 0, None))
    assert_ledger_balanced(domain, ingested=0, refused=0)


@virtual_time
async def test_a_cancelled_nexus_reports_the_rest() -> None:
    """A cancelled nexus stops at once; its events are in the report."""
    domain = AsyncEventNexus()
    domain.add_handler("a", slow)
    task = domain.start()
    await domain.ingest_many(made(1.0, 2.0))
    await asyncio.sleep(0.5)
    task.cancel()
    report = await domain.stop()
    assert [event.payload for event in report.remaining] == [1.0, 2.0]
    assert task.cancelled() or await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_stop_on_error_reports_the_rest() -> None:
    """With on_error="stop" the first failure ends the nexus; its task raises it."""
    domain = AsyncEventNexus(on_error="stop")
    domain.add_handler("a", failing)
    task = domain.start()
    await domain.ingest_many(made("x", "y"))
    with pytest.raises(ValueError, match="x"):
        await task
    report = await domain.stop()
    assert [event.payload for event in report.remaining] == ["y"]
    assert_ledger_balanced(domain, failed=1, queued=1)


def joined(**far: Any) -> tuple[AsyncEventNexus, AsyncEventNexus, AsyncEventBoundary]:
    """Give two domains and the boundary that events of type "a" cross from the first to the second."""
    near, beyond, boundary = AsyncEventNexus(), AsyncEventNexus(**far), AsyncEventBoundary()
    near.add_handler("a", boundary)
    beyond.add_producer(boundary)
    return near, beyond, boundary


@virtual_time
async def test_a_crossing_event_counts_on_both_sides() -> None:
    """An event is handled here once it is accepted there, and accounted for there on its own."""
    near, beyond, _ = joined()
    beyond.add_handler("a", failing)
    async with beyond, near:
        await near.ingest_many(made(1))
    assert_ledger_balanced(near, ingested=1, handled=1)
    assert_ledger_balanced(beyond, ingested=1, failed=1)


@virtual_time
async def test_a_full_domain_holds_back_its_own_priority() -> None:
    """An event that finds no room beyond waits, and an urgent one passes it."""
    near, beyond, _ = joined(maxsize=1)
    recorder = Recorder()
    beyond.add_filter(recorder.handle)
    beyond.add_handler("a", slow)
    async with beyond, near:
        await near.ingest_many(made(*[1.0] * 4))
        await asyncio.sleep(0.5)
        await near.ingest(Event(9, "a", -1, 0.0))
    assert [event.id for event in recorder.events][:2] == [0, 9]
    assert_ledger_balanced(beyond, handled=5)


@virtual_time
async def test_an_event_that_cannot_cross_fails_here() -> None:
    """Where the domain beyond has stopped, the event is given up on this side and counted."""
    near, beyond, _ = joined()
    async with near:
        async with beyond:
            pass
        await near.ingest_many(made(1))
    assert isinstance(near.dead_letters[0].exception, errors.BadCall)
    assert_ledger_balanced(near, failed=1)


@virtual_time
async def test_metadata_stays_behind() -> None:
    """The wire form of async-nexus has the four fields of an event and no others."""
    near, far = MemoryWire.pair()
    plant, control, recorder = AsyncEventNexus(), AsyncEventNexus(), Recorder()
    plant.add_handler("a", ZmqEventSender(near))
    control.add_converter(ZmqEventReceiver(far))
    control.add_handler("a", recorder)
    async with control, plant:
        await plant.ingest(Event(1, "a", 0, "x", deadline=9.0, headers={"unit": "K"}))
        (event,) = await recorder.wait_for(1)
    assert event == Event(1, "a", 0, "x")
    assert (event.deadline, event.headers) == (None, {})


@pytest.fixture
def pair() -> Iterator[tuple[zmq.asyncio.Socket, zmq.asyncio.Socket]]:
    """Give a PUSH and a PULL socket that are joined."""
    context = zmq.asyncio.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
    yield push, pull
    context.destroy(linger=0)


async def test_a_malformed_message_costs_itself_alone(pair: Any) -> None:
    """What is no event is put aside and counted, and the next one is taken."""
    push, pull = pair
    domain, recorder, receiver = AsyncEventNexus(), Recorder(), ZmqEventReceiver(pull)
    domain.add_handler("a", recorder)
    domain.add_converter(receiver)
    async with domain:
        await push.send(b'{"id": 1}')
        await push.send(b'{"id": 1, "type": "a", "priority": 0, "payload": "x"}')
        await recorder.wait_for(1)
    assert recorder.payloads == ["x"]
    assert receiver.quarantined == {"fields": 1}


async def test_plain_zmq_loses_what_is_in_its_pipes(pair: Any) -> None:
    """The sender's ledger says handled, and what a dead receiver had not read is gone."""
    push, pull = pair
    domain = AsyncEventNexus()
    domain.add_handler("a", ZmqEventSender(push))
    async with domain:
        await domain.ingest_many(made(*range(10)))
        await domain.drained()
    assert_ledger_balanced(domain, handled=10)
    async with asyncio.timeout(10):
        await ZmqEventReceiver(pull, batch=3).obtain_event()
    push.disconnect(pull.get(zmq.LAST_ENDPOINT))
    pull.close(linger=0)
    with pull.context.socket(zmq.PULL) as again:
        push.connect(f"tcp://127.0.0.1:{again.bind_to_random_port('tcp://127.0.0.1')}")
        await push.send(b"later")
        async with asyncio.timeout(10):
            assert await again.recv() == b"later"


class Acknowledging(MemoryReceiver[Any]):
    """A receiver over memory whose transport wants to know what was accepted."""

    def __init__(self) -> None:
        super().__init__(MemoryConfig(topic="in"))
        self.acknowledged: list[Any] = []

    def accept(self, meta: dict[str, Any]) -> None:
        self.acknowledged.append(meta["number"])

    async def come(self, number: int) -> None:
        """Let an item come."""
        await self._inbox.put(str(number).encode(), {"number": number})


@virtual_time
async def test_a_bad_frame_costs_itself_alone() -> None:
    """What cannot be unpacked is counted twice over, at the adapter and at the boundary."""
    receiver = MemoryReceiver[Any](MemoryConfig(topic="bad"))
    boundary, recorder, domain = InboundBoundary(receiver, "a"), Recorder(), AsyncEventNexus()
    domain.add_handler("a", recorder)
    domain.register(boundary)
    async with domain, MemorySender[bytes](receiver.config, lambda data: data) as sender:
        for frame in (b"{", b"1"):
            await sender.deliver(frame)
        await recorder.wait_for(1)
    assert recorder.payloads == [1]
    assert (receiver.counts.bad, boundary.quarantined) == ({"unpack": 1}, {"unpack": 1})


@virtual_time
async def test_a_full_inbox_counts_what_it_drops() -> None:
    """What was received and what was dropped is what was sent."""
    config = MemoryConfig(topic="full", maxsize=3, overflow="drop_oldest")
    async with (
        MemoryReceiver[int](config) as receiver,
        MemorySender[int](MemoryConfig(topic="full")) as sender,
    ):
        for number in range(10):
            await sender.deliver(number)
        assert [(await receiver.receive())[0] for _ in range(3)] == [7, 8, 9]
        assert receiver.counts.dropped == {"drop_oldest": 7}


@virtual_time
async def test_a_broken_link_keeps_the_backlog() -> None:
    """What was sent while nobody was there goes when somebody is, the most urgent first."""
    config = MemoryConfig(topic="broken")
    async with MemorySender[int](config) as sender:
        for number in range(3):
            await sender.send(number)
        await sender.send(-1, priority=-1)
        assert sender.counts.waiting == 4
        async with MemoryReceiver[int](config) as receiver:
            assert [(await receiver.receive())[0] for _ in range(4)] == [-1, 0, 1, 2]


@virtual_time
async def test_a_stop_counts_what_was_not_sent() -> None:
    """A stop ends within its bound, and says how much stayed behind."""
    sender = MemorySender[int](MemoryConfig(topic="nobody", flush_timeout=1))
    await sender.send(1)
    await sender.stop()
    assert (sender.counts.waiting, sender.counts.dropped) == (0, {"stopped": 1})


@virtual_time
async def test_only_what_was_handled_is_acknowledged() -> None:
    """While a handler is with an item, and while one waits, the transport has heard of neither."""
    receiver, domain = Acknowledging(), AsyncEventNexus(grace=0)
    domain.add_handler("a", slow)
    domain.register(InboundBoundary(receiver, "a"))
    async with domain:
        await asyncio.sleep(0)
        for seconds in (1, 2, 3):
            await receiver.come(seconds)
        await asyncio.sleep(2)
        assert receiver.acknowledged == [1]


@virtual_time
async def test_a_confirming_bridge_acknowledges_last() -> None:
    """An item is acknowledged when the far side has it, not when the sender has."""
    receiver, domain = Acknowledging(), AsyncEventNexus()
    far = MemoryConfig(topic="far", flush_timeout=0)
    outbound = OutboundBoundary(MemorySender[Any](far), confirm=True)
    domain.add_handler("a", outbound)
    domain.register(outbound)
    domain.register(InboundBoundary(receiver, "a"))
    async with domain:
        await asyncio.sleep(0)
        await receiver.come(7)
        await asyncio.sleep(1)
        assert receiver.acknowledged == []
        async with MemoryReceiver[int](far) as beyond:
            assert (await beyond.receive())[0] == 7
            await asyncio.sleep(1)
        assert receiver.acknowledged == [7]


class Joined:
    """Two nexuses with a link between them, over wires in memory."""

    def __init__(self, *, far: int = 10_000, limits: LinkLimits | None = None) -> None:
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far", maxsize=far)
        self.link = Link.over(self.dial, limits=limits)
        self.beyond = Link.over(self.dial)
        self.near.register(self.link)
        self.far.register(self.beyond)
        self.near.add_handler("a", self.link)
        self.wires: list[MemoryWire] = []
        self.second: asyncio.Future[MemoryWire] | None = None

    async def dial(self) -> MemoryWire:
        """Give the one side its end of a new wire when the other one wants its own."""
        if self.second is None:
            self.second = asyncio.get_running_loop().create_future()
            return await self.second
        here, there = MemoryWire.pair()
        self.wires = [here, there]
        self.second.set_result(there)
        self.second = None
        return here


@virtual_time
async def test_a_broken_link_between_nexuses_loses_nothing() -> None:
    """However often the connection breaks, each event is handled once and in its order."""
    it, recorder = Joined(), Recorder()
    it.far.add_handler("a", recorder)
    async with it.near, it.far:
        for start in range(0, 1000, 100):
            await it.near.ingest_many(made(*range(start, start + 100)))
            await it.link.connected(60)
            await asyncio.sleep(0)
            it.wires[0].close()
            await asyncio.sleep(0.01)
        await recorder.wait_for(1000)
    assert recorder.payloads == list(range(1000))


@virtual_time
async def test_a_full_nexus_beyond_a_link_holds_the_source_up() -> None:
    """What the far nexus has no room for is held by the link up to its bound; then the source waits."""
    it = Joined(far=10, limits=LinkLimits(maxsize=100))
    it.far.add_handler("a", lambda event: asyncio.sleep(1))
    async with it.near, it.far:
        giving = asyncio.ensure_future(it.near.ingest_many(made(*range(11_000))))
        await asyncio.sleep(60)
        assert not giving.done()
        assert it.link.counts.waiting == 100
        assert it.far.queue.qsize() <= 10
        giving.cancel()
        await asyncio.wait([giving])
        await it.far.stop(grace=0)
        await it.near.stop(grace=0)


KILLED = """
import asyncio, os, nexus

async def main():
    async with nexus.AsyncEventNexus() as domain:
        domain.add_handler("a", lambda event: print("handled", event.payload))
        await domain.ingest(domain.create_event(1, event_type="a"))
        await domain.drained()
        await domain.ingest(domain.create_event(2, event_type="a"))
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_a_killed_process_takes_its_queue_along() -> None:
    """Nothing is kept on a disk: an accepted event dies with its process."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", KILLED], stdout=subprocess.PIPE, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (-9, "handled 1\n")


KILLED_SPILLING = """
import asyncio, os, sys, nexus
from nexus.boundaries.outbox import SpillFile

async def main():
    domain, file, is_first = nexus.AsyncEventNexus(maxsize=2), SpillFile(sys.argv[1]), len(sys.argv) > 2

    async def handle(event):
        print(event.payload)
        if is_first:
            if event.payload == 0:
                await file.durable()
            if event.payload == 5:
                os.kill(os.getpid(), 9)

    domain.add_handler("a", handle)
    domain.set_policy("a", nexus.Spill(file))
    async with domain:
        if is_first:
            await domain.ingest_many(domain.create_event(number, event_type="a") for number in range(100))
        await domain.drained()

asyncio.run(main())
"""


def test_a_killed_process_leaves_the_disk_as_it_is(tmp_path: Path) -> None:
    """What was safe is handled by the next process, and the event that was being handled comes again."""
    found = []
    for words in (["first"], []):
        command = [sys.executable, "-u", "-c", KILLED_SPILLING, str(tmp_path / "spilled"), *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=False)
        found.append((done.returncode, [int(line) for line in done.stdout.split()]))
    assert found == [(-9, [0, 1, 2, 3, 4, 5]), (0, [*range(found[1][1][0], 100)])]
    assert 2 <= found[1][1][0] <= 5


@virtual_time
async def test_a_damaged_event_costs_itself() -> None:
    """What cannot be read is dropped and counted, and nothing else."""
    store = SpillMemory()
    domain, recorder = spilling(store)
    async with domain:
        await domain.ingest_many(made(*range(10)))
        store.damage("a", 0, 3)
        await domain.drained()
        assert domain.stats().types["a"].drops == {"damaged": 1}
    assert recorder.payloads == [0, 1, 2, 3, 5, 6, 7, 8, 9]
