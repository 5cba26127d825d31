"""What links go over, each with two ends and a process in between that can be killed and started again."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from mosquitto import Mosquitto
from real import free_port

from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.serial import SerialConfig, SerialReceiver, SerialSender
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.boundaries.link import Link

__all__ = ["CARRIERS", "Carrier"]

CARRIER = Path(__file__).parent / "carrier.py"
PATIENCE = 20.0
"""Seconds until a process must be ready."""


class Carrier(Protocol):
    """A way between two ends."""

    def ends(self) -> tuple[Link, Link]:
        """Make the ends; the first one is started first."""
        ...

    async def start(self) -> None:
        """Carry; returns when what the ends connect to listens."""
        ...

    def kill(self) -> None:
        """End it at once, with all that is on its way."""
        ...


class Process:
    """A process of its own, ended with SIGKILL.

    Args:
        command: what to run.
        says: the last of the lines that it says when it is ready begins so.
    """

    def __init__(self, *command: str, says: bytes) -> None:
        self._command = command
        self._says = says
        self._process: asyncio.subprocess.Process | None = None
        self._killed: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *self._command), stdin=pipe, stdout=pipe
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not (line := await self._process.stdout.readline()).startswith(self._says):
                assert line, "it has ended"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._killed.append(self._process)
            self._process = None

    async def ended(self) -> None:
        """Let go of all that were killed."""
        self.kill()
        for process in self._killed:
            assert process.stdin is not None
            process.stdin.close()
            await process.communicate()
        self._killed.clear()


class Relayed:
    """Ends with a process of `carrier.py` between them."""

    def __init__(self, *arguments: str, ends: Callable[[], tuple[Link, Link]]) -> None:
        self.ends = ends
        self._process = Process(str(CARRIER), *arguments, says=b"ready")

    async def start(self) -> None:
        await self._process.ended()
        await self._process.start()

    def kill(self) -> None:
        self._process.kill()

    async def aclose(self) -> None:
        await self._process.ended()


Options = dict[str, Any]


@asynccontextmanager
async def _relayed(
    kind: str, ends: Callable[[list[int], list[int], Options], tuple[Link, Link]], options: Options
) -> AsyncIterator[Carrier]:
    """Make two ports of the ends, and two of a relay that lead there."""
    sort = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    ports, relays = [free_port(sort) for _ in range(2)], [free_port(sort) for _ in range(2)]
    arguments = [str(number) for pair in zip(relays, ports, strict=True) for number in pair]
    async with contextlib.aclosing(
        Relayed(kind, *arguments, ends=lambda: ends(ports, relays, options))
    ) as carrier:
        yield carrier


def _urls(scheme: str) -> Callable[[list[int], list[int], Options], tuple[Link, Link]]:
    """Make ends of which one listens and one connects through the relay."""

    def ends(ports: list[int], relays: list[int], options: Options) -> tuple[Link, Link]:
        return (
            Link.listen(f"{scheme}://127.0.0.1:{ports[0]}", **options),
            Link.connect(f"{scheme}://127.0.0.1:{relays[0]}", **options),
        )

    return ends


def _halves(
    sender: Callable[[int], Any], receiver: Callable[[int], Any], **more: Any
) -> Callable[[list[int], list[int], Options], tuple[Link, Link]]:
    """Make ends of which each receives at a port of its own and sends to the relay of the other's."""

    def ends(ports: list[int], relays: list[int], options: Options) -> tuple[Link, Link]:
        return (
            Link.over_adapters(sender(relays[1]), receiver(ports[0]), **more, **options),
            Link.over_adapters(sender(relays[0]), receiver(ports[1]), **more, **options),
        )

    return ends


def _tcp(options: Options, folder: Path) -> Any:
    return _relayed("tcp", _urls("tcp"), options)


def _zmq(options: Options, folder: Path) -> Any:
    return _relayed("tcp", _urls("zmq+tcp"), options)


def _tcp_halves(options: Options, folder: Path) -> Any:
    def sender(port: int) -> Any:
        return TcpSender(TcpConfig(host="127.0.0.1", port=port, frame="length"))

    def receiver(port: int) -> Any:
        return TcpReceiver(TcpConfig(host="127.0.0.1", port=port, frame="length", listen=True))

    return _relayed("tcp", _halves(sender, receiver), options)


def _zmq_push(options: Options, folder: Path) -> Any:
    def sender(port: int) -> Any:
        return ZmqSender(ZmqConfig(pattern="pushpull", port=port, bind=False))

    def receiver(port: int) -> Any:
        return ZmqReceiver(ZmqConfig(pattern="pushpull", port=port, bind=True))

    return _relayed("tcp", _halves(sender, receiver), options)


