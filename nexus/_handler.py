"""Handlers: what is done with an event. How to call one is found out once, when it is registered."""

from __future__ import annotations

import abc
import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from ._event import Event
from .errors import MisconfiguredEventConsumer

if TYPE_CHECKING:
    from ._queue import SecondaryQueue

__all__ = [
    "DeadLetter",
    "EventConsumer",
    "EventDiscarder",
    "EventFanout",
    "FilterFunc",
    "GenericHandler",
    "HandlerCall",
    "HandlerOptions",
    "compile_handler",
    "create_handler_coro",
    "name_of",
]

HandlerCall: TypeAlias = "Callable[[Event[Any], SecondaryQueue], Any]"
"""A handler in its one compiled form: called with the event and the queue; what it returns is awaited if it
can be."""

_Consumed: TypeAlias = bool | Awaitable[bool]
FilterFunc: TypeAlias = (
    "Callable[[Event[Any], SecondaryQueue], _Consumed] | Callable[[Event[Any]], _Consumed]"
)
"""Sees every event first; True means consumed: nothing else gets it."""


class EventConsumer(abc.ABC):
    """A handler that is an object. Optional: any function of ``(event)`` or ``(event, queue)`` is a handler
    too.

    Attributes:
        concurrency: how `AsyncEventNexus.add_handler` runs it unless told: None in the nexus's own task,
            a number for that many tasks beside it.
        lanewise: whether it runs beside the nexus's own task with `concurrency` (or one) events at a time of
            each priority, so that an ordinary event that has to wait never holds up an urgent one.
        leads_out: whether its events leave for another domain. What waits for it then keeps out nothing that
            arrives from there, until that is as much again.

    A consumer that runs beside the nexus's own task may also have a method ``handle_nowait(event) -> bool``:
    it handles the event here and now, or returns False where that would take waiting. It saves a task's turn;
    a lone event comes to it from within `ingest`.
    And beside that a method ``handle_many(events) -> int``: it handles the first of many events of one type
    and priority here and now, and returns how many. What it leaves is asked of ``handle_nowait``, and waits
    where that says no; so neither need it raise, for a failure is that of the first event.
    Or a method ``handle_later(event, done) -> bool``: it takes the event, or returns False, and calls
    ``done(None)``, or ``done(exception)``, from the loop when the event is handled, not before it has
    returned. Any number may be under way; until then the event counts as queued and active.
    And beside that a method ``handle_many_later(events, done) -> int``: it takes the first of many events of
    one type and priority, and returns how many; what it leaves is asked of ``handle_later``. It calls
    ``done`` once, for all it has taken; where it has taken none, not at all.
    """

    concurrency: int | None = None
    lanewise: bool = False
    leads_out: bool = False

    @abc.abstractmethod
    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Handle an event.

        Args:
            event: the event.
            queue: where secondary events and replies go; putting there never waits.
        """


GenericHandler: TypeAlias = (
    "Callable[[Event[Any], SecondaryQueue], Any] | Callable[[Event[Any]], Any] | EventConsumer"
)
"""An async or plain function of ``(event, queue)`` or ``(event)``, or an `EventConsumer`."""


@attrs.frozen(kw_only=True)
class HandlerOptions:
    """How a handler is run.

    Raises:
        ValueError: a number is out of its range.
    """

    concurrency: int | None = None
    """None: in the nexus's own task, one event at a time; n: up to n events at once, in tasks beside it."""
    timeout: float | None = None
    """Seconds after which one try is cancelled and has failed; None for no limit."""
    retries: int = 0
    """Further tries after a failure."""
    retry_delay: float = 0.0
    """Seconds before the second try; doubled for each further one."""

    def __attrs_post_init__(self) -> None:
        checks: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
            ("concurrency", "1 or more, or None", lambda n: n is None or (_is_whole(n) and n >= 1)),
            ("timeout", "more than 0 seconds, or None", lambda n: n is None or (_is_number(n) and n > 0)),
            ("retries", "0 or more", lambda n: _is_whole(n) and n >= 0),
            ("retry_delay", "0 seconds or more", lambda n: _is_number(n) and n >= 0),
        )
        for name, words, is_right in checks:
            if not is_right(getattr(self, name)):
                raise ValueError(f"{name} must be {words}, not {getattr(self, name)!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


@attrs.frozen
class DeadLetter:
    """An event that its handler could not handle."""

    event: Event[Any]
    exception: BaseException
    """What the last try raised."""
    attempts: int
    """How often it was tried."""
    handler: str
    """The name of the handler."""


def name_of(handler: object) -> str:
    """Return a short name for a handler or filter, for logs, graphs and errors."""
    name = getattr(handler, "__qualname__", None) or getattr(handler, "name", None)
    return name if isinstance(name, str) else handler.__class__.__qualname__


def compile_handler(handler: object, *, what: str = "handler") -> HandlerCall:
    """Bring a handler or filter into its one form.

    Raises:
        TypeError: it cannot be called with an event, or with an event and a queue, or is a generator.
    """
    call = handler
    if not callable(call):
        call = getattr(handler, "handle", None)
        if not callable(call):
            raise TypeError(
                f"a {what} is a function of (event) or (event, queue), or an object with such a method "
                f"called handle; {handler!r} is neither"
            )
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(
            f"the {what} {name_of(handler)} has a yield, so calling it would run nothing; "
            "put events on the queue it is called with, or make it an EventConverter"
        )
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # a builtin that does not say: taken at the full form
        return call
    for count in (2, 1):
        try:
            signature.bind(*([None] * count))
        except TypeError:
            continue
        if count == 2 and _wants_queue(signature):
            return call
        if count == 1 or not _wants_queue(signature):
            single = call
            return lambda event, queue: single(event)
    raise TypeError(
        f"the {what} {name_of(handler)} takes {signature}; it must take (event) or (event, queue)"
    )


def _wants_queue(signature: inspect.Signature) -> bool:
    """Say whether the second argument is meant for the queue: it is required, starred, or bears the name."""
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters[:2]):
        return True
    second = parameters[1] if len(parameters) > 1 else None
    return second is not None and (second.default is second.empty or second.name in ("queue", "q"))


