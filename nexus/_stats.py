"""What a nexus has done: counts that add up, and how long events waited and were handled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from ._event import EventKey

__all__ = ["Histogram", "LatencyRecorder", "SourceState", "Stats", "TypeCounts"]

_FLOOR = 1e-7
_PER_OCTAVE = 8
_BUCKETS = 48 * _PER_OCTAVE
_log2 = math.log2


@attrs.frozen
class Histogram:
    """How a time is spread over many events; a percentile is right to 9 %, and never below a tenth of a
    microsecond."""

    count: int
    """Events measured."""
    total: float
    """Their times added up, in seconds."""
    max: float
    """The longest, in seconds."""
    buckets: tuple[int, ...] = attrs.field(repr=False)
    """Events per bucket; bucket i ends at 1e-7 * 2 ** ((i + 1) / 8) seconds."""

    @property
    def mean(self) -> float:
        """The mean, in seconds; 0 when nothing was measured."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the time, in seconds, that this share of the events did not exceed; 0 when nothing was
        measured.

        Args:
            percent: from 0 to 100.
        """
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index, number in enumerate(self.buckets):
            seen += number
            if seen >= wanted:
                return min(self.max, _FLOOR * 2 ** ((index + 1) / _PER_OCTAVE))
        return self.max

    def as_dict(self) -> dict[str, float]:
        """Return count, and mean, p50, p90, p99, p99.9 and max in seconds, ready for JSON."""
        percentiles = {f"p{p:g}": self.percentile(p) for p in (50, 90, 99, 99.9)}
        return {"count": self.count, "mean": self.mean, **percentiles, "max": self.max}


class LatencyRecorder:
    """Gathers times for a `Histogram`; a call costs the same for one event as for a run of equal ones."""

    __slots__ = ("buckets", "count", "max", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.max = 0.0
        self.buckets = [0] * _BUCKETS

    def record(self, seconds: float, count: int = 1) -> None:
        """Add `count` events that took this long each."""
        self.count += count
        if seconds > _FLOOR:
            self.total += seconds * count
            if seconds > self.max:
                self.max = seconds
            index = int(_log2(seconds / _FLOOR) * _PER_OCTAVE)
            self.buckets[index if index < _BUCKETS else -1] += count
        else:
            self.buckets[0] += count

    def merge(self, other: LatencyRecorder) -> None:
        """Add all that another recorder has gathered."""
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def snapshot(self) -> Histogram:
        """Return what was gathered so far, without the empty buckets at the end."""
        last = max((i for i, n in enumerate(self.buckets) if n), default=-1)
        return Histogram(self.count, self.total, self.max, tuple(self.buckets[: last + 1]))


@attrs.frozen
class TypeCounts:
    """What became of the events of one type; `ingested` is always the sum of the others, `refused` and
    `active` apart."""

    ingested: int = 0
    """Accepted, or dropped at the door by the type's own policy."""
    handled: int = 0
    """Taken by their handlers, or consumed by a filter."""
    failed: int = 0
    """Given up after a handler's last try."""
    unhandled: int = 0
    """Nobody takes this type."""
    expired: int = 0
    """Past their deadline before a handler got them."""
    queued: int = 0
    """Accepted and not settled yet, the active ones included."""
    active: int = 0
    """With a handler now, or between two tries."""
    refused: int = 0
    """Not accepted: the caller got `QueueFull`."""
    drops: Mapping[str, int] = attrs.field(factory=dict)
    """Dropped by policy, by reason."""
    spilled: int = 0
    """Of those queued, the ones that wait on the disk."""

    @property
    def dropped(self) -> int:
        """Dropped by policy, for whatever reason."""
        return sum(self.drops.values())

    @property
    def settled(self) -> int:
        """Those whose story has ended."""
        return self.handled + self.failed + self.unhandled + self.expired + self.dropped

    def as_dict(self) -> dict[str, Any]:
        """Return all counts, ready for JSON."""
        return {**attrs.asdict(self), "dropped": self.dropped}


@attrs.frozen
class SourceState:
    """How a source fares."""

    name: str
    state: str
    """One of: starting, running, restarting, degraded, ended, stopped."""
    failures: int = 0
    """How often it has failed so far."""
    error: str | None = None
    """What it failed with last; None when it never did."""


@attrs.frozen
class Stats:
    """A nexus at one moment.

    ``ingested = handled + failed + unhandled + expired + dropped + queued`` holds at any moment. `ingested`
    is counted where events enter and leave the lanes, the others where they are settled, so `balanced` says
    something.
    """

    ingested: int
    handled: int
    failed: int
    unhandled: int
    expired: int
    dropped: int
    queued: int
    """Accepted and not settled, the active ones included."""
    active: int
    """With a handler now, or between two tries."""
    refused: int
    """Never accepted; the caller got `QueueFull`."""
    types: Mapping[EventKey, TypeCounts]
    """The same counts for each type seen; beyond a thousand types without a handler the rest is under
    ``*``."""
    lanes: Mapping[int, int]
    """Events waiting in memory, per priority, the most urgent first."""
    waiting: Mapping[int, Histogram]
    """Seconds from acceptance to the handler, per priority."""
    handling: Mapping[int, Histogram]
    """Seconds in the handlers that run in the nexus's own task, per priority."""
    sources: Mapping[str, SourceState]
    """How each source fares, by its name."""
    spilled: Mapping[int, int] = attrs.field(factory=dict)
    """Events waiting on the disk behind a full lane, per priority, the most urgent first."""

    @property
    def balanced(self) -> bool:
        """Whether every event ever accepted is accounted for exactly once."""
        outcomes = self.handled + self.failed + self.unhandled + self.expired + self.dropped
        return self.ingested == outcomes + self.queued

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: keys are strings, times are seconds."""
        plain = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(Stats)
            if field.name not in ("types", "lanes", "spilled", "waiting", "handling", "sources")
        }
        return {
            **plain,
            "balanced": self.balanced,
            "types": {str(key): counts.as_dict() for key, counts in self.types.items()},
            "lanes": {str(priority): depth for priority, depth in self.lanes.items()},
            "spilled": {str(priority): depth for priority, depth in self.spilled.items()},
            "waiting": {str(priority): h.as_dict() for priority, h in self.waiting.items()},
            "handling": {str(priority): h.as_dict() for priority, h in self.handling.items()},
            "sources": {name: attrs.asdict(state) for name, state in self.sources.items()},
        }
