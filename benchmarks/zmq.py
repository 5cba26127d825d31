"""Events between two processes over ZMQ, in the wire form async-nexus speaks.

The far process binds a PULL and connects a PUSH back; the near one the other way round; TCP on the
loopback.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from benchmarks._harness import OURS, ROOT, Contest, Outcome, Target, peer, percentile
from benchmarks.peers import async_nexus_idle_converter

WARM = 200
ANCESTOR = "async-nexus"
RAW = "floor: raw zmq.asyncio echo"
PAYLOAD = 21.5


class Wire:
    """A PUSH and a PULL socket of zmq.asyncio, and which package's classes use them."""

    def __init__(self, package: str) -> None:
        if package != RAW:
            names = (
                ("nexus", "nexus.boundaries.zmq") if package == OURS else ("async_nexus", "async_nexus.zmq")
            )
            self.core, self.boundary = (peer(name, package) for name in names)
        self.package = package
        self.zmq = peer("zmq", "pyzmq")
        self.context = peer("zmq.asyncio", "pyzmq").Context()
        self.push = self.context.socket(self.zmq.PUSH)
        self.pull = self.context.socket(self.zmq.PULL)
        self.port = self.pull.bind_to_random_port("tcp://127.0.0.1")

    def connect(self, port: int) -> None:
        """Connect the PUSH socket to the other side."""
        self.push.connect(f"tcp://127.0.0.1:{port}")

    def nexus(self) -> Any:
        """Return a nexus that receives from the PULL socket."""
        nexus = self.core.AsyncEventNexus()
        nexus.add_converter(self.boundary.ZmqEventReceiver(self.pull))
        return nexus

    def sender(self) -> Any:
        """Return the handler that sends to the PUSH socket."""
        return self.boundary.ZmqEventSender(self.push)

    def event(self, n: int, type_: str, payload: object = PAYLOAD) -> Any:
        """Make an event of the package's own class."""
        return self.core.Event(n, type_, 0, payload)

    def close(self) -> None:
        """Close both sockets, and drop what is unsent."""
        self.context.destroy(linger=0)


# The near side.


async def throughput(package: str, events: int, payload: object = PAYLOAD) -> Outcome:
    """Send events through a nexus; the far side says how fast it handled them."""
    wire = Wire(package)
    async with _far("count", package, wire, events) as far:
        nexus = wire.core.AsyncEventNexus()
        nexus.add_handler("reading", wire.sender())
        if package == ANCESTOR:
            nexus.add_converter(async_nexus_idle_converter())
        task = nexus.start()
        await _settle()
        made = [wire.event(n, "reading", payload) for n in range(events)]
        gc.collect()
        for n, event in enumerate(made):
            await nexus.ingest(event)
            if n % 100 == 0:
                # The ancestor's ingest never yields: without this nothing would leave before the end.
                await asyncio.sleep(0)
        said = json.loads(await asyncio.wait_for(far.stdout.readline(), 100))
        balanced = await _stop(nexus, task, package)
    wire.close()
    if package == OURS:
        balanced = bool(balanced and said["balanced"])
    return Outcome({"rate": said["rate"]}, balanced)


async def _round_trip(package: str, pings: int) -> Outcome:
    """Ingest a ping here, have it handled there, and wait for the answer's handler here."""
    wire = Wire(package)
    async with _far("echo", package, wire, pings):
        loop = asyncio.get_running_loop()
        back: asyncio.Future[None] = loop.create_future()

        async def handle_answer(event: Any, queue: object) -> None:
            back.set_result(None)

        nexus = wire.nexus()
        nexus.add_handler("ping", wire.sender())
        nexus.add_handler("pong", handle_answer)
        task = nexus.start()
        await _settle()
        waits = []
        for n in range(WARM + pings):
            back = loop.create_future()
            start = perf_counter()
            await nexus.ingest(wire.event(n, "ping"))
            await back
            waits.append(perf_counter() - start)
        balanced = await _stop(nexus, task, package)
    wire.close()
    return _trips(waits, balanced)


