"""Text and bytes, as they are."""

from __future__ import annotations

from typing import Any

from nexus.adapters._safe import why
from nexus.errors import ConfigError, PackerError, UnpackerError

__all__ = ["BytesPacker", "BytesUnpacker", "TextPacker", "TextUnpacker", "known_encoding"]


class TextPacker:
    """Write text.

    Args:
        encoding: any text encoding that Python knows.

    Raises:
        ConfigError: there is no such encoding.
        PackerError: by the call: no text, or a character that the encoding has not; says which and where.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self.encoding = known_encoding(encoding)

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
        self.encoding = known_encoding(encoding)

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


def known_encoding(encoding: str) -> str:
    """Return the name of an encoding, if it is one of text.

    Raises:
        ConfigError: it is none.
    """
    try:
        " ".encode(encoding).decode(encoding)
    except (LookupError, ValueError, TypeError) as exc:
        raise ConfigError(f"encoding is {encoding!r}; it must be a text encoding that Python knows") from exc
    return encoding
