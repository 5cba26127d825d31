"""Durable links: what was taken outlives its process, and is settled beyond before it is let go."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._frames import Ack, LaneAck
from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.link._stored import Stream
from nexus.boundaries.links import OutboxStateEvent, announce_outboxes
from nexus.boundaries.outbox import Connection, Effects, Outbox, OutboxState
from nexus.errors import ConfigError
from nexus.testing import assert_ledger_balanced

QUICK = LinkLimits(cached=100, patience=0.1, heartbeat=0.2, flush_timeout=0.2)
TABLE = "CREATE TABLE IF NOT EXISTS effect (number INTEGER)"


def events(first: int, count: int, priority: int = 0) -> list[Event[int]]:
    return [Event(number, "n", priority, number) for number in range(first, first + count)]


@asynccontextmanager
async def near(
    path: Path | Outbox, port: int = 1, **options: Any
) -> AsyncIterator[tuple[AsyncEventNexus, Link]]:
    """Run the side that gives events; one life of it."""
    nexus = AsyncEventNexus(name="near")
    options = {"limits": QUICK, "name": "near", **options}
    link = Link.connect(f"tcp://127.0.0.1:{port}", outbox=path, **options)
    nexus.register(link)
    nexus.add_handler("n", link)
    async with nexus:
        yield nexus, link


@asynccontextmanager
async def far(
    path: Path | None, port: int = 0
) -> AsyncIterator[tuple[AsyncEventNexus, Link, list[Event[Any]]]]:
    """Run the side that takes them; one life of it."""
    nexus = AsyncEventNexus(name="far", grace=0)
    link = Link.listen(f"tcp://127.0.0.1:{port}", name="far", outbox=path, limits=QUICK)
    nexus.register(link)
    got: list[Event[Any]] = []
    nexus.add_handler("n", got.append)
    async with nexus:
        async with asyncio.timeout(10):
            while not link.port:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        yield nexus, link, got


async def test_what_was_taken_goes_in_the_next_life(tmp_path: Path) -> None:
    """Events taken while nobody listened, more than the memory holds, arrive once and in order later on."""
    async with near(tmp_path / "near") as (nexus, link):
        await nexus.ingest_many(events(0, 1000) + events(1000, 50, -1))
        await nexus.drained()
        assert link.counts.waiting == 1050
        assert_ledger_balanced(nexus, handled=1050)
    async with far(None) as (other, door, got), near(tmp_path / "near", door.port) as (nexus, link):
        assert link.counts.taken == 1050
        await nexus.ingest_many(events(1050, 50))
        await nexus.drained()
        assert await link.flushed(10)
        assert (link.counts.accepted, link.counts.taken) == (1100, 1100)
        await other.drained()
        assert [e.payload for e in got if e.priority == 0] == [*range(1000), *range(1050, 1100)]
        assert [e.payload for e in got if e.priority == -1] == list(range(1000, 1050))
    assert [e.payload for e in got[:50]] == list(range(1000, 1050))  # the urgent ones first


@pytest.mark.parametrize(("cached", "is_read"), [(1000, False), (10, True)])
async def test_what_memory_holds_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int, is_read: bool
) -> None:
    """Up to `cached` events go from memory; only those beyond them come from the file."""
    places: list[int] = []
    read = Stream.read

    async def noted(stream: Stream, priority: int, first: int) -> list[bytes]:
        places.append(first)
        return await read(stream, priority, first)

    monkeypatch.setattr(Stream, "read", noted)
    limits = attrs.evolve(QUICK, maxsize=5, cached=cached)
    async with (
        far(None) as (other, door, got),
        near(tmp_path / "n", door.port, limits=limits) as (nexus, link),
    ):
        await link.connected(10)
        await nexus.ingest_many(events(0, 1000))
        await nexus.drained()
        assert await link.flushed(10)
        await other.drained()
    assert [e.payload for e in got] == list(range(1000))
    assert bool(places) == is_read


def test_a_link_holds_something_in_memory() -> None:
    """With nothing there, nothing could go."""
    with pytest.raises(ValueError, match="cached"):
        LinkLimits(cached=0)


async def test_the_ledger_counts_what_is_durable(tmp_path: Path) -> None:
    """An event is handled when the file has it, and not when the link has taken it."""
    async with Outbox(tmp_path / "near") as outbox, near(outbox) as (nexus, _):
        before = outbox.state.commits
        await nexus.ingest_many(events(0, 10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if outbox.state.commits == before:
            assert nexus.stats().handled == 0
        await nexus.drained()
        assert outbox.state.commits > before
        assert outbox.lanes("near")[0].last == 10
        assert_ledger_balanced(nexus, handled=10)


async def test_what_was_not_handled_comes_again(tmp_path: Path) -> None:
    """A far side that dies before it has handled something gets that again, and nothing else."""
    started, hung = [], asyncio.Event()

    async def hang(event: Event[int]) -> None:
        started.append(event.payload)
        if event.payload == 7:
            hung.set()
            await asyncio.Event().wait()

    async with near(tmp_path / "near") as (nexus, _):
        await nexus.ingest_many(events(0, 20))
        await nexus.drained()
    async with far(tmp_path / "far") as (nexus, door, _):
        nexus.remove_handler("n")
        nexus.add_handler("n", hang)
        async with near(tmp_path / "near", door.port) as (_, link):
            await hung.wait()
            async with asyncio.timeout(10):
                while link.counts.accepted < 7:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert link.counts.accepted == 7
    async with far(tmp_path / "far") as (nexus, door, got), near(tmp_path / "near", door.port) as (_, link):
        assert await link.flushed(10)
        await nexus.drained()
    assert [e.payload for e in got] == list(range(7, 20))


async def test_an_effect_goes_with_its_cursor(tmp_path: Path) -> None:
    """What `Effects` has written is there once, and an event that cannot be applied fails alone."""

    def apply(connection: Connection, found: Sequence[Event[Any]]) -> None:
        for event in found:
            if event.payload == 5:
                raise ValueError("no fives")
            connection.execute("INSERT INTO effect VALUES (?)", (event.payload,))

    async with Outbox(tmp_path / "far") as outbox:
        outbox.effect(lambda connection: connection.execute(TABLE), lambda exc: None)
        nexus = AsyncEventNexus(name="far")
        door = Link.listen("tcp://127.0.0.1:0", name="far", outbox=outbox)
        nexus.register(door)
        nexus.add_handler("n", Effects(outbox, apply))
        async with nexus:
            while not door.port:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            async with near(tmp_path / "near", door.port) as (giver, link):
                await giver.ingest_many(events(0, 500))
                await giver.drained()
                assert await link.flushed(10)
        assert [letter.event.payload for letter in nexus.dead_letters] == [5]
        assert_ledger_balanced(nexus, handled=499, failed=1)
    with sqlite3.connect(tmp_path / "far") as connection:
        found = [row[0] for row in connection.execute("SELECT number FROM effect ORDER BY rowid")]
    connection.close()
    assert found == [number for number in range(500) if number != 5]


async def test_a_listener_keeps_what_it_holds_for_those_it_knew(tmp_path: Path) -> None:
    """One that comes back gets what the listener's former life had taken for it."""

    async def life(port: int, giving: int) -> tuple[Link, AsyncEventNexus]:
        nexus = AsyncEventNexus(name="far")
        link = Link.listen(f"tcp://127.0.0.1:{port}", name="far", outbox=tmp_path / "far", limits=QUICK)
        nexus.register(link)
        nexus.add_handler("n", link)
        nexus.start()
        while not link.port:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return link, nexus

    def taker(port: int, got: list[int]) -> tuple[Link, AsyncEventNexus]:
        nexus = AsyncEventNexus(name="near")
        link = Link.connect(f"tcp://127.0.0.1:{port}", name="near", outbox=tmp_path / "near", limits=QUICK)
        nexus.register(link)
        nexus.add_handler("n", lambda event: got.append(event.payload))
        return link, nexus

    first: list[int] = []
    door, giver = await life(0, 0)
    port = door.port
    link, nexus = taker(port, first)
    async with nexus:
        await link.connected(10)
        await giver.ingest_many(events(0, 10))
        await giver.drained()
        assert await door.flushed(10)
    await giver.ingest_many(events(10, 300))  # nobody is there
    await giver.drained()
    await giver.stop()
    second: list[int] = []
    door, giver = await life(port, 0)
    assert door.counts.waiting == 300
    link, nexus = taker(port, second)
    async with nexus:
        assert await door.flushed(10)
        await nexus.drained()
    await giver.stop()
    assert (first, second) == (list(range(10)), list(range(10, 310)))


