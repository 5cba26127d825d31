"""A bridge at work: receiver, boundary, nexus, boundary, sender, and what it says of itself."""

import asyncio
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import attrs

from nexus import (
    AsyncEventNexus,
    Block,
    DropNewest,
    DropOldest,
    Event,
    LatestByKey,
    SecondaryQueue,
    StopReport,
)
from nexus._stats import LatencyRecorder
from nexus.adapters._backlog import MAX_LANES
from nexus.adapters._base import Receiver, Sender
from nexus.boundaries._pipeline import Source
from nexus.boundaries.outbound import OutboundBoundary, Outgoing
from nexus.cli._bucket import Bucket
from nexus.cli._live import Links, Live, Meter, as_json, by_reason, duration, line_of, until
from nexus.cli._report import as_lines
from nexus.errors import BadCall, ConfigError, LinkDown

__all__ = ["Bridge", "Conversion"]

Compiled = Callable[[Any, Mapping[str, Any]], Any]

LEAST = -MAX_LANES // 2
"""The lowest priority that is told to the sender, and minus it the first that is too high."""

POLICIES: dict[str, Any] = {
    "block": Block(),
    "drop_oldest": DropOldest(),
    "drop_newest": DropNewest(),
    "latest": LatestByKey(key=lambda event: event.headers["key"]),
}


@attrs.frozen(kw_only=True)
class Conversion:
    """What becomes of an item."""

    type: str
    priority: Callable[[Any, Any], int]
    where: Compiled | None
    """None: all are passed on."""
    payload: Compiled | None
    """None: the data itself."""
    topic: Compiled | str | None
    """None: the destination's own, else that of the item."""
    key: Compiled | None
    """What makes two items the same thing; None where it does not matter."""

    def event(
        self, data: Any, meta: Mapping[str, Any], nexus: AsyncEventNexus, *, carries: bool
    ) -> Event[Any] | None:
        """Make an event; None for what is not passed on.

        Args:
            carries: whether the topic of the item is that of the destination.
        """
        if self.where is not None and not self.where(data, meta):
            return None
        headers: dict[str, Any] = {"since": asyncio.get_running_loop().time()}
        if callable(self.topic):
            found = self.topic(data, meta)
            if not isinstance(found, str):
                raise TypeError(f"a topic is a text, and the expression gave {ascii(found)[:100]}")
            headers["topic"] = found
        elif self.topic is not None:
            headers["topic"] = self.topic
        elif carries and "topic" in meta:
            headers["topic"] = meta["topic"]
        if self.key is not None:
            headers["key"] = key = self.key(data, meta)
            if not isinstance(key, Hashable):
                raise TypeError(f"a key is a text or a number, and the expression gave {ascii(key)[:100]}")
        payload = data if self.payload is None else self.payload(data, meta)
        rank = self.priority(data, meta)
        return nexus.create_event(payload, event_type=self.type, priority=rank, headers=headers)


class Destination(OutboundBoundary):
    """Sends at a rate, the most urgent first, and measures how long it took from the source on."""

    def __init__(self, sender: Sender[Any], *, rate: float | None, confirm: bool, concurrency: int) -> None:
        super().__init__(sender, convert=outgoing, confirm=confirm, concurrency=concurrency)
        self.waiting: dict[int, LatencyRecorder] = {}
        self._bucket = None if rate is None else Bucket(rate)

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        if self._bucket is not None:
            await self._bucket.take(event.priority)
        try:
            await super().handle(within_lanes(event), queue)
        except LinkDown:
            if self.sender.is_started:
                raise
            # It is not lost yet: until the stop it stays unsettled, and its source will give it again.
            await asyncio.get_running_loop().create_future()
        self._note(event)

    def handle_nowait(self, event: Event[Any]) -> bool:
        if self._bucket is not None or not super().handle_nowait(within_lanes(event)):
            return False
        self._note(event)
        return True

    def _note(self, event: Event[Any]) -> None:
        recorder = self.waiting.get(event.priority)
        if recorder is None:
            recorder = self.waiting[event.priority] = LatencyRecorder()
        recorder.record(asyncio.get_running_loop().time() - event.headers["since"])


def within_lanes(event: Event[Any]) -> Event[Any]:
    """Bring a priority into the range of those that a sender can hold at once; their order stays."""
    rank = event.priority
    return event if LEAST <= rank < -LEAST else event.evolve(priority=max(LEAST, min(rank, -LEAST - 1)))


