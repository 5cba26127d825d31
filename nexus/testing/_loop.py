"""The event loop whose clock jumps instead of waiting."""

import asyncio
import heapq
import math
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from ._deadlock import DeadlockError, TimeLimitError, describe_tasks

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready = list[tuple[selectors.SelectorKey, int]]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time.

    When nothing is ready, the clock jumps to the next timer at once. Timers due at the same moment
    run in the order they were set. Sockets, pipes and `call_soon_threadsafe` work as usual, yet
    whoever is at the other end lives in real time: a timer does not wait for them. A job given to
    `run_in_executor` does hold the clock until it is done (or its future is cancelled).

    When no timer is set, the loop waits for sockets and threads, if there are any, for `patience`
    real seconds, and then raises `DeadlockError` instead of hanging. In debug mode callbacks are
    never reported as slow: their duration in virtual time is nothing.
    """

    # What asyncio.base_events keeps, and its `_run_once` reads. The same in CPython 3.11 to 3.13.
    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]
    _clock_resolution: float
    # Closed until made: a loop whose arguments are refused is dropped without a warning.
    _closed = True

    def __init__(self, start: float = 0.0, *, patience: float | None = 5.0) -> None:
        """Set the clock.

        Args:
            start: what the clock reads first, seconds, 0 or more.
            patience: real seconds to wait for sockets and threads when nothing else can happen;
                None for ever.
        """
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"start must be a finite number of seconds, 0 or more, not {start!r}")
        self._now = float(start)
        self._limit = math.inf
        self._patience = patience
        self._timers_set = 0
        self._holds = 0
        self._listens = False
        self._turns = 0
        super().__init__(_JumpingSelector(self))
        self._move_to(self._now)

    @property
    def turns(self) -> int:
        """How many times the loop went round."""
        return self._turns

    def time(self) -> float:
        """Read the virtual clock, seconds."""
        return self._now

    def set_limit(self, moment: float | None) -> None:
        """Raise `TimeLimitError` when the clock would pass this moment; None for no limit."""
        self._limit = math.inf if moment is None else moment

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a moment of the virtual clock, after all that was set for this moment before."""
        if math.isnan(when):
            raise ValueError("a timer needs a moment, found nan")
        self._check_closed()
        if self.get_debug():
            self._check_thread()
            self._check_callback(callback, "call_at")
        self._timers_set += 1
        timer = _OrderedTimer(when, callback, args, self, context)
        timer.order = self._timers_set
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread or process; the clock stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._holds += 1
        future.add_done_callback(self._release)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the default executor, in real time and without a bound."""
        with self._hold():
            await super().shutdown_default_executor()

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call back when a signal comes."""
        # Signals come through the loop's own wake-up socket, which is otherwise not looked at.
        self._listens = True
        super().add_signal_handler(sig, callback, *args)

    def _wait(
        self, timeout: float | None, select: Callable[[float | None], Ready], *, outside: bool
    ) -> Ready:
        """Stand in for the selector: asyncio asks what is ready within `timeout` seconds."""
        # Callbacks from other threads need no look at the wake-up socket: they are in _ready already.
        # Not polling for it is what makes a simulated day of timers cheap.
        ready = select(0) if outside else []
        if ready or self._ready or timeout == 0:
            return ready
        if self._holds:
            return select(None)
        if self._scheduled and self._scheduled[0].when() != math.inf:
            self._jump(self._scheduled[0].when())
            return []
        return self._wait_for_others(select, outside=outside)

    def _jump(self, moment: float) -> None:
        if moment > self._limit:
            raise TimeLimitError(
                f"the simulated time allowed, until {self._limit:g} s, is over; "
                f"waiting are\n{describe_tasks(self)}"
            )
        if moment > self._now:
            self._move_to(moment)

    def _move_to(self, moment: float) -> None:
        self._now = moment
        # asyncio runs the timers with `when < time() + resolution`. One unit in the last place makes
        # that `when <= time()`, exactly, and keeps it true where 1 ns is less than a float can tell.
        self._clock_resolution = math.ulp(moment)

    def _wait_for_others(self, select: Callable[[float | None], Ready], *, outside: bool) -> Ready:
        # The threads first: one that ends after this has left its callback in _ready.
        hopeful = outside or self._other_threads()
        ready = select(self._patience if hopeful else 0)
        if ready or self._ready:
            return ready
        waited = f" (waited {self._patience:g} real seconds for sockets and threads)" if hopeful else ""
        raise DeadlockError(
            f"nothing can happen any more at {self._now:g} s: no timer is set, and no socket or thread "
            f"wakes the loop{waited}; waiting are\n{describe_tasks(self)}"
        )

    def _other_threads(self) -> bool:
        # No job is running in the default executor, or the clock would be held: its workers are idle.
        idle = getattr(getattr(self, "_default_executor", None), "_threads", ())
        current = threading.current_thread()
        return any(thread is not current and thread not in idle for thread in threading.enumerate())

    @contextmanager
    def _hold(self) -> Iterator[None]:
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def _release(self, _: object) -> None:
        self._holds -= 1

    # Of asyncio's own; named here for the type checkers.
    _check_closed: Callable[[], None]
    _check_thread: Callable[[], None]
    _check_callback: Callable[[object, str], None]


class _OrderedTimer(asyncio.TimerHandle):
    """A timer that knows when it was set.

    asyncio keeps timers in a heap and compares their moments alone, and a heap does not keep equals
    in order. The tie is broken here, in the comparison, so that neither `when()` nor the clock ever
    shows it: nudging the moments themselves would make `loop.time() == when` false.
    """

    __slots__ = ("order",)

    order: int
    _scheduled: bool
    _when: float

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        if isinstance(other, _OrderedTimer) and self._when == other._when:
            return self.order < other.order
        return self._when < other.when()


class _JumpingSelector(selectors.DefaultSelector):
    """The platform's selector, asked only when the loop says so."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop
        self._registered = 0

    def select(self, timeout: float | None = None) -> Ready:
        loop = self._loop
        loop._turns += 1
        outside = self._registered > 1 or loop._listens
        if timeout == 0 and not outside:
            # Something is ready and nothing else can be: the way of most turns.
            return []
        return loop._wait(timeout, super().select, outside=outside)

    # Counted, because the map of the registered ones is slow to ask. One is the loop's own wake-up socket.
    def register(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._registered += 1
        return key

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._registered -= 1
        return key
