"""Questions over a link, and their answers: in time, late, never, and many at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nexus import AsyncEventNexus, Event, SecondaryQueue
from nexus.boundaries.link import Link, LinkLimits
from nexus.errors import LinkDown, NexusError, QueueFull, ReplyTimeout
from nexus.testing import MemoryWire, virtual_time


class Asked:
    """Two nexuses and a link; the far one answers ``double`` after as many seconds as `slowness`."""

    def __init__(self, limits: LinkLimits | None = None, **near: Any) -> None:
        self.wires = list(MemoryWire.pair(delay=(0.01, 0.01)))
        self.near, self.far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
        self.link = Link.over(self.dial, name="here", limits=limits, **near)
        self.back = Link.over(self.dial, name="there")
        self.near.register(self.link)
        self.far.register(self.back)
        self.slowness = 0.0
        self.seen: list[Any] = []
        self.far.add_handler("double", self.answer, concurrency=100)
        self.near.add_handler("answer", self.seen.append)

    async def dial(self) -> MemoryWire:
        if not self.wires:
            raise ConnectionRefusedError("no more wires")
        return self.wires.pop()

    async def answer(self, event: Event[Any], queue: SecondaryQueue) -> None:
        await asyncio.sleep(self.slowness)
        await queue.put(event.reply(2 * event.payload, type="answer"))


@asynccontextmanager
async def asked(limits: LinkLimits | None = None, **near: Any) -> AsyncIterator[Asked]:
    """Run both."""
    it = Asked(limits, **near)
    async with it.near, it.far:
        await it.link.connected(10)
        yield it


@virtual_time
async def test_a_question_gets_its_answer() -> None:
    """The answer comes back to who asked, once, and to nobody else."""
    async with asked() as it:
        reply = await it.link.request(Event(7, "double", 0, 21))
        assert (reply.type, reply.payload, reply.correlation, reply.route) == ("answer", 42, 7, ())
        await asyncio.sleep(0.1)
        assert it.seen == []
        assert it.link.counts.received == it.back.counts.accepted == 1


@virtual_time
async def test_questions_of_one_id_are_told_apart() -> None:
    """A hundred at once, all with the same id: each gets the answer to what it asked."""
    async with asked() as it:
        it.slowness = 0.1
        replies = await asyncio.gather(*(it.link.request(Event(1, "double", n % 3, n)) for n in range(100)))
        assert [reply.payload for reply in replies] == [2 * n for n in range(100)]


@virtual_time
async def test_no_answer_in_time_is_said() -> None:
    """After the timeout there is an error; the answer that comes later is counted and goes nowhere."""
    async with asked() as it:
        it.slowness = 1.0
        began = asyncio.get_running_loop().time()
        with pytest.raises(ReplyTimeout, match=r"event 7 of type 'double' within 0\.5 s"):
            await it.link.request(Event(7, "double", 0, 1), timeout=0.5)
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.5)
        await asyncio.sleep(1)
        assert it.seen == []
        assert it.link.counts.left_out == {"late": 1}
        assert it.link._requests._waiting == {}


@virtual_time
async def test_a_question_has_the_timeout_as_its_deadline() -> None:
    """What could not be asked in time is not asked later; a nearer deadline stays."""
    async with asked() as it:
        now = asyncio.get_running_loop().time()
        found: list[float | None] = []
        it.far.remove_handler("double")
        it.far.add_handler("double", lambda event: found.append(event.deadline))
        for deadline in (None, now + 0.1):
            with pytest.raises(ReplyTimeout):
                await it.link.request(Event(7, "double", 0, 1, deadline=deadline), timeout=0.5)
        assert found[0] is not None
        assert found[0] - now == pytest.approx(0.5, abs=0.05)
        assert found[1:] == []  # it was over when the second one was asked


@virtual_time
async def test_a_cancelled_question_is_forgotten() -> None:
    """Cancelled, nothing is kept of it."""
    async with asked() as it:
        it.slowness = 0.2
        asking = asyncio.ensure_future(it.link.request(Event(7, "double", 0, 1)))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert it.link._requests._waiting == {}
        await asyncio.sleep(1)
        assert it.link.counts.left_out == {"late": 1}


@virtual_time
async def test_no_more_questions_wait_than_allowed() -> None:
    """One more than `max_requests` is refused at once; the others go on."""
    async with asked(LinkLimits(max_requests=3)) as it:
        it.slowness = 0.2
        asking = [asyncio.ensure_future(it.link.request(Event(n, "double", 0, n))) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="3 requests"):
            await it.link.request(Event(7, "double", 0, 1))
        assert [reply.payload for reply in await asyncio.gather(*asking)] == [0, 2, 4]


@virtual_time
async def test_a_stopped_link_lets_its_questions_fail() -> None:
    """Whoever waits when the link closes learns of it at once."""
    async with asked() as it:
        it.slowness = 100
        asking = asyncio.ensure_future(it.link.request(Event(7, "double", 0, 1), timeout=None))
        await asyncio.sleep(0.1)
        it.link.close()
        with pytest.raises(LinkDown):
            await asking


@virtual_time
async def test_answers_come_in_whatever_else_may() -> None:
    """An end that takes nothing of the other side still gets what it has asked for, and nothing made up."""
    async with asked(accept=[], most_urgent=0) as it:
        assert (await it.link.request(Event(7, "double", -5, 21))).payload == 42
        it.far.add_handler("answer", it.back)
        for route in (("here?0123456789abcdef",), ("here?",), ("here<far#1",)):
            await it.far.ingest(Event(1, "answer", 0, "made up", route=route))
        await it.far.ingest(Event(1, "answer", 0, "made up"))
        await asyncio.sleep(1)
        assert it.seen == []
        assert it.link.counts.received == 1


def test_the_error_is_a_timeout() -> None:
    """Who knows only the errors of Python catches it, too."""
    assert issubclass(ReplyTimeout, TimeoutError)
    assert issubclass(ReplyTimeout, NexusError)
