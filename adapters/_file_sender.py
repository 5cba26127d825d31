"""Write lines to files that are rolled over, through full disks and failing ones."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from nexus.adapters._base import Sender, SendOverflow
from nexus.adapters._file_config import NAME, FileConfig
from nexus.adapters._file_disk import Disk, Folder, open_regular
from nexus.adapters._file_names import Names, zone
from nexus.adapters._file_writer import Batch, Plan, Writer
from nexus.adapters._safe import why
from nexus.adapters._thread import Worker
from nexus.adapters.packing import CSVPacker, JSONPacker, Packer, TextPacker
from nexus.errors import OpenError, PackerError

__all__ = ["FileSender"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

ROLLOVER = 3600.0
"""Seconds that a file of a directory is written."""

BATCH = 512
"""Lines that are written at a time."""

BATCH_BYTES = 256 * 1024
"""Bytes that are written at a time."""

LOOK = 0.02
"""Seconds between looks at whether a batch that is being gathered should go."""


class FileSender(Sender[T]):
    """Writes a line for each item, in a thread of its own.

    With a directory, each file has a name of its own, and ends in ``.open`` until it is finished. With a
    file, that one is continued; rolled over, it is renamed. A disk that is full or fails takes the link
    down; the lines wait in the backlog and go when it works again.

    Args:
        config: where to, and how.
        packer: turns data into a line; JSON unless told otherwise.
        header: gives what each new file begins with, its line ends included; called in the event loop. With a
            `CSVPacker` it is the row of the names unless told otherwise.
        disk: where the files go in place of the directory.
        now: tells the time for the names in place of the machine's clock.
    """

    def __init__(
        self,
        config: FileConfig | None = None,
        packer: Packer[T] | None = None,
        *,
        header: Callable[[], str | bytes] | None = None,
        disk: Disk | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config = config or FileConfig()
        self.header = header
        overflow: SendOverflow = config.overflow
        super().__init__(f"file://{os.path.abspath(config.path)}", config, packer, overflow=overflow)
        is_csv = isinstance(self.packer, CSVPacker)
        self._terminator = config.terminator or (b"\r\n" if is_csv else b"\n")
        self._disk = disk
        self._now = now
        self._hurry = asyncio.Event()
        self._worker = Worker(f"writer[{self.name}]")
        self._folder: Folder | None = None
        self._writer: Writer | None = None

    async def flush(self, timeout: float | None = None) -> bool:
        self._hurry.set()
        try:
            return await super().flush(timeout)
        finally:
            self._hurry.clear()

    def _pack(self, data: Any) -> bytes:
        line = super()._pack(data)
        # Of CSV it would stand between quotes.
        if self._terminator in line and not isinstance(self.packer, CSVPacker):
            raise PackerError(data, f"it holds the end of a line, {self._terminator!r}")
        return line + self._terminator

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._writer = await self._worker.call(self._make_writer, loop.time)
        except OSError as exc:
            self._worker.shutdown()
            raise OpenError(exc.errno, f"cannot write to {self.config.path}: {exc.strerror}") from exc
        except BaseException:
            self._worker.shutdown()
            raise

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        writer, backlog = self._writer, self._backlog
        assert writer is not None
        await self._worker.call(writer.open)
        due = await self._worker.call(writer.tick)
        while True:
            if backlog.waiting:
                await backlog.wait()
                await self._gather()
                await backlog.wait()  # what waited while the link was down goes at a bounded rate
                due = await self._write(writer)
                self._link.up()
                continue
            self._link.up()
            try:
                async with asyncio.timeout(due):
                    await backlog.wait()
            except TimeoutError:
                due = await self._worker.call(writer.tick)

    async def _gather(self) -> None:
        """Wait for more lines, unless somebody waits for those that are there."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.config.flush_interval
        while (left := until - loop.time()) > 0 and not self._hurry.is_set():
            if len(self._backlog) >= min(BATCH, self.config.maxsize):
                return
            try:
                async with asyncio.timeout(min(left, LOOK)):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _write(self, writer: Writer) -> float | None:
        """Write a batch, and do what is due."""
        header = self._begin_of_file()
        items = self._backlog.take(BATCH, BATCH_BYTES)
        batch = Batch([item.payload for item in items], header, is_fixed_header=self.header is None)
        try:
            return await self._worker.call(_write_and_tick, writer, batch)
        finally:
            written = batch.written
            self._backlog.done_all(items[:written])
            if batch.ended:
                self._backlog.put_back(items[written:])
            else:
                for item in items[written:]:  # the disk hangs; nobody knows
                    self._backlog.reject(item, "unconfirmed")

    def _begin_of_file(self) -> bytes:
        if self.header is not None:
            given = self.header()
            header = given.encode() if isinstance(given, str) else bytes(given)
        elif isinstance(self.packer, CSVPacker) and self.packer.fields is not None:
            header = self.packer.header()
        else:
            return b""
        return header if not header or header.endswith(self._terminator) else header + self._terminator

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        writer, self._writer = self._writer, None
        bound = self.config.flush_timeout
        try:
            if writer is not None:
                async with asyncio.timeout(bound + 1):
                    await self._worker.call(writer.close, loop.time() + bound)
        except (OSError, TimeoutError) as exc:
            logger.warning("%s was not closed as it should: %s", self.name, why(exc))
        finally:
            self._worker.shutdown()
            if self._folder is not None:
                self._folder.close()

    def _make_writer(self, clock: Callable[[], float]) -> Writer:
        config = self.config
        path, given = os.path.abspath(config.path), self._disk
        fixed = None
        folder = path
        if not (config.path.endswith(("/", os.sep)) or (given is None and os.path.isdir(path))):
            folder, fixed = os.path.split(path)
            if given is None and os.path.lexists(path):
                os.close(open_regular(path, os.O_WRONLY | os.O_APPEND))
        disk = given
        if disk is None:
            disk = self._folder = Folder(folder)
        stem, extension = os.path.splitext(fixed or "")
        begin = NAME if fixed is None else stem.replace("%", "%%") + NAME.removeprefix("data")
        suffix = config.suffix
        if suffix is None:
            suffix = _suffix(self.packer) if fixed is None else extension
        names = Names(config.name or begin, suffix, zone(config.timezone), now=self._now)
        rollover = config.rollover
        if rollover is None and fixed is None:
            rollover = ROLLOVER
        plan = Plan(
            fixed=fixed,
            terminator=self._terminator,
            rollover=rollover or None,
            rollover_size=config.rollover_size,
            fsync=config.fsync,
            fsync_interval=config.fsync_interval,
            compress=config.compress,
        )
        return Writer(disk, names, plan, clock)


def _write_and_tick(writer: Writer, batch: Batch) -> float | None:
    try:
        writer.write(batch)
        return writer.tick()
    finally:
        batch.ended = True


def _suffix(packer: object) -> str:
    match getattr(packer, "base", packer):
        case JSONPacker():
            return ".jsonl"
        case CSVPacker():
            return ".csv"
        case TextPacker():
            return ".txt"
    return ".dat"
