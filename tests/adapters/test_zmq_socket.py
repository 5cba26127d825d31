"""Laws about a ZMQ socket as a wire, over real sockets on loopback."""

import asyncio
import gc
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import pytest
import zmq
import zmq.asyncio

from nexus.adapters._wire import Wire
from nexus.adapters._zmq_socket import ZmqWire
from nexus.errors import BadCall

LIMIT = 20.0
"""Seconds any wait in these tests may take."""

Socket: TypeAlias = "zmq.Socket[Any]"
T = TypeVar("T")


class Sockets:
    """Makes sockets, of asyncio or plain, and closes them after the test."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.made: list[Socket] = []

    def socket(self, kind: int) -> Socket:
        self.made.append(self.context.socket(kind))
        self.made[-1].setsockopt(zmq.LINGER, 0)  # before connecting: a session keeps what it began with
        return self.made[-1]

    def close(self) -> None:
        for socket in self.made:
            socket.close(linger=0)
        self.context.term()


@pytest.fixture(params=[zmq.asyncio.Context, zmq.Context], ids=["asyncio", "plain"])
def context(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    """Make sockets that are gone after the test."""
    sockets = Sockets(request.param())
    yield sockets
    sockets.close()


Pair = Callable[..., tuple[Socket, Socket]]


@pytest.fixture
def pair(context: Sockets) -> Pair:
    """Make two connected sockets, the second one bound; options go to both."""

    def make(left: int, right: int, **options: int) -> tuple[Socket, Socket]:
        ends = context.socket(left), context.socket(right)
        for end in ends:
            for name, value in options.items():
                end.setsockopt(getattr(zmq, name.upper()), value)
        port = ends[1].bind_to_random_port("tcp://127.0.0.1")
        ends[0].connect(f"tcp://127.0.0.1:{port}")
        return ends

    return make


async def within(awaitable: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    async with asyncio.timeout(LIMIT):
        return await awaitable


async def collect(wire: Wire, count: int) -> list[list[bytes]]:
    """Receive that many messages or a few more."""
    found: list[list[bytes]] = []
    while len(found) < count:
        found += await within(wire.receive())
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    """Messages of one and of many frames arrive as they were sent, in batches that are not too large."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right, batch=7)
    messages = [[b"%d" % number, *[b"part"] * (number % 3)] for number in range(500)]
    for message in messages:
        await within(sender.send(message))
    found: list[list[bytes]] = []
    while len(found) < 500:
        batch = await within(receiver.receive())
        assert 1 <= len(batch) <= 7
        found += batch
    assert found == messages


async def test_a_stalled_receiver_holds_the_sender_back(pair: Pair) -> None:
    """With both high-water marks reached, send waits; it goes on when there is room, and nothing is lost."""
    left, right = pair(zmq.PUSH, zmq.PULL, sndhwm=10, rcvhwm=10)
    sender, receiver = ZmqWire(left), ZmqWire(right)
    big = b"x" * 200_000
    sent = 0
    while True:
        task = asyncio.ensure_future(sender.send([b"%d" % sent, big]))
        if not (await asyncio.wait([task], timeout=0.2))[0]:
            break
        sent += 1
    found = await collect(receiver, sent)
    await within(task)
    found += await collect(receiver, sent + 1 - len(found))
    assert [int(message[0]) for message in found] == list(range(sent + 1))


