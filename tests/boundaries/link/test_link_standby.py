"""Links whose outbox another process has: they wait, follow it, and are let in under its name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from link_server import WAIT, Server, framed, strangers
from real import free_port

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._frames import Hello, pack
from nexus.boundaries.links import OutboxStateEvent, announce_outboxes
from nexus.boundaries.outbox import Outbox, OutboxInUse, OutboxState

QUICK = LinkLimits(patience=0.1, heartbeat=0.2, flush_timeout=0.2)


def hello(generation: int, source: str = "box") -> bytes:
    return framed(pack(Hello("ingest", "ingest", source, generation=generation)))


def outbox(path: Path) -> Outbox:
    return Outbox(path / "out.box", takeover_after=5)


@asynccontextmanager
async def running(link: Link, handler: Any = None) -> AsyncIterator[AsyncEventNexus]:
    """Run a nexus with a link."""
    nexus = AsyncEventNexus(name=f"nexus of {link.name}", grace=0.2)
    nexus.register(link)
    nexus.add_handler("t", handler or link)
    async with nexus:
        yield nexus


async def opened(box: Outbox) -> None:
    """Wait until an outbox is open."""
    told = asyncio.Event()
    box.on_state(lambda state: told.set() if state.condition == "open" else None)
    if not box.is_open:
        await asyncio.wait_for(told.wait(), WAIT)


async def said(reader: asyncio.StreamReader) -> bytes:
    """Read what the other side says until it ends the connection."""
    return await asyncio.wait_for(reader.read(), WAIT)


@pytest.mark.parametrize("listens", [False, True])
async def test_a_nexus_starts_and_stops_while_its_link_stands_by(tmp_path: Path, listens: bool) -> None:
    """Waiting for the file holds up nothing, and leaves nothing behind."""
    async with outbox(tmp_path):
        mine = outbox(tmp_path)
        make = Link.listen if listens else Link.connect
        link = make(f"tcp://127.0.0.1:{free_port()}", name="ingest", outbox=mine, limits=QUICK)
        async with asyncio.timeout(WAIT), running(link):
            assert (link.link.state, mine.is_open) == ("connecting", False)
        assert (link.link.state, mine.state.condition) == ("stopped", "closed")


async def test_without_a_time_to_take_over_it_does_not_start(tmp_path: Path) -> None:
    """A file in use is an error where nobody said that one may stand by."""
    async with Outbox(tmp_path / "out.box"):
        link = Link.connect("tcp://127.0.0.1:1", name="ingest", outbox=tmp_path / "out.box")
        AsyncEventNexus().register(link)
        with pytest.raises(OutboxInUse):
            await link.start()


async def test_a_link_follows_another(tmp_path: Path) -> None:
    """Events given to the one that stands by wait, and go once it has the file."""
    async with Server(limits=QUICK) as server, asyncio.timeout(2 * WAIT):
        url = f"tcp://127.0.0.1:{server.link.port}"
        first = Link.connect(url, name="ingest", outbox=outbox(tmp_path), limits=QUICK)
        second = Link.connect(url, name="ingest", outbox=outbox(tmp_path), limits=QUICK)
        async with running(first) as one:
            await one.ingest(Event(1, "t", 0, "first"))
            await server.has(1)
            async with running(second) as other:
                await other.ingest(Event(1, "t", 0, "second"))
                await one.stop()
                await server.has(2)
                await other.drained()
    assert server.got == ["first", "second"]


async def test_the_nexus_hears_of_it(tmp_path: Path) -> None:
    """That a link stands by, and that it has taken over, is an event in its nexus."""
    told: asyncio.Queue[OutboxState] = asyncio.Queue(10)
    async with outbox(tmp_path) as other, asyncio.timeout(WAIT):
        mine = outbox(tmp_path)
        link = Link.connect("tcp://127.0.0.1:1", name="ingest", outbox=mine, limits=QUICK)
        nexus = AsyncEventNexus(grace=0.2)
        nexus.register(link)
        nexus.add_handler(OutboxStateEvent, lambda event: told.put_nowait(event.payload))
        announce_outboxes(nexus, mine)
        async with nexus:
            assert (await told.get()).condition == "standby"
            await other.aclose()
            state = await told.get()
            assert (state.condition, state.taken_over) == ("open", "it was closed")


async def test_a_listener_follows_another(tmp_path: Path) -> None:
    """The port is opened once the file is there, and whoever connects goes on."""
    url = f"tcp://127.0.0.1:{free_port()}"
    got: list[Any] = []
    boxes = [outbox(tmp_path) for _ in range(2)]
    doors = [Link.listen(url, name="door", outbox=box, limits=QUICK) for box in boxes]
    link = Link.connect(url, name="field", outbox=tmp_path / "field", limits=QUICK)
    async with (
        asyncio.timeout(2 * WAIT),
        running(link) as field,
        running(doors[0], got.append) as one,
        running(doors[1], got.append) as other,
    ):
        await field.ingest_many([Event(n, "t", 0, n) for n in range(10)])
        await field.drained()
        assert await link.flushed(WAIT)
        await one.stop()
        await opened(boxes[1])
        await field.ingest_many([Event(n, "t", 0, n) for n in range(10, 20)])
        await field.drained()
        assert await link.flushed(WAIT)
        await other.drained()
    assert [event.payload for event in got] == list(range(20))


async def test_who_follows_is_let_in_at_once() -> None:
    """Of two connections under one name and from one file, the one that has opened it later stays."""
    async with Server() as server, strangers(server.link.port, [hello(1)]) as (before,):
        await asyncio.wait_for(before.read(1), WAIT)
        async with strangers(server.link.port, [hello(2)]) as (after,):
            assert b"another process has taken over" in await said(before)
            await asyncio.wait_for(after.read(1), WAIT)
            assert server.link.counts.peers == 1


@pytest.mark.parametrize("words", [hello(2), hello(1), hello(0), hello(3, "another box")])
async def test_who_does_not_follow_is_turned_away(words: bytes) -> None:
    """Whoever has opened the file earlier, or has another one, does not end a connection."""
    async with Server() as server, strangers(server.link.port, [hello(2)]) as (before,):
        await asyncio.wait_for(before.read(1), WAIT)
        async with strangers(server.link.port, [words]) as (after,):
            assert b"is connected already" in await said(after)
        assert server.link.counts.peers == 1


async def test_of_several_that_follow_the_last_stays() -> None:
    """Whatever order they come in, the one that has opened the file last has the connection."""
    async with Server() as server, strangers(server.link.port, [hello(1)]) as (before,):
        await asyncio.wait_for(before.read(1), WAIT)
        async with strangers(server.link.port, [hello(2), hello(4), hello(3)]) as (one, last, two):
            await asyncio.gather(said(before), said(one), said(two))
            assert server.link.counts.peers == 1
            assert not last.at_eof()
