"""`on_settled`: told once, whatever the end of an event's story, and not at all while it has none."""

import asyncio
from typing import Any

import pytest

from nexus import AsyncEventNexus, DropNewest, DropOldest, Event, LatestByKey, OverloadPolicy
from nexus.testing import virtual_time


class Stories:
    """Events that tell how they ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, str]] = []

    def event(self, number: int, type: str = "t", **metadata: Any) -> Event[int]:
        tell = lambda outcome: self.ends.append((number, outcome))  # noqa: E731
        return Event(number, type, 0, number, on_settled=tell, **metadata)


def fail(event: Event[Any]) -> None:
    raise ValueError(event.payload)


@pytest.mark.parametrize(
    "options", [{}, {"concurrency": 2}, {"timeout": 1.0}, {"retries": 2, "retry_delay": 0.1}]
)
@virtual_time
async def test_handled_and_failed_are_told(options: dict[str, Any]) -> None:
    """Each way to run a handler tells ``handled`` and ``failed``, when the last handler has ended."""
    stories, seen = Stories(), []

    async def handle(event: Event[Any]) -> None:
        await asyncio.sleep(0.1)
        seen.append(list(stories.ends))

    async with AsyncEventNexus() as nexus:
        nexus.add_handler("t", handle, **options)
        nexus.add_handler("bad", fail, **options)
        await nexus.ingest(stories.event(1))
        await nexus.ingest(stories.event(2, "bad"))
        await nexus.drained()
    assert seen == [[]] or (2, "failed") in seen[0]
    assert sorted(stories.ends) == [(1, "handled"), (2, "failed")]


@virtual_time
async def test_other_ends_are_told() -> None:
    """``unhandled``, ``expired`` and what a filter consumes are told too."""
    stories = Stories()
    async with AsyncEventNexus() as nexus:
        nexus.add_handler("late", lambda event: None)
        nexus.add_filter(lambda event: event.type == "eaten")
        await nexus.ingest(stories.event(1, "unknown"))
        await nexus.ingest(stories.event(2, "late", deadline=-1.0))
        await nexus.ingest(stories.event(3, "eaten"))
        await nexus.drained()
    assert stories.ends == [(1, "unhandled"), (2, "expired"), (3, "handled")]


@pytest.mark.parametrize("policy", [DropOldest(), DropNewest(), LatestByKey()])
@virtual_time
async def test_what_a_policy_drops_is_told(policy: OverloadPolicy) -> None:
    """Each event ends once: handled or dropped."""
    stories = Stories()
    async with AsyncEventNexus(maxsize=3) as nexus:
        nexus.set_policy("t", policy)
        nexus.add_handler("t", lambda event: asyncio.sleep(0.01))
        for number in range(10):
            nexus.ingest_nowait(stories.event(number))
        await nexus.drained()
        counts = nexus.stats().types["t"]
    assert sorted(number for number, _ in stories.ends) == list(range(10))
    assert [end for _, end in stories.ends].count("dropped") == sum(counts.drops.values()) > 0


@virtual_time
async def test_what_remains_at_a_stop_is_not_told() -> None:
    """An event that is given back at a stop has not ended."""
    stories = Stories()
    nexus = AsyncEventNexus(grace=0.05)
    nexus.add_handler("t", lambda event: asyncio.sleep(10))
    nexus.start()
    await nexus.ingest(stories.event(1))
    await nexus.ingest(stories.event(2))
    report = await nexus.stop()
    assert len(report.remaining) == 2
    assert stories.ends == []


@virtual_time
async def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What `on_settled` raises is logged, and the next event is handled."""
    done: list[int] = []
    async with AsyncEventNexus() as nexus:
        nexus.add_handler("t", lambda event: done.append(event.id))
        await nexus.ingest(Event(1, "t", 0, None, on_settled=lambda outcome: 1 / 0))
        await nexus.ingest(Event(2, "t", 0, None))
        await nexus.drained()
    assert done == [1, 2]
    assert "on_settled of event 1" in caplog.text
