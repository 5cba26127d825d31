"""A heisskleber process and ours exchange data over MQTT, both ways, through mosquitto."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import pytest
from mosquitto import Mosquitto
from real import require

from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender

PEER = """
import asyncio, sys
from heisskleber.mqtt import MqttConf, MqttReceiver, MqttSender

async def main():
    config = MqttConf(host="127.0.0.1", port=int(sys.argv[1]))
    receiver, sender = MqttReceiver(config, ["ask/+"]), MqttSender(config)
    await receiver.start()
    while True:
        data, meta = await receiver.receive()
        await sender.send(data | {"topic": meta["topic"]}, topic="answer", qos=int(sys.argv[2]))

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def heisskleber(port: int, qos: int) -> AsyncIterator[None]:
    """Run a heisskleber that answers whatever it is asked."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, str(port), str(qos))
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_heisskleber_and_we_exchange_data_both_ways(version: Any, qos: Any) -> None:
    """What we send its receiver gets, and what its sender sends we get: data, topics and order."""
    require("heisskleber", find_spec("heisskleber"), "pip install heisskleber")
    async with asyncio.timeout(30), Mosquitto() as broker, heisskleber(broker.port, qos):
        config = MqttConfig(host="127.0.0.1", port=broker.port, topic="answer", qos=qos, protocol=version)
        async with MqttReceiver(config) as receiver, MqttSender(config) as sender:
            await receiver.connected(10)
            while not receiver.counts.waiting:  # it tells nobody when it has subscribed
                await sender.send({"i": -1}, topic="ask/1")
                await asyncio.sleep(0.05)
            for number in range(200):
                await sender.send({"i": number}, topic="ask/1")
            got: list[Any] = []
            while not got or got[-1]["i"] < 199:
                data, meta = await receiver.receive()
                assert meta["topic"] == "answer"
                assert meta["qos"] == qos
                got.append(data)
    answers = [data for data in got if data["i"] >= 0]
    assert answers == [{"i": number, "topic": "ask/1"} for number in range(200)]
