"""What every adapter promises, each against its real counterpart.

A new transport adds its pair to `PAIRS`. A pair starts the counterpart (`async with`), makes fresh halves
(`sender`, `receiver`), waits until what is sent arrives (`ready`), puts raw frames on the wire (`raw`), and
breaks and mends the link (`break_link`, `mend_link`) where it `can_break`. ``lossy`` says that the transport
itself may lose what is under way when it breaks or is flooded.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fixtures_console import ConsolePair
from fixtures_file import FilePair
from fixtures_memory import MemoryPair
from fixtures_mqtt import Mqtt5Pair, MqttPair, MqttWsPair
from fixtures_serial import SerialPair, SerialxPair
from fixtures_tcp import TcpListeningReceiverPair, TcpListeningSenderPair, TcpPair
from fixtures_udp import UdpPair
from fixtures_zmq import PubSubPair, PushPullPair, ZmqBrokerPair

from nexus.adapters._base import LinkState
from nexus.errors import BadCall, ConfigError, EndOfData, LinkDown, PackerError, UnpackerError

PAIRS: list[Any] = [
    MemoryPair,
    FilePair,
    ConsolePair,
    MqttPair,
    Mqtt5Pair,
    MqttWsPair,
    SerialPair,
    SerialxPair,
    TcpPair,
    TcpListeningReceiverPair,
    TcpListeningSenderPair,
    UdpPair,
    PushPullPair,
    PubSubPair,
    ZmqBrokerPair,
]
"""The classes of the pairs."""

LONG = [pytest.mark.slow, pytest.mark.timeout(300)]
"""The marks of a long form."""


TURNS = [0, 1, 2, 3, 5, 8, 13]
"""Turns of the event loop after which something is cancelled."""


@pytest.fixture(params=PAIRS, ids=lambda pair: pair.name)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A transport with its counterpart running."""
    patience = 290 if request.node.get_closest_marker("slow") else 50
    async with asyncio.timeout(patience), request.param() as pair:
        yield pair


async def receive_until(receiver: Any, last: object) -> list[Any]:
    """Receive data up to and including the last."""
    got = []
    async for data, _ in receiver:
        got.append(data)
        if data == last:
            break
    return got


