"""The state of a connection, visible and announced, and the loop that keeps it up."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import attrs

from nexus.adapters._plain import plain
from nexus.adapters._retry import Retry, Waits
from nexus.adapters._safe import why
from nexus.errors import ConfigError, LinkDown

__all__ = ["Link", "LinkState", "OnLink"]

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["stopped", "connecting", "up", "down", "failed"]


@attrs.frozen
class LinkState:
    """How a connection stands."""

    name: str
    """What is connected to what, without secrets: ``mqtt://broker:1883``."""
    state: State
    """``down`` will be tried again, ``failed`` will not."""
    error: str | None = None
    """Why it is down or has failed."""
    attempts: int = 0
    """Tries since it was up last."""
    ups: int = 0
    """How many times it came up since the start."""


OnLink: TypeAlias = "Callable[[LinkState], None]"
"""Called in the event loop at every change, and not awaited; what it raises is logged."""


class Link:
    """Keeps one connection up, and says how it stands.

    A session is a coroutine that connects, calls `up`, and returns or raises when the connection has ended.
    """

    def __init__(self, name: str, retry: Retry | None = None) -> None:
        self.state = LinkState(name, "stopped")
        self._retry = retry or Retry()
        self._waits = Waits(self._retry)
        self._listeners: list[OnLink] = []
        self._waiters: set[asyncio.Future[State]] = set()
        self._up_since = math.inf

    def listen(self, listener: OnLink) -> None:
        """Call the listener at every change from now on.

        Raises:
            TypeError: it is async, and would not run.
        """
        self._listeners.append(plain(listener, "a listener to a link"))

    @property
    def is_up(self) -> bool:
        """Whether the peer is connected."""
        return self.state.state == "up"

    def connecting(self) -> None:
        """Note that the connection is being tried."""
        self._set(state="connecting", attempts=self.state.attempts + 1)

    def begin(self) -> None:
        """Note that somebody will keep it up."""
        self._set(state="connecting", error=None, attempts=0)

    def up(self) -> None:
        """Note that the connection stands."""
        if not self.is_up:
            self._up_since = asyncio.get_running_loop().time()
            self._set(state="up", error=None, attempts=0, ups=self.state.ups + 1)

    def down(self, error: str) -> None:
        """Note that the connection is gone."""
        self._set(state="down", error=error)

    def stopped(self) -> None:
        """Note that nobody keeps it up any more."""
        if self.state.state != "stopped":
            self._set(state="stopped")

    def failed(self, error: str) -> None:
        """Note that it is gone for good."""
        self._set(state="failed", error=error)

    async def wait_up(self, timeout: float | None = None) -> None:
        """Wait until the connection stands.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            LinkDown: it has failed, is stopped meanwhile, or the time is up. Of one that was never begun the
                beginning is awaited.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self.is_up:
                    if self.state.state == "failed":
                        raise LinkDown(f"{self.state.name}: {self.state.error}")
                    waiter: asyncio.Future[State] = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        # It may have been started again since: what it was told counts.
                        if await waiter == "stopped":
                            raise LinkDown(f"{self.state.name} was stopped")
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            state = self.state
            why = state.error or "no answer"
            raise LinkDown(f"{state.name} is {state.state} after {timeout} s: {why}") from None

    async def keep(
        self,
        session: Callable[[], Awaitable[None]],
        *,
        lost: tuple[type[Exception], ...] = (),
    ) -> None:
        """Run session after session until cancelled, with a wait between them that grows while none comes up.

        Args:
            session: see the class.
            lost: what it raises when there is no connection, beside OSError, EOFError and TimeoutError.

        Raises:
            LinkDown: the connection has ended, and is not to be tried again.
        """
        ended = 0
        wait = 0.0
        loop = asyncio.get_running_loop()
        ends: tuple[type[Exception], ...] = (OSError, EOFError, TimeoutError, *lost)
        while True:
            self.connecting()
            self._up_since = math.inf
            error = "the peer closed the connection"
            cause: BaseException | None = None
            try:
                await session()
            except ConfigError:
                raise
            except ends as exc:
                error, cause = why(exc), exc
            self.down(error)
            ended += 1
            if self._retry.again == "never" or (self._retry.again == "once" and ended > 1):
                raise LinkDown(f"{self.state.name}: {error}") from cause
            # A peer that takes connections and ends them at once is no better than one that is not there.
            if loop.time() - self._up_since >= wait:
                self._waits.reset()
            wait = self._waits.next()
            await asyncio.sleep(wait)

    def _set(self, **changes: Any) -> None:
        before, self.state = self.state, attrs.evolve(self.state, **changes)
        after = self.state
        if after.state == "down" and before.state == "up":
            logger.warning("%s is down: %s", after.name, after.error)
        elif after.state == "down" and after.attempts & (after.attempts - 1) == 0:
            logger.info("%s: try %d failed: %s", after.name, after.attempts, after.error)
        elif after.state == "up":
            logger.info("%s is up", after.name)
        if (before.state, before.error) == (after.state, after.error):
            return
        for listener in self._listeners:
            try:
                listener(after)
            except Exception:
                logger.exception("a listener to the state of %s failed", after.name)
        if after.state in ("up", "failed", "stopped"):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(after.state)
