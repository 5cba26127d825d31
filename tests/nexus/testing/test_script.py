"""Laws of the script."""

import asyncio
from typing import Any

import pytest

from nexus._event import Event
from nexus.errors import NoMoreEvents
from nexus.testing import Script, virtual_time

Played = list[tuple[float, int]]


def event(number: int) -> Event[int]:
    """Make an event of this number."""
    return Event(number, "step", 0, number)


async def play(script: Script) -> Played:
    """Pull all events, with the time of each since the beginning."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    played: Played = []
    while True:
        try:
            pulled = await script.obtain_event()
        except NoMoreEvents:
            return played
        played.append((loop.time() - began, pulled.id))


@virtual_time
async def test_events_come_at_their_times() -> None:
    """Each event comes at its time, equal times in the order of the script; then it is over for good."""
    script = Script([(0.0, event(1)), (1.5, event(2)), (1.5, event(3)), (1.7, event(4))])
    await script.start()
    assert await play(script) == [(0.0, 1), (1.5, 2), (1.5, 3), (1.7, 4)]
    assert await play(script) == []


@virtual_time
async def test_start_plays_again() -> None:
    """Started again, at any point, a script plays from its beginning."""
    script = Script([(1.0, event(1)), (2.0, event(2))])
    await script.start()
    await script.obtain_event()
    for _ in range(2):
        await script.start()
        assert await play(script) == [(1.0, 1), (2.0, 2)]


@virtual_time
async def test_late_pulls_lose_nothing() -> None:
    """Events whose time has passed come at once, in order, and the others at their own times."""
    script = Script([(1.0, event(1)), (2.0, event(2)), (9.0, event(3))])
    await script.start()
    await asyncio.sleep(5)
    assert await play(script) == [(0.0, 1), (0.0, 2), (4.0, 3)]


@virtual_time
async def test_cancelled_pull_loses_nothing() -> None:
    """An event whose pull was cancelled comes with the next pull."""
    script = Script([(10.0, event(1))])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(script.obtain_event(), 3)
    assert await play(script) == [(7.0, 1)]


@virtual_time
async def test_every_makes_events_at_a_rate() -> None:
    """Number i comes at exactly i * interval, made when it is next, without drift."""
    made: list[int] = []

    def make(number: int) -> Event[Any]:
        made.append(number)
        return event(number)

    script = Script.every(0.1, 1000, make)
    await script.start()
    assert made == []
    assert await play(script) == [(number * 0.1, number) for number in range(1000)]
    assert made == list(range(1000))


@virtual_time(start=123.1)
async def test_moments_are_exact() -> None:
    """The clock reads the beginning plus the script's time, to the last bit."""
    loop = asyncio.get_running_loop()
    script = Script.every(0.1, 1000, event)
    await script.start()
    for number in range(1000):
        await script.obtain_event()
        assert loop.time() == 123.1 + number * 0.1
        await asyncio.sleep(0.03)


@virtual_time
async def test_every_may_go_on_for_ever() -> None:
    """Without a count there is always another event, and memory does not grow with it."""
    script = Script.every(3600.0, None, event)
    await script.start()
    for number in range(24):
        assert (await script.obtain_event()).id == number
    assert asyncio.get_running_loop().time() == 23 * 3600.0


@pytest.mark.parametrize("times", [(-1.0,), (2.0, 1.0), (float("nan"),)])
def test_times_ascend_from_zero(times: tuple[float, ...]) -> None:
    """A script that would run backwards is refused."""
    with pytest.raises(ValueError, match="ascend"):
        Script([(moment, event(1)) for moment in times])


@pytest.mark.parametrize(("interval", "count", "word"), [(-1.0, 1, "interval"), (1.0, -1, "count")])
def test_every_checks_its_numbers(interval: float, count: int, word: str) -> None:
    """A negative interval or count is refused."""
    with pytest.raises(ValueError, match=word):
        Script.every(interval, count, event)
