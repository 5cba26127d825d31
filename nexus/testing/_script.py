"""A converter that gives known events at known times."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nexus._event import Event
from nexus._source import SimpleEventConverter
from nexus.errors import NoMoreEvents

Step = tuple[float, Event[Any]]


class Script(SimpleEventConverter):
    """Emits each event at its time, and then ends.

    Times are seconds from `start`, in ascending order; equal times keep the order of the script. An
    event whose time has passed, because the nexus had no room, comes at once: none is left out.
    Started again, the script plays from its beginning.

    Args:
        steps: pairs of a time and an event.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        kept = tuple(steps)
        for _ in _checked(kept):
            pass
        self._steps: Callable[[], Iterator[Step]] = lambda: iter(kept)
        self._rest: Iterator[Step] = iter(())
        self._next: Step | None = None
        self._began: float | None = None

    @classmethod
    def every(cls, interval: float, count: int | None, make: Callable[[int], Event[Any]]) -> "Script":
        """Emit events at a steady rate: number i, from 0, at i * interval; the first one at once.

        Args:
            interval: seconds between events, 0 or more; at 0 they come as fast as they are taken.
            count: events in all; None for no end.
            make: called with the number of the event, when it is due to be next.
        """
        if not interval >= 0:
            raise ValueError(f"interval must be 0 seconds or more, not {interval!r}")
        if count is not None and count < 0:
            raise ValueError(f"count must be 0 or more, or None, not {count!r}")
        script = cls(())

        def steps() -> Iterator[Step]:
            for number in itertools.count() if count is None else range(count):
                yield number * interval, make(number)

        script._steps = steps
        return script

    async def start(self) -> None:
        """Play from the beginning; now is time 0."""
        await super().start()
        self._begin()

    async def obtain_event(self) -> Event[Any]:
        """Wait for the next event's time. Cancelling loses nothing: the event comes next time.

        Raises:
            NoMoreEvents: the script is over.
        """
        began = self._begin() if self._began is None else self._began
        if self._next is None:
            self._next = next(self._rest, None)
        if self._next is None:
            raise NoMoreEvents("the script is over")
        moment, event = self._next
        await _sleep_until(began + moment)
        self._next = None
        return event

    def _begin(self) -> float:
        self._rest, self._next = self._steps(), None
        self._began = asyncio.get_running_loop().time()
        return self._began


def _checked(steps: Iterable[Step]) -> Iterator[Step]:
    last = 0.0
    for moment, event in steps:
        if not moment >= last:
            raise ValueError(f"the times of a script start at 0 and ascend: found {moment!r} after {last!r}")
        last = moment
        yield moment, event


async def _sleep_until(moment: float) -> None:
    # asyncio.sleep takes a delay, and adding it to the clock would miss the moment by a rounding error.
    loop = asyncio.get_running_loop()
    if loop.time() >= moment:
        return
    come: asyncio.Future[None] = loop.create_future()
    timer = loop.call_at(moment, _come, come)
    try:
        await come
    finally:
        timer.cancel()


def _come(come: "asyncio.Future[None]") -> None:
    if not come.done():
        come.set_result(None)
