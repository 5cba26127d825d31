"""Laws about ZMQ with heisskleber, in a process of its own, through our broker."""

import asyncio
import sys
from importlib.util import find_spec

import pytest
from fixtures_zmq import Broker
from real import require

from nexus.adapters.zmq import ZmqReceiver, ZmqSender

pytestmark = pytest.mark.timeout(40)

COUNT = 200

PEER = """
import asyncio, sys
from heisskleber.zmq import ZmqConf, ZmqReceiver, ZmqSender

async def main():
    config = ZmqConf(publisher_port=int(sys.argv[1]), subscriber_port=int(sys.argv[2]))
    receiver, sender = ZmqReceiver(config, ["ask", "other"]), ZmqSender(config)
    await receiver.start()
    await sender.start()
    while True:
        data, meta = await receiver.receive()
        data["topic"] = meta["topic"]
        await sender.send(data, topic="answer")

asyncio.run(main())
"""


async def test_heisskleber_and_we_exchange_data_both_ways() -> None:
    """What we send its receiver gets, and what its sender sends we get: data, topics and order."""
    require("heisskleber", find_spec("heisskleber"), "pip install heisskleber")
    async with (
        Broker() as running,
        ZmqReceiver[dict[str, object]](running.config, topic="answer") as receiver,
        ZmqSender[dict[str, object]](running.config) as sender,
    ):
        ports = [str(running.config.publisher_port), str(running.config.subscriber_port)]
        peer = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, *ports)
        try:
            await sender.subscribed("ask", 20)
            await receiver.connected(5)
            async with asyncio.timeout(20):
                while running.broker.counts.publishers < 2:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
                while True:  # its publisher tells nobody when it has heard of our subscription
                    await sender.send({"n": -1}, topic="ask")
                    try:
                        async with asyncio.timeout(0.1):
                            await receiver.receive()
                            break
                    except TimeoutError:
                        continue
                for number in range(COUNT):
                    await sender.send({"n": number, "text": "\u00e9\u4e2d"}, topic="ask")
                expected = [{"n": n, "text": "\u00e9\u4e2d", "topic": "ask"} for n in range(COUNT)]
                got: list[dict[str, object]] = []
                while len(got) < COUNT:
                    data, meta = await receiver.receive()
                    assert meta == {"topic": "answer"}
                    got += [data] if data["n"] != -1 else []
            assert got == expected
        finally:
            peer.kill()
            await peer.communicate()
