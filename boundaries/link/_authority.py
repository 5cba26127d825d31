"""What the other side of a link may send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nexus import Event, NamedEvent, event_type_of
from nexus.errors import ConfigError

__all__ = ["Accepted", "Authority"]

Accepted = int | str | type[NamedEvent[Any]]
"""An event type, or a class of named events."""


class Authority:
    """Says of each event that comes whether it may.

    Args:
        accept: the types that may come; None for all.
        most_urgent: the most urgent priority that may come, the least number; None for any.

    Raises:
        ConfigError: one of them is not what it should be.
    """

    def __init__(self, accept: Iterable[Accepted] | None, most_urgent: int | None) -> None:
        if isinstance(accept, str | int):
            raise ConfigError(f"accept: found {accept!r}, allowed: a list of event types")
        if most_urgent is not None and type(most_urgent) is not int:
            raise ConfigError(f"most_urgent: found {most_urgent!r}, allowed: an integer, or None")
        try:
            self._types = None if accept is None else frozenset(map(event_type_of, accept))
        except TypeError as exc:
            raise ConfigError(f"accept: {exc}") from exc
        self._most_urgent = most_urgent

    @property
    def is_open(self) -> bool:
        """Whether all may come."""
        return self._types is None and self._most_urgent is None

    def admits(self, event: Event[Any]) -> bool:
        """Say whether an event may come."""
        if self._types is not None and event.type not in self._types:
            return False
        return self._most_urgent is None or event.priority >= self._most_urgent
