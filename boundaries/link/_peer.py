"""One other side of a link: handshake, both halves, heartbeats. A state machine without I/O.

Fed with frames and a clock, it gives the events that came and the frames that are to go. It outlives
connections: `opened` begins the next one, and both sides go on where they were.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal, NamedTuple

import attrs

from nexus.boundaries.link._bucket import Bucket
from nexus.boundaries.link._frames import (
    Ack,
    BadLinkFrame,
    Bye,
    Events,
    Frame,
    Hello,
    Ping,
    Pong,
    Row,
    pack,
    unpack,
)
from nexus.boundaries.link._inflow import Inflow
from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.link._stored import Stream
from nexus.boundaries.outbox._receipts import Cursors, Track

__all__ = ["Arrival", "LinkBroken", "LinkEnded", "LinkLimits", "Peer"]

PROBES: Final = 4
_AT_ENDS: Final = (Bye, Hello)
"""Small questions in the time of `LinkLimits.patience` to a side that accepts nothing: so it is known soon
when a way is there again that was gone."""
DEAD_AFTER: Final = 3
"""Heartbeats without a sign of life."""
INFINITY: Final = float("inf")
MAX_REPLIES: Final = 16
"""Answers that wait to be sent; a side that asks faster than it listens gets no more."""


class LinkBroken(ConnectionError):
    """The connection cannot go on: the other side breaks the protocol, ends it, or is silent."""


class LinkEnded(LinkBroken):
    """The other side has said that it ends the connection."""


@attrs.frozen(kw_only=True)
class LinkLimits:
    """What a link holds and how it behaves; every field has the same meaning on both sides."""

    maxsize: int = 10_000
    """Events of one priority that wait to be sent or acknowledged."""
    max_bytes: int = 64 * 2**20
    """Bytes of one priority that wait so."""
    cached: int = attrs.field(default=40_000, validator=attrs.validators.gt(0))
    """Events of one priority that a link with an outbox holds in memory, in place of `maxsize`; those beyond
    it, or beyond `max_bytes`, are in the file alone until there is room."""
    least_window: int = 2
    most_window: int = 8192
    """Events of one priority that may be under way to this side, at least and at most."""
    window_bytes: int = 8 * 2**20
    """Bytes of one priority that may be under way to this side, or wait for its nexus; one event may be
    larger."""
    window_bytes_total: int = 64 * 2**20
    """The same of all priorities of one other side together."""
    max_rate: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    """Events a second that one other side may send for long, of all priorities; more wait there. None for as
    many as the nexus takes."""
    target: float = 0.005
    """Seconds of delay on the way that the window is adapted to."""
    heartbeat: float = 2.0
    """Seconds of silence until a side asks whether the other is there; after three of them it is taken for
    gone."""
    away: Literal["block", "shed"] = "block"
    """What happens at the bound of a lane while the other side is away: whatever gives events waits, or the
    oldest of the lane is given up and counted."""
    slow_after: float | None = None
    """Seconds for which a side that is connected may hold up what gives events when a lane is full. One that
    takes longer for what it holds is slow: its oldest that have not gone are given up and counted, until it
    has caught up with half. None to wait, however long. With an outbox it is waited for."""
    forget_after: float = 60.0
    """Seconds after which a listener gives up another side that is away and in the way of the others."""
    flush_timeout: float = 5.0
    """Seconds for which a link that closes goes on sending what it holds; a stop may allow less."""
    max_peers: int = 64
    """Others that a listener knows, connected or not."""
    max_requests: int = 1000
    """Requests that wait for an answer at a time."""
    patience: float = 1.0
    """Seconds until what was not acknowledged is sent again."""


class Arrival(NamedTuple):
    """Events of one priority that came, in their order."""

    priority: int
    sent: int
    """Microseconds on the sender's clock."""
    rows: Events | list[Row]
    """Perhaps unread; None where there is no event: it was given up on the other side."""
    first: int = 0
    """Number of the first."""
    track: Track | None = None
    """Where it is noted which of them are settled; None where they are accepted once they are taken."""

    def read(self) -> list[Row]:
        """Read the rows.

        Raises:
            LinkBroken: they are none.
        """
        if isinstance(self.rows, list):
            return self.rows
        try:
            return self.rows.read()
        except BadLinkFrame as exc:
            raise LinkBroken(str(exc)) from exc


