"""The sender of every adapter: a backlog that a transport empties, and what the program gives to it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Generic, TypeVar

from nexus.adapters._adapted import Adapted, CommonConfig, Counts
from nexus.adapters._backlog import Backlog, OutItem, SendOverflow
from nexus.adapters._link import LinkState
from nexus.adapters._safe import why
from nexus.adapters.packing import Packer, json_packer
from nexus.errors import BadCall, EndOfData, LinkDown, NexusError, PackerError

__all__ = ["Sender"]

logger = logging.getLogger(__name__)

T_contra = TypeVar("T_contra", contravariant=True)


class Sender(Adapted, Generic[T_contra]):
    """Sends data over a transport.

    `send` returns when the frame is in a bounded backlog; it goes when there is a link, the urgent first,
    and stays there when the link breaks before the transport has it. `flush`, `deliver` and `stop` wait.

    Args:
        name: what is connected to what, without secrets.
        config: has the fields of `CommonConfig`.
        packer: turns data into a frame.
        overflow: what happens to a frame that finds no room.

    Attributes:
        catch_up_rate: frames a second at which those go that waited while the link was down, so that a peer
            that is just back is not run over. What is sent meanwhile waits behind those of its priority.
    """

    catch_up_rate: float = 10_000.0

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
        self._encoding = "utf-8"
        """How text is written, where the packer gives text."""
        self._backlog = Backlog(config.maxsize, overflow=overflow)
        self._link.listen(self._catch_up)

    @property
    def counts(self) -> Counts:
        """What became of everything that was sent."""
        backlog = self._backlog
        return Counts(backlog.done_count, len(backlog), {}, dict(backlog.dropped), self.link.ups)

    async def send(self, data: T_contra, *, priority: int = 0, **options: Any) -> None:
        """Give the frame to the backlog; wait while that is full. Starts if that was not done.

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
        if not self._backlog.put_nowait(item):
            await self._backlog.put(item)

    def send_nowait(self, data: T_contra, *, priority: int = 0, **options: Any) -> bool:
        """Give the frame to the backlog if it was started and has room; say whether it was given.

        With an overflow policy other than ``block`` it is given, or another dropped in its place. Raises what
        `send` raises.
        """
        if self._task is None or self._task.done():
            return False
        return self._backlog.put_nowait(self._item(data, priority, options))

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
        await self._backlog.put(item)
        if not await item.confirmed:
            raise LinkDown(f"{self.name}: the frame was dropped; see counts.dropped")

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until the transport has everything that was sent, or is sent meanwhile.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            False if the time was up before, the link has failed, or a frame was dropped meanwhile instead of
            sent: at a stop, for want of room, or because the transport will not have it or nobody wants it.
        """
        before = self._backlog.dropped_count
        try:
            async with asyncio.timeout(timeout):
                await self._backlog.emptied()
        except TimeoutError:
            return False
        failed = self.link.state == "failed"
        return not (failed or len(self._backlog)) and self._backlog.dropped_count == before

    def _catch_up(self, state: LinkState) -> None:
        if state.state == "up" and self._backlog.waiting:
            self._backlog.catch_up(self.catch_up_rate)

    def _item(self, data: Any, priority: int, options: dict[str, Any]) -> OutItem:
        return OutItem(self._pack(data), priority, self._check(options))

    def _pack(self, data: Any) -> bytes:
        try:
            payload: Any = self.packer(data)
        except PackerError:
            raise
        except Exception as exc:
            raise PackerError(data, f"the packer raised {why(exc)}") from exc
        if type(payload) is bytes and len(payload) <= self._max_size:
            return payload
        if isinstance(payload, str):
            try:
                payload = payload.encode(self._encoding)
            except UnicodeError as exc:
                raise PackerError(data, f"its text is not {self._encoding}: {why(exc)}") from exc
        elif isinstance(payload, bytearray):
            payload = bytes(payload)
        elif not isinstance(payload, bytes):
            raise PackerError(data, f"the packer gave {type(payload).__qualname__}, allowed: bytes")
        if len(payload) > self._max_size:
            raise PackerError(data, f"a frame of {len(payload)} bytes; {self._max_size} are allowed")
        packed: bytes = payload
        return packed

    def _check(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a `send`, checked; a transport that has some overrides this.

        Raises:
            ConfigError: one is unknown or wrong.
        """
        if options:
            raise BadCall(f"{type(self).__name__}.send has no option {sorted(options)[0]!r}")
        return options

    async def _revive(self) -> None:
        if self._backlog.closed is None:  # else `put` raises
            await self.start()

    async def _wind_down(self) -> None:
        await self.flush(self._flush_timeout)

    def _reopen(self) -> None:
        self._backlog.closed = None

    def _ended(self, error: NexusError) -> None:
        stopped = isinstance(error, EndOfData)
        closed = LinkDown(f"{self.name} was stopped; start it to send again" if stopped else str(error))
        closed.__cause__ = None if stopped else error
        lost = self._backlog.close(closed, "stopped" if stopped else "failed")
        if lost:
            logger.warning("%s: %d frames were not sent: %s", self.name, lost, error)
