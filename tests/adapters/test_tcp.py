"""TCP on its own terms: frames, links, peers, limits and attacks, over real sockets of the loopback."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from fixtures_tcp import Relay
from memory_use import PeakGrowth
from real import free_port

from nexus.adapters._endpoint import open_receiver, open_sender
from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.errors import ConfigError, LinkDown, OpenError, PackerError

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """No test of this file waits for ever."""
    async with asyncio.timeout(30):
        yield


class Server:
    """A plain server: who connects is put into `peers`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.peers: asyncio.Queue[Peer] = asyncio.Queue(100)
        self._writers: list[asyncio.StreamWriter] = []

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.peers.put_nowait((reader, writer))

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


def receiver_of(port: int, **options: Any) -> TcpReceiver[bytes]:
    return TcpReceiver(TcpConfig(host="127.0.0.1", port=port, **options), bytes_unpacker)


def sender_to(port: int, **options: Any) -> TcpSender[bytes]:
    return TcpSender(TcpConfig(host="127.0.0.1", port=port, **options), bytes_packer)


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[TcpReceiver[bytes]]:
    """A receiver that listens at a free port."""
    async with receiver_of(0, listen=True, **options) as receiver:
        yield receiver


@asynccontextmanager
async def peer_of(half: Any, data: bytes = b"") -> AsyncIterator[Peer]:
    """A plain client of whoever listens, which has written some data."""
    reader, writer = await asyncio.open_connection("127.0.0.1", half.port)
    try:
        writer.write(data)
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the fixture above bounds it."""
    while not condition():  # noqa: ASYNC110 - it is another side that changes
        await asyncio.sleep(0.005)


# The client and its link.


async def test_a_server_that_is_down_is_tried_a_few_times_a_second() -> None:
    """Refused again and again, it waits ever longer, and says why."""
    tries: list[float] = []
    receiver = receiver_of(free_port())
    loop = asyncio.get_running_loop()
    receiver.on_link(lambda state: tries.append(loop.time()) if state.state == "connecting" else None)
    async with receiver:
        await until(lambda: len(tries) >= 8)
        assert "refused" in str(receiver.link.error).lower()
    assert tries[7] - tries[0] > 0.7


async def test_a_server_that_takes_connections_and_ends_them_is_not_flooded() -> None:
    """Being up for no time at all is no reason to be in a hurry: the waits grow all the same."""
    ends: list[float] = []

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(asyncio.get_running_loop().time())
        writer.close()

    server = await asyncio.start_server(end, "127.0.0.1", 0)
    async with receiver_of(server.sockets[0].getsockname()[1]):
        await until(lambda: len(ends) >= 8)
    server.close()
    assert ends[7] - ends[0] > 0.7


@pytest.mark.parametrize("half", [TcpReceiver, TcpSender])
async def test_a_host_that_does_not_exist_is_told_and_tried_again(half: Any) -> None:
    """An unknown host is a link that is down, not an error that escapes; stopping works."""
    async with half(TcpConfig(host="no-such-host.invalid")) as adapter:
        with pytest.raises(LinkDown, match="no-such-host"):
            await adapter.connected(0.2)
        await until(lambda: adapter.link.state == "down" and adapter.link.attempts > 1)
        assert "gaierror" in str(adapter.link.error)


async def test_after_a_reset_it_connects_again() -> None:
    """A read error costs the connection, not the receiver."""
    async with Server() as server, receiver_of(server.port) as receiver:
        _, writer = await server.peers.get()
        writer.write(b"one\n")
        assert (await receiver.receive())[0] == b"one"
        reset(writer)
        _, writer = await server.peers.get()
        writer.write(b"two\n")
        assert (await receiver.receive())[0] == b"two"
        assert receiver.counts.ups == 2


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("frame", ["line", "length"])
async def test_a_frame_that_a_reset_cuts_is_counted(frame: str, listens: bool) -> None:
    """Half a frame is none when the connection is lost within it; it is counted, for client and server."""
    whole, half = (b"whole\n", b"hal") if frame == "line" else (b"\0\0\0\5whole", b"\0\0\0\5hal")
    async with (
        Server() as server,
        receiver_of(0 if listens else server.port, frame=frame, listen=listens) as receiver,
    ):
        if listens:
            _, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        else:
            _, writer = await server.peers.get()
        writer.write(whole + half)
        assert (await receiver.receive())[0] == b"whole"
        reset(writer)
        while not receiver.counts.bad:  # noqa: ASYNC110 - the system tells it by and by
            await asyncio.sleep(0.01)
        assert receiver.counts.bad == {"cut": 1}


async def test_a_line_that_a_stop_cuts_is_counted() -> None:
    """Once, however long it is: one that is too long is no frame already."""
    for tail, why in ((b"hal", "cut"), (b"x" * 2000, "size")):
        async with Server() as server:
            receiver = receiver_of(server.port, max_size=1000)
            await receiver.connected(5)
            _, writer = await server.peers.get()
            writer.write(b"whole\n" + tail)
            assert (await receiver.receive())[0] == b"whole"
            await asyncio.sleep(0.01)
            await receiver.stop()
            assert receiver.counts.bad == {why: 1}


async def test_the_last_line_needs_no_end() -> None:
    """What stands before the end of data is a frame, and the next connection begins anew."""
    async with Server() as server, receiver_of(server.port) as receiver:
        for line in (b"first", b"second"):
            _, writer = await server.peers.get()
            writer.write(line)
            writer.close()
            assert (await receiver.receive())[0] == line


async def test_lines_of_any_length_up_to_the_bound() -> None:
    """A line of 500,000 bytes arrives; one beyond `max_size` costs itself only."""
    async with Server() as server, receiver_of(server.port) as receiver:
        _, writer = await server.peers.get()
        writer.write(b"x" * 500_000 + b"\n" + b"y" * 3_000_000 + b"\nz\n")
        assert len((await receiver.receive())[0]) == 500_000
        assert (await receiver.receive())[0] == b"z"
        assert receiver.counts.bad == {"size": 1}
        assert receiver.counts.ups == 1


async def test_stopping_shows_the_server_the_end() -> None:
    """After the stop the other side reads the end of data, at once."""
    async with Server() as server:
        receiver = receiver_of(server.port)
        await receiver.start()
        reader, _ = await server.peers.get()
        await receiver.connected(5)
        await receiver.stop()
        assert await reader.read() == b""


@pytest.mark.parametrize(("retry", "tries"), [("never", 1), ("once", 2)])
async def test_retrying_can_be_bounded(retry: Any, tries: int) -> None:
    """Without a server, `never` tries once and `once` twice; then receiving raises."""
    async with receiver_of(free_port(), retry=retry) as receiver:
        with pytest.raises(LinkDown, match="ConnectionRefused"):
            await receiver.receive()
        assert receiver.link.state == "failed"
        assert receiver.link.attempts == tries


async def test_connecting_takes_no_longer_than_its_timeout() -> None:
    """A server that never answers is a link that is down, with the time it had."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(3):  # the queue of those who wait to be accepted is full now
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with receiver_of(full.getsockname()[1], connect_timeout=0.1) as receiver:
            await until(lambda: receiver.link.state == "down")
            assert "within 0.1 s" in str(receiver.link.error)


