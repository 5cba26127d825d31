"""Links in bad weather: over memory, TCP, ZMQ and UDP nothing is lost and nothing comes twice."""

import asyncio
import random
import socket
from typing import Any

import pytest
from link_sides import HASTE, Sides, sides
from real import free_port

from nexus import AsyncEventNexus
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.boundaries.link import Link, LinkLimits, chaos
from nexus.boundaries.link._chaos import ChaosWire, Weather
from nexus.errors import ConfigError
from nexus.testing import MemoryWire, virtual_time

BAD = "loss=0.1&dup=0.1&reorder=0.1&delay=0.002&seed=7"


async def crosses(it: Sides, count: int) -> None:
    """Send events both ways and see that all come, once, in the order of their priority."""
    for number in range(0, count, 100):
        await it.give(range(number, number + 100))
        await asyncio.sleep(0.005)
    await it.across()
    it.check(count)


async def messages(weather: Weather, count: int = 1000) -> list[int]:
    """Send messages through the weather; give the numbers of those that arrive in their order."""
    here, there = MemoryWire.pair()
    wire = ChaosWire(here, weather, random.Random(weather.seed))
    for number in range(count):
        await wire.send([b"%d" % number])
    await asyncio.sleep(10)
    arrived = [int(frames[0]) for frames in await there.receive()]
    wire.close()
    there.close()
    return arrived


@virtual_time
async def test_the_same_seed_brings_the_same_weather() -> None:
    """What happens to which message follows from the seed, and is as much as was asked for."""
    first, again = [await messages(Weather(loss=0.2, dup=0.1, seed=3)) for _ in range(2)]
    assert first == again
    assert 700 < len(set(first)) < 900
    assert len(first) > len(set(first))
    assert await messages(Weather()) == list(range(1000))


@pytest.mark.parametrize("seed", range(4))
@virtual_time
async def test_a_link_over_any_wire_stands_it(seed: int) -> None:
    """With loss, copies, overtaking, delay and spells of silence all crosses once and in order."""
    waiting: list[asyncio.Future[MemoryWire]] = []

    async def dial() -> MemoryWire:
        while waiting:
            if not (other := waiting.pop()).done():
                here, there = MemoryWire.pair()
                other.set_result(there)
                return here
        waiting.append(asyncio.get_running_loop().create_future())
        return await waiting[-1]

    worse = chaos(dial, loss=0.1, dup=0.1, reorder=0.1, delay=0.02, partition=0.2, spell=0.5, seed=seed)
    async with sides(Link.over(worse, limits=HASTE), Link.over(dial, limits=HASTE)) as it:
        await crosses(it, 1000)


@virtual_time
async def test_topics_in_memory_stand_it() -> None:
    """A pair of adapters in bad weather at both ends."""

    def end(there: str, here: str, seed: int) -> Link:
        sender = MemorySender[Any](MemoryConfig(topic=there))
        receiver = MemoryReceiver[Any](MemoryConfig(topic=here))
        weather = {"loss": 0.2, "dup": 0.1, "reorder": 0.1, "partition": 0.1, "seed": seed}
        return Link.over_adapters(sender, receiver, chaos=weather, limits=HASTE)

    async with sides(end("a", "b", 1), end("b", "a", 2)) as it:
        await crosses(it, 2000)


async def test_udp_that_loses_a_tenth_stands_it() -> None:
    """Of the datagrams of each side a tenth is lost, and no event is."""
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(2)]

    def end(there: int, here: int) -> Link:
        sender, receiver = UdpSender[Any](UdpConfig(port=there)), UdpReceiver[Any](UdpConfig(port=here))
        limits = LinkLimits(patience=0.05, heartbeat=0.5)
        return Link.over_adapters(sender, receiver, chaos={"loss": 0.1, "seed": here}, limits=limits)

    async with sides(end(*ports), end(*reversed(ports))) as it:
        await crosses(it, 2000)


@pytest.mark.parametrize("scheme", ["tcp", "zmq+tcp"])
async def test_a_url_may_ask_for_it(scheme: str) -> None:
    """Bad weather at the end that connects, and at the one that listens."""
    place = f"chaos+{scheme}://127.0.0.1:{free_port()}?{BAD}"
    limits = LinkLimits(patience=0.05, heartbeat=0.2)
    async with sides(Link.connect(place, limits=limits), Link.listen(place, limits=limits)) as it:
        await crosses(it, 1000)


async def test_a_door_in_bad_weather_has_a_port() -> None:
    """Port 0 is a free one here too, and options may stand beside the URL."""
    door = Link.listen("chaos+tcp://127.0.0.1:0", loss=0.05, seed=1)
    nexus = AsyncEventNexus(name="n")
    nexus.register(door)
    async with nexus:
        while not door.port:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("chaos+tcp://127.0.0.1:1?loss=2", "loss"),
        ("chaos+tcp://127.0.0.1:1?los=0.1", "los"),
        ("chaos+pigeon://127.0.0.1:1", "pigeon"),
        ("tcp://127.0.0.1:1?loss=0.1", "loss"),
    ],
)
def test_wrong_weather_is_refused(url: str, named: str) -> None:
    """What is out of range or unknown is named."""
    with pytest.raises(ConfigError, match=named):
        Link.connect(url)
