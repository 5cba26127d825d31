"""Packers turn data into bytes, unpackers bytes into data: what they promise, and those built in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from nexus.adapters._csv import CSVPacker
from nexus.adapters._csv_unpacker import CSVUnpacker
from nexus.adapters._json_packing import JSONPacker, JSONUnpacker
from nexus.adapters._msgpack import MsgpackPacker, MsgpackUnpacker
from nexus.adapters._text import BytesPacker, BytesUnpacker, TextPacker, TextUnpacker
from nexus.adapters._typed import TypedPacker, TypedUnpacker
from nexus.errors import ConfigError

__all__ = [
    "BytesPacker",
    "BytesUnpacker",
    "CSVPacker",
    "CSVUnpacker",
    "JSONPacker",
    "JSONUnpacker",
    "MsgpackPacker",
    "MsgpackUnpacker",
    "Packer",
    "TextPacker",
    "TextUnpacker",
    "TypedPacker",
    "TypedUnpacker",
    "Unpacker",
    "bytes_packer",
    "bytes_unpacker",
    "json_packer",
    "json_unpacker",
    "packing",
    "text_packer",
    "text_unpacker",
]

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Packer(Protocol[T_contra]):
    """Any callable from data to bytes."""

    def __call__(self, data: T_contra, /) -> bytes:
        """Turn data into bytes.

        Raises:
            PackerError: the data has no form here. Whatever else is raised becomes one.
        """
        ...


class Unpacker(Protocol[T_co]):
    """Any callable from bytes to data."""

    def __call__(self, payload: bytes, /) -> tuple[T_co, dict[str, Any]]:
        """Turn bytes into data.

        Returns:
            The data, and what else is known of it, which is added to the meta.

        Raises:
            UnpackerError: the bytes are not what they should be. Whatever else is raised becomes one.
        """
        ...


json_packer = JSONPacker()
json_unpacker = JSONUnpacker()
text_packer = TextPacker()
text_unpacker = TextUnpacker()
bytes_packer = BytesPacker()
bytes_unpacker = BytesUnpacker()

_PACKINGS: dict[str, Callable[[], tuple[Packer[Any], Unpacker[Any]]]] = {
    "json": lambda: (json_packer, json_unpacker),
    "text": lambda: (text_packer, text_unpacker),
    "bytes": lambda: (bytes_packer, bytes_unpacker),
    "csv": lambda: (CSVPacker(), CSVUnpacker()),  # each with names of its own
    "msgpack": lambda: (MsgpackPacker(), MsgpackUnpacker()),
}


def packing(name: str) -> tuple[Packer[Any], Unpacker[Any]]:
    """Return the packer and the unpacker of a name: json, text, bytes, csv or msgpack.

    Raises:
        ConfigError: there is no such name, or it needs an extra that is not installed.
    """
    make = _PACKINGS.get(name)
    if make is None:
        raise ConfigError(f"pack is {name!r}; allowed are {', '.join(_PACKINGS)}")
    return make()
