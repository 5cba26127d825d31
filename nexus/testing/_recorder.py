"""A handler that remembers what it was given."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from nexus._event import Event, EventKey, NamedEvent, event_type_of
from nexus._handler import EventConsumer

if TYPE_CHECKING:
    from nexus._queue import SecondaryQueue


@attrs.frozen
class Record:
    """One event, and when it was handled."""

    time: float
    """Seconds on the loop's clock."""
    event: Event[Any]


class Recorder(EventConsumer):
    """Keeps every event it handles, and the loop's time then.

    Args:
        maxlen: events kept, 1 or more; beyond them the oldest are forgotten, and counted in `forgotten`.
    """

    def __init__(self, *, maxlen: int = 100_000) -> None:
        if maxlen < 1:
            raise ValueError(f"maxlen must be 1 or more events, not {maxlen!r}")
        self._records: deque[Record] = deque(maxlen=maxlen)
        self._counts: Counter[EventKey] = Counter()
        self._more = asyncio.Event()

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        """Keep the event."""
        self._records.append(Record(asyncio.get_running_loop().time(), event))
        self._counts[event.type] += 1
        # Those who wait are woken, and look; the next to wait gets a fresh one.
        self._more.set()
        self._more = asyncio.Event()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records))

    @property
    def events(self) -> list[Event[Any]]:
        """The events kept, in the order they were handled."""
        return [record.event for record in self._records]

    @property
    def payloads(self) -> list[Any]:
        """What the events kept say."""
        return [record.event.payload for record in self._records]

    @property
    def times(self) -> list[float]:
        """When each of the events kept was handled, seconds on the loop's clock."""
        return [record.time for record in self._records]

    @property
    def count(self) -> int:
        """Events handled since the beginning or `clear`, the forgotten ones included."""
        return self._counts.total()

    @property
    def forgotten(self) -> int:
        """Events handled and no longer kept."""
        return self.count - len(self._records)

    def by_type(self, type_: EventKey | type[NamedEvent[Any]]) -> list[Event[Any]]:
        """Return the events kept of one type, in their order."""
        key = event_type_of(type_)
        return [record.event for record in self._records if record.event.type == key]

    def clear(self) -> None:
        """Forget everything, counts too."""
        self._records.clear()
        self._counts.clear()

    async def wait_for(self, n: int = 1, *, timeout: float | None = 60.0) -> list[Event[Any]]:
        """Wait until n events were handled in all, and return those kept.

        Args:
            n: events since the beginning or `clear`, not since the call.
            timeout: seconds on the loop's clock; None for ever.

        Raises:
            TimeoutError: they did not come in time; the message says what did.
        """
        await self._wait(None, n, timeout)
        return self.events

    async def wait_for_type(
        self, type_: EventKey | type[NamedEvent[Any]], n: int = 1, *, timeout: float | None = 60.0
    ) -> list[Event[Any]]:
        """Wait until n events of one type were handled, and return those kept; see `wait_for`."""
        await self._wait(event_type_of(type_), n, timeout)
        return self.by_type(type_)

    async def _wait(self, key: EventKey | None, n: int, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while (self.count if key is None else self._counts[key]) < n:
                    await self._more.wait()
        except TimeoutError:
            wanted = f"{n} events" if key is None else f"{n} events of type {key!r}"
            raise TimeoutError(
                f"waited {timeout:g} s for {wanted}; handled so far, by type: {dict(self._counts)}"
            ) from None
