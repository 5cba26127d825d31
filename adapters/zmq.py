"""Data over ZMQ: PUB and SUB through a broker or directly, PUSH and PULL.

``zmq://host`` is an XSUB/XPUB broker (`nexus zmq-broker`), in the layout of heisskleber: senders connect to
its ``publisher_port``, receivers to its ``subscriber_port``. ``zmq+pub``, ``zmq+sub``, ``zmq+push`` and
``zmq+pull`` go directly to a host and port; PUB and PULL bind there, SUB and PUSH connect, unless ``bind``
says otherwise. A message is ``[topic, data]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar, Final, TypeVar

import zmq

from nexus.adapters._base import Adapted, OnBad, Receiver, Sender
from nexus.adapters._endpoint import Adapter
from nexus.adapters._inbox import Item
from nexus.adapters._link import LinkState
from nexus.adapters._outbox import OutItem
from nexus.adapters._packing import Packer, Unpacker, packing
from nexus.adapters._zmq_config import MAX_TOPIC, Half, ZmqConfig
from nexus.adapters._zmq_end import End
from nexus.adapters._zmq_socket import ZmqWire
from nexus.adapters._zmq_subscribers import Subscribers
from nexus.errors import BadCall, ConfigError, LinkDown

__all__ = ["ADAPTER", "ZmqConfig", "ZmqReceiver", "ZmqSender"]

T = TypeVar("T")

DEFAULT_TOPIC: Final = "zmq"
_TURN: Final = 256
"""Frames taken from the outbox at once."""
_YIELD: Final = 256
"""Sends between two turns given to the event loop: with room, sending never waits by itself."""


class _Half(Adapted):
    """What both halves have for being at an end of a connection."""

    config: ZmqConfig
    _half: ClassVar[Half]
    _at: End | None = None

    @property
    def refused(self) -> dict[str, int]:
        """Peers that did not get past the handshake since the start, by reason; of a bound end."""
        return {} if self._at is None else dict(self._at.refused)

    @property
    def address(self) -> str:
        """Where it is bound or connected to; the real port once it is started."""
        return self.config.address(self._half) if self._at is None else self._at.address

    async def reload_clients(self) -> None:
        """Read `curve_clients` again, and let nobody go on who is no longer on the list.

        Where somebody is gone from it, every peer has to connect again, and libzmq loses what it holds.

        Raises:
            BadCall: it is not started, or has no such list.
            ConfigError: the list is not to be read; the old one holds.
        """
        if self._at is None or self._at.gate is None:
            raise BadCall(f"{self.name} is not started, or has no curve_clients")
        if self._at.gate.reload():
            await self.stop()
            await self.start()


class ZmqSender(_Half, Sender[T]):
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
        """Send, as `Sender.send` says; ``topic`` is the one option.

        A frame that nothing waits before, and that libzmq has room for, does not go by the outbox.
        """
        self._sends += 1
        if not self._sends % _YIELD:
            await asyncio.sleep(0)
        wire = self._wire
        if wire is None or len(self._outbox):
            await super().send(data, priority=priority, **options)
            return
        payload = self._pack(data)
        checked = self._check(options)
        frames = (checked["topic"], payload) if self._framed else (payload,)
        if (not self._is_pub or frames[0].startswith(self._subscribers.wanted)) and wire.send_nowait(frames):
            self._outbox.done_count += 1
            return
        await self._outbox.put(OutItem(payload, priority, checked))

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
        kind = zmq.XPUB if self._is_pub else zmq.PUSH
        self._subscribers.begin(anew=True)
        self._at = end = End(self.config, "sender", kind, self._link)
        if self._is_pub:
            end.socket.setsockopt(zmq.XPUB_NODROP, 1)
            end.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # after a reconnect they are told again
        try:
            end.open()
        except BaseException:
            self._at = None
            await end.close(0)
            raise

    async def _run(self) -> None:
        assert self._at is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._at.run(), name=f"adapter[{self.name}].peers")
                if self._is_pub:
                    group.create_task(self._follow(self._at), name=f"adapter[{self.name}].subscribers")
                await self._work(self._at)
        except ExceptionGroup as found:
            raise _first(found) from None
        finally:
            self._wire = None

    async def _work(self, end: End) -> None:
        """Send what the outbox holds."""
        outbox, link = self._outbox, self._link
        while True:
            await outbox.wait()
            if not (link.is_up or (end.binds and self._is_pub)):
                await link.wait_up()
            items = outbox.take(_TURN)
            settled = 0
            try:
                for item in items:
                    if not self._offer(end, item):
                        break
                    settled += 1
            finally:
                outbox.put_back(items[settled:])
            if settled < len(items):
                await self._send_one(end)

    def _offer(self, end: End, item: OutItem) -> bool:
        """Give libzmq a frame, or drop it for want of a subscriber; False if either must wait."""
        frames = (item.options["topic"], item.payload) if self._framed else (item.payload,)
        if self._is_pub and not frames[0].startswith(self._subscribers.wanted):
            if self._subscribers.is_awaited:
                return False
            self._outbox.reject(item, "no_subscriber")
            return True
        if not end.wire.send_nowait(frames):
            return False
        self._outbox.done(item)
        return True

    async def _send_one(self, end: End) -> None:
        """Wait until the most urgent frame can go, and send it."""
        unsent = self._outbox.take(1)
        try:
            for item in unsent[:]:
                frames = (item.options["topic"], item.payload) if self._framed else (item.payload,)
                if self._is_pub and not await self._subscribers.wait_a_while(frames[0]):
                    unsent.clear()
                    self._outbox.reject(item, "no_subscriber")
                    return
                await end.wire.send(frames)
                unsent.clear()
                self._outbox.done(item)
        finally:
            self._outbox.put_back(unsent)

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


class ZmqReceiver(_Half, Receiver[T]):
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
        self._at = end = End(self.config, "receiver", zmq.SUB if self._is_sub else zmq.PULL, self._link)
        try:
            for prefix in self._prefixes:
                end.socket.setsockopt(zmq.SUBSCRIBE, prefix)
            end.open()
        except BaseException:
            self._at = None
            await end.close(0)
            raise

    async def _run(self) -> None:
        assert self._at is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._at.run(), name=f"adapter[{self.name}].peers")
                await self._work(self._at)
        except ExceptionGroup as found:
            raise _first(found) from None

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


def _first(group: ExceptionGroup) -> Exception:
    """Give the error that ended a group of tasks."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


ADAPTER = Adapter(
    name="ZMQ",
    schemes=("zmq", "zmq+pub", "zmq+sub", "zmq+push", "zmq+pull"),
    config=ZmqConfig,
    sender=ZmqSender,
    receiver=ZmqReceiver,
    summary="PUB/SUB through a broker (zmq://host) or directly, PUSH/PULL: zmq+push://host:port",
    sends=("zmq", "zmq+pub", "zmq+push"),
    receives=("zmq", "zmq+sub", "zmq+pull"),
)
