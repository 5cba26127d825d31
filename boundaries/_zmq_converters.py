"""Converters over ZMQ sockets: what is received, and what is put aside."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeAlias

import zmq

from nexus import (
    Event,
    EventFactory,
    EventKey,
    NamedEvent,
    SimpleEventConverter,
)
from nexus.adapters._plain import plain
from nexus.adapters._wire import Wire
from nexus.adapters._zmq_port import AnySocket
from nexus.adapters._zmq_socket import ZmqWire
from nexus.boundaries._envelope import MAX_SIZE, BadFrame, preview, unpack
from nexus.errors import NoMoreEvents

__all__ = ["AnySocket", "SocketUser", "ZmqAbstractConverter", "ZmqEventConverter", "ZmqEventReceiver"]

logger = logging.getLogger(__name__)

LOG_EVERY = 10.0
"""Seconds between two log lines of one converter about bad messages."""

_urgency = attrgetter("priority")

Taker: TypeAlias = "Callable[[deque[Event[Any]]], None]"
"""Takes events from the front, and leaves those it has no room for."""

OnBad: TypeAlias = "Callable[[str, BadFrame], object]"
"""Called with the beginning of a bad message, escaped, and with what is wrong with it."""


class SocketUser(abc.ABC):
    """Closes the socket it was given at the end of ``with`` or ``async with``.

    Attributes:
        socket: what the caller gave.
        linger: seconds that libzmq may go on sending what it holds after that end.
    """

    socket: AnySocket | Wire
    linger: float

    @abc.abstractmethod
    def close(self) -> None:
        """Stop using the socket, which stays open; may be called twice."""

    async def aclose(self) -> None:
        """Do what `close` does, and wait for what it interrupts."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self._close_socket()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        finally:
            self._close_socket()

    def _close_socket(self) -> None:
        if isinstance(self.socket, zmq.Socket):
            self.socket.close(linger=round(1000 * self.linger))
        else:
            self.socket.close()


class ZmqAbstractConverter(SocketUser, SimpleEventConverter):
    """A converter over a socket; a subclass says how an event is obtained from it.

    At the end of ``with`` or ``async with`` the socket is closed, and what it holds is given up.
    """

    arrives = True

    def __init__(self, socket: AnySocket | Wire) -> None:
        self.socket = socket
        self.linger = 0.0

    def close(self) -> None:
        """Stop using the socket, which stays open; may be called twice."""


