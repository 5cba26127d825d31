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

``asyncio.CancelledError`` is never caught, wrapped or replaced.
"""

import asyncio

__all__ = [
    "BadCall",
    "BadEvent",
    "HandlerError",
    "HandlerTimeout",
    "InvalidLoopState",
    "LoopAlreadyStarted",
    "LoopStopped",
    "MisconfiguredEventConsumer",
    "MisconfiguredEventProducer",
    "MultipleStart",
    "NexusError",
    "NoMoreEvents",
    "PackerError",
    "QueueFull",
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
    """An object cannot be turned into bytes."""


class UnpackerError(NexusError, ValueError):
    """Bytes cannot be turned into an object."""
