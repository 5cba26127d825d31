"""Everything that `import nexus` offers, in one list."""

from . import errors
from ._delivery import DeadLetterHandler, ErrorHandler
from ._dispatch import FALLBACK, EventDispatcher
from ._event import Event, EventFactory, EventKey, EventMeta, EventType, NamedEvent, event_type_of
from ._handler import (
    DeadLetter,
    EventConsumer,
    EventDiscarder,
    EventFanout,
    FilterFunc,
    GenericHandler,
    create_handler_coro,
)
from ._life import Stopping, StopReport
from ._nexus import AsyncEventNexus
from ._policy import (
    Block,
    DropNewest,
    DropOldest,
    Fail,
    LatestByKey,
    OverloadPolicy,
    Spill,
    SpillStore,
)
from ._queue import AsyncEventPriorityQueue, SecondaryQueue
from ._source import AbstractNexus, EventConverter, EventProducer, EventSource, SimpleEventConverter
from ._stats import Histogram, SourceState, Stats, TypeCounts
from ._supervisor import SourceStateEvent
from ._timer import Timer
from ._version import __version__
from ._watchdog import Stall, Watchdog
from .errors import NexusError

anext = anext
"""The builtin, under the name that programs written before Python 3.10 import."""

__all__ = [
    "FALLBACK",
    "AbstractNexus",
    "AsyncEventNexus",
    "AsyncEventPriorityQueue",
    "Block",
    "DeadLetter",
    "DeadLetterHandler",
    "DropNewest",
    "DropOldest",
    "ErrorHandler",
    "Event",
    "EventConsumer",
    "EventConverter",
    "EventDiscarder",
    "EventDispatcher",
    "EventFactory",
    "EventFanout",
    "EventKey",
    "EventMeta",
    "EventProducer",
    "EventSource",
    "EventType",
    "Fail",
    "FilterFunc",
    "GenericHandler",
    "Histogram",
    "LatestByKey",
    "NamedEvent",
    "NexusError",
    "OverloadPolicy",
    "SecondaryQueue",
    "SimpleEventConverter",
    "SourceState",
    "SourceStateEvent",
    "Spill",
    "SpillStore",
    "Stall",
    "Stats",
    "StopReport",
    "Stopping",
    "Timer",
    "TypeCounts",
    "Watchdog",
    "__version__",
    "anext",
    "create_handler_coro",
    "errors",
    "event_type_of",
]
