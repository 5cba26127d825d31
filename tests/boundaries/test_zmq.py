"""Laws about events over ZMQ sockets."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import pytest
import zmq
import zmq.asyncio

from nexus import Event, EventFactory, NamedEvent
from nexus.boundaries._envelope import BadFrame
from nexus.boundaries.zmq import (
    ZmqAbstractConverter,
    ZmqEventConverter,
    ZmqEventReceiver,
    ZmqEventSender,
    send_event,
)
from nexus.errors import BadCall, NoMoreEvents, PackerError
from nexus.testing import MemoryWire, virtual_time

LIMIT = 20.0
"""Seconds any wait in these tests may take."""
MIB = 1024 * 1024

Socket: TypeAlias = "zmq.asyncio.Socket"
Connect: TypeAlias = "Callable[[int, int], tuple[Socket, Socket]]"
T = TypeVar("T")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make two connected sockets, the second one bound; both are closed after the test."""
    context = zmq.asyncio.Context()
    made: list[Socket] = []

    def make(left: int, right: int) -> tuple[Socket, Socket]:
        ends = context.socket(left), context.socket(right)
        made.extend(ends)
        for end in ends:
            end.setsockopt(zmq.MAXMSGSIZE, 16 * MIB)
        ends[0].connect(f"tcp://127.0.0.1:{ends[1].bind_to_random_port('tcp://127.0.0.1')}")
        return ends

    yield make
    for socket in made:
        socket.close(linger=0)
    context.term()


@pytest.fixture
def pipe(connect: Connect) -> tuple[Socket, Socket]:
    """Give a PUSH socket and the PULL socket it is connected to."""
    return connect(zmq.PUSH, zmq.PULL)


