"""TCP senders and receivers, as clients of a relay and with each other, for the contract."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from real import free_port

from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender


class Relay:
    """A server that passes on what comes at one port to whoever is connected to the other."""

    def __init__(self) -> None:
        self.ports = free_port(), free_port()
        self.outlets: list[asyncio.StreamWriter] = []
        self._inlets: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.Server] = []
        self._somebody = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen at both ports."""
        for port, serve in zip(self.ports, (self._take, self._give), strict=True):
            self._servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    async def close(self, patience: float = 1.0) -> None:
        """Take no more; pass on what was sent before, and close in good order."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for writer in self._inlets:
            with contextlib.suppress(OSError):
                writer.write_eof()
        await self._end(patience)

    async def kill(self) -> None:
        """Go away at once, with all that is on its way."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for writer in (*self._inlets, *self.outlets):
            writer.transport.abort()
        await self._end(0.0)

    async def _end(self, patience: float) -> None:
        takers = [task for task in self._tasks if task.get_name() == "take"]
        if takers and patience and self.outlets:
            await asyncio.wait(takers, timeout=patience)
        for writer in self.outlets:
            writer.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in (*self._inlets, *self.outlets):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._inlets.clear()
        self.outlets.clear()
        self._somebody.clear()

    async def write(self, data: bytes) -> None:
        """Send to whoever receives now."""
        await self._somebody.wait()
        outlet = self.outlets[-1]
        outlet.write(data)
        await outlet.drain()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._task("take"), contextlib.suppress(OSError, asyncio.CancelledError):
            self._inlets.append(writer)
            while data := await reader.read(65536):
                await self.write(data)
            writer.close()

    async def _give(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._task("give"), contextlib.suppress(OSError, asyncio.CancelledError):
            self.outlets.append(writer)
            self._somebody.set()
            try:
                while await reader.read(65536):
                    pass
            finally:
                if writer in self.outlets:
                    self.outlets.remove(writer)
                    writer.close()
                if not self.outlets:
                    self._somebody.clear()

    @contextlib.contextmanager
    def _task(self, name: str) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(name)
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)


class TcpPair:
    """Both halves are clients of a relay, which breaks the link when it goes in good order."""

    name = "tcp"
    receiver_first = True
    lossy = False
    """As long as the far side goes in good order."""
    can_break = True
    options: dict[str, Any] = {"host": "127.0.0.1", "retry_cap": 0.05}  # noqa: RUF012 - read only

    def __init__(self) -> None:
        self.relay = Relay()

    async def __aenter__(self) -> Self:
        await self.relay.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.relay.close()

    def sender(self, *, packer: Any = None, **options: Any) -> TcpSender[Any]:
        return TcpSender(TcpConfig(port=self.relay.ports[0], **self.options | options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> TcpReceiver[Any]:
        return TcpReceiver(TcpConfig(port=self.relay.ports[1], **self.options | options), unpacker)

    async def ready(self, sender: TcpSender[Any], receiver: TcpReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Let a line arrive as it is."""
        await self.relay.write(payload + b"\n")

    async def break_link(self) -> None:
        """Let the relay go."""
        await self.relay.close()

    async def mend_link(self) -> None:
        """Let it come back."""
        await self.relay.open()


class TcpListeningReceiverPair:
    """The sender connects to the receiver."""

    name = "tcp-receiver-listens"
    receiver_first = True
    lossy = False
    can_break = False

    def __init__(self) -> None:
        self.options: dict[str, Any] = {"host": "127.0.0.1", "port": free_port(), "retry_cap": 0.05}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def sender(self, *, packer: Any = None, **options: Any) -> TcpSender[Any]:
        return TcpSender(TcpConfig(**self.options | options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> TcpReceiver[Any]:
        return TcpReceiver(TcpConfig(listen=True, **self.options | options), unpacker)

    async def ready(self, sender: TcpSender[Any], receiver: TcpReceiver[Any]) -> None:
        await receiver.start()
        await sender.connected(5)
        await receiver.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Send a line over a connection of its own."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.options["port"])
        writer.write(payload + b"\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()


class TcpListeningSenderPair(TcpListeningReceiverPair):
    """The receiver connects to the sender."""

    name = "tcp-sender-listens"
    receiver_first = False

    def sender(self, *, packer: Any = None, **options: Any) -> TcpSender[Any]:
        self.last = TcpSender[Any](TcpConfig(listen=True, **self.options | options), packer)
        return self.last

    def receiver(self, *, unpacker: Any = None, **options: Any) -> TcpReceiver[Any]:
        return TcpReceiver(TcpConfig(**self.options | options), unpacker)

    async def ready(self, sender: TcpSender[Any], receiver: TcpReceiver[Any]) -> None:
        await sender.start()
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Write a line that the sender never saw."""
        for peer in self.last._listener.peers:
            peer.write(payload + b"\n")
