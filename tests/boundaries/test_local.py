"""The laws of the local boundary."""

import asyncio
from typing import Any

import pytest

from nexus import AsyncEventNexus, Block, DropOldest, Event, SecondaryQueue
from nexus.boundaries import AsyncEventBoundary
from nexus.errors import BadCall, LinkDown, MultipleStart, ReplyTimeout
from nexus.testing import Recorder, virtual_time


def joined(a: AsyncEventNexus, b: AsyncEventNexus, *types: str) -> AsyncEventBoundary:
    """Join two nexuses for some types."""
    boundary = AsyncEventBoundary()
    for type_ in types:
        a.add_handler(type_, boundary)
    b.add_producer(boundary)
    return boundary


@virtual_time
async def test_an_event_passes_with_its_four_fields() -> None:
    """What one domain gives, another handles, unchanged."""
    a, b, recorder = AsyncEventNexus(), AsyncEventNexus(), Recorder()
    joined(a, b, "x")
    b.add_handler("x", recorder)
    async with b, a:
        await a.ingest(Event(7, "x", -3, "hot"))
        await a.drained()
        await b.drained()
    assert list(recorder.events) == [Event(7, "x", -3, "hot")]
    assert a.stats().balanced
    assert b.stats().balanced


@virtual_time
async def test_a_reply_comes_back_over_two_boundaries() -> None:
    """A reply finds the nexus that asked, however many domains lie between."""
    a, b, c = (AsyncEventNexus(name=n) for n in "abc")
    joined(a, b, "ask")
    joined(b, c, "ask")
    answers: list[Event[object]] = []

    async def answer(event: Event[object], queue: object) -> None:
        await queue.put(event.reply(f"{event.payload}!", type="answer"))  # type: ignore[attr-defined]

    c.add_handler("ask", answer)
    a.add_handler("answer", answers.append)
    b.add_handler("answer", lambda event: pytest.fail("it stopped halfway"))
    async with c, b, a:
        await a.ingest(Event(1, "ask", 0, "who"))
        await asyncio.sleep(1)
    assert [(e.payload, e.correlation) for e in answers] == [("who!", 1)]
    assert all(n.stats().balanced for n in (a, b, c))


@virtual_time
async def test_events_do_not_go_round_in_circles() -> None:
    """Two domains joined both ways for one type pass each event once."""
    a, b = AsyncEventNexus(multiple=True), AsyncEventNexus(multiple=True)
    there, back = joined(a, b, "x"), joined(b, a, "x")
    seen: list[str] = []
    a.add_handler("x", lambda event: seen.append("a"))
    b.add_handler("x", lambda event: seen.append("b"))
    async with a, b:
        await a.ingest(Event(1, "x", 0, None))
        await asyncio.sleep(10)
    assert sorted(seen) == ["a", "b"]
    assert (there.passed, back.passed, back.returning) == (1, 0, 1)


@virtual_time
async def test_an_urgent_event_passes_a_full_lane() -> None:
    """Ordinary events that find no room on the far side do not hold up an urgent one."""
    a, b = AsyncEventNexus(), AsyncEventNexus(maxsize=2)
    joined(a, b, "bulk", "urgent")
    seen: list[object] = []

    async def slow(event: Event[object]) -> None:
        seen.append(event.type)
        await asyncio.sleep(1)

    b.add_handler("bulk", slow)
    b.add_handler("urgent", lambda event: seen.append(event.type))
    async with b, a:
        await a.ingest_many(Event(n, "bulk", 0, None) for n in range(20))
        await asyncio.sleep(0.5)
        await a.ingest(Event(99, "urgent", -1, None))
        await asyncio.sleep(1)
        assert seen.index("urgent") <= 2
        await a.drained()
        await b.drained()
    assert seen.count("bulk") == 20


@virtual_time
async def test_back_pressure_reaches_the_first_domain() -> None:
    """A slow handler beyond the boundary stops the giver on the near side; nothing piles up between."""
    a, b = AsyncEventNexus(maxsize=5), AsyncEventNexus(maxsize=3)
    joined(a, b, "x")

    async def slow(event: Event[object]) -> None:
        await asyncio.sleep(1)

    b.add_handler("x", slow)
    async with b, a:
        giving = asyncio.ensure_future(a.ingest_many(Event(n, "x", 0, None) for n in range(50)))
        await asyncio.sleep(0.5)
        assert a.stats().ingested <= 5 + 3 + 1 + 1 + 1
        assert not giving.done()
        await giving
        await a.drained()
        await b.drained()
    assert b.stats().handled == 50


