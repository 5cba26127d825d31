"""Links over pairs of adapters: memory topics, UDP, a serial line, topics of a broker, all of which break."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from link_sides import COUNT, HASTE, break_off, sides, through_breaks
from mosquitto import Mosquitto
from null_modem import NullModem
from real import free_port

from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.serial import SerialConfig, SerialReceiver, SerialSender
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.boundaries.link import Link
from nexus.boundaries.link._adapters import Part
from nexus.errors import ConfigError
from nexus.testing import virtual_time


def memory(there: str, here: str, **options: Any) -> Link:
    sender = MemorySender[Any](MemoryConfig(topic=there))
    return Link.over_adapters(sender, MemoryReceiver[Any](MemoryConfig(topic=here)), **options)


@virtual_time
async def test_topics_in_memory_carry_a_link() -> None:
    """Both ways at once, all comes once and in the order of its priority."""
    async with sides(memory("a", "b"), memory("b", "a")) as it:
        await it.give(range(COUNT))
        await it.across()
        it.check(COUNT)


@virtual_time
async def test_an_end_that_begins_anew_is_followed() -> None:
    """One end goes away and comes back again and again; the other one goes on with it each time."""
    async with sides(memory("a", "b", limits=HASTE), memory("b", "a", limits=HASTE)) as it:

        async def breaks() -> None:
            await asyncio.sleep(0.3)
            await break_off(it.links[1])

        await through_breaks(it, breaks, 5)


async def test_udp_carries_a_link() -> None:
    """Datagrams both ways, with parts no larger than a datagram may be; a side breaks off five times."""
    ports = [free_port(socket.SOCK_DGRAM) for _ in range(2)]

    def end(there: int, here: int) -> Link:
        sender = UdpSender[Any](UdpConfig(port=there, max_size=1400))
        return Link.over_adapters(sender, UdpReceiver[Any](UdpConfig(port=here)), limits=HASTE)

    async with sides(end(*ports), end(*reversed(ports))) as it:

        async def breaks() -> None:
            await break_off(it.links[1])

        await through_breaks(it, breaks, 5)


async def test_a_serial_line_carries_a_link(tmp_path: Path) -> None:
    """Both devices are unplugged five times, with what is on its way."""
    async with NullModem(tmp_path) as cable:

        def end(port: str) -> Link:
            config = SerialConfig(port=port, frame="length", max_size=4096, retry_cap=0.05, driver="pyserial")
            return Link.over_adapters(SerialSender[Any](config), SerialReceiver[Any](config), limits=HASTE)

        async with sides(end(cable.a), end(cable.b)) as it:

            async def breaks() -> None:
                cable.unplug()
                cable.plug()

            await through_breaks(it, breaks, 5)


async def test_two_topics_of_a_broker_carry_a_link() -> None:
    """With QoS 0, and the broker killed twice with what it held."""
    async with Mosquitto() as broker:

        def end(there: str, here: str) -> Link:
            def config(topic: str) -> MqttConfig:
                return MqttConfig(host="127.0.0.1", port=broker.port, topic=topic, retry_cap=0.05)

            return Link.over_adapters(
                MqttSender[Any](config(there)), MqttReceiver[Any](config(here)), limits=HASTE
            )

        async with sides(end("a", "b"), end("b", "a")) as it:

            async def breaks() -> None:
                broker.kill()
                await broker.start()

            await through_breaks(it, breaks, 2)


def test_lines_do_not_carry_a_link() -> None:
    """A serial line that carries lines is refused, and the error names what to set."""
    config = SerialConfig(port="/dev/null")
    with pytest.raises(ConfigError, match="frame='length'"):
        Link.over_adapters(SerialSender[Any](config), SerialReceiver[Any](config))


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_a_damaged_part_is_none(place: int) -> None:
    """Whichever byte is damaged, the part is left out; undamaged it comes back as it was."""
    part = Part((1, 2), (3, 4), 5, 0, 1, b"x" * 20)
    data = bytearray(part.pack())
    assert Part.unpack(bytes(data)) == part
    data[place] ^= 0x10
    assert Part.unpack(bytes(data)) is None


@virtual_time
async def test_a_link_that_was_just_closed_can_be_started() -> None:
    """Closed and started in one breath it runs, and what it held goes."""
    one, other = memory("a", "b", limits=HASTE), memory("b", "a", limits=HASTE)
    async with sides(one, other) as it:
        await it.give(range(COUNT))
        other.close()
        await other.start()
        await it.across()
        it.check(COUNT)


@virtual_time
@pytest.mark.parametrize("token", ["", "a secret"])
async def test_a_transport_that_is_back_has_a_new_session(token: str) -> None:
    """Nobody waits for what may be lost with the old connection of the transport: the link begins anew."""
    links = [memory(*topics, token=token) for topics in (("a", "b"), ("b", "a"))]
    async with sides(*links) as it:
        halves = [half for link in links for half in (link._dialler.sender, link._dialler.receiver)]  # type: ignore[union-attr]
        for number in range(10):
            await it.give(range(number * 100, (number + 1) * 100))
            for half in halves:
                half._link.down("as if it were")
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            for half in halves:
                half._link.up()
                await asyncio.sleep(0.003)
            await it.across()
            assert asyncio.get_running_loop().time() - began < 0.6
        it.check(1000)
        assert all(link.link.ups > 10 for link in links)


async def test_two_listening_halves_find_each_other() -> None:
    """Each side's receiver listens, and is connected when the other side's sender has started."""
    ports = [free_port() for _ in range(2)]

    def end(there: int, here: int) -> Link:
        sender = TcpSender[Any](TcpConfig(host="127.0.0.1", port=there, frame="length"))
        receiver = TcpReceiver[Any](TcpConfig(host="127.0.0.1", port=here, frame="length", listen=True))
        return Link.over_adapters(sender, receiver)

    async with sides(end(*ports), end(*reversed(ports))) as it:
        await it.give(range(COUNT))
        await it.across()
        it.check(COUNT)
