"""Terminals, pipes and files as the event loop can use them: reading and writing never block it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from nexus.adapters._thread import Worker

__all__ = ["Input", "Output", "Stream"]

CHUNK = 64 * 1024
"""Bytes read at a time."""

CAREFUL = 512
"""Bytes that a terminal or pipe takes without blocking when it says that it takes some."""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class InMemory(Protocol):
    """Text or bytes in memory, such as `io.StringIO`."""

    def read(self, size: int, /) -> Any: ...
    def write(self, data: Any, /) -> Any: ...


Stream: TypeAlias = "int | HasFileno | InMemory"
"""A descriptor, what has one, or something in memory."""


class _Descriptor:
    """A descriptor of our own for a stream of somebody else."""

    def __init__(self, stream: Any, worker: Worker) -> None:
        self.memory: Any = None
        """The stream, if it has no descriptor."""
        self.fd = -1
        self._worker = worker
        try:
            given = stream if isinstance(stream, int) else stream.fileno()
        except (AttributeError, OSError, ValueError):
            if stream is None or getattr(stream, "closed", False):
                raise OSError(errno.EBADF, "it is closed") from None
            self.memory = stream
            self.in_thread = False
            return
        self.fd = self._own(given)
        mode = os.fstat(self.fd).st_mode
        self.in_thread = sys.platform == "win32" or not self._can_wait()
        self.is_socket = stat.S_ISSOCK(mode)

    def _own(self, given: int) -> int:
        return os.dup(given)

    def _can_wait(self) -> bool:
        """Say whether the event loop can wait for it: not for files, nor for /dev/null."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self.fd, lambda: None)
        except PermissionError:
            return False
        loop.remove_reader(self.fd)
        return True

    def close(self) -> None:
        """Let go of it; the stream itself stays open. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Input(_Descriptor):
    """Reads a stream.

    Args:
        stream: what to read.
        worker: reads what the event loop cannot wait for.

    Raises:
        OSError: it is closed.
    """

    def __init__(self, stream: Any, worker: Worker) -> None:
        super().__init__(stream, worker)
        self.ahead = bytearray()
        """What the thread has read for a `read` that was cancelled."""

    async def read(self) -> bytes:
        """Wait for bytes; none mean the end. Cancelled, what was read is in `ahead`."""
        if self.memory is not None:
            data = self.memory.read(CHUNK)
            return data.encode() if isinstance(data, str) else bytes(data or b"")
        if self.in_thread:
            await self._worker.call(self._read_ahead)
            data = bytes(self.ahead)
            self.ahead.clear()
            return data
        loop = asyncio.get_running_loop()
        await _until(loop.add_reader, loop.remove_reader, self.fd)
        try:
            return os.read(self.fd, CHUNK)
        except BlockingIOError:
            return await self.read()
        except OSError as exc:
            if exc.errno == errno.EIO:  # the other side of a terminal is gone
                return b""
            raise

    def _read_ahead(self) -> None:
        self.ahead += os.read(self.fd, CHUNK)


class Output(_Descriptor):
    """Writes to a stream.

    Args:
        stream: where to.
        worker: writes where the event loop cannot wait.

    Raises:
        OSError: it is closed.
    """

    def __init__(self, stream: Any, worker: Worker) -> None:
        self.written = 0
        """Bytes written so far."""
        super().__init__(stream, worker)

    def _own(self, given: int) -> int:
        # A description of our own, so that not to block is our own affair: whoever else has the terminal
        # would be surprised by it.
        self.is_careful = False
        kind = stat.S_IFMT(os.fstat(given).st_mode)
        if kind in (stat.S_IFIFO, stat.S_IFCHR) and sys.platform == "linux":
            with contextlib.suppress(OSError):
                return os.open(
                    f"/proc/self/fd/{given}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                )
        self.is_careful = kind in (stat.S_IFIFO, stat.S_IFCHR)
        return os.dup(given)

    def check(self) -> None:
        """See whether there is still a reader.

        Raises:
            BrokenPipeError: there is none.
        """
        if self.fd < 0 or self.in_thread or sys.platform == "win32":
            return
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0)):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    async def write(self, data: bytes) -> None:
        """Write all; `written` says how far that went, also when it raises or is cancelled.

        Raises:
            OSError: nobody reads any more, or there is no room on the disk.
        """
        until = self.written + len(data)
        while left := until - self.written:
            rest = data[-left:]
            if self.memory is not None:
                self.written += self._remember(rest)
            elif self.in_thread:
                await self._worker.call(self._write_in_thread, rest)
            else:
                self.written += await self._write_some(rest)

    def _write_in_thread(self, data: bytes) -> None:
        self.written += os.write(self.fd, data)

    async def _write_some(self, data: bytes) -> int:
        loop = asyncio.get_running_loop()
        while True:
            if self.is_careful:
                await _until(loop.add_writer, loop.remove_writer, self.fd)
            try:
                return self._write(data)
            except BlockingIOError:
                await _until(loop.add_writer, loop.remove_writer, self.fd)

    def _write(self, data: bytes) -> int:
        if self.is_socket:
            with contextlib.closing(socket.socket(fileno=os.dup(self.fd))) as end:
                return end.send(data, getattr(socket, "MSG_DONTWAIT", 0))
        return os.write(self.fd, data[:CAREFUL] if self.is_careful else data)

    def _remember(self, data: bytes) -> int:
        try:
            try:
                self.memory.write(data.decode("utf-8", "backslashreplace"))
            except TypeError:
                self.memory.write(data)
            if (flush := getattr(self.memory, "flush", None)) is not None:
                flush()
        except ValueError as exc:
            raise BrokenPipeError(errno.EPIPE, str(exc)) from exc
        return len(data)


async def _until(add: Callable[..., Any], remove: Callable[[int], Any], fd: int) -> None:
    """Wait until a descriptor can be read or written."""
    future = asyncio.get_running_loop().create_future()
    add(fd, _set, future)
    try:
        await future
    finally:
        remove(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