def outgoing(event: Event[Any]) -> Outgoing:
    """Return data and options for the sender."""
    headers = event.headers
    return event.payload, {"topic": headers["topic"]} if "topic" in headers else {}


class Bridge:
    """Joins a receiver to a sender.

    Args:
        receiver: to be used by nobody else.
        sender: the same.
        conversion: what becomes of an item.
        policy: what happens when the queue is full.
        rate: events a second; None for no limit.
        maxsize: events of one priority that may wait.
        confirm: whether an event is handled when the destination has it.
        plain: a line a second in place of one that changes.
        as_lines: JSON in place of words.

    Raises:
        ConfigError: a topic is given, and the destination has none or not such ones.
    """

    def __init__(
        self,
        receiver: Receiver[Any],
        sender: Sender[Any],
        conversion: Conversion,
        *,
        policy: str,
        rate: float | None,
        maxsize: int,
        confirm: bool,
        plain: bool,
        as_lines: bool,
    ) -> None:
        has_topics = takes_topic(sender)
        if conversion.topic is not None and not has_topics:
            raise ConfigError(f"--topic: {sender.name} has no topics")
        if isinstance(conversion.topic, str):
            sender._check({"topic": conversion.topic})
        carries = has_topics and not names_topic(sender)
        self.nexus = AsyncEventNexus(name="bridge", maxsize=maxsize)
        self.source = Source(
            receiver, lambda data, meta: conversion.event(data, meta, self.nexus, carries=carries)
        )
        # What is with the sender already cannot be dropped or overtaken: it is no more than the rate needs.
        most = 256 if policy == "block" else 16
        concurrency = most if rate is None else max(1, min(most, math.ceil(rate / 4)))
        self.destination = Destination(sender, rate=rate, confirm=confirm, concurrency=concurrency)
        self.nexus.set_policy(conversion.type, POLICIES[policy])
        self.nexus.add_handler(conversion.type, self.destination)
        self.nexus.register(self.destination)
        self.nexus.register(self.source)
        self._as_lines = as_lines
        self._plain = plain
        self._ticks = 0
        self._over: asyncio.Event | None = None
        self.live = Live(self.status, plain=plain or as_lines, every=self._every)
        self.links = Links(self._link)
        self._in, self._out = Meter(self._now), Meter(self._now)
        self._seen = (0, 0)
        self.source.on_end = lambda source: self._end()
        receiver.on_link(self.links)
        sender.on_link(self.links)

    async def run(self, seconds: float | None, grace: float) -> StopReport:
        """Work until a signal, the end of the source or of the time; then stop within the grace.

        Raises:
            OpenError: something on this machine cannot be opened.
        """
        self._over = asyncio.Event()
        with self.live:
            # What cannot be opened is said at once, and not tried again and again.
            await self.destination.start()
            try:
                await self.source.start()
                self.nexus.start()
                try:
                    async with until(seconds):
                        await self._over.wait()
                        if self.links.failed is None:
                            await self.nexus.drained()
                finally:
                    report = await self._stop(0.0 if self.links.failed else grace)
            finally:
                await self.source.aclose()
                await self.destination.aclose()
        return report

    async def _stop(self, grace: float) -> StopReport:
        """Stop; a further signal makes it short."""
        from nexus.cli._signals import signals

        with signals(lambda: self.nexus.stop(grace=0)):
            if (left := self.nexus.stats().queued) and grace:
                self.live.say(f"stopping, up to {grace:g} s for {left:,} events; once more to stop at once")
            return await self.nexus.stop(grace=grace)

    def status(self) -> str:
        """Write how it goes on one line."""
        stats = self.nexus.stats()
        queued = " ".join(f"[{rank}] {depth:,}" for rank, depth in stats.lanes.items()) or "0"
        parts = [
            f"in {self.taken:,} ({self._in.rates()[0]:,}/s)",
            f"out {stats.handled:,} ({self._out.rates()[0]:,}/s)",
            f"queued {queued}",
        ]
        if self.source.left_out:
            parts.append(f"filtered out {self.source.left_out:,}")
        if stats.failed:
            parts.append(f"failed {stats.failed:,}")
        if drops := self.drops(stats):
            parts.append(f"dropped {by_reason(drops)}")
        if aside := self.aside:
            parts.append(f"put aside {by_reason(aside)}")
        links = (self.source.receiver.link, self.destination.sender.link)
        parts += ["links " + ", ".join(line_of(link.state) for link in links), f"took {self._times()}"]
        return ", ".join(parts)

    def as_object(self, *, final: bool) -> dict[str, Any]:
        """Return how it goes, ready for JSON."""
        stats = self.nexus.stats()
        links = (self.source.receiver.link, self.destination.sender.link)
        return {
            "final": final,
            "in": self.taken,
            "filtered_out": self.source.left_out,
            "put_aside": dict(self.aside),
            "ingested": stats.ingested,
            "handled": stats.handled,
            "failed": stats.failed,
            "queued": {str(rank): depth for rank, depth in stats.lanes.items()},
            "dropped": self.drops(stats),
            "took": {
                str(rank): each.snapshot().as_dict()
                for rank, each in sorted(self.destination.waiting.items())
            },
            "links": [attrs.asdict(link) for link in links],
        }

    def final(self, report: StopReport) -> str:
        """Write the account at the end."""
        if self._as_lines:
            more = {
                "clean": report.clean,
                "balanced": self.is_balanced(report),
                "not_passed_on": self.held(report),
            }
            return as_json({**self.as_object(final=True), "remaining": len(report.remaining), **more})
        aside = sum(self.aside.values())
        lines = [
            f"in {self.taken:,} = filtered out {self.source.left_out:,} + put aside {aside:,} "
            f"+ ingested {report.stats.ingested:,} + not passed on {self.held(report):,}",
            as_lines(report),
        ]
        for rank, each in sorted(self.destination.waiting.items()):
            times = each.snapshot()
            p50, p99 = duration(times.percentile(50)), duration(times.percentile(99))
            lines.append(f"priority {rank}: {times.count:,} sent, took {p50} p50, {p99} p99")
        lines += [f"put aside {by_reason(self.aside)}"] if aside else []
        for name, half in (("source", self.source.receiver), ("destination", self.destination.sender)):
            if any(half.counts.dropped.values()):
                lines.append(f"dropped by the {name}: {by_reason(half.counts.dropped)}")
        refused = {reason: n for reason, n in self.source.receiver.counts.bad.items() if reason != "unpack"}
        lines += [f"refused by the source: {by_reason(refused)}"] if refused else []
        lines += [f"link failed: {line_of(self.links.failed)}"] if self.links.failed else []
        return "\n".join(lines)

    @property
    def taken(self) -> int:
        """Items and bad frames that came from the source."""
        return self.source.receiver.counts.items + self.source.quarantined.get("unpack", 0)

    @property
    def aside(self) -> Mapping[str, int]:
        """Items put aside, by reason."""
        return self.source.quarantined

    def held(self, report: StopReport) -> int:
        """Count the items that had come, and were no events of the nexus yet when it stopped."""
        settled = self.source.left_out + sum(self.aside.values()) + report.stats.ingested
        return self.taken - settled

    def is_balanced(self, report: StopReport) -> bool:
        """Say whether everything that came in is accounted for."""
        return report.stats.balanced and self.held(report) >= 0

    @staticmethod
    def drops(stats: Any) -> dict[str, int]:
        """Count what policies dropped, by reason."""
        found: dict[str, int] = {}
        for counts in stats.types.values():
            for reason, count in counts.drops.items():
                found[reason] = found.get(reason, 0) + count
        return found

    def _times(self) -> str:
        times = [
            f"[{rank}] {duration(found.percentile(50))} p50 {duration(found.percentile(99))} p99"
            for rank, each in sorted(self.destination.waiting.items())
            if (found := each.snapshot())
        ]
        return " ".join(times[:4]) or "-"

    def _every(self) -> None:
        handled = sum(each.count for each in self.destination.waiting.values())
        self._in.add(self.taken - self._seen[0], 0)
        self._out.add(handled - self._seen[1], 0)
        self._seen = (self.taken, handled)
        self._ticks += 1
        if self._ticks % 4 == 0 and not self.live.in_place:
            if self._as_lines:
                self.live.print([as_json(self.as_object(final=False))])
            else:
                self.live.say(self.status())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _link(self, text: str) -> None:
        self.live.say(text)
        if self.links.failed is not None:
            self._end()

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()


def takes_topic(sender: Sender[Any]) -> bool:
    """Say whether a sender takes a topic with each item."""
    try:
        sender._check({"topic": "a"})
    except BadCall:
        return False
    except ConfigError:
        return True
    return True


def names_topic(sender: Sender[Any]) -> bool:
    """Say whether the sender's config names a topic of its own."""
    config = getattr(sender, "config", None)
    if config is None or "topic" not in attrs.fields_dict(type(config)):
        return False
    default = attrs.fields_dict(type(config))["topic"].default
    return bool(config.topic != default)
