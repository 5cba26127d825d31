"""What the other side may send: types and priorities that were allowed, and nothing else."""

import asyncio
import os
import random
from typing import Any

import orjson
import pytest

from nexus import AsyncEventNexus, NamedEvent
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.link._peer import Peer
from nexus.errors import ConfigError
from nexus.testing import MemoryWire, virtual_time


class Alarm(NamedEvent[Any]):
    """One that may come."""


ACCEPT = [Alarm, "reading", 7]
ODD: list[Any] = [
    *(
        "Alarm ",
        " Alarm",
        "alarm",
        "ALARM",
        "Alarm\0",
        "\u0410larm",
        "Alarm\u200b",
        "A",
        "",
        "*",
        "#",
        "7",
        "_",
    ),
    *("reading\n", "Reading", "reading?", "readin\u0261", "nexus.Alarm", "builtins.int", "a" * 200),
    *(0, 8, -7, 70, 2**31, 2**63 - 1),
]


class Intruder:
    """The other side of a link that sends what it likes, and keeps to the protocol."""

    def __init__(self, wire: MemoryWire) -> None:
        self.wire = wire
        self.peer = Peer(lambda: ("intruder", "elsewhere"), "intruder", LinkLimits(maxsize=200_000))
        self.peer.opened(0.0)

    async def run(self) -> None:
        """Send and hear until all has been taken."""
        loop = asyncio.get_running_loop()
        while True:
            for frame in self.peer.output(loop.time()):
                await self.wire.send([frame])
            if not len(self.peer.outflow):
                return
            for message in await self.wire.receive():
                self.peer.feed(b"".join(message), loop.time())


async def injected(seed: object, count: int) -> None:
    """Send random events; those that may come are all there are."""
    rng = random.Random(f"authority{seed}")
    one, other = MemoryWire.pair()
    wires = [one]

    async def dial() -> MemoryWire:
        if not wires:
            raise ConnectionRefusedError("no more wires")
        return wires.pop()

    nexus = AsyncEventNexus(name="guarded")
    link = Link.over(dial, accept=ACCEPT, most_urgent=-10, types=[Alarm])
    nexus.register(link)
    got: list[tuple[Any, int]] = []
    types: list[Any] = [*ODD, "Alarm", "reading", 7]
    for type_ in types:
        nexus.add_handler(type_, lambda event: got.append((event.type, event.priority)))
    intruder = Intruder(other)
    wanted = 0
    for _ in range(count):
        type_ = rng.choice(types) if rng.random() < 0.9 else rng.randbytes(8).hex()
        priority = rng.choice((-(2**31), -1000, -11, -10, -1, 0, 5, 2**31 - 1))
        words = rng.choice(({}, {}, {"headers": {"accept": True}}, {"route": ["x"]}, {"path": ["y"]}))
        row = [1, type_, None, words] if words else [1, type_, None]
        assert intruder.peer.outflow.push(priority, orjson.dumps(row))
        may = priority >= -10 and type_ in ("Alarm", "reading", 7)
        wanted += may
    async with nexus:
        await intruder.run()
        await nexus.drained()
        counts = link.counts
        assert counts.received == wanted
        assert counts.left_out == {"forbidden": count - wanted}
    assert {type_ for type_, _ in got} == {"Alarm", "reading", 7}
    assert min(priority for _, priority in got) == -10


@virtual_time
async def test_random_injections_are_left_out() -> None:
    """A hundred thousand events of other types, of types that look alike, and too urgent: none gets in."""
    await injected(0, 100_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@virtual_time
async def test_many_random_injections_are_left_out() -> None:
    """The long form, from NEXUS_SEED."""
    for number in range(20):
        await injected(f"{os.environ.get('NEXUS_SEED', '0')}.{number}", 100_000)


@pytest.mark.parametrize(
    "options",
    [{"accept": "Alarm"}, {"accept": 7}, {"accept": [1.5]}, {"most_urgent": "0"}, {"most_urgent": True}],
)
def test_wrong_limits_are_refused(options: dict[str, Any]) -> None:
    """What allows nothing that was meant is an error, which names it."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        Link.connect("tcp://127.0.0.1:1", **options)
