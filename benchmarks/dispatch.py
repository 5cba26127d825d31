"""How many events a second go from hand to handler."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import process_time
from typing import Any

from benchmarks import peers
from benchmarks._harness import OURS, Contest, Outcome, Target
from nexus import AsyncEventNexus, Event

Drive = Callable[[int, Sequence[Any]], Awaitable[float]]
HUNDRED = tuple(f"reading-{n}" for n in range(100))
LOT = 1000
PROOF = 200


async def _one_at_a_time(
    count: int,
    handlers: Sequence[Any],
    *,
    types: Sequence[str] = ("reading",),
    multiple: bool = False,
) -> float:
    events = [Event(n, types[n % len(types)], 0, 1.0) for n in range(count)]
    nexus = _nexus(handlers, types, multiple=multiple)
    ingest = nexus.ingest
    async with nexus:
        start = process_time()
        for event in events:
            await ingest(event)
        await nexus.drained()
        seconds = process_time() - start
    _prove(nexus, count)
    return seconds


async def _in_lots(count: int, handlers: Sequence[Any]) -> float:
    events = [Event(n, "reading", 0, 1.0) for n in range(count)]
    lots = [events[first : first + LOT] for first in range(0, count, LOT)]
    nexus = _nexus(handlers, ("reading",), multiple=False)
    ingest_many = nexus.ingest_many
    async with nexus:
        start = process_time()
        for lot in lots:
            await ingest_many(lot)
        await nexus.drained()
        seconds = process_time() - start
    _prove(nexus, count)
    return seconds


def _nexus(handlers: Sequence[Any], types: Sequence[str], *, multiple: bool) -> AsyncEventNexus:
    nexus = AsyncEventNexus(multiple=multiple)
    for type_ in types:
        for handler in handlers:
            nexus.add_handler(type_, handler)
    return nexus


def _prove(nexus: AsyncEventNexus, count: int) -> None:
    stats = nexus.stats()
    if not stats.balanced or stats.handled != count:
        raise AssertionError(f"{count} events ingested, but the ledger says {stats.as_dict()}")


def _rate(
    drive: Drive, *, handlers: int = 1, plain: bool = False, ours: bool = False, share: float = 1.0
) -> Any:
    """Return a contestant: events a second by `drive`, over `share` of the events where it is slow."""

    def contestant(events: int) -> Outcome:
        # Fewer events for the slow ones; the rate is the figure, not the time.
        count = max(PROOF, int(events * share))
        return asyncio.run(_timed(drive, count, handlers=handlers, plain=plain, ours=ours))

    return contestant


async def _timed(drive: Drive, count: int, *, handlers: int, plain: bool, ours: bool) -> Outcome:
    calls = 0

    # A function each: some peers hold a handler once however often it is registered.
    def counting() -> Any:
        async def count_async(event: object, queue: object = None) -> None:
            nonlocal calls
            calls += 1

        def count_plain(event: object, queue: object = None) -> None:
            nonlocal calls
            calls += 1

        return count_plain if plain else count_async

    # Held here while it runs: some peers keep only weak references.
    proving = [counting() for _ in range(handlers)]
    await drive(PROOF, proving)
    if calls != PROOF * handlers:
        raise AssertionError(f"{PROOF} events for {handlers} handlers made {calls} calls")
    gc.collect()
    timed = _timed_handlers(handlers, plain=plain)
    seconds = await drive(count, timed)
    return Outcome({"rate": count / seconds}, balanced=True if ours else None)


def _timed_handlers(count: int, *, plain: bool) -> list[Any]:
    def fresh() -> Any:
        async def handle_async(event: object, queue: object = None) -> None: ...

        def handle_plain(event: object, queue: object = None) -> None: ...

        return handle_plain if plain else handle_async

    return [fresh() for _ in range(count)]


_UNIT = {"rate": "events/s"}
_FULL = {"events": 200_000}
_QUICK = {"events": 500}
_QUEUE = "asyncio.PriorityQueue loop"
_BARE = "floor: bare await handler(event)"

ONE = Contest(
    name="dispatch.one",
    title="one async handler, `await nexus.ingest(event)` an event, until the last is handled",
    figures=_UNIT,
    contestants={
        OURS: _rate(_one_at_a_time, ours=True),
        "async-nexus": _rate(peers.async_nexus),
        _QUEUE: _rate(peers.priority_queue),
        f"{_QUEUE}, maxsize 64": _rate(partial(peers.priority_queue, maxsize=64)),
        "blinker": _rate(peers.blinker_async),
        "pyee": _rate(peers.pyee_async, share=0.25),
        "psygnal": _rate(peers.psygnal_async, share=0.25),
        "reactivex": _rate(peers.reactivex_async, share=0.05),
        "bubus": _rate(peers.bubus, share=0.002),
        "pyventus": _rate(peers.pyventus, share=0.1),
        _BARE: _rate(peers.bare_await),
    },
    full=_FULL,
    quick=_QUICK,
    targets=(Target(OURS, "async-nexus", at_least=4), Target(OURS, _QUEUE, at_least=2.4)),
)

TEN = Contest(
    name="dispatch.ten",
    title="ten async handlers of one type: `multiple=True`, against an EventFanout of ten",
    figures=_UNIT,
    contestants={
        OURS: _rate(partial(_one_at_a_time, multiple=True), handlers=10, ours=True, share=0.5),
        "async-nexus": _rate(peers.async_nexus, handlers=10, share=0.05),
        "blinker": _rate(peers.blinker_async, handlers=10, share=0.25),
        "pyee": _rate(peers.pyee_async, handlers=10, share=0.05),
        _BARE: _rate(peers.bare_await, handlers=10, share=0.5),
    },
    full=_FULL,
    quick=_QUICK,
    targets=(Target(OURS, "async-nexus", at_least=28),),
)

TYPES = Contest(
    name="dispatch.types",
    title="events of 100 types in turn, each with a handler, against events of one type",
    figures=_UNIT,
    contestants={
        "100 types": _rate(partial(_one_at_a_time, types=HUNDRED), ours=True),
        "1 type": _rate(_one_at_a_time, ours=True),
    },
    full=_FULL,
    quick=_QUICK,
    targets=(Target("100 types", "1 type", at_least=0.9),),
)

MANY = Contest(
    name="dispatch.many",
    title=f"`ingest_many` of lots of {LOT}, against `ingest` one at a time",
    figures=_UNIT,
    contestants={
        "ingest_many": _rate(_in_lots, ours=True),
        "ingest": _rate(_one_at_a_time, ours=True),
    },
    full=_FULL,
    quick=_QUICK,
    targets=(Target("ingest_many", "ingest", at_least=1.25),),
)

PLAIN = Contest(
    name="dispatch.plain",
    title="a plain function as the handler, against an async one",
    figures=_UNIT,
    contestants={
        "ingest, plain": _rate(_one_at_a_time, plain=True, ours=True),
        "ingest, async": _rate(_one_at_a_time, ours=True),
        "ingest_many, plain": _rate(_in_lots, plain=True, ours=True),
        "ingest_many, async": _rate(_in_lots, ours=True),
        "blinker": _rate(peers.blinker_plain, plain=True),
        "pyee": _rate(peers.pyee_plain, plain=True),
        "psygnal": _rate(peers.psygnal_plain, plain=True),
        "reactivex": _rate(peers.reactivex_plain, plain=True),
        "floor: bare handler(event)": _rate(peers.bare_call, plain=True),
    },
    full=_FULL,
    quick=_QUICK,
    targets=(
        Target("ingest, plain", "ingest, async", at_least=1.3),
        Target("ingest_many, plain", "ingest_many, async", at_least=1.3),
    ),
)

CONTESTS = (ONE, TEN, TYPES, MANY, PLAIN)
