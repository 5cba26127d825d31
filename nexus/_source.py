"""Sources: what gives a nexus its events, pulled (converters) or pushing (producers)."""

from __future__ import annotations

import abc
import asyncio
import inspect
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from ._event import Event, EventFactory
from .errors import MisconfiguredEventProducer, NoMoreEvents

__all__ = ["AbstractNexus", "EventConverter", "EventProducer", "EventSource", "SimpleEventConverter"]


class AbstractNexus(abc.ABC):
    """Whatever takes events from a producer."""

    @abc.abstractmethod
    async def ingest(self, event: Event[Any]) -> None:
        """Take the event; waits while there is no room for it."""


class EventSource:
    """What every source has: a beginning and an end. Subclass a converter or a producer instead.

    Attributes:
        closes_late: whether a nexus that stops closes it when the queue is drained, and not before: it is no
            longer pulled, but what was given is still to be settled with it.
    """

    closes_late: bool = False

    async def start(self) -> None:
        """Begin. A subclass's `start` awaits ``super().start()``."""

    async def restart(self) -> object:
        """Begin again after a failure; the same as `start`, what it returns included, unless overridden."""
        start: Callable[[], Awaitable[object]] = self.start
        return await start()

    def close(self) -> None:
        """Give up what the source holds; may be called twice."""

    async def aclose(self) -> None:
        """Do what `close` does, where it needs to wait; a nexus calls this one."""
        self.close()


class SimpleEventConverter(EventSource, abc.ABC):
    """A source the nexus pulls, one event at a time, whenever it has room.

    Attributes:
        arrives: whether its events come from another domain; see `EventConsumer.leads_out`.
    """

    arrives: bool = False

    @abc.abstractmethod
    async def obtain_event(self) -> Event[Any]:
        """Wait for the next event.

        A nexus cancels this call to stop; an override must not lose an event by it.

        Raises:
            NoMoreEvents: the converter has ended and is to be removed.
        """


class EventConverter(SimpleEventConverter):
    """A converter written as one asynchronous generator.

    A subclass with an ``__init__`` of its own calls ``super().__init__()``.
    """

    gen: AsyncGenerator[Event[Any], None] | None = None
    """The generator, once the first event was asked for."""

    def __init__(self) -> None:
        self.gen = None

    @abc.abstractmethod
    def event_generator(self) -> AsyncGenerator[Event[Any], None]:
        """Yield events; written as ``async def`` with ``yield``. Its end is the converter's end."""

    async def restart(self) -> None:
        """Begin again with a new generator: one that has raised cannot go on."""
        await self.aclose()
        self.gen = None
        await self.start()

    async def obtain_event(self) -> Event[Any]:
        """Wait for the generator's next event.

        Raises:
            NoMoreEvents: the generator has returned, or the converter is closed.
        """
        if self.gen is None:
            self.gen = _generator_of(self)
        try:
            return await anext(self.gen)
        except StopAsyncIteration as exc:
            raise NoMoreEvents(f"{self.__class__.__name__} has no more events") from exc

    def close(self) -> None:
        """Close the generator now; one that has to wait for its own end needs `aclose`.

        Raises:
            RuntimeError: the generator awaits something in its ``finally``, where this error ends it.
        """
        closing = self.gen.aclose() if self.gen is not None else None
        if closing is not None:
            try:
                closing.send(None)
            except StopIteration:
                return
            error = RuntimeError(
                f"the generator of {self.__class__.__name__} waits while closing: await aclose()"
            )
            closing.throw(error)  # left where it is, it could not be closed by anybody else
            raise error

    async def aclose(self) -> None:
        """Close the generator and wait for its end."""
        if self.gen is not None:
            await self.gen.aclose()


class EventProducer(EventSource):
    """A source that pushes: it gives each event to every nexus it is registered with.

    The nexuses are held weakly, so a producer never keeps one alive.

    Args:
        event_factory: where subclasses get events from; None for the first registered nexus that is one,
            else one of the producer's own. A nexus given here is held weakly, any other factory is kept.
    """

    def __init__(self, event_factory: EventFactory | None = None) -> None:
        self.nexus_set: weakref.WeakSet[AbstractNexus] = weakref.WeakSet()
        self._nexus_refs: tuple[weakref.ref[AbstractNexus], ...] = ()
        is_nexus = isinstance(event_factory, AbstractNexus)
        self._factory: EventFactory | weakref.ref[EventFactory] | None = (
            weakref.ref(event_factory) if event_factory is not None and is_nexus else event_factory
        )

    @property
    def event_factory(self) -> EventFactory:
        """Where events come from."""
        factory = self._factory
        if isinstance(factory, weakref.ref):
            factory = factory()
        if factory is None:
            factory = next((nexus for nexus in self.nexuses if isinstance(nexus, EventFactory)), None)
        if factory is None:
            factory = self._factory = EventFactory()
        return factory

    @property
    def nexuses(self) -> list[AbstractNexus]:
        """The nexuses still alive, in the order of registration."""
        return [nexus for ref in self._nexus_refs if (nexus := ref()) is not None]

    def register_nexus(self, nexus: AbstractNexus) -> None:
        """Send events to this nexus too; a second time changes nothing."""
        if nexus not in self.nexus_set:
            self.nexus_set.add(nexus)
            self._nexus_refs = (*(ref for ref in self._nexus_refs if ref() is not None), weakref.ref(nexus))

    def deregister_nexus(self, nexus: AbstractNexus) -> None:
        """Send no more events to this nexus; one that was not registered changes nothing."""
        self.nexus_set.discard(nexus)
        self._nexus_refs = tuple(ref for ref in self._nexus_refs if ref() is not nexus)

    async def start(self) -> None:
        """Begin to produce.

        Raises:
            MisconfiguredEventProducer: no nexus is registered.
        """
        if not self.nexus_set:
            raise MisconfiguredEventProducer(
                f"{self.__class__.__name__} has no nexus to give events to; call nexus.add_producer() first"
            )

    async def distribute_event(self, event: Event[Any]) -> None:
        """Give the event to every registered nexus, one after another; waits where there is no room.

        Cancelled while it waits, the nexuses already served keep the event and the others do not get it.
        """
        for nexus in self.nexuses:
            await nexus.ingest(event)


def _generator_of(converter: EventConverter) -> AsyncGenerator[Event[Any], None]:
    """Return the generator of a converter.

    Raises:
        TypeError: its method makes something else.
    """
    generator: object = converter.event_generator()
    if isinstance(generator, AsyncGenerator):
        return generator
    if inspect.iscoroutine(generator):
        generator.close()
    raise TypeError(
        f"{converter.__class__.__name__}.event_generator must be written as `async def` with `yield`; "
        f"it makes a {generator.__class__.__name__}"
    )


async def close_source(source: object) -> None:
    """Close anything that can be closed, by `aclose` or by a plain or async `close`."""
    closer = getattr(source, "aclose", None) or getattr(source, "close", None)
    if closer is not None:
        result = closer()
        if asyncio.iscoroutine(result) or isinstance(result, asyncio.Future):
            await result
