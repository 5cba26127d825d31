"""Lines to the standard output and from the standard input: ``console:``."""

from __future__ import annotations

import asyncio
import itertools
import sys
from bisect import bisect_right
from collections import deque
from typing import Any, Literal, TypeVar

import attrs

from nexus.adapters._base import Again, Item, OnBad, OutItem, Overflow, Receiver, Sender, SendOverflow
from nexus.adapters._config import Config, option
from nexus.adapters._console_stream import Input, Output, Stream
from nexus.adapters._console_text import visible
from nexus.adapters._endpoint import Adapter, Url
from nexus.adapters._framing import LineFramer
from nexus.adapters._thread import Worker
from nexus.adapters.packing import Packer, Unpacker
from nexus.errors import ConfigError, OpenError

__all__ = ["ADAPTER", "ConsoleConfig", "ConsoleReceiver", "ConsoleSender"]

T = TypeVar("T")

BATCH = 256
"""Lines that are written at a time."""

BATCH_BYTES = 64 * 1024
"""Bytes that are written at a time."""


@attrs.frozen(kw_only=True)
class ConsoleConfig(Config):
    """Options of the console, for both halves."""

    output: Literal["stdout", "stderr"] = option("stdout", help="where a sender writes")
    raw: bool = option(False, help="whether control characters go to the terminal as they are")
    maxsize: int = option(1000, low=1, help="lines that each half holds")
    max_size: int = option(2**20, low=1, unit="bytes", help="the longest line")
    overflow: Overflow = option("block", help="what happens to lines that find no room")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on writing")
    retry: Again = option("always", help="whether to try again when nobody reads the output")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        if url.host or url.path or url.port is not None or url.user is not None:
            raise ConfigError(f"{url.place}: found a place, allowed: none, as in console:")
        return {}


class ConsoleSender(Sender[T]):
    """Writes a line for each item: the frame, or the topic, a colon, a tab and the frame.

    What would steer a terminal is written as an escape, such as ``\\x1b``, unless the config says ``raw``. A
    terminal or pipe that takes nothing holds up neither the event loop nor, beyond its bound, the stop. When
    nobody reads any more, the link is down.

    Args:
        config: how.
        packer: turns data into a line; JSON unless told otherwise.
        stream: where to in place of the standard output: a descriptor, a file, or text in memory.
    """

    def __init__(
        self,
        config: ConsoleConfig | None = None,
        packer: Packer[T] | None = None,
        *,
        stream: Stream | None = None,
    ) -> None:
        self.config = config = config or ConsoleConfig()
        overflow: SendOverflow = config.overflow
        super().__init__(f"console:{config.output}", config, packer, overflow=overflow)
        self._stream = stream
        self._worker = Worker(f"writer[{self.name}]")
        self._output: Output | None = None
        self._is_torn = False  # whether the last line lacks its end

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        rest = dict(options)
        topic = rest.pop("topic", "")
        super()._check(rest)
        if not isinstance(topic, str):
            raise ConfigError(f"topic: found {type(topic).__qualname__}, allowed: text")
        return options

    async def _open(self) -> None:
        stream = getattr(sys, self.config.output) if self._stream is None else self._stream
        try:
            self._output = Output(stream, self._worker)
        except OSError as exc:
            raise OpenError(exc.errno, f"cannot write to {self.name}: {exc.strerror}") from exc

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        assert self._output is not None
        self._output.check()
        while True:
            if not self._backlog.waiting:
                self._link.up()
            await self._backlog.wait()
            await self._write(self._output)
            await asyncio.sleep(0)  # others have their turn, though memory never blocks
            self._link.up()

    async def _write(self, output: Output) -> None:
        """Write a batch. A line of which not all was written goes again, after an end for the first try."""
        items = self._backlog.take(BATCH, BATCH_BYTES)
        lines = [self._line(item) for item in items]
        if self._is_torn:
            lines[0] = b"\n" + lines[0]
        ends = list(itertools.accumulate(map(len, lines)))
        data = b"".join(lines)
        before = output.written
        try:
            await output.write(data)
        finally:
            done = output.written - before
            whole = bisect_right(ends, done)
            if done:
                self._is_torn = done > (ends[whole - 1] if whole else 0)
            for item in items[:whole]:
                self._backlog.done(item)
            self._backlog.put_back(items[whole:])

    def _line(self, item: OutItem) -> bytes:
        topic = item.options.get("topic", "")
        if self.config.raw:
            head = f"{topic}:\t".encode(errors="backslashreplace") if topic else b""
            return head + item.payload + b"\n"
        head_text = visible(topic).replace("\t", "\\x09") + ":\t" if topic else ""
        return f"{head_text}{visible(item.payload)}\n".encode()

    async def _close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()
        self._worker.shutdown()


class ConsoleReceiver(Receiver[T]):
    """Gives each line of the standard input, and ends where that ends.

    It reads the descriptor: what a program has read ahead by ``sys.stdin`` is not seen here.

    Args:
        config: how.
        unpacker: turns a line into data; JSON unless told otherwise.
        stream: what to read in place of the standard input: a descriptor, a file, or text in memory.
        on_bad: called with lines that were put aside.
    """

    def __init__(
        self,
        config: ConsoleConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        stream: Stream | None = None,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config = config or ConsoleConfig()
        super().__init__("console:stdin", config, unpacker, overflow=config.overflow, on_bad=on_bad)
        self._stream = stream
        self._worker = Worker(f"reader[{self.name}]")
        self._framer = LineFramer(max_size=config.max_size)
        self._found: deque[Item] = deque()  # bounded by the lines of one read
        self._lines = 0
        self._ahead = b""
        self._input: Input | None = None

    async def _open(self) -> None:
        try:
            self._input = Input(sys.stdin if self._stream is None else self._stream, self._worker)
        except OSError as exc:
            raise OpenError(exc.errno, f"cannot read {self.name}: {exc.strerror}") from exc

    async def _run(self) -> None:
        assert self._input is not None
        self._link.up()
        is_at_end = False
        while not is_at_end:
            await self._hand_over()
            data, self._ahead = self._ahead or await self._input.read(), b""
            is_at_end = not data
            for line in self._framer.feed(data) if data else self._framer.finish():
                self._lines += 1
                self._found.append((line, {"line": self._lines}))
            if rejected := self._framer.rejected.pop("size", 0):
                self._count_bad("size", rejected)
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Give the lines found to the inbox. Cancelled, the rest stays here."""
        while self._found:
            payload, meta = self._found[0]
            if not self._inbox.offer(payload, meta):
                await self._inbox.put(payload, meta)
            self._found.popleft()

    async def _close(self) -> None:
        source, self._input = self._input, None
        if source is not None:
            self._ahead = bytes(source.ahead)
            source.close()
        self._worker.shutdown()


ADAPTER = Adapter(
    name="console",
    schemes=("console",),
    config=ConsoleConfig,
    sender=ConsoleSender,
    receiver=ConsoleReceiver,
    summary="lines on the terminal, or through a pipe: console:",
)
