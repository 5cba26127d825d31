"""Events: one thing that happened, its type, its priority and what it says."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, cast, get_args, get_origin, overload

import attrs

from .errors import BadEvent

__all__ = [
    "Event",
    "EventFactory",
    "EventKey",
    "EventMeta",
    "EventType",
    "NamedEvent",
    "check_event",
    "event_type_of",
    "make_event",
    "make_events",
    "not_an_event",
    "settle",
    "tell_of",
]

logger = logging.getLogger(__name__)

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
NamedEventTypeVar = TypeVar("NamedEventTypeVar", bound="NamedEvent[Any]")

EventKey: TypeAlias = int | str
"""What dispatch goes by: an integer or a string."""


NamedEventClass: TypeAlias = "type[NamedEvent[Any]]"


class EventType(str, Generic[P]):
    """A string that carries the Python type of its events' payload.

    ``OVER_TEMPERATURE = EventType[float]("over-temperature")`` equals and hashes like the plain string.
    """


@attrs.frozen(kw_only=True, weakref_slot=False)
class EventMeta:
    """What is known of an event beside its four fields; most events have none of it."""

    created: float | None = None
    """When it was made, in seconds on the loop's clock."""
    deadline: float | None = None
    """The moment on the loop's clock after which it must not be handled; None for never."""
    headers: Mapping[str, Any] | None = None
    """Free words beside the payload."""
    source: str | None = None
    """The name of what gave it."""
    reply_to: tuple[str, ...] = ()
    """The way back to the asker: names of boundaries, the nearest last."""
    correlation: int | str | None = None
    """The id of the event it answers."""
    path: tuple[str, ...] = ()
    """The domains it has left behind, the oldest first; boundaries use it to break loops."""
    route: tuple[str, ...] = ()
    """For a reply: the boundaries still to cross, the next one last."""
    on_settled: Callable[[str], object] | None = attrs.field(default=None, eq=False, repr=False)
    """Called once its story in a nexus has ended, with the word the ledger counts it by: ``handled``,
    ``failed``, ``unhandled``, ``expired`` or ``dropped``; ``refused`` when a converter gave it and the policy
    of its type is to fail. Not called for what remains at a stop."""

    needs_care: bool = attrs.field(init=False, eq=False, repr=False)
    """Whether the nexus has to look at it before it hands the event on: a deadline, a reply, a listener."""
    only_tells: bool = attrs.field(init=False, eq=False, repr=False)
    """Whether that is for a listener alone, so that nothing has to be known before the event is handled."""

    def __attrs_post_init__(self) -> None:
        late = self.deadline is not None or bool(self.route)
        object.__setattr__(self, "needs_care", late or self.on_settled is not None)
        object.__setattr__(self, "only_tells", self.on_settled is not None and not late)


_NO_META = EventMeta()


