"""The plant domain: reads the machine and sends what it reads, the urgent things first."""

import asyncio
import gc
import random
import time
from collections.abc import Mapping
from typing import Any

import zmq.asyncio

import nexus
from nexus.boundaries.zmq import ZmqEventSender

from ._child import Orders, tell
from ._events import BULK, KINDS, URGENT
from ._machine import Processes
from ._sources import AlarmTest, Beat, MachineReadings, Maker, ProcessReadings
from ._wires import connect

__all__ = ["plant"]

LANE = 1000
"""Events that each lane of the plant holds."""
GRACE = 10.0
"""Seconds that the plant may take to send what it still holds."""


async def plant(settings: Mapping[str, Any], orders: Orders) -> None:
    """Make the flood and send it, until the order to stop; then send what is left, and tell the figures."""
    context = zmq.asyncio.Context()
    sockets = {
        wire: connect(context, endpoint, bulk=wire == "bulk") for wire, endpoint in settings["wires"].items()
    }
    domain = nexus.AsyncEventNexus(name="plant", maxsize=LANE)
    maker = Maker(domain)
    for wire, kinds in (("urgent", URGENT), ("bulk", BULK)):
        sender = ZmqEventSender(sockets[wire])
        for kind in kinds:
            domain.set_policy(kind, kind.policy)
            # Beside the nexus's own task: a full bulk wire must not keep the urgent events waiting.
            domain.add_handler(kind, sender, concurrency=1)
    for source in sources(maker, rate=settings["rate"], seed=settings["seed"]):
        domain.register(source)
    try:
        async with domain, asyncio.TaskGroup() as group:
            gc.collect()
            gc.freeze()
            tell("ready")
            telling = tell_states(domain, maker, settings["show_every"])
            states = group.create_task(telling, name="nexus demo: states of the plant")
            await orders.next("stop")
            # The sources first, while the queue still takes events: what they have made is then all ingested.
            for source in (*domain.converters, *domain.producers):
                await domain.remove_source(source)
            report = await domain.stop(grace=GRACE)
            states.cancel()
        stats = report.stats
        sent = {kind.event_type: counts_of(stats, kind).handled for kind in KINDS}
        tell("end", made=maker.made, sent=sent, clean=report.clean, stats=stats.as_dict())
        # Plain ZMQ may lose what is on the wire when an end is closed: control first has to have it.
        await orders.next("close")
    finally:
        context.destroy(linger=0)


def sources(maker: Maker, *, rate: float, seed: int) -> list[nexus.EventSource]:
    """Make the plant's sources; the test of the alarm line looks at what the flood has read."""
    processes = Processes()
    return [
        MachineReadings(maker),
        ProcessReadings(maker, processes=processes, rate=rate, rng=random.Random(seed)),
        AlarmTest(maker, processes),
        Beat(maker),
    ]


async def tell_states(domain: nexus.AsyncEventNexus, maker: Maker, every: float) -> None:
    """Tell again and again how things stand."""
    kinds = {
        kind.event_type: {"priority": kind.urgency, "policy": type(kind.policy).__name__} for kind in KINDS
    }
    while True:
        stats = domain.stats()
        dropped = {str(kind): counts.drops for kind, counts in stats.types.items() if counts.drops}
        tell("state", at=time.monotonic(), kinds=kinds, made=maker.made, queued=stats.lanes, dropped=dropped)
        await asyncio.sleep(every)


def counts_of(stats: nexus.Stats, kind: type[nexus.NamedEvent[Any]]) -> nexus.TypeCounts:
    """Return the ledger's counts of one kind; all 0 when none was seen."""
    return stats.types.get(kind.event_type, nexus.TypeCounts())
