"""The backlog: urgent first, order within a priority, bounds, and nothing lost between taken and done."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nexus.adapters._backlog import Backlog, OutItem, SendOverflow
from nexus.errors import BadCall, LinkDown, QueueFull
from nexus.testing import virtual_time


def item(number: int, priority: int = 0) -> OutItem:
    """Make a frame of eight bytes."""
    return OutItem(number.to_bytes(8, "big"), priority, {})


class OutboxMachine(RuleBasedStateMachine):
    """Offers, takes, confirmations and broken links in any order, against plain lists."""

    overflow: SendOverflow = "block"

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(3, overflow=self.overflow)
        self.waiting: list[OutItem] = []
        self.taken: list[OutItem] = []
        self.number = self.refused = self.rejected = 0

    @rule(priority=st.integers(-1, 1))
    def offer(self, priority: int) -> None:
        new = item(self.number, priority)
        self.number += 1
        before = dict(self.backlog.dropped)
        if not self.backlog.offer(new):
            self.refused += 1
            return
        if self.backlog.dropped.get("drop_oldest", 0) > before.get("drop_oldest", 0):
            self.waiting.remove(next(each for each in self.waiting if each.priority == priority))
        if self.backlog.dropped.get("drop_newest", 0) == before.get("drop_newest", 0):
            self.waiting.append(new)
            self.waiting.sort(key=lambda each: each.priority)

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        got = self.backlog.take(count)
        assert got == self.waiting[:count]
        self.taken += got
        del self.waiting[:count]

    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        if self.taken:
            self.backlog.done(self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1))))

    @rule(count=st.integers(0, 4))
    def done_all(self, count: int) -> None:
        self.backlog.done_all(self.taken[:count])
        del self.taken[:count]

    @rule()
    def reject(self) -> None:
        if self.taken:
            self.rejected += 1
            self.backlog.reject(self.taken.pop(0), "no good")

    @rule()
    def link_breaks(self) -> None:
        self.backlog.put_back(self.taken)
        self.waiting = sorted(self.taken + self.waiting, key=lambda each: each.priority)
        self.taken = []

    @invariant()
    def account_is_exact(self) -> None:
        backlog = self.backlog
        assert len(backlog) == len(self.waiting) + len(self.taken)
        for priority in (-1, 0, 1):
            assert sum(each.priority == priority for each in self.waiting + self.taken) <= 3
        assert backlog.waiting == len(self.waiting)
        assert self.number == self.refused + backlog.done_count + sum(backlog.dropped.values()) + len(backlog)


class DropOldest(OutboxMachine):
    overflow = "drop_oldest"


class DropNewest(OutboxMachine):
    overflow = "drop_newest"


TestBlock = OutboxMachine.TestCase
TestDropOldest = DropOldest.TestCase
TestDropNewest = DropNewest.TestCase


@virtual_time
async def test_those_who_wait_get_room_in_their_order() -> None:
    """Senders of a full backlog wait, each in its place, and a cancelled one gives its place up."""
    backlog = Backlog(1)
    backlog.offer(item(0))
    senders = [asyncio.ensure_future(backlog.put(item(number))) for number in range(1, 6)]
    await asyncio.sleep(0)
    senders[2].cancel()
    gone: list[int] = []
    while len(gone) < 5:
        await backlog.wait()
        for each in backlog.take():
            gone.append(int.from_bytes(each.payload, "big"))
            backlog.done(each)
        await asyncio.sleep(0)
    assert gone == [0, 1, 2, 4, 5]
    await asyncio.wait(senders)


@virtual_time
async def test_a_full_lane_is_in_nobody_elses_way() -> None:
    """An urgent frame finds room, and goes first, though ordinary ones fill their lane and wait for room."""
    backlog = Backlog(1)
    backlog.offer(item(0))
    bulk = asyncio.ensure_future(backlog.put(item(1)))
    await asyncio.sleep(0)
    await backlog.put(item(2, -1))
    assert [int.from_bytes(each.payload, "big") for each in backlog.take(2)] == [2, 0]
    bulk.cancel()
    await asyncio.wait([bulk])


def test_priorities_are_bounded() -> None:
    """A flood of priorities is refused; those of which nothing waits any more give way."""
    backlog = Backlog(1)
    for priority in range(64):
        backlog.offer(item(0, priority))
    with pytest.raises(BadCall, match="64 priorities"):
        backlog.offer(item(0, 64))
    backlog.done(backlog.take()[0])
    assert backlog.offer(item(0, 64))


@virtual_time
async def test_a_full_outbox_may_fail() -> None:
    """With ``fail`` there is an error instead of a wait."""
    backlog = Backlog(1, overflow="fail")
    backlog.offer(item(0))
    with pytest.raises(QueueFull, match="1 frames wait to be sent, 1 are allowed"):
        await backlog.put(item(1))


@virtual_time
async def test_closing_tells_everybody() -> None:
    """At the close, waiting senders get the error, drops are counted, and whoever waits for a frame knows."""
    backlog = Backlog(1)
    first = item(0)
    first.confirmed = asyncio.get_running_loop().create_future()
    backlog.offer(first)
    late = asyncio.ensure_future(backlog.put(item(1)))
    empty = asyncio.ensure_future(backlog.emptied())
    await asyncio.sleep(0)
    assert backlog.close(LinkDown("gone"), "failed") == 1
    await empty
    with pytest.raises(LinkDown, match="gone"):
        await late
    assert await first.confirmed is False
    assert backlog.dropped == {"failed": 1}


@virtual_time
async def test_a_backlog_goes_at_its_rate() -> None:
    """What waited when the link came up goes in portions, no faster than asked; then all goes at once."""
    backlog = Backlog(10_000)
    loop = asyncio.get_running_loop()
    for number in range(1000):
        backlog.offer(item(number))
    began = loop.time()
    backlog.catch_up(2000)
    sizes = []
    while backlog.waiting:
        await backlog.wait()
        sizes.append(len(taken := backlog.take(10_000)))
        for each in taken:
            backlog.done(each)
        assert backlog.done_count <= 2000 * (loop.time() - began) + 1e-6
    assert loop.time() - began == pytest.approx(0.5)
    assert max(sizes) == 20
    for number in range(1000):
        backlog.offer(item(number))
    await backlog.wait()
    assert len(backlog.take(10_000)) == 1000


@virtual_time
async def test_emptied_waits_for_the_transport() -> None:
    """It is empty when the transport has said of each frame that it is done, not when it was taken."""
    backlog = Backlog()
    backlog.offer(item(0))
    (taken,) = backlog.take()
    empty = asyncio.ensure_future(backlog.emptied())
    await asyncio.sleep(1)
    assert not empty.done()
    backlog.done(taken)
    await empty
