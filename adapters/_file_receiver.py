"""Follow a file, or read it once, and remember what was accepted."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, TypeVar

from nexus.adapters import _file_cursor as cursor
from nexus.adapters._base import Meta, OnBad, Receiver
from nexus.adapters._file_config import FileConfig
from nexus.adapters._file_cursor import Progress
from nexus.adapters._file_disk import open_regular
from nexus.adapters._file_replay import Replay
from nexus.adapters._file_tail import Place, Tail, line_meta
from nexus.adapters._safe import why
from nexus.adapters._thread import Worker
from nexus.adapters.packing import CSVUnpacker, Unpacker
from nexus.errors import LinkDown, OpenError

__all__ = ["FileReceiver"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CURSOR_INTERVAL = 0.2
"""Seconds between two writes of a cursor file."""


class FileReceiver(Receiver[T]):
    """Gives each line of a file, by a thread of its own.

    It follows the file through rotation, truncation and replacement, or reads it once. The meta says
    ``path``, ``offset`` (bytes before the line), ``line`` (its number, from 1, or None), ``end`` (where the
    next one begins), and ``unterminated`` if the end of the line is missing at the end of its file. With a
    cursor file, ``record`` is the token that `accept` takes.

    Args:
        config: which file, and how.
        unpacker: turns a line into data; JSON unless told otherwise.
        on_bad: called with lines that were put aside.
    """

    def __init__(
        self,
        config: FileConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config = config or FileConfig()
        path = os.path.abspath(config.path)
        super().__init__(f"file://{path}", config, unpacker, overflow=config.overflow, on_bad=on_bad)
        self._path = path
        self._lines: dict[str, Any] = {
            "terminator": config.terminator or b"\n",
            "max_size": config.max_size,
            "quoted": isinstance(self.unpacker, CSVUnpacker),
            "follow": config.follow_symlinks,
            "special": config.allow_special,
        }
        self._worker = Worker(f"reader[{self.name}]")
        self._reader: Tail | Replay | None = None
        self._handing: Meta | None = None  # of the first line found, once it has a token
        self._replayed = 0
        self._progress = Progress(self._lines["terminator"]) if config.cursor else None
        self._saved: Place | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        if self._progress is not None:
            self._inbox.on_drop = self.accept

    def accept(self, meta: Meta) -> None:
        progress = self._progress
        if progress is None or "record" not in meta:
            return
        progress.accept(meta["record"])
        if self._save_timer is None and self.is_started:
            loop = asyncio.get_running_loop()
            self._save_timer = loop.call_later(CURSOR_INTERVAL, self._save_soon)

    def _unpack(self, payload: bytes, meta: Meta) -> T:
        if meta["line"] == 1 and isinstance(self.unpacker, CSVUnpacker):
            self.unpacker.reset()  # each file has a header of its own
        return super()._unpack(payload, meta)

    async def _open(self) -> None:
        try:
            await self._worker.call(self._open_reader)
        except OSError as exc:
            self._worker.shutdown()
            raise OpenError(exc.errno, f"cannot read {self.config.path}: {exc.strerror}") from exc
        except BaseException:
            self._worker.shutdown()
            raise

    def _open_reader(self) -> None:
        config = self.config
        if config.replay:
            self._reader = Replay(self._path, max_ratio=config.max_ratio, begin=self._replayed, **self._lines)
            return
        if not config.allow_special and os.path.lexists(self._path):
            os.close(open_regular(self._path, os.O_RDONLY, follow=config.follow_symlinks))
        if self._reader is None:
            place = cursor.load(config.cursor) if config.cursor else None
            self._reader = Tail(self._path, from_end=config.start == "end", place=place, **self._lines)

    async def _run(self) -> None:
        reader = self._reader
        if isinstance(reader, Tail):
            await self._link.keep(lambda: self._follow(reader))
        elif reader is not None:
            self._link.up()
            await self._replay(reader)

    async def _follow(self, tail: Tail) -> None:
        while True:
            more = await self._worker.call(tail.step)
            if tail.is_there:
                self._link.up()  # before what is in it finds room
            await self._hand_over(tail)
            if not tail.is_there and self._link.is_up:
                self._link.down(f"{self._path} is not there")
            if not more:
                await asyncio.sleep(self.config.poll)

    async def _replay(self, replay: Replay) -> None:
        more = True
        while more:
            try:
                more = await self._worker.call(replay.step)
            except (OSError, EOFError) as exc:
                raise LinkDown(f"{self.name} cannot be read any further: {why(exc)}") from exc
            await self._hand_over(replay)
        self._replayed = 0

    async def _hand_over(self, reader: Tail | Replay) -> None:
        """Give the lines found to the inbox. Cancelled, the rest stays where it is."""
        if reader.too_long:
            self._count_bad("size", reader.too_long)
            reader.too_long = 0
        while reader.found:
            found = reader.found[0]
            meta = self._handing
            if meta is None:
                meta = self._handing = line_meta(self._path, found.line)
                if self._progress is not None:
                    meta["record"] = self._progress.give(found)
            if not self._inbox.offer(found.line.payload, meta):
                await self._inbox.put(found.line.payload, meta)
            self._handing = None
            self._replayed = found.line.end
            reader.found.popleft()

    def _save_soon(self) -> None:
        self._save_timer = None
        self._worker.submit(self._save)

    def _save(self) -> None:
        """Write the cursor file if there is anything new to say."""
        place = self._progress.place if self._progress is not None else None
        if place is None or place == self._saved:
            return
        try:
            cursor.save(self.config.cursor, place)
        except OSError as exc:
            logger.warning("%s: the cursor could not be written: %s", self.name, exc)
        else:
            self._saved = place

    async def _close(self) -> None:
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        try:
            async with asyncio.timeout(self.config.flush_timeout + 1):
                await self._worker.call(self._close_reader)
        except TimeoutError:
            logger.warning("%s: the disk does not answer", self.name)
        finally:
            self._worker.shutdown()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._save()
