"""Links that break and mend, and halves that start and stop, for ever: nothing of it is left."""

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fixtures_memory import MemoryPair
from memory_use import resident
from test_contract import PAIRS

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="what a process holds is read from /proc"
)

PATIENCE = 15.0
"""Seconds until data must flow again."""
FEWER = {"mqtt": 20, "mqtt5": 20, "udp": 20}
"""Cycles of the short form where each takes a tenth of a second or more; the others have 50."""
EXECUTOR = "asyncio_"
"""What the threads of the loop's own pool are called; there are ever more of them up to its bound."""
WARM = 10
"""One in so many cycles goes before anything is counted."""


@pytest.fixture(params=PAIRS, ids=lambda pair: pair.name)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A transport with its counterpart running."""
    async with request.param() as pair:
        yield pair


def descriptors() -> dict[str, str]:
    """List what is open, by descriptor."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # listdir's own
    return found


def held() -> dict[str, int]:
    """Count what the process holds while everything is stopped."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": sum(not thread.name.startswith(EXECUTOR) for thread in threading.enumerate()),
        "descriptors": len(descriptors()),
        "sockets": sum(target.startswith("socket:") for target in descriptors().values()),
    }


async def settled(before: dict[str, int]) -> dict[str, int]:
    """Count again; what a library closes on a thread of its own may take a moment."""
    until = time.monotonic() + 2
    while (now := held()) != before and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return now


async def flows(sender: Any, receiver: Any) -> None:
    """Send until something arrives that was sent from now on."""
    mark = time.monotonic_ns()

    async def send() -> None:
        while True:
            await sender.send({"mark": mark})
            await asyncio.sleep(0.002)

    sending = asyncio.ensure_future(send())
    try:
        async with asyncio.timeout(PATIENCE):
            async for data, _ in receiver:
                if data["mark"] >= mark:
                    return
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def live(pair: Any, breaks: int) -> None:
    """Start both halves, break and mend their link, stop them."""
    given = {"start": "end"} if pair.name == "file" else {}  # or each one would read all there is again
    receiver, sender = pair.receiver(**given), pair.sender(flush_timeout=0.05)
    try:
        await pair.ready(sender, receiver)
        await flows(sender, receiver)
        for _ in range(breaks):
            await pair.break_link()
            await sender.send({"mark": 0})  # or nobody may have noticed
            await pair.mend_link()
            await flows(sender, receiver)
    finally:
        await sender.stop()
        await receiver.stop()


async def cycles(pair: Any, number: int) -> dict[str, Any]:
    """Go round so often; return what has grown since the first tenth."""
    each = 10 if pair.can_break else 0
    lives = number // each if each else number
    assert lives > 1
    for place in range(lives):
        if place == max(1, lives // WARM):
            before, memory = held(), resident()
        await live(pair, each)
    now = await settled(before)
    return {name: now[name] - before[name] for name in now} | {"rss_bytes": resident() - memory}


def judge(grown: dict[str, Any], limit: int) -> None:
    # Fewer than before is no leak: one that was about to go when it was counted.
    assert max(grown[each] for each in ("tasks", "threads", "descriptors", "sockets")) <= 0, grown
    assert grown["rss_bytes"] <= limit, grown


class LeavesATask(MemoryPair):
    """Leaves a task waiting."""

    async def ready(self, sender: Any, receiver: Any) -> None:
        LEFT.append(asyncio.ensure_future(asyncio.sleep(1e6)))
        await super().ready(sender, receiver)


class LeavesADescriptor(MemoryPair):
    """Leaves a pipe open."""

    async def ready(self, sender: Any, receiver: Any) -> None:
        PIPES.extend(os.pipe())
        await super().ready(sender, receiver)


class LeavesMemory(MemoryPair):
    """Keeps what it has sent."""

    async def ready(self, sender: Any, receiver: Any) -> None:
        KEPT.append(bytes(b"x" * 8 * 2**20))  # all together more than a heap may have free
        await super().ready(sender, receiver)


LEFT: list[asyncio.Future[Any]] = []
PIPES: list[int] = []
KEPT: list[bytes] = []


@pytest.mark.parametrize("mutant", [LeavesATask, LeavesADescriptor, LeavesMemory])
async def test_each_kind_of_leak_is_seen(mutant: type[MemoryPair]) -> None:
    """A pair made to leak is found out."""
    async with mutant() as pair:
        with pytest.raises(AssertionError):
            judge(await cycles(pair, 20), 2 << 20)
    for task in LEFT:
        task.cancel()
    for descriptor in PIPES:
        os.close(descriptor)
    for kept in (LEFT, PIPES, KEPT):
        kept.clear()


async def test_breaks_and_restarts_leave_nothing(
    pair: Any, form: Any, figures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After thousands of breaks, or of starts where nothing can break, all is as it was."""
    for name in ("nexus", "asyncio"):
        caplog.set_level(logging.ERROR, logger=name)  # pytest keeps every record to the end
    number = form.size(FEWER.get(pair.name, 50), 2000)
    grown = await cycles(pair, number)
    figures(pair=pair.name, cycles=number, **grown)
    judge(grown, form.size(8 << 20, 2 << 20))
