"""Open a serial line with pySerial or serialx, and keep what blocks off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import select
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import attrs
import serial
import serial_asyncio

from nexus.errors import ConfigError, OpenError

serialx: Any = None
with contextlib.suppress(ImportError):  # the extra `serialx`
    serialx = importlib.import_module("serialx")
PySerial: Any = serial.Serial  # untyped

__all__ = ["Driver", "Line", "closed", "discard", "open_line", "unsent", "write"]

T = TypeVar("T")
Driver: TypeAlias = Literal["auto", "pyserial", "serialx"]
Lost: TypeAlias = "Callable[[OSError], None]"

READ_SIZE = 65536
"""Bytes that are read at once."""

_PROBLEMS = {
    errno.ENOENT: "there is no such device; is it plugged in?",
    errno.ENODEV: "there is no such device; is it plugged in?",
    errno.ENXIO: "there is no such device; is it plugged in?",
    errno.EACCES: "no permission; the user must be in the group of the device, dialout on many systems",
    errno.EPERM: "no permission; the user must be in the group of the device, dialout on many systems",
    errno.EBUSY: "it is in use, by another program or another part of this one",
    errno.EAGAIN: "it is in use, by another program or another part of this one",
    errno.ENOTTY: "it is no serial port",
}


@attrs.frozen(kw_only=True)
class Line:
    """What those who share a port have to agree on."""

    port: str
    baudrate: int
    bytesize: int
    parity: str
    stopbits: float
    rtscts: bool
    xonxoff: bool
    dsrdtr: bool
    exclusive: bool
    driver: Driver

    def seconds(self, count: int) -> float:
        """Say how long the line takes for some bytes."""
        bits = 1 + self.bytesize + (self.parity != "N") + self.stopbits
        return count * bits / self.baudrate


async def open_line(line: Line, protocol: asyncio.Protocol, lost: Lost) -> asyncio.Transport:
    """Open the port; in threads, so that a slow device holds nobody up. Cancelled, it is closed again.

    Args:
        protocol: gets what comes, and `connection_lost` when the port is given up.
        lost: called with what went wrong, once or more; the transport is to be aborted then.

    Raises:
        OpenError: the device is not there, in use, or not for us.
        ConfigError: the device cannot be set up so.
    """
    problem: Exception
    try:
        if line.driver == "serialx" and serialx is None:
            raise ConfigError(
                "driver: found 'serialx', which is not installed; allowed: 'auto' or 'pyserial'"
            )
        if line.driver != "pyserial" and serialx is not None:
            try:
                return await _open_serialx(line, protocol)
            except serialx.UnsupportedSetting as exc:
                if line.driver == "serialx":
                    raise ConfigError(f"{line.port}: serialx cannot set it up so: {exc}") from exc
        return await _open_pyserial(line, protocol, lost)
    except ConfigError:
        raise
    except ValueError as exc:
        raise ConfigError(f"{line.port}: the device refuses its settings: {exc}") from exc
    except Exception as exc:  # termios.error and serialx's own are no OSErrors
        problem = exc
    number = problem.errno if isinstance(problem, OSError) else next(iter(problem.args), None)
    why = _PROBLEMS.get(number) if isinstance(number, int) else None
    raise OpenError(f"cannot open {line.port}: {why or problem}") from problem


def write(transport: asyncio.Transport, data: bytes) -> None:
    """Write as much as the line takes now; the transport sees to the rest."""
    port = transport.get_extra_info("serial")
    if isinstance(port, _Port) and not transport.get_write_buffer_size():
        # pyserial-asyncio never writes at once: it would take a turn of the loop for each lot.
        count = port.write(data)
        if count == len(data):
            return
        data = data[count:]
    transport.write(data)


def unsent(transport: asyncio.Transport) -> int:
    """Say how many bytes the operating system holds that are not on the line; 0 where it does not tell."""
    port = transport.get_extra_info("serial")
    try:
        return int(port.out_waiting if isinstance(port, _Port) else port.num_unwritten_bytes())
    except Exception:  # a device that is gone, in the words of its driver
        return 0


def discard(transport: asyncio.Transport) -> None:
    """Throw away what is unsent, for closing would wait for it. May block for a moment."""
    if unsent(transport):
        port = transport.get_extra_info("serial")
        with contextlib.suppress(Exception):
            (port.reset_output_buffer if isinstance(port, _Port) else port.reset_write_buffer)()


async def closed(port: object) -> None:
    """Wait until what was the ``serial`` of a transport, before that was lost, has let go of the device."""
    if isinstance(port, _Port) and port.closing is not None:
        await asyncio.shield(port.closing)


async def _open_serialx(line: Line, protocol: asyncio.Protocol) -> asyncio.Transport:
    transport: asyncio.Transport
    transport, _ = await serialx.create_serial_connection(
        asyncio.get_running_loop(),
        lambda: protocol,
        line.port,
        line.baudrate,
        parity=serialx.Parity(line.parity),
        stopbits=serialx.StopBits(line.stopbits),
        xonxoff=line.xonxoff,
        rtscts=line.rtscts,
        dsrdtr=line.dsrdtr,
        exclusive=line.exclusive,
        byte_size=line.bytesize,
    )
    return transport


async def _open_pyserial(line: Line, protocol: asyncio.Protocol, lost: Lost) -> asyncio.Transport:
    loop = asyncio.get_running_loop()

    def make() -> _Port:
        return _Port(
            loop,
            lost,
            port=line.port,
            baudrate=line.baudrate,
            bytesize=line.bytesize,
            parity=line.parity,
            stopbits=line.stopbits,
            rtscts=line.rtscts,
            xonxoff=line.xonxoff,
            dsrdtr=line.dsrdtr,
            exclusive=line.exclusive,
            timeout=0,
            write_timeout=0,
        )

    port = await _in_thread(make, _Port.close_now)
    transport: asyncio.Transport
    transport, _ = await serial_asyncio.connection_for_serial(loop, lambda: protocol, port)
    return transport


class _Port(PySerial):  # type: ignore[misc]
    """pySerial's port, for an event loop that must not stop.

    pyserial-asyncio 0.6 reads 1 KiB at a time, spins while the kernel's buffer is full, sets the port up anew
    when it takes it over, waits when closing until the line has sent everything, and says no more than
    "Fatal write error" in the log when the device goes away.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Lost, **settings: Any) -> None:
        self._loop = loop
        self._lost = lost
        self.closing: asyncio.Future[None] | None = None
        super().__init__(**settings)

    def _reconfigure_port(self, *arguments: Any, **options: Any) -> None:
        if not self.is_open:
            super()._reconfigure_port(*arguments, **options)

    def read(self, size: int = 1) -> bytes:
        try:
            if os.name == "nt":
                return bytes(super().read(size))
            data = os.read(self.fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as exc:
            self._lost(exc)
            return b""
        if not data and _hung_up(self.fd):
            self._lost(OSError(errno.EIO, "the device is gone, or another program reads from it too"))
        return data

    def write(self, data: bytes) -> int:
        try:
            return int(super().write(data)) if os.name == "nt" else os.write(self.fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._lost(exc)
            return 0

    def flush(self) -> None:
        """Wait for nothing: `discard` was called where that is wanted."""

    def close(self) -> None:
        if self.closing is None and self.is_open:
            if self._loop.is_closed():
                self.close_now()
            else:
                self.closing = self._loop.run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """Close, and wait for the device."""
        with contextlib.suppress(OSError):
            super().close()


def _hung_up(fd: int) -> bool:
    """Tell a device that is gone from one that has nothing to say; both are read as no bytes."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


async def _in_thread(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Call in a thread. Cancelled, what it makes all the same is undone, in the thread too."""
    lock = threading.Lock()
    made: list[T] = []
    abandoned = False

    def work() -> None:
        thing = make()
        with lock:
            made.append(thing)
            late = abandoned
        if late:
            undo(thing)

    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(None, work)
    except asyncio.CancelledError:
        with lock:
            abandoned = True
            done = list(made)
        for thing in done:
            loop.run_in_executor(None, undo, thing)
        raise
    return made[0]