async def test_a_deadline_outlives_the_process(tmp_path: Path) -> None:
    """What is too late when it could go is given up and counted; what is not arrives with its time."""
    loop = asyncio.get_running_loop()
    async with near(tmp_path / "near") as (nexus, _):
        now = loop.time()
        late = [Event(n, "n", 0, n, deadline=now + 2) for n in range(5)]
        await nexus.ingest_many([*late, Event(5, "n", 0, 5, deadline=now + 60)])
        await nexus.drained()
    await asyncio.sleep(now + 2.01 - loop.time())
    async with far(None) as (other, door, got), near(tmp_path / "near", door.port) as (_, link):
        assert await link.flushed(10)
        assert link.counts.lost == {"expired": 5}
        await other.drained()
    assert [event.payload for event in got] == [5]
    assert got[0].deadline is not None
    assert 50 < got[0].deadline - now < 70


async def test_an_old_copy_begins_anew(tmp_path: Path) -> None:
    """A file that was restored from an old copy has numbers again that the other side has had; what is taken
    with it arrives all the same."""
    async with far(None) as (other, door, got):
        async with near(tmp_path / "near", door.port) as (nexus, link):
            await nexus.ingest_many(events(0, 10))
            await nexus.drained()
            assert await link.flushed(10)
        shutil.copy(tmp_path / "near", tmp_path / "copy")
        async with near(tmp_path / "near", door.port) as (nexus, link):
            await nexus.ingest_many(events(10, 10))
            await nexus.drained()
            assert await link.flushed(10)
        shutil.copy(tmp_path / "copy", tmp_path / "near")
        async with near(tmp_path / "near", door.port) as (nexus, link):
            await nexus.ingest_many(events(20, 15))
            await nexus.drained()
            assert await link.flushed(10)
            await other.drained()
    assert [event.payload for event in got] == list(range(35))


