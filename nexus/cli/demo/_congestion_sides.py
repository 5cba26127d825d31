"""The two nexuses of a stream: the plant sends a flood and alarms, control says how long they took.

Two ways lead from the one to the other. *Plain*: a `TcpSender` and a `TcpReceiver` behind their boundaries;
the sender's lanes keep the priorities up to the socket, and in the socket the first come goes first.
*Linked*: a `Link`, of which a window's worth is on its way and no more. Both also over ZMQ, for who asks.
"""

import asyncio
import contextlib
import gc
import itertools
import socket
import time
from collections.abc import Mapping
from typing import Any

import nexus
from nexus.adapters import open_receiver, open_sender
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.boundaries.inbound import InboundBoundary
from nexus.boundaries.link import Link, LinkLimits
from nexus.boundaries.outbound import OutboundBoundary

from ._child import Orders, tell

__all__ = ["congested_control", "congested_plant"]

LINKS = {"link": "tcp", "zmq-link": "zmq+tcp"}
"""The scheme of each way that is a link."""
LANE = 1000
"""Events of one priority that the plant's nexus holds, and as many again the sender or the link."""
EVERY = 0.05
"""Seconds between two alarms."""
URGENT, BULK = -10, 10
NOTE = "a reading of the oven, with all that is usually said of where and how it was taken, " * 2
GRACE = 30.0
"""Seconds that everything under way may take at the end."""
Event = nexus.Event[Any]


def limits_of(settings: Mapping[str, Any]) -> LinkLimits:
    """Make the link's limits."""
    return LinkLimits(maxsize=LANE, target=settings["target"], most_window=settings["most_window"])


def made_of(data: Any, meta: Mapping[str, Any]) -> Event:
    """Make an event of a line of the plain stream."""
    number, type_, priority, payload = data
    return nexus.Event(number, type_, priority, payload)


async def congested_plant(settings: Mapping[str, Any], orders: Orders) -> None:
    """Make readings as fast as they go and an alarm now and then, until the order to stop; send all."""
    domain = nexus.AsyncEventNexus(name="plant", maxsize=LANE)
    link: Link | None = None
    way, port = settings["way"], settings["port"]
    if way in LINKS:
        link = Link.connect(f"{LINKS[way]}://127.0.0.1:{port}", limits=limits_of(settings))
        out: Any = link
    else:
        if way == "plain":
            sender: Any = TcpSender(TcpConfig(host="127.0.0.1", port=port, maxsize=LANE, flush_timeout=GRACE))
        else:
            sender = open_sender(f"zmq+push://127.0.0.1:{port}", maxsize=LANE, flush_timeout=GRACE)
        out = OutboundBoundary(
            sender, payload=lambda event: [event.id, event.type, event.priority, event.payload]
        )
    domain.register(out)
    for kind in ("alarm", "reading"):
        domain.add_handler(kind, out)
    made = {"alarm": 0, "reading": 0}
    async with domain:
        await (link.connected(GRACE) if link is not None else out.sender.connected(GRACE))
        gc.collect()
        gc.freeze()
        tell("ready")
        await orders.next("go")
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(flood(domain, made), name="nexus demo: flood"),
                group.create_task(alarms(domain, made), name="nexus demo: alarms"),
            ]
            await orders.next("stop")
            for task in tasks:
                task.cancel()
        ended = time.monotonic()
        await domain.drained()
        if link is not None:
            await link.flushed(GRACE)
        report = await domain.stop(grace=GRACE)
    stats = report.stats
    tell("end", made=made, began=began, ended=ended, ingested=stats.ingested, balanced=stats.balanced)


async def flood(domain: nexus.AsyncEventNexus, made: dict[str, int]) -> None:
    """Make readings; a full lane is what holds it up."""
    for n in itertools.count():
        await domain.ingest(event_of("reading", n, BULK, NOTE))
        made["reading"] += 1
        if n % 50 == 0:
            await asyncio.sleep(0)


async def alarms(domain: nexus.AsyncEventNexus, made: dict[str, int]) -> None:
    """Make an alarm now and then."""
    for n in itertools.count():
        await domain.ingest(event_of("alarm", n, URGENT, ""))
        made["alarm"] += 1
        await asyncio.sleep(EVERY)


