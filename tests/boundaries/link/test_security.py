"""Links over TCP against those who mean harm, or say nothing: they are cut, and the others do not notice."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, x509
from memory_use import resident
from real import require

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._frames import Ack, Hello, Ping, pack
from nexus.boundaries.link._tcp import TcpWire
from nexus.errors import ConfigError, LinkDown, NexusError

WAIT = 20.0
"""Seconds for what comes at once, on a machine that has better things to do."""


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def hello(name: str, token: str = "") -> bytes:
    return framed(pack(Hello(name, name, f"source of {name}", (), token)))


class Server:
    """A nexus that listens, and what it handled."""

    def __init__(self, **options: Any) -> None:
        self.nexus = AsyncEventNexus(name="server")
        self.link = Link.listen(options.pop("url", "tcp://127.0.0.1:0"), name="server", **options)
        self.nexus.register(self.link)
        self.got: list[Any] = []
        self.came = asyncio.Event()
        self.nexus.add_handler("t", self._take)

    def _take(self, event: Event[Any]) -> None:
        self.got.append(event.payload)
        self.came.set()

    async def has(self, count: int) -> None:
        """Wait until so many events are handled."""
        async with asyncio.timeout(WAIT):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()

    async def __aenter__(self) -> "Server":
        await self.link.start()
        await self.nexus.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.nexus.__aexit__(*exc)


@asynccontextmanager
async def client(
    port: int, scheme: str = "tcp", **options: Any
) -> AsyncIterator[tuple[AsyncEventNexus, Link]]:
    """Run a nexus that is linked to a port."""
    nexus = AsyncEventNexus(name="client")
    link = Link.connect(f"{scheme}://127.0.0.1:{port}", **options)
    nexus.register(link)
    nexus.add_handler("t", link)
    async with nexus:
        yield nexus, link


@asynccontextmanager
async def strangers(port: int, says: list[bytes]) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connect one for each of what is to be said."""
    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    try:
        for words in says:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            writers.append(writer)
            readers.append(reader)
        yield readers
    finally:
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def cut(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has ended a connection."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(65536), WAIT):
            pass


async def crosses(nexus: AsyncEventNexus, server: Server, payload: Any) -> None:
    """Send an event, and wait for it on the other side."""
    count = len(server.got)
    await nexus.ingest(Event(1, "t", 0, payload))
    await server.has(count + 1)
    assert server.got[-1] == payload


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
    "the wrong token": hello("x", "wrong"),
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
        for name in ("a", "b", "c", "good"):
            async with strangers(server.link.port, [hello(name, "guess")]) as (reader,):
                await cut(reader)
        assert [peer.domain.split("#")[0] for peer in server.link._peers] == ["client"]
        assert server.link.counts.lost == {}


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
