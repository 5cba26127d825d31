"""One open serial port for all parts of a process that send to it or receive from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from nexus.adapters._serial_drivers import Line, closed, discard, open_line, unsent, write
from nexus.errors import ConfigError

__all__ = ["Line", "Port", "Tap", "shared"]

HIGH = 256 * 1024
"""Bytes that one receiver may leave unread before nothing more is read from the port."""
READ_SIZE = 65536
"""Bytes that one receiver is given at once."""
PIECE = 16 * 1024
"""Bytes given to the transport at once: it copies all it holds whenever it writes some."""


class Tap:
    """What one receiver has not yet read of a port."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._waiter: asyncio.Future[None] | None = None
        self.buffer = bytearray()

    async def read(self) -> bytes:
        """Wait for the next bytes.

        Raises:
            OSError: the port is gone, and all that came before was read.
        """
        while not self.buffer:
            if self._port.error is not None:
                raise self._port.error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self.buffer[:READ_SIZE])
        del self.buffer[:READ_SIZE]
        self._port.resume()
        return data

    def wake(self) -> None:
        """Let `read` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Read no more."""
        self._port.taps.discard(self)
        self._port.resume()


class Port(asyncio.Protocol):
    """An open port; every part of the process that receives has a tap of its own."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.error: OSError | None = None
        """Why it can no longer be used."""
        self.taps: set[Tap] = set()
        self._transport: asyncio.Transport | None = None
        self._device: object = None
        self._loop = asyncio.get_running_loop()
        self._lost = self._loop.create_future()
        self._is_paused = False
        self._is_full = False
        self._writing = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open it. Cancelled, it is closed.

        Raises:
            OpenError, ConfigError: see `open_line`.
        """
        transport = await open_line(self.line, self, self.fail)
        # What was written must be told from what waits: all is written when nothing waits.
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._device = transport.get_extra_info("serial")  # the transport forgets it before it is closed

    def tap(self) -> Tap:
        """Give what comes from now on."""
        tap = Tap(self)
        self.taps.add(tap)
        return tap

    async def write(self, data: bytes, timeout: float | None) -> None:
        """Write everything; what others write comes before or after. Cancelled, a part may be written.

        Args:
            timeout: seconds in which the line takes 16 KiB; None for no limit.

        Raises:
            OSError: the port is gone, and nobody knows how much of it came out.
            TimeoutError: the line takes nothing; the port is given up.
        """
        async with self._writing:
            for at in range(0, len(data), PIECE):
                await self._has_room(timeout)
                if self._transport is not None:
                    write(self._transport, data[at : at + PIECE])
            await self._has_room(timeout)

    async def drained(self, below: int = 0, timeout: float | None = None) -> None:
        """Wait until the operating system holds no more than some bytes which are not on the line.

        Args:
            below: bytes.
            timeout: seconds in which it may make no progress; then the port is given up. None for no limit.
        """
        least = since = float("inf")
        while self.error is None and self._transport is not None:
            count, now = unsent(self._transport), self._loop.time()
            if count <= below:
                return
            if count < least:
                least, since = count, now
            elif timeout is not None and now - since >= timeout:
                self.fail(TimeoutError(f"the line took nothing for {timeout} s"))
            await asyncio.sleep(min(0.05, max(0.001, self.line.seconds(count - below))))

    async def gone(self) -> NoReturn:
        """Wait until it can no longer be used.

        Raises:
            OSError: always; why that is.
        """
        await asyncio.shield(self._lost)
        raise self.error or ConnectionError("the port was closed")

    async def close(self) -> None:
        """Let go of it; throw away what is unsent. Cancelled, it closes all the same."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            if self.error is None:
                self.error = ConnectionError("the port was closed")
                await self._loop.run_in_executor(None, discard, transport)
        finally:
            _abort(transport)
        await asyncio.shield(self._lost)
        await closed(self._device)

    def fail(self, error: OSError) -> None:
        """Give it up."""
        if self.error is None:
            self.error = error
        if self._transport is not None:
            # Not at once: the transport is in the midst of reading or writing.
            self._loop.call_soon(_abort, self._transport)

    def data_received(self, data: bytes) -> None:
        for tap in self.taps:
            tap.buffer += data
            tap.wake()
            if len(tap.buffer) > HIGH and not self._is_paused and self._transport is not None:
                self._is_paused = True
                self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, if no receiver is far behind."""
        if self._is_paused and all(len(tap.buffer) <= HIGH // 2 for tap in self.taps):
            self._is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.error is None:
            self.error = (
                exc if isinstance(exc, OSError) else OSError(f"the device is gone: {exc or 'closed'}")
            )
        if not self._lost.done():
            self._lost.set_result(None)
        self.resume_writing()
        for tap in self.taps:
            tap.wake()

    async def _has_room(self, timeout: float | None) -> None:
        if self._is_full and self.error is None:
            self._room = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._room
            except TimeoutError:
                self.fail(TimeoutError(f"the line took nothing for {timeout} s"))
            finally:
                self._room = None
        if self.error is not None:
            raise self.error


class _Desk:
    """Where the parts of a process meet that use one port."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.users = 0
        self.port: Port | None = None
        self.lock = asyncio.Lock()


_desks: dict[tuple[asyncio.AbstractEventLoop, str], _Desk] = {}


@asynccontextmanager
async def shared(line: Line) -> AsyncIterator[Port]:
    """Use a port together with whoever uses it already; the first opens it, the last closes it.

    Raises:
        OpenError: it cannot be opened.
        ConfigError: it cannot be set up so, or is in use here with other settings.
    """
    key = (asyncio.get_running_loop(), line.port)
    desk = _desks.setdefault(key, _Desk(line))
    if desk.line != line:
        raise ConfigError(
            f"{line.port} is in use here as {desk.line}; allowed: the same settings, not {line}"
        )
    desk.users += 1
    try:
        async with desk.lock:
            if desk.port is None or desk.port.error is not None:
                if desk.port is not None:
                    await desk.port.close()
                port = Port(line)
                await port.open()
                desk.port = port
        yield desk.port
    finally:
        desk.users -= 1
        try:
            async with desk.lock:
                if not desk.users and desk.port is not None:
                    port, desk.port = desk.port, None
                    await port.close()
        finally:
            if not desk.users:
                _desks.pop(key, None)


def _abort(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.abort()
