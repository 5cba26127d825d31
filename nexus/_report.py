"""Reading off a nexus: its counts and histograms at one moment."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ._delivery import Deliveries, Lot
from ._drain import Drain
from ._event import Event, EventKey
from ._queue import AsyncEventPriorityQueue
from ._route import OTHER_TYPES
from ._stats import Stats

if TYPE_CHECKING:
    from ._life import Life

__all__ = ["take_stats"]


def take_stats(queue: AsyncEventPriorityQueue, drain: Drain, deliveries: Deliveries, life: Life) -> Stats:
    """Read everything at once; nothing changes meanwhile, for nothing is awaited."""
    drain.count_plain()

    def key_of(event: Event[Any] | None) -> EventKey:
        return queue.ledger.account(event.type).key if event is not None else OTHER_TYPES

    active: Counter[EventKey] = Counter(map(key_of, deliveries.events()))
    if drain.event is not None:
        active[key_of(drain.event)] += 1
    queued = Counter(active)
    queued.update(key_of(event) for event in queue.events())
    for item in set().union(*(pool.items for pool in life.pools)):
        if isinstance(item, Lot):
            queued[item.route.key] += len(item.events)
        else:
            queued[key_of(item.event)] += 1
    spilled: Counter[EventKey] = Counter()
    if queue.spills is not None:
        for key, number in queue.spills.counts():
            spilled[key] += number
        queued.update(spilled)
    types = {
        route.key: route.counts(queued[route.key], active[route.key], spilled[route.key])
        for route in queue.ledger
    }
    types = {key: counts for key, counts in types.items() if counts.ingested or counts.refused}

    def total(name: str) -> int:
        return sum(getattr(counts, name) for counts in types.values())

    lanes = sorted(queue.lanes.values(), key=lambda lane: lane.priority)
    return Stats(
        ingested=queue.entered + drain.taken,
        handled=total("handled"),
        failed=total("failed"),
        unhandled=total("unhandled"),
        expired=total("expired"),
        dropped=total("dropped"),
        queued=queue.qsize() + sum(active.values()),
        active=sum(active.values()),
        refused=total("refused"),
        types=types,
        lanes={lane.priority: lane.live for lane in lanes if lane.live},
        waiting={lane.priority: lane.waiting.snapshot() for lane in lanes if lane.waiting.count},
        handling={lane.priority: lane.handling.snapshot() for lane in lanes if lane.handling.count},
        sources=life.sources.states(),
        spilled={} if queue.spills is None else queue.spills.depths,
    )
