"""Links between processes, over connections and processes that are stopped and killed: 0 lost, 0 twice."""

import asyncio
import contextlib
import itertools
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from real import free_port

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits

FAR = Path(__file__).parent.parent / "support" / "link_far.py"
PRIORITIES = (-1, 0, 5)
WAIT = 50.0


class Relay:
    """Passes bytes between the two sides, and is killed at will."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                back, there = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(there)
                await asyncio.gather(_copy(reader, there), _copy(back, writer))
        finally:
            self._tasks.discard(task)

    def kill(self) -> None:
        """End all connections, with what is on its way."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.kill()
            while self._tasks:
                await asyncio.wait(self._tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def far_side(port: int, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the receiving process; at the end it stops in good order, unless it was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(FAR),
        str(port),
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), WAIT) == b"ready\n"
        yield process
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), WAIT)
        except TimeoutError:
            process.kill()
            await process.wait()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()


@asynccontextmanager
async def near_side(port: int) -> AsyncIterator[tuple[AsyncEventNexus, Link]]:
    """Run the sending nexus."""
    nexus = AsyncEventNexus(name="near", grace=20)
    link = Link.connect(
        f"tcp://127.0.0.1:{port}", name="near", limits=LinkLimits(heartbeat=0.5, maxsize=2000)
    )
    nexus.register(link)
    nexus.add_handler("t", link)
    async with nexus:
        yield nexus, link


def events(first: int, count: int) -> list[Event[int]]:
    return [Event(number, "t", PRIORITIES[number % 3], number) for number in range(first, first + count)]


def handled(path: Path) -> dict[int, list[int]]:
    """Read what the far side has handled, by priority."""
    found: dict[int, list[int]] = {}
    for line in path.read_text().splitlines():
        priority, number = map(int, line.split())
        found.setdefault(priority, []).append(number)
    return found


def all_once(path: Path, count: int) -> None:
    """Assert that all events were handled, once and in the order of their lane."""
    found = handled(path)
    for lane, priority in enumerate(PRIORITIES):
        assert found.get(priority) == list(range(lane, count, 3))


async def test_killed_connections(form: Any, figures: Any, tmp_path: Path) -> None:
    """Connections are killed again and again, and nothing is lost or comes twice."""
    kills, path, port = form.size(20, 200), tmp_path / "handled", free_port()
    count = 1000 * kills
    async with (
        far_side(port, path),
        Relay(port).running() as relay,
        near_side(relay.port) as (nexus, link),
    ):
        changed = asyncio.Event()
        link.on_link(lambda _: changed.set())
        await link.connected(WAIT)
        for number in range(kills):
            await nexus.ingest_many(events(1000 * number, 1000))
            ups = link.link.ups
            relay.kill()
            async with asyncio.timeout(WAIT):
                while link.link.ups == ups:
                    changed.clear()
                    await changed.wait()
        await nexus.drained()
        assert await link.flushed(WAIT)
        assert link.link.ups > kills
        counts = link.counts
    figures(offered=count, delivered=counts.accepted, lost=0, duplicated=0, resent=counts.resent)
    all_once(path, count)


async def test_a_stopped_process(tmp_path: Path) -> None:
    """A process that is stopped for a while goes on where it was."""
    path, port = tmp_path / "handled", free_port()
    async with far_side(port, path) as process, near_side(port) as (nexus, link):
        giving = asyncio.ensure_future(nexus.ingest_many(events(0, 20_000)))
        await link.connected(WAIT)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(3)  # longer than three heartbeats
        assert link.link.state != "up"
        process.send_signal(signal.SIGCONT)
        await giving
        await nexus.drained()
        assert await link.flushed(WAIT)
    all_once(path, 20_000)


async def test_two_processes_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nexuses of two processes that have the same name are two: nothing is taken to go in circles."""
    path, port = tmp_path / "handled", free_port()
    monkeypatch.setattr("nexus._nexus._numbers", itertools.count(1))  # as in the other process
    nexus, link = AsyncEventNexus(name="far"), Link.connect(f"tcp://127.0.0.1:{port}", name="near")
    nexus.register(link)
    nexus.add_handler("t", link)
    async with far_side(port, path), nexus:
        await nexus.ingest_many(Event(n, "t", 0, n, headers={"a": n}) for n in range(100))
        await nexus.drained()
        assert await link.flushed(WAIT)
    assert handled(path) == {0: list(range(100))}


async def test_a_killed_process(tmp_path: Path) -> None:
    """One that comes back under a new process gets what was held for it; the two together miss only what
    the first had accepted and not handled, and handle twice only what it had not acknowledged."""
    path, port = tmp_path / "handled", free_port()
    async with near_side(port) as (nexus, link):
        giving = asyncio.ensure_future(nexus.ingest_many(events(0, 20_000)))
        async with far_side(port, path) as process:
            async with asyncio.timeout(WAIT):
                while link.counts.accepted < 3000:
                    await link._room.wait()
            process.kill()
            await process.wait()
        before = path.read_text().count("\n")
        async with far_side(port, path):
            await giving
            await nexus.drained()
            assert await link.flushed(WAIT)
    found = handled(path)
    times = Counter(number for lane in found.values() for number in lane)
    assert len(times) >= 20_000 - 3 * 500 - 1  # what the queue of the first one held
    assert max(times.values()) <= 2
    assert sum(times.values()) - len(times) <= before
    after = [int(line.split()[1]) for line in path.read_text().splitlines()[before:]]
    assert len(after) == len(set(after))