async def cancel_after(task: "asyncio.Future[Any]", turns: int) -> None:
    """Cancel a task after some turns of the event loop, and wait for its end."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_order_is_kept(pair: Any) -> None:
    """Everything arrives in the order it was sent, and both accounts say so."""
    count = 100 if pair.lossy else 1000
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        before = sender.counts.items
        task = asyncio.ensure_future(receive_until(receiver, {"n": count - 1}))
        for number in range(count):
            await sender.send({"n": number})
        assert await task == [{"n": number} for number in range(count)]
        assert await sender.flush(10)
        assert sender.counts.items - before == count
        assert sender.counts.dropped == receiver.counts.dropped == receiver.counts.bad == {}


async def test_receive_many_gives_all_that_is_there(pair: Any) -> None:
    """Batches join into the same order, and none of them is empty."""
    count = 100
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        for number in range(count):
            await sender.send({"n": number})
        got: list[int] = []
        while len(got) < count:
            batch = await receiver.receive_many(limit=32)
            assert 1 <= len(batch) <= 32
            got += [data["n"] for data, _ in batch]
    assert got == list(range(count))


async def test_halves_start_and_stop_again_and_again(pair: Any) -> None:
    """Starting twice and stopping twice does no harm, and after a restart data flows as before."""
    receiver, sender = pair.receiver(), pair.sender()
    for number in range(5):
        for _ in range(2):
            await receiver.start()
            await sender.start()
        await pair.ready(sender, receiver)
        receiving = asyncio.ensure_future(receive_until(receiver, {"round": number}))
        while not receiving.done():  # a broker may know the last receiver only, and pass it by
            await sender.send({"round": number})
            await asyncio.wait([receiving], timeout=2 if pair.lossy else None)
        assert receiving.result()[-1] == {"round": number}
        for _ in range(2):
            await sender.stop()
            await receiver.stop()
        assert sender.link.state == receiver.link.state == "stopped"


async def test_stop_sends_what_was_accepted(pair: Any) -> None:
    """What `send` took before the stop arrives after it."""
    async with pair.receiver() as receiver:
        sender = pair.sender()
        await sender.start()
        await pair.ready(sender, receiver)
        task = asyncio.ensure_future(receive_until(receiver, {"n": 99}))
        for number in range(100):
            await sender.send({"n": number})
        await sender.stop()
        assert [data["n"] for data in await task] == list(range(100))


async def test_stop_is_bounded_when_nobody_is_there(pair: Any) -> None:
    """A stop waits no longer than its bound for a peer that is gone, and counts what was not sent."""
    if not pair.can_break:
        pytest.skip(f"{pair.name} has no peer that could be gone")
    sender = pair.sender(flush_timeout=0.1)
    await sender.start()
    await pair.break_link()
    sent = 0
    async with asyncio.timeout(10):
        for number in range(20):
            await sender.send({"n": number})
            sent += 1
        await sender.stop()
    counts = sender.counts
    assert counts.items + sum(counts.dropped.values()) == sent
    assert counts.waiting == 0
    await pair.mend_link()


async def test_a_stopped_half_says_so(pair: Any) -> None:
    """After the stop, receiving ends and sending fails, each with a reason, instead of waiting for ever."""
    receiver, sender = pair.receiver(), pair.sender()
    await receiver.start()
    await sender.start()
    waiting = asyncio.ensure_future(receive_until(receiver, None))
    await asyncio.sleep(0)
    await sender.stop()
    await receiver.stop()
    assert await waiting == []
    with pytest.raises(EndOfData, match="stopped"):
        await receiver.receive()
    with pytest.raises(LinkDown, match="stopped"):
        await sender.send({"n": 1})


async def test_a_stop_ends_every_wait(pair: Any) -> None:
    """Who waits for a link, or for frames to go, is told of a stop, after which the half may start again."""
    if not pair.can_break:
        pytest.skip(f"{pair.name} has no peer that could be gone")
    async with pair.receiver() as receiver:
        sender = pair.sender(flush_timeout=0.05)
        await pair.ready(sender, receiver)
        await pair.break_link()
        while sender.link.state == "up":
            await sender.send({"n": 0})
            await asyncio.sleep(0.01)
        before = sender.counts.dropped
        await sender.send({"n": 0})
        waits = [asyncio.ensure_future(sender.connected()), asyncio.ensure_future(sender.flush(10))]
        await asyncio.sleep(0)
        await sender.stop()
        with pytest.raises(LinkDown, match="was stopped"):
            await waits[0]
        assert await waits[1] is (sender.counts.dropped == before)
        await pair.mend_link()
        async with sender:
            await sender.connected(10)


async def test_a_bad_payload_costs_itself_only(pair: Any) -> None:
    """A frame that is no JSON raises once, is counted once, and the next one works."""
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        await pair.raw(b'{"n": \xff\xfe')
        with pytest.raises(UnpackerError, match="cannot unpack"):
            await receiver.receive()
        await sender.send({"n": 1})
        assert (await receiver.receive())[0] == {"n": 1}
        assert sum(receiver.counts.bad.values()) == 1


async def test_iterating_goes_on_after_bad_payloads(pair: Any) -> None:
    """``async for`` gives the good ones, and hands the bad ones to whoever asked for them."""
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        bad: list[UnpackerError] = []
        receiver.on_bad = bad.append
        for payload in (b"{", b"[1,", b"nonsense"):
            await pair.raw(payload)
            await sender.deliver({"good": payload.decode()})
        got = await receive_until(receiver, {"good": "nonsense"})
    assert [data["good"] for data in got] == ["{", "[1,", "nonsense"]
    assert [bytes(error.payload) for error in bad] == [b"{", b"[1,", b"nonsense"]


async def test_a_frame_that_is_too_large_is_refused(pair: Any) -> None:
    """The sender refuses it with its size; one that comes all the same costs itself only."""
    async with pair.receiver(max_size=1000) as receiver, pair.sender(max_size=1000) as sender:
        await pair.ready(sender, receiver)
        with pytest.raises(PackerError, match="1000 are allowed"):
            await sender.send("x" * 1001)
        await pair.raw(b'"' + b"x" * 1001 + b'"')
        await sender.send({"n": 1})
        assert (await receiver.receive())[0] == {"n": 1}
        while not receiver.counts.bad:  # noqa: ASYNC110 - it came by a connection of its own
            await asyncio.sleep(0.01)
        assert receiver.counts.bad == {"size": 1}


async def test_wrong_send_options_are_told(pair: Any) -> None:
    """An option the transport does not know is an error that names it, and nothing is sent."""
    async with pair.sender() as sender:
        with pytest.raises((BadCall, ConfigError), match="colour"):
            await sender.send({"n": 1}, colour="red")
        assert len(sender._backlog) == 0


async def test_what_cannot_be_packed_costs_itself_only(pair: Any) -> None:
    """Data the packer refuses raises where it is sent, and the next one goes."""
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        with pytest.raises(PackerError):
            await sender.send({1, 2})
        await sender.send({"n": 1})
        assert (await receiver.receive())[0] == {"n": 1}


async def test_a_full_inbox_counts_what_it_drops(pair: Any) -> None:
    """With a policy that drops, what was received and what was dropped add up to what was sent."""
    if pair.lossy or not getattr(pair, "drops", True):
        pytest.skip(f"{pair.name} may lose some before they are counted, or drops none by policy")
    async with pair.receiver(maxsize=10, overflow="drop_oldest") as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        for number in range(200):
            await sender.send({"n": number})
        assert await sender.flush(10)
        got: list[int] = []
        while not got or got[-1] != 199:
            got.append((await receiver.receive())[0]["n"])
        assert got == sorted(set(got))
        assert len(got) + receiver.counts.dropped.get("drop_oldest", 0) == 200


async def test_a_slow_consumer_holds_the_sender_up(pair: Any) -> None:
    """With ``block`` everything arrives, and the inbox never holds more than its bound."""
    if pair.lossy:
        pytest.skip(f"{pair.name} cannot hold its sender up")
    async with pair.receiver(maxsize=10) as receiver, pair.sender(maxsize=50) as sender:
        await pair.ready(sender, receiver)

        async def send() -> None:
            for number in range(1000):
                await sender.send({"n": number})

        task = asyncio.ensure_future(send())
        for number in range(1000):
            if number % 50 == 0:
                await asyncio.sleep(0.005)
            assert receiver.counts.waiting <= 10
            assert (await receiver.receive())[0] == {"n": number}
        await task


async def test_cancelled_receives_lose_nothing(pair: Any) -> None:
    """However often a receive is cancelled, at whatever moment, each item is received once."""
    count = 100
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        got: list[int] = []
        for number in range(count):
            task = asyncio.ensure_future(receiver.receive())
            for turn in range(number % 7):
                if turn == 2:
                    await sender.send({"n": number})
                await asyncio.sleep(0)
            if number % 7 <= 2:
                await sender.send({"n": number})
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append((await task)[0]["n"])
        while len(got) < count:
            got.append((await receiver.receive())[0]["n"])
        assert got == list(range(count))


async def test_cancelled_sends_were_sent_or_not(pair: Any) -> None:
    """What `send` returned for arrives; what was cancelled arrives at most once."""
    count = 100
    async with pair.receiver(maxsize=5) as receiver, pair.sender(maxsize=5) as sender:
        await pair.ready(sender, receiver)
        sent: set[int] = set()
        got: list[int] = []

        async def receive() -> None:
            async for data, _ in receiver:
                got.append(data["n"])
                if data["n"] == count:
                    return

        receiving = asyncio.ensure_future(receive())
        for number in range(count):
            task = asyncio.ensure_future(sender.send({"n": number}))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
                sent.add(number)
        await sender.send({"n": count})
        await receiving
    assert got == sorted(set(got))
    if not pair.lossy:
        assert sent <= set(got)


@pytest.mark.parametrize("turns", TURNS)
async def test_cancelled_starts_and_stops_leave_nothing(pair: Any, turns: int) -> None:
    """A start or a stop that is cancelled after any number of turns leaves nothing that stop does not end."""
    for half in (pair.receiver(), pair.sender()):
        for method in (half.start, half.stop):
            await cancel_after(asyncio.ensure_future(method()), turns)
        await half.stop()
        assert not half.is_started


@pytest.mark.parametrize("turns", TURNS)
async def test_cancelled_batches_lose_nothing(pair: Any, turns: int) -> None:
    """However often a `receive_many` is cancelled, each item is received once, and in order."""
    count = 30
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        got: list[int] = []
        for number in range(count):
            task = asyncio.ensure_future(receiver.receive_many(4))
            await sender.send({"n": number})
            await cancel_after(task, turns)
            if not task.cancelled():
                got += [data["n"] for data, _ in task.result()]
        while len(got) < count:
            got += [data["n"] for data, _ in await receiver.receive_many(4)]
        assert got == list(range(count))


@pytest.mark.parametrize("turns", TURNS)
async def test_cancelled_deliveries_went_or_not(pair: Any, turns: int) -> None:
    """What `deliver` returned for arrives; what was cancelled arrives at most once, and nothing waits on."""
    count = 30
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        receiving = asyncio.ensure_future(receive_until(receiver, {"n": count}))
        delivered: set[int] = set()
        for number in range(count):
            task = asyncio.ensure_future(sender.deliver({"n": number}))
            await cancel_after(task, turns)
            if not task.cancelled():
                task.result()
                delivered.add(number)
        await sender.deliver({"n": count})
        got = [data["n"] for data in await receiving]
        assert await sender.flush(10)
        assert sender.counts.waiting == 0
    assert got == sorted(set(got))
    if not pair.lossy:
        assert delivered <= set(got)


@pytest.mark.parametrize("turns", TURNS)
async def test_cancelled_waits_disturb_nothing(pair: Any, turns: int) -> None:
    """A `connected` or a `flush` that is cancelled leaves the half as it was; the next one waits as ever."""
    async with pair.receiver() as receiver:
        sender = pair.sender()
        for half in (sender, receiver):
            await cancel_after(asyncio.ensure_future(half.connected()), turns)
        await pair.ready(sender, receiver)
        receiving = asyncio.ensure_future(receive_until(receiver, {"n": 29}))
        for number in range(30):
            await sender.send({"n": number})
            await cancel_after(asyncio.ensure_future(sender.flush()), turns)
        assert await sender.flush(10)
        assert [data["n"] for data in await receiving] == list(range(30))
        assert not sender._backlog._empty
        assert not sender._link._waiters
        await sender.stop()


async def test_the_link_is_announced(pair: Any) -> None:
    """Listeners are told when the link comes up and when it is stopped, and `link` says the same."""
    async with pair.receiver() as receiver:
        sender = pair.sender()
        seen: list[LinkState] = []
        sender.on_link(seen.append)
        await pair.ready(sender, receiver)
        await sender.connected(10)
        assert sender.link.state == "up"
        await sender.stop()
    assert [state.state for state in seen if state.state in ("up", "stopped")] == ["up", "stopped"]
    assert sender.link == seen[-1]


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=LONG)])
async def test_a_peer_that_dies_and_comes_back(pair: Any, times: int) -> None:
    """After each break the link is announced as down, mends by itself, and data flows again in order."""
    if not pair.can_break:
        pytest.skip(f"{pair.name} has no peer that could die")
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        got: list[int] = []

        async def receive() -> None:
            async for data, _ in receiver:
                got.append(data["n"])

        receiving = asyncio.ensure_future(receive())
        number = 0
        for _ in range(times):
            for _ in range(10):
                await sender.send({"n": (number := number + 1)})
            await pair.break_link()
            for _ in range(10):
                await sender.send({"n": (number := number + 1)})
            await pair.mend_link()
            reached = number
            while not got or got[-1] <= reached:
                await sender.send({"n": (number := number + 1)})
                await asyncio.sleep(0.01)
        assert await sender.flush(10)
        while not pair.lossy and got[-1] < number:  # noqa: ASYNC110 - another process has the rest
            await asyncio.sleep(0.01)
        await receiver.stop()
        await receiving
    if pair.lossy:
        assert sender.counts.dropped == {}
        assert got == sorted(got)
    else:
        assert sorted(set(got)) == list(range(1, number + 1))
    assert sender.counts.ups + receiver.counts.ups > times


async def test_names_say_no_secret(pair: Any) -> None:
    """A half shows what it is connected to and how it stands."""
    sender = pair.sender()
    assert repr(sender).startswith(f"<{type(sender).__name__} ")
    assert "stopped" in repr(sender)
