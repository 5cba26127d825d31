"""Rules: which data becomes which event, and which event becomes what for which topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import attrs

from nexus import Event, EventFactory, EventKey, NamedEvent, event_type_of
from nexus.adapters._plain import plain

__all__ = ["Convert", "Rule", "Unmatched", "match_topic", "pick", "table"]

Meta: TypeAlias = "dict[str, Any]"
Data: TypeAlias = Any

Convert: TypeAlias = "Callable[[Data, Meta], Event[Any] | None]"
"""Makes an event of data and meta, or returns None for what is to be left out."""


@attrs.frozen(kw_only=True)
class Rule:
    """Which data becomes which event.

    Every callable gets ``(data, meta)`` and is not awaited; what it raises puts the item into quarantine.
    """

    type: EventKey | type[NamedEvent[Any]] | Callable[[Data, Meta], EventKey]
    """The event's type, or what says it."""
    topic: str | None = None
    """Filter for the meta's ``topic``: ``+`` stands for one level, ``#`` at the end for the rest; None for
    any, and for data without a topic."""
    where: Callable[[Data, Meta], object] | None = None
    """Whether the rule is for this data; None for all."""
    priority: int | Callable[[Data, Meta], int] = 0
    """Lower is sooner."""
    payload: str | Callable[[Data, Meta], Any] | None = None
    """The name of a field of the data (``a.b`` for a field of a field), or what makes the payload; None for
    the data itself."""
    ttl: float | None = None
    """Seconds after which it must not be handled any more; None for no limit."""

    def __attrs_post_init__(self) -> None:
        is_class = isinstance(self.type, type) and issubclass(self.type, NamedEvent)
        if not isinstance(self.type, int | str) and not is_class and not callable(self.type):
            raise TypeError(
                f"a rule's type is an event type or a function of (data, meta), not {self.type!r}"
            )
        if not isinstance(self.priority, int) and not callable(self.priority):
            raise TypeError(
                f"a rule's priority is an int or a function of (data, meta), not {self.priority!r}"
            )
        if self.ttl is not None and not self.ttl > 0:
            raise ValueError(f"a rule's ttl must be more than 0 seconds, or None, not {self.ttl!r}")
        for name in ("type", "where", "priority", "payload"):
            plain(getattr(self, name), f"a rule's {name}")

    def takes(self, data: Data, meta: Meta) -> bool:
        """Say whether the rule is for this data."""
        if self.topic is not None and not match_topic(self.topic, str(meta.get("topic", ""))):
            return False
        return self.where is None or bool(self.where(data, meta))

    def event(self, data: Data, meta: Meta, factory: EventFactory, now: float) -> Event[Any]:
        """Make the event.

        Args:
            now: seconds on the loop's clock.
        """
        found = self.type
        is_class = isinstance(found, type)
        kind: Any = found if is_class or not callable(found) else found(data, meta)
        priority = self.priority(data, meta) if callable(self.priority) else self.priority
        if self.payload is None:
            payload = data
        elif isinstance(self.payload, str):
            payload = pick(data, self.payload)
        else:
            payload = self.payload(data, meta)
        metadata: dict[str, Any] = {"deadline": now + self.ttl} if self.ttl is not None else {}
        event: Event[Any] = factory.create_event(payload, event_type=kind, priority=priority, **metadata)
        return event


class Unmatched(Exception):
    """No rule takes an item."""


def table(rules: Iterable[Rule], factory: EventFactory, clock: Callable[[], float]) -> Convert:
    """Make one function of rules: the first one that takes an item makes its event; else `Unmatched`."""
    ordered = tuple(rules)
    for rule in ordered:
        if not isinstance(rule, Rule):
            raise TypeError(f"a table consists of Rule objects, not {rule!r}")
        if isinstance(rule.type, int | str):
            event_type_of(rule.type)

    def convert(data: Data, meta: Meta) -> Event[Any]:
        for rule in ordered:
            if rule.takes(data, meta):
                return rule.event(data, meta, factory, clock())
        raise Unmatched

    return convert


def pick(data: Data, path: str) -> Any:
    """Return a field of a mapping or an object, or of what is in one: ``reading.value``.

    Raises:
        LookupError: there is no such field; says which there are.
    """
    found = data
    for name in path.split("."):
        if isinstance(found, Mapping):
            if name not in found:
                known = ", ".join(sorted(map(str, found))[:10]) or "none"
                raise LookupError(f"there is no field {name!r}; the fields are: {known}")
            found = found[name]
        elif attrs.has(type(found)) and name in {field.name for field in attrs.fields(type(found))}:
            found = getattr(found, name)
        else:
            raise LookupError(f"there is no field {name!r} in a {type(found).__name__}")
    return found


@lru_cache(maxsize=4096)
def match_topic(filter: str, topic: str) -> bool:
    """Say whether a topic matches a filter, as MQTT does: levels between ``/``, ``+`` for any one, ``#`` at
    the end for all further ones and for none.

    See MQTT 5.0, section 4.7.
    """
    wanted, levels = filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)