async def test_messages_of_one_turn_go_together_and_in_order(pair: Pair) -> None:
    """What is sent without a pause arrives in order, large among small, after flush, close or a turn."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    receiver = ZmqWire(right)
    for finish in (ZmqWire.flush, ZmqWire.close, lambda wire: asyncio.sleep(0)):
        wire = ZmqWire(left)
        sent = [[b"%d" % number + b"x" * (50_000 if number % 7 == 3 else 0)] for number in range(200)]
        for message in sent:
            assert wire.send_nowait(message)
        finished = finish(wire)
        if finished is not None:
            await within(finished)
        assert await collect(receiver, 200) == sent
        wire.close()


async def test_what_is_held_back_waits_for_room(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """With no room, little is held back, and flush waits until there is room for it."""
    left, right = pair(zmq.PUSH, zmq.PULL, sndhwm=1, rcvhwm=1, sndbuf=4096, rcvbuf=4096)
    sender, receiver = ZmqWire(left), ZmqWire(right)
    count = 0
    while True:  # until nothing more is taken, however many turns libzmq is given
        while sender.send_nowait([b"%d" % count, bytes(10_000)]):
            count += 1
        await asyncio.wait([asyncio.ensure_future(sender.flush())], timeout=0.1)
        if not sender.send_nowait([b"%d" % count, bytes(10_000)]):
            break
        count += 1
    flushing = asyncio.ensure_future(sender.flush())
    found = await collect(receiver, count)
    await within(flushing)
    assert [int(message[0]) for message in found] == list(range(count))
    assert not caplog.records


async def test_close_says_what_was_not_sent(context: Sockets, caplog: pytest.LogCaptureFixture) -> None:
    """What was held back and finds no room when the wire closes is reported, with its number."""
    left, right = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    port = right.bind_to_random_port("tcp://127.0.0.1")
    left.connect(f"tcp://127.0.0.1:{port}")
    sender = ZmqWire(left)
    for number in range(11):
        assert sender.send_nowait([b"%d" % number])
    left.disconnect(f"tcp://127.0.0.1:{port}")
    sender.close()
    assert ["10 messages were not sent" in record.getMessage() for record in caplog.records] == [True]


async def test_a_cancelled_send_was_not_sent(context: Sockets) -> None:
    """A send that is cancelled while it waits for room leaves nothing on the wire."""
    left, right = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    sender = ZmqWire(left)
    task = asyncio.ensure_future(sender.send([b"gone"]))
    await asyncio.wait([task], timeout=0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
    await within(sender.send([b"here"]))
    assert await within(ZmqWire(right).receive()) == [[b"here"]]


async def test_a_send_waits_for_a_peer_that_comes_and_goes(context: Sockets) -> None:
    """A sender without a peer waits, and goes on as soon as one is there, again and again."""
    left = context.socket(zmq.PUSH)
    sender = ZmqWire(left)
    for number in range(5):
        task = asyncio.ensure_future(sender.send([b"%d" % number]))
        await asyncio.wait([task], timeout=0.01)
        assert not task.done()
        right = context.socket(zmq.PULL)
        url = f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}"
        left.connect(url)
        await within(task)
        assert await within(ZmqWire(right).receive()) == [[b"%d" % number]]
        left.disconnect(url)


async def test_senders_that_wait_for_room_go_in_order(context: Sockets) -> None:
    """Tasks that wait to send on one socket, over one wire or two, send in the order they came."""
    left = context.socket(zmq.PUSH)
    wires = [ZmqWire(left), ZmqWire(left)]
    tasks = []
    for number in range(50):
        tasks.append(asyncio.ensure_future(wires[number % 2].send([b"%d" % number])))
        await asyncio.sleep(0)
    right = context.socket(zmq.PULL)
    left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
    found = await collect(ZmqWire(right), 50)
    await within(asyncio.gather(*tasks))
    assert [int(frame) for (frame,) in found] == list(range(50))


@pytest.mark.parametrize("kind", [zmq.PAIR, zmq.DEALER])
async def test_wires_on_one_socket_do_not_take_each_others_wakeups(pair: Pair, kind: int) -> None:
    """Both ways at once over one socket, a wire for each way, all arrives and nobody waits for ever."""
    left, right = pair(kind, kind)
    there, back = ZmqWire(left), ZmqWire(left)
    echo_in, echo_out = ZmqWire(right), ZmqWire(right)

    async def echo() -> None:
        while True:
            for message in await echo_in.receive():
                await echo_out.send(message)

    task = asyncio.ensure_future(echo())
    for round_ in range(200):
        for number in range(round_ % 4 + 1):
            await within(there.send([b"%d" % number]))
        assert len(await collect(back, round_ % 4 + 1)) == round_ % 4 + 1
    task.cancel()
    await asyncio.wait([task])


async def test_a_router_sends_and_receives_over_two_wires(pair: Pair) -> None:
    """A ROUTER answers each of its peers, with the address in the first frame."""
    left, right = pair(zmq.DEALER, zmq.ROUTER)
    dealer, inward, outward = ZmqWire(left), ZmqWire(right), ZmqWire(right)
    await within(dealer.send([b"hello"]))
    ((address, data),) = await within(inward.receive())
    waiting = asyncio.ensure_future(inward.receive())
    await asyncio.sleep(0)
    await within(outward.send([address, data + b" back"]))
    assert await within(dealer.receive()) == [[b"hello back"]]
    await within(dealer.send([b"again"]))
    assert (await within(waiting))[0][1] == b"again"


async def test_two_receivers_share_what_comes(pair: Pair) -> None:
    """Of two wires that receive from one socket each message goes to one, and neither is left waiting."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, found = ZmqWire(left), list[bytes]()
    complete = asyncio.Event()

    async def read(wire: ZmqWire) -> None:
        while True:
            found.extend(frame for (frame,) in await wire.receive())
            if len(found) == 1000:
                complete.set()

    tasks = [asyncio.ensure_future(read(ZmqWire(right, batch=3))) for _ in range(2)]
    for number in range(1000):
        await within(sender.send([b"%d" % number]))
    await within(complete.wait())
    assert sorted(map(int, found)) == list(range(1000))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_the_users_own_calls_on_the_socket_lose_no_wakeup() -> None:
    """Calls made on an asyncio socket past its wires, and waits on it, work beside them."""
    with zmq.asyncio.Context() as own_context, own_context.socket(zmq.PAIR) as left:
        right = own_context.socket(zmq.PAIR)
        left.connect(f"tcp://127.0.0.1:{right.bind_to_random_port('tcp://127.0.0.1')}")
        wire, other = ZmqWire(left), ZmqWire(right)
        for number in range(20):
            waiting = asyncio.ensure_future(wire.receive())
            await asyncio.sleep(0)
            await left.send(b"%d" % number)  # may take the signal
            assert await within(other.receive()) == [[b"%d" % number]]
            await other.send([b"answer"])
            assert await within(waiting) == [[b"answer"]]
        own = left.recv()
        for number in range(20):
            await wire.send([b"%d" % number])
        assert len(await collect(other, 20)) == 20
        await other.send([b"own"])
        assert await within(own) == b"own"
        wire.close()
        other.close()
        right.close()


