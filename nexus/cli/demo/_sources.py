"""The plant's sources: the machine's figures as readings, limits and tests as alarms, a heartbeat."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator

import attrs

import nexus

from ._events import Alarm, DemoEvent, Heartbeat, MachineReading, ProcessReading
from ._machine import Figure, Machine, Processes

__all__ = ["AlarmTest", "Beat", "Limits", "MachineReadings", "Maker", "ProcessReadings"]

SWEEP = 0.1
"""Seconds between two sweeps of the machine's figures."""
TEST = 0.02
"""Seconds between two tests of the alarm line."""
BEAT = 0.1
"""Seconds between two heartbeats."""
SLICE = 0.002
"""Seconds that the flood sleeps when it is ahead of its rate."""


@attrs.define
class Limits:
    """Tells when a figure goes over its limit: once, until it was well below."""

    limits: dict[str, tuple[float, float]] = attrs.field(
        factory=lambda: {"busy": (90.0, 70.0), "memory.percent": (90.0, 85.0)}
    )
    """By the end of the figure's name: over the first it is an alarm, below the second it may be one again.
    """
    _over: set[str] = attrs.field(factory=set, init=False)

    def crossed(self, figure: Figure) -> bool:
        """Say whether this figure has just gone over its limit."""
        name, value = figure
        for end, (limit, clear) in self.limits.items():
            if name.endswith(end):
                if value > limit and name not in self._over:
                    self._over.add(name)
                    return True
                if value < clear:
                    self._over.discard(name)
        return False


@attrs.frozen
class Maker:
    """Makes the plant's events, and counts them apart from the nexus's ledger."""

    factory: nexus.EventFactory
    made: Counter[str] = attrs.field(factory=Counter)
    """Events made, by type."""

    def make(self, kind: type[DemoEvent], figure: str, value: float, **more: object) -> DemoEvent:
        """Make an event that says one figure, created now."""
        self.made[kind.event_type] += 1
        payload = {"figure": figure, "value": value, "created": time.monotonic(), **more}
        return self.factory.create_event(payload, event_type=kind, priority=kind.urgency)


class MachineReadings(nexus.EventConverter):
    """Every figure of the machine, twenty times a second; alarms where one crosses its limit."""

    def __init__(self, maker: Maker) -> None:
        super().__init__()
        self.maker = maker

    async def event_generator(self) -> AsyncGenerator[DemoEvent, None]:
        make = self.maker.make
        machine, limits, loop = Machine(), Limits(), asyncio.get_running_loop()
        due = loop.time()
        while True:
            for figure in machine.sweep():
                if limits.crossed(figure):
                    yield make(Alarm, *figure, why="over its limit")
                yield make(MachineReading, *figure)
            due = max(due + SWEEP, loop.time())
            await asyncio.sleep(due - loop.time())


class ProcessReadings(nexus.EventConverter):
    """Every figure of every process, round and round: as many a second as asked for, or as the machine gives.

    Args:
        maker: makes the events.
        processes: where they are read.
        rate: readings a second to aim at.
        rng: shuffles the figures of a process.
    """

    def __init__(self, maker: Maker, *, processes: Processes, rate: float, rng: random.Random) -> None:
        super().__init__()
        self.maker = maker
        self.processes = processes
        self.rate = rate
        self.rng = rng

    async def event_generator(self) -> AsyncGenerator[DemoEvent, None]:
        make = self.maker.make
        limits, begin, count = Limits(), time.monotonic(), 0
        while True:
            for process in self.processes.round():
                figures = list(process.figures)
                self.rng.shuffle(figures)
                for figure in figures:
                    if limits.crossed(figure):
                        yield make(Alarm, *figure, why=f"{process.name} is over its limit")
                    yield make(ProcessReading, *figure)
                count += len(figures)
                # What could not be read in time is not made up for: the flood stays near its rate.
                begin = max(begin, time.monotonic() - count / self.rate - 0.1)
                ahead = begin + count / self.rate - time.monotonic()
                await asyncio.sleep(max(ahead, SLICE) if ahead > 0 else 0)


class AlarmTest(nexus.Timer):
    """Tests the alarm line: fifty times a second the busiest process counts as an alarm."""

    def __init__(self, maker: Maker, processes: Processes) -> None:
        super().__init__(TEST, event_type=Alarm, type=nexus.Timer.ONGOING)
        self.maker = maker
        self.processes = processes

    def create_event(self, value: int) -> DemoEvent:
        make, hottest = self.maker.make, self.processes.hottest
        if hottest is None:
            return make(Alarm, "none.busy", 0.0, why="test: no process was read yet")
        return make(Alarm, f"{hottest.pid}.busy", hottest.busy, why=f"test: {hottest.name} is the busiest")


class Beat(nexus.Timer):
    """Says ten times a second that the plant is alive."""

    def __init__(self, maker: Maker) -> None:
        super().__init__(BEAT, event_type=Heartbeat, type=nexus.Timer.ONGOING)
        self.maker = maker

    def create_event(self, value: int) -> DemoEvent:
        return self.maker.make(Heartbeat, "beat", value)
