"""The inbox: order, bounds, and an account that is exact whatever happens."""

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nexus.adapters._inbox import Inbox, Overflow
from nexus.errors import EndOfData
from nexus.testing import virtual_time


class InboxMachine(RuleBasedStateMachine):
    """Offers and takes in any order, against a plain list."""

    overflow: Overflow = "block"

    def __init__(self) -> None:
        super().__init__()
        self.inbox = Inbox(4, max_bytes=10, overflow=self.overflow)
        self.model: list[bytes] = []
        self.offered = self.refused = self.taken = 0

    @rule(payload=st.binary(min_size=1, max_size=12))
    def offer(self, payload: bytes) -> None:
        self.offered += 1
        if not self.inbox.offer(payload, {}):
            assert self.overflow == "block"
            self.refused += 1
            return
        fits = not self.model or (len(self.model) < 4 and sum(map(len, self.model)) + len(payload) <= 10)
        if self.overflow == "drop_oldest":
            while self.model and (len(self.model) >= 4 or sum(map(len, self.model)) + len(payload) > 10):
                self.model.pop(0)
        if fits or self.overflow == "drop_oldest":
            self.model.append(payload)

    @rule()
    def take(self) -> None:
        if self.model:
            assert self.inbox.take_nowait()[0] == self.model.pop(0)
            self.taken += 1

    @invariant()
    def account_is_exact(self) -> None:
        dropped = sum(self.inbox.dropped.values())
        assert len(self.inbox) == len(self.model)
        assert self.offered == self.refused + dropped + self.taken + len(self.model)
        assert len(self.model) <= 4
        assert len(self.model) <= 1 or sum(map(len, self.model)) <= 10


class DropOldest(InboxMachine):
    overflow = "drop_oldest"


class DropNewest(InboxMachine):
    overflow = "drop_newest"


TestBlock = InboxMachine.TestCase
TestDropOldest = DropOldest.TestCase
TestDropNewest = DropNewest.TestCase


@virtual_time
async def test_put_waits_for_room_and_keeps_the_order() -> None:
    """Whoever puts into a full inbox waits, and everything comes out in the order it was put."""
    inbox = Inbox(3)
    got: list[bytes] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(inbox.put_many([(bytes([number]), {}) for number in range(50)]))
        for _ in range(50):
            got.append((await inbox.take())[0])
    assert got == [bytes([number]) for number in range(50)]


@pytest.mark.parametrize("takers", [1, 3])
@virtual_time
async def test_a_cancelled_take_takes_nothing(takers: int) -> None:
    """However often waiting takers are cancelled, what is put goes to one that is left."""
    inbox = Inbox(10)
    tasks = [asyncio.ensure_future(inbox.take()) for _ in range(takers)]
    await asyncio.sleep(0)
    inbox.offer(b"1", {})
    tasks[0].cancel()  # it was woken already
    await asyncio.sleep(1)
    rest = [*tasks[1:], asyncio.ensure_future(inbox.take())]
    done, waiting = await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED, timeout=1)
    assert [task.result()[0] for task in done] == [b"1"]
    for task in waiting:
        task.cancel()
    await asyncio.wait(rest)


@virtual_time
async def test_the_end_comes_after_all_is_taken() -> None:
    """What is in the inbox at its end is still given, then the end is told to everybody."""
    inbox = Inbox(1)
    inbox.offer(b"1", {})
    late = asyncio.ensure_future(inbox.put(b"2", {}))
    await asyncio.sleep(0)
    inbox.end(EndOfData("stopped"))
    await late
    assert (await inbox.take())[0] == b"1"
    for _ in range(2):
        with pytest.raises(EndOfData):
            await inbox.take()
    assert inbox.dropped == {"stopped": 1}


@virtual_time
async def test_a_dropped_frame_is_told() -> None:
    """`on_drop` gets the meta of each frame that is dropped."""
    told: list[dict[str, Any]] = []
    inbox = Inbox(1, overflow="drop_oldest")
    inbox.on_drop = told.append
    for number in range(3):
        inbox.offer(b"x", {"number": number})
    assert [meta["number"] for meta in told] == [0, 1]
