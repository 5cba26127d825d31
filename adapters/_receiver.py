"""The receiver of every adapter: an inbox that a transport fills, and what it gives to the program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, Self, TypeAlias, TypeVar

from nexus.adapters._adapted import Adapted, CommonConfig, Counts
from nexus.adapters._inbox import Inbox, Item, Overflow
from nexus.adapters._plain import plain
from nexus.adapters._safe import why
from nexus.adapters.packing import Unpacker, json_unpacker
from nexus.errors import EndOfData, NexusError, UnpackerError

__all__ = ["Meta", "OnBad", "Receiver"]

logger = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)

Meta: TypeAlias = dict[str, Any]
"""What the transport said of an item: ``topic``, ``peer`` and the like."""

OnBad: TypeAlias = "Callable[[UnpackerError], object]"
"""Called, and not awaited, with what is wrong with a frame that was put aside; it carries the frame and its
meta."""


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
        self.acknowledges = type(self).accept is not Receiver.accept
        """Whether the transport has something to do when an item is accepted."""
        self._bad: dict[str, int] = {}
        self._handed: list[Meta] = []
        """The items handed out last, which are accepted when the next ones are asked for."""

    @property
    def on_bad(self) -> OnBad | None:
        """What is called with a frame that was put aside; None for nobody.

        Raises:
            TypeError: it is set to what is async, and would not run.
        """
        return self._on_bad

    @on_bad.setter
    def on_bad(self, listener: OnBad | None) -> None:
        self._on_bad = plain(listener, "on_bad")

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
        if self._handed:
            self._accept_handed()
        if not inbox.items:
            await self._wait_for_item()
        payload, meta = inbox.take_nowait()
        try:
            data = self._unpack(payload, meta)
        except UnpackerError:
            self.accept(meta)  # or it would come for ever
            raise
        if self.acknowledges and not self.manual:
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
            if not inbox.items:
                await self._wait_for_item()
            for payload, meta in inbox.take_many(limit):
                try:
                    items.append((self._unpack(payload, meta), meta))
                except UnpackerError as exc:
                    self._tell_bad(exc)
                    self.accept(meta)
        if self.acknowledges and not self.manual:
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
            inbox.check()
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
            error = UnpackerError(payload, f"the unpacker raised {why(exc)}")
            error.meta = meta
            raise error from exc
        if more:
            meta.update(more)
        return data  # type: ignore[no-any-return]

    def _tell_bad(self, exc: UnpackerError) -> None:
        count = sum(self._bad.values())
        if count & (count - 1) == 0:
            # What it says of the bytes, and not the bytes: they may be anybody's secret.
            size, problem = len(exc.payload), exc.why
            logger.warning(
                "%s: %d bad frames so far; the last, of %d bytes: %s", self.name, count, size, problem
            )
        if self._on_bad is not None:
            try:
                self._on_bad(exc)
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
