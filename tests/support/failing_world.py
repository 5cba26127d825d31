"""A world in virtual time that fails from a seed: processes that are killed, disks, wires, the wall clock.

What is killed does nothing any more: its tasks end without having reached its disk or its wires again, and
its database is left as a process leaves it that was killed with a signal, log and all.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import itertools
import logging
import os
import random
import secrets
import shutil
import sqlite3
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nexus import _nexus, _timer, _wheel
from nexus.adapters import _retry
from nexus.boundaries.link import _durable
from nexus.boundaries.outbox import _files, _schema
from nexus.testing import MemoryWire, WireCounts

__all__ = ["Disk", "Net", "Process", "Trace", "seeded"]

T = TypeVar("T")

FULL, IO_WRITE, IO_FSYNC = 13, 778, 1034
WORDS = {FULL: "database or disk is full", IO_WRITE: "disk I/O error", IO_FSYNC: "disk I/O error"}
WALL = 1.7e9
"""What the wall clock shows when the loop's clock shows 0."""

running: contextvars.ContextVar[Process | None] = contextvars.ContextVar("running", default=None)


class Trace:
    """What happened, as a hash, and how many faults of each kind there were."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.errors: list[str] = []
        """What must not happen and did."""
        self.wall = WALL
        self._hash = hashlib.blake2b(digest_size=16)

    def note(self, *what: object) -> None:
        """Add something to the hash, with the time."""
        self._hash.update(repr((asyncio.get_running_loop().time(), *what)).encode())

    def fault(self, kind: str, *what: object) -> None:
        """Count a fault."""
        self.faults[kind] += 1
        self.note(kind, *what)

    def hex(self) -> str:
        """Return the hash of everything."""
        return self._hash.hexdigest()


class Process:
    """One life of a program; `kill` ends it at once."""

    def __init__(self, trace: Trace) -> None:
        self.is_dead = False
        self._trace = trace
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.main: asyncio.Task[None] | None = None
        self._wheel: _wheel.Wheel | None = None

    def start(self, main: Coroutine[Any, Any, None]) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_make_task)
        context = contextvars.copy_context()
        context.run(running.set, self)
        self.main = context.run(loop.create_task, main)

    @staticmethod
    def wheel_of(loop: asyncio.AbstractEventLoop) -> _wheel.Wheel:
        """Give each life its own timers: nothing of one runs in the name of another."""
        process = running.get()
        assert process is not None
        process._wheel = process._wheel or _wheel.Wheel(loop)
        return process._wheel

    def add(self, task: asyncio.Task[Any]) -> None:
        """Note a task of this life."""
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if self.is_dead and not task.cancelled():
            task.exception()

    async def kill(self) -> None:
        """End it without letting it do anything that others see."""
        self.is_dead = True
        for _ in range(200):
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0)
            if not self._tasks:
                return
        self._trace.errors.append(f"tasks that do not end: {list(self._tasks)}")


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **more: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
    if (process := running.get()) is not None:
        process.add(task)
    return task


class Disk:
    """The disk of one side: slow, sometimes full or broken; what was committed survives its processes."""

    def __init__(self, path: Path, chance: random.Random, trace: Trace) -> None:
        self.path = path
        self.fails = 0
        """The error that every write gives; 0 for none."""
        self.rate = 0.0
        """The share of commits that fail."""
        self.delays: Sequence[float] = (0.0,)
        self._chance = chance
        self._trace = trace
        self._connections: dict[_Connection, None] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """Do work, some time after it was asked for and some time before it is told."""
        await asyncio.sleep(self._chance.choice(self.delays))
        process = running.get()
        if process is not None and process.is_dead:
            raise asyncio.CancelledError
        try:
            return work()
        finally:
            await asyncio.sleep(self._chance.choice(self.delays))

    def connect(self, path: str) -> _Connection:
        """Open a database."""
        connection = _Connection(self, path)
        self._connections[connection] = None
        return connection

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def leave(self) -> None:
        """Leave the files as a process leaves them that was killed."""
        names = [str(self.path), f"{self.path}-wal"]
        while True:
            kept = [name for name in names if os.path.exists(name)]
            try:
                for name in kept:
                    shutil.copyfile(name, f"{name}.kept")
            except FileNotFoundError:
                # A connection that was closed ends with the last cursor that a traceback holds, and takes the
                # log along when it is the last one: what was in it is in the file now.
                continue
            break
        for connection in list(self._connections):
            connection.close()
        for name in names:
            if name in kept:
                os.replace(f"{name}.kept", name)
            elif os.path.exists(name):
                os.remove(name)

    def error_before(self, sql: str) -> sqlite3.OperationalError | None:
        """Give what a statement fails with that is not done, if it does."""
        is_write = sql.startswith(("INSERT", "DELETE", "COMMIT", "VACUUM"))
        if self.fails and (is_write or self.fails != FULL):
            return _error(self.fails)  # one outage is one fault
        if self.rate and is_write and self._chance.random() < self.rate * (1 if sql == "COMMIT" else 0.1):
            return self._error(self._chance.choice((FULL, IO_WRITE)))
        return None

    def error_after(self, sql: str) -> sqlite3.OperationalError | None:
        """Give what a statement fails with that is done all the same, if it does."""
        if self.rate and sql == "COMMIT" and self._chance.random() < self.rate / 2:
            return self._error(IO_FSYNC)
        return None

    def _error(self, code: int) -> sqlite3.OperationalError:
        self._trace.fault("disk", code)
        return _error(code)


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(WORDS[code])
    error.sqlite_errorcode = code
    return error


class _Connection:
    """A connection to a database on a disk that may fail."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._inner = _schema.connect(path)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]:
        # Processes are killed here, and no power is cut: what the system has is safe.
        sql = "PRAGMA synchronous=OFF" if sql.startswith("PRAGMA synchronous=") else sql
        if (error := self._disk.error_before(sql)) is not None:
            raise error
        found = self._inner.execute(sql, parameters)
        if (error := self._disk.error_after(sql)) is not None:
            raise error
        return found

    def close(self) -> None:
        self._disk.closed(self)
        self._inner.close()