async def test_a_silent_death_is_watched_for() -> None:
    """The system probes a silent peer, and bounds how long sent data may stay unacknowledged."""
    async with Server() as server, sender_to(server.port, keepalive=7, user_timeout=3) as sender:
        sock = await _socket_of(sender, server)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000


async def test_who_came_is_sent_to_at_once() -> None:
    """The system holds nothing back to fill packets, neither here nor there, where asyncio forgets it."""
    async with listening() as receiver, peer_of(receiver, b"one\n"):
        await receiver.receive()
        (peer,) = receiver._listener.peers
        sock = peer.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def _socket_of(sender: TcpSender[bytes], server: Server) -> Any:
    """Find the sender's end of the only connection."""
    _, writer = await server.peers.get()
    await sender.connected(5)
    there = writer.get_extra_info("peername")
    transports = asyncio.get_running_loop()._transports.values()  # type: ignore[attr-defined]
    (mine,) = (each for each in transports if each.get_extra_info("sockname") == there)
    return mine.get_extra_info("socket")


async def test_the_sender_sees_the_peer_go_while_it_has_nothing_to_send() -> None:
    """An idle sender notices the end at once, and what is sent then waits for the next connection."""
    async with Server() as server, sender_to(server.port) as sender:
        _, writer = await server.peers.get()
        writer.close()
        reader, _ = await server.peers.get()
        await sender.send(b"kept")
        assert await reader.readline() == b"kept\n"
        assert sender.counts.ups == 2


