"""Send what was recorded again: in its order, at its pace, with its priorities and topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from nexus.adapters._base import Sender
from nexus.boundaries._recording import Recorded
from nexus.errors import BadCall, ConfigError, LinkDown, PackerError

__all__ = ["Batches", "Replay"]

Batches: TypeAlias = "Callable[[], AsyncIterator[Sequence[Recorded]]]"
"""Gives the records of a recording from its beginning, each time it is called."""


@attrs.define(eq=False)
class Replay:
    """Sends recorded frames by a sender that takes bytes.

    Every frame has a moment of its own, counted from the first one: a frame that is late makes no other one
    late, and the pace does not drift.
    """

    batches: Batches
    sender: Sender[bytes]
    """Takes bytes as they are: its packer is `bytes_packer`. Started and stopped by whoever made it."""
    speed: float | None = attrs.field(default=1.0, kw_only=True)
    """How many times as fast as it was recorded; None for as fast as the sender takes it."""
    begin: int | None = attrs.field(default=None, kw_only=True)
    """Nanoseconds since the recording began; frames before are left out."""
    end: int | None = attrs.field(default=None, kw_only=True)
    """Frames from then on are left out."""
    rounds: int = attrs.field(default=1, kw_only=True)
    """How often to send it all; 0 for ever."""
    where: Callable[[bytes, Mapping[str, Any]], object] | None = attrs.field(default=None, kw_only=True)
    """Whether a frame is to be sent; one of which it raises is not."""
    given: int = attrs.field(default=0, init=False)
    """Frames the sender has accepted."""
    left_out: int = attrs.field(default=0, init=False)
    """Frames outside of `begin` and `end`, or that `where` did not take."""
    refused: int = attrs.field(default=0, init=False)
    """Frames the sender did not take, or dropped."""
    late: float = attrs.field(default=0.0, init=False)
    """Seconds that the latest frame was behind its moment."""
    failure: str | None = attrs.field(default=None, init=False)
    """Why the last frame was refused."""
    _has_topics: bool = attrs.field(default=True, init=False)

    async def run(self) -> None:
        """Send it all; what the sender accepted it may still hold then.

        Cancelled, a frame was either given or not.

        Raises:
            LinkDown: the sender has failed for good.
            OSError: the recording cannot be read any further.
        """
        base = asyncio.get_running_loop().time()
        done = 0
        while not self.rounds or done < self.rounds:
            given = self.given + self.refused
            base += await self._round(base)
            done += 1
            if self.given + self.refused == given:
                return  # nothing is in it that could be sent for ever

    async def _round(self, base: float) -> float:
        """Send the recording once, the first frame at a moment; return how many seconds it lasts."""
        loop = asyncio.get_running_loop()
        first: int | None = None
        lasts = 0.0
        async for batch in self.batches():
            for item in batch:
                if not self._takes(item):
                    self.left_out += 1
                    continue
                if self.speed is not None:
                    first = item.offset if first is None else first
                    lasts = (item.offset - first) / 1e9 / self.speed
                    await self._until(base + lasts)
                await self._send(item)
            if self.speed is None:
                await asyncio.sleep(0)
        return lasts if self.speed is not None else loop.time() - base

    async def _until(self, moment: float) -> None:
        loop = asyncio.get_running_loop()
        delay = moment - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        else:
            self.late = max(self.late, -delay)

    def _takes(self, item: Recorded) -> bool:
        if self.begin is not None and item.offset < self.begin:
            return False
        if self.end is not None and item.offset >= self.end:
            return False
        if self.where is None:
            return True
        try:
            return bool(self.where(item.payload, item.meta))
        except Exception:
            return False

    async def _send(self, item: Recorded) -> None:
        topic = item.meta.get("topic")
        options = {"topic": topic} if self._has_topics and isinstance(topic, str) and topic else {}
        try:
            try:
                await self.sender.send(item.payload, priority=item.priority, **options)
            except BadCall:
                if not options:
                    raise
                await self.sender.send(item.payload, priority=item.priority)
                self._has_topics = False  # this transport has none
        except LinkDown:
            self.refused += 1
            raise
        except (PackerError, ConfigError, BadCall) as exc:
            self.refused += 1
            self.failure = str(exc)
        else:
            self.given += 1
