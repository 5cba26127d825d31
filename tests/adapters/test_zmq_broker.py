"""Laws about the broker, most of them about the command in a process of its own."""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest
import zmq
from fixtures_zmq import Broker
from real import free_port

from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.errors import BadCall, OpenError

pytestmark = pytest.mark.timeout(40)

Process = asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def command(*options: str) -> AsyncIterator[Process]:
    """Run `nexus zmq-broker`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nexus.cli", "zmq-broker", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def listening(process: Process) -> ZmqConfig:
    """Wait until it says where it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
    publishers, subscribers = (int(re.search(r"s: tcp://127\.0\.0\.1:(\d+)$", line)[1]) for line in lines)  # type: ignore[index]
    return ZmqConfig(publisher_port=publishers, subscriber_port=subscribers, retry_cap=0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_passes_messages_and_ends_within_a_second(number: signal.Signals) -> None:
    """The command says where it listens, passes data on, and on a signal says what it did and is gone."""
    async with command("--publisher-port", "0", "--subscriber-port", "0") as process:
        config = await listening(process)
        async with ZmqReceiver[int](config) as receiver, ZmqSender[int](config) as sender:
            await receiver.connected(5)
            for each in range(100):
                await sender.send(each, topic="t")
            assert [(await receiver.receive())[0] for _ in range(100)] == list(range(100))
            began = time.monotonic()
            process.send_signal(number)
            out, err = await asyncio.wait_for(process.communicate(), 5)
            assert time.monotonic() - began < 1
        assert (process.returncode, err) == (0, b"")
        assert b"messages 100, size " in out


async def test_a_port_in_use_is_said_plainly() -> None:
    """Where a port is taken the command ends with one line that names it."""
    async with Broker() as running:
        async with command("--publisher-port", str(running.config.publisher_port)) as process:
            _, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        expected = f"cannot bind tcp://127.0.0.1:{running.config.publisher_port}: Address already in use"
        assert err.decode() == f"Error: {expected}\n"


async def test_it_does_not_listen_beyond_loopback_by_accident() -> None:
    """Other machines come in with CURVE or not at all, unless the command line says so."""
    async with command("--host", "0.0.0.0") as process:
        _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert b"insecure" in err


async def test_a_slow_subscriber_does_not_hold_up_the_others() -> None:
    """One that reads nothing loses messages of its own; another one gets all."""
    async with Broker(send_hwm=100) as running:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        slow = context.socket(zmq.SUB)
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.subscribe(b"")
        slow.connect(running.broker.subscriber_address)
        async with ZmqReceiver[int](running.config) as receiver, ZmqSender[int](running.config) as sender:
            await receiver.connected(5)
            for number in range(200):
                await sender.send(number)
                assert (await receiver.receive())[0] == number
        slow.close(linger=0)
        context.term()


async def test_its_counts_are_right() -> None:
    """The broker counts messages, peers, subscriptions, and what was too large to pass on."""
    async with Broker(max_size=100) as running:
        async with (
            ZmqReceiver[str](running.config, ["a", "b"]) as receiver,
            ZmqSender[str](running.config.with_options(max_size=10_000)) as sender,
        ):
            await sender.subscribed("b", 5)
            await sender.send("x" * 5000, topic="a")
            await sender.send("x", topic="b")
            assert (await receiver.receive())[0] == "x"
            counts = running.broker.counts
        assert (counts.messages, counts.size, counts.subscriptions) == (1, 4, 2)
        assert (counts.publishers, counts.subscribers, counts.too_large) == (1, 1, 1)


async def test_it_opens_once_and_closes_twice() -> None:
    """Opening an open broker is a wrong call, closing a closed one is not; a taken port leaves nothing."""
    async with Broker() as running:
        with pytest.raises(BadCall):
            running.broker.open()
        with pytest.raises(OpenError):
            await Broker(publisher_port=free_port(), subscriber_port=running.config.subscriber_port).start()
    await running.broker.close()
