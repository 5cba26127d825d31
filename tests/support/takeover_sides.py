"""The processes of a durable link whose reader is followed by another one.

    python takeover_sides.py sender PORT FILE
    python takeover_sides.py reader PORT FILE AFTER

The sender listens, and gives events of three priorities until its standard input ends; it says how many of
each, once all are accepted. Of the readers, which share FILE, one connects; it writes what came into the
file, as ranges, in the transaction that moves the cursor. A reader says ``stands``, ``has`` and ``writes``,
and ends in good order when its standard input does. It is killed after AFTER seconds without
a sign of life.

``NEXUS_MUTANT=steal`` makes them wrong on purpose: a reader takes a copy of the file without killing the one
that has it, nobody notices that its file is another, and the sender lets in whoever comes first.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from durable_sides import LIMITS, PRIORITIES, TABLE, note, say

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link, _peers
from nexus.boundaries.outbox import Connection, Effects, Outbox, OutboxState
from nexus.boundaries.outbox._files import Files
from nexus.boundaries.outbox._owner import OwnerFile, Sign

CHUNK = 50
BACKLOG = 10_000
"""Events that may wait for a reader."""


async def end_of_input() -> None:
    """Wait until the parent has nothing more to say."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def sender(port: int, path: str) -> None:
    """Give events without end."""
    nexus = AsyncEventNexus(name="sender", maxsize=2000)
    async with Outbox(path) as outbox:
        link = Link.listen(f"tcp://127.0.0.1:{port}", name="sender", outbox=outbox, limits=LIMITS)
        nexus.register(link)
        nexus.add_handler("n", link)
        async with nexus:
            say("ready")
            over = asyncio.ensure_future(end_of_input())
            count = 0
            while not over.done():
                numbers = range(count + 1, count + CHUNK + 1)
                await nexus.ingest_many(
                    [Event(n, "n", priority, n) for priority in PRIORITIES for n in numbers]
                )
                count += CHUNK
                await asyncio.wait([over], timeout=0.005)
                while outbox.state.stored_rows > BACKLOG and not over.done():
                    await asyncio.wait([over], timeout=0.02)
            await nexus.drained()
            await link.flushed()
    say(f"done {count}")


async def reader(port: int, path: str, after: str) -> None:
    """Write down what comes, once this process has the file."""
    nexus = AsyncEventNexus(name="reader", maxsize=20_000)
    outbox = Outbox(path, takeover_after=float(after))
    told = set()

    def tell(word: str) -> None:
        if word not in told:
            told.add(word)
            say(word)

    def changed(state: OutboxState) -> None:
        if state.condition == "open":
            outbox.effect(lambda connection: connection.execute(TABLE), lambda exc: None)
            tell("has")
        elif state.condition == "standby":
            tell("stands")

    def write(connection: Connection, events: Sequence[Event[Any]]) -> None:
        note(connection, events)
        tell("writes")

    outbox.on_state(changed)
    link = Link.connect(f"tcp://127.0.0.1:{port}", name="ingest", outbox=outbox, limits=LIMITS)
    nexus.register(link)
    nexus.add_handler("n", Effects(outbox, write))
    async with nexus:
        await end_of_input()


def steal(self: OwnerFile, last: Sign) -> bool:
    """Put a copy in the place of what somebody has, and leave him alive."""
    path = self.path.removesuffix("-owner")
    for each in (f"{path}-wal", path, self.path):
        shutil.copy(each, f"{each}.copy")
        os.replace(f"{each}.copy", each)
    return True


if __name__ == "__main__":
    if os.environ.get("NEXUS_MUTANT") == "steal":
        OwnerFile.fence = steal  # type: ignore[method-assign]
        there = Files.identity
        Files.identity = lambda self, path: (0, 0) if there(self, path) else None  # type: ignore[method-assign]
        _peers._follows = lambda hello, before: False
    side: Any = {"sender": sender, "reader": reader}[sys.argv[1]]
    asyncio.run(side(int(sys.argv[2]), *sys.argv[3:]))
