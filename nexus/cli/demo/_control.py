"""The control domain: handles what the plant sends, the most urgent first, and measures how long it took."""

import asyncio
import contextlib
import gc
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs
import zmq.asyncio

import nexus
from nexus._stats import LatencyRecorder
from nexus.boundaries.zmq import ZmqEventReceiver

from ._child import Orders, tell
from ._events import KINDS, Alarm
from ._recording import Recording, through_fifo, waits
from ._wires import listen

__all__ = ["control"]

LANE = 2000
"""Events that each lane of control holds; when one is full, its wire fills, then the plant's lane."""
BATCH = 32
"""Messages taken from a wire at once: urgent events wait while they are unpacked."""
WORK = {True: (10e-6, 30e-6), False: (50e-6, 250e-6)}
"""Seconds, from and to, that a handler works on an urgent event and on a reading."""
RECORDED = 2.0
"""Seconds of the flood that are kept to be sent through a FIFO queue."""
DRAINING = 10.0
"""Seconds in which everything sent must have come."""
Event = nexus.Event[Any]


@attrs.define(eq=False)
class Arrivals:
    """Counts what comes in, apart from the nexus's ledger."""

    recording: Recording
    count: int = attrs.field(default=0, init=False)
    _expected: float = attrs.field(default=float("inf"), init=False)
    _complete: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def add(self, event: Event) -> None:
        """Note that an event has come in."""
        self.recording.arrived(event.id)
        self.count += 1
        if self.count >= self._expected:
            self._complete.set()

    async def reach(self, expected: int) -> None:
        """Wait until this many have come in, over all."""
        self._expected = expected
        if self.count < expected:
            await self._complete.wait()


class Receiver(ZmqEventReceiver):
    """A receiver that notes each event before the nexus gets it."""

    def __init__(self, socket: zmq.asyncio.Socket, arrivals: Arrivals) -> None:
        super().__init__(socket, batch=BATCH)
        self.arrivals = arrivals

    def convert_data(self, data: bytes) -> Event:
        event = super().convert_data(data)
        self.arrivals.add(event)
        return event


@attrs.define(eq=False)
class Desk:
    """Control's handler: works on each event for a random while, and keeps what there is to say of it."""

    rng: random.Random
    recording: Recording
    handled: Counter[str] = attrs.field(factory=Counter, init=False)
    latency: dict[str, LatencyRecorder] = attrs.field(factory=dict, init=False)
    alarm: str = attrs.field(default="", init=False)
    """The last alarm, in words."""
    newest: dict[str, float] = attrs.field(factory=dict, init=False)
    """The newest value of each figure."""

    def handle(self, event: Event) -> None:
        """Take the latency first, then do the work."""
        began = time.monotonic()
        said, kind = event.payload, str(event.type)
        if kind not in self.latency:
            self.latency[kind] = LatencyRecorder()
        self.latency[kind].record(began - said["created"])
        self.newest[said["figure"]] = said["value"]
        if kind == Alarm.event_type:
            self.alarm = f"{said['figure']} {said['value']:.0f} % ({said['why']})"
        until = began + self.rng.uniform(*WORK[event.priority < 0])
        while time.monotonic() < until:
            pass
        self.handled[kind] += 1
        self.recording.done(event.id, event.priority)


async def control(settings: Mapping[str, Any], orders: Orders) -> None:
    """Handle what comes until all that was sent has come; try the same with a FIFO; tell the figures."""
    context = zmq.asyncio.Context()
    recording = Recording(min(RECORDED, settings["seconds"]))
    arrivals = Arrivals(recording)
    desk = Desk(random.Random(settings["seed"]), recording)
    domain = nexus.AsyncEventNexus(name="control", maxsize=LANE)
    for kind in KINDS:
        domain.add_handler(kind, desk.handle)
    wires = {wire: listen(context, bulk=wire == "bulk") for wire in ("urgent", "bulk")}
    for socket, _ in wires.values():
        domain.add_converter(Receiver(socket, arrivals))
    try:
        async with domain, asyncio.TaskGroup() as group:
            gc.collect()
            gc.freeze()
            tell("ready", wires={wire: endpoint for wire, (_, endpoint) in wires.items()})
            telling = tell_states(domain, desk, settings["show_every"])
            states = group.create_task(telling, name="nexus demo: states of control")
            sent = (await orders.next("drain"))["sent"]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAINING):
                    await arrivals.reach(sum(sent.values()))
                    await domain.drained()
            report = await domain.stop(grace=DRAINING)
            states.cancel()
    finally:
        context.destroy(linger=0)
    passages = recording.passages
    fifo = await through_fifo(passages)
    tell(
        "end",
        received=arrivals.count,
        handled=desk.handled,
        latency=latencies(desk),
        clean=report.clean,
        stats=report.stats.as_dict(),
        recorded={"seconds": recording.window, "events": len(passages)},
        priorities={
            "urgent": spread(waits(passages, urgent=True)),
            "bulk": spread(waits(passages, urgent=False)),
        },
        fifo={"urgent": spread(waits(fifo, urgent=True)), "bulk": spread(waits(fifo, urgent=False))},
    )


async def tell_states(domain: nexus.AsyncEventNexus, desk: Desk, every: float) -> None:
    """Tell again and again how things stand."""
    while True:
        queued, at = domain.stats().lanes, time.monotonic()
        tell("state", at=at, handled=desk.handled, queued=queued, latency=latencies(desk), alarm=desk.alarm)
        await asyncio.sleep(every)


def latencies(desk: Desk) -> dict[str, dict[str, float]]:
    """Say for each kind how long it took from its creation to its handler."""
    return {kind: recorder.snapshot().as_dict() for kind, recorder in desk.latency.items()}


def spread(times: list[float]) -> dict[str, float]:
    """Say how many there are, and the median, the 99th percentile and the longest, in seconds."""
    if not times:
        return {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    last = len(times) - 1
    return {"count": len(times), "p50": times[last // 2], "p99": times[last * 99 // 100], "max": times[-1]}
