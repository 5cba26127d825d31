"""Data over memory, between tasks of one process: the adapter that shows what all of them promise.

``mem://name`` is a topic: each receiver that is started gets everything that is sent to it from then on.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet, WeakValueDictionary

import attrs

from nexus.adapters._backlog import SendOverflow
from nexus.adapters._base import OnBad, Receiver, Sender
from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Adapter, Url
from nexus.adapters._inbox import Overflow
from nexus.adapters._retry import Again
from nexus.adapters.packing import Packer, Unpacker

__all__ = ["ADAPTER", "MemoryConfig", "MemoryReceiver", "MemorySender"]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class MemoryConfig(Config):
    """Options of a topic in memory."""

    topic: str = option("default", help="name of the topic")
    maxsize: int = option(1000, low=1, help="frames that each half holds")
    max_size: int = option(2**20, low=1, unit="bytes", help="the largest frame")
    overflow: Overflow = option("block", help="what happens to frames that find no room")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on sending")
    retry: Again = option("always", help="whether to try again; a topic in memory is always there")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        return {"topic": url.host + url.path} if url.host else {}


class _Topic:
    """Who receives a topic now."""

    topics: ClassVar[WeakValueDictionary[str, _Topic]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.receivers: WeakSet[MemoryReceiver[Any]] = WeakSet()
        self.changed: list[asyncio.Future[None]] = []

    @classmethod
    def of(cls, name: str) -> _Topic:
        topic = cls.topics.get(name)
        if topic is None:
            topic = cls.topics[name] = cls()
        return topic

    def join(self, receiver: MemoryReceiver[Any]) -> None:
        self.receivers.add(receiver)
        for future in self.changed:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Wait until somebody receives."""
        while not self.receivers:
            future = asyncio.get_running_loop().create_future()
            self.changed.append(future)
            try:
                await future
            finally:
                self.changed.remove(future)


class MemorySender(Sender[T]):
    """Sends to all who receive the topic now; waits while nobody does, or one of them has no room.

    Args:
        config: which topic, and the bounds.
        packer: turns data into a frame; JSON unless told otherwise.
    """

    def __init__(self, config: MemoryConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or MemoryConfig()
        overflow: SendOverflow = self.config.overflow
        super().__init__(f"mem://{self.config.topic}", self.config, packer, overflow=overflow)
        self._topic = _Topic.of(self.config.topic)

    async def _run(self) -> None:
        backlog, topic = self._backlog, self._topic
        while True:
            if not topic.receivers:
                self._link.down("nobody receives the topic")
                await topic.wait()
            self._link.up()
            await backlog.wait()
            items = backlog.take(64)
            try:
                while items:
                    for receiver in list(topic.receivers):
                        await receiver.give(items[0].payload)
                    backlog.done(items.pop(0))
                    if not topic.receivers:
                        break
            finally:
                backlog.put_back(items)


class MemoryReceiver(Receiver[T]):
    """Receives what is sent to the topic from its start on.

    Args:
        config: which topic, and the bounds.
        unpacker: turns a frame into data; JSON unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    def __init__(
        self,
        config: MemoryConfig | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or MemoryConfig()
        super().__init__(
            f"mem://{self.config.topic}", self.config, unpacker, overflow=self.config.overflow, on_bad=on_bad
        )
        self._topic = _Topic.of(self.config.topic)

    async def give(self, payload: bytes) -> None:
        """Take a frame from a sender, or count it if it is too large; wait while there is no room."""
        if len(payload) > self.config.max_size:
            self._count_bad("size")
            return
        if not self._inbox.offer(payload, meta := {"topic": self.config.topic}):
            await self._inbox.put(payload, meta)

    async def _open(self) -> None:
        self._topic.join(self)
        self._link.up()

    async def _run(self) -> None:
        await asyncio.get_running_loop().create_future()  # what comes is given by the senders

    async def _close(self) -> None:
        self._topic.receivers.discard(self)


ADAPTER = Adapter(
    name="memory",
    schemes=("mem",),
    config=MemoryConfig,
    sender=MemorySender,
    receiver=MemoryReceiver,
    summary="between tasks of one process: mem://topic",
)
