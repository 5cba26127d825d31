"""Whole events between two nexuses in two processes over the link: how many, and how soon a lone one is back.

The far process listens, the near one connects, on the loopback. An event's payload is an object of about 60
bytes as JSON. The far process counts what its handler gets, from the first to the last; the near one makes
sure that all of it was acknowledged.

The floors hand over plain lists. For the rate they put 64 events in a frame, with orjson, and acknowledge
nothing; for the round trip they return the very bytes that the link sends for such an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import orjson

from benchmarks import zmq as plain
from benchmarks._harness import ROOT, Contest, Outcome, Target, peer, percentile
from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link
from nexus.boundaries.link._frames import pack_events

ZMQ = "event-nexus: link, ZMQ"
TCP = "event-nexus: link, TCP"
ANCESTOR = "async-nexus: its ZMQ"
RAW_BATCHES = "floor: raw zmq.asyncio, 64 events a frame"
RAW_ZMQ = "floor: raw DEALER and ROUTER, zmq.asyncio"
RAW_TCP = "floor: raw asyncio streams"
SCHEMES = {ZMQ: "zmq+tcp", TCP: "tcp"}

PAYLOAD = {"sensor": "oven-3", "value": 21.5, "unit": "C", "at": 1763764500.25}
BATCH = 64
WARM = 200


# The near side.


async def _link_rate(scheme: str, events: int) -> Outcome:
    """Send events over a link; the far side says how fast it handled them."""
    async with _far("count", scheme, events) as (far, port):
        nexus, link = AsyncEventNexus(), Link.connect(f"{scheme}://127.0.0.1:{port}")
        nexus.register(link)
        nexus.add_handler("reading", link)
        async with nexus:
            await link.connected(10)
            made = [Event(n, "reading", 0, PAYLOAD) for n in range(events)]
            gc.collect()
            for n, event in enumerate(made):
                await nexus.ingest(event)
                if n % 100 == 0:  # as towards the ancestor, whose ingest never yields
                    await asyncio.sleep(0)
            await nexus.drained()
            all_accepted = await link.flushed(60) and link.counts.accepted == events
            said = json.loads(await asyncio.wait_for(far.stdout.readline(), 100))
            balanced = nexus.stats().balanced
    return Outcome({"rate": said["rate"]}, bool(balanced and said["balanced"] and all_accepted))


async def _raw_rate(events: int) -> Outcome:
    """Push frames of 64 events; the far side says how fast it read them."""
    zmq, context = peer("zmq", "pyzmq"), peer("zmq.asyncio", "pyzmq").Context()
    async with _far("raw-count", "", events) as (far, port):
        push = context.socket(zmq.PUSH)
        push.connect(f"tcp://127.0.0.1:{port}")
        made = [(n, "reading", 0, PAYLOAD) for n in range(events)]
        gc.collect()
        for n in range(0, events, BATCH):
            await push.send(orjson.dumps(made[n : n + BATCH]))
        said = json.loads(await asyncio.wait_for(far.stdout.readline(), 100))
    context.destroy(linger=0)
    return Outcome({"rate": said["rate"]})


async def _link_round_trip(scheme: str, pings: int) -> Outcome:
    """Ingest a ping here, have it handled there, and wait for the answer's handler here."""
    async with _far("echo", scheme, pings) as (_, port):
        loop = asyncio.get_running_loop()
        back: asyncio.Future[None] = loop.create_future()

        async def handle_answer(event: Any, queue: object) -> None:
            back.set_result(None)

        nexus, link = AsyncEventNexus(), Link.connect(f"{scheme}://127.0.0.1:{port}")
        nexus.register(link)
        nexus.add_handler("ping", link)
        nexus.add_handler("pong", handle_answer)
        async with nexus:
            await link.connected(10)
            waits = []
            for n in range(WARM + pings):
                back = loop.create_future()
                start = perf_counter()
                await nexus.ingest(Event(n, "ping", 0, PAYLOAD))
                await back
                waits.append(perf_counter() - start)
            balanced = nexus.stats().balanced
    return _trips(waits, balanced)


async def _raw_zmq_round_trip(pings: int) -> Outcome:
    """Send the same bytes and receive the far side's echo: zmq.asyncio and nothing else."""
    zmq, context = peer("zmq", "pyzmq"), peer("zmq.asyncio", "pyzmq").Context()
    async with _far("raw-zmq", "", pings) as (_, port):
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        waits = []
        for _ in range(WARM + pings):
            start = perf_counter()
            await dealer.send(_bytes_of_a_ping())
            await dealer.recv()
            waits.append(perf_counter() - start)
    context.destroy(linger=0)
    return _trips(waits, None)


async def _raw_tcp_round_trip(pings: int) -> Outcome:
    """Send the same bytes and receive the far side's echo: asyncio's streams and nothing else."""
    async with _far("raw-tcp", "", pings) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        waits = []
        for _ in range(WARM + pings):
            start = perf_counter()
            writer.write(data := _bytes_of_a_ping())
            await reader.readexactly(len(data))
            waits.append(perf_counter() - start)
        writer.close()
        await writer.wait_closed()
    return _trips(waits, None)


def _bytes_of_a_ping() -> bytes:
    return pack_events(0, 1, 1, [orjson.dumps((1, "ping", PAYLOAD))])


