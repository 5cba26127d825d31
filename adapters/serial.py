"""Data over a serial line: lines, frames of one size, or frames that begin with their length.

``serial:///dev/ttyUSB0?baudrate=115200`` or ``serial://COM3``. The line may be unplugged at any time; it is
opened again when it is back. A sender and a receiver of one program share the port.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import Any, Literal, TypeVar

import attrs

from nexus.adapters._base import Again, Item, OnBad, OutItem, Overflow, Receiver, Sender
from nexus.adapters._config import Config, WrongOption, option
from nexus.adapters._endpoint import Adapter, Url
from nexus.adapters._framing import Framer, FramingError, make_framer
from nexus.adapters._serial_port import Line, Port, Tap, shared
from nexus.adapters.packing import Packer, Unpacker
from nexus.errors import PackerError

__all__ = ["ADAPTER", "SerialConfig", "SerialReceiver", "SerialSender"]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class SerialConfig(Config):
    """Options of a serial line."""

    port: str = option("/dev/serial0", help="the device: /dev/ttyUSB0, /dev/serial/by-id/..., COM3")
    baudrate: int = option(9600, low=1, unit="bit/s", help="speed of the line")
    bytesize: int = option(8, low=5, high=8, unit="bits", help="data bits of a character")
    parity: Literal["N", "E", "O", "M", "S"] = option("N", help="none, even, odd, mark or space")
    stopbits: float = option(1.0, choices=(1.0, 1.5, 2.0), unit="bits", help="stop bits of a character")
    rtscts: bool = option(False, help="flow control by the wires RTS and CTS")
    xonxoff: bool = option(
        False, help="flow control by the characters XON and XOFF; the data cannot hold them"
    )
    dsrdtr: bool = option(False, help="leave the wire DTR to flow control by DSR and DTR")
    exclusive: bool = option(True, help="keep other programs from the port")
    driver: Literal["auto", "pyserial", "serialx"] = option(
        "auto", help="what opens the port; auto: serialx where it is installed and can do so"
    )
    frame: Literal["line", "fixed", "length"] = option("line", help="how frames are told from each other")
    terminator: bytes = option(b"\n", help="what ends a line; text from a URL may say \\r\\n")
    size: int | None = option(None, low=1, unit="bytes", help="of every frame, where frame is fixed")
    width: int = option(4, low=1, high=8, unit="bytes", help="of the length, where frame is length")
    byteorder: Literal["big", "little"] = option("big", help="of the length, where frame is length")
    encoding: str = option("ascii", help="how text is written, where a packer gives text")
    write_timeout: float | None = option(
        None,
        low=0.001,
        unit="s",
        help="the longest wait for a line that takes nothing; then it is opened anew",
    )
    maxsize: int = option(1000, low=1, help="frames that each half holds")
    max_size: int = option(2**20, low=1, unit="bytes", help="the largest frame")
    overflow: Overflow = option("block", help="what happens to frames that find no room")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    retry: Again = option("always", help="whether to open the port again when it is gone")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.frame == "fixed" and self.size is None:
            raise WrongOption(
                "size", "SerialConfig", "found none; allowed: the bytes of every frame, 1 or more"
            )
        if not self.port:
            raise WrongOption("port", "SerialConfig", "found ''; allowed: a device, such as /dev/ttyUSB0")
        try:
            codecs.lookup(self.encoding)
        except (LookupError, UnicodeError):
            why = f"found {self.encoding!a}; allowed: an encoding, such as ascii or utf-8"
            raise WrongOption("encoding", "SerialConfig", why) from None
        self.framer()

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        place = url.host + url.path  # serial:///dev/ttyUSB0, serial://COM3
        return {"port": place} if place else {}

    def framer(self) -> Framer:
        """Make what finds the frames.

        Raises:
            ConfigError: options contradict each other.
        """
        return make_framer(
            self.frame,
            terminator=self.terminator,
            size=self.size,
            width=self.width,
            byteorder=self.byteorder,
            max_size=self.max_size,
        )

    def line(self) -> Line:
        """Say what the halves that share the port agree on."""
        return Line(
            port=self.port,
            baudrate=self.baudrate,
            bytesize=self.bytesize,
            parity=self.parity,
            stopbits=self.stopbits,
            rtscts=self.rtscts,
            xonxoff=self.xonxoff,
            dsrdtr=self.dsrdtr,
            exclusive=self.exclusive,
            driver=self.driver,
        )


class SerialSender(Sender[T]):
    """Sends frames over a serial line.

    A frame is with the transport when the operating system has it. Frames that were on their way there when
    the device went are sent again when it is back.

    Args:
        config: which port, and how.
        packer: turns data into a frame; JSON unless told otherwise.
    """

    def __init__(self, config: SerialConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or SerialConfig()
        super().__init__(f"serial:{self.config.port}", self.config, packer, overflow=self.config.overflow)
        self._encoding = self.config.encoding
        self._framer = self.config.framer()
        self._line = self.config.line()
        # What is given to the line at once, and what may wait within the operating system: a tenth of a
        # second's worth, for what is urgent cannot overtake it there.
        self._lot = max(512, self.config.baudrate // 100)
        self._port: Port | None = None

    def _pack(self, data: Any) -> bytes:
        try:
            return self._framer.pack(super()._pack(data))
        except PackerError as exc:
            raise PackerError(data, exc.why) from exc.__cause__

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        async with shared(self._line) as port:
            self._port = port
            self._link.up()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(port.gone(), name=f"adapter[{self.name}].watch")
                    group.create_task(self._write(port), name=f"adapter[{self.name}].write")
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
            finally:
                self._port = None

    async def _write(self, port: Port) -> None:
        backlog, timeout = self._backlog, self.config.write_timeout
        items: list[OutItem] = []
        while True:
            await backlog.wait()
            items = backlog.take(4096, self._lot)
            try:
                await port.write(b"".join(item.payload for item in items), timeout)
                backlog.done_all(items)
                items = []
            finally:
                backlog.put_back(items)
            await port.drained(self._lot, timeout)

    async def _wind_down(self) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self.config.flush_timeout
        await super()._wind_down()
        port = self._port
        if port is not None:
            try:
                async with asyncio.timeout(until - clock()):
                    await port.drained()
            except TimeoutError:
                pass  # closing throws it away


class SerialReceiver(Receiver[T]):
    """Receives frames from a serial line. ``meta["port"]`` is the device.

    What comes while no receiver is started is lost. The first line after the start may lack its begin.

    Args:
        config: which port, and how.
        unpacker: turns a frame into data; JSON unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    def __init__(
        self,
        config: SerialConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or SerialConfig()
        super().__init__(
            f"serial:{self.config.port}", self.config, unpacker, overflow=self.config.overflow, on_bad=on_bad
        )
        self._framer = self.config.framer()
        self._line = self.config.line()

    async def _run(self) -> None:
        await self._link.keep(self._session)

    async def _session(self) -> None:
        async with shared(self._line) as port:
            tap = port.tap()
            self._link.up()
            try:
                await self._read(tap)
            finally:
                tap.close()
                self._framer.cut()
                self._count_rejected()

    async def _read(self, tap: Tap) -> None:
        framer = self._framer
        while True:
            data = await tap.read()
            try:
                frames = framer.feed(data)
            except FramingError as exc:
                raise ConnectionError(str(exc)) from exc
            finally:
                self._count_rejected()
            if frames:
                await self._hand_over([(frame, {"port": self.config.port}) for frame in frames])

    async def _hand_over(self, items: list[Item]) -> None:
        for index, (payload, meta) in enumerate(items):
            if not self._inbox.offer(payload, meta):
                try:
                    await self._inbox.put(payload, meta)
                except asyncio.CancelledError:
                    self._inbox.drop("stopped", count=len(items) - index)
                    raise

    def _count_rejected(self) -> None:
        for why, count in self._framer.rejected.items():
            self._count_bad(why, count)
        self._framer.rejected.clear()


ADAPTER = Adapter(
    name="serial",
    schemes=("serial",),
    config=SerialConfig,
    sender=SerialSender,
    receiver=SerialReceiver,
    summary="serial lines: serial:///dev/ttyUSB0?baudrate=115200",
)
