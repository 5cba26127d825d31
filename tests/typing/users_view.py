"""What a user's type checker sees; checked in CI, never run."""

from __future__ import annotations

from typing import Any, assert_type

import nexus
from nexus import AsyncEventNexus, Event, EventType, NamedEvent, StopReport, Timer
from nexus.boundaries import AsyncEventBoundary


class OverTemperature(NamedEvent[float]):
    """A named event with a payload."""


READING = EventType[float]("reading")


async def program() -> None:
    """Use the names as a program would."""
    oven = AsyncEventNexus(name="oven")

    @oven.on(OverTemperature, timeout=1.0)
    async def alarm(event: Event[float], queue: nexus.SecondaryQueue) -> None:
        await queue.put(event.reply("seen", type="answer"))

    @oven.on(READING)
    def reading(event: Event[Any]) -> None:
        assert_type(event.priority, int)

    event = OverTemperature(1, 412.0, priority=-1)
    assert_type(event.payload, float)
    assert_type(oven.create_event(7.0, event_type=OverTemperature), OverTemperature)
    assert_type(oven.create_event(7.0, event_type="reading"), Event[float])
    oven.register(Timer(1.0, event_type=READING, type=Timer.ONGOING))
    oven.add_handler("far", AsyncEventBoundary())
    async with oven:
        await oven.ingest(event)
    assert_type(await oven.stop(), StopReport)