async def test_an_old_copy_that_lacks_a_lane_begins_anew(tmp_path: Path) -> None:
    """The same of a priority that was first used after the copy, and the other side has begun anew."""
    async with near(tmp_path / "near") as (nexus, _):
        await nexus.ingest_many(events(0, 5))
        await nexus.drained()
    shutil.copy(tmp_path / "near", tmp_path / "copy")
    async with far(tmp_path / "far") as (_, door, _), near(tmp_path / "near", door.port) as (nexus, link):
        await nexus.ingest_many(events(5, 5, 3))
        await nexus.drained()
        assert await link.flushed(10)
    shutil.copy(tmp_path / "copy", tmp_path / "near")
    async with (
        far(tmp_path / "far") as (other, door, got),
        near(tmp_path / "near", door.port) as (nexus, link),
    ):
        await nexus.ingest_many(events(10, 15, 3))
        await nexus.drained()
        assert await link.flushed(10)
        await other.drained()
    assert [event.payload for event in got if event.priority == 3] == list(range(10, 25))


@pytest.mark.parametrize(
    ("ack", "is_overtaken"),
    [
        (LaneAck(0, 7, 100), False),
        (LaneAck(0, 8, 100), True),
        (LaneAck(0, 3, 100, ((5, 7),)), False),
        (LaneAck(0, 3, 100, ((5, 8),)), True),
        (LaneAck(1, 0, 100), False),
        (LaneAck(1, 1, 100), True),
    ],
)
def test_what_was_never_sent_cannot_be_there(ack: LaneAck, is_overtaken: bool) -> None:
    """A side that has accepted, or only has, what neither this life nor an earlier one has sent, knows a
    later state of the file; nothing goes to it any more: it would take what is new for what it has."""
    outflow = Outflow(store=Taking())
    outflow.restore(0, 4, 7)
    assert outflow.push(2, b"[8]")  # given in this life, and not sent
    outflow.stored(2, 1)
    outflow.acknowledged(Ack(64, (ack,)), 0.0)
    assert outflow.is_overtaken is is_overtaken
    assert bool(list(outflow.frames(0.0))) is not is_overtaken


class Taking:
    """A store that takes everything."""

    def put(self, priority: int, number: int, row: bytes) -> None:
        """Take a row."""

    def accepted(self, priority: int, number: int) -> None:
        """Let go of rows."""

    def has_room(self, size: int) -> bool:
        """Say that there is room."""
        return True


async def test_a_full_file_holds_events_back_and_says_so(tmp_path: Path) -> None:
    """Events wait at the bound of the file, an event tells of it, and all go on when somebody takes them."""
    async with Outbox(tmp_path / "near", max_bytes=20_000) as outbox, far(None) as (other, door, got):
        async with near(outbox) as (nexus, link):
            announce_outboxes(nexus, outbox)
            told: asyncio.Queue[OutboxState] = asyncio.Queue(100)
            nexus.add_handler(OutboxStateEvent, lambda event: told.put_nowait(event.payload))
            await nexus.ingest_many(events(0, 1000))
            assert (await asyncio.wait_for(told.get(), 10)).condition == "full"
            await outbox.durable()
            assert link.counts.waiting < 1000
            remaining = (await nexus.stop(grace=0)).remaining
        async with near(outbox, door.port) as (nexus, link):
            await nexus.ingest_many(remaining)
            await nexus.drained()
            assert await link.flushed(10)
            await other.drained()
        assert [event.payload for event in got] == list(range(1000))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delivery": "durable"}, "needs a file"),
        ({"delivery": "sometimes"}, "allowed: best_effort, at_least_once, durable, durable_sync"),
        ({"outbox": "x"}, "needs a name"),
        ({"outbox": "x", "name": "a", "delivery": "best_effort"}, "leave the outbox out"),
        ({"outbox": Outbox("x"), "name": "a", "delivery": "durable"}, "synchronous='normal'"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    """A wrong delivery says what would be right."""
    with pytest.raises(ConfigError, match=words):
        Link.connect("tcp://127.0.0.1:1", **options)
