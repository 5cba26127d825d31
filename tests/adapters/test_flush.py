"""What `flush` says: True only when the transport has everything."""

import asyncio
import itertools

import pytest
from real import free_port

from nexus.adapters import open_sender
from nexus.adapters._backlog import SendOverflow
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.testing import virtual_time

_numbers = itertools.count()


def lonely(overflow: SendOverflow = "block") -> MemorySender[int]:
    """Make a sender of one frame that nobody receives from yet."""
    topic = f"flush-{next(_numbers)}"
    return MemorySender(MemoryConfig(topic=topic, maxsize=1, overflow=overflow, flush_timeout=0.0))


@virtual_time
async def test_a_flush_ends_when_all_is_gone() -> None:
    """It waits for what waits, and says that all went; with nothing to wait for it says so at once."""
    async with lonely() as sender:
        assert await sender.flush()
        await sender.send(1)
        flushing = asyncio.ensure_future(sender.flush())
        assert not await sender.flush(1)
        async with MemoryReceiver[int](sender.config):
            assert await flushing


@virtual_time
async def test_a_stop_makes_a_flush_fail() -> None:
    """What a stop drops was not sent, also when the sender has been started again since."""
    sender = lonely()
    await sender.send(1)
    flushing = asyncio.ensure_future(sender.flush(10))
    await asyncio.sleep(1)
    await sender.stop()
    await sender.start()
    assert not await flushing
    assert sender.counts.dropped == {"stopped": 1}
    assert await sender.flush()
    await sender.stop()


async def test_a_link_that_fails_makes_a_flush_fail() -> None:
    """What a failed link leaves was not sent; whoever asks after that is told the same."""
    sender = open_sender(f"tcp://127.0.0.1:{free_port()}?retry=never", flush_timeout=0)
    await sender.start()
    await sender.send(1)
    assert not await sender.flush(10)
    assert not await sender.flush(10)
    assert sender.counts.dropped == {"failed": 1}
    await sender.stop()


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
@virtual_time
async def test_a_frame_without_room_makes_a_flush_fail(overflow: SendOverflow) -> None:
    """A frame that gave way to another while `flush` waited was not sent, whichever of the two it was."""
    async with lonely(overflow) as sender:
        await sender.send(1)
        flushing = asyncio.ensure_future(sender.flush())
        await asyncio.sleep(1)
        await sender.send(2)
        async with MemoryReceiver[int](sender.config):
            assert not await flushing
            assert await sender.flush()
