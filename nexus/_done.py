"""Word from a handler that takes events now and has handled them later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ._delivery import Deliveries, Delivery, Lot

__all__ = ["Done"]


class Done:
    """What a handler calls, in the loop and not before it has returned, when it has handled what it took.

    With an exception that has failed for good. Events that a stop has given back meanwhile stay given back.
    """

    __slots__ = ("_deliveries", "_name", "_spawn", "held")

    def __init__(
        self,
        deliveries: Deliveries,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        name: str,
    ) -> None:
        self._deliveries = deliveries
        self._spawn = spawn
        self._name = name
        self.held: Delivery | Lot | list[Delivery] | None = None
        """What it was; None before the handler has returned, and once it was told."""

    def __call__(self, exc: BaseException | None = None) -> None:
        held, self.held = self.held, None
        deliveries = self._deliveries
        if isinstance(held, Lot):
            if held not in deliveries.lots:
                return
            if exc is None:
                deliveries.finish_lot(held)
                return
            held = deliveries.open_lot(held)
        for delivery in [held] if isinstance(held, Delivery) else held or ():
            if delivery not in deliveries.active:
                continue
            if exc is None:
                delivery.taken = True
                deliveries.finish(delivery)
            else:
                self._spawn(deliveries.fail(delivery, self._name, exc, 1), f"handler.{self._name}")