@attrs.frozen(init=False, repr=False, weakref_slot=False)
class Event(Generic[P_co]):
    """One thing that happened. It never changes; two are equal when their four fields are.

    Args:
        id: its number within its nexus.
        type: what kind of event it is; what handlers are found by.
        priority: lower is sooner; 0 is ordinary, negatives are urgent.
        payload: what it says.
        metadata: any field of `EventMeta`; costs nothing when there is none.
    """

    id: int
    type: EventKey
    priority: int
    payload: P_co  # type: ignore[misc]  # nobody sets it: covariance is safe
    _meta: EventMeta | None = attrs.field(eq=False)

    def __init__(self, id: int, type: EventKey, priority: int, payload: P_co, **metadata: Any) -> None:
        _set_id(self, id)
        _set_type(self, type)
        _set_priority(self, priority)
        _set_payload(self, payload)
        _set_meta(self, EventMeta(**metadata) if metadata else None)

    @property
    def meta(self) -> EventMeta:
        """All metadata in one object."""
        return self._meta or _NO_META

    @property
    def created(self) -> float | None:
        """When it was made, in seconds on the loop's clock, or None."""
        return self.meta.created

    @property
    def deadline(self) -> float | None:
        """The moment on the loop's clock after which it counts as expired, or None."""
        return self.meta.deadline

    @property
    def headers(self) -> Mapping[str, Any]:
        """Free words beside the payload."""
        return self.meta.headers or {}

    @property
    def source(self) -> str | None:
        """The name of what gave it, or None."""
        return self.meta.source

    @property
    def reply_to(self) -> tuple[str, ...]:
        """The way back to the asker, the nearest boundary last."""
        return self.meta.reply_to

    @property
    def correlation(self) -> int | str | None:
        """The id of the event it answers, or None."""
        return self.meta.correlation

    @property
    def path(self) -> tuple[str, ...]:
        """The domains it has left behind."""
        return self.meta.path

    @property
    def route(self) -> tuple[str, ...]:
        """The boundaries a reply has still to cross."""
        return self.meta.route

    def evolve(self, **changes: Any) -> Event[P_co]:
        """Make a copy, of the same class, in which some fields or metadata differ.

        Raises:
            BadEvent: there is no field of that name.
        """
        fields = {
            name: changes.pop(name) for name in ("id", "type", "priority", "payload") if name in changes
        }
        try:
            meta = attrs.evolve(self.meta, **changes) if changes else self._meta
        except TypeError as exc:
            raise BadEvent(f"an event has no field {', '.join(changes)}: {exc}") from exc
        copy = object.__new__(self.__class__)
        if hasattr(self, "__dict__"):
            copy.__dict__.update(self.__dict__)
        _set_id(copy, fields.get("id", self.id))
        _set_type(copy, fields.get("type", self.type))
        _set_priority(copy, fields.get("priority", self.priority))
        _set_payload(copy, fields.get("payload", self.payload))
        _set_meta(copy, meta)
        return copy

    def reply(
        self,
        payload: Any,
        *,
        type: EventKey | NamedEventClass,
        priority: int | None = None,
        id: int | None = None,
    ) -> Event[Any]:
        """Make the answer to this event; put on the handler's queue it finds its way back to the asker.

        Args:
            payload: what the answer says.
            type: its type, a `NamedEvent` class included.
            priority: its priority; None for that of this event.
            id: its id; None for that of this event.
        """
        number = self.id if id is None else id
        urgency = self.priority if priority is None else priority
        metadata: dict[str, Any] = {"correlation": self.id, "route": self.reply_to}
        if isinstance(type, int | str):
            return Event(number, type, urgency, payload, **metadata)
        return type(number, payload, priority=urgency, **metadata)

    def __repr__(self) -> str:
        words = f"id={self.id!r}, type={self.type!r}, priority={self.priority!r}, payload={self.payload!r}"
        if self._meta is not None:
            for field in attrs.fields(EventMeta):
                value = getattr(self._meta, field.name)
                if field.init and value != field.default:
                    words += f", {field.name}={value!r}"
        return f"{self.__class__.__name__}({words})"


# The class is frozen; its own slots are the one way to fill a new event, and faster than object.__setattr__.
_set_id = Event.__dict__["id"].__set__
_set_type = Event.__dict__["type"].__set__
_set_priority = Event.__dict__["priority"].__set__
_set_payload = Event.__dict__["payload"].__set__
_set_meta = Event.__dict__["_meta"].__set__


class NamedEvent(Event[P_co]):
    """An event whose type is the name of its class.

    Subclass it: ``class OverTemperature(NamedEvent[float]): ...``. The qualified name of the class is the
    type, so registering a handler by the class or by that string is the same thing.
    """

    event_type: str = "NamedEvent"
    """The type that events of this class carry: its qualified name."""
    payload_class: Any = None
    """The class of the payload, from the square brackets; None when they are missing."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.event_type = cls.__qualname__
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, NamedEvent):
                (argument,) = get_args(base)
                if not isinstance(argument, TypeVar):
                    cls.payload_class = argument

    def __init__(self, id: int, payload: P_co, *, priority: int = 0, **metadata: Any) -> None:
        if self.__class__ is NamedEvent:
            raise TypeError("NamedEvent has no name of its own; make a subclass and use that")
        super().__init__(id, self.__class__.event_type, priority, payload, **metadata)


class _Fresh(Generic[P]):
    """An event that is still being filled; the same slots as `Event`, without its lock."""

    __slots__ = ("id", "type", "priority", "payload", "_meta")


def make_event(
    id: int, type: EventKey, priority: int, payload: Any, meta: EventMeta | None = None
) -> Event[Any]:
    """Make a plain event, with metadata that it may share; the same as ``Event(...)`` in half the time."""
    event: Any = _Fresh()
    event.id = id
    event.type = type
    event.priority = priority
    event.payload = payload
    event._meta = meta
    event.__class__ = Event
    return cast("Event[Any]", event)


def make_events(
    fields: Iterable[tuple[int, EventKey, Any] | list[Any]], priority: int, meta: EventMeta | None = None
) -> list[Event[Any]]:
    """Make plain events of ``(id, type, payload)``; the same as `make_event` for each.

    Raises:
        TypeError: one of them is no sequence.
        ValueError: one of them is longer or shorter.
    """
    events: list[Any] = []
    for id, type, payload in fields:
        event: Any = _Fresh()
        event.id = id
        event.type = type
        event.priority = priority
        event.payload = payload
        event._meta = meta
        event.__class__ = Event
        events.append(event)
    return events


class _FreshMeta:
    """Metadata that is still being filled; the same slots as `EventMeta`, without its lock."""

    __slots__ = (
        "created",
        "deadline",
        "headers",
        "source",
        "reply_to",
        "correlation",
        "path",
        "route",
        "on_settled",
        "needs_care",
        "only_tells",
    )


def tell_of(
    events: Iterable[Event[Any]], listeners: Iterable[Callable[[str], object]], meta: EventMeta
) -> None:
    """Give each of some new events, that nobody else has seen, a listener of its own to be called when it is
    settled, beside the path and the way back of metadata that has nothing else."""
    path, reply_to = meta.path, meta.reply_to
    for event, listener in zip(events, listeners, strict=True):
        fresh: Any = _FreshMeta()
        fresh.created = fresh.deadline = fresh.headers = fresh.source = fresh.correlation = None
        fresh.route = ()
        fresh.path = path
        fresh.reply_to = reply_to
        fresh.on_settled = listener
        fresh.needs_care = fresh.only_tells = True
        fresh.__class__ = EventMeta
        _set_meta(event, fresh)


def event_type_of(type_: EventKey | type[NamedEvent[Any]]) -> EventKey:
    """Return what dispatch goes by: the name for a `NamedEvent` class, an integer or string as it is.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(type_, type) and issubclass(type_, NamedEvent) and type_ is not NamedEvent:
        return type_.event_type
    if isinstance(type_, int | str) and not isinstance(type_, bool):
        return type_
    raise TypeError(f"an event type is an int, a str or a subclass of NamedEvent, not {type_!r}")


