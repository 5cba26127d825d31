"""JSON, strict and fast: nothing is changed on the way, and a hostile peer stays cheap."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import uuid
from collections.abc import Callable
from typing import Any

import attrs
import orjson

from nexus.adapters._json import MAX_DEPTH, MAX_NODES, MAX_SIZE, JSONFault, check, fault, opens, refuse_wide
from nexus.adapters._safe import printable, why
from nexus.errors import ConfigError, PackerError, UnpackerError

__all__ = ["JSONPacker", "JSONUnpacker", "plain"]

_loads = orjson.loads
_dumps = orjson.dumps
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS  # else fields that begin with "_" would be left out
_PLAIN = frozenset({str, int, bool, type(None)})
_LEAVES = (datetime.date, datetime.time, uuid.UUID)
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19


class JSONPacker:
    """Write JSON in UTF-8, without blanks.

    Takes what `json.dumps` takes, objects of attrs and dataclasses (as objects of their fields), enums (as
    their values), dates, times and UUIDs (as text, after RFC 3339 and RFC 9562). Tuples go as lists.

    Args:
        default: called with what is none of these; gives what to write in its place, or raises.

    Raises:
        PackerError: by the call: bytes, sets, NaN, infinities, circles, keys that are no strings, integers of
            more than 64 bits, strings that are not Unicode, and whatever ``default`` refuses.
    """

    def __init__(self, default: Callable[[Any], object] | None = None) -> None:
        self._default = plain if default is None else _either(default)
        self._finite = json.JSONEncoder(default=self._parts, allow_nan=False, check_circular=False)

    def __repr__(self) -> str:
        return "JSONPacker()"

    def __call__(self, data: Any) -> bytes:
        try:
            packed = _dumps(data, self._default, _OPTIONS)
            # None, a text, or a NaN or an infinity, which orjson does not refuse. `find` is faster than `in`.
            if packed.find(b"null") >= 0:
                self._refuse_nan(data)
        except Exception as exc:
            cause = exc.__cause__ or exc  # orjson hides what `default` raised behind its own words
            raise PackerError(data, _said(cause)) from exc
        return b"%b" % packed  # a copy: what orjson gives keeps the room it was written in, 4 kB or more

    def _refuse_nan(self, data: Any) -> None:
        if type(data) is dict:
            for value in data.values():
                kind = type(value)
                if kind not in _PLAIN and not (kind is float and math.isfinite(value)):
                    break
            else:
                return
        elif data is None:
            return
        self._finite.encode(data)

    def _parts(self, value: Any) -> object:
        """Take apart for the json module what orjson takes apart by itself."""
        if isinstance(value, enum.Enum):
            return value.value
        return None if isinstance(value, _LEAVES) else self._default(value)


class JSONUnpacker:
    """Read JSON, and only what RFC 8259 calls interoperable.

    Args:
        max_size: bytes.
        max_depth: lists and objects within each other.
        max_nodes: values, all levels together. What claims more is refused before memory is spent on it.

    Raises:
        UnpackerError: by the call: not JSON, not UTF-8, NaN or infinities, equal keys in one object, integers
            beyond 64 bits (from ``-2**63`` to ``2**64 - 1``), or over a limit.
        ConfigError: a limit is less than 1.
    """

    def __init__(
        self, *, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES
    ) -> None:
        for name, limit in (("max_size", max_size), ("max_depth", max_depth), ("max_nodes", max_nodes)):
            if limit < 1:
                raise ConfigError(f"{name} is {limit!r}; it must be 1 or more")
        self.max_size = max_size
        self.max_depth = max_depth
        self.max_nodes = max_nodes
        self._deep = min(max_depth, 250)  # what orjson writes at least
        self._small = min(max_size, 2 * max_nodes - 1)  # so many bytes never hold too many values

    def __repr__(self) -> str:
        return (
            f"JSONUnpacker(max_size={self.max_size}, max_depth={self.max_depth}, max_nodes={self.max_nodes})"
        )

    def __call__(self, payload: bytes) -> tuple[Any, dict[str, Any]]:
        try:
            if len(payload) > self._small:
                self._refuse_large(payload)
                found = _loads(payload)
            else:
                found = _loads(payload)
                # Two forms are common, and sound at a glance, without a look at each value. (91 is "[".)
                if 32 not in payload or payload.find(b'": ') < 0:
                    # Compact: what was lost or changed in reading does not come back in writing.
                    flat = 91 not in payload and payload.rfind(b"{") <= 0
                    if (flat or opens(payload) <= self._deep) and _dumps(found) == payload:
                        return found, {}
                elif (
                    # As the json module writes a flat object. Each key has a colon of its own, so where there
                    # are no more, no key came twice; and no long integer became a float.
                    type(found) is dict
                    and payload.count(b":") == len(found)
                    and 91 not in payload
                    and payload.translate(_DIGITS).find(_LONG) < 0
                    and self.max_depth > 1
                ):
                    return found, {}
            check(payload, found, max_depth=self.max_depth, max_nodes=self.max_nodes)
        except orjson.JSONDecodeError as exc:
            raise UnpackerError(payload, str(fault(exc))) from exc
        except JSONFault as exc:
            raise UnpackerError(payload, str(exc)) from exc
        except Exception as exc:
            raise UnpackerError(payload, why(exc)) from exc
        return found, {}

    def _refuse_large(self, payload: bytes) -> None:
        if len(payload) > self.max_size:
            raise JSONFault("size", f"{len(payload)} bytes, where {self.max_size} are allowed")
        refuse_wide(payload, max_depth=self.max_depth, max_nodes=self.max_nodes)


def _said(cause: BaseException) -> str:
    if type(cause) is ValueError and "Out of range float" in str(cause):  # the json module's words
        return "NaN and infinities have no form in JSON"
    return printable(str(cause)) if isinstance(cause, TypeError) else why(cause)


def plain(value: Any) -> object:
    """Take objects of attrs and dataclasses apart, one level; refuse what JSON has no form for."""
    kind = type(value)
    if attrs.has(kind):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(
        f"{kind.__qualname__} has no form in JSON; use str, int, float, bool, None, lists, dicts, "
        "attrs or dataclass objects"
    )


def _either(default: Callable[[Any], object]) -> Callable[[Any], object]:
    """Ask for what to write: first ourselves, then the user."""

    def ask(value: Any) -> object:
        try:
            return plain(value)
        except TypeError:
            return default(value)

    return ask