def event_of(kind: str, n: int, priority: int, note: str) -> Event:
    """Make an event that says when it was made, on the clock that all processes of a host share."""
    return nexus.Event(n, kind, priority, {"made": time.monotonic(), "n": n, "value": 21.5, "note": note})


class Desk:
    """Control's handlers: count, and keep how long each alarm was on the way."""

    def __init__(self) -> None:
        self.handled = {"alarm": 0, "reading": 0}
        self.waits: list[tuple[float, float]] = []
        """When each alarm was made and how long it took, in seconds."""
        self.marks: list[tuple[float, int]] = []
        """How many readings were handled at which time."""
        self._expected = float("inf")
        self._complete = asyncio.Event()

    def alarm(self, event: Event) -> None:
        """Take note of an alarm."""
        made = event.payload["made"]
        self.waits.append((made, time.monotonic() - made))
        self._count("alarm")

    def reading(self, event: Event) -> None:
        """Count a reading."""
        self._count("reading")

    async def reach(self, expected: int) -> None:
        """Wait until this many events were handled, over all, or `GRACE` is over."""
        self._expected = expected
        self._look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._complete.wait()

    def _count(self, kind: str) -> None:
        self.handled[kind] += 1
        self._look()

    def _look(self) -> None:
        if self.handled["alarm"] + self.handled["reading"] >= self._expected:
            self._complete.set()

    def figures(self, since: float = 0.0, until: float = float("inf")) -> dict[str, Any]:
        """Say what there is to say of a time, from and to, in seconds on the shared clock.

        ``p50`` and ``p99`` are seconds, ``rate`` is readings a second; None before there is any.
        """
        waits = sorted(wait for made, wait in self.waits if since <= made <= until)
        marks = [mark for mark in self.marks if since <= mark[0] <= until]
        span = marks[-1][0] - marks[0][0] if marks else 0.0
        return {
            "alarms": len(waits),
            "p50": waits[(len(waits) - 1) // 2] if waits else None,
            "p99": waits[(len(waits) - 1) * 99 // 100] if waits else None,
            "rate": (marks[-1][1] - marks[0][1]) / span if span else None,
        }


async def congested_control(settings: Mapping[str, Any], orders: Orders) -> None:
    """Handle what comes until all that was made has come; tell the figures."""
    desk = Desk()
    domain = nexus.AsyncEventNexus(name="control")
    domain.add_handler("alarm", desk.alarm)
    domain.add_handler("reading", desk.reading)
    way, port = settings["way"], 0
    door: Any = None
    if way in LINKS:
        source: Any = Link.listen(f"{LINKS[way]}://127.0.0.1:0", limits=limits_of(settings))
        door = source
    elif way == "plain":
        door = TcpReceiver(TcpConfig(host="127.0.0.1", port=0, listen=True, maxsize=LANE))
        source = InboundBoundary(door, made_of)
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        source = InboundBoundary(open_receiver(f"zmq+pull://127.0.0.1:{port}", maxsize=LANE), made_of)
    domain.register(source)
    async with domain, asyncio.TaskGroup() as group:
        if not port:
            await opened(door)
            port = door.port
        gc.collect()
        gc.freeze()
        tell("ready", port=port)
        states = group.create_task(tell_states(desk, settings["show_every"]), name="nexus demo: states")
        order = await orders.next("drain")
        await desk.reach(sum(order["made"].values()))
        states.cancel()
        report = await domain.stop(grace=GRACE)
    stats = report.stats
    tell("end", handled=desk.handled, balanced=stats.balanced, **desk.figures(order["since"], order["until"]))


async def opened(door: Any) -> None:
    """Wait until a listener that was registered listens."""
    async with asyncio.timeout(GRACE):
        while not door.port:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def tell_states(desk: Desk, every: float) -> None:
    """Tell again and again how things stand: the median of the last 40 alarms, the rate of two seconds."""
    while True:
        now = time.monotonic()
        desk.marks.append((now, desk.handled["reading"]))
        waits = sorted(wait for _, wait in desk.waits[-40:])
        tell(
            "state",
            alarms=desk.handled["alarm"],
            readings=desk.handled["reading"],
            p50=waits[len(waits) // 2] if waits else None,
            age=now - desk.waits[-1][0] if waits else None,
            rate=desk.figures(now - 2.0)["rate"],
        )
        await asyncio.sleep(every)
