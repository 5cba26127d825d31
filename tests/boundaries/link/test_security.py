"""Links over TCP against those who mean harm, or say nothing: they are cut, and the others do not notice."""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, x509
from link_server import WAIT, Server, client, crosses, cut, framed, hello, strangers
from memory_use import resident
from real import require

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._frames import CHALLENGE, Ack, Ping, pack
from nexus.boundaries.link._tcp import TcpWire
from nexus.errors import ConfigError, LinkDown, NexusError

SUPPORT = Path(__file__).parents[2] / "support"

BAD = {
    "2 GiB": (2**31 - 1).to_bytes(4, "big") + b"x",
    "no frame": framed(b"\x09hello"),
    "nothing": framed(b""),
    "a ping before the hello": framed(pack(Ping(b"12345678"))),
    "no JSON": framed(b"\x01{"),
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "hello, and then no frame": hello("x") + framed(b"\xff"),
    "hello, and then 2 GiB": hello("x") + (2**31 - 1).to_bytes(4, "big"),
    "two hellos": hello("x") + hello("y"),
    "a challenge": framed(CHALLENGE + bytes(64)),
}


@pytest.mark.parametrize("words", BAD.values(), ids=BAD)
async def test_whoever_breaks_the_protocol_is_cut(words: bytes) -> None:
    """It is cut at once, what it claims takes no memory, and another one goes on."""
    limits = LinkLimits(heartbeat=0.5)
    async with (
        Server(limits=limits) as server,
        client(server.link.port, name="good", limits=limits) as (nexus, link),
    ):
        await crosses(nexus, server, "before")
        before = resident()
        async with strangers(server.link.port, [words]) as (reader,):
            await cut(reader)
        assert resident() - before < 32 << 20
        await crosses(nexus, server, "after")
        assert link.link.ups == 1


async def test_what_cannot_be_read_stops_nothing() -> None:
    """An event that is too deep or too large for a link fails alone, and the next one crosses."""
    async with Server() as server, client(server.link.port, name="good") as (nexus, link):
        deep: Any = 1
        for _ in range(50):
            deep = [deep]
        for payload in (deep, "x" * 2**20):
            await nexus.ingest(Event(1, "t", 0, payload))
        await crosses(nexus, server, "after")
        assert link.link.ups == 1
        assert server.got == ["after"]


async def test_a_stranger_without_the_token_takes_nobodys_place() -> None:
    """Nothing is held for those who do not know the token, nor given up because of them."""
    limits = LinkLimits(max_peers=2)
    async with Server(token="secret", limits=limits) as server:
        async with client(server.link.port, name="good", token="secret") as (nexus, _):
            await crosses(nexus, server, "before")
        words = [hello("a"), framed(CHALLENGE + bytes(64)), framed(CHALLENGE), hello("good"), hello("b")]
        for each in words:
            async with strangers(server.link.port, [each]) as (reader,):
                await cut(reader)
        assert [peer.domain.split("#")[0] for peer in server.link._peers] == ["client"]
        assert server.link.counts.lost == {}


