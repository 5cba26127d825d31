"""Durable links: what of a link outlives its process, and which promises a link may be asked for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, get_args

from nexus.boundaries.link._stored import Stream
from nexus.boundaries.outbox import Outbox
from nexus.boundaries.outbox._receipts import Cursors
from nexus.errors import ConfigError

__all__ = ["Delivery", "Durable", "durable_of"]

Delivery: TypeAlias = Literal["best_effort", "at_least_once", "durable", "durable_sync"]
"""What is promised of an event that a link has taken:

- ``best_effort``: it is sent once; lost with the connection, and counted.
- ``at_least_once``: it is held until the nexus on the other side has it; lost with one of the two processes.
- ``durable``: it is in a file until it is settled on the other side; survives the death of both processes.
- ``durable_sync``: the same, and the file survives a power cut.
"""


class Durable:
    """The outbox of a link: a stream for each other side, and the cursors of what comes from them.

    Args:
        name: of the link, under which it finds its streams again.
    """

    def __init__(self, outbox: Outbox, name: str) -> None:
        self.outbox = outbox
        self._name = name
        self.cursors = Cursors(outbox)
        self.epoch = 0.0
        """Seconds to add to the loop's clock, so that another process understands a deadline."""
        self._is_open = False
        self._latest: Stream | None = None

    async def open(self, *, wait: bool = False) -> None:
        """Open the file, or use it if somebody has.

        Args:
            wait: whether to wait while another process has it, where the outbox can.

        Raises:
            OpenError: it cannot be.
        """
        if not self._is_open:
            await self.outbox.open(wait=wait)
            self._is_open = True
        self.cursors = Cursors(self.outbox)
        self.epoch = time.time() - asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """Store what is settled; close the file, unless somebody else uses it."""
        self.cursors.close()
        if self._is_open:
            self._is_open = False
            await self.outbox.aclose()

    def names(self) -> Iterator[str]:
        """Give the names of the other sides that a listener holds something for."""
        begin = f"{self._name}>"
        for stream in self.outbox.streams():
            if stream.startswith(begin):
                yield stream.removeprefix(begin)

    def stream(self, peer: str, committed: Callable[[], None]) -> Stream:
        """Return the stream for an other side; its name is empty for the one that a link connects to."""
        return Stream(self.outbox, f"{self._name}>{peer}" if peer else self._name, self._was_put, committed)

    def _was_put(self, stream: Stream) -> None:
        self._latest = stream

    def latest(self) -> Stream | None:
        """Return where a row was put last; None if none was since the last call."""
        latest, self._latest = self._latest, None
        return latest

    def forget(self, peer: str) -> None:
        """Drop what is held for an other side."""
        if self.outbox.is_open:
            self.outbox.forget(f"{self._name}>{peer}" if peer else self._name)


def durable_of(
    outbox: Outbox | str | os.PathLike[str] | None, delivery: Delivery | None, name: str | None
) -> Durable | None:
    """Make what a link needs for the delivery that it is asked for; None where it is all in memory.

    Raises:
        ConfigError: the delivery, the outbox and the name do not go together.
    """
    if delivery is not None and delivery not in get_args(Delivery):
        raise ConfigError(f"delivery: found {delivery!r}, allowed: {', '.join(get_args(Delivery))}")
    if outbox is None:
        if delivery in ("durable", "durable_sync"):
            raise ConfigError(f'delivery {delivery!r} needs a file: outbox="plant.outbox"')
        return None
    if delivery in ("best_effort", "at_least_once"):
        raise ConfigError(f"delivery {delivery!r} keeps nothing in a file: leave the outbox out")
    if name is None:
        raise ConfigError(
            'a link with an outbox needs a name, by which both sides know it again: name="plant"'
        )
    if not isinstance(outbox, Outbox):
        outbox = Outbox(outbox, synchronous="normal" if delivery == "durable" else "full")
    wanted = {"durable": "normal", "durable_sync": "full"}.get(delivery or "", outbox.synchronous)
    if outbox.synchronous != wanted:
        raise ConfigError(f"delivery {delivery!r} needs Outbox(..., synchronous={wanted!r})")
    return Durable(outbox, name)