async def test_cancelling_at_any_time_loses_no_message(pair: Pair) -> None:
    """A storm of cancelled receives while messages flow takes none of them away."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right, batch=5)
    found: list[bytes] = []

    async def feed() -> None:
        for number in range(1000):
            await sender.send([b"%d" % number])
            if not number % 5:
                await asyncio.sleep(0)

    feeding = asyncio.ensure_future(feed())
    cancelled = 0
    while cancelled < 200:
        task = asyncio.ensure_future(receiver.receive())
        for _ in range(cancelled % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        cancelled += 1
        if not task.cancelled():
            found += [frame for (frame,) in task.result()]
    await within(feeding)
    found += [frame for (frame,) in await collect(receiver, 1000 - len(found))] if len(found) < 1000 else []
    assert [int(frame) for frame in found] == list(range(1000))


async def test_what_comes_is_handed_over_in_the_same_turn(pair: Pair) -> None:
    """A receiver that waits hands messages on at once, and returns only when one was declined."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right)
    found: list[list[bytes]] = []

    def hand_on(messages: list[list[bytes]]) -> bool:
        found.extend(messages)
        return found[-1] != [b"last"]

    receiving = asyncio.ensure_future(receiver.receive(hand_on))
    await asyncio.sleep(0)
    for message in ([b"first"], [b"of", b"two"], [b"last"]):
        await within(sender.send(message))
        await sender.flush()
    assert await within(receiving) == []
    assert found == [[b"first"], [b"of", b"two"], [b"last"]]


