"""Two serial ports joined by a cable, made of pseudo-terminals; the devices can be unplugged and replaced."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["NullModem"]


class NullModem:
    """Two serial ports, joined: what is written to one can be read from the other, and back.

    Each is the slave of a pseudo-terminal behind a link that stays while devices come and go. A port that is
    not read from holds its writer back. To be used in one event loop.

    Args:
        folder: where the links are made.
        raw: False leaves the ports as the kernel makes them: echoing, and translating ends of lines.
    """

    def __init__(self, folder: Path, *, raw: bool = True) -> None:
        self.a = str(folder / "port-a")
        self.b = str(folder / "port-b")
        self.raw = raw
        self.carried = 0
        """Bytes that went from one port to the other, both ways."""
        self._masters: list[int] = []
        self._slaves: list[int] = []
        self._held: list[bytes] = []

    async def __aenter__(self) -> "NullModem":
        self.plug()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.unplug()

    @property
    def slaves(self) -> tuple[int, int]:
        """Descriptors of the two ports, to look at their settings."""
        a, b = self._slaves
        return a, b

    def plug(self) -> None:
        """Make both devices, and let the links lead to them."""
        for path in (self.a, self.b):
            master, slave = os.openpty()
            if self.raw:
                tty.setraw(slave, termios.TCSANOW)
            os.set_blocking(master, False)
            self._masters.append(master)
            self._slaves.append(slave)  # kept, or the master would see the line hang up before it is used
            os.symlink(os.ttyname(slave), f"{path}.new")
            os.replace(f"{path}.new", path)
        self._held = [b"", b""]
        self.go()

    def unplug(self) -> None:
        """Take both devices away, with all that is on its way."""
        if not self._masters:
            return
        self.hold()
        for path in (self.a, self.b):
            os.unlink(path)
        for fd in (*self._masters, *self._slaves):
            os.close(fd)
        self._masters.clear()
        self._slaves.clear()

    def hold(self) -> None:
        """Carry nothing for the time being: who writes will find the line full."""
        loop = asyncio.get_running_loop()
        for master in self._masters:
            loop.remove_reader(master)
            loop.remove_writer(master)

    def go(self) -> None:
        """Carry on."""
        for end in (0, 1):
            self._carry(end)

    def inject(self, end: int, data: bytes) -> None:
        """Let bytes arrive at a port, 0 for a and 1 for b, after those that are on their way."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._masters[1 - end])
        self._held[1 - end] += data
        self._write(1 - end)

    def _carry(self, end: int) -> None:
        """Wait for what comes from one port, or for room at the other one."""
        loop = asyncio.get_running_loop()
        if self._held[end]:
            loop.add_writer(self._masters[1 - end], self._write, end)
        else:
            loop.add_reader(self._masters[end], self._read, end)

    def _read(self, end: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._held[end] = os.read(self._masters[end], 65536)
            self._write(end)

    def _write(self, end: int) -> None:
        loop = asyncio.get_running_loop()
        count = 0
        with contextlib.suppress(BlockingIOError):
            count = os.write(self._masters[1 - end], self._held[end])
        self.carried += count
        self._held[end] = self._held[end][count:]
        if self._held[end]:
            loop.remove_reader(self._masters[end])
        else:
            loop.remove_writer(self._masters[1 - end])
        self._carry(end)
