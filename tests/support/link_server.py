"""A nexus that listens for links over TCP, those that connect to it, and strangers who say anything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link
from nexus.boundaries.link._frames import Hello, pack

__all__ = ["WAIT", "Server", "client", "crosses", "cut", "framed", "hello", "strangers"]

WAIT = 20.0
"""Seconds for what comes at once, on a machine that has better things to do."""


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def hello(name: str) -> bytes:
    return framed(pack(Hello(name, name, f"source of {name}")))


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
