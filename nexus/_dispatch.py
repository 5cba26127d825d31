"""Dispatch: which filters and handlers an event goes to. Routes are made when a handler is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar

from ._event import Event, EventKey, NamedEvent, event_type_of
from ._handler import FilterFunc, GenericHandler, HandlerCall, HandlerOptions, compile_handler, name_of
from ._queue import SecondaryQueue
from ._route import Binding, Ledger, Route
from .errors import UnhandledEvent

__all__ = ["FALLBACK", "EventDispatcher"]

H = TypeVar("H", bound=Callable[..., Any])

FALLBACK = -1
"""As a type: events that no other handler takes."""


class EventDispatcher:
    """Finds who takes an event, and awaits it: filters in their order, then the handlers of its type, then
    the fallback.

    Args:
        multiple: several handlers may take one type; they run one after the other, in the order of
            registration.
        bitmode: types are powers of two, and a handler is registered for a mask of them.

    Attributes:
        direct: routes an event may take straight; empty while there are filters, which see every event first.
    """

    def __init__(self, multiple: bool = False, bitmode: bool = False) -> None:
        for name, value in (("multiple", multiple), ("bitmode", bitmode)):
            if not isinstance(value, int):
                raise TypeError(f"{name} is True or False, not {value!r}; a name is given as name=...")
        self.multiple = multiple
        self.bitmode = bitmode
        self.ledger = Ledger()
        self.ledger.own(FALLBACK)
        self.direct: dict[EventKey, Route] = {}
        self._filters: list[tuple[object, HandlerCall]] = []
        self._bindings: list[tuple[EventKey, Binding]] = []
        self._reply_ways: dict[str, Binding] = {}

    # Registering.

    @property
    def filters(self) -> tuple[object, ...]:
        """The filters, in their order."""
        return tuple(filter_ for filter_, _ in self._filters)

    @property
    def handlers(self) -> Mapping[EventKey, tuple[object, ...]]:
        """The handlers of each type or mask, in their order."""
        found: dict[EventKey, tuple[object, ...]] = {}
        for key, binding in self._bindings:
            found[key] = (*found.get(key, ()), binding.handler)
        return found

    def add_filter(self, handler: FilterFunc) -> None:
        """Let a function see every event first; where it returns True, the event is consumed.

        Raises:
            TypeError: it cannot be called with an event.
        """
        self._filters.append((handler, compile_handler(handler, what="filter")))
        self.direct.clear()
        self._rerouted()

    def remove_filter(self, handler: FilterFunc) -> None:
        """Remove a filter.

        Raises:
            LookupError: it is not there.
        """
        for place, (filter_, _) in enumerate(self._filters):
            if filter_ == handler:
                del self._filters[place]
                self._compile_all()
                return
        raise LookupError(f"filter {name_of(handler)} is not registered")

    def add_handler(
        self,
        type: EventKey | type[NamedEvent[Any]],
        handler: GenericHandler,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.0,
    ) -> None:
        """Let a handler take the events of a type; from the next event on, also while the nexus runs.

        Args:
            type: the type; a mask of types in bitmode; -1 for events that nobody else takes.
            handler: an async or plain function of ``(event, queue)`` or ``(event)``, or an `EventConsumer`.
            concurrency: None runs it in the nexus's own task, one event at a time; a number runs it for so
                many events at once in tasks beside it. A consumer may say so itself by its attribute of that
                name.
            timeout: seconds after which one try is cancelled and has failed; None for no limit.
            retries: further tries after a failure.
            retry_delay: seconds before the second try, doubled for each further one; other events go on
                meanwhile.

        Raises:
            TypeError: it is not a type, or not a handler.
            ValueError: an option is out of its range, or the mask is not positive.
            LookupError: the type has a handler already, and `multiple` is off.
        """
        key = self._key(type)
        if concurrency is None:
            concurrency = getattr(handler, "concurrency", None)
        options = HandlerOptions(
            concurrency=concurrency, timeout=timeout, retries=retries, retry_delay=retry_delay
        )
        target = handler if callable(handler) else getattr(handler, "handle", handler)
        binding = Binding(handler, options, iscoroutinefunction(target))
        if not self.multiple:
            taken = [other for other, _ in self._bindings if self._overlap(other, key)]
            if taken:
                raise LookupError(
                    f"Handler for type {taken[0]!r} already present; remove it first, "
                    "use EventFanout, or make the nexus with multiple=True"
                )
        self._bindings.append((key, binding))
        self._bound(binding)
        self._compile(key)

    def remove_handler(
        self, type: EventKey | type[NamedEvent[Any]], handler: GenericHandler | None = None
    ) -> None:
        """Remove a handler of a type; without a handler, all of them.

        Raises:
            LookupError: there is none.
        """
        key = self._key(type)
        gone = [b for k, b in self._bindings if k == key and (handler is None or b.handler == handler)]
        if not gone:
            which = "no handler" if handler is None else f"no handler {name_of(handler)}"
            raise LookupError(f"there is {which} for type {key!r}")
        self._bindings = [(k, b) for k, b in self._bindings if b not in gone]
        self._compile(key)
        for binding in gone:
            self._unbound(binding)

    def forget_all(self) -> None:
        """Forget all filters, handlers and ways for replies."""
        self._filters.clear()
        self._reply_ways.clear()
        gone, self._bindings = self._bindings, []
        for key, binding in gone:
            self._compile(key)
            self._unbound(binding)

    def on(self, type: EventKey | type[NamedEvent[Any]], **options: Any) -> Callable[[H], H]:
        """Register the decorated function as a handler; takes the options of `add_handler`.

        Raises:
            TypeError: it is used without a type, or with something that is none.
            ValueError: the mask is not positive.
        """
        self._key(type)

        def register(function: H) -> H:
            self.add_handler(type, function, **options)
            return function

        return register

    def add_reply_way(self, name: str, handler: Any) -> None:
        """Let a boundary take the replies that have to go back over it.

        Raises:
            LookupError: the name is taken.
        """
        if name in self._reply_ways:
            raise LookupError(f"replies have a way named {name!r} already")
        self._reply_ways[name] = Binding(handler, HandlerOptions(), iscoroutinefunction(handler))

    def has_reply_way(self, name: str) -> bool:
        """Say whether replies have a way of this name."""
        return name in self._reply_ways

    def remove_reply_way(self, name: str) -> None:
        """Forget a way for replies; one that is not there changes nothing."""
        self._reply_ways.pop(name, None)

    def _key(self, type: EventKey | type[NamedEvent[Any]]) -> EventKey:
        """Return the key of a type or mask."""
        key = event_type_of(type)
        if self.bitmode and (not isinstance(key, int) or (key != FALLBACK and key < 1)):
            raise ValueError(
                f"in bitmode a handler is registered for a mask of at least one bit, or -1, not {key!r}"
            )
        return key

    def _overlap(self, one: EventKey, other: EventKey) -> bool:
        """Say whether two registrations could claim the same event."""
        if not self.bitmode or FALLBACK in (one, other):
            return one == other
        return bool(int(one) & int(other))

    def _bound(self, binding: Binding) -> None:
        """Prepare a new binding; a nexus makes the pool of one that runs beside it."""

    def _unbound(self, binding: Binding) -> None:
        """Let go of a binding that was removed."""

    # Routes.

    def _compile(self, key: EventKey) -> None:
        """Make the routes anew that a registration touches."""
        if self.bitmode and key != FALLBACK:
            for bit in range(int(key).bit_length()):
                if int(key) >> bit & 1:
                    self._compile_one(1 << bit)
        else:
            self._compile_one(key)

    def _compile_one(self, key: EventKey) -> None:
        """Make the route of one type anew."""
        route = self.ledger.own(key)
        may_go_straight = route.compile(self._find(key))
        if may_go_straight and not self._filters and key != FALLBACK:
            self.direct[key] = route
        else:
            self.direct.pop(key, None)
        self._rerouted()

    def _rerouted(self) -> None:
        """Have the change noticed at the next event; a nexus ends the run it is in."""

    def _compile_all(self) -> None:
        """Make all routes anew."""
        for key, _ in self._bindings:
            self._compile(key)

    def _find(self, key: EventKey) -> tuple[Binding, ...]:
        """Return the bindings of one type."""
        if self.bitmode and key != FALLBACK:
            return tuple(b for k, b in self._bindings if k != FALLBACK and int(k) & int(key))
        return tuple(b for k, b in self._bindings if k == key)

    def bindings_for(self, event: Event[Any]) -> tuple[Binding, ...]:
        """Return who takes the event: the way back for a reply, else its handlers, else the fallback."""
        if event._meta is not None and event._meta.route:
            way = self._reply_ways.get(event._meta.route[-1])
            return (way,) if way is not None else ()
        try:
            route = self.ledger.account(event.type)
        except TypeError:
            return ()
        bindings = route.bindings if route.key == event.type else ()
        return bindings or self.ledger.account(FALLBACK).bindings

    # Dispatching.

    async def filter(self, event: Event[Any], queue: SecondaryQueue) -> bool:
        """Show the event to the filters in their order; True when one has consumed it."""
        for _, call in tuple(self._filters):
            consumed = call(event, queue)
            if isawaitable(consumed):
                consumed = await consumed
            if consumed:
                return True
        return False

    async def dispatch(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Pass one event through filters and handlers here and now, without queue, options or statistics.

        Raises:
            UnhandledEvent: nobody takes it.
            Exception: whatever a filter or handler raises.
        """
        if await self.filter(event, queue):
            return
        bindings = self.bindings_for(event)
        if not bindings:
            raise UnhandledEvent(
                f"No available event handler for event with ID={event.id} and type={event.type!r}"
            )
        for binding in bindings:
            result = binding.call(event, queue)
            if isawaitable(result):
                await result
