"""Quarantine: what came over a wire and is no event, put aside, counted and shown to whoever asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from nexus.adapters._plain import plain
from nexus.adapters._safe import why

__all__ = ["Quarantine", "Quarantined"]

logger = logging.getLogger(__name__)


@attrs.frozen
class Quarantined:
    """An item that was put aside."""

    reason: str
    """One word: ``unpack`` for bytes that are no data, ``convert`` for data of which no event could be made,
    ``unmatched`` for data that no rule takes."""
    data: Any
    """What came: bytes for ``unpack``, else the data."""
    meta: Mapping[str, Any]
    """What the transport said of it."""
    error: BaseException | None
    """What was raised; None for ``unmatched``."""


class Quarantine:
    """Counts what is put aside and hands it on.

    Args:
        name: of the boundary, for the log.
        handler: called with each item, and not awaited; what it raises is logged.

    Raises:
        TypeError: the handler is async, and would not run.
    """

    def __init__(self, name: str, handler: Callable[[Quarantined], object] | None) -> None:
        self._name = name
        self._handler = plain(handler, "quarantine")
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many were put aside, by reason."""
        return MappingProxyType(self._counts)

    def put(self, item: Quarantined) -> None:
        """Put an item aside; the first of its reason is logged, then one for each doubling."""
        count = self._counts[item.reason] = self._counts.get(item.reason, 0) + 1
        if count & (count - 1) == 0:
            # What is wrong, and not what came: that may be anybody's secret.
            problem = getattr(item.error, "why", None) or (
                why(item.error) if item.error else "no rule takes it"
            )
            logger.warning(
                "%s put an item aside (%s, %d so far): %s", self._name, item.reason, count, problem
            )
        if self._handler is not None:
            try:
                self._handler(item)
            except Exception:
                logger.exception("the quarantine handler of %s failed", self._name)