def create_handler_coro(handler: object, event: Event[Any], queue: SecondaryQueue) -> Awaitable[Any]:
    """Return an awaitable that runs a handler or filter of any kind on the event; nothing runs before it is
    awaited."""

    async def run() -> Any:
        result = compile_handler(handler)(event, queue)
        return await result if inspect.isawaitable(result) else result

    return run()


class EventFanout(EventConsumer):
    """Passes each event to every registered handler, all at once."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], tuple[object, HandlerCall]] = {}

    @property
    def handlers(self) -> tuple[object, ...]:
        """The registered handlers, in their order."""
        return tuple(handler for handler, _ in self._calls.values())

    def register(self, handler: GenericHandler) -> None:
        """Add a handler; a second time changes nothing.

        Raises:
            TypeError: it is no handler.
        """
        self._calls.setdefault(_key(handler), (handler, compile_handler(handler)))

    def deregister(self, handler: GenericHandler) -> None:
        """Remove a handler.

        Raises:
            LookupError: it is not registered.
        """
        if self._calls.pop(_key(handler), None) is None:
            raise LookupError(f"handler {name_of(handler)} is not registered with this fanout")

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Run every handler on the event and wait for all.

        Raises:
            MisconfiguredEventConsumer: there is no handler.
            ExceptionGroup: what the handlers raised; a lone exception comes as it is. The others were not
                disturbed.
        """
        if not self._calls:
            raise MisconfiguredEventConsumer(
                "this EventFanout has no handler; register one before events come"
            )
        errors: list[Exception] = []
        waiting: list[Awaitable[Any]] = []
        for _, call in tuple(self._calls.values()):
            try:
                result = call(event, queue)
            except Exception as exc:
                errors.append(exc)
            else:
                if inspect.isawaitable(result):
                    waiting.append(result)
        results = await asyncio.gather(*waiting, return_exceptions=True) if len(waiting) > 1 else []
        if len(waiting) == 1:
            try:
                await waiting[0]
            except Exception as exc:
                errors.append(exc)
        errors += [exc for exc in results if isinstance(exc, Exception)]
        others = [exc for exc in results if isinstance(exc, BaseException) and not isinstance(exc, Exception)]
        if others:
            raise others[0]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"{len(errors)} handlers of a fanout failed", errors)


def _key(handler: object) -> tuple[int, int]:
    """Return what makes a handler itself: bound methods are made anew each time, so their parts count."""
    return id(getattr(handler, "__self__", None)), id(getattr(handler, "__func__", handler))


class EventDiscarder(EventConsumer):
    """Takes each event and does nothing with it."""

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Do nothing."""
