"""Laws about the ZMQ adapter, over real sockets."""

import asyncio
import contextlib
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from fixtures_zmq import PubSubPair, PushPullPair, ZmqBrokerPair
from memory_use import PeakGrowth
from real import free_port

from nexus.adapters import open_receiver, open_sender
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.errors import BadCall, ConfigError, LinkDown, OpenError

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"


pytestmark = pytest.mark.timeout(20)


def pull(**options: Any) -> ZmqReceiver[Any]:
    """Make a PULL on a free port."""
    given: dict[str, Any] = {"pattern": "pushpull", "port": 0}
    return ZmqReceiver(ZmqConfig(**(given | options)))


def port_of(half: ZmqReceiver[Any] | ZmqSender[Any]) -> int:
    """Return the port it is bound to."""
    return int(half.address.rpartition(":")[2])


def push_to(receiver: ZmqReceiver[Any], **options: Any) -> ZmqSender[Any]:
    """Make a PUSH to a PULL of the loopback."""
    given: dict[str, Any] = {"pattern": "pushpull", "port": port_of(receiver)}
    return ZmqSender(ZmqConfig(**(given | options)))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something outside of the event loop has happened."""
    while not condition():  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.005)


class Raw:
    """A plain ZMQ socket that connects to an adapter."""

    def __init__(self, kind: int, port: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __enter__(self) -> "zmq.Socket[Any]":
        return self.socket

    def __exit__(self, *exc: object) -> None:
        self.socket.close(linger=1000)
        self.context.term()


@pytest.mark.parametrize("kind", [PubSubPair, ZmqBrokerPair])
async def test_topics_are_prefixes(kind: Any) -> None:
    """A receiver gets what begins with one of its topics, and is told the topic."""
    async with (
        kind() as pair,
        pair.receiver(topic=("oven/", "gas")) as receiver,
        pair.sender(wait_for_subscriber=0.05) as sender,
    ):
        await sender.subscribed("oven/", 5)
        await sender.subscribed("gas", 5)
        for number, topic in enumerate(["gas/co2", "other", "oven/1", "oven"]):
            await sender.send(number, topic=topic)
        assert await receiver.receive() == (0, {"topic": "gas/co2"})
        assert await receiver.receive() == (2, {"topic": "oven/1"})
        await sender.flush(5)
        assert sender.counts.dropped == {"no_subscriber": 2}


async def test_subscriptions_change_while_it_runs() -> None:
    """What is subscribed to later comes, and what is given up does not."""
    async with (
        PubSubPair() as pair,
        pair.receiver(topic=("a",)) as receiver,
        pair.sender(wait_for_subscriber=0.05) as sender,
    ):
        await sender.subscribed("a", 5)
        receiver.subscribe(["b", "b"])
        await sender.subscribed("b", 5)
        receiver.unsubscribe("a")
        assert receiver.topics == ["b"]
        await until(lambda: not sender._subscribers.want(b"a"))
        for topic in "ab":
            await sender.send(topic, topic=topic)
        assert await receiver.receive() == ("b", {"topic": "b"})


async def test_a_bad_message_costs_itself() -> None:
    """Wrong frames, a topic that is not UTF-8 and too large a frame are counted, and the next one comes."""
    async with pull(max_size=100) as receiver:
        with Raw(zmq.PUSH, port_of(receiver)) as raw:
            raw.send(b"alone")
            raw.send_multipart([b"t", b"1", b"more"])
            raw.send_multipart([b"\xff\xfe", b"1"])
            raw.send_multipart([b"t" * 4150, b"1"])
            raw.send_multipart([b"t", b"1" * 101])
            raw.send_multipart([b"t", b"7"])
            assert await receiver.receive() == (7, {"topic": "t"})
        assert receiver.counts.bad == {"frames": 2, "topic": 2, "size": 1}


async def test_a_frame_that_claims_gigabytes_takes_no_memory() -> None:
    """A peer that announces 2 GiB is cut off before anything is allocated; others are served."""
    async with pull() as receiver, push_to(receiver) as sender:
        await sender.connected(5)
        growth, took = PeakGrowth(), []
        for _ in range(20):
            began = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(receiver))
            writer.write(GREETING + READY + b"\x02" + struct.pack(">Q", 2**31) + b"x" * 1000)
            with contextlib.suppress(OSError):
                await reader.read()  # until it is cut off
            took.append(time.monotonic() - began)
            writer.close()
        await sender.send(1)
        assert (await receiver.receive())[0] == 1
        assert growth.bytes <= 2 << 20
        assert statistics.median(took) < 1


async def test_garbage_and_half_open_peers_do_no_harm() -> None:
    """Who does not speak ZMTP, or says nothing, is dropped and counted; others are served."""
    async with pull(handshake_timeout=0.2) as receiver, push_to(receiver) as sender:
        await sender.connected(5)
        silent = [await asyncio.open_connection("127.0.0.1", port_of(receiver)) for _ in range(50)]
        for _, writer in silent[:25]:
            writer.write(os.urandom(1000))
        for reader, writer in silent:
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
        await sender.send(1)
        assert (await receiver.receive())[0] == 1
        await until(lambda: sum(receiver.refused.values()) >= 50)
        assert receiver.link.state == "up"


async def test_many_senders_are_received() -> None:
    """A hundred connections are served at once."""
    async with pull() as receiver:
        with contextlib.ExitStack() as stack:
            for number in range(100):
                stack.enter_context(Raw(zmq.PUSH, port_of(receiver))).send_multipart([b"t", b"%d" % number])
            assert {(await receiver.receive())[0] for _ in range(100)} == set(range(100))


@pytest.mark.parametrize("kind", [PushPullPair, PubSubPair])
async def test_a_slow_receiver_holds_the_sender_up(kind: Any) -> None:
    """With small high-water marks nothing is lost: whoever sends waits, and does not spin meanwhile."""
    small = {"send_hwm": 10, "receive_hwm": 10, "maxsize": 10}
    async with kind() as pair, pair.receiver(**small) as receiver, pair.sender(**small) as sender:
        await pair.ready(sender, receiver)
        task = asyncio.create_task(_send_all(sender, 600, "x" * 100_000))
        spent = time.process_time()
        done, _ = await asyncio.wait([task], timeout=0.4)
        assert not done
        assert time.process_time() - spent < 0.35
        assert [(await receiver.receive())[0][0] for _ in range(600)] == list(range(600))
        await task
        assert await sender.flush(5)
        assert sender.counts.dropped == receiver.counts.dropped == {}


@pytest.mark.parametrize("bind", [True, False])
async def test_what_is_sent_early_waits_for_the_subscriber(bind: bool) -> None:
    """A publisher that has just been started holds its data until its subscriber has come."""
    port = free_port()
    sender = ZmqSender[int](ZmqConfig(pattern="pubsub", port=port, bind=bind, wait_for_subscriber=10))
    async with sender:
        await _send_all(sender, 100)
        async with ZmqReceiver[Any](ZmqConfig(pattern="pubsub", port=port, bind=not bind)) as receiver:
            assert [(await receiver.receive())[0][0] for _ in range(100)] == list(range(100))


async def test_what_nobody_wants_is_counted() -> None:
    """After its patience a bound publisher drops what nobody subscribes to, and counts every frame."""
    config = ZmqConfig(pattern="pubsub", port=0, wait_for_subscriber=0.05)
    async with ZmqSender[int](config) as sender:
        await _send_all(sender, 50)
        assert not await sender.flush(5)
        assert sender.counts.dropped == {"no_subscriber": 50}
        with pytest.raises(LinkDown):
            await sender.deliver(1)


async def test_a_late_publisher_finds_the_subscribers_of_the_broker() -> None:
    """A publisher that connects after the subscribers, and after a restart of the broker, is told of them."""
    async with ZmqBrokerPair() as pair, pair.receiver() as receiver:
        await receiver.connected(5)
        for number in range(3):
            async with pair.sender() as sender:
                await sender.send(number)
                assert (await receiver.receive())[0] == number
            await pair.break_link()
            await pair.mend_link()


async def test_stop_sends_what_is_left() -> None:
    """What was sent right before a stop arrives, also what libzmq itself still held."""
    async with pull() as receiver:
        for number in range(20):
            async with push_to(receiver) as sender:
                await _send_all(sender, 50, number)
            assert [(await receiver.receive())[0] for _ in range(50)] == [[n, number] for n in range(50)]


async def test_stop_is_bounded_by_flush_timeout_and_linger() -> None:
    """A peer that takes nothing holds a stop up no longer than that, and what is left is counted."""
    config = {"flush_timeout": 0.1, "linger": 0.1, "send_hwm": 10, "receive_hwm": 10, "maxsize": 100}
    async with pull(maxsize=1, receive_hwm=10) as receiver, push_to(receiver, **config) as sender:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await _send_all(sender, 5000, "x" * 100_000)
        began = time.monotonic()
        await sender.stop()
        assert time.monotonic() - began < 1
        assert sender.counts.dropped["stopped"] >= 90


async def test_the_link_tells_the_truth() -> None:
    """It is up when a peer has shaken hands and down when the last has left, at both ends, with a reason."""
    async with PushPullPair() as pair, pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        seen: list[str] = []
        sender.on_link(lambda state: seen.append(f"{state.state}: {state.error}"))
        await pair.break_link()
        await until(lambda: receiver.link.state == "down" and "down: nobody answers there" in seen)
        assert receiver.link.error == "the last peer left"
        assert seen[0] == "down: the peer closed the connection"
        await pair.mend_link()
        await sender.connected(5)
        await receiver.connected(5)
        assert sender.link.ups == receiver.link.ups == 2


async def test_a_peer_that_falls_silent_is_gone() -> None:
    """Heartbeats find a connection that stands and carries nothing."""
    quick = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.2}
    async with PushPullPair() as pair, pair.receiver(**quick) as receiver, pair.sender(**quick) as sender:
        await pair.ready(sender, receiver)
        pair.relay.freeze()
        await until(lambda: sender.link.state != "up" and receiver.link.state != "up")


async def test_a_subscriber_survives_a_frame_that_is_too_large() -> None:
    """libzmq gives a connection up for good whose peer sends too much: it is made anew."""
    port = free_port()
    config = ZmqConfig(pattern="pubsub", port=port, max_size=100, retry_cap=0.1)
    async with (
        ZmqReceiver[Any](config) as receiver,
        ZmqSender[Any](ZmqConfig(pattern="pubsub", port=port)) as sender,
    ):
        for number in range(3):
            await receiver.connected(5)
            await sender.subscribed(timeout=5)
            await sender.send("x" * 100_000)
            await until(lambda: receiver.link.state != "up")
            await receiver.connected(5)
            await sender.subscribed(timeout=5)
            await sender.send(number)
            assert (await receiver.receive())[0] == number


async def test_without_retry_the_end_of_the_connection_is_the_end() -> None:
    """With ``never`` both halves say that the link has failed."""
    async with PushPullPair() as pair, pair.receiver() as receiver, pair.sender(retry="never") as sender:
        await pair.ready(sender, receiver)
        await pair.break_link()
        await until(lambda: sender.link.state == "failed")
        with pytest.raises(LinkDown, match="closed the connection"):
            await sender.send(1)


async def test_a_host_without_an_address_is_named_as_such() -> None:
    """The reason that the link is down says that the name is the trouble."""
    config = ZmqConfig(host="no.such.host.invalid", pattern="pushpull", port=5, linger=0)
    async with ZmqSender[Any](config) as sender:
        await until(lambda: sender.link.error is not None)
        assert sender.link.error == "the name of the host has no address"


async def test_a_port_in_use_is_named() -> None:
    """Binding twice raises OpenError with the address, and the first one goes on."""
    async with pull() as receiver:
        with pytest.raises(OpenError, match=f":{port_of(receiver)}: Address already in use"):
            await pull(port=port_of(receiver)).start()
        async with push_to(receiver) as sender:
            await sender.send(1)
            assert (await receiver.receive())[0] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.1", "some.host", "::"])
async def test_nobody_listens_beyond_loopback_by_accident(host: str) -> None:
    """To bind where other machines can come in takes CURVE or ``insecure``."""
    with pytest.raises(ConfigError, match="insecure"):
        await pull(host=host).start()


async def test_insecure_is_insecure() -> None:
    """Told so, it binds to every interface."""
    async with pull(host="*", insecure=True) as receiver, push_to(receiver) as sender:
        await sender.send(1)
        assert (await receiver.receive())[0] == 1


@pytest.mark.parametrize("protocol", ["ipc", "inproc", "ipv6"])
async def test_other_ways_than_ipv4(protocol: str, tmp_path: Path) -> None:
    """Files, memory and IPv6 carry the same."""
    if protocol == "ipv6" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    where: dict[str, dict[str, Any]] = {
        "ipc": {"protocol": "ipc", "host": str(tmp_path / "socket")},
        "inproc": {"protocol": "inproc", "host": "somewhere"},
        "ipv6": {"host": "::1", "port": free_port()},
    }
    config = ZmqConfig(pattern="pubsub", **where[protocol])
    async with ZmqSender[int](config) as sender, ZmqReceiver[int](config, "a") as receiver:
        await sender.connected(5)
        await sender.subscribed("a", 5)
        await sender.send(1, topic="a")
        assert await receiver.receive() == (1, {"topic": "a"})


async def test_messages_of_one_frame() -> None:
    """Without a topic frame the message is the data alone."""
    async with pull(topic_frame=False) as receiver, push_to(receiver, topic_frame=False) as sender:
        await sender.send({"a": 1})
        assert await receiver.receive() == ({"a": 1}, {})
        with Raw(zmq.PUSH, port_of(receiver)) as raw:
            raw.send_multipart([b"two", b"frames"])
            raw.send(b"3")
            assert await receiver.receive() == (3, {})
        assert receiver.counts.bad == {"frames": 1}


async def test_urls_say_it_all() -> None:
    """The scheme gives the pattern, the path the topic, the query the rest; each half has its schemes."""
    port = free_port()
    async with (
        open_receiver(f"zmq+sub://127.0.0.1:{port}/oven/", pack="text") as receiver,
        open_sender(f"zmq+pub://127.0.0.1:{port}/oven/1?pack=text&wait_for_subscriber=5") as sender,
    ):
        await sender.send("hot")
        assert await receiver.receive() == ("hot", {"topic": "oven/1"})
    for make, url in ((open_receiver, "zmq+push://h:1"), (open_sender, "zmq+sub://h:1")):
        with pytest.raises(ConfigError, match="has no"):
            make(url)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("zmq://host:5555", "publisher_port"),
        ("zmq+pub://host", "port"),
        ("zmq+push://user@host:5", "users"),
        ("zmq+pub://host:5/a?topic=b&topic=c", "topic"),
        ("zmq+pub://host:5?hwm=3", "hwm"),
        ("zmq://host?bind=1", "bind"),
    ],
)
async def test_wrong_urls_are_told_why(url: str, word: str) -> None:
    """A URL that makes no sense raises an error that names the option."""
    with pytest.raises(ConfigError, match=word):
        open_sender(url)


async def test_calls_that_make_no_sense() -> None:
    """A PULL has no subscriptions, a PUSH no subscribers, and a topic is text of a bounded length."""
    with pytest.raises(ConfigError, match="PULL"):
        ZmqReceiver[Any](ZmqConfig(pattern="pushpull", port=1), "topic")
    with pytest.raises(BadCall):
        ZmqReceiver[Any](ZmqConfig(pattern="pushpull", port=1)).subscribe("a")
    sender = ZmqSender[Any](ZmqConfig(pattern="pushpull", port=1))
    with pytest.raises(BadCall):
        await sender.subscribed()
    for topic in (7, "x" * 5000, "\ud800"):
        with pytest.raises(ConfigError, match="topic"):
            await sender.send(1, topic=topic)
    with pytest.raises(BadCall, match="retain"):
        await sender.send(1, retain=True)


async def _send_all(sender: ZmqSender[Any], count: int, *more: object) -> None:
    for number in range(count):
        await sender.send([number, *more])