@pytest.fixture
def short_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a hello have a second and a half instead of five."""
    monkeypatch.setattr("nexus.boundaries.link._welcome.HELLO_TIMEOUT", 1.5)


@pytest.mark.usefixtures("short_hello")
async def test_strangers_who_say_nothing_are_dropped() -> None:
    """Half-open ones by the dozen: all are dropped in time, and meanwhile another one is served."""
    limits = LinkLimits(heartbeat=0.3)
    says = [(b"", b"\0\0\1", hello("x")[:20], hello(f"{number}"))[number % 4] for number in range(60)]
    async with (
        Server(limits=limits, max_peers=300) as server,
        client(server.link.port, name="good", limits=limits) as (nexus, _),
    ):
        await crosses(nexus, server, "before")
        before = resident()
        async with strangers(server.link.port, says) as readers:
            await crosses(nexus, server, "meanwhile")
            await asyncio.gather(*map(cut, readers))
        await crosses(nexus, server, "after")
        assert resident() - before < 32 << 20
        assert server.link.counts.peers == 1


async def refused(server: Server, reason: str) -> int:
    """Wait until the door has turned somebody away for a reason; return how often."""
    door: Any = server.link._door
    async with asyncio.timeout(WAIT):
        while not door.refused.get(reason):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return int(door.refused[reason])


@pytest.mark.usefixtures("short_hello")
@pytest.mark.parametrize("begins", [b"", hello("slow")], ids=["of the hello", "after the hello"])
async def test_who_sends_byte_by_byte_is_cut(begins: bytes) -> None:
    """A frame that dribbles in has its time: seconds for the hello, three heartbeats for any other."""
    limits = LinkLimits(heartbeat=0.5)
    loop = asyncio.get_running_loop()
    words = hello("x" * 150) if not begins else framed(pack(Ack(8192)) * 20)
    async with (
        Server(limits=limits) as server,
        client(server.link.port, name="good", limits=limits) as (nexus, link),
    ):
        await crosses(nexus, server, "before")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.link.port)
        began = loop.time()
        writer.write(begins)
        cutting = asyncio.ensure_future(cut(reader))
        for byte in words[:-1]:
            writer.write(bytes((byte,)))
            done, _ = await asyncio.wait([cutting], timeout=0.2)
            if done:
                break
        await cutting
        assert loop.time() - began < 5
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await crosses(nexus, server, "after")
        assert link.link.ups == 1


async def test_strangers_have_no_large_frames() -> None:
    """Who has not shown yet who it is is cut by what its first frame claims, and not by what it sends."""
    async with Server() as server:
        async with strangers(server.link.port, [(17_000).to_bytes(4, "big") + b"\x01{"]) as (reader,):
            await cut(reader)
        await refused(server, "size")


async def test_strangers_of_one_address_leave_room() -> None:
    """A crowd from one address that says nothing keeps out nobody of another one, at once or later."""
    writers: list[asyncio.StreamWriter] = []
    async with Server(max_peers=16) as server:
        for _ in range(60):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", server.link.port, local_addr=("127.0.0.2", 0)
            )
            writers.append(writer)
        for name in ("one", "two", "three"):
            async with client(server.link.port, name=name) as (nexus, link):
                await crosses(nexus, server, name)
                assert link.link.attempts == 0
        assert await refused(server, "address") >= 50
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_unfinished_frames_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the most of what is not finished is cut, until the rest is little; others go on."""
    monkeypatch.setattr("nexus.boundaries.link._tcp.HELD", 2**20)
    async with Server() as server, client(server.link.port, name="good") as (nexus, link):
        await crosses(nexus, server, "before")
        says = [hello(f"{n}") for n in range(5)]
        async with strangers(server.link.port, says) as readers:
            for reader in readers:
                await asyncio.wait_for(reader.read(10), WAIT)  # its hello is answered
            large = (2**20).to_bytes(4, "big") + b"\x02" * 400_000
            async with strangers(server.link.port, [hello("large")]) as (last,):
                await asyncio.wait_for(last.read(10), WAIT)
                for reader in readers[:3]:
                    reader._transport.write(large)  # type: ignore[attr-defined]
                await asyncio.wait(
                    [asyncio.ensure_future(cut(reader)) for reader in readers[:3]],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                await crosses(nexus, server, "after")
        await refused(server, "held")
        assert link.link.ups == 1


async def test_a_side_that_reads_nothing_is_let_go() -> None:
    """One that grants much and reads nothing is cut, and no half-closed connection stays behind."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(hello("deaf") + framed(pack(Ack(8192))))
        await gone.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    limits = LinkLimits(heartbeat=0.3, flush_timeout=0)
    async with server:
        async with client(server.sockets[0].getsockname()[1], limits=limits) as (nexus, link):
            await link.connected(WAIT)
            down = asyncio.Event()
            link.on_link(lambda state: down.set() if state.state == "down" else None)
            await nexus.ingest_many(Event(n, "t", 0, "x" * 5000) for n in range(8000))
            await asyncio.wait_for(down.wait(), WAIT)
        transports = [each for each in gc.get_objects() if isinstance(each, TcpWire)]
        assert not any(each._stream.transport.get_write_buffer_size() for each in transports)
        gone.set()


async def test_a_name_is_taken_by_one_at_a_time() -> None:
    """Whoever comes under the name of one who is there is turned away until that one has gone."""
    async with Server() as server:
        async with client(server.link.port, name="same") as (nexus, link):
            await crosses(nexus, server, "first")
            async with strangers(server.link.port, [hello("same")]) as (reader,):
                await cut(reader)
            await crosses(nexus, server, "second")
            assert link.link.ups == 1
        async with client(server.link.port, name="same") as (nexus, _):
            await crosses(nexus, server, "third")


async def test_no_more_peers_than_allowed() -> None:
    """One more than `max_peers` is turned away; those who are there go on."""
    async with Server(limits=LinkLimits(max_peers=2)) as server, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client(server.link.port, name=name)) for name in ("one", "two")
        ]
        for nexus, _ in clients:
            await crosses(nexus, server, "before")
        async with strangers(server.link.port, [hello("three")]) as (reader,):
            await cut(reader)
        for nexus, _ in clients:
            await crosses(nexus, server, "after")


async def test_other_machines_have_to_show_a_certificate() -> None:
    """Listening beyond the loopback is refused unless others show who they are, or anybody is said to do."""
    nexus = AsyncEventNexus()
    nexus.register(link := Link.listen("tcp://0.0.0.0:0"))
    with pytest.raises(ConfigError, match="insecure"):
        await link.start()
    await link.aclose()


@pytest.mark.parametrize("whose", ["own", "none", "other"])
async def test_only_certificates_of_the_authority_come_in(whose: str, tmp_path: Path) -> None:
    """Both sides show a certificate; without one, or with another authority's, nothing crosses."""
    require("cryptography", x509, "pip install cryptography")
    authority = Authority(tmp_path)
    signer = Authority(tmp_path, "stranger") if whose == "other" else authority
    mine = {} if whose == "none" else signer.issue("mine")
    server = Server(url="tcps://127.0.0.1:0", ca_file=authority.file, **authority.issue("server"))
    options = {"ca_file": authority.file, "name": "one"} | mine
    async with server, client(server.link.port, "tcps", **options) as (nexus, link):
        if whose == "own":
            await crosses(nexus, server, "secret")
        else:
            with contextlib.suppress(NexusError, LinkDown):
                await link.connected(1)
            assert not server.link._lines


async def test_an_end_that_stops_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The other side knows why the connection has ended, and takes it for no fault."""
    async with Server() as server, client(server.link.port, name="one") as (nexus, link):
        await crosses(nexus, server, "first")
        down: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        link.on_link(
            lambda state: down.set_result(state.error) if state.state == "down" and not down.done() else None
        )
        await server.link.aclose()
        error = await asyncio.wait_for(down, WAIT)
        assert error == "LinkEnded: the other side ends the connection: server stops"
    assert "LinkEnded" in caplog.text
    assert not [record for record in caplog.records if "the connection ends" in record.message]


async def test_a_listener_is_up_when_somebody_has_said_who_he_is() -> None:
    """One that only connects brings no listener up, and the last one that goes takes it down."""
    async with Server() as server:
        states: list[str] = []
        server.link.on_link(lambda state: states.append(state.state))
        async with strangers(server.link.port, [b"", hello("x")[:9]]):
            await asyncio.sleep(0.1)
            assert states == []
            async with client(server.link.port, name="one") as (nexus, _):
                await crosses(nexus, server, "first")
                assert states == ["up"]
        async with asyncio.timeout(WAIT):
            while states != ["up", "connecting"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def half_open(count: int) -> float:
    """Let a process connect so many times; all are cut in time, and meanwhile a good one is served.

    Returns how many times as long its events took, at the 99th percentile, as before.
    """
    async with Server() as server, client(server.link.port, name="good") as (nexus, link):
        number = 0

        async def times_while(goes_on: Callable[[int], bool]) -> list[float]:
            nonlocal number
            found: list[float] = []
            while goes_on(len(found)):
                number += 1
                began = time.perf_counter()
                await crosses(nexus, server, number)
                found.append(time.perf_counter() - began)
                await asyncio.sleep(0.01)
            return found

        alone = await times_while(lambda count: count < 300)
        before = resident()
        arguments = (str(SUPPORT / "half_open.py"), str(server.link.port), str(count))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        cutting = asyncio.ensure_future(process.stdout.readline())
        beside = await times_while(lambda _: not cutting.done())
        assert float(await cutting) < 12
        await process.wait()
        await crosses(nexus, server, "after")
        assert resident() - before < 80 << 20
        assert link.link.ups == 1
    return percentile(beside) / percentile(alone)


def percentile(times: list[float]) -> float:
    """Return the 99th."""
    return sorted(times)[len(times) * 99 // 100]


@pytest.mark.usefixtures("short_hello")
async def test_hundreds_who_are_half_open() -> None:
    """Three hundred who say a part of a hello or nothing: all are cut in time, and a good one is served."""
    await half_open(300)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_thousands_who_are_half_open(capsys: pytest.CaptureFixture[str]) -> None:
    """The long form: five thousand; it says how much longer the good one's events took."""
    ratio = await half_open(5000)
    with capsys.disabled():
        sys.stdout.write(f"\n5000 half open: the good one's p99 is {ratio:.2f} times what it is alone\n")