async def _raw_round_trip(pings: int) -> Outcome:
    """Send the same bytes and receive the far side's echo: zmq.asyncio and nothing else."""
    wire = Wire(RAW)
    data = json.dumps({"id": 1, "type": "ping", "priority": 0, "payload": PAYLOAD}).encode()
    async with _far("raw", RAW, wire, pings):
        waits = []
        for _ in range(WARM + pings):
            start = perf_counter()
            await wire.push.send(data)
            await wire.pull.recv()
            waits.append(perf_counter() - start)
    wire.close()
    return _trips(waits, None)


def _trips(waits: list[float], balanced: bool | None) -> Outcome:
    timed = waits[WARM:]
    return Outcome({"p50": percentile(timed, 50) * 1e6, "p99": percentile(timed, 99) * 1e6}, balanced)


@asynccontextmanager
async def _far(role: str, package: str, wire: Wire, count: int) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.zmq", role, package, str(wire.port), str(count),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        wire.connect(int(await asyncio.wait_for(process.stdout.readline(), 30)))
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _stop(nexus: Any, task: asyncio.Task[Any], package: str) -> bool | None:
    if package == ANCESTOR:
        task.cancel()
        return None
    report = await nexus.stop()
    balanced: bool = report.stats.balanced
    return balanced


# The far side, in its own process: prints its port, then what it measured.


async def _far_main(role: str, package: str, port: int, count: int) -> None:
    wire = Wire(package)
    wire.connect(port)
    print(wire.port, flush=True)
    await {"count": _count, "echo": _echo, "raw": _raw}[role](wire, count)


async def _count(wire: Wire, count: int) -> None:
    done = asyncio.Event()
    seen = 0
    start = 0.0

    async def handle(event: Any, queue: object) -> None:
        nonlocal seen, start
        seen += 1
        if seen == 1:
            start = perf_counter()
        elif seen == count:
            done.set()

    nexus = wire.nexus()
    nexus.add_handler("reading", handle)
    task = nexus.start()
    await done.wait()
    rate = (count - 1) / (perf_counter() - start)
    balanced = await _stop(nexus, task, wire.package)
    print(json.dumps({"rate": rate, "balanced": balanced}), flush=True)


async def _echo(wire: Wire, count: int) -> None:
    sender = wire.sender()

    async def answer(event: Any, queue: object) -> None:
        await sender.handle(wire.event(event.id, "pong"), queue)

    nexus = wire.nexus()
    nexus.add_handler("ping", answer)
    nexus.start()
    await asyncio.Event().wait()


async def _raw(wire: Wire, count: int) -> None:
    while True:
        await wire.push.send(await wire.pull.recv())


def _here(
    measure: Callable[..., Awaitable[Outcome]], *arguments: str, share: float = 1.0
) -> Callable[..., Outcome]:
    def contestant(**parameters: int) -> Outcome:
        (count,) = parameters.values()
        return asyncio.run(measure(*arguments, max(100, int(count * share))))  # type: ignore[arg-type]

    return contestant


CONTESTS = (
    Contest(
        name="zmq.rate",
        title="events handled on the far side of PUSH/PULL, nexus to nexus",
        figures={"rate": "events/s"},
        contestants={OURS: _here(throughput, OURS), ANCESTOR: _here(throughput, ANCESTOR, share=0.2)},
        full={"events": 100_000},
        quick={"events": 1_000},
        targets=(Target(OURS, ANCESTOR, at_least=10),),
    ),
    Contest(
        name="zmq.round-trip",
        title="a lone event to the far nexus, whose handler answers, and back",
        figures={"p50": "us", "p99": "us"},
        contestants={
            OURS: _here(_round_trip, OURS),
            ANCESTOR: _here(_round_trip, ANCESTOR),
            RAW: _here(_raw_round_trip),
        },
        full={"pings": 3_000},
        quick={"pings": 100},
        targets=(Target(OURS, RAW, at_most=1.2),),
    ),
)


if __name__ == "__main__":
    role, package, port, count = sys.argv[1:]
    asyncio.run(_far_main(role, package, int(port), int(count)))
