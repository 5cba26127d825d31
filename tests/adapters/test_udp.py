"""UDP on its own terms: datagrams, groups, broadcast, drops and who is not there."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from real import free_port

from nexus.adapters._endpoint import open_receiver, open_sender
from nexus.adapters._net import Address
from nexus.adapters._udp_socket import connected_socket
from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.errors import ConfigError, LinkDown, OpenError, PackerError


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """No test of this file waits for ever."""
    async with asyncio.timeout(20):
        yield


def receiver_at(port: int = 0, **options: Any) -> UdpReceiver[bytes]:
    return UdpReceiver(UdpConfig(port=port, **options), bytes_unpacker)


def sender_to(port: int, **options: Any) -> UdpSender[bytes]:
    return UdpSender(UdpConfig(port=port, **options), bytes_packer)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the fixture above bounds it."""
    while not condition():  # noqa: ASYNC110 - it is another side that changes
        await asyncio.sleep(0.005)


async def test_a_datagram_is_a_frame_and_says_where_from() -> None:
    """Empty ones, ones with any bytes, and the largest arrive as they went, with the sender's address."""
    async with receiver_at() as receiver, sender_to(receiver.port) as sender:
        for frame in (b"", b"\r\n\0", bytes(65_507)):
            await sender.send(frame)
            data, meta = await receiver.receive()
            assert data == frame
        host, _, port = meta["peer"].rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0


async def test_a_frame_beyond_a_datagram_is_refused_where_it_is_sent() -> None:
    """65,507 bytes are what a datagram holds."""
    async with sender_to(free_port(socket.SOCK_DGRAM)) as sender:
        with pytest.raises(PackerError, match="65507 are allowed"):
            await sender.send(bytes(65_508))


async def test_a_datagram_that_is_too_large_costs_itself_only() -> None:
    """It is counted, never cut; the next one arrives."""
    async with receiver_at(max_size=10) as receiver, sender_to(receiver.port) as sender:
        await sender.send(bytes(11))
        await sender.send(bytes(10))
        assert (await receiver.receive())[0] == bytes(10)
        assert receiver.counts.bad == {"size": 1}


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [(None, range(90, 100)), ("drop_oldest", range(90, 100)), ("drop_newest", range(10))],
)
async def test_without_room_the_policy_says_what_goes(overflow: Any, kept: range) -> None:
    """What was received and what was dropped add up; by default the oldest goes."""
    async with receiver_at(maxsize=10, overflow=overflow) as receiver, sender_to(receiver.port) as sender:
        for number in range(100):
            await sender.send(b"%d" % number)
        await until(lambda: sum(receiver.counts.dropped.values()) == 90)
        assert receiver.counts.dropped == {overflow or "drop_oldest": 90}
        assert [int((await receiver.receive())[0]) for _ in range(10)] == list(kept)


async def test_with_block_the_system_holds_and_drops_and_says_so() -> None:
    """Nothing is dropped here; what the kernel dropped is counted when the next datagram comes."""
    async with (
        receiver_at(maxsize=10, overflow="block", receive_buffer=4096) as receiver,
        sender_to(receiver.port) as sender,
    ):
        sent = 500
        for number in range(sent):
            await sender.send(b"%d" % number)
        assert await sender.flush(5)
        got: list[int] = []
        while len(got) + receiver.counts.dropped.get("kernel", 0) < sent:
            if not receiver.counts.waiting:
                await sender.send(b"%d" % sent)
                sent += 1
            got.append(int((await receiver.receive())[0]))
    assert got == sorted(got)
    assert set(receiver.counts.dropped) == {"kernel"}


async def test_nobody_there_is_seen_and_sending_goes_on() -> None:
    """While the port is closed the link is down and says why; once it is open all is well again."""
    port = free_port(socket.SOCK_DGRAM)
    async with sender_to(port) as sender:
        for _ in range(3):
            await sender.deliver(b"lost")
            await until(lambda: sender.link.state == "down")
        assert "refused" in str(sender.link.error)
        async with receiver_at(port) as receiver:
            await sender.send(b"here")
            assert (await receiver.receive())[0] == b"here"
            await sender.connected(5)
        assert sender.counts.items == 4
        assert sender.counts.ups == 2


