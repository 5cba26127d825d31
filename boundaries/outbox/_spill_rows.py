"""Events as rows of a file, and back: an event comes back equal, or does not become a row.

A row is JSON: ``[id, type, payload]``, or ``[id, type, payload, metadata]`` with those that there are of:
``at``, when it was written: the life of the writer, seconds on its loop's clock, seconds since 1970;
``created`` and ``deadline`` on that clock; ``headers``, ``source``, ``correlation``, ``reply_to``, ``path``,
``route``.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import orjson

from nexus import Event, NamedEvent, event_type_of
from nexus._event import make_event
from nexus.errors import PackerError, UnpackerError

__all__ = ["SpillRows"]

LONGEST: Final = 2**26
"""Bytes of a row."""
DEEPEST: Final = 100
"""Lists and objects within each other."""

_FLAT = frozenset({str, bool, type(None)})
_WORDS = ("headers", "source", "correlation", "reply_to", "path", "route")
_TUPLES = frozenset({"reply_to", "path", "route"})


class SpillRows:
    """Turns events into rows and rows into events.

    Args:
        types: the classes of named events that may become rows, with the classes of their payloads.
        wall: seconds since 1970; what deadlines go by from one life to the next.
    """

    def __init__(
        self, types: Iterable[type[NamedEvent[Any]]] = (), *, wall: Callable[[], float] = time.time
    ) -> None:
        self._classes: dict[int | str, type[NamedEvent[Any]]] = {event_type_of(cls): cls for cls in types}
        self._wall = wall
        self._life = secrets.token_hex(4)

    def pack(self, event: Event[Any], now: float) -> bytes:
        """Make a row of an event; `on_settled` is left to the caller.

        Raises:
            PackerError: what came back would be another event.
        """
        cls = event.__class__
        if cls is not Event and (
            self._classes.get(event.type) is not cls or getattr(event, "__dict__", None)
        ):
            raise PackerError(event.payload, f"{cls.__name__} is not among the types of the file")
        row: list[Any] = [event.id, event.type, event.payload]
        meta = event._meta
        if meta is not None:
            words = {name: value for name in _WORDS if (value := getattr(meta, name)) not in (None, ())}
            times = {"created": meta.created, "deadline": meta.deadline}
            words |= {name: at for name, at in times.items() if at is not None and at != math.inf}
            if not all(is_plain(list(word) if name in _TUPLES else word) for name, word in words.items()):
                raise PackerError(event.payload, "its metadata is not JSON")
            if words:
                row.append({"at": [self._life, now, self._wall()], **words})
        is_exact = is_plain(event.payload)
        default = None
        if not is_exact and cls is not Event:
            default = _fields_of
        elif not is_exact:
            raise PackerError(event.payload, "it is not plain JSON: str, int, float, bool, None, list, dict")
        if type(event.id) is not int or type(event.type) is bool or not -(2**63) <= event.priority < 2**63:
            raise PackerError(
                event.payload, "its id, type or priority is no integer of 64 bits, or no string"
            )
        try:
            data = orjson.dumps(row, default=default)
        except TypeError as exc:
            raise PackerError(event.payload, str(exc)[:200]) from exc
        if len(data) > LONGEST:
            raise PackerError(event.payload, f"its row has {len(data)} bytes, at most {LONGEST} are allowed")
        if not is_exact and self.unpack(data, event.priority, now) != event:
            raise PackerError(event.payload, "its payload would come back as another one")
        return data[:-1] + b"]"  # a copy: what orjson gives keeps the kilobytes it was written in

    def unpack(self, data: bytes, priority: int, now: float) -> Event[Any]:
        """Make an event of a row.

        Raises:
            UnpackerError: it is none, or its payload is not of the class it has today.
        """
        try:
            number, type_, payload, *rest = orjson.loads(data)
            metadata = self._metadata(rest[0], now) if rest else {}
            cls = self._classes.get(type_)
            if cls is None:
                if metadata:
                    return Event(number, type_, priority, payload, **metadata)
                return make_event(number, type_, priority, payload)
            wanted = cls.payload_class
            if isinstance(wanted, type) and attrs.has(wanted) and isinstance(payload, dict):
                payload = wanted(**payload)
            return cls(number, payload, priority=priority, **metadata)
        except Exception as exc:  # a class of the user's own may raise anything
            raise UnpackerError(data, f"{type(exc).__name__}: {exc}"[:200]) from exc

    def _metadata(self, words: dict[str, Any], now: float) -> dict[str, Any]:
        """Read metadata, with its times on the clock of this life."""
        life, then, wall = words.pop("at")
        passed = now - then if life == self._life else max(0.0, self._wall() - wall)
        found: dict[str, Any] = {}
        for name, value in words.items():
            if name in ("created", "deadline"):
                found[name] = value - then + now - passed
            else:
                found[name] = tuple(value) if name in _TUPLES else value
        return found


def is_plain(value: object, depth: int = 0) -> bool:
    """Say whether a value is JSON and comes back as it is: no tuples, no keys but strings, no NaN."""
    kind = type(value)
    if kind is int:
        return -(2**63) <= value < 2**63  # type: ignore[operator]
    if kind in _FLAT:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if depth == DEEPEST:
        return False
    if kind is list:
        return all(is_plain(each, depth + 1) for each in value)  # type: ignore[attr-defined]
    if kind is dict:
        items = value.items()  # type: ignore[attr-defined]
        return all(type(key) is str and is_plain(each, depth + 1) for key, each in items)
    return False


def _fields_of(value: Any) -> dict[str, Any]:
    """Take the payload of a named event apart."""
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value)) if field.init}
    raise TypeError(f"{type(value).__qualname__} is not JSON")