class _FrameConverter(ZmqAbstractConverter):
    """Takes all messages that are ready at once, and puts those aside that are no events.

    Args:
        socket: bound or connected by the caller, of a type that receives; a `Wire` serves as well.
        max_message: bytes of one message. Make the converter before the socket is bound or connected, and
            libzmq refuses much larger ones before they take memory.
        batch: messages taken at once.
        topic: None for messages of one frame; a prefix for those of two, whose first begins so. It does not
            subscribe a SUB socket.
        on_bad: called with the beginning of a message that was put aside, escaped, and with what is wrong
            with it; what it raises is logged.
    """

    def __init__(
        self,
        socket: AnySocket | Wire,
        *,
        max_message: int = MAX_SIZE,
        batch: int = 256,
        topic: str | bytes | None = None,
        on_bad: OnBad | None = None,
    ) -> None:
        super().__init__(socket)
        self.max_message = max_message
        self.batch = batch
        self.topic = topic.encode() if isinstance(topic, str) else topic
        self.on_bad = plain(on_bad, "on_bad")
        self._wire: Wire | None = self._open()
        self._ready: deque[Event[Any]] = deque()  # bounded by one `receive`
        self._quarantined: dict[str, int] = {}
        self._logged = -LOG_EVERY

    def __init_subclass__(cls, **options: Any) -> None:
        """Let an overridden `obtain_event` have its say in `obtain_events` and `obtain_rest` too."""
        super().__init_subclass__(**options)
        if "obtain_event" in cls.__dict__ and "obtain_events" not in cls.__dict__:

            async def obtain_events(self: _FrameConverter) -> list[Event[Any]]:
                return [await self.obtain_event()]

            cls.obtain_events = obtain_events  # type: ignore[method-assign]
        if "obtain_events" in cls.__dict__ and "obtain_rest" not in cls.__dict__:

            async def obtain_rest(self: _FrameConverter, take: Taker) -> list[Event[Any]]:
                return await self.obtain_events()

            cls.obtain_rest = obtain_rest  # type: ignore[method-assign]

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Messages put aside, by reason: see `BadFrame.reason`."""
        return MappingProxyType(self._quarantined)

    @property
    def pending(self) -> int:
        """Events taken from the socket and not yet obtained; none is lost by closing and starting again."""
        return len(self._ready)

    async def start(self) -> None:
        """Make ready to receive; after `close`, begin again.

        Raises:
            BadCall: the socket is closed.
        """
        await super().start()
        if self._wire is None:
            self._wire = self._open()

    async def obtain_event(self) -> Event[Any]:
        """Wait for the next event. Cancelled, none is lost.

        Raises:
            NoMoreEvents: the converter or the socket is closed.
        """
        while not self._ready:
            await self._fill()
        return self._ready.popleft()

    async def obtain_events(self) -> list[Event[Any]]:
        """Wait for events and take all that are ready, at least one. Cancelled, none is lost.

        The most urgent come first, so that none of them waits for room behind the others; those of one
        priority keep their order.

        Raises:
            NoMoreEvents: the converter or the socket is closed.
        """
        while not self._ready:
            await self._fill()
        events = sorted(self._ready, key=_urgency)
        self._ready.clear()
        return events

    async def obtain_rest(self, take: Taker) -> list[Event[Any]]:
        """Hand events over as they come, and return, like `obtain_events`, those that were left.

        A lone event is in the nexus a turn of the loop sooner by that.

        Args:
            take: takes events from the front, the most urgent, and leaves those it has no room for.
        """
        if not isinstance(self._wire, ZmqWire):
            return await self.obtain_events()

        def hand_on(messages: list[list[bytes]]) -> bool:
            self._convert(messages)
            if len(self._ready) > 1:
                self._ready = deque(sorted(self._ready, key=_urgency))  # bounded by what was read at once
            take(self._ready)
            return not self._ready

        while not self._ready:
            await self._fill(hand_on)
        return await self.obtain_events()

    def close(self) -> None:
        """Stop using the socket, which stays open; who waits on it for an event is told.

        May be called twice. Another kind of `Wire` is left as it is.
        """
        wire, self._wire = self._wire, None
        if isinstance(wire, ZmqWire):
            wire.close()

    @abc.abstractmethod
    def convert_data(self, data: bytes) -> Event[Any]:
        """Make an event of one frame.

        Raises:
            BadFrame: it is none.
        """

    def _open(self) -> Wire:
        if isinstance(self.socket, zmq.Socket):
            return ZmqWire(self.socket, max_message=self.max_message, batch=self.batch)
        return self.socket

    async def _fill(self, hand_on: Callable[[list[list[bytes]]], bool] | None = None) -> None:
        """Wait for messages; convert them without a further wait, so that a cancelled call has taken none."""
        wire = self._wire
        if wire is None:
            raise NoMoreEvents(f"{type(self).__name__} is closed")
        try:
            messages = await (wire.receive(hand_on) if isinstance(wire, ZmqWire) else wire.receive())
        except ConnectionError as exc:
            raise NoMoreEvents(f"{type(self).__name__} has no more events: {exc}") from exc
        self._convert(messages)

    def _convert(self, messages: list[list[bytes]]) -> None:
        """Make events of messages, and put those aside that are none."""
        ready, convert, topic = self._ready, self.convert_data, self.topic
        for frames in messages:
            try:
                if len(frames) == 1 and topic is None:
                    ready.append(convert(frames[0]))
                else:
                    ready.append(convert(self._data_of(frames)))
            except BadFrame as exc:
                self._put_aside(exc)
            except Exception as exc:  # the user's convert_to_event
                bad = BadFrame("convert", f"converting raised {type(exc).__name__}", frames[-1])
                bad.__cause__ = exc
                self._put_aside(bad)

    def _data_of(self, frames: list[bytes]) -> bytes:
        """Return the frame that is to be an event."""
        expected = 1 if self.topic is None else 2
        if any(len(frame) > self.max_message for frame in frames):
            raise BadFrame("size", f"a message has at most {self.max_message} bytes", frames[-1])
        if len(frames) != expected:
            raise BadFrame(
                "parts",
                f"a message has {expected} frame(s) here, this one {len(frames)}",
                b"".join(frames[:2]),
            )
        if self.topic is not None and not frames[0].startswith(self.topic):
            raise BadFrame("topic", f"the topic begins with {preview(self.topic)} here", frames[0])
        return frames[-1]

    def _put_aside(self, bad: BadFrame) -> None:
        count = self._quarantined.get(bad.reason, 0) + 1
        self._quarantined[bad.reason] = count
        now = asyncio.get_running_loop().time()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            logger.warning(
                "%s put a message aside (%s, %d so far): %s",
                type(self).__name__,
                bad.reason,
                count,
                bad,
                exc_info=bad.__cause__ if bad.reason == "convert" else None,
            )
        if self.on_bad is not None:
            try:
                self.on_bad(bad.found, bad)
            except Exception:
                logger.exception("on_bad of %s failed", type(self).__name__)


class ZmqEventConverter(_FrameConverter):
    """Makes an event of every string received. A bad one is put aside and counted, and the next one works.

    Args:
        socket: see `ZmqEventReceiver`, also for the other options.
        event_type: the type of the events, or their `NamedEvent` class.
        event_factory: what gives them their ids, usually the nexus; None for one of the converter's own.
    """

    def __init__(
        self,
        socket: AnySocket | Wire,
        *,
        event_type: EventKey | type[NamedEvent[Any]],
        event_factory: EventFactory | None = None,
        max_message: int = MAX_SIZE,
        batch: int = 256,
        topic: str | bytes | None = None,
        on_bad: OnBad | None = None,
    ) -> None:
        super().__init__(socket, max_message=max_message, batch=batch, topic=topic, on_bad=on_bad)
        self.event_type = event_type
        self.event_factory = EventFactory() if event_factory is None else event_factory

    def convert_to_event(self, s: str) -> Event[Any]:
        """Make an event with the string as its payload; override to read more out of it.

        What an override raises counts as a bad message, with the reason ``convert``.
        """
        return self.event_factory.create_event(s, event_type=self.event_type)

    def convert_data(self, data: bytes) -> Event[Any]:
        if len(data) > self.max_message:
            raise BadFrame("size", f"a message has at most {self.max_message} bytes", data)
        try:
            text = data.decode()
        except UnicodeDecodeError as exc:
            raise BadFrame("text", f"a string is UTF-8: {exc.reason} at {exc.start}", data) from exc
        return self.convert_to_event(text)


class ZmqEventReceiver(_FrameConverter):
    """Receives whole events, as `ZmqEventSender` and async-nexus send them; id and priority are the sender's.

    A bad message is put aside and counted, and the next one works.

    Args:
        socket: bound or connected by the caller, of a type that receives; a `Wire` serves as well.
        max_message: bytes of one message. Make the receiver before the socket is bound or connected, and
            libzmq refuses much larger ones before they take memory.
        batch: messages taken at once.
        topic: None for messages of one frame; a prefix for those of two, whose first begins so. It does not
            subscribe a SUB socket.
        on_bad: called with the beginning of a message that was put aside, escaped, and with what is wrong
            with it; what it raises is logged.
    """

    def convert_data(self, data: bytes) -> Event[Any]:
        return unpack(data, max_size=self.max_message)
