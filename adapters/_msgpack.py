"""MessagePack: JSON's shape and more in fewer bytes, for those who have the extra ``msgpack``."""

from __future__ import annotations

import enum
from typing import Any

try:
    import msgpack as _msgpack
except ImportError:
    _msgpack = None

from nexus.adapters._json import MAX_DEPTH, MAX_NODES, MAX_SIZE
from nexus.adapters._json_packing import plain
from nexus.adapters._safe import printable, why
from nexus.errors import ConfigError, PackerError, UnpackerError

__all__ = ["MsgpackPacker", "MsgpackUnpacker"]

msgpack: Any = _msgpack

SMALL = 1024
"""Bytes that are read without looking whether they hold as much as they claim."""


class MsgpackPacker:
    """Write MessagePack.

    Takes what JSON takes, and bytes, NaN, infinities and datetimes with a time zone (which come back in UTC).
    Objects of attrs and dataclasses go as maps of their fields, enums as their values, tuples as arrays.

    Raises:
        ConfigError: the package msgpack is not there.
        PackerError: by the call: sets, circles, integers of more than 64 bits, and other objects.
    """

    def __init__(self) -> None:
        _need()

    def __repr__(self) -> str:
        return "MsgpackPacker()"

    def __call__(self, data: Any) -> bytes:
        try:
            packed: bytes = msgpack.packb(data, default=_default, datetime=True)
            return packed
        except Exception as exc:
            raise PackerError(data, printable(str(exc)) if type(exc) is TypeError else why(exc)) from exc


class MsgpackUnpacker:
    """Read MessagePack: one object, its texts in UTF-8, its keys strings or bytes and none of them twice.

    Args:
        max_size: bytes.
        max_depth: arrays and maps within each other.
        max_nodes: values, all levels together.

    Raises:
        ConfigError: a limit is less than 1, or the package msgpack is not there.
        UnpackerError: by the call: it is anything else, or over a limit.
    """

    def __init__(
        self, *, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES
    ) -> None:
        _need()
        for name, limit in (("max_size", max_size), ("max_depth", max_depth), ("max_nodes", max_nodes)):
            if limit < 1:
                raise ConfigError(f"{name} is {limit!r}; it must be 1 or more")
        self.max_size = max_size
        self.max_depth = max_depth
        self.max_nodes = max_nodes

    def __repr__(self) -> str:
        limits = f"max_size={self.max_size}, max_depth={self.max_depth}, max_nodes={self.max_nodes}"
        return f"MsgpackUnpacker({limits})"

    def __call__(self, payload: bytes) -> tuple[Any, dict[str, Any]]:
        size = len(payload)
        if size > self.max_size:
            raise UnpackerError(payload, f"{size} bytes, where {self.max_size} are allowed")
        nodes = 1

        def count(found: list[Any]) -> list[Any]:
            nonlocal nodes
            nodes += len(found)
            if nodes > self.max_nodes:
                raise ValueError(f"more than {self.max_nodes} values")
            return found

        def pairs(found: list[tuple[Any, Any]]) -> dict[Any, Any]:
            result = dict(count(found))
            if len(result) < len(found):
                raise ValueError("a key comes twice")
            return result

        try:
            if size > SMALL:
                _look_through(payload)
            found = msgpack.unpackb(
                payload,
                timestamp=3,
                object_pairs_hook=pairs,
                list_hook=count,
                max_array_len=min(size, self.max_nodes),
                max_map_len=min(size, self.max_nodes),
            )
            self._refuse_deep(found)
        except Exception as exc:
            raise UnpackerError(
                payload, printable(str(exc)) if type(exc) is ValueError else why(exc)
            ) from exc
        return found, {}

    def _refuse_deep(self, value: Any) -> None:
        level, depth = [value], 0
        while level := [each for each in level if isinstance(each, dict | list)]:
            depth += 1
            if depth > self.max_depth:
                raise ValueError(f"arrays and maps are more than {self.max_depth} deep in each other")
            level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]


def _need() -> None:
    if msgpack is None:
        raise ConfigError("MessagePack needs the package msgpack: pip install 'event-nexus[msgpack]'")


def _look_through(payload: bytes) -> None:
    """Refuse arrays that claim more than there is: a thousand in each other would ask for much room."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    unpacker.skip()


def _default(value: Any) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    try:
        return plain(value)
    except TypeError:
        kind = type(value).__qualname__
        raise TypeError(f"{kind} has no form in MessagePack") from None
