"""Events as rows of a link's frames, and back: the only place that knows what of an event travels.

A row is ``[id, type, payload]``, or ``[id, type, payload, metadata]`` with those that there are of: ``due``,
the deadline in microseconds on the sender's clock; ``headers``; ``correlation``; ``route`` and ``reply_to``,
the way back of replies; ``path``, the domains it had left behind before the one it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from nexus import Event, EventMeta, NamedEvent, event_type_of
from nexus._event import make_event
from nexus.adapters._safe import why
from nexus.adapters.packing import json_packer
from nexus.boundaries._payloads import maker_of
from nexus.boundaries.link._frames import BadLinkFrame, check_row
from nexus.errors import BadEvent, PackerError

__all__ = ["MAX_HOPS", "Rows"]

MAX_HOPS = 8
"""Domains that an event may leave behind."""

SMALL: Final = 66
"""Bytes of a row that cannot be too deep."""
MEDIUM: Final = 160
"""Bytes of a row that cannot be too deep if no list is in it: an object takes 5 bytes with its key."""
LARGE: Final = 2**18
"""Bytes of a row that may be too large, or hold too many values."""
DEEP: Final = 32
"""Lists and objects of a row that may be too deep."""

MOST_TIME: Final = 2.0**42
"""Seconds on the clock that a deadline may be at; a later one is none."""

_dumps: Final = orjson.dumps
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS  # as the packer has it
_NULL: Final = b"null"
_WORDS = {"due", "headers", "correlation", "route", "reply_to", "path"}


class Rows:
    """Turns events into rows and rows into events.

    Args:
        types: the classes of named events that come back as what they were; others come as plain events.

    Raises:
        ConfigError: the payload of one of them needs the package cattrs, which is not there.
    """

    def __init__(self, types: Iterable[type[NamedEvent[Any]]] = ()) -> None:
        self.classes: Mapping[int | str, type[NamedEvent[Any]]] = {event_type_of(cls): cls for cls in types}
        self._makers = {type_: make for type_, cls in self.classes.items() if (make := maker_of(cls))}
        self.epoch = 0.0
        """Seconds by which the clock that goes over the wire shows more than the own one."""

    def pack(self, event: Event[Any]) -> bytes:
        """Make a row of an event.

        Raises:
            PackerError: the payload, or a header, is not JSON, or more of it than the other side would read.
        """
        meta = event._meta
        if meta is None:
            number, kind = event.id, event.type
            if type(number) is int and type(kind) is not bool:
                try:
                    row = _dumps((number, kind, event.payload), None, _OPTIONS)
                except TypeError:
                    row = _NULL  # only the packer knows what to make of it
                # A null may have been a NaN. `rfind` is faster than `in` and `find`.
                if row.rfind(_NULL) < 0 and (
                    len(row) <= (MEDIUM if row.rfind(b"[") == 0 else SMALL) or not _is_doubtful(row)
                ):
                    return b"%b" % row  # a copy: what orjson gives keeps the room it was written in
            row = json_packer((number, kind, event.payload))
            _check(event, row)
            return row
        words: dict[str, Any] = {}
        if meta.deadline is not None and meta.deadline < MOST_TIME:
            words["due"] = int(max(meta.deadline + self.epoch, 0.0) * 1e6)
        for name in ("headers", "correlation", "route", "reply_to", "path"):
            value = getattr(meta, name)
            if value is not None and value != ():
                words[name] = value
        row = json_packer((event.id, event.type, event.payload, words))
        _check(event, row)
        return row

    def pack_many(self, events: list[Event[Any]]) -> list[bytes]:
        """Make rows of the first of some events of one type: up to one with metadata, or that is not JSON."""
        kind = events[0].type
        rows: list[bytes] = []
        try:
            for event in events:
                number = event.id
                if event._meta is not None or number.__class__ is not int:
                    break
                row = _dumps((number, kind, event.payload), None, _OPTIONS)
                rows.append(b"%b" % row)  # a copy, as in `pack`
        except TypeError:
            rows.clear()
        joined = b"".join(rows)
        is_plain = joined.rfind(_NULL) < 0 and joined.count(b"[") == len(rows) and type(kind) is not bool
        if rows and is_plain and (max(map(len, rows)) <= MEDIUM or not any(map(_is_doubtful, rows))):
            return rows
        rows = []
        for event in events:
            if event._meta is not None:
                break
            try:
                rows.append(self.pack(event))
            except PackerError:
                break
        return rows

    def unpack(self, row: list[Any], priority: int, ahead: float, plain: EventMeta) -> Event[Any]:
        """Make an event of a row.

        Args:
            ahead: seconds by which the own clock shows more than that of the sender, as far as is known.
            plain: what an event without metadata of its own gets: the domain it comes from, and the way back.

        Raises:
            BadEvent: its metadata is not what it should be, or its payload not of its class.
        """
        number, type_, payload = row[:3]
        if len(row) == 3:
            if type_ not in self.classes:
                return make_event(number, type_, priority, payload, plain)
            metadata: dict[str, Any] = {"path": plain.path, "reply_to": plain.reply_to}
        else:
            metadata = self._metadata(row[3], ahead)
            metadata["path"] = (*metadata.get("path", ()), *plain.path)
            if not metadata.get("route"):
                metadata["reply_to"] = (*metadata.get("reply_to", ()), *plain.reply_to)
        cls = self.classes.get(type_)
        if cls is None:
            return Event(number, type_, priority, payload, **metadata)
        if (make := self._makers.get(type_)) is not None:
            payload = make(payload)
        try:
            return cls(number, payload, priority=priority, **metadata)
        except Exception as exc:  # a constructor of the user's own may raise anything
            raise BadEvent(f"it makes no {cls.__name__}: {why(exc)}") from exc

    def _metadata(self, words: dict[str, Any], ahead: float) -> dict[str, Any]:
        if not words.keys() <= _WORDS:
            raise BadEvent(f"an event's metadata has {', '.join(sorted(_WORDS))}, not {sorted(words)[:10]!a}")
        found: dict[str, Any] = {}
        for name, value in words.items():
            if name == "due":
                if type(value) is not int:
                    raise BadEvent(f"due is a number of microseconds, not {value!a:.50}")
                found["deadline"] = value / 1e6 + ahead
            elif name == "headers":
                if not isinstance(value, dict):
                    raise BadEvent(f"headers is an object, not {value!a:.50}")
                found["headers"] = value
            elif name == "correlation":
                if type(value) not in (int, str):
                    raise BadEvent(f"correlation is an integer or a string, not {value!a:.50}")
                found["correlation"] = value
            else:
                if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                    raise BadEvent(f"{name} is a list of strings, not {value!a:.50}")
                found[name] = tuple(value)
        return found


def _is_doubtful(row: bytes) -> bool:
    """Say whether a row may be too large, or too deep."""
    return len(row) > LARGE or row.count(b"[") + row.count(b"{") > DEEP


def _check(event: Event[Any], row: bytes) -> None:
    """Raise `PackerError` for what would end every connection it is sent on; look closely where it may."""
    if type(event.id) is not int or type(event.type) is bool or _is_doubtful(row):
        try:
            check_row(row)
        except BadLinkFrame as exc:
            raise PackerError(event.payload, str(exc)[:200]) from exc
