"""SIGTERM with a full queue and a hung handler: intake closed, the rest done, gone by the deadline."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

PROGRAM = """
import asyncio, json, sys, time
from nexus import AsyncEventNexus, Event, EventProducer, errors

QUEUED, GRACE, MUTANT = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
refused_after = []
hung, gate = asyncio.Event(), asyncio.Event()
handled = set()

class Feed(EventProducer):
    async def start(self):
        await super().start()
        await nexus.ingest(Event(-1, "hung", -9, None))
        await hung.wait()
        await nexus.ingest(Event(-2, "gate", -9, None))
        await asyncio.sleep(0.01)
        await nexus.ingest_many(Event(n, "t", n % 3, None) for n in range(QUEUED))
        print("ready", flush=True)

class Stopped(AsyncEventNexus):
    def stop(self, *, grace=None):
        stopping = super().stop(grace=grace)
        began = time.perf_counter()
        try:
            self.ingest_nowait(Event(-3, "t", 0, None))
        except errors.LoopStopped:
            refused_after.append(time.perf_counter() - began)
        if MUTANT == "forgets":
            self.queue.get_nowait()
        gate.set()  # nothing was handled before: all of it is queued when the signal comes
        return stopping

nexus = Stopped(maxsize=QUEUED + 10, grace=GRACE)

async def hang(event):
    hung.set()
    await asyncio.sleep(3600)

nexus.add_handler("hung", hang, concurrency=1)
nexus.add_handler("gate", lambda event: gate.wait())
nexus.add_handler("t", lambda event: handled.add(event.id))
nexus.add_producer(Feed())
report = nexus.run()
print(json.dumps({
    "handled": len(handled), "during_stop": report.handled_during_stop,
    "remaining": [event.id for event in report.remaining], "balanced": report.stats.balanced,
    "stuck": report.stuck, "refused_after_s": refused_after[0],
}), flush=True)
"""


def drain(queued: int, grace: float, mutant: str = "none") -> dict[str, Any]:
    """Run the program, send SIGTERM when all is queued, and return what it told."""
    command = [sys.executable, "-c", PROGRAM, str(queued), str(grace), mutant]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(child.stdout, selectors.EVENT_READ)
                assert selector.select(60), "the program never got ready"
            assert child.stdout.readline() == b"ready\n"
            child.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            rest, _ = child.communicate(timeout=60 + grace)
            gone = time.monotonic()
        finally:
            child.kill()
    told: dict[str, Any] = json.loads(rest)
    told["status"] = child.returncode
    told["exit_s"] = gone - sent
    return told


def judge(told: dict[str, Any], queued: int) -> None:
    assert told["status"] == 0
    assert told["handled"] == queued
    assert told["during_stop"] == queued + 1
    assert told["refused_after_s"] < 0.01
    assert told["remaining"] == [-1]
    assert told["stuck"] == []
    assert told["balanced"]


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX sends them")
def test_sigterm_drains_by_the_deadline(form: Any, figures: Any) -> None:
    """All but the hung handler's event is handled, that one is reported, and the program ends in time."""
    queued, grace = form.size(20_000, 100_000), 1.0
    worst = 0.0
    rounds = form.size(1, 20)
    for _ in range(rounds):
        told = drain(queued, grace)
        judge(told, queued)
        worst = max(worst, told["exit_s"])
    figures(
        offered=rounds * (queued + 1), delivered=rounds * queued, lost=0, remaining=rounds, worst_exit_s=worst
    )
    assert worst <= (grace + 0.1 if form.is_long else grace + 10)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX sends them")
def test_drain_that_forgets_would_be_seen() -> None:
    """A stop that throws a lane away fails the judgement."""
    with pytest.raises((AssertionError, ValueError)):
        judge(drain(2000, 0.2, "forgets"), 2000)
