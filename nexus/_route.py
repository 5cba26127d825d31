"""The ledger: one account per event type, with its handlers and what became of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ._event import Event, EventKey, settle
from ._handler import HandlerCall, HandlerOptions, compile_handler, name_of
from ._stats import TypeCounts

__all__ = ["OTHER_TYPES", "Binding", "Ledger", "Route"]

OTHER_TYPES = "*"
"""The account of types that came after the ledger was full."""


class Binding:
    """One handler registered for one type or mask."""

    __slots__ = ("call", "handler", "is_async", "name", "options", "pool")

    def __init__(self, handler: Any, options: HandlerOptions, is_async: bool) -> None:
        self.handler = handler
        self.call: HandlerCall = compile_handler(handler)
        self.is_async = is_async
        self.options = options
        self.name = name_of(handler)
        self.pool: Any = None
        """The tasks that run it beside the nexus's own; None when it runs inline."""

    @property
    def is_bare(self) -> bool:
        """Whether it runs inline, with neither timeout nor retries."""
        return self.pool is None and not self.has_options

    @property
    def has_options(self) -> bool:
        """Whether a try may be cut short or repeated."""
        return self.options.timeout is not None or self.options.retries > 0


class Route:
    """One type: where its events go, and how many met which end."""

    __slots__ = (
        "bindings",
        "coroutine",
        "drops",
        "expired",
        "failed",
        "handled",
        "is_async",
        "key",
        "others",
        "pool",
        "refused",
        "single",
        "unhandled",
    )

    def __init__(self, key: EventKey) -> None:
        self.key = key
        self.bindings: tuple[Binding, ...] = ()
        self.single: HandlerCall | None = None
        """The handler, where there is just one; the door of its pool, where it has one."""
        self.coroutine: HandlerCall | None = None
        """The same, where it is a coroutine function."""
        self.pool: Any = None
        """Its pool, where there is just one handler and that has one."""
        self.others: tuple[HandlerCall, ...] = ()
        """The handlers, where there are several."""
        self.is_async = False
        self.handled = self.failed = self.unhandled = self.expired = self.refused = 0
        self.drops: dict[str, int] = {}

    def compile(self, bindings: tuple[Binding, ...]) -> bool:
        """Take these handlers; say whether events may go to them straight, without options to honour."""
        self.bindings = bindings
        self.pool = bindings[0].pool if len(bindings) == 1 else None
        if self.pool is not None:
            self.single, self.coroutine = self.pool.offer, None
            return True
        self.single = bindings[0].call if len(bindings) == 1 else None
        self.coroutine = self.single if bindings and bindings[0].is_async else None
        self.is_async = all(binding.is_async for binding in bindings)
        self.others = tuple(binding.call for binding in bindings) if len(bindings) > 1 else ()
        return bool(bindings) and all(binding.is_bare for binding in bindings)

    def drop(self, event: Event[Any], reason: str) -> None:
        """Count an event dropped by policy."""
        self.drops[reason] = self.drops.get(reason, 0) + 1
        settle(event, "dropped")

    def counts(self, queued: int, active: int, spilled: int) -> TypeCounts:
        """Return the account as it stands."""
        settled = self.handled + self.failed + self.unhandled + self.expired + sum(self.drops.values())
        return TypeCounts(
            ingested=settled + queued,
            handled=self.handled,
            failed=self.failed,
            unhandled=self.unhandled,
            expired=self.expired,
            queued=queued,
            active=active,
            spilled=spilled,
            refused=self.refused,
            drops=dict(self.drops),
        )


class Ledger:
    """All accounts.

    Args:
        limit: types without a handler that get an account of their own; the rest share one, so that a peer
            who invents types cannot fill the memory.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._routes: dict[EventKey, Route] = {}
        self._limit = limit

    def account(self, key: EventKey) -> Route:
        """Return the account of a type; the shared one when the ledger is full."""
        try:
            route = self._routes.get(key)
        except TypeError:  # not hashable: no type at all
            key, route = OTHER_TYPES, None
        if route is None:
            if len(self._routes) >= self._limit:
                key = OTHER_TYPES
            route = self._routes.setdefault(key, Route(key))
        return route

    def own(self, key: EventKey) -> Route:
        """Return the type's own account, also when the ledger is full: types with handlers or policies have
        one."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(key)
            self._limit += 1
        return route

    def has_handlers(self, key: EventKey) -> bool:
        """Say whether anybody has registered for the type; opens no account."""
        route = self._routes.get(key)
        return route is not None and bool(route.bindings)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def total(self, read: Callable[[Route], int]) -> int:
        """Add up one count over all types."""
        return sum(map(read, self._routes.values()))