class QuickFiles(_files.Files):
    """Files of a machine whose power is never cut."""

    def rewrite(self, path: str) -> None:
        shutil.copy2(path, f"{path}-copy")
        os.replace(f"{path}-copy", path)

    def sync_folder(self, path: str) -> None:
        """Do nothing."""


class Net:
    """Where two ends meet, and the weather between them."""

    def __init__(self, chance: random.Random, trace: Trace) -> None:
        self.weather: dict[str, Any] = {}
        self.is_cut = False
        self._chance = chance
        self._trace = trace
        self._wires: list[MemoryWire] = []
        self._waiting: asyncio.Future[_Wire] | None = None

    async def dial(self) -> _Wire:
        """Give one end of a new wire, as soon as both want one."""
        if self.is_cut:
            self._trace.note("refused")
            raise ConnectionRefusedError("cut")
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
            return await self._waiting
        self.retire()
        self._wires = list(MemoryWire.pair(rng=self._chance, **self.weather))
        here, there = (_Wire(wire, self._trace, name) for wire, name in zip(self._wires, "ab", strict=True))
        self._waiting.set_result(there)
        return here

    def breaks(self) -> None:
        """End the connection there is, on both sides."""
        for wire in self._wires:
            wire.close()

    def partition(self, *, both: bool) -> None:
        """Let nothing through, and nobody know."""
        for wire in self._wires[:1]:
            wire.partition(both=both)

    def heal(self) -> None:
        """Let it through again."""
        for wire in self._wires[:1]:
            wire.heal()

    def retire(self) -> None:
        """Count what the last wire has done to its messages."""
        for wire in self._wires:
            wire.close()
            counts: WireCounts = wire.counts
            lost = {reason: count for reason, count in counts.lost.items() if reason != "closed"}
            self._trace.faults.update(lost)
            self._trace.faults.update(duplicate=counts.duplicated, reorder=counts.reordered)
        self._wires = []


class _Wire:
    """A wire whose messages go into the trace."""

    def __init__(self, inner: MemoryWire, trace: Trace, name: str) -> None:
        self._inner = inner
        self._trace = trace
        self._name = name

    async def send(self, frames: Sequence[bytes]) -> None:
        process = running.get()
        if process is not None and process.is_dead:
            raise asyncio.CancelledError
        self._trace.note(self._name, *frames)
        await self._inner.send(frames)

    async def receive(self) -> list[list[bytes]]:
        return await self._inner.receive()

    def close(self) -> None:
        process = running.get()
        if process is None or not process.is_dead:  # a dead one leaves it to the world
            self._inner.close()


class _Errors(logging.Handler):
    """Takes what is logged as an error for one."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.ERROR)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        process = running.get()
        if process is None or not process.is_dead:
            self._trace.errors.append(record.getMessage())


@contextlib.contextmanager
def seeded(chance: random.Random, trace: Trace) -> Generator[None]:
    """Let all chance come from a seed, and the wall clock from the trace."""
    errors, logger = _Errors(trace), logging.getLogger("nexus")
    level = logger.level
    logger.addHandler(errors)
    logger.setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda size=32: chance.randbytes(size).hex())
        patch.setattr(secrets, "token_bytes", lambda size=32: chance.randbytes(size))
        patch.setattr(_timer, "wheel_of", Process.wheel_of)
        patch.setattr(_nexus, "_numbers", itertools.count(1))
        patch.setattr(_retry, "random", types.SimpleNamespace(Random=lambda: random.Random(chance.random())))
        clock = types.SimpleNamespace(time=lambda: trace.wall + asyncio.get_running_loop().time())
        patch.setattr(_durable, "time", clock)
        try:
            yield
        finally:
            logger.removeHandler(errors)
            logger.setLevel(level)
