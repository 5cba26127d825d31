"""The watchdog: a thread that notices when the event loop does not turn."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from inspect import iscoroutinefunction
from time import monotonic
from typing import Any, Final

import attrs

from ._clock import clock_of
from ._notify import Notifier
from ._source import AbstractNexus, EventProducer
from .errors import MultipleStart

__all__ = ["Stall", "Watchdog"]

logger = logging.getLogger(__name__)

ABORTED: Final = 70
"""Exit status of a process that was ended: EX_SOFTWARE of sysexits.h."""
_SOON: Final = 0.02
"""Seconds between two looks until all sources have been started."""


@attrs.frozen
class Stall:
    """What the watchdog has noticed."""

    seconds: float
    """For how long the event loop had not turned."""
    stacks: str = attrs.field(repr=False)
    """What every thread was doing then, the loop's thread first."""
    is_frozen: bool
    """Whether the watchdog itself could not run meanwhile: the process was stopped, the machine stood still,
    or something held the interpreter. It is noticed afterwards, and the process is not ended for it."""


class Watchdog(EventProducer):
    """Notices when the event loop has not turned for `period` seconds, logs what every thread does, and ends
    the process if asked to.

    Register it like a source, ``nexus.register(Watchdog())``, or give it to `AsyncEventNexus.run`. It lives
    as long as the nexus, the drain of its stop included. It looks four times in a period, from a thread of
    its own. A loop in virtual time, which has a clock of its own, is not watched.

    Where a service manager has set ``NOTIFY_SOCKET``, it is told ``READY=1`` when all sources have been
    started, ``STOPPING=1`` when the nexus stops, and ``WATCHDOG=1`` twice in ``WATCHDOG_USEC`` for as long as
    the loop turns.

    Args:
        period: seconds without a turn that are too many; more than 0.
        on_stall: called with a `Stall`, on the watchdog's thread; what it raises is logged.
        abort: end the process at once with status 70, so that whoever started it starts it again. Nothing is
            cleaned up or flushed but the log.

    Raises:
        ValueError: the period is not more than 0.
        TypeError: `on_stall` is async: its thread has no event loop.
    """

    closes_late = True

    def __init__(
        self,
        period: float = 5.0,
        *,
        on_stall: Callable[[Stall], object] | None = None,
        abort: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < period < float("inf"):
            raise ValueError(f"period must be more than 0 seconds, not {period!r}")
        if iscoroutinefunction(on_stall):
            raise TypeError(f"on_stall is called on a thread and not awaited, and {on_stall!r} is async")
        self.name = "watchdog"
        self.period = period
        self.stalls = 0
        """How often the loop has not turned for a period."""
        self._on_stall = on_stall
        self._abort = abort
        self._watch: _Watch | None = None

    def __repr__(self) -> str:
        return f"<Watchdog {self.period} s, {self.stalls} stalls>"

    @property
    def is_watching(self) -> bool:
        """Whether its thread runs."""
        return self._watch is not None

    async def start(self) -> None:
        """Watch the running loop.

        Raises:
            MultipleStart: it watches already.
            MisconfiguredEventProducer: it is registered with no nexus.
        """
        await super().start()
        if self._watch is not None:
            raise MultipleStart("the watchdog watches already")
        loop = asyncio.get_running_loop()
        if clock_of(loop) is not monotonic and abs(loop.time() - monotonic()) > 1:
            logger.debug("a loop with a clock of its own is not watched")
            return
        self._watch = _Watch(self.period, loop, self._is_ready, self._stalled)

    def deregister_nexus(self, nexus: AbstractNexus) -> None:
        """Note that a nexus stops."""
        super().deregister_nexus(nexus)
        if self._watch is not None and not self.nexus_set:
            self._watch.stopping()

    def close(self) -> None:
        """Watch no longer; returns when the thread has ended, or after a second."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()

    def _is_ready(self) -> bool:
        """Say whether all sources of every nexus have been started."""
        states = [getattr(nexus, "state", None) for nexus in self.nexuses]
        return all(state is None or state.name == "LOOPING" for state in states)

    def _stalled(self, stall: Stall, *, again: bool) -> None:
        """Tell of a stall, and end the process if that is wanted; on the watchdog's thread."""
        self.stalls += not again
        abort = self._abort and not stall.is_frozen
        if abort:
            _end_anyway(self.period)
        what = "the process stood still" if stall.is_frozen else "the event loop has not turned"
        logger.critical("%s for %.1f s\n%s", what, stall.seconds, stall.stacks)
        if self._on_stall is not None and not again:
            try:
                self._on_stall(stall)
            except Exception:
                logger.exception("on_stall failed")
        if abort:
            logger.critical("the watchdog ends the process with status %s", ABORTED)
            os._exit(ABORTED)


class _Watch:
    """The thread, from its start to its end.

    Args:
        is_ready: asked in the loop whether the service manager may be told so.
        stalled: told of a stall, and of one that goes on.
    """

    def __init__(
        self,
        period: float,
        loop: asyncio.AbstractEventLoop,
        is_ready: Callable[[], bool],
        stalled: Callable[..., None],
    ) -> None:
        self._period = period
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._is_ready = is_ready
        self._stalled = stalled
        self._notifier = Notifier()
        self._turned = monotonic()
        """When the loop was seen to turn last."""
        self._asked = False
        """Whether the loop has still to answer."""
        self._ready = False
        self._told_ready = self._told_stopping = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nexus.watchdog", daemon=True)
        self._thread.start()

    def stopping(self) -> None:
        """Tell the service manager that the nexus stops; in the loop."""
        if not self._told_stopping:
            self._told_stopping = True
            self._notifier.tell("STOPPING=1")

    def end(self) -> None:
        """End the thread."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _answer(self) -> None:
        """Show that the loop turns; in the loop."""
        self._turned = monotonic()
        self._asked = False
        self._ready = self._ready or self._is_ready()

    def _run(self) -> None:
        """Look whether the loop turns, until the end."""
        interval = self._notifier.interval
        tick = min(self._period, interval or self._period) / 4
        next_beat = 0.0
        next_told = self._period
        looked = self._turned
        while True:
            pause = tick if self._ready or not self._notifier.is_wanted else min(tick, _SOON)
            if self._over.wait(pause):
                return
            now = monotonic()
            late = now - looked - pause
            looked = now
            if late > tick:
                self._turned = min(self._turned + late, now)  # the loop could not turn then either
                if late >= self._period:
                    self._stalled(Stall(late, _stacks(self._loop, self._loop_thread), True), again=False)
            silence = now - self._turned
            if silence < self._period:
                if next_told > self._period:
                    logger.warning("the event loop turns again")
                next_told = self._period
            elif silence >= next_told:
                again = next_told > self._period
                next_told = 2 * silence
                self._stalled(Stall(silence, _stacks(self._loop, self._loop_thread), False), again=again)
            if self._asked:
                continue
            if self._ready and not self._told_ready and not self._told_stopping:
                self._told_ready = True
                self._notifier.tell("READY=1")
            if interval is not None and now >= next_beat:
                next_beat = now + interval / 2 - tick / 2
                self._notifier.tell("WATCHDOG=1")
            self._asked = True
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                return  # the loop is closed


def _stacks(loop: asyncio.AbstractEventLoop, first: int) -> str:
    """Tell what every thread does now, the given one first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames: dict[int, Any] = sys._current_frames()
    parts: list[str] = []
    for ident in sorted(frames, key=lambda ident: ident != first):
        if ident == threading.get_ident():
            continue
        task = asyncio.current_task(loop) if ident == first else None
        where = f", in task {task.get_name()}" if task is not None else ""
        parts.append(f"thread {names.get(ident, ident)}{where}:\n")
        parts += traceback.format_stack(frames[ident])
    frames.clear()  # one of them is this one
    return "".join(parts).rstrip()


def _end_anyway(seconds: float) -> None:
    """End the process after so many seconds whatever this thread meets: a log that blocks, a callback that
    does not return, an interpreter that somebody holds."""
    with contextlib.suppress(Exception):  # the standard error may be none
        faulthandler.dump_traceback_later(seconds, exit=True)
