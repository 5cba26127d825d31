"""ZMQ senders and receivers for the contract: PUSH/PULL, PUB/SUB directly, PUB/SUB through a broker."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from real import free_port

from nexus.adapters._zmq_broker import ZmqBroker
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender

__all__ = ["Broker", "PubSubPair", "PushPullPair", "Relay", "ZmqBrokerPair"]


class Relay:
    """A TCP line between two ports that can be cut."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def freeze(self) -> None:
        """Keep connections, and let nothing through any more."""
        self._flows.clear()

    async def mend(self) -> None:
        """Let connections through."""
        self._flows.set()
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Refuse new connections and reset those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        far_writer = writer
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


class Broker:
    """A broker of our own in this process, which can go and come back at the same ports."""

    def __init__(self, **options: Any) -> None:
        given: dict[str, Any] = {"publisher_port": free_port(), "subscriber_port": free_port()}
        self.config = ZmqConfig(**(given | options))
        self.broker = ZmqBroker(self.config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.broker.open()
        self._task = asyncio.create_task(self.broker.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self.broker.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


class PushPullPair:
    """A PUSH that connects over a line that can be cut to a PULL that binds."""

    name = "zmq-push"
    pattern = "pushpull"
    lossy = True
    can_break = True
    receiver_first = True

    def __init__(self) -> None:
        self.port = free_port()
        self.relay = Relay(self.port)

    async def __aenter__(self) -> Self:
        await self.relay.mend()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.relay.cut()

    def sender(self, *, packer: Any = None, **options: Any) -> ZmqSender[Any]:
        given: dict[str, Any] = {
            "pattern": self.pattern,
            "port": self.relay.port,
            "bind": False,
            "retry_cap": 0.1,
        }
        return ZmqSender(ZmqConfig(**(given | options)), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> ZmqReceiver[Any]:
        given: dict[str, Any] = {"pattern": self.pattern, "port": self.port, "bind": True}
        return ZmqReceiver(ZmqConfig(**(given | options)), unpacker=unpacker)

    async def ready(self, sender: ZmqSender[Any], receiver: ZmqReceiver[Any]) -> None:
        await receiver.start()
        await sender.connected(5)
        await receiver.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Send a frame as it is."""
        async with self.sender(packer=lambda data: data, port=self.port, max_size=2**28) as sender:
            await sender.deliver(payload)

    async def break_link(self) -> None:
        await self.relay.cut()

    async def mend_link(self) -> None:
        await self.relay.mend()


class PubSubPair(PushPullPair):
    """A PUB that connects over a line that can be cut to a SUB that binds."""

    name = "zmq-pub"
    pattern = "pubsub"

    async def ready(self, sender: ZmqSender[Any], receiver: ZmqReceiver[Any]) -> None:
        await receiver.start()
        await sender.subscribed(timeout=5)
        await receiver.connected(5)


class ZmqBrokerPair:
    """A PUB and a SUB that connect to a broker, which can go away."""

    name = "zmq-broker"
    lossy = True
    can_break = True
    receiver_first = False

    def __init__(self) -> None:
        self.broker = Broker(max_size=2**28)

    async def __aenter__(self) -> Self:
        await self.broker.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.broker.stop()

    def _config(self, options: dict[str, Any]) -> ZmqConfig:
        ports = self.broker.config
        given: dict[str, Any] = {
            "publisher_port": ports.publisher_port,
            "subscriber_port": ports.subscriber_port,
        }
        return ZmqConfig(**(given | {"retry_cap": 0.1} | options))

    def sender(self, *, packer: Any = None, **options: Any) -> ZmqSender[Any]:
        return ZmqSender(self._config(options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> ZmqReceiver[Any]:
        return ZmqReceiver(self._config(options), unpacker=unpacker)

    async def ready(self, sender: ZmqSender[Any], receiver: ZmqReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.subscribed(timeout=5)

    async def raw(self, payload: bytes) -> None:
        """Send a frame as it is."""
        async with self.sender(packer=lambda data: data, max_size=2**28) as sender:
            await sender.subscribed(timeout=5)
            await sender.deliver(payload)

    async def break_link(self) -> None:
        await self.broker.stop()

    async def mend_link(self) -> None:
        await self.broker.start()
