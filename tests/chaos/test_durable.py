"""A durable link between processes that are killed: every effect is there once, in the order of its lane."""

import asyncio
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from effects_found import effects_found
from mosquitto import Mosquitto
from real import free_port

SIDES = Path(__file__).parent.parent / "support" / "durable_sides.py"
PRIORITIES = (-1, 0, 5)
WAIT = 60.0


class Side:
    """One of the two processes; killed and started again."""

    def __init__(self, *words: object, mutant: str = "") -> None:
        self._words = [str(word) for word in words]
        self._environment = {**os.environ, "NEXUS_MUTANT": mutant}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SIDES),
            *self._words,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert await self._line() == b"ready\n"

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        return await asyncio.wait_for(self._process.stdout.readline(), 10 * WAIT)

    async def done(self) -> bool:
        """Wait for its good end; False if it was killed before."""
        return await self._line() == b"done\n"

    async def kill(self) -> None:
        """End it as a power cut of its own would."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._end()

    async def stop(self) -> None:
        """End it in good order."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._end()

    async def _end(self) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        await asyncio.wait_for(process.wait(), WAIT)
        assert process.stdin is not None
        process.stdin.close()


@asynccontextmanager
async def running(near: Side, far: Side) -> AsyncIterator[None]:
    """Start both, and leave none behind."""
    try:
        await far.start()
        await near.start()
        yield
    finally:
        await near.kill()
        await far.kill()


@asynccontextmanager
async def place_of(transport: str) -> AsyncIterator[str]:
    """Find ports, and run what else the transport needs."""
    if transport == "mqtt":
        async with Mosquitto() as broker:
            yield f"mqtt:{broker.port}"
    elif transport == "udp":
        yield f"udp:{free_port(socket.SOCK_DGRAM)}:{free_port(socket.SOCK_DGRAM)}"
    else:
        yield f"{transport}:{free_port()}"


async def trial(
    folder: Path, count: int, kills: int, seed: int, mutant: str = "", transport: str = "tcp"
) -> dict[str, int]:
    """Send events of three priorities while either process, or both, are killed; say what became of them."""
    chance = random.Random(seed)
    async with place_of(transport) as place:
        near = Side("near", place, folder / "near.db", count, mutant=mutant)
        far = Side("far", place, folder / "far.db", mutant=mutant)
        done = 0
        async with running(near, far):
            over = asyncio.ensure_future(near.done())
            while done < kills and not over.done():
                await asyncio.wait([over], timeout=chance.uniform(0.05, 0.5) if done else 0.05)
                if over.done():
                    break
                done += 1
                which = chance.choices(("near", "far", "both"), (4, 4, 2))[0]
                if which != "far":
                    await near.kill()
                    await over
                if which != "near":
                    await far.kill()
                    await far.start()
                if which != "far":
                    await near.start()
                    over = asyncio.ensure_future(near.done())
            assert await over
            await far.stop()
    return {"kills": done, **effects_found(folder / "far.db", count, PRIORITIES)}


@pytest.mark.parametrize(
    "transport", ["tcp", "udp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zmq+tcp", "mqtt"))]
)
async def test_either_side_is_killed(transport: str, form: Any, figures: Any, tmp_path: Path) -> None:
    """Each event has its effect once, in the order of its lane, whoever is killed when."""
    short, kills, least = (50_000, 12, 3) if transport == "tcp" else (4_000, 5, 1)
    count = form.size(short, 1_800_000 if transport == "tcp" else 300_000)
    outcome = await trial(tmp_path, count, form.size(kills, 320), form.seed, transport=transport)
    figures(offered=3 * count, delivered=3 * count - outcome["lost"], **outcome)
    assert outcome.pop("kills") >= form.size(least, 300 if transport == "tcp" else 20)
    assert outcome == {"lost": 0, "duplicated": 0, "disorder": 0}


@pytest.mark.parametrize(("mutant", "fault"), [("early", "lost"), ("split", "duplicated")])
async def test_the_law_has_teeth(tmp_path: Path, mutant: str, fault: str) -> None:
    """A link that acknowledges before the commit loses, one that moves its cursor later does things twice."""
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome = await trial(folder, 20_000, 8, seed, mutant)
        if outcome[fault]:
            return
    pytest.fail(f"nothing was {fault}")
