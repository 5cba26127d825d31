"""Two readers share an outbox; whichever has it is killed or stopped, and the other one goes on."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from durable_sides import PRIORITIES
from effects_found import effects_found
from real import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which process has a file")

SIDES = Path(__file__).parent.parent / "support" / "takeover_sides.py"
WAIT = 60.0


class Process:
    """One of the processes, and when it has said what."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._heard: dict[str, tuple[float, str]] = {}
        self._changed = asyncio.Event()
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, *words: object, mutant: str = "") -> "Process":
        """Begin."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                str(SIDES),
                *map(str, words),
                env={**os.environ, "NEXUS_MUTANT": mutant},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            self._heard[word] = asyncio.get_running_loop().time(), rest
            self._changed.set()
        await self._process.wait()
        self._heard["ends"] = asyncio.get_running_loop().time(), ""
        self._changed.set()

    async def says(self, *words: str, within: float = WAIT) -> tuple[float, str]:
        """Wait until it has said one of some words; tell when, and what followed the word."""
        async with asyncio.timeout(within):
            while not (found := [self._heard[word] for word in words if word in self._heard]):
                assert "ends" not in self._heard, f"it has ended without {words}"
                self._changed.clear()
                await self._changed.wait()
        return found[0]

    def has_said(self, word: str) -> bool:
        """Say whether it has said a word."""
        return word in self._heard

    def send(self, what: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(what)

    async def ended_within(self, seconds: float) -> bool:
        """Say whether it has ended by then."""
        with contextlib.suppress(TimeoutError):
            await self.says("ends", within=seconds)
        return self.has_said("ends")

    def stop(self) -> None:
        """Ask it to end in good order."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def kill(self) -> None:
        """End it, however it is, and leave nothing of it."""
        self.send(signal.SIGKILL)
        await asyncio.wait_for(self._listening, WAIT)
        self.stop()


class Trial:
    """A sender, the reader that has the file, and the one that stands by."""

    def __init__(self, folder: Path, seed: int, after: float, mutant: str = "") -> None:
        self._folder = folder
        self._after = after
        self._chance = random.Random(seed)
        self._mutant = mutant
        self._port = free_port()
        self._all: list[Process] = []
        self.survived = 0
        """Processes that were alive after another one had their file."""
        self.resumed = 0
        """Processes that were stopped, and went on in time."""
        self.times: list[float] = []
        """Seconds from the end of one reader, or from when it was stopped, until the next writes."""

    async def run(self, takeovers: int) -> dict[str, float]:
        """Have one reader after the other die; say what became of the events."""
        try:
            sender = await self._start("sender", self._folder / "near.db")
            has, stands = [await self._reader() for _ in range(2)]
            await sender.says("ready")
            await has.says("stands", "has")
            if has.has_said("stands"):
                has, stands = stands, has
            await has.says("writes")
            while len(self.times) < takeovers:
                await stands.says("stands", "has")
                await asyncio.sleep(self._chance.uniform(0, 0.3))
                if await self._passes(has, stands):
                    has, stands = stands, await self._reader()
            stands.stop()
            await stands.says("ends")
            sender.stop()
            _, count = await sender.says("done")
            has.stop()
            await has.says("ends")
        finally:
            for each in self._all:
                await each.kill()
        total = int(count) * len(PRIORITIES)
        return {"offered": total, **effects_found(self._folder / "far.db", int(count), PRIORITIES)}

    async def _reader(self) -> Process:
        return await self._start("reader", self._folder / "far.db", self._after)

    async def _start(self, side: str, *words: object) -> Process:
        process = await Process.start(side, self._port, *words, mutant=self._mutant)
        self._all.append(process)
        return process

    async def _passes(self, has: Process, stands: Process) -> bool:
        """Let one reader die, or hang for a while; say whether the other one goes on."""
        how = "stop" if self._mutant else self._chance.choice(("kill", "stop", "pause"))
        began = asyncio.get_running_loop().time()
        has.send(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        if how == "pause" and not await has.ended_within(self._chance.uniform(0.5, 1.3) * self._after):
            has.send(signal.SIGCONT)
            if not await has.ended_within(0.3 * self._after):
                self.resumed += 1
                return False
        await stands.says("has")
        if not await has.ended_within(0.1 if self._mutant else 1):
            self.survived += 1
            has.send(signal.SIGCONT)
            await asyncio.sleep(1)
            self.times.append(0)
        else:
            self.times.append((await stands.says("writes"))[0] - began)
        return True


async def test_the_other_reader_goes_on(form: Any, figures: Any, tmp_path: Path) -> None:
    """Each event has its effect once, in its order, and who lost the file is dead before another has it."""
    trial = Trial(tmp_path, form.seed, 1.0 if form.is_long else 0.5)
    outcome = await trial.run(form.size(5, 200))
    times = sorted(trial.times)
    figures(
        **outcome,
        survived=trial.survived,
        resumed=trial.resumed,
        takeovers=len(times),
        takeover_p50_s=round(times[len(times) // 2], 2),
        takeover_p99_s=round(times[int(len(times) * 0.99)], 2),
        takeover_max_s=round(times[-1], 2),
    )
    assert outcome.pop("offered") > 0
    assert outcome | {"survived": trial.survived} == {
        "lost": 0,
        "duplicated": 0,
        "disorder": 0,
        "survived": 0,
    }


async def test_the_law_has_teeth(tmp_path: Path) -> None:
    """Where a reader takes the file and leaves the other one alive, events are lost."""
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trial = Trial(folder, seed, 0.5, "steal")
        outcome = await trial.run(1)
        assert trial.survived == 1
        if outcome["lost"] or outcome["duplicated"]:
            return
    pytest.fail("nothing was lost")
