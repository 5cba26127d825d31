"""Alarms and a flood from one process to another, over a TCP connection that carries 2 MB/s.

A relay between the two carries so much. It takes packets of 1448 bytes and asks its system for a buffer of
64 KiB; the other buffers are as the system makes them. How much the sender's takes is what an alarm waits for
on the plain stream: about 1 MB on Linux, and 3.5 MB with the loopback's own packets, where the wait and the
ratio are three times as large.

The flood is readings of about 200 bytes as fast as they go, held up by a full lane; an alarm is made every
50 ms. Measured is from the making of an alarm to its handler in the other process, and how many readings are
handled a second meanwhile. Everything under way is let arrive at the end, so that no wait is left out for
being long.

*Plain* is the same stream without a window: `OutboundBoundary` over `TcpSender`, `TcpReceiver` behind
`InboundBoundary`. The sender has a lane for each priority, so that an alarm overtakes there; behind it is
one FIFO, up to 64 KiB in the transport and what the sockets at both ends of the line take. Over ZMQ it is a
PUSH and a PULL, with the high-water marks of their adapters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks import link_durable, link_rate
from benchmarks._harness import Contest, Outcome, Target, peer
from nexus.boundaries.link import LinkLimits
from nexus.cli.demo._congestion_run import Congestion, congest

PLAIN = "plain TCP stream"
LINK = "link, target 1 ms"
DEFAULT = "link, its own limits"
PLAIN_ZMQ = "plain ZMQ, PUSH and PULL"
ZMQ = "link over ZMQ, target 1 ms"


def _contestant(way: str, target: float) -> Callable[..., Outcome]:
    def run(seconds: float) -> Outcome:
        peer("psutil", "psutil")  # the processes are those of the demo
        settings = Congestion(seconds=seconds, target=target)
        found = asyncio.run(congest(settings, [way]))[way]
        figures = {"p50": found.p50 * 1e3, "p99": found.p99 * 1e3, "readings": found.rate}
        return Outcome(figures, found.balanced)

    return run


CONTESTS = (
    Contest(
        name="link.congestion",
        title="alarms on a line of 2 MB/s that a flood of readings saturates",
        figures={"p50": "ms", "p99": "ms", "readings": "readings/s"},
        contestants={
            PLAIN: _contestant("plain", LinkLimits().target),
            LINK: _contestant("link", 0.001),
            DEFAULT: _contestant("link", LinkLimits().target),
            PLAIN_ZMQ: _contestant("zmq", LinkLimits().target),
            ZMQ: _contestant("zmq-link", 0.001),
        },
        full={"seconds": 6.0},
        quick={"seconds": 1.0},
        targets=(
            Target(PLAIN, LINK, at_least=300),
            Target(LINK, PLAIN, at_least=0.85, figure="readings"),
            Target(DEFAULT, PLAIN, at_least=0.85, figure="readings"),
            Target(PLAIN_ZMQ, ZMQ, at_least=300),
            Target(ZMQ, PLAIN_ZMQ, at_least=0.85, figure="readings"),
        ),
    ),
    *link_rate.CONTESTS,
    *link_durable.CONTESTS,
)
