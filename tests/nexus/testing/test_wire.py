"""Laws of the wire in memory."""

import asyncio
import random
from typing import Any

import pytest

from nexus.adapters._wire import Wire
from nexus.testing import MemoryWire, run, virtual_time

Received = list[tuple[float, int]]


async def read_all(wire: MemoryWire) -> Received:
    """Read numbers until the other end is closed, with the time of each."""
    received: Received = []
    loop = asyncio.get_running_loop()
    while True:
        try:
            messages = await wire.receive()
        except ConnectionError:
            return received
        received += [(loop.time(), int(frames[0])) for frames in messages]


async def pass_over(count: int = 100, *, gap: float = 0.0, **weather: Any) -> tuple[MemoryWire, Received]:
    """Send numbers, some seconds apart, and return the sending end and what came out."""
    near, far = MemoryWire.pair(**weather)
    reading = asyncio.create_task(read_all(far))
    for number in range(count):
        await near.send([b"%d" % number])
        await asyncio.sleep(gap)
    near.close()
    return near, await reading


def numbers(received: Received) -> list[int]:
    """Return the numbers alone."""
    return [number for _, number in received]


def assert_balanced(wire: MemoryWire) -> None:
    """Assert that each message from this end is accounted for."""
    counts = wire.counts
    assert counts.sent + counts.duplicated == counts.arrived + sum(counts.lost.values()) + counts.in_flight


@virtual_time
async def test_fair_weather_changes_nothing() -> None:
    """Without faults all arrives, in order and at once, and so do messages of many frames, both ways."""
    _, received = await pass_over()
    assert received == [(0.0, number) for number in range(100)]
    # The annotation has the type checker prove that it is a Wire.
    ends: tuple[Wire, Wire] = MemoryWire.pair()
    near, far = ends
    await far.send([b"a", b"", b"c"])
    await far.send([b"d"])
    assert await near.receive() == [[b"a", b"", b"c"], [b"d"]]


@pytest.mark.parametrize("frames", [["text"], [5], "text"])
@virtual_time
async def test_frames_are_bytes(frames: Any) -> None:
    """What is not bytes is refused, and not sent."""
    near, _ = MemoryWire.pair()
    with pytest.raises(TypeError, match="bytes-like"):
        await near.send(frames)
    assert near.counts.sent == 0


@pytest.mark.parametrize(
    "weather",
    [{"loss": 1.5}, {"duplicate": -1}, {"reorder": 2}, {"delay": (2, 1)}, {"capacity": 0}, {"lateness": -1}],
)
def test_weather_is_checked(weather: dict[str, Any]) -> None:
    """Shares are from 0 to 1, seconds and messages are not negative."""
    with pytest.raises(ValueError, match=next(iter(weather))):
        MemoryWire.pair(**weather)


@virtual_time
async def test_delay_takes_time_and_keeps_order() -> None:
    """Each message takes from the least to the most seconds, and none overtakes another."""
    near, far = MemoryWire.pair(delay=(1.0, 3.0))
    loop = asyncio.get_running_loop()
    for number in range(50):
        await near.send([b"%d" % number])
    near.close()
    received = await read_all(far)
    assert numbers(received) == list(range(50))
    assert 1.0 <= received[0][0] < received[-1][0] <= loop.time() <= 3.0


@pytest.mark.parametrize("name", ["loss", "duplicate", "reorder"])
@virtual_time
async def test_each_fault_does_its_own(name: str) -> None:
    """Loss alone leaves out, duplication alone repeats, reordering alone changes places; all is counted."""
    wire, received = await pass_over(1000, gap=0.001, **{name: 0.2})
    found, counts = numbers(received), wire.counts
    assert_balanced(wire)
    assert (len(set(found)) < 1000) == (name == "loss")
    assert (len(found) > len(set(found))) == (name == "duplicate")
    assert (list(dict.fromkeys(found)) != sorted(set(found))) == (name == "reorder")
    assert 150 < {"loss": counts.lost.get("loss", 0), **vars_of(counts)}[name] < 250


