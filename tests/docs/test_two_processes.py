"""The table of docs/guarantees.md about what happens between two processes: a test for each cell."""

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq.asyncio
from real import free_port

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.outbox import Outbox
from nexus.boundaries.zmq import ZmqEventSender
from nexus.testing import MemoryWire, Recorder, assert_ledger_balanced, virtual_time

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "guarantees.md"


def test_the_cells_name_tests_that_exist() -> None:
    """Each cell of the table names one test of this suite."""
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("## Between two processes") : page.index("## What becomes of an event")]
    rows = [row.split("|")[2:5] for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 5
    suite = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    for cell in (cell for row in rows for cell in row):
        (name,) = re.findall(r"`(test_\w+)`", cell)
        assert f"def {name}(" in suite, name


NEAR = """
import asyncio, os, sys, nexus
from nexus.boundaries.link import Link

async def main(life, port, outbox=None):
    domain = nexus.AsyncEventNexus()
    link = Link.connect(f"tcp://127.0.0.1:{port}", name="near", outbox=outbox)
    domain.register(link)
    domain.add_handler("a", link)
    async with domain:
        if life == "first":  # nobody listens yet
            await domain.ingest_many([nexus.Event(n, "a", 0, n) for n in range(3)])
            await domain.drained()
            os.kill(os.getpid(), 9)
        await domain.ingest(nexus.Event(3, "a", 0, 3))
        await domain.drained()
        await link.flushed(30)

asyncio.run(main(*sys.argv[1:]))
"""


async def near(*words: object) -> int | None:
    """Live one life of the giving process; returns how it ended."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", NEAR, *map(str, words))
    return await asyncio.wait_for(process.wait(), 50)


async def both_lives(*outbox: Path) -> list[Any]:
    """Kill the giving process before anybody listens, begin it again, and return what came."""
    port, recorder = free_port(), Recorder()
    assert await near("first", port, *outbox) == -signal.SIGKILL
    domain = AsyncEventNexus()
    domain.add_handler("a", recorder)
    domain.register(Link.listen(f"tcp://127.0.0.1:{port}"))
    async with domain:
        assert await near("second", port, *outbox) == 0
        await domain.drained()
    return recorder.payloads


async def test_a_killed_sender_takes_along_what_its_link_held() -> None:
    """What was not accepted on the other side is gone with the process."""
    assert await both_lives() == [3]


async def test_a_killed_sender_leaves_its_outbox(tmp_path: Path) -> None:
    """What was handled by the link is in the file, and goes first in the next life."""
    assert await both_lives(tmp_path / "outbox") == [0, 1, 2, 3]


class Pass:
    """Passes bytes between a connection that somebody makes and a port, until it is told to hold them."""

    def __init__(self, near: socket.socket, port: int) -> None:
        self.near, self.far = near, socket.create_connection(("127.0.0.1", port))
        self.near.setblocking(False)
        self.far.setblocking(False)
        self._tasks = [
            asyncio.ensure_future(self._pass(here, there))
            for here, there in ((self.near, self.far), (self.far, self.near))
        ]

    async def _pass(self, here: socket.socket, there: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(here, 65536):
            await loop.sock_sendall(there, data)

    async def hold(self) -> None:
        """Pass nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Cut the connection."""
        self.near.close()
        self.far.close()


async def test_plain_zmq_forgets_what_a_cut_connection_carried() -> None:
    """What was on its way when the connection was cut is gone, and counted as handled."""
    context, loop = zmq.asyncio.Context(), asyncio.get_running_loop()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    domain = AsyncEventNexus()
    domain.add_handler("a", ZmqEventSender(push))

    async def way() -> Pass:
        near, _ = await asyncio.wait_for(loop.sock_accept(relay), 10)
        return Pass(near, port)

    async def came() -> Any:
        return json.loads((await asyncio.wait_for(pull.recv_multipart(), 10))[-1])["payload"]

    with push, pull, socket.create_server(("127.0.0.1", 0)) as relay:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        relay.setblocking(False)
        push.connect(f"tcp://127.0.0.1:{relay.getsockname()[1]}")
        async with domain:
            first = await way()
            await domain.ingest(Event(0, "a", 0, 0))
            assert await came() == 0
            await first.hold()
            await domain.ingest_many([Event(n, "a", 0, n) for n in range(1, 11)])
            await domain.drained()
            assert await asyncio.wait_for(loop.sock_recv(first.near, 100_000), 10)  # they are on their way
            first.close()
            second = await way()
            await domain.ingest(Event(11, "a", 0, 11))
            assert await came() > 1
            await second.hold()
            second.close()
            assert_ledger_balanced(domain, handled=12)
    context.term()


class Cut:
    """A way between two ends of a link, which is there or not."""

    def __init__(self) -> None:
        self.is_there = True
        self.wires: list[MemoryWire] = []
        self._second: asyncio.Future[MemoryWire] | None = None

    async def dial(self) -> MemoryWire:
        """Give the one side its end of a new wire when the other one wants its own."""
        if not self.is_there:
            raise ConnectionRefusedError("cut")
        if self._second is None or self._second.done():
            self._second = asyncio.get_running_loop().create_future()
            return await self._second
        here, there = MemoryWire.pair()
        self.wires = [here, there]
        self._second.set_result(there)
        return here

    def cut(self) -> None:
        """End the connection, and let there be none."""
        self.is_there = False
        for wire in self.wires:
            wire.close()


async def a_minute_without_connection(**options: Any) -> None:
    """Give events before, during and after a minute in which nothing gets through."""
    way, recorder = Cut(), Recorder()
    near, far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
    link, beyond = Link.over(way.dial, **options), Link.over(way.dial)
    near.register(link)
    far.register(beyond)
    near.add_handler("a", link)
    far.add_handler("a", recorder)
    async with near, far:
        for first in range(0, 600, 100):
            await near.ingest_many([Event(n, "a", 0, n) for n in range(first, first + 100)])
            if first == 200:
                way.cut()
            await asyncio.sleep(20)
            if first == 400:
                assert len(recorder.payloads) <= 300
                way.is_there = True
        await recorder.wait_for(600)
        assert_ledger_balanced(near, handled=600)
    assert recorder.payloads == list(range(600))


@virtual_time
async def test_a_link_stands_a_minute_without_connection() -> None:
    """It holds what it is given, and goes on where it was."""
    await a_minute_without_connection()


async def at_once(work: Callable[[], Any]) -> Any:
    """Do what blocks in the loop, which virtual time can bear."""
    return work()


def test_a_durable_link_stands_a_minute_without_connection(tmp_path: Path) -> None:
    """It holds what it is given in its file, and goes on where it was."""

    @virtual_time
    async def run() -> None:
        outbox = Outbox(tmp_path / "outbox", run=at_once)
        await a_minute_without_connection(name="near", outbox=outbox, limits=LinkLimits(maxsize=50))

    run()