async def test_a_stop_sends_all_and_then_the_end() -> None:
    """The peer reads every frame that was accepted, and then the end of data."""
    async with Server() as server:
        async with sender_to(server.port, maxsize=10_000) as sender:
            reader, _ = await server.peers.get()
            for number in range(10_000):
                await sender.send(b"%d" % number)
            reading = asyncio.ensure_future(reader.read(-1))
        assert (await reading).split() == [b"%d" % number for number in range(10_000)]


async def test_a_peer_that_does_not_read_holds_a_stop_up_no_longer_than_its_bound() -> None:
    """What could not be written in `flush_timeout` is counted as dropped."""
    async with Server() as server:
        sender = sender_to(server.port, flush_timeout=0.2, maxsize=50)
        await sender.start()
        _, writer = await server.peers.get()
        cast(asyncio.Transport, writer.transport).pause_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await sender.send(bytes(1_000_000))
        began = time.monotonic()
        await sender.stop()
        assert time.monotonic() - began < 2
        assert sender.counts.dropped["stopped"] >= 1


async def test_a_relay_that_is_killed_loses_at_most_what_was_under_way() -> None:
    """After each kill data flows again; what was not yet with the system comes, in order."""
    relay = Relay()
    await relay.open()
    async with (
        receiver_of(relay.ports[1], retry_cap=0.05) as receiver,
        sender_to(relay.ports[0], retry_cap=0.05) as sender,
    ):
        await sender.connected(5)
        await receiver.connected(5)
        for number in range(5):
            await relay.kill()
            await until(lambda: not (sender._link.is_up or receiver._link.is_up))
            await sender.send(b"%d" % number)
            await relay.open()
            assert (await receiver.receive())[0] == b"%d" % number
    await relay.close()


# Frames.


@pytest.mark.parametrize(
    "options",
    [
        {"frame": "line"},
        {"frame": "line", "terminator": b"\r\n"},
        {"frame": "fixed", "size": 3},
        {"frame": "length"},
        {"frame": "length", "width": 2, "byteorder": "little"},
    ],
    ids=str,
)
@pytest.mark.parametrize("listens", ["sender", "receiver"])
async def test_frames_come_as_they_went(options: dict[str, Any], listens: str) -> None:
    """Whatever tells frames apart, and whoever listens, they arrive whole and in order."""
    first: Any = (sender_to if listens == "sender" else receiver_of)(0, listen=True, **options)
    async with first:
        second: Any = (receiver_of if listens == "sender" else sender_to)(first.port, **options)
        async with second:
            sender, receiver = (first, second) if listens == "sender" else (second, first)
            frames = [b"%03d" % number for number in range(500)]
            for frame in frames:
                await sender.send(frame)
            assert [(await receiver.receive())[0] for _ in frames] == frames