def vars_of(counts: Any) -> dict[str, int]:
    """Return the counts by the names of the faults."""
    return {"duplicate": counts.duplicated, "reorder": counts.reordered}


def test_same_seed_same_weather() -> None:
    """What the wire does comes from the seed alone."""
    storm: dict[str, Any] = {"loss": 0.1, "duplicate": 0.1, "reorder": 0.2, "delay": (0.0, 0.01)}

    def once(seed: int) -> Received:
        return run(pass_over(200, gap=0.001, rng=random.Random(seed), **storm))[1]

    assert all(once(5) == once(5) for _ in range(5))
    assert once(5) != once(6)


@virtual_time
async def test_full_wire_makes_the_sender_wait() -> None:
    """Beyond its capacity send waits until something is read, and a cancelled one sends nothing."""
    near, far = MemoryWire.pair(capacity=2)
    await near.send([b"1"])
    await near.send([b"2"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(near.send([b"3"]), 1)
    waiting = asyncio.create_task(near.send([b"4"]))
    await asyncio.sleep(1)
    assert await far.receive() == [[b"1"], [b"2"]]
    await waiting
    assert await far.receive() == [[b"4"]]


@virtual_time
async def test_full_wire_makes_no_copies() -> None:
    """A copy takes room too, and is not made where there is none."""
    near, far = MemoryWire.pair(capacity=3, duplicate=1.0)
    await near.send([b"1"])
    await near.send([b"2"])
    await asyncio.sleep(1)
    assert len(await far.receive()) == 3
    assert near.counts.duplicated == 1


@virtual_time
async def test_cancelled_receive_loses_nothing() -> None:
    """What arrives after a receive was cancelled is there for the next one."""
    near, far = MemoryWire.pair(delay=(5, 5))
    await near.send([b"1"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(far.receive(), 1)
    assert await far.receive() == [[b"1"]]


@virtual_time
async def test_partition_loses_what_is_under_way() -> None:
    """A cut loses what is in flight and what is sent meanwhile, counts it, and ends with heal."""
    near, far = MemoryWire.pair(delay=(1, 1))
    await near.send([b"1"])
    near.partition()
    await near.send([b"2"])
    await far.send([b"3"])
    await asyncio.sleep(2)
    near.heal()
    await near.send([b"4"])
    assert await far.receive() == [[b"4"]]
    assert (near.counts.lost, far.counts.lost) == ({"partition": 2}, {"partition": 1})
    assert_balanced(near)


@virtual_time
async def test_partition_may_be_one_way() -> None:
    """With both=False only what this end sends is lost."""
    near, far = MemoryWire.pair()
    near.partition(both=False)
    await near.send([b"1"])
    await far.send([b"2"])
    assert await near.receive() == [[b"2"]]
    assert near.counts.lost["partition"] == 1


@virtual_time
async def test_close_lets_what_was_sent_arrive() -> None:
    """The other end reads all that was sent before the close, then gets an error."""
    near, far = MemoryWire.pair(delay=(1, 1))
    await near.send([b"1"])
    near.close()
    near.close()
    assert await far.receive() == [[b"1"]]
    with pytest.raises(ConnectionResetError, match="other end"):
        await far.receive()
    with pytest.raises(ConnectionResetError, match="other end"):
        await far.send([b"2"])
    for use in (near.send([b"3"]), near.receive()):
        with pytest.raises(ConnectionAbortedError, match="this end"):
            await use


@virtual_time
async def test_close_wakes_who_waits_and_counts_the_unread() -> None:
    """A sender and a receiver that wait are told of the close; what was not read is lost and counted."""
    near, far = MemoryWire.pair(capacity=1)
    await near.send([b"1"])
    sending, receiving = asyncio.create_task(near.send([b"2"])), asyncio.create_task(near.receive())
    await asyncio.sleep(1)
    far.close()
    for waiting in (sending, receiving):
        with pytest.raises(ConnectionResetError):
            await waiting
    assert near.counts.lost == {"closed": 1}
    assert_balanced(near)