@virtual_time
async def test_a_policy_works_at_the_edge() -> None:
    """The policy of the sending nexus drops events that wait at the boundary, and counts them."""
    a, b = AsyncEventNexus(maxsize=4), AsyncEventNexus(maxsize=1)
    joined(a, b, "x")
    a.set_policy("x", DropOldest())
    b.set_policy("x", Block())
    seen: list[object] = []

    async def slow(event: Event[object]) -> None:
        seen.append(event.payload)
        await asyncio.sleep(1)

    b.add_handler("x", slow)
    async with b, a:
        for n in range(100):
            await a.ingest(Event(n, "x", 0, n))
            await asyncio.sleep(0.001)
        await a.drained()
        await b.drained()
    assert seen[-4:] == [96, 97, 98, 99]
    assert a.stats().types["x"].drops == {"drop_oldest": 100 - len(seen)}
    assert a.stats().balanced


@virtual_time
async def test_a_closed_boundary_loses_nothing_silently() -> None:
    """Events that come after the close fail in their nexus and are counted there."""
    a, b = AsyncEventNexus(), AsyncEventNexus()
    boundary = joined(a, b, "x")
    async with a:
        async with b:
            await a.ingest(Event(1, "x", 0, None))
            await a.drained()
        await a.ingest(Event(2, "x", 0, None))
        await a.drained()
    assert (b.stats().ingested, a.stats().handled, a.stats().failed) == (1, 1, 1)
    assert isinstance(a.dead_letters[0].exception, BadCall)
    boundary.close()


@virtual_time
async def test_stopping_while_events_wait_keeps_them() -> None:
    """A near domain that stops while the far one is full reports what could not pass."""
    a, b = AsyncEventNexus(grace=1), AsyncEventNexus(maxsize=2, grace=0)
    joined(a, b, "x")

    async def stuck(event: Event[object]) -> None:
        await asyncio.sleep(1000)

    b.add_handler("x", stuck)
    async with b:
        async with a:
            await a.ingest_many(Event(n, "x", 0, n) for n in range(10))
        near = await a.stop()
    far = await b.stop()
    assert sorted(e.id for e in (*near.remaining, *far.remaining)) == list(range(10))


@virtual_time
async def test_it_starts_once_and_again_after_a_close() -> None:
    """A second start of an open boundary is an error; after a close it opens again."""
    b = AsyncEventNexus()
    boundary = AsyncEventBoundary()
    boundary.register_nexus(b)
    task = await boundary.start()
    with pytest.raises(MultipleStart):
        await boundary.start()
    await boundary.aclose()
    assert task.done()
    await boundary.start()
    await boundary.aclose()


@virtual_time
async def test_a_request_gets_its_answer() -> None:
    """Whoever asks over a boundary gets the answer and nobody else, at once or not in time."""
    a, b = AsyncEventNexus(name="a"), AsyncEventNexus(name="b")
    boundary = joined(a, b)
    slowness = 0.0

    async def answer(event: Event[Any], queue: SecondaryQueue) -> None:
        await asyncio.sleep(slowness)
        await queue.put(event.reply(2 * event.payload, type="answer"))

    b.add_handler("double", answer, concurrency=100)
    async with b, a:
        asked = [boundary.request(Event(1, "double", 0, number)) for number in range(50)]
        assert [reply.payload for reply in await asyncio.gather(*asked)] == [2 * n for n in range(50)]
        slowness = 1.0
        with pytest.raises(ReplyTimeout):
            await boundary.request(Event(1, "double", 0, 1), timeout=0.5)
        asking = asyncio.ensure_future(boundary.request(Event(1, "double", 0, 1), timeout=None))
        await asyncio.sleep(0.1)
        boundary.close()
        with pytest.raises(LinkDown):
            await asking
        assert b._reply_ways == {}
    assert b.stats().balanced
