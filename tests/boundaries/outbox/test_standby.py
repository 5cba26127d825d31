"""Laws of processes that share an outbox: one has it, the others wait, and whoever hangs is killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nexus.boundaries.outbox import Outbox, OutboxInUse, OutboxState
from nexus.boundaries.outbox._owner import Sign
from nexus.boundaries.outbox._standby import Watch
from nexus.errors import ConfigError
from nexus.testing import virtual_time

OWNER = """
import asyncio, sys, time
from nexus.boundaries.outbox import Outbox

async def main():
    async with Outbox(sys.argv[1], takeover_after=float(sys.argv[2]) or None) as outbox:
        for number in range(1, 4):
            outbox.put("far", 0, number, b"row")
        await outbox.durable()
        print("ready", flush=True)
        if sys.argv[3] == "hangs":
            time.sleep(60)
        await asyncio.sleep(60)

asyncio.run(main())
"""
AFTER = 0.5

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which process has a file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name an outbox that is not there yet."""
    return tmp_path / "out.box"


@asynccontextmanager
async def owner(
    path: Path, after: float = AFTER, how: str = "lives"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run another process that has the file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(path), str(after), how, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def waiting(path: Path, after: float = AFTER) -> AsyncIterator[tuple[Outbox, asyncio.Task[None]]]:
    """Stand by, until there is a reason to wait."""
    outbox = Outbox(path, takeover_after=after)
    stands_by = asyncio.Event()
    outbox.on_state(lambda state: stands_by.set())
    opening = asyncio.ensure_future(outbox.open())
    try:
        await asyncio.wait_for(stands_by.wait(), 30)
        assert outbox.state.condition == "standby"
        yield outbox, opening
    finally:
        opening.cancel()
        await asyncio.wait([opening])
        await outbox.aclose()


async def test_it_waits_until_the_other_closes(path: Path) -> None:
    """Whoever stands by has the file, with all that is in it, once the other has closed it."""
    first = Outbox(path, takeover_after=AFTER)
    async with first, waiting(path) as (second, opening):
        first.put("far", 0, 1, b"row")
        await first.aclose()
        await asyncio.wait_for(opening, 30)
        assert await second.read("far", 0, 1) == [b"row"]
        assert (second.generation, second.state.condition) == (2, "open")
        assert second.state.taken_over == "it was closed"


async def test_a_file_that_nobody_has_is_had_at_once(path: Path) -> None:
    """The first does not wait, nothing was taken over, and it can open the file again."""
    outbox = Outbox(path, takeover_after=AFTER)
    for generation in (1, 2):
        async with outbox:
            assert (outbox.generation, outbox.state.taken_over) == (generation, "")


async def test_one_that_is_killed_is_followed(path: Path) -> None:
    """The death of a process frees its file, and what it had stored is there."""
    async with owner(path, after=60) as process, waiting(path, after=60) as (outbox, opening):
        assert f"process {process.pid}" in outbox.state.reason
        process.kill()
        await asyncio.wait_for(opening, 30)
        assert outbox.state.taken_over == f"process {process.pid} has ended without closing it"
        assert outbox.lanes("far")[0].last == 3


@on_linux
async def test_one_that_is_stopped_is_killed(path: Path) -> None:
    """A process without a sign of life is dead before another has its file."""
    async with owner(path) as process:
        process.send_signal(signal.SIGSTOP)
        async with waiting(path) as (outbox, opening):
            began = asyncio.get_running_loop().time()
            await asyncio.wait_for(opening, 30)
            assert asyncio.get_running_loop().time() - began > AFTER / 2
            assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
            assert f"process {process.pid} was killed: no sign of life for 0." in outbox.state.taken_over


@on_linux
async def test_one_whose_loop_hangs_is_killed(path: Path) -> None:
    """A process that runs and does nothing gives no sign of life."""
    async with owner(path, how="hangs") as process, waiting(path) as (_, opening):
        await asyncio.wait_for(opening, 30)
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL


async def test_one_that_lives_is_left_alone(path: Path) -> None:
    """Signs of life count, and so does the longer of two patiences."""
    async with owner(path) as process, waiting(path, after=0.1) as (_, opening):
        await asyncio.wait([opening], timeout=4 * AFTER)
        assert not opening.done()
        assert process.returncode is None


@virtual_time
async def test_time_that_nobody_looked_does_not_count() -> None:
    """Whoever was stopped itself, or slept with the whole machine, knows nothing of the time between."""
    watch, sign = Watch(1.0), Sign(1, 0.5, 7)
    assert not watch.seen(sign)
    for _ in range(5):
        await asyncio.sleep(1000)
        assert not watch.seen(sign)
    for _ in range(20):
        await asyncio.sleep(0.05)
        is_dead = watch.seen(sign)
    assert is_dead
    assert not watch.seen(Sign(1, 0.5, 8))


@on_linux
async def test_of_several_one_follows(path: Path) -> None:
    """Of two that stand by one has the file, and the other goes on waiting."""
    async with owner(path) as process, waiting(path) as (_, one), waiting(path) as (_, other):
        process.send_signal(signal.SIGSTOP)
        await asyncio.wait([one, other], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([one, other], timeout=2 * AFTER)
        assert one.done() + other.done() == 1


async def test_a_process_without_signs_is_waited_for(path: Path) -> None:
    """One that opened the file without `takeover_after` is not killed."""
    async with owner(path, after=0) as process, waiting(path) as (outbox, opening):
        assert "no signs of life" in outbox.state.reason
        await asyncio.wait([opening], timeout=2 * AFTER)
        assert process.returncode is None
        process.kill()
        await asyncio.wait_for(opening, 30)


async def test_waiting_can_be_cancelled(path: Path) -> None:
    """Who waits no more is closed, holds nothing, and may wait again."""
    async with Outbox(path, takeover_after=AFTER) as first:
        async with waiting(path) as (second, opening):
            opening.cancel()
            await asyncio.wait([opening])
            assert (second.is_open, second.state.condition) == (False, "closed")
        async with waiting(path) as (third, opening):
            await first.aclose()
            await asyncio.wait_for(opening, 30)
            assert third.is_open


async def test_one_may_refuse_to_wait(path: Path) -> None:
    """`open(wait=False)` says at once that another has the file, also while somebody waits."""
    async with Outbox(path, takeover_after=AFTER), waiting(path) as (second, _):
        with pytest.raises(OutboxInUse):
            await second.open(wait=False)
        with pytest.raises(OutboxInUse, match=f"process {os.getpid()} has it|another one"):
            await Outbox(path, takeover_after=AFTER).open(wait=False)


async def test_listeners_hear_of_it(path: Path) -> None:
    """Standing by and taking over are states, once each."""
    told: list[OutboxState] = []
    async with Outbox(path, takeover_after=AFTER) as first, waiting(path) as (second, opening):
        second.on_state(told.append)
        await first.aclose()
        await asyncio.wait_for(opening, 30)
    assert [state.condition for state in told if state.condition != "standby"] == ["open", "closed"]
    assert told[-2].taken_over


@pytest.mark.parametrize("after", [0, 0.05, -1, float("nan"), float("inf")])
def test_a_useless_patience_is_refused(path: Path, after: float) -> None:
    """A tenth of a second is the least."""
    with pytest.raises(ConfigError, match="takeover_after"):
        Outbox(path, takeover_after=after)
