"""The plain kinds of option: numbers, texts, bytes, paths; what each takes, and what text stands for it.

Nothing here raises or keeps what it refuses: a refused value may be a password.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any, Final

import attrs

__all__ = ["ANYTHING", "NONE", "NOTHING", "PLAIN", "REFUSED", "Kind", "is_a", "one_of", "shown"]


class _Refused(enum.Enum):
    REFUSED = enum.auto()


REFUSED: Final = _Refused.REFUSED
"""What a conversion gives for a value that is none of the allowed ones."""

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})
NONE = frozenset({"", "none", "null"})

Convert = Callable[[object, bool], Any]
"""Gives the converted value or `REFUSED`; told whether a text may stand for something else."""


@attrs.frozen
class Kind:
    """What an annotation allows."""

    allowed: str
    """In words: `an integer`, `0, 1 or 2`."""
    convert: Convert
    exact: Callable[[object], bool]
    """Whether a value is of the kind as it is."""
    takes_many: bool = False
    """Whether several values may be given, as in `?topic=a&topic=b`."""


def shown(value: object) -> str:
    """Show a value in an error: escaped, and 100 characters of it at most."""
    if isinstance(value, str | bytes | bytearray) and len(value) > 100:
        return ascii(value[:100]) + "..."
    text = ascii(value)
    return text if len(text) <= 100 else text[:100] + "..."


def one_of(values: Iterable[object]) -> str:
    """Say `0, 1 or 2`."""
    words = [shown(value) for value in values]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


def _bool(value: object, text: bool) -> object:
    if isinstance(value, bool):
        return value
    if text and isinstance(value, str):
        word = value.strip().lower()
        return True if word in TRUE else False if word in FALSE else REFUSED
    return REFUSED


def _int(value: object, text: bool) -> object:
    if isinstance(value, int):
        return REFUSED if isinstance(value, bool) else int(value)
    if not (text and isinstance(value, str)):
        return REFUSED
    word = value.strip()
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,32}", word):
        return int(word, 16)
    try:
        number = Decimal(word)
    except InvalidOperation:
        return REFUSED
    # A bound on the size before it becomes an int: 1e999999999 would take all memory.
    if number.is_finite() and abs(number.adjusted()) < 40 and number == number.to_integral_value():
        return int(number)
    return REFUSED


def _float(value: object, text: bool) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return REFUSED
    if isinstance(value, str) and not text:
        return REFUSED
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return REFUSED
    return REFUSED if math.isnan(number) else number


def _str(value: object, text: bool) -> object:
    if not isinstance(value, str) or "\0" in value:
        return REFUSED
    return value


ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[nrt0\\]|.|$)", re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}


def _bytes(value: object, text: bool) -> object:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not (text and isinstance(value, str)):
        return REFUSED
    # Even places hold text, odd ones what follows a backslash.
    pieces = ESCAPE.split(value)
    found = bytearray()
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            found += piece.encode("utf-8", "surrogateescape")
        elif piece in ESCAPES:
            found += ESCAPES[piece].encode()
        elif len(piece) == 3:
            found.append(int(piece[1:], 16))
        else:
            return REFUSED
    return bytes(found)


def _path(value: object, text: bool) -> object:
    if isinstance(value, PurePath):
        return Path(value)
    return REFUSED if _str(value, text) in (REFUSED, "") else Path(str(value))


def _none(value: object, text: bool) -> object:
    if value is None or (text and isinstance(value, str) and value.strip().lower() in NONE):
        return None
    return REFUSED


def is_a(*classes: type) -> Callable[[object], bool]:
    return lambda value: type(value) in classes


NOTHING = Kind("none", _none, lambda value: value is None)
ANYTHING = Kind("anything", lambda value, text: value, lambda value: True)

PLAIN: Mapping[Any, Kind] = {
    Any: ANYTHING,
    object: ANYTHING,
    bool: Kind("true or false", _bool, is_a(bool)),
    int: Kind("an integer", _int, is_a(int)),
    float: Kind("a number", _float, is_a(float)),
    str: Kind("text (no NUL)", _str, is_a(str)),
    bytes: Kind("bytes, as text with \\n, \\r, \\t, \\0, \\\\ or \\x0a", _bytes, is_a(bytes)),
    Path: Kind("a path", _path, lambda value: isinstance(value, Path)),
    None: NOTHING,
    type(None): NOTHING,
}