async def test_a_frame_the_other_side_could_not_find_is_refused_where_it_is_sent() -> None:
    """A line that holds its own end, and a frame of the wrong size, raise in `send`."""
    async with (
        sender_to(0, listen=True) as lines,
        sender_to(0, listen=True, frame="fixed", size=3) as fixed,
    ):
        with pytest.raises(PackerError, match="terminator"):
            await lines.send(b"a\nb")
        with pytest.raises(PackerError, match="3"):
            await fixed.send(b"four")


async def test_a_stream_that_cannot_go_on_is_opened_anew() -> None:
    """A length beyond `max_size` costs the connection and is counted; the next one works."""
    async with Server() as server, receiver_of(server.port, frame="length") as receiver:
        _, writer = await server.peers.get()
        writer.write(b"\0\0\0\1a" + b"\x7f\xff\xff\xff")
        assert (await receiver.receive())[0] == b"a"
        _, writer = await server.peers.get()
        writer.write(b"\0\0\0\1b")
        assert (await receiver.receive())[0] == b"b"
        assert receiver.counts.bad == {"size": 1}


# Many peers.


async def test_all_peers_are_received_and_named() -> None:
    """What a peer sends carries its address, and each one's order is kept."""
    async with listening() as receiver, contextlib.AsyncExitStack() as stack:
        names = set()
        for _ in range(5):
            _, writer = await stack.enter_async_context(peer_of(receiver, b"1\n2\n3\n"))
            host, port = writer.get_extra_info("sockname")
            names.add(f"{host}:{port}")
        got: dict[str, list[bytes]] = {}
        for _ in range(15):
            data, meta = await receiver.receive()
            got.setdefault(meta["peer"], []).append(data)
    assert got == {name: [b"1", b"2", b"3"] for name in names}


async def test_a_sender_that_listens_sends_to_all() -> None:
    """Every peer gets every frame from when it connected; without a peer, frames wait."""
    async with sender_to(0, listen=True) as sender:
        await sender.send(b"waits")
        async with peer_of(sender) as (one, _), peer_of(sender) as (two, _):
            assert await one.readline() == b"waits\n"
            await until(lambda: len(sender._listener.peers) == 2)
            await sender.deliver(b"both")
            assert await one.readline() == b"both\n"
            assert (await two.read(100)).endswith(b"both\n")


async def test_a_peer_that_stays_behind_is_cut_and_the_others_go_on() -> None:
    """Who does not read for `slow_timeout` is cut and counted; others get everything."""
    async with (
        sender_to(0, listen=True, slow_timeout=0.2) as sender,
        peer_of(sender) as (_, slow),
        peer_of(sender) as (reader, _),
    ):
        cast(asyncio.Transport, slow.transport).pause_reading()
        await until(lambda: len(sender._listener.peers) == 2)
        reading = asyncio.ensure_future(_read_lines(reader, 40))
        for _ in range(40):
            await sender.send(bytes(500_000))
        assert await reading == 40
        assert sender.refused == {"slow": 1}


async def _read_lines(reader: asyncio.StreamReader, count: int) -> int:
    seen = 0
    while seen < count:
        seen += (await reader.read(2**20)).count(b"\n")
    return seen


# Limits and attacks: the good peer that came first notices nothing.


@asynccontextmanager
async def attacked(**options: Any) -> AsyncIterator[tuple[TcpReceiver[bytes], Callable[[], Any]]]:
    """A receiver with a good peer; gives it and what asserts that the good peer is served."""
    async with listening(**options) as receiver, peer_of(receiver) as (_, writer):
        prefix = b"\0\0\0\4" if options.get("frame") == "length" else b""

        async def served() -> None:
            writer.write(prefix + b"good" + (b"" if prefix else b"\n"))
            while (await receiver.receive())[0] != b"good":
                pass

        await served()
        yield receiver, served


