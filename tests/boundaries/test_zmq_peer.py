"""Laws about talking to async-nexus itself, in a process of its own, both ways."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
import zmq.asyncio

from nexus import Event, NamedEvent
from nexus.boundaries.zmq import ZmqEventConverter, ZmqEventReceiver, ZmqEventSender

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("async_nexus") is None, reason="async-nexus is not installed"
)

LIMIT = 30.0
"""Seconds any wait in these tests may take."""

EVENTS: list[tuple[int, int | str, int, Any]] = [
    (1, "t", 0, "plain"),
    (2, 7, -3, 'hé "x" \U0001f600'),
    (3, "t", 5, 2.5),
    (4, "t", 0, {"a": [1, None, True]}),
]

SEND = """
import asyncio, json, sys, zmq, zmq.asyncio
import async_nexus
from async_nexus.zmq import ZmqEventSender

class Alarm(async_nexus.NamedEvent):
    pass

async def main():
    with zmq.asyncio.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(sys.argv[1])
        sender = ZmqEventSender(socket)
        for fields in json.loads(sys.argv[2]):
            await sender.handle(async_nexus.Event(*fields), None)
        await sender.handle(Alarm(9, "hot", priority=-1), None)

asyncio.run(main())
"""

RECEIVE = """
import asyncio, json, sys, zmq, zmq.asyncio
from async_nexus.zmq import ZmqEventReceiver

async def main():
    with zmq.asyncio.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(sys.argv[1])
        receiver = ZmqEventReceiver(socket)
        for _ in range(int(sys.argv[2])):
            event = await receiver.obtain_event()
            print(json.dumps([event.id, event.type, event.priority, event.payload]), flush=True)

asyncio.run(main())
"""

SUBSCRIBE = """
import asyncio, sys, zmq, zmq.asyncio
import async_nexus
from async_nexus.zmq import ZmqEventConverter

async def main():
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(sys.argv[1])
        socket.subscribe("RX ")
        factory = async_nexus.EventFactory()
        converter = ZmqEventConverter(socket, event_type="radio", event_factory=factory)
        event = await converter.obtain_event()
        print(event.id, event.type, event.payload, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def context() -> Iterator[Any]:
    """Make a context whose sockets the tests close."""
    with zmq.asyncio.Context() as context:
        yield context


async def start(program: str, *arguments: str) -> asyncio.subprocess.Process:
    """Run a peer."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
    )


async def test_events_of_async_nexus_arrive(context: Any) -> None:
    """Whatever its ZmqEventSender sends, our receiver takes as the same event, in order."""
    async with ZmqEventReceiver(context.socket(zmq.PULL)) as receiver, asyncio.timeout(LIMIT):
        port = receiver.socket.bind_to_random_port("tcp://127.0.0.1")  # type: ignore[union-attr]
        peer = await start(SEND, f"tcp://127.0.0.1:{port}", json.dumps(EVENTS))
        found = [await receiver.obtain_event() for _ in range(len(EVENTS) + 1)]
        assert found == [*(Event(*fields) for fields in EVENTS), Event(9, "Alarm", -1, "hot")]
        assert not receiver.quarantined
        await peer.communicate()
        assert peer.returncode == 0


async def test_our_events_arrive_at_async_nexus(context: Any) -> None:
    """Whatever our sender sends, its ZmqEventReceiver takes as the same event, in order."""

    class Alarm(NamedEvent[str]):
        pass

    async with ZmqEventSender(context.socket(zmq.PUSH)) as sender, asyncio.timeout(LIMIT):
        port = sender.socket.bind_to_random_port("tcp://127.0.0.1")  # type: ignore[union-attr]
        peer = await start(RECEIVE, f"tcp://127.0.0.1:{port}", str(len(EVENTS) + 1))
        for fields in EVENTS:
            await sender.handle(Event(*fields))
        await sender.handle(Alarm(9, "hot", priority=-1))
        output, _ = await peer.communicate()
        found = [tuple(json.loads(line)) for line in output.splitlines()]
        assert found == [*EVENTS, (9, Alarm.__qualname__, -1, "hot")]


async def test_strings_reach_the_converters_of_both(context: Any) -> None:
    """A string published with a prefix becomes the same event there and here."""
    with context.socket(zmq.XPUB) as pub, context.socket(zmq.SUB) as sub:
        port = pub.bind_to_random_port("tcp://127.0.0.1")
        sub.connect(f"tcp://127.0.0.1:{port}")
        sub.subscribe("RX ")
        pub.setsockopt(zmq.XPUB_VERBOSE, 1)
        converter = ZmqEventConverter(sub, event_type="radio")
        async with asyncio.timeout(LIMIT):
            peer = await start(SUBSCRIBE, f"tcp://127.0.0.1:{port}")
            for _ in range(2):
                await pub.recv()  # one subscription each
            await pub.send_string("TX 1")
            await pub.send_string("RX 1")
            event = await converter.obtain_event()
            output, _ = await peer.communicate()
        assert output.decode().split(maxsplit=2) == [str(event.id), "radio", "RX 1\n"]
        assert event == Event(1, "radio", 0, "RX 1")
        converter.close()