def _udp(options: Options, folder: Path) -> Any:
    def sender(port: int) -> Any:
        return UdpSender(UdpConfig(port=port, max_size=1400))

    def receiver(port: int) -> Any:
        return UdpReceiver(UdpConfig(port=port))

    return _relayed("udp", _halves(sender, receiver, chaos={"loss": 0.1}), options)


@asynccontextmanager
async def _serial(options: Options, folder: Path) -> AsyncIterator[Carrier]:
    def end(name: str) -> Link:
        config = SerialConfig(port=str(folder / name), frame="length", max_size=4096, driver="pyserial")
        return Link.over_adapters(SerialSender[Any](config), SerialReceiver[Any](config), **options)

    async with contextlib.aclosing(Cable(folder, lambda: (end("port-a"), end("port-b")))) as carrier:
        yield carrier


class Cable(Relayed):
    """A serial line; who kills it pulls both plugs, and the devices are gone as they are for a real one."""

    def __init__(self, folder: Path, ends: Callable[[], tuple[Link, Link]]) -> None:
        super().__init__("serial", str(folder), ends=ends)
        self._folder = folder

    def kill(self) -> None:
        for device in self._folder.glob("port-*"):
            device.unlink()  # or another program's terminal of the same number would be taken for it
        super().kill()


class ZmqBrokerCarrier(Relayed):
    """`nexus zmq-broker`, with PUB and SUB at either end."""

    def __init__(self, options: Options) -> None:
        ports: Options = {"publisher_port": free_port(), "subscriber_port": free_port()}

        def end(there: str, here: str) -> Link:
            sender = ZmqSender[Any](ZmqConfig(topic=(there,), **ports))
            return Link.over_adapters(sender, ZmqReceiver[Any](ZmqConfig(topic=(here,), **ports)), **options)

        self.ends = lambda: (end("up", "down"), end("down", "up"))
        arguments = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
        self._process = Process("-m", "nexus.cli", "zmq-broker", *arguments, says=b"subscribers")


class MqttCarrier:
    """Mosquitto, with two topics."""

    def __init__(self, qos: int, options: Options) -> None:
        self._broker = Mosquitto()
        self._qos = qos
        self._options = options

    def ends(self) -> tuple[Link, Link]:
        def config(topic: str) -> MqttConfig:
            return MqttConfig(host="127.0.0.1", port=self._broker.port, topic=topic, qos=self._qos)  # type: ignore[arg-type]

        def end(there: str, here: str) -> Link:
            sender, receiver = MqttSender[Any](config(there)), MqttReceiver[Any](config(here))
            return Link.over_adapters(sender, receiver, **self._options)

        return end("up", "down"), end("down", "up")

    async def start(self) -> None:
        await self._broker.start()

    def kill(self) -> None:
        self._broker.kill()

    async def aclose(self) -> None:
        await self._broker.__aexit__()


class MemoryCarrier:
    """Topics in this process; instead of a process one end of the link is ended, and begins anew."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ends: tuple[Link, Link] | None = None

    def ends(self) -> tuple[Link, Link]:
        def end(there: str, here: str) -> Link:
            sender = MemorySender[Any](MemoryConfig(topic=there))
            return Link.over_adapters(sender, MemoryReceiver[Any](MemoryConfig(topic=here)), **self._options)

        self._ends = end("up", "down"), end("down", "up")
        return self._ends

    async def start(self) -> None:
        if self._ends is not None:
            await self._ends[1].start()

    def kill(self) -> None:
        assert self._ends is not None
        self._ends[1].close()

    async def aclose(self) -> None:
        """Do nothing: there is nothing of its own."""


CARRIERS: dict[str, Callable[[Options, Path], Any]] = {
    "tcp": _tcp,
    "tcp-halves": _tcp_halves,
    "zmq": _zmq,
    "zmq-push": _zmq_push,
    "zmq-pub": lambda options, folder: contextlib.aclosing(ZmqBrokerCarrier(options)),
    "mqtt-0": lambda options, folder: contextlib.aclosing(MqttCarrier(0, options)),
    "mqtt-1": lambda options, folder: contextlib.aclosing(MqttCarrier(1, options)),
    "udp": _udp,
    "serial": _serial,
    "memory": lambda options, folder: contextlib.aclosing(MemoryCarrier(options)),
}
"""By name: makes a carrier with the options of both links, in a folder of its own."""
