"""The half of the ZMQ adapter that sends."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import zmq

from nexus.adapters._backlog import OutItem
from nexus.adapters._base import Sender
from nexus.adapters._link import LinkState
from nexus.adapters._zmq_config import MAX_TOPIC, ZmqConfig
from nexus.adapters._zmq_end import End
from nexus.adapters._zmq_half import ZmqHalf, first_error
from nexus.adapters._zmq_socket import ZmqWire
from nexus.adapters._zmq_subscribers import Subscribers
from nexus.adapters.packing import Packer, packing
from nexus.errors import BadCall, ConfigError, LinkDown

__all__ = ["ZmqSender"]

T = TypeVar("T")

DEFAULT_TOPIC: Final = "zmq"
_TURN: Final = 256
"""Frames taken from the backlog at once."""
_YIELD: Final = 256
"""Sends between two turns given to the event loop: with room, sending never waits by itself."""


class ZmqSender(ZmqHalf, Sender[T]):
    """Sends to a broker, to subscribers or to pullers.

    A publisher loses nothing silently: a full subscriber makes it wait, and what nobody subscribes to is
    counted in ``counts.dropped`` as ``no_subscriber``.

    Args:
        config: where to, and the bounds.
        packer: turns data into a frame; what `packstyle` says unless told otherwise.
    """

    _half = "sender"

    def __init__(self, config: ZmqConfig | None = None, packer: Packer[T] | None = None) -> None:
        self.config = config or ZmqConfig()
        if packer is None:
            packer = packing(self.config.packstyle)[0]
        super().__init__(self.config.name("sender"), self.config, packer, overflow=self.config.overflow)
        if len(self.config.topic) > 1:
            raise ConfigError(f"topic: found {len(self.config.topic)}, allowed: one where data is sent")
        self._topics: dict[str, bytes] = {}  # bounded by 1024: a cache
        self._default = self._topic(self.config.topic[0] if self.config.topic else DEFAULT_TOPIC)
        self._is_pub = self.config.pattern != "pushpull"
        self._binds = self.config.binds("sender")
        self._subscribers = Subscribers(self.config.wait_for_subscriber)
        self._wire: ZmqWire | None = None
        """Where frames may go right away: there while the link is up."""
        self._sends = 0
        self._framed = self.config.topic_frame
        self.on_link(self._note_link)

    async def send(self, data: T, *, priority: int = 0, **options: Any) -> None:
        """Send, as `nexus.adapters.Sender.send` says; ``topic`` is the one option.

        A frame that nothing waits before, and that libzmq has room for, does not go by the backlog.
        """
        self._sends += 1
        if not self._sends % _YIELD:
            await asyncio.sleep(0)
        wire = self._wire
        if wire is None or len(self._backlog):
            await super().send(data, priority=priority, **options)
            return
        payload = self._pack(data)
        checked = self._check(options)
        frames = (checked["topic"], payload) if self._framed else (payload,)
        if (not self._is_pub or frames[0].startswith(self._subscribers.wanted)) and wire.send_nowait(frames):
            self._backlog.done_count += 1
            return
        await self._backlog.put(OutItem(payload, priority, checked))

    async def subscribed(self, topic: str | None = None, timeout: float | None = None) -> None:
        """Wait until somebody subscribes to a topic; starts if that was not done.

        Args:
            topic: None for the one that is sent to unless told otherwise.
            timeout: seconds; None for no limit.

        Raises:
            LinkDown: the time is up.
            BadCall: a PUSH has no subscribers.
        """
        if not self._is_pub:
            raise BadCall("a PUSH socket has no subscribers; await connected() instead")
        await self.start()
        wanted = self._default if topic is None else self._topic(topic)
        try:
            async with asyncio.timeout(timeout):
                await self._subscribers.wait(wanted)
        except TimeoutError:
            raise LinkDown(f"{self.name}: nobody subscribed to {wanted!r} in {timeout} s") from None

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        if not options:
            return {"topic": self._default}
        topic = options.get("topic", self._default)
        if len(options) > 1 or "topic" not in options:
            return super()._check({name: value for name, value in options.items() if name != "topic"})
        return {"topic": self._topics.get(topic) or self._topic(topic)}

    def _topic(self, topic: str) -> bytes:
        if not isinstance(topic, str):
            raise ConfigError(f"topic: found {type(topic).__name__}, allowed: str")
        try:
            found = topic.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"topic: found {topic!a}, allowed: what UTF-8 has") from None
        if len(found) > MAX_TOPIC:
            raise ConfigError(f"topic: found {len(found)} bytes, allowed: up to {MAX_TOPIC}")
        if len(self._topics) >= 1024:
            self._topics.clear()
        self._topics[topic] = found
        return found

    async def _open(self) -> None:
        self._subscribers.begin(anew=True)
        if self._is_pub:
            # Verbose: after a reconnect subscriptions are told again.
            await self._open_end(zmq.XPUB, [(zmq.XPUB_NODROP, 1), (zmq.XPUB_VERBOSE, 1)])
        else:
            await self._open_end(zmq.PUSH, ())

    async def _run(self) -> None:
        assert self._at is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._at.run(), name=f"adapter[{self.name}].peers")
                if self._is_pub:
                    group.create_task(self._follow(self._at), name=f"adapter[{self.name}].subscribers")
                await self._work(self._at)
        except ExceptionGroup as found:
            raise first_error(found) from None
        finally:
            self._wire = None

    async def _work(self, end: End) -> None:
        """Send what the backlog holds."""
        backlog, link = self._backlog, self._link
        while True:
            await backlog.wait()
            if not (link.is_up or (end.binds and self._is_pub)):
                await link.wait_up()
            items = backlog.take(_TURN)
            settled = 0
            try:
                for item in items:
                    if not self._offer(end, item):
                        break
                    settled += 1
            finally:
                backlog.put_back(items[settled:])
            if settled < len(items):
                await self._send_one(end)

    def _offer(self, end: End, item: OutItem) -> bool:
        """Give libzmq a frame, or drop it for want of a subscriber; False if either must wait."""
        frames = (item.options["topic"], item.payload) if self._framed else (item.payload,)
        if self._is_pub and not frames[0].startswith(self._subscribers.wanted):
            if self._subscribers.is_awaited:
                return False
            self._backlog.reject(item, "no_subscriber")
            return True
        if not end.wire.send_nowait(frames):
            return False
        self._backlog.done(item)
        return True

    async def _send_one(self, end: End) -> None:
        """Wait until the most urgent frame can go, and send it."""
        unsent = self._backlog.take(1)
        try:
            for item in unsent[:]:
                frames = (item.options["topic"], item.payload) if self._framed else (item.payload,)
                if self._is_pub and not await self._subscribers.wait_a_while(frames[0]):
                    unsent.clear()
                    self._backlog.reject(item, "no_subscriber")
                    return
                await end.wire.send(frames)
                unsent.clear()
                self._backlog.done(item)
        finally:
            self._backlog.put_back(unsent)

    async def _follow(self, end: End) -> None:
        """Follow who subscribes to what."""
        while True:
            for message in await end.wire.receive():
                self._subscribers.take(message)

    def _note_link(self, state: LinkState) -> None:
        self._wire = None
        if state.state == "up":
            self._subscribers.begin()
            self._wire = None if self._at is None else self._at.wire
        elif state.state == "down":
            # A broker that comes back tells anew; of a bound end libzmq takes back who has left.
            self._subscribers.begin(anew=not self._binds)

    async def _wind_down(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.config.flush_timeout
        await super()._wind_down()
        if self._at is not None:
            try:
                async with asyncio.timeout_at(until):
                    await self._at.wire.flush()
            except (TimeoutError, ConnectionError):
                pass

    async def _close(self) -> None:
        end, self._at = self._at, None
        if end is not None:
            await end.close(self.config.linger)
