"""Standing by for a file that another process has, and showing those who do that one lives."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from nexus.adapters._thread import Worker
from nexus.boundaries.outbox._kinds import OutboxInUse
from nexus.boundaries.outbox._owner import OwnerFile, Sign

__all__ = ["Standby", "Watch"]

logger = logging.getLogger(__name__)

SIGNS = 5
"""Signs of life in the time after which a process without any may be killed."""
POLL = 0.05
"""Seconds until a process that stands by looks again, at most."""
POLL_OTHERS = 0.5
"""The same where the file is in use by somebody who gives no signs of life."""
PATIENCE = 5.0
"""Seconds that letting go may take."""


class Standby:
    """One process among those that may have a file: it waits, has the file, and shows that it lives.

    Signs of life come from the event loop: where that hangs there are none. They are written by a thread of
    their own, so that the disk does not hold up the loop.

    Args:
        path: of the outbox.
        after: seconds without a sign of life after which the process that has the file is killed.
    """

    def __init__(self, path: str, after: float) -> None:
        self._path = path
        self._owner_path = f"{os.path.realpath(path)}-owner"
        self._after = after
        self._worker = Worker(f"outbox[{os.path.basename(path)}].owner")
        self._file: OwnerFile | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent: Future[None] | None = None

    async def acquire(
        self, opened: Callable[[], Awaitable[None]], *, wait: bool, waiting: Callable[[str], object]
    ) -> str:
        """Get the file: at once, when whoever has it lets go or dies, or by killing it.

        Cancelled, it lets go.

        Args:
            opened: opens the outbox, once this process is the one that may.
            wait: whether to wait for it.
            waiting: told why this one waits, whenever that changes.

        Returns:
            From whom it was taken over; empty if nobody had it.

        Raises:
            OutboxInUse: another process has it, and `wait` is False.
            OSError: the disk does not let it.
        """
        try:
            return await self._acquire(opened, wait, waiting)
        except BaseException:
            self.drop()
            raise

    async def _acquire(
        self, opened: Callable[[], Awaitable[None]], wait: bool, waiting: Callable[[str], object]
    ) -> str:
        watch, told = Watch(self._after), ""
        while True:
            if self._file is None:
                self._file = OwnerFile(self._owner_path, self._after)
            file = self._file
            pause = min(POLL, self._after / 10)
            try:
                taken, reason = await self._worker.call(file.take), ""
            except OSError as exc:
                if not told:
                    raise
                taken, reason = False, str(exc)
            if taken:
                self._show()
                try:
                    await opened()
                except OutboxInUse:
                    if not wait:
                        raise
                    self._stop()
                    await self._worker.call(file.release)
                    reason, pause = "somebody has it who gives no signs of life", POLL_OTHERS
                    watch.seen(None)
                else:
                    return watch.outcome(file.left) if told else ""
            elif not reason:
                sign = await self._worker.call(file.look)
                reason = f"process {sign.pid} has it" if sign is not None else "another one has it"
                if not wait:
                    raise OutboxInUse(f"{self._path}: {reason}; one outbox at a time has a file")
                if watch.seen(sign) and sign is not None:
                    await self._fence(file, watch, sign)
            if reason != told:
                told = reason
                logger.info("%s: standing by: %s", self._path, reason)
                waiting(reason)
            await asyncio.sleep(pause)

    async def _fence(self, file: OwnerFile, watch: Watch, sign: Sign) -> None:
        silent = watch.silent
        watch.silent = 0.0
        try:
            if await self._worker.call(file.fence, sign):
                watch.killed = f"process {sign.pid} was killed: no sign of life for {silent:.1f} s"
                watch.killed_pid = sign.pid
                logger.warning("%s: %s", self._path, watch.killed)
        except OSError as exc:
            if not watch.is_helpless:
                watch.is_helpless = True
                logger.warning(
                    "%s: process %d gives no sign of life, and cannot be killed: %s; waiting for its end",
                    self._path,
                    sign.pid,
                    exc,
                )

    def _show(self) -> None:
        """Give signs of life until there is no file any more."""
        file = self._file
        if file is None:
            return
        self._timer = asyncio.get_running_loop().call_later(self._after / SIGNS, self._show)
        if self._sent is None or self._sent.done():
            self._sent = self._worker.submit(file.show)

    async def release(self) -> None:
        """Let go, so that another process can have the file."""
        file = self._file
        self._stop()
        try:
            if file is not None:
                await asyncio.wait_for(self._worker.call(file.release), PATIENCE)
        except TimeoutError:
            logger.warning("%s: the disk does not answer; nobody else gets it", self._path)
        finally:
            self._worker.shutdown()

    def drop(self, behind: Worker | None = None) -> None:
        """Let go, without waiting for it.

        Args:
            behind: does this after what it does now.
        """
        file = self._file
        self._stop()
        if file is not None:
            (behind or self._worker).submit(file.release)
        self._worker.shutdown()

    def _stop(self) -> None:
        self._file = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Watch:
    """For how long a process has given no sign of life, and what came of it.

    Args:
        after: seconds that are too long.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._last: Sign | None = None
        self._looked = 0.0
        self.silent = 0.0
        self.killed = ""
        self.killed_pid = 0
        self.is_helpless = False

    def seen(self, sign: Sign | None) -> bool:
        """Take note of the last sign of life; say whether there was none for too long.

        Only time in which this process looked counts: where both were stopped, neither can know.
        """
        now = asyncio.get_running_loop().time()
        passed, self._looked = min(now - self._looked, 2 * POLL), now
        if sign is None or sign != self._last:
            if self._last is None or sign is None or sign.pid != self._last.pid:
                self.is_helpless = False
            self._last, self.silent = sign, 0.0
            return False
        self.silent += passed
        return self.silent >= max(self._after, sign.after)

    def outcome(self, left: Sign | None) -> str:
        """Say what became of whoever had it, by what that one has left."""
        if left is None:
            return f"process {self._last.pid} has closed it" if self._last is not None else "it was closed"
        if left.pid == self.killed_pid:
            return self.killed
        return f"process {left.pid} has ended without closing it"