async def test_what_is_handed_over_survives_cancellation(pair: Pair) -> None:
    """A cancelled receive has handed on whole messages in order, and takes no further one."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right, batch=5)
    found: list[bytes] = []

    def hand_on(messages: list[list[bytes]]) -> bool:
        found.extend(frame for (frame,) in messages)
        return len(found) % 3 > 0

    for number in range(300):
        await within(sender.send([b"%d" % number]))
        task = asyncio.ensure_future(receiver.receive(hand_on))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        before = len(found)
        await asyncio.wait([task])
        assert len(found) == before
        if not task.cancelled():
            found += [frame for (frame,) in task.result()]
    await sender.flush()
    found += [frame for (frame,) in await collect(receiver, 300 - len(found))] if len(found) < 300 else []
    assert [int(frame) for frame in found] == list(range(300))


@pytest.mark.parametrize("what", ["wire", "socket"])
async def test_closing_ends_a_wait_that_hands_on(context: Sockets, what: str) -> None:
    """A receiver that hands on is told, like any other, when its wire or socket closes."""
    socket = context.socket(zmq.PULL)
    socket.bind_to_random_port("tcp://127.0.0.1")
    wire = ZmqWire(socket)
    receiving = asyncio.ensure_future(wire.receive(lambda messages: True))
    await asyncio.sleep(0)
    (wire if what == "wire" else socket).close()
    with pytest.raises(ConnectionError):
        await within(receiving)
    wire.close()


async def test_a_receiver_that_hands_on_shares_its_socket(pair: Pair) -> None:
    """On one socket, a wire that hands on, one that does not, and one that sends, get all that is theirs."""
    left, right = pair(zmq.PAIR, zmq.PAIR)
    near, far = ZmqWire(left), ZmqWire(right)
    found: list[bytes] = []
    complete = asyncio.Event()

    def hand_on(messages: list[list[bytes]]) -> bool:
        found.extend(frame for (frame,) in messages)
        if len(found) == 500:
            complete.set()
        return True

    async def read(wire: ZmqWire, *arguments: Any) -> None:
        while True:
            hand_on(await wire.receive(*arguments))

    tasks = [asyncio.ensure_future(read(ZmqWire(right, batch=3), hand_on)), asyncio.ensure_future(read(far))]
    for number in range(500):
        await within(near.send([b"%d" % number]))
        await within(far.send([b"back"]))
    await within(complete.wait())
    assert sorted(map(int, found)) == list(range(500))
    assert len(await collect(near, 500)) == 500
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_flood_leaves_the_loop_its_turns(pair: Pair) -> None:
    """A wire that is always ready, to send or to receive, still lets other tasks run."""
    left, right = pair(zmq.PUSH, zmq.PULL, sndhwm=0, rcvhwm=0)
    sender, receiver = ZmqWire(left), ZmqWire(right)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    for number in range(5000):
        await sender.send([b"%d" % number])
    assert turns >= 5000 // 256
    turns = 0
    calls = 0
    found = 0
    while found < 5000:
        found += len(await within(receiver.receive()))
        calls += 1
    assert turns >= calls - 1
    counting.cancel()
    await asyncio.wait([counting])


async def test_what_is_not_taken_stays_under_the_high_water_mark(pair: Pair) -> None:
    """One receive takes at most a batch; the rest waits in libzmq."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right, batch=10)
    for number in range(100):
        await sender.send([b"%d" % number])
    first = await within(receiver.receive())
    assert len(first) <= 10
    receiver.close()
    other = ZmqWire(right)
    assert (await collect(other, 100 - len(first)))[0] == [b"%d" % len(first)]


# Limits.


async def test_a_long_message_is_cut_short(pair: Pair) -> None:
    """A frame over the limit comes as one byte too many, and of too many frames only the first ones come."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right, max_message=1000)
    for message in (
        [b"x" * 5000],
        [b"topic", b"x" * 5000],
        [b""] * 5000,
        [b"a", b"x" * 999, b"b"],
        [b"x" * 1000],
    ):
        await within(sender.send(message))
    found = await collect(receiver, 5)
    assert [list(map(len, frames)) for frames in found] == [[1001], [5, 1001], [0] * 1001, [1, 999], [1000]]


async def test_a_claim_of_gigabytes_is_refused_before_it_takes_memory(context: Sockets) -> None:
    """A peer that claims a huge frame is cut off, and the others are served."""
    right = context.socket(zmq.PULL)
    receiver = ZmqWire(right)
    port = right.bind_to_random_port("tcp://127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # ZMTP 3.0: a greeting, a READY command, then a frame that says it has 2 GiB. See rfc.zeromq.org/spec/23.
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 4) + b"PUSH"
    writer.write(greeting + b"\x04" + bytes([len(ready)]) + ready)
    writer.write(b"\x02" + struct.pack(">Q", 2**31) + b"begin")
    try:
        while await within(reader.read(4096)):
            pass  # until libzmq closes the connection
    except ConnectionResetError:
        pass
    writer.close()
    left = context.socket(zmq.PUSH)
    left.connect(f"tcp://127.0.0.1:{port}")
    await within(ZmqWire(left).send([b"fine"]))
    assert await within(receiver.receive()) == [[b"fine"]]


def test_a_limit_of_the_users_own_is_kept(context: Sockets) -> None:
    """libzmq's limit is set where there is none, and left alone where there is one."""
    first, second = context.socket(zmq.PULL), context.socket(zmq.PULL)
    second.setsockopt(zmq.MAXMSGSIZE, 77)
    ZmqWire(first, max_message=1000), ZmqWire(second)
    assert (first.getsockopt(zmq.MAXMSGSIZE), second.getsockopt(zmq.MAXMSGSIZE)) == (4000, 77)


# Life.


async def test_closing_a_wire_ends_its_waits_and_leaves_the_socket_open(pair: Pair) -> None:
    """Whoever waits on a closed wire gets a ConnectionError; other wires on the socket go on."""
    left, right = pair(zmq.PAIR, zmq.PAIR)
    first, second, peer = ZmqWire(left), ZmqWire(left), ZmqWire(right)
    waits = [asyncio.ensure_future(wire.receive()) for wire in (first, second)]
    await asyncio.sleep(0)
    first.close()
    first.close()
    with pytest.raises(ConnectionError):
        await within(waits[0])
    with pytest.raises(ConnectionError):
        await first.send([b"late"])
    await peer.send([b"for the second"])
    assert await within(waits[1]) == [[b"for the second"]]
    assert not left.closed


