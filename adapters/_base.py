"""What every adapter is: a sender and a receiver with one life, one state and one account."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import attrs

from nexus.adapters._inbox import Inbox, Item, Overflow
from nexus.adapters._link import Link, LinkState, OnLink, reason
from nexus.adapters._outbox import Outbox, OutItem, SendOverflow
from nexus.adapters._packing import Packer, Unpacker, json_packer, json_unpacker
from nexus.adapters._retry import Again, Retry
from nexus.errors import BadCall, EndOfData, LinkDown, NexusError, PackerError, UnpackerError

__all__ = ["Adapted", "Counts", "Meta", "OnBad", "Receiver", "Sender"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

Meta: TypeAlias = dict[str, Any]
"""What the transport said of an item: ``topic``, ``peer`` and the like."""

OnBad: TypeAlias = "Callable[[UnpackerError], object]"
"""Called with what is wrong with a frame that was put aside; it carries the frame and its meta."""


class CommonConfig(Protocol):
    """The fields that every config has and this module reads."""

    @property
    def maxsize(self) -> int: ...
    @property
    def max_size(self) -> int: ...
    @property
    def flush_timeout(self) -> float: ...
    @property
    def retry(self) -> Again: ...
    @property
    def retry_cap(self) -> float: ...


@attrs.frozen
class Counts:
    """What became of the items of a sender or a receiver since it was made."""

    items: int
    """Received and handed to the program, or sent and with the transport."""
    waiting: int
    """Held in the adapter's own buffer."""
    bad: Mapping[str, int]
    """Frames put aside, by reason: they could not be framed or unpacked, or were too large."""
    dropped: Mapping[str, int]
    """Items lost for want of room or at a stop, by reason."""
    ups: int
    """How many times the link came up."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return attrs.asdict(self, value_serializer=lambda _, __, value: dict(value) if isinstance(value, Mapping) else value)


class Adapted(abc.ABC):
    """The common half: starts, runs one task, stops, and says how its link stands.

    `start` and `stop` may be called again and again, in this order or not. A subclass gives `_run`, which
    works until it is cancelled; `_open` and `_close` for what it holds meanwhile. `name` says what is connected
    to what, without secrets.
    """

    def __init__(self, name: str, *, retry: Again = "always", retry_cap: float = 0.5) -> None:
        self.name = name
        self._link = Link(name, Retry(again=retry, base=min(0.02, retry_cap), cap=retry_cap))
        self._task: asyncio.Task[None] | None = None
        self._changing: asyncio.Lock = asyncio.Lock()

    @property
    def link(self) -> LinkState:
        """How the connection stands now."""
        return self._link.state

    def on_link(self, listener: OnLink) -> None:
        """Call the listener, in the event loop, at every change of `link` from now on."""
        self._link.listen(listener)

    @property
    def is_started(self) -> bool:
        """Whether it was started, and has not stopped or failed since."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Begin. Does not wait for the peer: see `connected`. Started already, does nothing.

        Raises:
            OpenError: what is to be opened on this machine cannot be.
        """
        async with self._changing:
            if self.is_started:
                return
            if self._task is not None:
                await self._end()
            await self._open()
            self._reopen()
            self._task = asyncio.create_task(self._live(), name=f"adapter[{self.name}]")

    async def stop(self) -> None:
        """End, and let go of all it holds. Stopped already, does nothing.

        Cancelled, it still lets go.
        """
        async with self._changing:
            if self._task is None:
                return
            try:
                await self._wind_down()
            finally:
                await self._end()

    async def connected(self, timeout: float | None = None) -> None:
        """Wait until the link is up.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            LinkDown: the time is up, or the link has failed for good.
        """
        await self.start()
        await self._link.wait_up(timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.link.state}>"

    async def _open(self) -> None:
        """Open what must be there before it runs.

        Raises:
            OpenError: it cannot be.
        """

    @abc.abstractmethod
    async def _run(self) -> None:
        """Work until cancelled. Returning means that there is nothing further, ever."""

    async def _wind_down(self) -> None:
        """Finish what can be finished before the end, within a bound."""

    async def _close(self) -> None:
        """Let go of what `_open` and `_run` hold. Must not wait for a peer."""

    def _reopen(self) -> None:
        """Undo `_ended`."""

    def _ended(self, error: NexusError) -> None:
        """Tell whoever waits that there is nothing further, and why."""

    async def _live(self) -> None:
        try:
            await self._run()
        except asyncio.CancelledError:
            raise
        except NexusError as exc:
            self._link.failed(reason(exc))
            self._ended(exc)
        except Exception as exc:
            logger.exception("%s failed", self)
            self._link.failed(reason(exc))
            error = LinkDown(f"{self.name} failed: {reason(exc)}")
            error.__cause__ = exc
            self._ended(error)
        else:
            self._link.stopped()
            self._ended(EndOfData(f"{self.name} has nothing further"))

    async def _end(self) -> None:
        """Cancel the task and close, whatever happens meanwhile."""
        task, self._task = self._task, None
        cancelled: asyncio.CancelledError | None = None
        if task is not None:
            task.cancel()
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as exc:
                    cancelled = exc
        try:
            await self._close()
        finally:
            self._link.stopped()
            self._ended(EndOfData(f"{self.name} was stopped"))
        if cancelled is not None:
            raise cancelled


class Receiver(Adapted, Generic[T_co]):
    """Gives what comes over a transport, item by item.

    ``async with`` starts and stops it, ``async for`` gives ``(data, meta)`` until its end and goes on after a
    bad frame. Made outside of an event loop, it may be used in any one.

    Args:
        name: what is connected to what, without secrets.
        config: has the fields of `CommonConfig`.
        unpacker: turns a frame into data.
        overflow: what happens to frames that find no room.
        on_bad: called with a frame that ``async for`` or `receive_many` put aside; what it raises is logged.

    Attributes:
        manual: False: an item counts as accepted when the next one is asked for. True: when `accept` is
            called with its meta. Matters where the transport acknowledges; set it before the start.
    """

    def __init__(
        self,
        name: str,
        config: CommonConfig,
        unpacker: Unpacker[T_co] | None = None,
        *,
        overflow: Overflow = "block",
        on_bad: OnBad | None = None,
    ) -> None:
        super().__init__(name, retry=config.retry, retry_cap=config.retry_cap)
        self.unpacker: Unpacker[Any] = json_unpacker if unpacker is None else unpacker
        self.on_bad = on_bad
        self.manual = False
        self._inbox = Inbox(config.maxsize, overflow=overflow)
        self._received = 0
        self._bad: dict[str, int] = {}
        self._handed: list[Meta] = []
        """The items handed out last, which are accepted when the next ones are asked for."""

    @property
    def counts(self) -> Counts:
        """What became of everything that came."""
        return Counts(
            self._received, len(self._inbox), dict(self._bad), dict(self._inbox.dropped), self.link.ups
        )

    async def receive(self) -> tuple[T_co, Meta]:
        """Wait for the next item; starts if that was not done.

        Cancelling is safe: an item is either returned or still waiting.

        Raises:
            UnpackerError: the frame is not what the unpacker expects; the next call gives the next one.
            EndOfData: there is nothing further, for it was stopped, or the source has ended.
            LinkDown: the peer is gone and retrying is off.
        """
        inbox = self._inbox
        self._accept_handed()
        if not len(inbox):
            await self._wait_for_item()
        payload, meta = inbox.take_nowait()
        try:
            data = self._unpack(payload, meta)
        except UnpackerError:
            self.accept(meta)  # or it would come for ever
            raise
        if not self.manual:
            self._handed.append(meta)
        self._received += 1
        return data, meta

    async def receive_many(self, limit: int = 256) -> list[tuple[T_co, Meta]]:
        """Wait for items and take those that are there, at least one; bad frames are put aside.

        Cancelled, none was taken. Raises what `receive` raises, but for `UnpackerError`.
        """
        inbox = self._inbox
        self._accept_handed()
        items: list[tuple[T_co, Meta]] = []
        while not items:
            if not len(inbox):
                await self._wait_for_item()
            for _ in range(min(limit, len(inbox))):
                payload, meta = inbox.take_nowait()
                try:
                    items.append((self._unpack(payload, meta), meta))
                except UnpackerError as exc:
                    self._tell_bad(exc)
                    self.accept(meta)
        if not self.manual:
            self._handed += [meta for _, meta in items]
        self._received += len(items)
        return items

    def accept(self, meta: Meta) -> None:
        """Say that the program is done with an item, so that the transport may acknowledge it.

        Does nothing where the transport does not acknowledge, and for an item that was accepted before.
        """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[T_co, Meta]:
        while True:
            try:
                return await self.receive()
            except UnpackerError as exc:
                self._tell_bad(exc)
            except EndOfData:
                raise StopAsyncIteration from None

    async def _wait_for_item(self) -> None:
        inbox = self._inbox
        while not len(inbox):
            if inbox.ended is not None:
                raise inbox.ended
            if self._task is None:
                await self.start()
            await inbox.wait()

    def _unpack(self, payload: bytes, meta: Meta) -> T_co:
        try:
            data, more = self.unpacker(payload)
        except UnpackerError as exc:
            exc.meta = meta
            self._count_bad("unpack")
            raise
        except Exception as exc:
            self._count_bad("unpack")
            error = UnpackerError(payload, f"the unpacker raised {reason(exc)}")
            error.meta = meta
            raise error from exc
        if more:
            meta.update(more)
        return data  # type: ignore[no-any-return]

    def _tell_bad(self, exc: UnpackerError) -> None:
        count = sum(self._bad.values())
        if count & (count - 1) == 0:
            logger.warning("%s: %d bad frames so far; the last: %s", self.name, count, exc)
        if self.on_bad is not None:
            try:
                self.on_bad(exc)
            except Exception:
                logger.exception("on_bad of %s failed", self.name)

    def _count_bad(self, why: str, count: int = 1) -> None:
        self._bad[why] = self._bad.get(why, 0) + count

    def _accept_handed(self) -> None:
        if self._handed:
            for meta in self._handed:
                self.accept(meta)
            self._handed.clear()

    async def _wind_down(self) -> None:
        self._accept_handed()

    def _reopen(self) -> None:
        self._inbox.reopen()

    def _ended(self, error: NexusError) -> None:
        self._inbox.end(error)

    async def _feed(self, items: list[Item]) -> None:
        """Hand frames over as a transport reads them; wait while there is no room."""
        await self._inbox.put_many(items)


class Sender(Adapted, Generic[T_contra]):
    """Sends data over a transport.

    `send` returns when the frame is in a bounded outbox; it goes when there is a link, the most urgent first,
    and stays there when the link breaks before the transport has it. `flush`, `deliver` and `stop` wait.

    Args:
        name: what is connected to what, without secrets.
        config: has the fields of `CommonConfig`.
        packer: turns data into a frame.
        overflow: what happens to a frame that finds no room.
    """

    def __init__(
        self,
        name: str,
        config: CommonConfig,
        packer: Packer[T_contra] | None = None,
        *,
        overflow: SendOverflow = "block",
    ) -> None:
        super().__init__(name, retry=config.retry, retry_cap=config.retry_cap)
        self.packer: Packer[Any] = json_packer if packer is None else packer
        self._max_size = config.max_size
        self._flush_timeout = config.flush_timeout
        self._outbox = Outbox(config.maxsize, overflow=overflow)

    @property
    def counts(self) -> Counts:
        """What became of everything that was sent."""
        outbox = self._outbox
        return Counts(outbox.done_count, len(outbox), {}, dict(outbox.dropped), self.link.ups)

    async def send(self, data: T_contra, *, priority: int = 0, **options: Any) -> None:
        """Give the frame to the outbox; wait while that is full. Starts if that was not done.

        Cancelled, it was not given.

        Args:
            data: what the packer takes.
            priority: lower goes sooner; within one, the order is kept.
            options: the transport's own, such as ``topic``.

        Raises:
            PackerError: the packer does not take it, or the frame is too large.
            ConfigError: an option is unknown or wrong.
            QueueFull: there is no room and the overflow policy is ``fail``.
            LinkDown: it was stopped, or the link has failed for good.
        """
        item = self._item(data, priority, options)
        if self._task is None or self._task.done():
            await self._revive()
        if not self._outbox.offer(item):
            await self._outbox.put(item)

    async def deliver(self, data: T_contra, *, priority: int = 0, **options: Any) -> None:
        """Send, and wait until the transport has the frame: written, or acknowledged where it acknowledges.

        Cancelled, the frame may still go. Raises what `send` raises, and:

        Raises:
            LinkDown: the frame was dropped instead.
        """
        item = self._item(data, priority, options)
        item.confirmed = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            await self._revive()
        await self._outbox.put(item)
        if not await item.confirmed:
            raise LinkDown(f"{self.name}: the frame was dropped; see counts.dropped")

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until the transport has everything that was sent.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            False if the time was up before, or the link has failed.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._outbox.emptied()
        except TimeoutError:
            return False
        return not len(self._outbox)

    def _item(self, data: Any, priority: int, options: dict[str, Any]) -> OutItem:
        return OutItem(self._pack(data), priority, self._check(options))

    def _pack(self, data: Any) -> bytes:
        try:
            payload = self.packer(data)
        except PackerError:
            raise
        except Exception as exc:
            raise PackerError(data, f"the packer raised {reason(exc)}") from exc
        if isinstance(payload, str):
            payload = payload.encode()
        elif isinstance(payload, bytearray):
            payload = bytes(payload)
        elif not isinstance(payload, bytes):
            raise PackerError(data, f"the packer gave {type(payload).__qualname__}, not bytes")
        if len(payload) > self._max_size:
            raise PackerError(data, f"a frame of {len(payload)} bytes; {self._max_size} are allowed")
        return payload

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a `send`, checked; a transport that has some overrides this.

        Raises:
            ConfigError: one is unknown or wrong.
        """
        if options:
            raise BadCall(f"{type(self).__name__}.send has no option {sorted(options)[0]!r}")
        return options

    async def _revive(self) -> None:
        if self._outbox.closed is not None:
            raise self._outbox.closed
        await self.start()

    async def _wind_down(self) -> None:
        await self.flush(self._flush_timeout)

    def _reopen(self) -> None:
        self._outbox.closed = None

    def _ended(self, error: NexusError) -> None:
        stopped = isinstance(error, EndOfData)
        if stopped:
            error = LinkDown(f"{self.name} was stopped; start it to send again")
        lost = self._outbox.close(error, "stopped" if stopped else "failed")
        if lost:
            logger.warning("%s: %d frames were not sent: %s", self.name, lost, error)
