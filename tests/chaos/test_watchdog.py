"""A process that hangs or stands still is noticed, ended and started again, and no event is lost."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from real import free_port

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, LinkLimits

FAR = Path(__file__).parent.parent / "support" / "watched_far.py"
PERIOD = 0.4
"""Seconds that the loop may stand still."""
SIGN = 0.6
"""Seconds within which the service manager wants a sign of life."""
STEP = 100
WAIT = 30.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a service manager is spoken to over AF_UNIX")


class ServiceManager(asyncio.DatagramProtocol):
    """Does what systemd does with `Type=notify`, `WatchdogSec` and `Restart=on-failure`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.address = str(folder / "notify")
        self.log = folder / "log"
        self.ready = asyncio.Event()
        self.starts = 0
        self.silences: list[float] = []
        """Seconds from the last sign of life to the kill, of each process that gave none."""
        self.restarts: list[float] = []
        """Seconds from the end of a process to READY=1 of the next one."""
        self.process: asyncio.subprocess.Process | None = None
        self._arguments = arguments
        self._sign = time.monotonic()
        self._ended = 0.0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._sign = time.monotonic()
        if data == b"READY=1":
            self.ready.set()
            if self._ended:
                self.restarts.append(self._sign - self._ended)

    async def _run(self) -> None:
        """Start it again and again."""
        environ = {**os.environ, "NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(SIGN * 1e6))}
        while True:
            self.ready.clear()
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, str(FAR), *self._arguments, stderr=log, env=environ
                )
            self.starts += 1
            ending = asyncio.ensure_future(self.process.wait())
            try:
                await self._until_silent(ending)
                if not ending.done():
                    self.silences.append(time.monotonic() - self._sign)
                    self.process.kill()
                await ending
            except asyncio.CancelledError:
                self.process.terminate()
                await asyncio.wait_for(ending, WAIT)
                raise
            self._ended = time.monotonic()

    async def _until_silent(self, ending: asyncio.Future[int]) -> None:
        """Wait until the process has ended, or gives no sign of life."""
        ready = asyncio.ensure_future(self.ready.wait())
        await asyncio.wait((ending, ready), timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        while not ending.done() and (left := self._sign + SIGN - time.monotonic()) > 0:
            await asyncio.wait([ending], timeout=left)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ServiceManager"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(self.address)
            sock.setblocking(False)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
            task = asyncio.ensure_future(self._run())
            try:
                await asyncio.wait_for(self.ready.wait(), WAIT)
                yield self
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                transport.close()


class Near:
    """The side that gives events, and gives again what a process took along that was ended."""

    def __init__(self, port: int) -> None:
        self.nexus = AsyncEventNexus(name="near")
        limits = LinkLimits(heartbeat=0.5)
        self.link = Link.connect(f"tcp://127.0.0.1:{port}", name="near", limits=limits)
        self.nexus.register(self.link)
        self.nexus.add_handler("t", self.link)
        self.nexus.add_handler("block", self.link)
        self.nexus.add_handler("done", self._done)
        self.given = 0
        self.open: dict[int, None] = {}
        """What was given and not answered, the oldest first."""
        self._answered = asyncio.Event()

    def _done(self, event: Event[int]) -> None:
        self.open.pop(event.payload, None)
        self._answered.set()

    async def give(self, count: int) -> int:
        """Give new events; return the number of the last."""
        numbers = range(self.given, self.given + count)
        self.given += count
        self.open.update(dict.fromkeys(numbers))
        await self.nexus.ingest_many(Event(number, "t", 0, number) for number in numbers)
        return numbers[-1]

    async def settle(self) -> None:
        """See to it that everything is answered: what stays open before an answer to later ones is lost."""
        async with asyncio.timeout(WAIT):
            while self.open:
                mark = await self.give(1)
                while mark in self.open:
                    self._answered.clear()
                    await self._answered.wait()
                again = [number for number in self.open if number < mark]
                await self.nexus.ingest_many(Event(number, "t", 0, number) for number in again)


async def test_a_process_that_hangs_is_started_again(form: Any, figures: Any, tmp_path: Path) -> None:
    """Its loop blocked by the processor it ends itself, and stopped it is ended, each within two periods; the
    log says where it was; the next process goes on, and every event is handled."""
    times, port, path = form.size(3, 100), free_port(), tmp_path / "handled"
    near = Near(port)
    async with (
        ServiceManager(tmp_path, str(port), str(path), str(PERIOD)).running() as manager,
        near.nexus,
    ):
        for number in range(2 * times):
            await near.give(STEP)
            await near.settle()
            starts = manager.starts
            giving = asyncio.ensure_future(near.give(STEP))
            if number % 2:
                assert manager.process is not None
                manager.process.send_signal(signal.SIGSTOP)
            else:
                await near.nexus.ingest(Event(number, "block", -1, number))
            await giving
            async with asyncio.timeout(WAIT):
                while manager.starts == starts:
                    manager.ready.clear()
                    await manager.ready.wait()
            await near.settle()
    log = manager.log.read_text()
    noticed = [float(found) for found in re.findall(r"has not turned for ([\d.]+) s", log)]
    handled = Counter(map(int, path.read_text().split()))
    figures(
        offered=near.given,
        delivered=len(handled),
        lost=near.given - len(handled),
        duplicated=sum(handled.values()) - len(handled),
        noticed_max_s=max(noticed),
        silent_max_s=round(max(manager.silences), 3),
        restart_median_s=round(sorted(manager.restarts)[times], 3),
        restart_max_s=round(max(manager.restarts), 3),
    )
    assert handled.keys() == set(range(near.given))
    assert len(noticed) == times
    assert len(manager.silences) == times
    assert log.count("in block_for_two_seconds") == times
    # A machine that is busy with others has its own share in these.
    assert max(noticed) <= 2 * PERIOD
    assert max(manager.silences) <= 2 * SIGN
    assert sorted(manager.restarts)[times] < 5
