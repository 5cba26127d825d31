"""The two processes of a durable link, which are killed at will.

    python durable_sides.py near PLACE FILE COUNT
    python durable_sides.py far PLACE FILE

PLACE is a transport and its ports: ``tcp:PORT``, ``zmq+tcp:PORT``, ``udp:PORT:PORT`` with the near side's
first, ``mqtt:PORT`` of a broker.

The near side gives events until each of the three priorities has had COUNT; a process that begins anew goes
on where its file says it was. It ends when all are accepted. The far side writes what came into its file, as
ranges, in the transaction that moves the cursor. It ends in good order when its standard input does.

``NEXUS_MUTANT`` makes them wrong on purpose: ``early`` acknowledges before the commit, ``split`` moves the
cursor in another transaction than the effect.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from nexus import AsyncEventNexus, Event
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.outbox import Connection, Effects, Outbox

PRIORITIES = (-1, 0, 5)
LIMITS = LinkLimits(heartbeat=0.5, maxsize=5000, patience=0.2)
CHUNK = 500
TABLE = "CREATE TABLE IF NOT EXISTS effect (priority INTEGER, first INTEGER, last INTEGER)"


def end(side: str, place: str, **options: Any) -> Link:
    """Make one end of the link."""
    kind, *ports = place.split(":")
    if kind == "udp":
        here, there = map(int, ports if side == "near" else reversed(ports))
        lossy = {"loss": 0.02}
        return Link.over_adapters(
            UdpSender(UdpConfig(port=there, max_size=1400)),
            UdpReceiver(UdpConfig(port=here)),
            chaos=lossy,
            **options,
        )
    if kind == "mqtt":
        topics = ("up", "down") if side == "near" else ("down", "up")
        broker: dict[str, Any] = {"host": "127.0.0.1", "port": int(ports[0])}
        sender = MqttSender[Any](MqttConfig(topic=topics[0], **broker))
        return Link.over_adapters(sender, MqttReceiver[Any](MqttConfig(topic=topics[1], **broker)), **options)
    make = Link.connect if side == "near" else Link.listen
    return make(f"{kind}://127.0.0.1:{ports[0]}", **options)


async def near(place: str, path: str, count: int) -> None:
    """Give what is left to give."""
    nexus = AsyncEventNexus(name="near", maxsize=2000)
    async with Outbox(path) as outbox:
        last = {priority: lane.last for priority, lane in outbox.lanes("near").items()}
        link = end("near", place, name="near", outbox=outbox, limits=LIMITS)
        nexus.register(link)
        nexus.add_handler("n", link)
        async with nexus:
            say("ready")
            numbers = {priority: last.get(priority, 0) for priority in PRIORITIES}
            while any(number < count for number in numbers.values()):
                events = []
                for priority, number in numbers.items():
                    upto = min(number + CHUNK, count)
                    events += [Event(n, "n", priority, n) for n in range(number + 1, upto + 1)]
                    numbers[priority] = upto
                await nexus.ingest_many(events)
            await nexus.drained()
            await link.flushed()
    say("done")


async def far(place: str, path: str) -> None:
    """Write down what comes."""
    nexus = AsyncEventNexus(name="far", maxsize=20_000)
    async with Outbox(path) as outbox:
        outbox.effect(lambda connection: connection.execute(TABLE), lambda exc: None)
        await outbox.durable()
        link = end("far", place, name="far", outbox=outbox, limits=LIMITS)
        nexus.register(link)
        nexus.add_handler("n", Effects(outbox, note))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        async with nexus:
            say("ready")
            await reader.read()


def note(connection: Connection, events: Sequence[Event[Any]]) -> None:
    """Write runs of numbers as ranges."""
    runs: dict[int, list[list[int]]] = {}
    for event in events:
        mine = runs.setdefault(event.priority, [])
        if mine and mine[-1][1] + 1 == event.payload:
            mine[-1][1] = event.payload
        else:
            mine.append([event.payload, event.payload])
    for priority, found in runs.items():
        for first, last in found:
            connection.execute("INSERT INTO effect VALUES (?, ?, ?)", (priority, first, last))


def say(word: str) -> None:
    """Tell the parent."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def mutate(how: str) -> None:
    """Make both sides wrong."""
    if how == "early":
        Outbox.then = lambda self, call: call()  # type: ignore[method-assign]
        plain = Outbox.effect

        def early(self: Outbox, apply: Any, done: Any) -> None:
            plain(self, apply, lambda exc: None)
            asyncio.get_running_loop().call_soon(done, None)

        Outbox.effect = early  # type: ignore[method-assign]
    elif how == "split":
        moved = Outbox.advance

        def later(self: Outbox, source: str, priority: int, cursor: Any) -> None:
            asyncio.get_running_loop().call_later(0.02, moved, self, source, priority, cursor)

        Outbox.advance = later  # type: ignore[method-assign]


if __name__ == "__main__":
    mutate(os.environ.get("NEXUS_MUTANT", ""))
    if sys.argv[1] == "near":
        asyncio.run(near(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        asyncio.run(far(sys.argv[2], sys.argv[3]))
