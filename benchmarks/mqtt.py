"""Publishing to an MQTT broker, mosquitto as it comes, over the loopback.

The clock runs from the first message to the broker's answer to a last one of QoS 1: by then it has them all.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import orjson

from benchmarks._harness import OURS, Contest, MissingPeer, Outcome, Target, peer

AIOMQTT = "aiomqtt, one at a time"
HEISSKLEBER = "heisskleber"
TOPIC = "benchmark"
PATIENCE = 10.0

Publish = Callable[[int, int, int], Awaitable[float]]
"""Takes port, QoS and number of messages; returns the seconds they took."""


@asynccontextmanager
async def broker() -> AsyncIterator[int]:
    """Run a mosquitto with its defaults on a free port of the loopback; give the port."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    program = shutil.which("mosquitto", path=path)
    if program is None:
        raise MissingPeer("mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="nexus-benchmark-") as folder:
        file = Path(folder) / "conf"
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(PATIENCE):
                while not await _listens(port):  # noqa: ASYNC110 - another process tells nobody
                    await asyncio.sleep(0.01)
            yield port
        finally:
            process.terminate()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def ours(port: int, qos: int, count: int) -> float:
    """Send as fast as `send` takes them."""
    mqtt = peer("nexus.adapters.mqtt", OURS)
    config = mqtt.MqttConfig(host="127.0.0.1", port=port, topic=TOPIC, qos=qos)
    async with mqtt.MqttSender(config) as sender:
        await sender.connected(PATIENCE)
        start = perf_counter()
        for number in range(count):
            await sender.send({"i": number, "value": 21.5})
        await sender.deliver({"i": -1}, qos=1)
        await sender.flush()
        seconds = perf_counter() - start
        if sender.counts.items != count + 1:
            raise RuntimeError(f"lost some: {sender.counts}")
    return seconds


async def aiomqtt(port: int, qos: int, count: int) -> float:
    """Await each `publish`, as its documentation shows."""
    library = peer("aiomqtt", "aiomqtt")
    async with library.Client("127.0.0.1", port) as client:
        start = perf_counter()
        for number in range(count):
            await client.publish(TOPIC, orjson.dumps({"i": number, "value": 21.5}), qos=qos)
        await client.publish(TOPIC, b"-1", qos=1)
        return perf_counter() - start


async def heisskleber(port: int, qos: int, count: int) -> float:
    """Fill its queue, but never beyond what it holds: it would drop the oldest."""
    library = peer("heisskleber.mqtt", "heisskleber")
    config = library.MqttConf(host="127.0.0.1", port=port)
    sender = library.MqttSender(config)
    await sender.start()
    start = perf_counter()
    for number in range(count):
        await sender.send({"i": number, "value": 21.5}, topic=TOPIC, qos=qos)
        while sender._send_queue.qsize() > 900:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    while sender._send_queue.qsize():  # noqa: ASYNC110
        await asyncio.sleep(0)
    seconds = perf_counter() - start
    await sender.stop()
    return seconds


def _rate(publish: Publish, qos: int, *, share: float = 1.0) -> Callable[..., Outcome]:
    async def measured(count: int) -> Outcome:
        async with broker() as port:
            return Outcome({"rate": count / await publish(port, qos, count)})

    def contestant(messages: int) -> Outcome:
        return asyncio.run(measured(max(100, int(messages * share))))

    return contestant


def _contest(qos: int, title: str) -> Contest:
    return Contest(
        name=f"mqtt.qos{qos}",
        title=title,
        figures={"rate": "messages/s"},
        contestants={
            OURS: _rate(ours, qos),
            AIOMQTT: _rate(aiomqtt, qos, share=0.1),
            HEISSKLEBER: _rate(heisskleber, qos, share=0.1),
        },
        full={"messages": 100_000},
        quick={"messages": 1_000},
        targets=(Target(OURS, AIOMQTT, at_least=10), Target(OURS, HEISSKLEBER, at_least=10)),
    )


CONTESTS = (
    _contest(0, "messages of QoS 0 published, until the broker has read them"),
    _contest(1, "messages of QoS 1 published, until the broker has acknowledged them"),
)
