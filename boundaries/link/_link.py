"""The link: a handler in one nexus, a producer in another, both ways at once, over a wire that may break."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self

from nexus import (
    AsyncEventNexus,
    Event,
    EventConsumer,
    EventMeta,
    EventProducer,
    NamedEvent,
    SecondaryQueue,
)
from nexus.adapters._base import Receiver, Sender
from nexus.adapters._link import Link as Connection
from nexus.adapters._link import LinkState, OnLink
from nexus.adapters._retry import Retry
from nexus.adapters._wire import Wire
from nexus.boundaries._requests import Requests
from nexus.boundaries.link._adapters import AdapterDialler
from nexus.boundaries.link._arrivals import Arrivals
from nexus.boundaries.link._authority import Accepted, Authority
from nexus.boundaries.link._chaos import Weather
from nexus.boundaries.link._counts import LinkCounts
from nexus.boundaries.link._depth import Depth
from nexus.boundaries.link._durable import Delivery, Durable, durable_of
from nexus.boundaries.link._ends import Dialler, FunctionDialler, MakeDoor, dialler_of, door_of
from nexus.boundaries.link._line import Line, say_bye
from nexus.boundaries.link._peer import LinkBroken, LinkEnded, LinkLimits, Peer
from nexus.boundaries.link._peers import Peers
from nexus.boundaries.link._room import Room
from nexus.boundaries.link._rows import Rows
from nexus.boundaries.link._spread import Spread
from nexus.boundaries.link._stored import Done
from nexus.boundaries.link._welcome import Welcome
from nexus.boundaries.outbox import Outbox, OutboxInUse
from nexus.errors import BadCall

__all__ = ["Link"]

logger = logging.getLogger(__name__)


class Link(EventConsumer, EventProducer):
    """Joins two nexuses over a wire: priorities hold, and nothing is lost while both processes live.

    ``link = Link.connect("tcp://host:port")`` on one side, ``Link.listen("tcp://127.0.0.1:port")`` on the
    other; then ``nexus.add_handler(Alarm, link)`` for what is to go, ``nexus.register(link)`` for what comes.

    The sender holds a lane for each priority and sends only as much as the other side has granted, so that
    at most one window of bulk is on its way before an urgent event. An event is held until the nexus on the
    other side has accepted it; after a broken connection both sides go on where they were. With an outbox
    both sides may also be killed: what was taken is in a file, and leaves it when it is settled there.

    Use `connect`, `listen` or `over` to make one.

    Args:
        name: of this end, by which the other one knows it again, also in another process; None for one that
            is made up.
        limits: bounds and timing.
        types: classes of named events that arrive as what they were, and their payloads as objects of their
            class; cattrs makes those that are more than a flat class of attrs.
        token: a secret that both sides must know, and that never goes over the wire; empty for none.
        accept: types of events that the other side may send, classes of named events included; None for all.
            Answers to `request` may always come.
        most_urgent: the most urgent priority that it may send, the least number; None for any. What it may
            not send is left out and counted.
        outbox: the file in which the link keeps what it has taken and how far what comes has been settled, or
            the `nexus.boundaries.outbox.Outbox` itself; None for memory alone. It needs a `name`.
        delivery: what is promised, see `Delivery`; None for ``durable_sync`` with an outbox and
            ``at_least_once`` without one.

    Raises:
        ConfigError: delivery, outbox and name do not go together; or a payload needs the package cattrs.
    """

    lanewise = True
    leads_out = True
    closes_late = True

    def __init__(
        self,
        *,
        dialler: Dialler | None = None,
        door: MakeDoor | None = None,
        name: str | None = None,
        limits: LinkLimits | None = None,
        types: Iterable[type[NamedEvent[Any]]] = (),
        token: str = "",
        accept: Iterable[Accepted] | None = None,
        most_urgent: int | None = None,
        outbox: Outbox | str | os.PathLike[str] | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        super().__init__()
        self._durable = durable_of(outbox, delivery, name)
        self._keeps = delivery != "best_effort"
        self.handle_later = self._take_until_durable if self._durable is not None else None
        self.handle_many_later = self._take_many_until_durable if self._durable is not None else None
        if self._durable is not None:
            self._durable.outbox.on_state(lambda state: self._room.changed())
        place = dialler.name if dialler is not None else "listener"
        self.name = name or f"link-{secrets.token_hex(4)}"
        self.limits = limits or LinkLimits()
        self._connection = Connection(f"{self.name} {place}", Retry())
        self._dialler = dialler
        self._door = door(self._connection) if door is not None else None
        self._rows = Rows(types)
        authority = Authority(accept, most_urgent)
        self._requests = Requests(self.name, self.limits.max_requests)
        self._arrivals = Arrivals(
            self.name, self._rows, None if authority.is_open else authority, self._requests
        )
        self._source = secrets.token_hex(16)
        self._peers = Peers(
            self.name,
            self.limits.max_peers,
            self._new_peer,
            lambda peer: peer in self._lines,
            lambda name: self._durable.forget(name) if self._durable is not None else None,
        )
        self._lines: dict[Peer, Line] = {}
        self._room = Room()
        self._welcome = Welcome(self.name, token, self.limits.patience, self._peers, self._lines, self._room)
        self._spread = Spread(
            self.name,
            self.limits,
            self._rows,
            self._peers,
            self._lines,
            self._arrivals.leave_out,
            self._room.changed,
        )
        self._nexus: AsyncEventNexus | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_renewed = False
        """Whether what is held is being numbered anew."""
        self._is_leaving = False
        """Whether the other side was told that this one ends."""
        if dialler is not None and self._durable is None:
            self._peers.only()

    @classmethod
    def connect(cls, url: str, **options: Any) -> Self:
        """Make the end that connects, and connects again whenever the connection is gone.

        Args:
            url: ``tcp://host:port``, or ``tcps://`` for TLS, with the options of `nexus.adapters.tcp`;
                ``zmq+tcp://host:port`` with those of `nexus.adapters.zmq` that CURVE and heartbeats need;
                ``chaos+`` before any of them, see `chaos`.
            options: see the class; ``tls``, ``ca_file`` and so on may stand here or in the URL.

        Raises:
            ConfigError: the URL or an option is wrong.
        """
        dialler, rest = dialler_of(url, options)
        return cls(dialler=dialler, **rest)

    @classmethod
    def listen(cls, url: str, **options: Any) -> Self:
        """Make the end that others connect to; there may be many, and each gets everything.

        Args:
            url: ``tcp://127.0.0.1:port``; port 0 takes a free one, see `port`.
            options: see `connect`.

        Raises:
            ConfigError: the URL or an option is wrong.
        """
        door, rest = door_of(url, options)
        return cls(door=door, **rest)

    @classmethod
    def over(cls, dial: Callable[[], Awaitable[Wire]], **options: Any) -> Self:
        """Make one end of a link over any wire, such as `nexus.testing.MemoryWire`.

        Args:
            dial: makes the next connection; called again whenever one is gone.
            options: see the class.
        """
        return cls(dialler=FunctionDialler(dial), **options)

    @classmethod
    def over_adapters(
        cls,
        sender: Sender[Any],
        receiver: Receiver[Any],
        *,
        chaos: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Make one end of a link over two halves of `nexus.adapters`: a serial line, UDP, topics of a broker.

        The other side has two halves as well, the other way round; there are two sides and no more. The
        halves are the link's from now on: it puts packers for bytes in them, and starts and stops them.
        Whatever the transport loses, repeats or damages is sent again, after `LinkLimits.patience`.

        Args:
            sender: what this side sends with; a frame of the link goes in parts of its ``max_size``.
            receiver: what this side receives with; its ``max_size`` must be that of the other side's sender.
            chaos: bad weather between the link and the halves, see `chaos`.
            options: see the class.

        Raises:
            ConfigError: they cannot carry any bytes at all; a serial line or TCP needs ``frame="length"``.
        """
        dialler: Dialler = AdapterDialler(sender, receiver, options.get("token", ""))
        if chaos is not None:
            dialler = Weather.from_mapping(chaos).dialler(dialler)
        return cls(dialler=dialler, **options)

    def __repr__(self) -> str:
        return f"<Link {self._connection.state.name} {self._connection.state.state}>"

    @property
    def link(self) -> LinkState:
        """How the connection stands; of a listener, whether anybody is connected."""
        return self._connection.state

    def on_link(self, listener: OnLink) -> None:
        """Call the listener at every change of `link`."""
        self._connection.listen(listener)

    async def connected(self, timeout: float | None = None) -> None:
        """Wait until the other side is there.

        Raises:
            LinkDown: the time is up.
        """
        await self._connection.wait_up(timeout)

    @property
    def port(self) -> int:
        """The port a listener listens at; 0 while it does not."""
        return getattr(self._door, "port", 0)

    @property
    def counts(self) -> LinkCounts:
        """What became of the events of this link."""
        flows = [peer.outflow for peer in self._peers]
        return LinkCounts(
            taken=self._spread.taken,
            accepted=sum(flow.accepted for flow in flows) + self._peers.accepted_before,
            waiting=sum(len(flow) for flow in flows),
            lost=self._peers.lost_of_all(),
            resent=sum(flow.resent for flow in flows),
            received=self._arrivals.received,
            duplicates=sum(peer.inflow.duplicates for peer in self._peers if peer.inflow),
            left_out=self._arrivals.left_out | ({"late": late} if (late := self._requests.late) else {}),
            peers=len(self._lines),
            forged=self._welcome.forged,
        )

    def depths(self) -> dict[int, int]:
        """Return how many events of each priority are held."""
        depths: dict[int, int] = {}
        for peer in self._peers:
            for priority, count in peer.outflow.depths().items():
                depths[priority] = depths.get(priority, 0) + count
        return depths

    # As a source: its life.

    async def start(self) -> asyncio.Task[None]:  # type: ignore[override]
        """Connect, or listen; where another process has the outbox and may be followed, that comes later.

        Returns:
            A task that ends with the link.

        Raises:
            MisconfiguredEventProducer: no nexus is registered.
            OpenError: the port, or the outbox, is in use.
            BadCall: two nexuses are registered; what comes goes to one.
        """
        await super().start()
        nexuses = self.nexuses
        if len(nexuses) != 1 or not isinstance(nexuses[0], AsyncEventNexus):
            raise BadCall(f"{self.name}: what comes over a link goes to one AsyncEventNexus, found {nexuses}")
        self._nexus = self._arrivals.nexus = nexuses[0]
        if self._task is not None and self._task.cancelling():
            await asyncio.wait((self._task,))  # it was closed a moment ago
        if self._task is not None and not self._task.done():
            return self._task
        follows = self._durable is not None and not await self._has_outbox(self._durable)
        self._connection.begin()
        if self._door is not None and not follows:
            try:
                await self._door.open()
            except BaseException:
                if self._durable is not None:
                    await self._durable.aclose()
                raise
        self._task = asyncio.get_running_loop().create_task(self._live(follows), name=f"{self.name}.run")
        return self._task

    async def _has_outbox(self, durable: Durable) -> bool:
        """Open the outbox; say whether this process has it now, and not another one that may be followed."""
        try:
            await durable.open()
        except OutboxInUse as exc:
            if durable.outbox.takeover_after is None:
                raise
            logger.info("%s stands by: %s", self.name, exc)
            self._peers.begin_anew()
            return False
        self._restore(durable)
        return True

    async def _live(self, follows: bool) -> None:
        """Connect, or listen, until cancelled; first wait for the outbox if another process has it."""
        if follows:
            assert self._durable is not None
            await self._durable.open(wait=True)
            self._restore(self._durable)
            if self._door is not None:
                await self._door.open()
        await (self._listen() if self._door is not None else self._keep())

    def close(self) -> None:
        """End every connection now; what is held stays for the next start."""
        if self._task is not None:
            self._task.cancel()
        if self._door is not None:
            self._door.close()
        self._connection.stopped()
        self._spread.close()
        self._requests.close()
        self._room.changed()

    async def aclose(self) -> None:
        """Send what is held, for at most `LinkLimits.flush_timeout` seconds; close, and wait for the end.

        A listener waits only for those that are connected. Cancelled, it closes at once.
        """
        try:
            if self._task is not None and not self._task.done():
                dials = self._door is None and self._durable is None
                await self._flush(self.limits.flush_timeout, lambda peer: dials or peer in self._lines)
                self._is_leaving = True
                lines = list(self._lines.values())
                await asyncio.gather(*(line.leave(f"{self.name} stops") for line in lines))
        finally:
            self.close()
            if self._task is not None:
                await asyncio.wait([self._task])
            self._is_leaving = False
            if self._durable is not None:
                await self._durable.aclose()

    def _restore(self, durable: Durable) -> None:
        """Begin with what the outbox holds."""
        self._source, self._rows.epoch = durable.outbox.source, durable.epoch
        self._peers.begin_anew()
        if self._dialler is not None:
            self._peers.only()
        for name in durable.names() if self._door is not None else ():
            self._peers.add(name)
        counts = self.counts
        self._spread.taken = counts.accepted + counts.waiting + sum(counts.lost.values())
        self._room.changed()

    async def _begin_anew(self, durable: Durable) -> None:
        """Number everything anew, from a new source: the file is an old copy."""
        logger.warning("%s: %s is an old copy; what it holds goes as new", self.name, durable.outbox.path)
        for line in list(self._lines.values()):
            line.cut()
        self._peers.begin_anew()
        self._is_renewed = True
        try:
            await durable.outbox.renew()
            self._restore(durable)
        finally:
            self._is_renewed = False

    async def flushed(self, timeout: float | None = None) -> bool:
        """Wait until everything is accepted on the other side.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            False if the time was up before.
        """
        return await self._flush(timeout, lambda _: True)

    async def _flush(self, timeout: float | None, concerns: Callable[[Peer], bool]) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._is_renewed or any(len(peer.outflow) and concerns(peer) for peer in self._peers):
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    # As a handler: what goes.

    def handle_nowait(self, event: Event[Any]) -> bool:
        """Take an event if there is room for it; say whether it was taken.

        Raises what `handle` raises.
        """
        return self._spread.push(event)

    def handle_many(self, events: list[Event[Any]]) -> int:
        """Take the first of some events of one type and priority, as far as there is room; return how
        many. The others, one that cannot be sent among them, are for `handle_nowait`."""
        return self._spread.push_many(events)

    def _take_until_durable(self, event: Event[Any], done: Done) -> bool:
        """Take an event if there is room for it, and say when it is durable; say whether it was taken."""
        assert self._durable is not None
        self._durable.latest()
        if not self.handle_nowait(event):
            return False
        if (stream := self._durable.latest()) is not None:
            stream.tell(done)
        else:  # it was left out
            asyncio.get_running_loop().call_soon(done, None)
        return True

    def _take_many_until_durable(self, events: list[Event[Any]], done: Done) -> int:
        """Do what `handle_many` does, and say when those that were taken are durable."""
        assert self._durable is not None
        self._durable.latest()
        count = self._spread.push_many(events)
        if (stream := self._durable.latest()) is not None:
            stream.tell(done)
        return count

    async def handle(self, event: Event[Any], queue: SecondaryQueue | None = None) -> None:
        """Take an event; wait while there is no room, and until it is durable where there is an outbox.

        Cancelled while it waits for room, it was not taken.

        Raises:
            PackerError: its payload is not JSON.
            BadCall: its priority is one too many for a link.
        """
        while not self.handle_nowait(event):
            await self._room.wait()
        if self._durable is not None:
            await self._durable.outbox.durable()

    async def request(self, event: Event[Any], timeout: float | None = 5.0) -> Event[Any]:
        """Send an event, and wait for what a handler on the other side makes with ``event.reply(...)``.

        The answer is returned and does not go through the own nexus. Of several others the first answer
        counts. Cancelled, the question is forgotten; it may be answered all the same.

        Args:
            timeout: seconds, waiting for room and for a connection included; the event has that deadline, if
                it has no nearer one. None for no limit.

        Raises:
            ReplyTimeout: there was no answer in time.
            QueueFull: `LinkLimits.max_requests` wait already.
            LinkDown: the link was stopped.
            PackerError: its payload is not JSON.
        """
        if self._nexus is not None:
            self._nexus.queue.room.look_again()  # the answer may be behind what waits
        return await self._requests.ask(event, timeout, self.handle)

    @property
    def _domain(self) -> str:
        return self._nexus.domain if self._nexus is not None else self.name

    # Connections.

    async def _keep(self) -> None:
        """Have one connection after the other, until cancelled."""
        assert self._dialler is not None
        try:
            await self._connection.keep(self._session)
        finally:
            await self._dialler.aclose()

    async def _session(self) -> None:
        """Have one connection, from its begin to its end."""
        assert self._dialler is not None
        wire = await self._dialler.dial()
        try:
            sealed = await self._welcome.seal(wire)
        except BaseException as exc:
            if isinstance(exc, LinkBroken):
                await say_bye(wire, str(exc))
            wire.close()
            raise
        try:
            await self._carry(self._peers.only(), sealed, [])
        except ConnectionError:
            if not self._is_leaving:
                raise
            await asyncio.Event().wait()  # the other side closes what this one ends: nothing is wrong

    async def _listen(self) -> None:
        assert self._door is not None
        await self._door.run(self._serve)

    async def _serve(self, wire: Wire) -> None:
        """Serve whoever has connected."""
        if (met := await self._welcome.meet(wire)) is not None:
            await self._carry(*met)

    def _new_peer(self, name: str) -> Peer:
        durable = self._durable
        peer = Peer(
            lambda: (self.name, self._domain),
            self._source,
            self.limits,
            keeps=self._keeps,
            stream=durable.stream(name, lambda: self._committed(peer)) if durable is not None else None,
            cursors=durable.cursors if durable is not None else None,
            generation=durable.outbox.generation if durable is not None else 0,
        )
        if durable is not None:
            peer.outflow.epoch = durable.epoch
        return peer

    def _committed(self, peer: Peer) -> None:
        """Note that more of what is to go to a peer is durable."""
        self._room.changed()
        if (line := self._lines.get(peer)) is not None:
            line.committed()

    async def _carry(self, peer: Peer, wire: Wire, first: list[list[bytes]]) -> None:
        """Carry frames until the connection is gone."""
        assert self._nexus is not None
        line = Line(
            peer,
            wire,
            make=self._arrivals.events,
            may_answer=self._arrivals.may_answer,
            give=self._arrivals.give,
            begin=self._arrivals.begin,
            wait=self._arrivals.give_when_room,
            moved=self._room.changed,
            greeted=lambda: self._greeted(peer),
            depth=Depth(self._nexus.queue, peer.window, self._arrivals.is_asking),
        )
        self._lines[peer] = line
        try:
            await line.run(first)
        except LinkEnded as exc:
            logger.info("%s: %s", self.name, exc)
            raise
        except LinkBroken as exc:
            logger.warning("%s: the connection ends: %s", self.name, exc)
            if self._durable is not None and peer.outflow.is_overtaken:
                await self._begin_anew(self._durable)
            raise
        finally:
            del self._lines[peer]
            self._room.changed()  # whoever flushes need not wait for this one
            if self._door is not None and not self._lines:
                self._connection.connecting()

    # What comes.

    def _greeted(self, peer: Peer) -> EventMeta:
        """Note that the other side has said who it is; return the metadata of its plain events."""
        assert self._nexus is not None
        self._connection.up()
        way = f"{self.name}<{peer.domain}"
        if not self._nexus.has_reply_way(way):
            self._nexus.add_reply_way(way, lambda reply, queue: self._spread.reply(peer, reply))
        return EventMeta(path=(peer.domain,), reply_to=(way,))
