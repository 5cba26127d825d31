"""Laws about two nexuses joined over ZMQ."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq
import zmq.asyncio

from nexus import AsyncEventNexus, Event
from nexus.boundaries.zmq import ZmqEventReceiver, ZmqEventSender
from nexus.testing import MemoryWire, virtual_time

LIMIT = 30.0
"""Seconds any wait in these tests may take."""


async def until(condition: Callable[[], bool]) -> None:
    """Give the others turns until it is so."""
    async with asyncio.timeout(LIMIT):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


@asynccontextmanager
async def joined(**options: Any) -> AsyncIterator[tuple[AsyncEventNexus, AsyncEventNexus]]:
    """Give two nexuses that run; events of type "t" go from the first to the second over PUSH/PULL."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        for socket in (left, right):
            socket.set_hwm(options.pop("hwm", 1000))
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        sender, receiver = ZmqEventSender(left), ZmqEventReceiver(right)
        async with (
            asyncio.timeout(LIMIT),
            sender,
            receiver,
            AsyncEventNexus(name="plant") as plant,
            AsyncEventNexus(name="control") as control,
        ):
            plant.add_handler("t", sender)
            control.add_converter(receiver)
            yield plant, control


async def test_events_cross_in_order_and_both_ledgers_balance() -> None:
    """Events of one priority arrive once each and in order; nothing is left and every account is exact."""
    done = asyncio.Event()
    found: list[int] = []

    def handle(event: Event[int]) -> None:
        found.append(event.payload)
        if len(found) == 5000:
            done.set()

    async with joined() as (plant, control):
        control.add_handler("t", handle)
        for number in range(5000):
            await plant.ingest(Event(number, "t", 0, number))
        await done.wait()
        await plant.drained()
        await control.drained()
        for nexus in (plant, control):
            stats = nexus.stats()
            assert (stats.handled, stats.failed, stats.queued, stats.balanced) == (5000, 0, 0, True)
    assert found == list(range(5000))


async def test_urgent_events_overtake_those_already_ingested() -> None:
    """While a handler is busy, an urgent event that crosses the wire last is handled next."""
    busy, go = asyncio.Event(), asyncio.Event()
    order: list[int] = []

    async def handle(event: Event[Any]) -> None:
        busy.set()
        await go.wait()
        order.append(event.id)

    async with joined() as (plant, control):
        control.add_handler("t", handle)
        await plant.ingest(Event(0, "t", 0, None))
        await busy.wait()
        for number in range(1, 100):
            await plant.ingest(Event(number, "t", 0, None))
        await plant.drained()
        await plant.ingest(Event(100, "t", -1, None))
        await until(lambda: control.stats().lanes.get(-1, 0) > 0)
        go.set()
        await until(lambda: len(order) == 101)
    assert order[:2] == [0, 100]
    assert order[2:] == list(range(1, 100))


async def test_bad_frames_do_not_stop_the_nexus() -> None:
    """A source that meets bad frames keeps running; the good ones are handled."""
    done = asyncio.Event()
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        receiver = ZmqEventReceiver(right)
        async with asyncio.timeout(LIMIT), AsyncEventNexus() as nexus:
            nexus.add_handler("t", lambda event: done.set())
            nexus.add_converter(receiver)
            for frames in ([b"junk"], [b"[" * 100_000], [b"{}", b"{}"], [b"\xff"]):
                await left.send_multipart(frames)
            await left.send(b'{"id": 1, "type": "t", "priority": 0, "payload": 1}')
            await done.wait()
            (state,) = nexus.stats().sources.values()
            assert (state.state, state.failures) == ("running", 0)
            assert sum(receiver.quarantined.values()) == 4


async def test_a_full_socket_holds_up_nobody_else() -> None:
    """While a sender has no peer, other handlers of its nexus go on, and its events wait, none handled."""
    done = asyncio.Event()
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        sender = ZmqEventSender(left)
        async with asyncio.timeout(LIMIT), AsyncEventNexus() as nexus:
            nexus.add_handler("t", sender)
            nexus.add_handler("other", lambda event: done.set())
            for number in range(10):
                await nexus.ingest(Event(number, "t", 0, None))
            await nexus.ingest(Event(0, "other", 0, None))
            await done.wait()
            assert nexus.stats().types["t"].handled == 0
            assert nexus.stats().balanced
            left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
            await nexus.drained()
            assert nexus.stats().types["t"].handled == 10
        receiver = ZmqEventReceiver(right)
        async with asyncio.timeout(LIMIT):
            assert [(await receiver.obtain_event()).id for _ in range(10)] == list(range(10))
        sender.close()
        receiver.close()


async def test_a_full_lane_holds_the_socket_back() -> None:
    """What comes while the lane is full waits outside, in order, and nothing is lost or counted twice."""
    release, done = asyncio.Event(), asyncio.Event()
    found: list[int] = []

    async def handle(event: Event[Any]) -> None:
        await release.wait()
        found.append(event.id)
        if len(found) == 500:
            done.set()

    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        sender = ZmqEventSender(left)
        async with asyncio.timeout(LIMIT), sender, AsyncEventNexus(maxsize=7) as nexus:
            nexus.add_handler("t", handle)
            nexus.add_converter(ZmqEventReceiver(right))
            for number in range(500):
                await sender.handle(Event(number, "t", 0, None))
            await until(lambda: nexus.queue.full())
            assert nexus.stats().ingested <= 8
            release.set()
            await done.wait()
            stats = nexus.stats()
    assert found == list(range(500))
    assert stats.balanced
    assert stats.ingested == 500


async def test_an_event_that_came_before_the_stop_is_kept() -> None:
    """A stop at any moment while events come: each one is handled, remains, or is still outside; in order."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        sender, receiver = ZmqEventSender(left), ZmqEventReceiver(right, batch=3)
        found: list[int] = []
        async with asyncio.timeout(LIMIT):
            for attempt in range(40):
                nexus = AsyncEventNexus(maxsize=2)
                nexus.add_handler("t", lambda event: found.append(event.id))
                nexus.add_converter(receiver)
                nexus.start()
                for number in range(10 * attempt, 10 * attempt + 10):
                    await sender.handle(Event(number, "t", 0, None))
                    await asyncio.sleep(0)
                for _ in range(attempt % 7):
                    await asyncio.sleep(0)
                report = await nexus.stop(grace=0.0)
                found.extend(event.id for event in report.remaining)
                assert report.stats.balanced
            await sender.flush()
            await receiver.start()
            while len(found) < 400:
                found.append((await receiver.obtain_event()).id)
        assert found == list(range(400))


@pytest.mark.parametrize("delay", [0.0, 0.01])
@virtual_time
async def test_two_nexuses_run_over_a_wire_in_memory(delay: float) -> None:
    """The same program runs in virtual time, and ends balanced."""
    left, right = MemoryWire.pair(delay=(delay, delay), capacity=50)
    found: list[int] = []
    async with AsyncEventNexus() as plant, AsyncEventNexus() as control:
        plant.add_handler("t", ZmqEventSender(left))
        control.add_handler("t", lambda event: found.append(event.id))
        control.add_converter(ZmqEventReceiver(right))
        for number in range(1000):
            await plant.ingest(Event(number, "t", 0, None))
        await plant.drained()
        await asyncio.sleep(1)
        await control.drained()
        assert plant.stats().balanced
        assert control.stats().balanced
    assert found == list(range(1000))