@pytest.mark.parametrize("claim", [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\x10\0\1"])
async def test_a_peer_that_claims_too_much_is_cut_at_once(claim: bytes) -> None:
    """The claim alone is enough: nothing is allocated for it, and the reason is counted."""
    async with attacked(frame="length") as (receiver, served):
        growth, took = PeakGrowth(), []
        for _ in range(3):  # the best counts, whatever else the machine does
            began = time.monotonic()
            async with peer_of(receiver, claim) as (reader, _):
                assert await reader.read() == b""
            took.append(time.monotonic() - began)
        await until(lambda: receiver.refused == {"size": 3})
        await served()
        assert growth.bytes <= 2 << 20
        assert min(took) < 1


async def test_a_line_without_end_is_not_kept_and_is_cut_in_time() -> None:
    """64 MiB of one line take no memory, and `frame_timeout` ends the peer."""
    async with attacked(frame_timeout=0.3, max_size=2**16) as (receiver, served):
        chunk = bytes(2**16)
        growth, took = PeakGrowth(), []
        for _ in range(3):
            began = time.monotonic()
            async with peer_of(receiver) as (_, writer):
                with contextlib.suppress(OSError):
                    for _ in range(1000):
                        writer.write(chunk)
                        await writer.drain()
                await served()
                await until(lambda: receiver.refused == {"unfinished": len(took) + 1})
            took.append(time.monotonic() - began)
        assert receiver.counts.bad == {"size": 3}
        assert growth.bytes <= 2 << 20
        assert min(took) < 1.3


async def test_a_frame_that_does_not_end_in_time_costs_its_peer() -> None:
    """An unfinished frame is not waited for beyond `frame_timeout`; an idle peer may stay."""
    async with attacked(frame_timeout=0.2, frame="length") as (receiver, served):
        async with peer_of(receiver, b"\0\0\0\5abc") as (reader, _):
            assert await reader.read() == b""
        await until(lambda: receiver.refused == {"unfinished": 1})
        await served()


async def test_unfinished_frames_share_one_bound() -> None:
    """Together they may hold `max_held`; beyond it the peer that holds most is cut."""
    async with (
        attacked(max_size=2**16, max_held=2**17) as (receiver, served),
        contextlib.AsyncExitStack() as stack,
    ):
        for number in range(5):
            await stack.enter_async_context(peer_of(receiver, bytes(40_000 + number)))
        await until(lambda: receiver.refused.get("held") == 2)
        assert receiver._held.total <= 2**17
        await served()


async def test_no_more_peers_than_allowed() -> None:
    """One too many is turned away at once; when a place is free the next one gets it."""
    async with attacked(max_peers=2) as (receiver, served):
        async with peer_of(receiver, b"in\n"):
            await receiver.receive()
            async with peer_of(receiver) as (reader, _):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            assert receiver.refused == {"full": 1}
            await served()
        await until(lambda: len(receiver._listener.peers) == 1)
        async with peer_of(receiver, b"later\n"):
            assert (await receiver.receive())[0] == b"later"


async def test_peers_that_say_nothing_make_room() -> None:
    """A flood of connections that stay silent keeps nobody out for longer than `handshake_timeout`."""
    async with (
        attacked(max_peers=4, handshake_timeout=0.1) as (receiver, served),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(10):
            await stack.enter_async_context(peer_of(receiver))
        await until(lambda: receiver.refused.get("full", 0) >= 7)
        youngest = max(peer.since for peer in receiver._listener.peers)
        await until(lambda: asyncio.get_running_loop().time() - youngest > 0.1)
        async with peer_of(receiver, b"new\n"):
            assert (await receiver.receive())[0] == b"new"
        assert receiver.refused["silent"] == 1
        await served()


@pytest.mark.parametrize("frame", ["line", "length"])
async def test_garbage_costs_nobody_else(frame: str) -> None:
    """Random bytes make bad frames, or end their peer; others go on."""
    async with attacked(frame=frame) as (receiver, served):
        for _ in range(20):
            async with peer_of(receiver, os.urandom(5000)):
                pass
        await served()
        assert receiver.is_started


async def test_a_listener_that_is_full_lets_its_peers_wait() -> None:
    """With a full inbox peers are not read from, and nothing is lost when it is emptied."""
    async with (
        listening(maxsize=10) as receiver,
        sender_to(receiver.port, maxsize=10) as one,
        sender_to(receiver.port, maxsize=10) as two,
    ):

        async def feed(sender: TcpSender[bytes]) -> None:
            for number in range(2000):
                await sender.send(b"%d" % number)

        feeding = asyncio.gather(feed(one), feed(two))
        got: dict[str, list[int]] = {}
        for _ in range(4000):
            data, meta = await receiver.receive()
            assert receiver.counts.waiting <= 10
            got.setdefault(meta["peer"], []).append(int(data))
        await feeding
    assert list(got.values()) == [list(range(2000))] * 2


# What is wrong is told.


@pytest.mark.parametrize("half", [TcpReceiver, TcpSender])
async def test_a_port_in_use_is_told(half: Any) -> None:
    """Listening where somebody listens raises at the start and names the port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OpenError, match=f"127.0.0.1:{port}.*in use"):
            await half(TcpConfig(host="127.0.0.1", port=port, listen=True)).start()
    with pytest.raises(OpenError, match="no such host"):
        await half(TcpConfig(host="no-such-host.invalid", listen=True)).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize("half", [TcpReceiver, TcpSender])
async def test_nobody_listens_beyond_loopback_by_mistake(half: Any, host: str) -> None:
    """Without client certificates it takes `insecure` to let other machines in, and the error says so."""
    with pytest.raises(ConfigError, match="insecure=True"):
        await half(TcpConfig(host=host, port=0, listen=True)).start()
    async with half(TcpConfig(host=host, port=0, listen=True, insecure=True)) as adapter:
        assert adapter.port


@pytest.mark.parametrize("half", [TcpReceiver, TcpSender])
async def test_the_default_listens_on_loopback_only(half: Any) -> None:
    """Every socket of a default config is bound to a loopback address."""
    async with half(TcpConfig(listen=True, port=0)) as adapter:
        bound = [sock.getsockname()[0] for sock in adapter._listener._listening]
        assert bound
        assert all(ipaddress.ip_address(host).is_loopback for host in bound)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"port": "6000"}, "TcpConfig.port: found '6000'"),
        ({"port": 70_000}, "TcpConfig.port"),
        ({"listen": 1}, "TcpConfig.listen"),
        ({"retry": "sometimes"}, "TcpConfig.retry"),
        ({"frame": "fixed"}, "TcpConfig.size: found none"),
        ({"terminator": b""}, "TcpConfig.terminator"),
        ({"max_held": 10}, "TcpConfig.max_held"),
        ({"cert_file": "/some"}, "TcpConfig.cert_file.*tls is off"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options: dict[str, Any], match: str) -> None:
    """The error names the option, what was found, and what is allowed."""
    with pytest.raises(ConfigError, match=f"{match}.*allowed"):
        TcpConfig(**options)


async def test_a_url_is_enough() -> None:
    """Options of the URL are options of the config; ``tcps`` is TLS."""
    receiver = open_receiver("tcp://127.0.0.1:0?listen=1&terminator=\\r\\n", pack="text")
    assert isinstance(receiver, TcpReceiver)
    async with (
        receiver,
        open_sender(f"tcp://127.0.0.1:{receiver.port}?terminator=\\r\\n&pack=text") as sender,
    ):
        await sender.send("hello")
        assert (await receiver.receive())[0] == "hello"
    secure: Any = open_sender("tcps://example.org:7000")
    assert secure.config.tls
    assert secure.name == "tcps://example.org:7000"
    with pytest.raises(ConfigError, match="no 'user'"):
        open_sender("tcp://me@example.org")