class Peer:
    """The state of one side towards another.

    Args:
        who: tells the own name, and the own domain.
        source: what the own sequence numbers belong to; unique, and used again only where they go on.
        keeps: see `Outflow`.
        stream: keeps what is to go; None for nothing but memory.
        cursors: keep how far what comes is settled; None where it is accepted once the nexus has taken it.
        generation: how often the outbox was opened; 0 without one.
    """

    def __init__(
        self,
        who: Callable[[], tuple[str, str]],
        source: str,
        limits: LinkLimits,
        *,
        keeps: bool = True,
        stream: Stream | None = None,
        cursors: Cursors | None = None,
        generation: int = 0,
    ) -> None:
        self.limits = limits
        held = limits.maxsize if stream is None else limits.cached
        self.outflow = Outflow(held, limits.max_bytes, limits.patience, keeps=keeps, store=stream)
        self.stream = stream
        self.stir: Callable[[], None] | None = None
        """Has what may go sent, while there is a connection."""
        self._cursors = cursors
        if stream is not None:
            stream.begin(self.outflow)
        self.hello: Hello | None = None
        """What the other side said of itself on this connection; None before."""
        self._who = who
        self._source = source
        self._generation = generation
        self._bucket = Bucket(limits.max_rate) if limits.max_rate is not None else None
        self._inflows: dict[str, Inflow] = {}
        self._inflow: Inflow | None = None
        self._replies: list[bytes] = []
        self._heard = 0.0
        self._asked = 0.0
        self._again = 0.0
        """When to say hello once more, or to ask whether a grant was lost."""
        self._said = 0.0
        """When the own hello went last."""
        self._is_known = False
        """Whether the other side has shown, by anything but a hello, that it has heard the own one."""
        self._lanes: tuple[tuple[int, int], ...] = ()
        self._is_open = False
        self.away_since = 0.0
        """When the other side was heard of last; counts while it is away."""
        self._domain = ""
        self._farewell: str | None = None

    @property
    def is_up(self) -> bool:
        """Whether the other side is known and the connection stands."""
        return self._is_open and self.hello is not None

    @property
    def is_urging(self) -> bool:
        """Whether the other side waits for something: an answer, or a grant without which it stands still."""
        return bool(self._replies) or (self._inflow is not None and self._inflow.is_urging)

    @property
    def domain(self) -> str:
        """The domain of the other side; empty before its first hello."""
        return self._domain

    @property
    def inflow(self) -> Inflow | None:
        """What comes from the other side; None before its first hello."""
        return self._inflow

    def window(self, priority: int) -> int:
        """Return how many events of a priority may be under way to this side."""
        return self._inflow.window(priority) if self._inflow is not None else 0

    def opened(self, now: float) -> None:
        """Begin a connection."""
        self._is_open = True
        self._is_known = False
        self._farewell = None
        self._said = now
        self.hello = None
        self._heard = self._asked = now
        self.outflow.opened()
        self._lanes = self.outflow.lanes
        self._again = now + self.limits.patience
        self._replies = [pack(self._own_hello())]

    def leave(self, reason: str) -> None:
        """Let the next thing that is sent be the last, and say why."""
        self._farewell = reason

    @property
    def has_left(self) -> bool:
        """Whether the last thing was sent."""
        return self._is_open and self._farewell == ""

    def closed(self) -> None:
        """Note that the connection is gone."""
        self._is_open = False
        self.away_since = self._heard

    def feed(self, data: bytes, now: float) -> Arrival | None:
        """Take a frame; give the events that came with it, if any, perhaps unread.

        Raises:
            LinkBroken: it is no frame, or not one that may come now.
        """
        if now - self._heard >= self.limits.patience / 2:
            self.outflow.hasten(now)  # what was sent into the silence is likely lost
        self._heard = now
        try:
            frame = unpack(data)
        except BadLinkFrame as exc:
            raise LinkBroken(str(exc)) from exc
        inflow = self._inflow
        if self.hello is None or inflow is None or isinstance(frame, _AT_ENDS):
            self._meet(frame, now)
            return None
        self._is_known = True
        if isinstance(frame, Events):
            try:
                rows = inflow.received(frame)
            except BadLinkFrame as exc:
                raise LinkBroken(str(exc)) from exc
            count = frame.count if rows is frame else len(rows)
            if not count:
                return None
            first, track = inflow.given(frame.priority, count)
            return Arrival(frame.priority, frame.sent, rows, first, track)
        match frame:
            case Ack():
                self.outflow.acknowledged(frame, now)
                if self.outflow.is_overtaken:
                    raise LinkBroken(
                        "the other side has had numbers that were never given: the outbox is an old copy"
                    )
                self._again = now + self.limits.patience / PROBES
            case Ping(data=question):
                self._reply(pack(Pong(question)))
                inflow.tell_all()
            case Pong():
                pass
        return None

    def _meet(self, frame: Frame, now: float) -> None:
        """Take a frame that begins or ends a connection."""
        if isinstance(frame, Bye):
            raise LinkEnded(f"the other side ends the connection: {frame.reason}")
        if not isinstance(frame, Hello):
            raise LinkBroken(f"the first frame is a hello, not {type(frame).__name__}")
        self._greet(frame, now)

    def accepted(self, arrival: Arrival, count: int, now: float) -> None:
        """Note that the next events of an arrival's lane are accepted."""
        if self._inflow is not None:
            self._inflow.accepted(arrival.priority, count, arrival.sent, now)

    def lone(self, now: float) -> bytes | None:
        """Give the frame of a lone event where that is all there is to say; None where it may not be."""
        inflow = self._inflow
        if self.hello is None or inflow is None or not self._is_open or self._farewell is not None:
            return None
        if self._replies or inflow.is_urging or now >= self._again:
            return None
        if min(now - self._heard, now - self._asked) >= self.limits.heartbeat:
            return None
        frame = self.outflow.lone(now)
        if frame is not None and self._again == INFINITY:
            self._again = now + self.limits.patience / PROBES
        return frame

    def output(self, now: float, *, ack: bool = True) -> Iterator[bytes]:
        """Give the frames that are to go now, in their order.

        Args:
            ack: whether to acknowledge also what the other side does not wait for.
        """
        if not self._is_open or self._farewell == "":
            return
        if self._farewell is not None:
            reason, self._farewell = self._farewell, ""
            if self.hello is not None and self._inflow is not None:
                self._inflow.tell_all()
                if (last := self._inflow.ack(now)) is not None:
                    yield pack(last)  # what is accepted need not go to whoever comes after this one
            yield pack(Bye(reason))
            return
        is_urging = self.is_urging
        yield from self._replies
        self._replies = []
        if self.hello is None or self._inflow is None:
            if now >= self._again:
                self._again = now + self.limits.patience / PROBES
                self._said = now
                yield pack(self._own_hello())
            return
        found = self._inflow.ack(now) if ack or is_urging else None
        if found is not None:
            yield pack(found)
        yield from self.outflow.frames(now)
        if not self.outflow.is_stalled:
            self._again = INFINITY
        elif self._again == INFINITY:
            self._again = now + self.limits.patience / PROBES
        silent = min(now - self._heard, now - self._asked) >= self.limits.heartbeat
        if silent or now >= self._again:  # a grant may have been lost
            self._asked = now
            self._again = now + self.limits.patience / PROBES
            yield pack(Ping(secrets.token_bytes(8)))

    def check(self, now: float) -> None:
        """Look whether the other side is there.

        Raises:
            LinkBroken: it has been silent for three heartbeats.
        """
        silence = now - self._heard
        if self._is_open and silence > DEAD_AFTER * self.limits.heartbeat:
            raise LinkBroken(f"the other side has been silent for {silence:.1f} s")

    @property
    def next_time(self) -> float:
        """The moment at which to call `check` and `output` at the latest."""
        beat = self.limits.heartbeat
        if self.hello is None:
            return min(self._heard + DEAD_AFTER * beat, self._again)
        granting = self._inflow.next_time if self._inflow is not None else INFINITY
        return min(max(self._heard, self._asked) + beat, self.outflow.next_time, self._again, granting)

    def _track(self, source: str, priority: int) -> Track:
        assert self._cursors is not None
        return self._cursors.track(source, priority, partial(self._settled, source, priority))

    def _settled(self, source: str, priority: int, number: int) -> None:
        """Note that it is known for good that all events of a lane up to a number are settled."""
        if (inflow := self._inflows.get(source)) is not None:
            inflow.settled(priority, number)
            if self.stir is not None:
                self.stir()

    def _reply(self, answer: bytes) -> None:
        if len(self._replies) < MAX_REPLIES:
            self._replies.append(answer)

    def _own_hello(self) -> Hello:
        limits = self.limits
        return Hello(
            *self._who(),
            self._source,
            self._lanes,
            lane_bytes=limits.window_bytes,
            total_bytes=limits.window_bytes_total,
            generation=self._generation,
        )

    def _greet(self, hello: Hello, now: float) -> None:
        if self.hello is not None:
            if hello != self.hello:
                raise LinkBroken("another hello on the same connection")
            # It has not heard ours, or this is a copy: two who answered each would never come to an end.
            if not self._is_known and now - self._said >= self.limits.patience / 2:
                self._said = now
                self._reply(pack(self._own_hello()))
                if self._inflow is not None:
                    self._inflow.tell_all()  # which shows that we have heard it
            return
        if hello.source == self._source:
            raise LinkBroken("the other side is this one: the link leads back to itself")
        self.hello = hello
        self._domain = hello.domain
        inflow = self._inflows.get(hello.source)
        if inflow is None:
            # Another source means that the other side has begun anew; nothing of the old one comes again.
            limits = self.limits
            inflow = Inflow(
                least=limits.least_window,
                most=limits.most_window,
                target=limits.target,
                lane_bytes=limits.window_bytes,
                total_bytes=limits.window_bytes_total,
                track=partial(self._track, hello.source) if self._cursors is not None else None,
                bucket=self._bucket,
            )
            self._inflows = {hello.source: inflow}
            if self._cursors is not None:
                inflow.remember(self._cursors.outbox.cursors(hello.source))
        self._inflow = inflow
        inflow.opened(hello)
        self.outflow.allowed(hello.lane_bytes, hello.total_bytes)
