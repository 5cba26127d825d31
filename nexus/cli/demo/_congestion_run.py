"""Runs a flood over slow lines: starts the processes, lets them run, and stops them in order."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ._conductor import interruptible
from ._domain import Domain

__all__ = ["WAYS", "Congestion", "Figures", "congest"]

WAYS = ("plain", "link")
"""How a plant and its control are joined; others are ``zmq`` and ``zmq-link``."""
STARTING = 20.0
"""Seconds a process may take to come up."""
ENDING = 90.0
"""Seconds in which everything under way must arrive at the end."""


@attrs.frozen
class Congestion:
    """What is to be done."""

    seconds: float = 10.0
    """How long the flood lasts."""
    rate: float = 2e6
    """Bytes a second that each line carries."""
    target: float = 0.001
    """`LinkLimits.target` of the link."""
    most_window: int = 8192
    """`LinkLimits.most_window` of the link."""
    show_every: float = 0.25
    """Seconds between two pictures."""

    @property
    def warm(self) -> float:
        """Seconds at the begin that no figure counts: the buffers fill."""
        return min(1.0, self.seconds / 4)


@attrs.frozen
class Figures:
    """What became of the events of one way."""

    alarms: int
    """Alarms that the waiting times are of."""
    p50: float
    p99: float
    """Seconds from the making of an alarm at the plant to its handler at control."""
    rate: float
    """Readings a second that control handled during the flood."""
    made: int
    handled: int
    """All events, those made before and handled after included."""
    balanced: bool
    """Whether both ledgers balance, and control handled exactly what the plant made."""


Show = Callable[[float, Mapping[str, Mapping[str, Any]]], None]
"""Shows the seconds that have passed and the newest state of each way."""


async def congest(
    settings: Congestion, ways: Sequence[str] = WAYS, show: Show = lambda seconds, states: None
) -> dict[str, Figures]:
    """Run the flood over each of the ways, all at the same time, each over a line of its own.

    It ends after the time asked for, or with Ctrl-C; then everything under way may arrive.

    Raises:
        DomainLost: one of the processes ended, or would not stop in time; all are gone.
    """
    asked = attrs.asdict(settings)
    async with contextlib.AsyncExitStack() as stack:

        async def start(role: str, **more: Any) -> Domain:
            domain = await Domain.start(role, asked | more)
            stack.push_async_callback(domain.end)
            return domain

        controls = {way: await start("congested-control", way=way) for way in ways}
        ports = {
            way: (await each.wait_for("ready", timeout=STARTING))["port"] for way, each in controls.items()
        }
        line = await start("relay", ports=ports)
        ports = (await line.wait_for("ready", timeout=STARTING))["ports"]
        plants = {way: await start("congested-plant", way=way, port=ports[way]) for way in ways}
        for plant in plants.values():
            await plant.wait_for("ready", timeout=STARTING)
        async with asyncio.TaskGroup() as group:
            sent = {way: _end_of(group, each) for way, each in plants.items()}
            received = {way: _end_of(group, each) for way, each in controls.items()}
            _end_of(group, line)
            for plant in plants.values():
                plant.order("go")
            await _watch(settings, controls, show)
            for plant in plants.values():
                plant.order("stop")
            async with asyncio.timeout(ENDING):
                for way in ways:
                    said = await sent[way]
                    since = said["began"] + settings.warm
                    controls[way].order("drain", made=said["made"], since=since, until=said["ended"])
                for way in ways:
                    await received[way]
            line.order("close")
        return {way: figures_of(sent[way].result(), received[way].result()) for way in ways}


def _end_of(group: asyncio.TaskGroup, domain: Domain) -> asyncio.Task[dict[str, Any]]:
    return group.create_task(domain.wait_for("end", timeout=None), name=f"nexus demo: {domain.role}'s lines")


async def _watch(settings: Congestion, controls: Mapping[str, Domain], show: Show) -> None:
    """Show how it goes until the time is over or Ctrl-C is pressed."""
    began = time.monotonic()
    with interruptible() as interrupted:
        while not interrupted.is_set() and (left := began + settings.seconds - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), min(left, settings.show_every))
            states = {way: each.states[-1] for way, each in controls.items() if each.states}
            if len(states) == len(controls):
                show(min(time.monotonic() - began, settings.seconds), states)


def figures_of(sent: Mapping[str, Any], received: Mapping[str, Any]) -> Figures:
    """Put together what both sides told at their end."""
    made, handled = sum(sent["made"].values()), sum(received["handled"].values())
    return Figures(
        alarms=received["alarms"],
        p50=received["p50"] or 0.0,
        p99=received["p99"] or 0.0,
        rate=received["rate"] or 0.0,
        made=made,
        handled=handled,
        balanced=sent["balanced"]
        and received["balanced"]
        and sent["ingested"] == made
        and received["handled"] == sent["made"],
    )
