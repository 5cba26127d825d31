"""A wire in memory that loses, repeats, delays and reorders as told."""

import asyncio
import heapq
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import attrs

Frames = list[bytes]


@attrs.frozen
class WireCounts:
    """What became of the messages sent from one end; a message is one list of frames.

    ``sent + duplicated = arrived + sum(lost.values()) + in_flight`` at any moment.
    """

    sent: int
    """Taken from the sender."""
    duplicated: int
    """Copies the wire made."""
    reordered: int
    """Messages that later ones were let to overtake."""
    arrived: int
    """Reached the other end, read there or not yet."""
    in_flight: int
    """On the way now."""
    lost: Mapping[str, int]
    """Lost on the way, by reason: "loss", "partition", "closed"."""


class MemoryWire:
    """One end of a wire in memory, made by `pair`; does what it does from a seed, by the loop's clock."""

    def __init__(self, outward: "_Way", inward: "_Way") -> None:
        """Join two one-way lines; use `pair`."""
        self._outward = outward
        self._inward = inward

    @classmethod
    def pair(
        cls,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: tuple[float, float] = (0.0, 0.0),
        lateness: float = 0.01,
        capacity: int = 1000,
        rng: random.Random | None = None,
    ) -> tuple["MemoryWire", "MemoryWire"]:
        """Make the two ends of a wire.

        Args:
            loss: the share of messages lost, 0 to 1.
            duplicate: the share that arrives twice, the copy later.
            reorder: the share that is late, and overtaken by those behind it.
            delay: the least and the most seconds a message takes; the order is kept all the same.
            lateness: the most seconds that copies and overtaken messages take longer.
            capacity: messages each direction holds, in flight and unread; then `send` waits.
            rng: where chance comes from; None for one seeded with 0.
        """
        for name, share in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {share!r}")
        if not 0 <= delay[0] <= delay[1] or not lateness >= 0:
            raise ValueError(
                f"delay is (least, most) seconds and lateness seconds, 0 or more: {delay!r}, {lateness!r}"
            )
        if capacity < 1:
            raise ValueError(f"capacity must be 1 message or more, not {capacity!r}")
        weather = _Weather(loss, duplicate, reorder, delay, lateness, capacity, rng or random.Random(0))
        there, back = _Way(weather), _Way(weather)
        return cls(there, back), cls(back, there)

    @property
    def counts(self) -> WireCounts:
        """What became of the messages sent from this end."""
        return self._outward.counts()

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send one message of one or more frames; waits while the wire is full.

        Cancelling is safe: the message is then not sent.

        Raises:
            ConnectionError: this end or the other one is closed.
        """
        message = [bytes(memoryview(frame)) for frame in frames]
        await self._outward.send(message)

    async def receive(self) -> list[Frames]:
        """Wait for messages and return all that have arrived, at least one, in the order of arrival.

        Cancelling is safe: what has arrived is then still there.

        Raises:
            ConnectionError: this end is closed, or the other one is and nothing is left to read.
        """
        return await self._inward.receive()

    def close(self) -> None:
        """Close this end; may be called twice.

        What is unread here, or in flight to here, is lost and counted; what is in flight to the
        other end still arrives.
        """
        self._outward.end()
        self._inward.abandon()

    def partition(self, *, both: bool = True) -> None:
        """Cut the wire until `heal`: what is in flight, or sent meanwhile, is lost and counted.

        Args:
            both: False to cut only what this end sends.
        """
        self._outward.cut()
        if both:
            self._inward.cut()

    def heal(self) -> None:
        """Join the wire again, both ways."""
        self._outward.join()
        self._inward.join()


@attrs.frozen
class _Weather:
    """What may happen to a message."""

    loss: float
    duplicate: float
    reorder: float
    delay: tuple[float, float]
    lateness: float
    capacity: int
    rng: random.Random


class _Way:
    """One direction of a wire."""

    def __init__(self, weather: _Weather) -> None:
        self._weather = weather
        self._unread: deque[Frames] = deque()  # bounded by the capacity
        # The number keeps the order of equal arrivals.
        self._flying: list[tuple[float, int, Frames]] = []
        self._tossed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._last_arrival = 0.0
        self._is_cut = False
        self._ended = False
        self._abandoned = False
        self._change = asyncio.Event()
        self._sent = self._duplicated = self._reordered = self._arrived = 0
        self._lost: Counter[str] = Counter()

    def counts(self) -> WireCounts:
        return WireCounts(
            self._sent,
            self._duplicated,
            self._reordered,
            self._arrived,
            len(self._flying),
            dict(self._lost),
        )

    async def send(self, message: Frames) -> None:
        while self._room() < 1 and not (self._ended or self._abandoned):
            await self._change.wait()
        if self._ended:
            raise ConnectionAbortedError("this end of the wire is closed")
        if self._abandoned:
            raise ConnectionResetError("the other end of the wire is closed")
        self._sent += 1
        self._toss(message)

    def _toss(self, message: Frames) -> None:
        weather, rng = self._weather, self._weather.rng
        # Always the same draws, so that one fate does not shift the fates of all that follow.
        is_lost, is_twice, is_late = (
            rng.random() < share for share in (weather.loss, weather.duplicate, weather.reorder)
        )
        arrival = asyncio.get_running_loop().time() + rng.uniform(*weather.delay)
        late, copy_late = (rng.uniform(0, weather.lateness) for _ in range(2))
        if self._is_cut or is_lost:
            self._lost["partition" if self._is_cut else "loss"] += 1
            return
        if is_late:
            self._reordered += 1
            arrival += late
        else:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        self._fly(message, arrival)
        if is_twice and self._room() > 0:
            self._duplicated += 1
            self._fly(list(message), arrival + copy_late)

    def _fly(self, message: Frames, arrival: float) -> None:
        self._tossed += 1
        heapq.heappush(self._flying, (arrival, self._tossed, message))
        self._land()

    def _land(self) -> None:
        # One timer for the first to arrive: timers of one moment have no order in a real loop.
        loop = asyncio.get_running_loop()
        while self._flying and self._flying[0][0] <= loop.time():
            self._arrive(heapq.heappop(self._flying)[2])
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._flying[0][0], self._land) if self._flying else None

    def _arrive(self, message: Frames) -> None:
        self._arrived += 1
        self._unread.append(message)
        self._changed()

    async def receive(self) -> list[Frames]:
        while not self._unread:
            if self._abandoned:
                raise ConnectionAbortedError("this end of the wire is closed")
            if self._ended and not self._flying:
                raise ConnectionResetError("the other end of the wire is closed, and all it sent is read")
            await self._change.wait()
        messages = list(self._unread)
        self._unread.clear()
        self._changed()
        return messages

    def end(self) -> None:
        self._ended = True
        self._changed()

    def abandon(self) -> None:
        self._abandoned = True
        self._drop_flying("closed")
        self._arrived -= len(self._unread)
        self._lost["closed"] += len(self._unread)
        self._unread.clear()
        self._changed()

    def cut(self) -> None:
        self._is_cut = True
        self._drop_flying("partition")

    def join(self) -> None:
        self._is_cut = False

    def _room(self) -> int:
        return self._weather.capacity - len(self._unread) - len(self._flying)

    def _drop_flying(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost[reason] += len(self._flying)
        self._flying.clear()
        self._changed()

    def _changed(self) -> None:
        # Those who wait are woken, and look again; the next to wait gets a fresh event.
        self._change.set()
        self._change = asyncio.Event()
