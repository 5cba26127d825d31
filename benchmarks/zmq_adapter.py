"""Data from a ZMQ sender in one process to a receiver in another, adapters alone, without a nexus.

Each package packs and unpacks JSON with its own packers. heisskleber cannot do without a broker: both go
through libzmq's own proxy, on a thread of the receiving process; we once more without it, and that again
encrypted by CURVE.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from benchmarks._harness import OURS, ROOT, Contest, Outcome, Target, peer

PEER = "heisskleber"
DIRECT = f"{OURS}, no broker"
CURVE = f"{OURS}, no broker, CURVE"
END = -1


def _adapter(package: str, ports: tuple[int, int], key: str, *, receives: bool) -> Any:
    """Make a receiver with its secret key, or a sender with the receiver's public key, of the package."""
    if package == PEER:
        module = peer("heisskleber.zmq", PEER)
        config = module.ZmqConf(publisher_port=ports[0], subscriber_port=ports[1])
    else:
        module = peer("nexus.adapters.zmq", OURS)
        config = module.ZmqConfig(publisher_port=ports[0], subscriber_port=ports[1])
        if package in (DIRECT, CURVE):
            config = config.with_options(pattern="pubsub", port=ports[0], bind=receives)
        if package == CURVE:
            config = config.with_options(**{"curve_secret" if receives else "curve_server": key})
    return module.ZmqReceiver(config, "t") if receives else module.ZmqSender(config)


async def _receive(package: str, messages: int) -> Outcome:
    """Count what comes from the far sender until it says that it has sent all."""
    public, secret = (key.decode() for key in peer("zmq", "pyzmq").curve_keypair())
    between = _no_proxy if package in (DIRECT, CURVE) else _proxy
    async with between() as ports:
        receiver = _adapter(package, ports, secret, receives=True)
        await receiver.start()
        command = ("-m", "benchmarks.zmq_adapter", package, *map(str, ports), public, str(messages))
        far = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT)
        try:
            await receiver.receive()
            start, count, last = perf_counter(), 0, 0.0
            while data := await _take(receiver, package):
                count += len(data)
                last = perf_counter()
            rate = count / (last - start)
        finally:
            far.terminate()
            await far.wait()
        await receiver.stop()
    return Outcome({"rate": rate}, None)


async def _take(receiver: Any, package: str) -> list[Any]:
    """Take what the package gives in one call; nothing once the end has come."""
    items = [await receiver.receive()] if package == PEER else await receiver.receive_many()
    return [data for data, _ in items if data["n"] != END]


@asynccontextmanager
async def _proxy() -> AsyncIterator[tuple[int, int]]:
    zmq = peer("zmq", "pyzmq")
    context = zmq.Context()
    sockets = [context.socket(zmq.XSUB), context.socket(zmq.XPUB)]
    ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in sockets]

    def run() -> None:
        try:
            zmq.proxy(*sockets)
        except zmq.ContextTerminated:
            pass
        finally:
            for socket in sockets:
                socket.close(linger=0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ports[0], ports[1]
    finally:
        context.term()
        thread.join()


@asynccontextmanager
async def _no_proxy() -> AsyncIterator[tuple[int, int]]:
    zmq = peer("zmq", "pyzmq")
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    yield port, port


async def _send(package: str, ports: tuple[int, int], key: str, messages: int) -> None:
    """Send, as fast as the package lets one, in a process of its own."""
    sender = _adapter(package, ports, key, receives=False)
    await sender.start()
    # heisskleber cannot tell when it is connected.
    await (asyncio.sleep(0.5) if package == PEER else sender.subscribed("t", 10))
    for number in range(messages):
        await sender.send({"n": number, "value": 21.5, "unit": "degC"}, topic="t")
    while True:
        await asyncio.sleep(0.05)
        await sender.send({"n": END}, topic="t")


def _of(package: str, share: float = 1.0) -> Callable[..., Outcome]:
    return lambda messages: asyncio.run(_receive(package, max(100, int(messages * share))))


CONTESTS = (
    Contest(
        name="zmq_adapter.rate",
        title="data received from a sender in another process, PUB/SUB and JSON",
        figures={"rate": "messages/s"},
        contestants={OURS: _of(OURS), DIRECT: _of(DIRECT), CURVE: _of(CURVE), PEER: _of(PEER, 0.2)},
        full={"messages": 200_000},
        quick={"messages": 1_000},
        targets=(
            Target(OURS, PEER, at_least=5),
            Target(DIRECT, PEER, at_least=5),
            Target(CURVE, DIRECT, at_least=0.7),
        ),
    ),
)


if __name__ == "__main__":
    package, publishers, subscribers, key, count = sys.argv[1:]
    asyncio.run(_send(package, (int(publishers), int(subscribers)), key, int(count)))