async def within(awaitable: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    async with asyncio.timeout(LIMIT):
        return await awaitable


def event(number: int, priority: int = 0, payload: Any = "p") -> Event[Any]:
    return Event(number, "t", priority, payload)


# From sender to receiver.


async def test_events_arrive_as_they_were(pipe: tuple[Socket, Socket]) -> None:
    """An event keeps its id, type, priority and payload; a NamedEvent arrives as a plain one of its name."""

    class Alarm(NamedEvent[float]):
        pass

    sender, receiver = ZmqEventSender(pipe[0]), ZmqEventReceiver(pipe[1])
    sent = [Event(7, "t", 3, 'hé "x"'), Event(-1, 4, -5, {"a": [1, 2.5, None]}), Alarm(1, 99.5, priority=-1)]
    for each in sent:
        await within(sender.handle(each))
    found = [await within(receiver.obtain_event()) for _ in sent]
    assert found == [*sent[:2], Event(1, Alarm.__qualname__, -1, 99.5)]
    assert type(found[2]) is Event


async def test_one_frame_holds_the_bytes_of_async_nexus(pipe: tuple[Socket, Socket]) -> None:
    """Sender and send_event put the same bytes on the wire, in one frame."""
    await within(ZmqEventSender(pipe[0]).handle(event(1)))
    await within(send_event(event(1), pipe[0]))
    for _ in range(2):
        frames = await within(pipe[1].recv_multipart())
        assert frames == [b'{"id": 1, "type": "t", "priority": 0, "payload": "p"}']


async def test_all_that_is_ready_comes_at_once_the_urgent_first(pipe: tuple[Socket, Socket]) -> None:
    """obtain_events gives what is ready, the most urgent first and else in order, never more than a batch."""
    sender, receiver = ZmqEventSender(pipe[0]), ZmqEventReceiver(pipe[1], batch=50)
    for number in range(200):
        await within(sender.handle(event(number, priority=-(number % 2))))
    found: list[Event[Any]] = []
    while len(found) < 200:
        batch = await within(receiver.obtain_events())
        assert 1 <= len(batch) <= 50
        assert batch == sorted(batch, key=lambda each: (each.priority, each.id))
        found += batch
    assert sorted(each.id for each in found) == list(range(200))


async def test_cancelling_at_any_time_loses_no_event(pipe: tuple[Socket, Socket]) -> None:
    """A storm of cancelled calls while events flow takes none of them away, and keeps their order."""
    sender, receiver = ZmqEventSender(pipe[0]), ZmqEventReceiver(pipe[1], batch=5)
    found: list[int] = []

    async def feed() -> None:
        for number in range(1000):
            await sender.handle(event(number))
            if not number % 10:
                await asyncio.sleep(0)

    feeding = asyncio.ensure_future(feed())
    for attempt in range(200):
        task: asyncio.Task[Any] = asyncio.ensure_future(
            receiver.obtain_event() if attempt % 2 else receiver.obtain_events()
        )
        for _ in range(attempt % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            found += [each.id for each in (task.result() if attempt % 2 == 0 else [task.result()])]
    await within(feeding)
    while len(found) < 1000:
        found.append((await within(receiver.obtain_event())).id)
    assert found == list(range(1000))


async def test_a_full_socket_holds_the_sender_back_and_nothing_is_lost() -> None:
    """handle waits while nobody reads, flush says so, and then all events arrive in order."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        for socket in (left, right):
            socket.set_hwm(10)
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        sender, receiver = ZmqEventSender(left), ZmqEventReceiver(right)
        sent = 0
        while True:
            task = asyncio.ensure_future(sender.handle(event(sent, payload="x" * 200_000)))
            sent += 1
            if not (await asyncio.wait([task], timeout=0.2))[0]:
                break
        assert not await sender.flush(timeout=0.01)
        found = [(await within(receiver.obtain_event())).id for _ in range(sent)]
        assert found == list(range(sent))
        await within(task)
        assert await sender.flush()
        sender.close()
        receiver.close()


async def test_a_sender_that_will_not_wait_says_whether_it_sent(connect: Connect) -> None:
    """handle_nowait sends where there is room and nobody waits for it, and else says no."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        sender, receiver = ZmqEventSender(left), ZmqEventReceiver(right)
        assert not sender.handle_nowait(event(1))
        waiting = asyncio.ensure_future(sender.handle(event(2)))
        await asyncio.sleep(0)
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        assert not sender.handle_nowait(event(3))  # the one that waits is first
        await within(waiting)
        assert sender.handle_nowait(event(4))
        assert [(await within(receiver.obtain_event())).id for _ in range(2)] == [2, 4]
        sender.close()
        receiver.close()
        with pytest.raises(BadCall, match="event 5 was not sent"):
            sender.handle_nowait(event(5))
    assert not ZmqEventSender(MemoryWire.pair()[0]).handle_nowait(event(6))


async def test_a_subscriber_gets_what_begins_with_its_prefix(connect: Connect) -> None:
    """A string with the prefix arrives whole, as an event of the given type with an id of the factory."""
    sub, pub = connect(zmq.SUB, zmq.XPUB)
    sub.subscribe(b"RX ")
    await within(pub.recv())  # the subscription itself: no publishing before it is there
    factory = EventFactory()
    converter = ZmqEventConverter(sub, event_type="radio", event_factory=factory)
    for text in ("TX 1", "RX 2", "RX hé"):
        await pub.send_string(text)
    found = [await within(converter.obtain_event()) for _ in range(2)]
    assert found == [Event(1, "radio", 0, "RX 2"), Event(2, "radio", 0, "RX hé")]


async def test_a_topic_goes_in_a_frame_of_its_own(connect: Connect) -> None:
    """With a topic, events go out behind it and come in from behind it; other topics are put aside."""
    sub, pub = connect(zmq.SUB, zmq.XPUB)
    sub.subscribe(b"")
    await within(pub.recv())
    receiver = ZmqEventReceiver(sub, topic="lab/")
    for number, topic in enumerate(("lab/1", "office", "lab/2")):
        await within(ZmqEventSender(pub, topic=topic).handle(event(number)))
    assert [(await within(receiver.obtain_event())).id for _ in range(2)] == [0, 2]
    assert receiver.quarantined == {"topic": 1}


async def test_a_plain_socket_serves_as_well() -> None:
    """A socket that is not asyncio's is neither blocked on nor refused."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as left, context.socket(zmq.PULL) as right:
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        with ZmqEventReceiver(right) as receiver:
            waiting = asyncio.ensure_future(receiver.obtain_event())
            await asyncio.sleep(0)
            await within(send_event(event(1), left))
            assert await within(waiting) == event(1)


# Bad messages.

GOOD = b'{"id": 1, "type": "t", "priority": 0, "payload": "good"}'
BAD: dict[str, tuple[list[bytes], str]] = {
    "empty": ([b""], "json"),
    "not UTF-8": ([GOOD.replace(b"good", b"\xff\xfe")], "json"),
    "truncated": ([GOOD[:-7]], "json"),
    "bomb": ([b"[" * 100_000], "depth"),
    "nested": ([GOOD.replace(b'"good"', b"[" * 50 + b"]" * 50)], "depth"),
    "types": ([GOOD.replace(b'"id": 1', b'"id": "1"')], "types"),
    "fields": ([GOOD.replace(b'"priority"', b'"urgency"')], "fields"),
    "multipart": ([GOOD, GOOD], "parts"),
    "many parts": ([b""] * 5000, "parts"),
    "2 MiB": ([b'"' + b"x" * 2 * MIB + b'"'], "size"),
    "2 MiB in parts": ([GOOD, b"x" * 2 * MIB], "size"),
}


@pytest.mark.parametrize(("frames", "reason"), BAD.values(), ids=BAD.keys())
async def test_a_bad_message_costs_one_message(
    pipe: tuple[Socket, Socket], frames: list[bytes], reason: str
) -> None:
    """A message that is no event is counted and shown, raises nothing, and those around it arrive."""
    shown: list[tuple[str, BadFrame]] = []
    receiver = ZmqEventReceiver(pipe[1], on_bad=lambda found, error: shown.append((found, error)))
    for message in ([GOOD], frames, [GOOD]):
        await pipe[0].send_multipart(message)
    for _ in range(2):
        assert (await within(receiver.obtain_event())).payload == "good"
    assert receiver.quarantined == {reason: 1}
    ((found, error),) = shown
    assert (error.reason, error.found, len(found) < 600) == (reason, found, True)


async def test_bad_strings_cost_one_message_each(pipe: tuple[Socket, Socket]) -> None:
    """What is no text, too long, in parts, or makes convert_to_event raise is counted; the rest arrives."""

    class Numbers(ZmqEventConverter):
        def convert_to_event(self, s: str) -> Event[Any]:
            return self.event_factory.create_event(int(s), event_type=self.event_type)

    converter = Numbers(pipe[1], event_type="n", max_message=1000)
    for message in ([b"1"], [b"\xff"], [b"one"], [b"2", b"3"], [b"4" * 1001], [b"5"]):
        await pipe[0].send_multipart(message)
    assert [(await within(converter.obtain_event())).payload for _ in range(2)] == [1, 5]
    assert converter.quarantined == {"text": 1, "convert": 1, "parts": 1, "size": 1}


@virtual_time
async def test_a_flood_of_bad_messages_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """There is one line in ten seconds, printable and short. A failing on_bad disturbs nothing."""

    def fail(found: str, error: BadFrame) -> None:
        raise ValueError(found)

    left, right = MemoryWire.pair(capacity=10_000)
    receiver = ZmqEventReceiver(right)
    with caplog.at_level(logging.WARNING, "nexus.boundaries.zmq"):
        for _ in range(3):
            for _ in range(100):
                await left.send([b"\x1b[2J\r\nforged line" + b"x" * 1000])
            await left.send([GOOD])
            await receiver.obtain_event()
            await asyncio.sleep(10)
        assert len(caplog.records) == 3
        for record in caplog.records:
            assert record.getMessage().isprintable()
            assert len(record.getMessage()) < 600
        receiver.on_bad = fail
        await left.send([b"bad"])
        await left.send([GOOD])
        assert (await receiver.obtain_event()).payload == "good"
    assert receiver.quarantined == {"json": 301}


# Over memory, in virtual time.


@virtual_time
async def test_events_cross_a_wire_in_memory() -> None:
    """The same classes run over any wire; a slow one holds them back, and its end is the converter's."""
    left, right = MemoryWire.pair(delay=(0.5, 1.0), capacity=10)
    loop = asyncio.get_running_loop()
    receiver = ZmqEventReceiver(right)

    async def feed() -> None:
        async with ZmqEventSender(left) as sender:
            for number in range(100):
                await sender.handle(event(number))

    feeding = asyncio.ensure_future(feed())
    assert [(await receiver.obtain_event()).id for _ in range(100)] == list(range(100))
    assert loop.time() >= 5
    await feeding
    with pytest.raises(NoMoreEvents):
        await receiver.obtain_event()
    with pytest.raises(BadCall, match="event 1 was not sent"):
        await send_event(event(1), left)


# Life.


@pytest.mark.parametrize("how", ["with", "async with"])
async def test_the_socket_is_closed_at_the_end_of_a_block(pipe: tuple[Socket, Socket], how: str) -> None:
    """Both kinds of block give the object itself and close its socket; what was sent before still arrives."""
    sender, receiver = ZmqEventSender(pipe[0]), ZmqEventReceiver(pipe[1])
    if how == "with":
        with sender as entered, receiver as entered_too:
            await within(entered.handle(event(1)))
            assert await within(entered_too.obtain_event()) == event(1)
    else:
        async with sender as entered, receiver as entered_too:
            await within(entered.handle(event(1)))
            assert await within(entered_too.obtain_event()) == event(1)
    assert pipe[0].closed
    assert pipe[1].closed


@pytest.mark.parametrize("many", [True, False])
async def test_closing_ends_a_wait(pipe: tuple[Socket, Socket], many: bool) -> None:
    """Whoever waits for an event when the converter closes, or comes later, gets NoMoreEvents."""
    receiver = ZmqEventReceiver(pipe[1])
    obtain: Callable[[], Any] = receiver.obtain_events if many else receiver.obtain_event
    waiting = asyncio.ensure_future(obtain())
    await asyncio.sleep(0)
    receiver.close()
    receiver.close()
    with pytest.raises(NoMoreEvents):
        await within(waiting)
    with pytest.raises(NoMoreEvents):
        await within(obtain())
    assert not pipe[1].closed


@virtual_time
async def test_a_closed_converter_keeps_what_it_took_and_can_start_again() -> None:
    """Events taken and not yet obtained outlive close; after start, new ones follow."""
    left, right = MemoryWire.pair()
    receiver = ZmqEventReceiver(right)
    for number in range(10):
        await left.send([b'{"id": %d, "type": "t", "priority": 0, "payload": 1}' % number])
    assert (await receiver.obtain_event()).id == 0
    assert receiver.pending == 9
    receiver.close()
    assert [each.id for each in await receiver.obtain_events()] == list(range(1, 10))
    with pytest.raises(NoMoreEvents, match="closed"):
        await receiver.obtain_events()
    await receiver.start()
    await left.send([GOOD])
    assert (await receiver.obtain_event()).payload == "good"


async def test_a_converter_of_ones_own_keeps_its_say(pipe: tuple[Socket, Socket]) -> None:
    """An overridden obtain_event is what obtain_events calls, with or without use of the socket itself."""

    class Loud(ZmqEventConverter):
        async def obtain_event(self) -> Event[Any]:
            event = await super().obtain_event()
            return event.evolve(payload=event.payload.upper())

    class Parts(ZmqAbstractConverter):
        async def obtain_event(self) -> Event[Any]:
            assert isinstance(self.socket, zmq.asyncio.Socket)
            return Event(1, "parts", 0, await self.socket.recv_multipart())

    await pipe[0].send(b"quiet")
    assert [each.payload for each in await within(Loud(pipe[1], event_type=1).obtain_events())] == ["QUIET"]
    await pipe[0].send_multipart([b"a", b"b"])
    with Parts(pipe[1]) as parts:
        assert (await within(parts.obtain_event())).payload == [b"a", b"b"]
    assert pipe[1].closed


async def test_a_send_that_waits_fails_when_the_sender_closes(connect: Connect) -> None:
    """An event that could not be handed over raises BadCall, which names it."""
    with zmq.asyncio.Context() as context, context.socket(zmq.PUSH) as socket:
        sender = ZmqEventSender(socket)
        waiting = asyncio.ensure_future(sender.handle(event(5)))
        await asyncio.wait([waiting], timeout=0.01)
        sender.close()
        with pytest.raises(BadCall, match="event 5 was not sent"):
            await within(waiting)


async def test_closing_gracefully_gives_waiting_events_their_time(connect: Connect) -> None:
    """aclose waits until what is being handled is in the socket, but no longer than its linger."""
    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PUSH) as left,
        context.socket(zmq.PULL) as right,
    ):
        sender = ZmqEventSender(left, linger=LIMIT)
        waiting = asyncio.ensure_future(sender.handle(event(5)))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(sender.aclose())
        await asyncio.wait([closing], timeout=0.01)
        assert not closing.done()
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        await within(asyncio.gather(closing, waiting))
        assert await within(ZmqEventReceiver(right).obtain_event()) == event(5)
        other = ZmqEventSender(context.socket(zmq.PUSH), linger=0.01)
        stuck = asyncio.ensure_future(other.handle(event(6)))
        await asyncio.sleep(0)
        await within(other.aclose())
        with pytest.raises(BadCall):
            await within(stuck)
        assert isinstance(other.socket, zmq.Socket)
        other.socket.close()


async def test_what_cannot_be_sent_says_so(pipe: tuple[Socket, Socket]) -> None:
    """A payload that is not JSON, a large event, a socket that cannot send: the errors name them."""
    with pytest.raises(PackerError, match=r"id=1 .* bytes"):
        await send_event(event(1, payload=b"x"), pipe[0])
    with pytest.raises(PackerError, match="50 are allowed"):
        await ZmqEventSender(pipe[0], max_message=50).handle(event(1))
    with pytest.raises(BadCall, match="PULL socket cannot send"):
        await send_event(event(1), pipe[1])
    with pytest.raises(BadCall, match="linger"):
        ZmqEventSender(pipe[0], linger=-1)
