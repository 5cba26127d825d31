"""Data between two processes: over our adapters, and over heisskleber's ZMQ with its broker between.

The near process sends dicts packed as JSON as fast as it can; the far one receives them one by one and says
how many came, and how fast. TCP on the loopback.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Any, Protocol

from benchmarks._harness import OURS, ROOT, Contest, Outcome, Target, peer

HEISSKLEBER = "heisskleber"
HEISSKLEBER_ZMQ = "heisskleber: ZMQ"
TCP = f"{OURS}: TCP"
HELLO = -1


class Ends(Protocol):
    """The two ends of one contestant; both have `start`, `stop` and `send` or `receive`."""

    turn: int
    """After how many messages the sender's loop is given a turn; for a `send` that never lets others in."""

    def receiver(self, port: int) -> Any:
        """Make the far end; `port` is what `between` said for it."""

    def sender(self, port: int) -> Any:
        """Make the near end; `port` is what `between` said for it, or, if that was 0, the far end's own."""

    def port_of(self, receiver: Any) -> int:
        """Give the port of a far end that was started."""
        ...

    def between(self) -> AbstractAsyncContextManager[tuple[int, int]]:
        """Run what is between the ends; gives the ports for the near and the far end."""
        ...


class TcpEnds:
    """Our receiver listens, our sender connects; a line a message."""

    turn = sys.maxsize

    def __init__(self) -> None:
        self.tcp = peer("nexus.adapters.tcp", OURS)

    def receiver(self, port: int) -> Any:
        return self.tcp.TcpReceiver(self.tcp.TcpConfig(host="127.0.0.1", port=port, listen=True))

    def sender(self, port: int) -> Any:
        return self.tcp.TcpSender(self.tcp.TcpConfig(host="127.0.0.1", port=port))

    def port_of(self, receiver: Any) -> int:
        return int(receiver.port)

    @asynccontextmanager
    async def between(self) -> AsyncIterator[tuple[int, int]]:
        yield 0, 0


class HeisskleberEnds:
    """heisskleber's own two, each connected to the XSUB/XPUB proxy that it needs."""

    turn = 100

    def __init__(self) -> None:
        self.zmq = peer("heisskleber.zmq", HEISSKLEBER)

    def receiver(self, port: int) -> Any:
        return self.zmq.ZmqReceiver(self.zmq.ZmqConf(subscriber_port=port), topic="zmq")

    def sender(self, port: int) -> Any:
        return self.zmq.ZmqSender(self.zmq.ZmqConf(publisher_port=port))

    def port_of(self, receiver: Any) -> int:
        return int(receiver.config.subscriber_port)

    @asynccontextmanager
    async def between(self) -> AsyncIterator[tuple[int, int]]:
        ports = _free_ports(2)
        async with _process("broker", *map(str, ports)) as broker:
            await broker.stdout.readline()
            yield ports[0], ports[1]


ENDS: dict[str, Callable[[], Ends]] = {TCP: TcpEnds, HEISSKLEBER_ZMQ: HeisskleberEnds}
"""The contestants by name."""


# The near side.


async def _rate(name: str, messages: int) -> Outcome:
    ends = ENDS[name]()
    async with (
        ends.between() as (near, far),
        _process("far", name, str(far), str(messages)) as process,
    ):
        port = int(await asyncio.wait_for(process.stdout.readline(), 30))
        sender = ends.sender(near or port)
        await sender.start()
        # A subscription takes its time, and nobody tells when it is there.
        await _repeat(sender, HELLO, process.stdout)
        gc.collect()
        for n in range(messages):
            await sender.send({"n": n, "value": 21.5})
            if n % ends.turn == 0:
                await asyncio.sleep(0)
        said = json.loads(await _repeat(sender, messages, process.stdout))
        await sender.stop()
    return Outcome({"rate": said["rate"], "arrived": 100 * said["arrived"] / messages})


async def _repeat(sender: Any, mark: int, stdout: asyncio.StreamReader) -> bytes:
    """Send a mark until the far side answers, for it may be lost; return the answer."""
    answer = asyncio.ensure_future(stdout.readline())
    async with asyncio.timeout(100):
        while not answer.done():
            await sender.send({"n": mark, "value": 0.0})
            await asyncio.wait([answer], timeout=0.05)
    return await answer


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.tcp", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


# The far side, in its own process: prints its port, that it hears, and then what came.


async def _far(name: str, port: int, messages: int) -> None:
    ends = ENDS[name]()
    receiver = ends.receiver(port)
    await receiver.start()
    print(ends.port_of(receiver), flush=True)
    data, _ = await receiver.receive()
    print("hears", flush=True)
    while data["n"] == HELLO:
        data, _ = await receiver.receive()
    arrived, start = 1, perf_counter()
    while data["n"] < messages:
        data, _ = await receiver.receive()
        arrived += 1
    arrived -= 1  # the mark of the end
    print(json.dumps({"rate": arrived / (perf_counter() - start), "arrived": arrived}), flush=True)
    await receiver.stop()


def _broker(publishers: int, subscribers: int) -> None:
    """Do what heisskleber's bin/zmq_broker.py does."""
    zmq = peer("zmq", "pyzmq")
    context = zmq.Context()
    front, back = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    front.bind(f"tcp://127.0.0.1:{publishers}")
    back.bind(f"tcp://127.0.0.1:{subscribers}")
    print("ready", flush=True)
    zmq.proxy(front, back)


def _contestant(name: str) -> Callable[..., Outcome]:
    def run(messages: int) -> Outcome:
        return asyncio.run(_rate(name, messages))

    return run


CONTESTS = (
    Contest(
        name="tcp.rate",
        title="messages received one by one in another process, a dict as JSON each",
        figures={"rate": "messages/s", "arrived": "% of those sent"},
        contestants={name: _contestant(name) for name in ENDS},
        full={"messages": 100_000},
        quick={"messages": 1_000},
        targets=(Target(TCP, HEISSKLEBER_ZMQ, at_least=5),),
    ),
)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "broker":
        _broker(int(arguments[0]), int(arguments[1]))
    else:
        asyncio.run(_far(arguments[0], int(arguments[1]), int(arguments[2])))