def _trips(waits: list[float], balanced: bool | None) -> Outcome:
    timed = waits[WARM:]
    return Outcome({"p50": percentile(timed, 50) * 1e6, "p99": percentile(timed, 99) * 1e6}, balanced)


@asynccontextmanager
async def _far(role: str, scheme: str, count: int) -> AsyncIterator[tuple[Any, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.link_rate", role, scheme, str(count),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, int(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


# The far side, in its own process: prints its port, then what it measured.


class _Count:
    """Counts to the end, and says how fast that went."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._start = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def handle(self, event: Any, queue: object = None) -> None:
        self._seen += 1
        if self._seen == 1:
            self._start = perf_counter()
        elif self._seen == self._count:
            self.done.set_result((self._count - 1) / (perf_counter() - self._start))


async def _count(scheme: str, count: int) -> None:
    counter = _Count(count)
    nexus, link = AsyncEventNexus(), Link.listen(f"{scheme}://127.0.0.1:0")
    nexus.register(link)
    nexus.add_handler("reading", counter.handle)
    async with nexus:
        print(link.port, flush=True)
        rate = await counter.done
        await nexus.drained()
        print(json.dumps({"rate": rate, "balanced": nexus.stats().balanced}), flush=True)
        await asyncio.Event().wait()


async def _echo(scheme: str, count: int) -> None:
    nexus, link = AsyncEventNexus(), Link.listen(f"{scheme}://127.0.0.1:0")

    async def answer(event: Any, queue: object) -> None:
        await link.handle(Event(event.id, "pong", 0, PAYLOAD))

    nexus.register(link)
    nexus.add_handler("ping", answer)
    async with nexus:
        print(link.port, flush=True)
        await asyncio.Event().wait()


async def _raw_count(scheme: str, count: int) -> None:
    zmq, context = peer("zmq", "pyzmq"), peer("zmq.asyncio", "pyzmq").Context()
    pull = context.socket(zmq.PULL)
    print(pull.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    counter = _Count(count)
    while not counter.done.done():
        for row in orjson.loads(await pull.recv()):
            await counter.handle(row)
    print(json.dumps({"rate": counter.done.result()}), flush=True)
    await asyncio.Event().wait()


async def _raw_zmq(scheme: str, count: int) -> None:
    zmq, context = peer("zmq", "pyzmq"), peer("zmq.asyncio", "pyzmq").Context()
    router = context.socket(zmq.ROUTER)
    print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    while True:
        await router.send_multipart(await router.recv_multipart())


async def _raw_tcp(scheme: str, count: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(_bytes_of_a_ping())
        while not reader.at_eof():
            try:
                writer.write(await reader.readexactly(size))
            except asyncio.IncompleteReadError:
                break

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


_ROLES: dict[str, Callable[[str, int], Coroutine[Any, Any, None]]] = {
    "count": _count,
    "echo": _echo,
    "raw-count": _raw_count,
    "raw-zmq": _raw_zmq,
    "raw-tcp": _raw_tcp,
}


def _here(
    measure: Callable[..., Awaitable[Outcome]], *arguments: Any, share: float = 1.0
) -> Callable[..., Outcome]:
    def contestant(**parameters: int) -> Outcome:
        (count,) = parameters.values()
        return asyncio.run(measure(*arguments, max(100, int(count * share))))  # type: ignore[arg-type]

    return contestant


async def _ancestor_rate(events: int) -> Outcome:
    return await plain.throughput("async-nexus", events, PAYLOAD)


CONTESTS = (
    Contest(
        name="link.rate",
        title="events handled on the far side of a link, nexus to nexus, all acknowledged",
        figures={"rate": "events/s"},
        contestants={
            **{name: _here(_link_rate, scheme) for name, scheme in SCHEMES.items()},
            ANCESTOR: _here(_ancestor_rate, share=0.05),
            RAW_BATCHES: _here(_raw_rate),
        },
        full={"events": 400_000},
        quick={"events": 2_000},
        targets=(
            Target(ZMQ, ANCESTOR, at_least=25),
            Target(TCP, ANCESTOR, at_least=25),
            Target(ZMQ, RAW_BATCHES, at_least=0.5),
            Target(TCP, RAW_BATCHES, at_least=0.5),
        ),
    ),
    Contest(
        name="link.round-trip",
        title="a lone event over a link to the far nexus, whose handler answers, and back",
        figures={"p50": "us", "p99": "us"},
        contestants={
            ZMQ: _here(_link_round_trip, SCHEMES[ZMQ]),
            RAW_ZMQ: _here(_raw_zmq_round_trip),
            TCP: _here(_link_round_trip, SCHEMES[TCP]),
            RAW_TCP: _here(_raw_tcp_round_trip),
        },
        full={"pings": 3_000},
        quick={"pings": 100},
        targets=(
            Target(ZMQ, RAW_ZMQ, at_most=1.3),
            Target(TCP, RAW_ZMQ, at_most=1.3),
            Target(TCP, RAW_TCP, at_most=1.3),
        ),
    ),
)


async def _far_main(role: str, scheme: str, count: int) -> None:
    """Play a role until the near side is gone."""
    playing = asyncio.ensure_future(_ROLES[role](scheme, count))
    asyncio.get_running_loop().add_reader(sys.stdin, playing.cancel)
    await playing


if __name__ == "__main__":
    role, scheme, count = sys.argv[1:]
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_far_main(role, scheme, int(count)))