@pytest.mark.parametrize("interface", ["127.0.0.1", "lo"])
async def test_a_group_reaches_all_who_joined(interface: str) -> None:
    """Two receivers of one group and port get each datagram; another group gets none."""
    options: dict[str, Any] = {"host": "239.255.7.1", "interface": interface}
    async with (
        receiver_at(**options) as one,
        receiver_at(one.port, **options) as two,
        receiver_at(one.port, host="239.255.7.2", interface=interface) as other,
        sender_to(one.port, **options) as sender,
    ):
        await sender.send(b"all")
        assert (await one.receive())[0] == (await two.receive())[0] == b"all"
        assert other.counts.waiting == 0


@pytest.mark.parametrize(("loopback", "ttl"), [(False, 1), (True, 7)])
def test_how_far_a_group_is_sent_can_be_said(loopback: bool, ttl: int) -> None:
    """The options reach the socket: whether this machine hears itself, and how many networks are crossed."""
    config = UdpConfig(host="239.255.7.3", interface="127.0.0.1", loopback=loopback, ttl=ttl)
    with connected_socket(Address(socket.AF_INET, (config.host, 5000)), config) as sock:
        assert bool(sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)) is loopback
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == ttl


async def test_broadcasting_must_be_allowed() -> None:
    """With `broadcast` it reaches who listens at the network's address; without, the link says no."""
    options: dict[str, Any] = {"host": "127.255.255.255"}
    async with receiver_at(**options) as receiver:
        async with sender_to(receiver.port, **options, broadcast=True) as sender:
            await sender.send(b"to all")
            assert (await receiver.receive())[0] == b"to all"
        async with sender_to(receiver.port, **options) as sender:
            with pytest.raises(LinkDown, match="Permission"):
                await sender.connected(0.1)


async def test_a_socket_that_fails_is_opened_again() -> None:
    """A network that goes down costs what comes meanwhile, not the receiver."""
    port = free_port(socket.SOCK_DGRAM)
    async with receiver_at(port) as receiver, sender_to(port) as sender:
        await receiver.connected(5)
        assert receiver._sock is not None
        receiver._failed = OSError(errno.ENETDOWN, "Network is down")
        receiver._pause(receiver._sock)
        await until(lambda: receiver.counts.ups == 2)
        await sender.send(b"again")
        assert (await receiver.receive())[0] == b"again"


# What is wrong is told.


async def test_a_port_in_use_and_an_unknown_host_are_told() -> None:
    """What cannot be opened here raises at the start; an unknown far host is a link that is down."""
    async with receiver_at() as receiver:
        with pytest.raises(OpenError, match=f"{receiver.port}.*in use"):
            await receiver_at(receiver.port).start()
    with pytest.raises(OpenError, match="no such host"):
        await receiver_at(host="no-such-host.invalid").start()
    async with sender_to(1, host="no-such-host.invalid") as sender:
        with pytest.raises(LinkDown, match="no-such-host"):
            await sender.connected(0.1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "239.255.7.9"])
async def test_nobody_receives_beyond_loopback_by_mistake(host: str) -> None:
    """UDP cannot tell who sends, so it takes `insecure`; the error says so."""
    with pytest.raises(ConfigError, match="insecure=True"):
        await receiver_at(host=host).start()
    if host != "239.255.7.9":
        async with receiver_at(host=host, insecure=True) as receiver:
            assert receiver.port


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"port": "1"}, "UdpConfig.port: found '1'"),
        ({"ttl": 300}, "UdpConfig.ttl"),
        ({"max_size": 65_508}, "UdpConfig.max_size"),
        ({"broadcast": "yes"}, "UdpConfig.broadcast"),
        ({"overflow": "fail"}, "UdpConfig.overflow"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options: dict[str, Any], match: str) -> None:
    """The error names the option, what was found, and what is allowed."""
    with pytest.raises(ConfigError, match=f"{match}.*allowed"):
        UdpConfig(**options)


async def test_an_unknown_interface_is_told() -> None:
    """The error names the option, and no socket stays open."""
    with pytest.raises(ConfigError, match="interface: found 'none0'"):
        await receiver_at(host="239.255.7.4", interface="none0", insecure=True).start()


async def test_a_url_is_enough() -> None:
    """A group, its interface and the packing fit into one URL."""
    place = "udp://239.255.7.5:{}?interface=127.0.0.1&pack=text"
    receiver: Any = open_receiver(place.format(0))
    async with receiver, open_sender(place.format(receiver.port)) as sender:
        await sender.send("hello")
        assert (await receiver.receive())[0] == "hello"
