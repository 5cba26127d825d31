"""Handlers that fail: each event is tried again, dead-lettered with its cause, and stops nobody."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from nexus import AsyncEventNexus, DeadLetter, Event
from nexus.testing import assert_ledger_balanced, run

KINDS: list[Callable[[], BaseException]] = [
    lambda: ValueError("plain"),
    lambda: ExceptionGroup("group", [OSError("a"), KeyError("b")]),
    lambda: KeyError("key"),
    asyncio.CancelledError,
    lambda: SystemExit(1),
    lambda: RecursionError("deep"),
]


async def storm(make: type[AsyncEventNexus], number: int, rng: random.Random) -> dict[str, Any]:
    """Give events of which a tenth fails on every try; return what became of them."""
    tries: Counter[int] = Counter()
    doomed = {place: rng.choice(KINDS)() for place in range(number) if rng.random() < 0.1}
    handled: Counter[int] = Counter()
    letters: dict[int, DeadLetter] = {}

    async def handler(event: Event[Any]) -> None:
        if event.id in doomed:
            tries[event.id] += 1
            raise doomed[event.id]
        handled[event.id] += 1

    nexus = make(rng=rng)
    nexus.add_handler("t", handler, retries=2)
    nexus.add_handler("beside", handler, retries=2, concurrency=4)
    nexus.set_dead_letter_handler(lambda letter: letters.__setitem__(letter.event.id, letter))
    task = nexus.start()
    for first in range(0, number, 1000):
        await nexus.ingest_many(
            Event(place, rng.choice(["t", "beside"]), rng.randint(-2, 2), None)
            for place in range(first, min(number, first + 1000))
        )
        await asyncio.sleep(0)
    await nexus.drained()
    assert not task.done()
    stats = (await nexus.stop()).stats
    assert_ledger_balanced(stats, ingested=number, failed=len(doomed), handled=number - len(doomed))
    assert set(tries.values()) == {3}
    assert handled.keys() == set(range(number)) - doomed.keys()
    assert set(handled.values()) == {1}
    assert letters.keys() == doomed.keys()
    assert all(
        letter.exception is doomed[place] and letter.attempts == 3 for place, letter in letters.items()
    )
    return {
        "offered": number,
        "delivered": len(handled),
        "lost": 0,
        "duplicated": 0,
        "dead_lettered": len(letters),
    }


def test_one_in_ten_fails_and_nothing_stops(form: Any, figures: Any, caplog: Any) -> None:
    """Each failing event is tried three times, then dead-lettered; every other is handled once."""
    caplog.set_level("CRITICAL")
    number = form.size(20_000, 1_000_000)
    figures(**run(storm(AsyncEventNexus, number, random.Random(form.seed))))


class GivesUpEarly(AsyncEventNexus):
    """Forgets the retries."""

    def add_handler(self, type: Any, handler: Any, **options: Any) -> None:
        super().add_handler(type, handler, **{**options, "retries": 1})


class TellsNobody(AsyncEventNexus):
    """Keeps dead letters to itself."""

    def set_dead_letter_handler(self, handler: Any) -> None:
        pass


class HandlesTwice(AsyncEventNexus):
    """Gives some events twice."""

    async def ingest_many(self, events: Any) -> None:
        for event in events:
            await self.ingest(event)
            if event.id % 500 == 0:
                await self.ingest(event)


@pytest.mark.parametrize("mutant", [GivesUpEarly, TellsNobody, HandlesTwice])
def test_broken_supervision_would_be_seen(mutant: type[AsyncEventNexus], caplog: Any) -> None:
    """Each deliberate fault fails the judgement above."""
    caplog.set_level("CRITICAL")
    with pytest.raises(AssertionError):
        run(storm(mutant, 1000, random.Random(1)))