def check_event(event: object) -> None:
    """Raise `BadEvent` unless it is an event with a priority and type that can be used."""
    if not (
        isinstance(event, Event) and isinstance(event.priority, int) and isinstance(event.type, int | str)
    ):
        raise not_an_event(event)


def not_an_event(thing: object) -> BadEvent:
    """Make the error for something that is no event."""
    if isinstance(thing, Event):
        return BadEvent(
            f"an event's priority is an int and its type an int or str; "
            f"found priority {thing.priority!r} and type {thing.type!r}"
        )
    return BadEvent(f"an event is an instance of nexus.Event, not {thing.__class__.__name__}: {thing!r:.80}")


class EventFactory:
    """Gives events their ids.

    Attributes:
        current_event_id: what the next call of `next_id` returns.
    """

    AUTO = -1
    """As an id: the next in sequence."""
    RANDOM = -2
    """As an id: a random one from 1 to 1000."""

    rng: random.Random = random.Random()
    """Where random ids come from."""

    def __init__(self) -> None:
        self.current_event_id = 1

    def next_id(self) -> int:
        """Return the next id in sequence; the first is 1."""
        number = self.current_event_id
        self.current_event_id = number + 1
        return number

    def random_id(self) -> int:
        """Return a random id from 1 to 1000; not unique."""
        return self.rng.randint(1, 1000)

    @overload
    def create_event(
        self,
        payload: Any,
        *,
        event_type: type[NamedEventTypeVar],
        id: int = ...,
        priority: int = ...,
        **metadata: Any,
    ) -> NamedEventTypeVar: ...

    @overload
    def create_event(
        self, payload: P, *, event_type: EventKey, id: int = ..., priority: int = ..., **metadata: Any
    ) -> Event[P]: ...

    def create_event(
        self,
        payload: Any,
        *,
        event_type: EventKey | type[NamedEvent[Any]],
        id: int = AUTO,
        priority: int = 0,
        **metadata: Any,
    ) -> Event[Any]:
        """Make an event.

        Args:
            payload: what it says.
            event_type: its type, or a subclass of `NamedEvent`.
            id: its id; `AUTO` for the next in sequence, `RANDOM` for a random one.
            priority: lower is sooner.
            metadata: any field of `EventMeta`.

        Raises:
            TypeError: the type is neither int, str nor a subclass of `NamedEvent`.
        """
        if id == self.AUTO:
            id = self.next_id()
        elif id == self.RANDOM:
            id = self.random_id()
        if isinstance(event_type, type):
            event_type_of(event_type)
            return event_type(id, payload, priority=priority, **metadata)
        if metadata:
            return Event(id, event_type_of(event_type), priority, payload, **metadata)
        return make_event(id, event_type_of(event_type), priority, payload)


def settle(event: Event[Any], outcome: str) -> None:
    """Tell whoever asked that the event's story in a nexus has ended; what that raises is logged."""
    meta = event._meta
    if meta is not None and meta.on_settled is not None:
        try:
            meta.on_settled(outcome)
        except Exception:
            logger.exception("on_settled of event %s of type %r failed", event.id, event.type)
