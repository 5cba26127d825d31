"""The half that senders and receivers have in common: one life, one task, one state, one account."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import attrs

from nexus.adapters._link import Link, LinkState, OnLink
from nexus.adapters._retry import Again, Retry
from nexus.adapters._safe import one_line, why
from nexus.errors import EndOfData, LinkDown, NexusError

__all__ = ["Adapted", "CommonConfig", "Counts"]

logger = logging.getLogger(__name__)


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
        return attrs.asdict(self)


class Adapted(abc.ABC):
    """The common half: starts, runs one task, stops, and says how its link stands.

    `start` and `stop` may be called again and again, in this order or not. A subclass gives `_run`, which
    works until it is cancelled; `_open` and `_close` for what it holds meanwhile. `name` says what is
    connected to what, without secrets.
    """

    def __init__(self, name: str, *, retry: Again = "always", retry_cap: float = 0.5) -> None:
        # Hosts, topics and paths may be anybody's, and the name is in every record of the log.
        self.name = name = one_line(name)
        self._link = Link(name, Retry(again=retry, base=min(0.02, retry_cap), cap=retry_cap))
        self._task: asyncio.Task[None] | None = None
        self._changing: asyncio.Lock = asyncio.Lock()

    @property
    def link(self) -> LinkState:
        """How the connection stands now."""
        return self._link.state

    def on_link(self, listener: OnLink) -> None:
        """Call the listener, in the event loop, at every change of `link` from now on.

        Raises:
            TypeError: it is async, and would not run.
        """
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
            self._link.begin()
            try:
                await self._open()
            except Exception as exc:
                self._link.failed(why(exc))
                raise
            except BaseException:
                self._link.stopped()
                raise
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
            LinkDown: the time is up, the link has failed for good, or it was stopped meanwhile.
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
            self._link.failed(why(exc))
            self._ended(exc)
        except Exception as exc:
            logger.exception("%s failed", self)
            self._link.failed(why(exc))
            error = LinkDown(f"{self.name} failed: {why(exc)}")
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
