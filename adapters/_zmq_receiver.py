"""The half of the ZMQ adapter that receives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import zmq

from nexus.adapters._base import OnBad, Receiver
from nexus.adapters._inbox import Item
from nexus.adapters._zmq_config import MAX_TOPIC, ZmqConfig
from nexus.adapters._zmq_end import End
from nexus.adapters._zmq_half import ZmqHalf, first_error
from nexus.adapters.packing import Unpacker, packing
from nexus.errors import BadCall, ConfigError

__all__ = ["ZmqReceiver"]

T = TypeVar("T")


class ZmqReceiver(ZmqHalf, Receiver[T]):
    """Receives from a broker, from publishers or from pushers; ``meta["topic"]`` is the topic.

    Args:
        config: where from, and the bounds.
        topic: prefixes to subscribe to, in place of the config's.
        unpacker: turns a frame into data; what `packstyle` says unless told otherwise.
        on_bad: called with frames that were put aside.
    """

    _half = "receiver"

    def __init__(
        self,
        config: ZmqConfig | None = None,
        topic: str | Iterable[str] | None = None,
        unpacker: Unpacker[T] | None = None,
        *,
        on_bad: OnBad | None = None,
    ) -> None:
        self.config = config or ZmqConfig()
        if unpacker is None:
            unpacker = packing(self.config.packstyle)[1]
        super().__init__(
            self.config.name("receiver"), self.config, unpacker, overflow=self.config.overflow, on_bad=on_bad
        )
        self._is_sub = self.config.pattern != "pushpull"
        given = self.config.topic if topic is None else topic
        self._prefixes = dict.fromkeys(_prefixes(given))
        if self._prefixes and not self._is_sub:
            raise ConfigError("topic: found some, allowed: none for a PULL, which takes whatever it is given")
        if self._is_sub and not self._prefixes:
            self._prefixes = {b"": None}
        self._names: dict[bytes, str] = {}  # bounded by 1024: a cache

    @property
    def topics(self) -> list[str]:
        """The prefixes it subscribes to."""
        return [prefix.decode() for prefix in self._prefixes]

    def subscribe(self, topic: str | Iterable[str]) -> None:
        """Subscribe to further prefixes, running or not; those it has already change nothing.

        Raises:
            BadCall: a PULL socket takes everything.
        """
        self._need_sub()
        for prefix in _prefixes(topic):
            if prefix not in self._prefixes:
                self._prefixes[prefix] = None
                if self._at is not None:
                    self._at.socket.setsockopt(zmq.SUBSCRIBE, prefix)

    def unsubscribe(self, topic: str | Iterable[str]) -> None:
        """Give up prefixes, running or not; what is on its way may still come.

        Raises:
            BadCall: a PULL socket takes everything.
        """
        self._need_sub()
        for prefix in _prefixes(topic):
            if prefix in self._prefixes:
                del self._prefixes[prefix]
                if self._at is not None:
                    self._at.socket.setsockopt(zmq.UNSUBSCRIBE, prefix)

    def _need_sub(self) -> None:
        if not self._is_sub:
            raise BadCall("a PULL socket has no subscriptions; it takes whatever it is given")

    async def _open(self) -> None:
        kind = zmq.SUB if self._is_sub else zmq.PULL
        await self._open_end(kind, [(zmq.SUBSCRIBE, prefix) for prefix in self._prefixes])

    async def _run(self) -> None:
        assert self._at is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._at.run(), name=f"adapter[{self.name}].peers")
                await self._work(self._at)
        except ExceptionGroup as found:
            raise first_error(found) from None

    async def _work(self, end: End) -> None:
        read = self._read if self.config.topic_frame else self._read_plain
        while True:
            await self._feed(read(await end.wire.receive()))

    def _read(self, messages: list[list[bytes]]) -> list[Item]:
        """Take messages of two frames apart; count the others."""
        items: list[Item] = []
        names, limit = self._names, self.config.max_size
        for message in messages:
            if len(message) != 2:
                # What is too large comes cut short, without the frames that follow.
                self._count_bad("size" if len(message[0]) > limit else "frames")
                continue
            topic, payload = message
            if len(payload) > limit:
                self._count_bad("size")
                continue
            name = names.get(topic)
            if name is None and (name := self._name_of(topic)) is None:
                self._count_bad("topic")
                continue
            items.append((payload, {"topic": name}))
        return items

    def _read_plain(self, messages: list[list[bytes]]) -> list[Item]:
        items: list[Item] = []
        for message in messages:
            if len(message) != 1:
                self._count_bad("frames")
            elif len(message[0]) > self.config.max_size:
                self._count_bad("size")
            else:
                items.append((message[0], {}))
        return items

    def _name_of(self, topic: bytes) -> str | None:
        """Decode a topic; None if it is none."""
        if len(topic) > MAX_TOPIC:
            return None
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            return None
        if len(self._names) >= 1024:
            self._names.clear()
        self._names[topic] = name
        return name

    async def _close(self) -> None:
        end, self._at = self._at, None
        if end is not None:
            await end.close(0)


def _prefixes(topic: str | Iterable[str]) -> list[bytes]:
    topics = [topic] if isinstance(topic, str) else list(topic)
    for each in topics:
        if not isinstance(each, str):
            raise ConfigError(f"topic: found {type(each).__name__}, allowed: str")
    return [each.encode() for each in topics]