async def test_a_send_that_waits_is_told_when_the_wire_closes(context: Sockets) -> None:
    """A send without a peer ends with a ConnectionError when its wire is closed."""
    wire = ZmqWire(context.socket(zmq.PUSH))
    task = asyncio.ensure_future(wire.send([b"x"]))
    await asyncio.wait([task], timeout=0.01)
    wire.close()
    with pytest.raises(ConnectionError):
        await within(task)


@pytest.mark.parametrize("what", ["send", "receive"])
async def test_a_socket_closed_underneath_is_noticed(context: Sockets, what: str) -> None:
    """Whoever waits, and whoever comes later, gets a ConnectionError when the socket itself was closed."""
    socket = context.socket(zmq.PAIR)
    wire = ZmqWire(socket)
    call: Callable[[], Any] = wire.receive if what == "receive" else lambda: wire.send([b"x"])
    task = asyncio.ensure_future(call())
    await asyncio.wait([task], timeout=0.01)
    socket.close(linger=0)
    with pytest.raises(ConnectionError):
        await within(task)
    with pytest.raises(ConnectionError):
        await within(call())
    with pytest.raises(BadCall, match="closed"):
        ZmqWire(socket)


async def test_nothing_is_left_behind(context: Sockets) -> None:
    """Wires that were used and closed leave no descriptor, and their ports no trace, also unclosed ones."""

    async def use(close: bool) -> None:
        socket = context.socket(zmq.PULL)
        wire = ZmqWire(socket)
        task = asyncio.ensure_future(wire.receive())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if close:
            wire.close()
        socket.close(linger=0)

    await use(True)
    before = descriptors()
    for _ in range(50):
        await use(True)
    # libzmq closes a socket's descriptor on a thread of its own, a moment later.
    async with asyncio.timeout(10):
        while descriptors() > before + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_wire_moves_to_the_next_loop_and_leaves_none_behind(pair: Pair) -> None:
    """One wire serves program after program, each with a loop of its own."""
    left, right = pair(zmq.PUSH, zmq.PULL)
    sender, receiver = ZmqWire(left), ZmqWire(right)

    async def once(data: bytes) -> list[list[bytes]]:
        task = asyncio.ensure_future(receiver.receive())
        await asyncio.sleep(0)
        await sender.send([data])
        return await within(task)

    assert asyncio.run(once(b"first")) == [[b"first"]]
    assert asyncio.run(once(b"second")) == [[b"second"]]
    sender.close()
    receiver.close()
    before = descriptors()
    gc.collect()
    assert descriptors() <= before


@pytest.fixture(scope="module")
def uvloop() -> Any:
    """Give uvloop, with the pipe that it opens once and keeps."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    uvloop.new_event_loop().close()
    return uvloop


def test_uvloop_serves_as_well(pair: Pair, uvloop: Any) -> None:
    """The wire works on uvloop."""
    left, right = pair(zmq.PUSH, zmq.PULL, sndhwm=10, rcvhwm=10)
    sender, receiver = ZmqWire(left), ZmqWire(right)

    async def main() -> list[list[bytes]]:
        async def feed() -> None:
            for number in range(500):
                await sender.send([b"%d" % number])

        task = asyncio.ensure_future(feed())
        found = await collect(receiver, 500)
        await task
        sender.close()
        receiver.close()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [int(frame) for (frame,) in runner.run(main())] == list(range(500))


async def test_a_loop_that_cannot_watch_descriptors_is_named(
    context: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loop such as Windows' proactor the error says which loop it is and what to use."""

    def refuse(*args: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    with pytest.raises(BadCall, match="SelectorEventLoop"):
        await ZmqWire(context.socket(zmq.PULL)).receive()


async def test_wrong_use_says_what_to_do(context: Sockets) -> None:
    """A wrong socket, a wrong number, or a socket of the wrong type raises BadCall that names it."""
    with pytest.raises(BadCall, match=r"needs a zmq\.Socket.*'tcp:"):
        ZmqWire("tcp://127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(BadCall, match="not 0 and 256"):
        ZmqWire(context.socket(zmq.PULL), max_message=0)
    with pytest.raises(BadCall, match="PULL socket cannot send"):
        await ZmqWire(context.socket(zmq.PULL)).send([b"x"])
    with pytest.raises(BadCall, match="PUSH socket cannot receive"):
        await within(ZmqWire(context.socket(zmq.PUSH)).receive())
