"""Every error the project raises, under one root.

- NexusError
  - BadCall: the call makes no sense now
    - InvalidLoopState, LoopAlreadyStarted, LoopStopped: about the life of a nexus
    - MisconfiguredEventProducer, MisconfiguredEventConsumer: a part was not joined to anything
  - MultipleStart: started twice
  - NoMoreEvents: a converter has ended (also a RuntimeError)
  - UnhandledEvent: nobody takes the event
  - QueueFull: no room, and the caller did not want to wait (also an asyncio.QueueFull)
  - HandlerError: a handler did not do its work
    - HandlerTimeout: it took too long (also a TimeoutError)
  - BadEvent: something that should have been an event is not (also a ValueError)
  - PackerError, UnpackerError: data could not be turned into bytes, or back (also ValueErrors)
  - ConfigError: an option is wrong (also a ValueError)
  - OpenError: something on this machine cannot be opened (also an OSError)
  - LinkDown: the peer is not there, and nobody will wait for it (also a ConnectionError)
  - ReplyTimeout: a question was not answered in time (also a TimeoutError)
  - EndOfData: a receiver has nothing further

``asyncio.CancelledError`` is never caught, wrapped or replaced.
"""

import asyncio
from typing import Any

__all__ = [
    "BadCall",
    "BadEvent",
    "ConfigError",
    "EndOfData",
    "HandlerError",
    "HandlerTimeout",
    "InvalidLoopState",
    "LinkDown",
    "LoopAlreadyStarted",
    "LoopStopped",
    "MisconfiguredEventConsumer",
    "MisconfiguredEventProducer",
    "MultipleStart",
    "NexusError",
    "NoMoreEvents",
    "OpenError",
    "PackerError",
    "QueueFull",
    "ReplyTimeout",
    "UnhandledEvent",
    "UnpackerError",
]


class NexusError(Exception):
    """The root: catch it to catch whatever this project raises."""


class BadCall(NexusError):
    """The call makes no sense for the object, or not now."""


class InvalidLoopState(BadCall):
    """The nexus is in a state that does not allow the call."""


class LoopAlreadyStarted(BadCall):
    """The nexus is running already."""


class LoopStopped(BadCall):
    """The nexus has stopped for good; make a new one to start again."""


class MisconfiguredEventProducer(BadCall):
    """A producer was started before it was registered with a nexus."""


class MisconfiguredEventConsumer(BadCall):
    """A consumer was given an event before it had anywhere to pass it."""


class MultipleStart(NexusError):
    """Something that starts once was started twice."""


class NoMoreEvents(NexusError, RuntimeError):
    """A converter has no further event, now or later."""


class UnhandledEvent(NexusError):
    """No handler takes the event, and there is no fallback."""


class QueueFull(NexusError, asyncio.QueueFull):
    """The event's lane is full, and the caller or the event's policy does not wait."""


class HandlerError(NexusError):
    """A handler did not do its work."""


class HandlerTimeout(HandlerError, TimeoutError):
    """A handler took longer than the timeout it was registered with."""


class BadEvent(NexusError, ValueError):
    """What was given, or came over a wire, is not an event."""


class PackerError(NexusError, ValueError):
    """An object cannot be turned into bytes.

    Attributes:
        data: the object.
        why: what is wrong with it.
    """

    def __init__(self, data: object, why: str = "") -> None:
        self.data = data
        self.why = why
        super().__init__(f"cannot pack {type(data).__qualname__} data" + (f": {why}" if why else ""))


class UnpackerError(NexusError, ValueError):
    """Bytes cannot be turned into an object.

    Attributes:
        payload: the bytes, or the text.
        why: what is wrong with them.
        meta: what the transport said of them; empty where there was none.
    """

    def __init__(self, payload: str | bytes | bytearray, why: str = "") -> None:
        self.payload = payload
        self.why = why
        self.meta: dict[str, Any] = {}
        begin = ascii(payload[:100]) + ("..." if len(payload) > 100 else "")
        super().__init__(f"cannot unpack {begin}" + (f": {why}" if why else ""))


class ConfigError(NexusError, ValueError):
    """An option is wrong; the text names it, what was found, and what is allowed."""


class OpenError(NexusError, OSError):
    """A port, a file or a device of this machine cannot be opened."""


class LinkDown(NexusError, ConnectionError):
    """The peer is not there, and nobody will wait for it to come back."""


class ReplyTimeout(NexusError, TimeoutError):
    """A question was sent, and no answer came in time."""


class EndOfData(NexusError):
    """A receiver has nothing further, now or later."""
