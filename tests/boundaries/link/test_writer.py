"""When a link sends: a lone event at once, a flood in lots, an acknowledgement where it is due."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nexus.boundaries.link._frames import Ack, Events, unpack
from nexus.boundaries.link._peer import LinkLimits, Peer
from nexus.boundaries.link._writer import ACK_DELAY, COLLECT, Writer
from nexus.testing import virtual_time

ROW = b'[1,"t",null]'


class SlowWire:
    """Keeps what is sent, while it has room."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.room = asyncio.Event()
        self.room.set()

    async def send(self, frames: Sequence[bytes]) -> None:
        await self.room.wait()
        self.sent += frames

    async def receive(self, hand_on: object = None) -> list[list[bytes]]:
        await asyncio.Event().wait()
        return []

    def close(self) -> None:
        pass


class QuickWire(SlowWire):
    """Sends here and now as well."""

    def send_nowait(self, frame: bytes) -> bool:
        if self.room.is_set():
            self.sent.append(frame)
        return self.room.is_set()


class Side:
    """A writer at work, for a peer that knows another one."""

    def __init__(self, wire: SlowWire) -> None:
        limits = LinkLimits(heartbeat=1000.0, patience=1000.0)
        self.wire = wire
        self.near = Peer(lambda: ("near", "near"), "1", limits)
        self.far = Peer(lambda: ("far", "far"), "2", limits)
        now = asyncio.get_running_loop().time()
        self.near.opened(now)
        self.far.opened(now)
        for _ in range(3):
            for one, other in ((self.near, self.far), (self.far, self.near)):
                for frame in list(one.output(now)):
                    other.feed(frame, now)
        self.writer = Writer(self.near, wire)

    def push(self, count: int, priority: int = 0) -> None:
        for _ in range(count):
            assert self.near.outflow.push(priority, ROW)
            self.writer.pushed(priority)

    def hear(self) -> None:
        """Let an event of the other side come."""
        now = asyncio.get_running_loop().time()
        self.far.outflow.push(0, ROW)
        for frame in list(self.far.output(now, ack=False)):
            if (arrival := self.near.feed(frame, now)) is not None:
                self.near.accepted(arrival, 1, now)
            self.writer.heard()

    @property
    def counts(self) -> list[int]:
        """How many events each frame has that went."""
        return [len(found) for frame in self.wire.sent if isinstance(found := unpack(frame), Events)]

    @property
    def acks(self) -> int:
        return sum(isinstance(unpack(frame), Ack) for frame in self.wire.sent)


@asynccontextmanager
async def side(wire: SlowWire) -> AsyncIterator[Side]:
    it = Side(wire)
    running = asyncio.ensure_future(it.writer.run())
    for _ in range(2):  # both have heard of each other, and something has gone
        await asyncio.sleep(0.1)
        it.hear()
        it.push(1)
    await asyncio.sleep(0.1)
    wire.sent.clear()
    try:
        yield it
    finally:
        running.cancel()
        await asyncio.wait([running])


@virtual_time
async def test_a_lone_event_goes_at_once() -> None:
    """Before `pushed` returns, where the wire can; and again in a later turn."""
    async with side(QuickWire()) as it:
        for number in range(1, 4):
            it.push(1)
            assert it.counts == [1] * number
            await asyncio.sleep(0.01)


@virtual_time
async def test_after_a_lone_event_nobody_looks_for_another_in_the_next_turn() -> None:
    """Only where the last one came just before it, so that sending takes most of the time."""
    async with side(QuickWire()) as it:
        for pause in (0.01, 0.01, 0.0):
            await asyncio.sleep(pause)
            it.push(1)
            await asyncio.sleep(0)
            assert it.writer._is_collecting == (pause == 0.0)
        assert it.counts == [1, 1, 1]


@virtual_time
async def test_a_few_go_at_the_end_of_their_turn() -> None:
    """No clock has to move for those that follow the first."""
    async with side(QuickWire()) as it:
        it.push(6)
        assert it.counts == [1]
        for _ in range(3):
            await asyncio.sleep(0)
        assert it.counts == [1, 5]


@virtual_time
async def test_a_flood_goes_in_lots() -> None:
    """It is collected for a moment, or until a frame is full."""
    async with side(QuickWire()) as it:
        it.push(30)
        for _ in range(3):
            await asyncio.sleep(0)
            it.push(5)
        assert it.counts == [1]
        await asyncio.sleep(2 * COLLECT)
        assert it.counts == [1, 44]


@virtual_time
async def test_a_flood_of_one_event_in_each_turn_goes_in_lots() -> None:
    """Where a send takes as long as making an event there is never more than one in a turn."""
    async with side(QuickWire()) as it:
        for _ in range(50):
            it.push(1)
            await asyncio.sleep(0)
        await asyncio.sleep(2 * COLLECT)
        assert sum(it.counts) == 50
        assert len(it.counts) < 15
        await asyncio.sleep(0.01)
        it.push(1)
        assert it.counts[-1] == 1


@virtual_time
async def test_an_urgent_event_waits_for_no_flood() -> None:
    """It goes while the others are collected."""
    async with side(QuickWire()) as it:
        it.push(30)
        it.push(1, priority=-5)
        first = [found.priority for frame in it.wire.sent if isinstance(found := unpack(frame), Events)]
        assert first[:2] == [0, -5]


@virtual_time
async def test_what_finds_no_room_goes_first_when_there_is_some() -> None:
    """Nothing is lost or overtaken, whoever sends it in the end."""
    async with side(QuickWire()) as it:
        it.wire.room.clear()
        it.push(3)
        await asyncio.sleep(0.1)
        it.push(2)
        assert it.counts == []
        it.wire.room.set()
        await asyncio.sleep(0.1)
        found = [unpack(frame) for frame in it.wire.sent]
        assert [each.first for each in found if isinstance(each, Events)] == [3, 4]
        assert sum(it.counts) == 5


@virtual_time
async def test_any_other_wire_is_served_as_well() -> None:
    """What cannot be sent here and now goes a turn later, all of it."""
    async with side(SlowWire()) as it:
        it.push(1)
        assert it.counts == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.counts == [1]
        it.push(40)
        await asyncio.sleep(0.1)
        assert sum(it.counts) == 41


@virtual_time
async def test_one_acknowledgement_answers_for_many_frames() -> None:
    """While the other side does not wait for it, none goes for each frame, nor with each event that goes."""
    async with side(QuickWire()) as it:
        for _ in range(5):
            it.hear()
            it.push(1)
        assert it.acks == 0
        await asyncio.sleep(2 * ACK_DELAY)
        assert it.acks == 1
        assert sum(it.counts) == 5
