"""The nexus: one queue, its sources, its filters and handlers, and their life."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from ._delivery import DeadLetterHandler, Deliveries, ErrorHandler
from ._dispatch import EventDispatcher
from ._drain import Drain
from ._event import EventFactory, EventKey, NamedEvent
from ._handler import DeadLetter
from ._intake import Intake
from ._lane_pool import LanePool
from ._life import Life, Stopping, StopReport
from ._policy import OverloadPolicy
from ._pool import Pool
from ._queue import AsyncEventPriorityQueue, Giver
from ._report import take_stats
from ._route import Binding
from ._run import run_nexus
from ._source import EventProducer, EventSource, SimpleEventConverter
from ._stats import Stats
from ._straight import Straight
from ._watchdog import Watchdog
from .errors import BadCall, InvalidLoopState, LoopAlreadyStarted, LoopStopped

__all__ = ["AsyncEventNexus"]

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)

L = TypeVar("L")


class AsyncEventNexus(EventDispatcher, Intake, EventFactory):
    """Takes events from its sources and from anyone who ingests, and hands each to its filters and handlers.

    The most urgent event comes first, those of one priority in the order they came. Handlers run one at a
    time in the nexus's own task, whoever ingests, unless they are registered with a `concurrency`.

    Use it with ``async with``, or await `loop_forever`, or call `start` and `stop`, or `run` it. A nexus
    lives once.

    Args:
        multiple: several handlers may take one type.
        bitmode: types are powers of two, and handlers are registered for masks of them.
        name: for logs, tasks and boundaries.
        maxsize: events that wait at one priority; None for the class's `QUEUE_MAXLEN`.
        max_lanes: different priorities waiting at once.
        ageing: seconds of waiting that make an event count as one priority more urgent; None for strict
            priorities.
        grace: seconds that a stop gives to what is queued.
        on_error: "continue" after a handler has failed, or "stop".
        rng: where jitter comes from.
        max_secondary: events handlers may put beyond the bound of a lane.

    Raises:
        ValueError: an argument is out of its range.
    """

    QUEUE_MAXLEN = 10_000

    class States(Enum):
        """Where in its life a nexus is."""

        READY = 1
        STARTING = 2
        LOOPING = 3
        STOPPED = 4

    def __init__(
        self,
        multiple: bool = False,
        bitmode: bool = False,
        *,
        name: str = "nexus",
        maxsize: int | None = None,
        max_lanes: int = 64,
        ageing: float | None = None,
        grace: float = 5.0,
        on_error: str = "continue",
        rng: random.Random | None = None,
        max_secondary: int = 100_000,
    ) -> None:
        EventDispatcher.__init__(self, multiple, bitmode)
        EventFactory.__init__(self)
        if on_error not in ("continue", "stop"):
            raise ValueError(f'on_error must be "continue" or "stop", not {on_error!r}')
        if not grace >= 0:
            raise ValueError(f"grace must be 0 seconds or more, not {grace!r}")
        self.name = name
        self.domain = f"{name}#{next(_numbers)}-{secrets.token_hex(4)}"
        """A name no other nexus has, in whatever process: by it events that go in circles are found."""
        self.grace = grace
        self.rng = rng or random.Random()
        self.queue = AsyncEventPriorityQueue(
            self.QUEUE_MAXLEN if maxsize is None else maxsize,
            max_lanes=max_lanes,
            ageing=ageing,
            max_secondary=max_secondary,
            ledger=self.ledger,
        )
        """The queue; put events in by `ingest` and its kin, which know the life of the nexus."""
        self.queue.domain = self.domain
        self._deliveries = Deliveries(self.queue, stop_on_error=on_error == "stop", settled=self._check_idle)
        self._drain = Drain(self.queue, self, self._deliveries)
        self._life = Life(self, self._drain, self._deliveries)
        self._idle_waiters: set[asyncio.Future[None]] = set()
        straight = Straight(self.queue, self, self._drain, self._deliveries, self._life.tasks)
        Intake.__init__(self, self.queue, self._life, straight)
        self.queue.close(self._not_open)

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.name!r} {self.state.name} {self.queue!r}>"

    async def drained(self) -> None:
        """Wait until nothing is queued and no handler is busy, or the nexus has stopped.

        Raises:
            BadCall: a handler of this nexus asks, and would wait for itself.
        """
        if self._giver() is Giver.HANDLER:
            raise BadCall(f"{self.name}: a handler that awaits drained() waits for itself")
        if self._is_idle or self._life.state == "STOPPED":
            return
        waiter = asyncio.get_running_loop().create_future()
        self._idle_waiters.add(waiter)
        try:
            await waiter
        finally:
            self._idle_waiters.discard(waiter)

    @property
    def _is_idle(self) -> bool:
        return self._drain.event is None and self._deliveries.is_idle and self.queue.empty()

    def _check_idle(self) -> None:
        """Wake whoever waits for the nexus to be drained, if it is."""
        if self._idle_waiters and self._is_idle:
            self._wake_drained()

    def _wake_drained(self) -> None:
        """Wake whoever waits for the nexus to be drained."""
        for waiter in self._idle_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _not_open(self) -> Exception:
        """Make the error for an event that comes before the start or after the end."""
        if self.state is self.States.READY:
            return BadCall(
                f"{self.name}: AsyncEventNexus event loop not running; start() it before events come"
            )
        return LoopStopped(f"{self.name}: the nexus is stopping or has stopped and takes no more events")

    # Sources.

    @property
    def converters(self) -> tuple[SimpleEventConverter, ...]:
        """The sources it pulls."""
        return tuple(s for s in self._life.sources.all if isinstance(s, SimpleEventConverter))

    @property
    def producers(self) -> tuple[EventProducer, ...]:
        """The sources that push."""
        return tuple(s for s in self._life.sources.all if isinstance(s, EventProducer))

    def register(self, item: EventSource) -> None:
        """Add a source of either kind; in a running nexus it starts at once.

        Any other `EventSource` is started, supervised and closed, and gives nothing.

        Raises:
            TypeError: it is no source.
        """
        if isinstance(item, SimpleEventConverter):
            self.add_converter(item)
        elif isinstance(item, EventProducer) or hasattr(item, "register_nexus"):
            self.add_producer(item)
        elif isinstance(item, EventSource):
            self._add_source(item)
        else:
            raise TypeError(
                "a source is a SimpleEventConverter, an EventProducer or another EventSource, "
                f"not {item.__class__.__name__}: {item!r:.80}"
            )

    def add_converter(self, converter: SimpleEventConverter) -> None:
        """Add a source to be pulled; it is removed when it raises `NoMoreEvents`.

        Raises:
            TypeError: it has no `obtain_event`.
        """
        if not hasattr(converter, "obtain_event"):
            raise TypeError(f"a converter has an obtain_event() method, {converter!r:.80} has none")
        self._add_source(converter)

    def add_producer(self, producer: Any) -> None:
        """Add a source that pushes, and register this nexus with it.

        Raises:
            TypeError: it has no `register_nexus`.
        """
        if not hasattr(producer, "register_nexus"):
            raise TypeError(f"a producer has a register_nexus() method, {producer!r:.80} has none")
        producer.register_nexus(self)
        self._add_source(producer)

    def _add_source(self, source: EventSource) -> None:
        """Take a source; a nexus that has stopped takes none."""
        if self.state is self.States.STOPPED:
            raise BadCall(f"{self.name}: the nexus has stopped and takes no more sources")
        self._life.sources.add(source, now=self._life.is_running)

    async def remove_source(self, source: EventSource) -> None:
        """Stop, close and remove a source; returns when it has ended. Events it has given stay.

        Raises:
            LookupError: it is not there.
        """
        await self._life.sources.remove(source)

    # Handlers; registering is the dispatcher's.

    def set_policy(self, type: EventKey | type[NamedEvent[Any]], policy: OverloadPolicy) -> None:
        """Choose what happens to events of this type when their lane is full.

        Raises:
            TypeError: it is not an event type, or not a policy.
        """
        self.queue.set_policy(type, policy)

    def set_error_handler(self, handler: ErrorHandler | None) -> None:
        """Call this with ``(event, exception, handler name)`` for every event that has failed; None for
        nobody."""
        self._deliveries.error_handler = _check_listener(handler)

    def set_dead_letter_handler(self, handler: DeadLetterHandler | None) -> None:
        """Call this with a `DeadLetter` for every event that has failed for good; None for nobody."""
        self._deliveries.dead_letter_handler = _check_listener(handler)

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The last thousand events that failed, the oldest first; ingest ``letter.event`` to try one
        again."""
        return tuple(self._deliveries.letters)

    def _bound(self, binding: Binding) -> None:
        size = binding.options.concurrency
        lanewise = getattr(binding.handler, "lanewise", False)
        if size is not None or lanewise:
            spawn = self._life.tasks.spawn_handler
            make = partial(Pool, binding, size or 1, self.queue, self._deliveries, spawn)
            binding.pool = LanePool(make, self.queue.lanes.max_lanes) if lanewise else make()
            self._life.pools = [*(pool for pool in self._life.pools if not pool.is_gone), binding.pool]

    def _rerouted(self) -> None:
        self.queue.lanes.current = None

    def _unbound(self, binding: Binding) -> None:
        if binding.pool is not None:
            binding.pool.retire()

    def stats(self) -> Stats:
        """Return what the nexus has done so far; reading them walks the queue once."""
        return take_stats(self.queue, self._drain, self._deliveries, self._life)

    # Life.

    @property
    def state(self) -> States:
        """Where in its life the nexus is."""
        return self.States[self._life.state]

    @property
    def report(self) -> StopReport | None:
        """How it has stopped; None before."""
        return self._life.report

    @property
    def tasks(self) -> frozenset[asyncio.Task[Any]]:
        """The tasks the nexus owns; none is left after a stop, but those that refuse to end."""
        return frozenset(self._life.tasks.living)

    def start(self) -> asyncio.Task[None]:
        """Run the nexus in a task of its own.

        Returns:
            The task, done when the nexus has stopped; it raises what made the nexus fail.

        Raises:
            InvalidLoopState: it was started before.
        """
        if self.state is not self.States.READY:
            raise InvalidLoopState(
                f"{self.name}: start() called when state is {self.state.name}; a nexus lives once"
            )
        self._life.begin()
        return self._life.launch()

    async def loop_forever(self) -> None:
        """Run the nexus here, until `stop` is called or this is cancelled.

        Cancelled, it stops its sources and handlers at once; what is still queued stays in the report of
        `stop`.

        Raises:
            LoopAlreadyStarted: it is running.
            LoopStopped: it has run before.
            Exception: what a handler raised, where `on_error` is "stop".
        """
        if self.state in (self.States.STARTING, self.States.LOOPING):
            raise LoopAlreadyStarted(f"{self.name}: the nexus is running already")
        if self.state is self.States.STOPPED:
            raise LoopStopped(f"{self.name}: the nexus has run and stopped; make a new one")
        self._life.begin()
        await self._life.live()

    def stop(self, *, grace: float | None = None) -> Stopping:
        """Stop: sources first, then what is queued is handled, the most urgent first, then all is closed.

        The stop goes on whether or not what this returns is awaited. A second call may shorten the grace.

        Args:
            grace: seconds for what is queued; None for the nexus's own `grace`.

        Returns:
            To be awaited for the `StopReport`; not by a handler of this nexus, which would wait for itself.
        """
        return self._life.stop(self.grace if grace is None else grace)

    def run(
        self, *, grace: float | None = None, freeze: bool = True, watchdog: Watchdog | None = None
    ) -> StopReport:
        """Run the nexus in an event loop of its own until it is stopped; SIGINT and SIGTERM stop it
        gracefully.

        A second signal interrupts at once.

        Args:
            grace: seconds for what is queued at the stop; None for the nexus's own.
            freeze: take what exists at the start out of the garbage collector's rounds (`gc.freeze`), which
                keeps the longest waits of urgent events short.
            watchdog: notices when the event loop does not turn; None for none.

        Raises:
            BadCall: an event loop is running here already; await `loop_forever` there.
        """
        if watchdog is not None:
            self.register(watchdog)
        return run_nexus(self, self.grace if grace is None else grace, freeze=freeze)

    def cleanup(self) -> None:
        """Close all sources, then forget sources, handlers and filters. For a nexus that has stopped or
        never ran."""
        self._life.sources.close_all()
        self.forget_all()

    def __enter__(self) -> Self:
        """Begin a block that ends with `cleanup`.

        Raises:
            BadCall: the nexus is not new.
        """
        if self.state is not self.States.READY or self._life.sources.all:
            raise BadCall(f"{self.name}: a with block begins with a new nexus, before sources are added")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._life.is_running:
            self.stop(grace=0)
            self._life.halt()  # what is queued is reported, not met by forgotten handlers
        self.cleanup()

    async def __aenter__(self) -> Self:
        """Start, and wait until the sources have been started."""
        self.start()
        try:
            await self._life.started()
        except BaseException:
            await self.stop(grace=0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop gracefully; at once when the block is left by a cancellation."""
        cancelled = kind is not None and not issubclass(kind, Exception)
        await self.stop(grace=0 if cancelled else None)
        failure = self._life.take_failure()
        if failure is not None:
            if exc is None:
                raise failure
            logger.error("%s failed too: %r", self.name, failure)


def _check_listener(listener: L) -> L:
    """Return a listener for failed events.

    Raises:
        TypeError: it can be neither called nor left out.
    """
    if listener is not None and not callable(listener):
        raise TypeError(f"a listener for failed events is a function or None, not {listener!r}")
    return listener
