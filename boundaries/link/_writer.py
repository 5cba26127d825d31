"""The writing half of a connection: when what a peer has to say goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Protocol, runtime_checkable

from nexus._clock import clock_of
from nexus.adapters._wire import Wire
from nexus.boundaries.link._mailbox import HandOn
from nexus.boundaries.link._outflow import FRAME_EVENTS
from nexus.boundaries.link._peer import Peer
from nexus.errors import BadCall

__all__ = ["PromptWire", "Writer"]

COLLECT = 0.0005
"""Seconds for which the events of a flood are collected."""
FLOOD = 16
"""Events in one turn of the loop that make a flood."""
STREAK = 8
"""Turns of the loop in a row, each with an event, that make one too: where a send takes longer than making
an event, there would never be more than one in a turn."""
ACK_DELAY = 0.002
"""Seconds for which an acknowledgement may wait that the other side does not wait for."""


@runtime_checkable
class PromptWire(Wire, Protocol):
    """A wire that spares who uses it a turn of the loop."""

    def send_nowait(self, frame: bytes) -> bool:
        """Send a message of one frame if there is room for it; say whether it was sent.

        Raises:
            ConnectionError: the connection is over.
        """
        ...

    async def receive(self, hand_on: HandOn | None = None) -> list[list[bytes]]:
        """Do what `Wire.receive` does.

        Args:
            hand_on: see `HandOn`; once it returns False, this may return no messages.
        """
        ...


class Writer:
    """Sends a lone event at once, and those that follow it together.

    A `PromptWire` gets what may go here and now, while it has room; any other, and one that has none, gets it
    from `run`, a turn of the loop later.
    """

    def __init__(self, peer: Peer, wire: Wire) -> None:
        self.left = asyncio.Event()
        """Set once the last frame has gone, or nothing goes any more."""
        self._peer = peer
        self._wire = wire
        self._send_nowait = wire.send_nowait if isinstance(wire, PromptWire) else None
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._frames: Iterator[bytes] | None = None
        """Frames that the wire had no room for."""
        self._is_resting = False
        """Whether `run` waits to be woken."""
        self._is_collecting = False
        """Whether something went in this turn of the loop, or lately in a flood."""
        self._collected = 0
        self._is_flowing = False
        """Whether there may be something to send in the next turn as well: something followed in this one, or
        it came after less time than it takes to send it."""
        self._went = self._took = 0.0
        """When the last lone event had gone, and the seconds that took."""
        self._clock = clock_of(self._loop)
        self._streak = 0
        """Turns in a row in which something went."""
        self._is_stalled = False
        """Whether events have waited for credit since the last frame went."""
        self._must_ack = False
        self._wrote = False
        """Whether something was sent past `run` since it was there."""
        self._is_quiet = False
        """Whether `run` sleeps for as long as nothing is sent past it."""
        self._alarm_at = 0.0
        """When `run` wakes by itself."""
        self._collecting: asyncio.TimerHandle | None = None
        self._acking: asyncio.TimerHandle | None = None

    def pushed(self, priority: int, count: int = 1) -> None:
        """Note that there are further events to send.

        An urgent one goes at once, and so does a lone one. Those that follow it go at the end of the turn; in
        a flood they are collected for up to `COLLECT` seconds, or until they fill a frame.
        """
        self._collected += count
        if not self._is_collecting:
            self._is_collecting = True
            began = self._clock()
            self._is_flowing = began - self._went <= self._took
            try:
                self.now()
            finally:
                self._loop.call_soon(self._end_turn)  # after: the event is on its way the sooner
                self._went = self._clock()
                self._took = self._went - began
            return
        self._is_flowing = True
        if priority < 0 or self._collected >= FRAME_EVENTS:
            self.now()

    def heard(self) -> None:
        """Note that something came, and there may be something to say to it."""
        if self._peer.is_urging:
            self._must_ack = True
            self.now()
            return
        if self._is_stalled and self._peer.outflow.is_due(self._clock()):
            self.now()
        if self._acking is None:
            self._acking = self._loop.call_later(ACK_DELAY, self._ack)

    def now(self) -> None:
        """Send what may go."""
        if self._is_resting and self._send_nowait is not None and not self._wake.is_set():
            self._write(self._send_nowait)
        else:
            self._wake.set()

    async def run(self) -> None:
        """Send what may go, whenever there may be something, until cancelled.

        Raises:
            LinkBroken: the other side is silent.
            ConnectionError: the wire is gone.
        """
        loop, peer, wake = self._loop, self._peer, self._wake
        try:
            while True:
                wake.clear()
                peer.check(loop.time())
                left, self._frames = self._frames, None
                for frame in chain(left or (), self._output()):
                    await self._wire.send([frame])
                self._is_stalled = peer.outflow.is_stalled
                if peer.has_left:
                    self.left.set()
                now = loop.time()
                self._alarm_at = peer.next_time
                if self._wrote:
                    # What is sent past this task may be wanted again sooner than it knows, hardly before.
                    self._alarm_at = min(self._alarm_at, now + peer.limits.patience / 4)
                    self._wrote = False
                    self._is_quiet = False
                else:
                    self._is_quiet = True
                alarm = loop.call_later(max(self._alarm_at - now, 0.001), self._alarm)
                self._is_resting = True
                try:
                    await wake.wait()
                finally:
                    self._is_resting = False
                    alarm.cancel()
        finally:
            self.left.set()
            for timer in (self._collecting, self._acking):
                if timer is not None:
                    timer.cancel()
            self._collecting = self._acking = None

    def _alarm(self) -> None:
        self._must_ack = True
        self._wake.set()

    def _output(self) -> Iterator[bytes]:
        """Give the frames that may go; acknowledge only where that is due, so that credit comes in lots."""
        ack, self._must_ack = self._must_ack, False
        self._collected = 0
        return self._peer.output(self._clock(), ack=ack)

    def _write(self, send_nowait: Callable[[bytes], bool]) -> None:
        """Send what may go, as far as the wire has room; the rest is left to `run`."""
        acked = self._must_ack
        lone = None if acked else self._peer.lone(self._clock())
        frames = self._output() if lone is None else iter((lone,))
        self._collected = 0
        for frame in frames:
            try:
                is_sent = send_nowait(frame)
            except (ConnectionError, BadCall):
                is_sent = False  # `run` meets it again, and ends the connection
            if not is_sent:
                self._frames = chain((frame,), frames)
                self._wake.set()
                return
        self._is_stalled = self._peer.outflow.is_stalled
        self._wrote = True
        if self._is_quiet:
            self._wake.set()  # `run` sets its alarm anew
        elif acked and self._peer.next_time < self._alarm_at:
            self._wake.set()  # what came has changed something

    def _end_turn(self) -> None:
        """Send what was collected in a turn of the loop; of a flood more is collected."""
        if not self._collected:
            if self._is_flowing:
                self._is_flowing = False
                self._loop.call_soon(self._end_turn)
            else:
                self._is_collecting = False
                self._streak = 0
        elif not self._is_resting:
            self._is_collecting = False
            self._wake.set()  # `run` is at work, and sends all there is
        elif self._collected < FLOOD and self._streak < STREAK:
            self._streak += 1
            self._loop.call_soon(self._end_turn)
            self.now()
        else:
            self._collecting = self._loop.call_later(COLLECT, self._end_collecting)

    def _end_collecting(self) -> None:
        self._collecting = None
        self._loop.call_soon(self._end_turn)
        if self._collected:
            self.now()

    def _ack(self) -> None:
        self._acking = None
        self._must_ack = True
        self.now()
