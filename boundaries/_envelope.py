"""An event's form on a wire: one JSON object, byte for byte what async-nexus sends.

Only this module knows it. The four fields travel; an event's metadata does not. What comes in is taken only
if it is exactly that: the four fields, each once and of its type, and a payload within limits that keep a
hostile peer cheap.
"""

from __future__ import annotations

import dataclasses
import json
import math
from json.encoder import encode_basestring_ascii as quote
from operator import itemgetter
from typing import Any

import attrs
import orjson

from nexus import Event
from nexus._event import make_event
from nexus.adapters._json import MAX_DEPTH, MAX_NODES, MAX_SIZE, JSONFault, check, fault, refuse_wide
from nexus.errors import BadEvent, PackerError

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_SIZE", "BadFrame", "pack", "preview", "unpack"]

PREVIEW = 100
"""Bytes of a bad frame that an error shows."""

_FIELDS = itemgetter("id", "type", "priority", "payload")
_NAMES = ("id", "type", "priority", "payload")
_FLAT = frozenset({str, int, float, bool, type(None)})
_HUGE = float(2**63)
_WIDE = 2 * MAX_NODES
"""Bytes that may hold so many values that a look before reading is worth it."""


class BadFrame(BadEvent):
    """What came over a wire is not an event.

    Attributes:
        reason: one word, to count by: ``size``, ``parts``, ``topic``, ``text``, ``json``, ``fields``,
            ``duplicate``, ``types``, ``numbers``, ``depth``, ``nodes`` or ``convert``.
        found: the beginning of what came, at most 100 bytes, escaped.
    """

    def __init__(self, reason: str, message: str, data: bytes) -> None:
        self.reason = reason
        self.found = preview(data)
        super().__init__(f"{message}; the frame of {len(data)} bytes begins {self.found}")


def preview(data: bytes) -> str:
    """Return the first 100 bytes as printable ASCII, whatever they are."""
    return repr(data[:PREVIEW]) + ("..." if len(data) > PREVIEW else "")


def pack(event: Event[Any]) -> bytes:
    """Write an event: ``{"id": 7, "type": "t", "priority": 3, "payload": "h\\u00e9y"}``.

    Objects of attrs and dataclasses go as objects of their fields, tuples as lists.

    Raises:
        PackerError: the payload is not JSON: bytes, sets, NaN, infinities, circles, keys such as tuples.
    """
    id, type_, priority, payload = event.id, event.type, event.priority, event.payload
    kind = type(payload)
    if kind is str:
        body = quote(payload)
    elif kind is int:
        body = int.__repr__(payload)
    elif kind is float and math.isfinite(payload):
        body = float.__repr__(payload)
    else:
        body = _write(payload, event)
    name = quote(type_) if isinstance(type_, str) else _write(type_, event)
    number = id if type(id) is int else _write(id, event)
    urgency = priority if type(priority) is int else _write(priority, event)
    return f'{{"id": {number}, "type": {name}, "priority": {urgency}, "payload": {body}}}'.encode("ascii")


def unpack(data: bytes, *, max_size: int = MAX_SIZE) -> Event[Any]:
    """Read an event.

    Args:
        data: UTF-8; exactly the four fields, in any order: ``id`` and ``priority`` integers, ``type`` an
            integer or a string, ``payload`` any JSON. Integers have 64 bits; no key comes twice; no NaN, no
            infinities.
        max_size: bytes.

    Raises:
        BadFrame: it is anything else, or the payload is over `MAX_DEPTH` or `MAX_NODES`.
    """
    if len(data) > max_size:
        raise BadFrame("size", f"an event has at most {max_size} bytes", data)
    try:
        if len(data) > _WIDE:
            refuse_wide(data)
        found = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise _bad(data, fault(exc)) from exc
    except JSONFault as exc:
        raise _bad(data, exc) from exc
    try:
        id, type_, priority, payload = _FIELDS(found)
    except (KeyError, TypeError):
        raise _not_fields(data, found) from None
    if (
        len(found) != 4
        or type(id) is not int
        or type(priority) is not int
        or (type(type_) is not str and type(type_) is not int)
    ):
        raise _not_fields(data, found)
    # Each key has a colon of its own, so where there are four, the four keys are all there is.
    kind = type(payload)
    if data.count(b":") != 4 or (kind not in _FLAT) or (kind is float and not -_HUGE < payload < _HUGE):
        _check(data, type_, payload)
    return make_event(id, type_, priority, payload)


def _default(value: Any) -> object:
    """Take objects of attrs and dataclasses apart; refuse the rest."""
    if attrs.has(type(value)):
        return attrs.asdict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(
        f"{type(value).__qualname__} is not JSON; use str, int, float, bool, None, lists, dicts, "
        "attrs or dataclass objects"
    )


_ENCODER = json.JSONEncoder(default=_default, allow_nan=False, check_circular=False)


def _write(value: object, event: Event[Any]) -> str:
    """Write any JSON, as the json module does."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise PackerError(
            event,
            f"event id={event.id!r} type={event.type!r} with a payload of type "
            f"{type(event.payload).__qualname__} cannot go over the wire: {exc}",
        ) from exc


def _check(data: bytes, type_: int | str, payload: object) -> None:
    """Hold a payload that is not one plain word or number against the limits."""
    colons = type_.count(":") if isinstance(type_, str) else 0  # those in a string, which separate nothing
    try:
        check(data, payload, keys=len(_NAMES), colons=colons)
    except JSONFault as exc:
        raise _bad(data, exc) from exc


def _bad(data: bytes, exc: JSONFault) -> BadFrame:
    return BadFrame(exc.reason, f"no event: {exc}", data)


def _not_fields(data: bytes, found: object) -> BadFrame:
    """Say what is wrong with the envelope itself."""
    if not isinstance(found, dict):
        return BadFrame("fields", f"an event is a JSON object, not a {type(found).__name__}", data)
    for what, names in (
        ("lacks", [name for name in _NAMES if name not in found]),
        ("has no field", sorted(found.keys() - set(_NAMES))),
    ):
        if names:
            listed = ", ".join(ascii(name[:PREVIEW]) for name in names[:4])
            return BadFrame("fields", f"an event has {', '.join(_NAMES)}; this one {what} {listed}", data)
    for name, allowed in (("id", (int,)), ("type", (int, str)), ("priority", (int,))):
        if type(found[name]) not in allowed:
            words = " or ".join({int: "an integer of 64 bits", str: "a string"}[kind] for kind in allowed)
            return BadFrame("types", f"{name} is {words}, not a {type(found[name]).__name__}", data)
    raise AssertionError("there is nothing wrong with this frame")
