"""Packers turn data into bytes, unpackers bytes into data: what they promise, and those built in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from nexus.adapters._csv import CSVPacker
from nexus.adapters._csv_unpacker import CSVUnpacker
from nexus.adapters._json_packing import JSONPacker, JSONUnpacker
from nexus.adapters._msgpack import MsgpackPacker, MsgpackUnpacker
from nexus.adapters._safe import why
from nexus.adapters._typed import TypedPacker, TypedUnpacker
from nexus.errors import ConfigError, PackerError, UnpackerError

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


class TextPacker:
    """Write text.

    Args:
        encoding: any text encoding that Python knows.

    Raises:
        ConfigError: there is no such encoding.
        PackerError: by the call: no text, or a character that the encoding has not; says which and where.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self.encoding = _known(encoding)

    def __repr__(self) -> str:
        return f"TextPacker({self.encoding!r})"

    def __call__(self, data: str) -> bytes:
        if not isinstance(data, str):
            raise PackerError(data, "text is expected")
        try:
            return data.encode(self.encoding)
        except UnicodeEncodeError as exc:
            character = ascii(data[exc.start : exc.start + 1])
            raise PackerError(data, f"{self.encoding} has no {character}, character {exc.start}") from exc
        except Exception as exc:
            raise PackerError(data, why(exc)) from exc


class TextUnpacker:
    """Read text, all of it, line ends included.

    Args:
        encoding: any text encoding that Python knows.

    Raises:
        ConfigError: there is no such encoding.
        UnpackerError: by the call: not of that encoding; says where.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self.encoding = _known(encoding)

    def __repr__(self) -> str:
        return f"TextUnpacker({self.encoding!r})"

    def __call__(self, payload: bytes) -> tuple[str, dict[str, Any]]:
        try:
            return payload.decode(self.encoding), {}
        except UnicodeDecodeError as exc:
            found = payload[exc.start : exc.start + 1].hex()
            place = f"byte 0x{found} at {exc.start}"
            raise UnpackerError(payload, f"not {self.encoding}: {place}: {exc.reason}") from exc
        except Exception as exc:
            raise UnpackerError(payload, why(exc)) from exc


class BytesPacker:
    """Pass bytes on as they are: bytes, bytearray or memoryview; PackerError for anything else."""

    def __repr__(self) -> str:
        return "BytesPacker()"

    def __call__(self, data: bytes | bytearray | memoryview) -> bytes:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise PackerError(data, "bytes are expected")
        try:
            return bytes(data)
        except Exception as exc:  # a memoryview that was released
            raise PackerError(data, why(exc)) from exc


class BytesUnpacker:
    """Pass bytes on as they are."""

    def __repr__(self) -> str:
        return "BytesUnpacker()"

    def __call__(self, payload: bytes) -> tuple[bytes, dict[str, Any]]:
        return bytes(payload), {}


def _known(encoding: str) -> str:
    try:
        b"".decode(encoding)
        "".encode(encoding)
    except (LookupError, ValueError, TypeError) as exc:
        raise ConfigError(f"encoding is {encoding!r}; it must be a text encoding that Python knows") from exc
    return encoding


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
