"""Turn what a program, a file, the environment or a URL says into what an annotation asks for.

Nothing here raises or keeps what it refuses: a refused value may be a password.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

import attrs
import orjson

__all__ = ["REFUSED", "Kind", "kind_of", "one_of", "shown"]


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


def kind_of(annotation: Any) -> Kind:
    """Compile an annotation.

    Raises:
        TypeError: values cannot be checked against it.
    """
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if isinstance(annotation, NewType):
        return kind_of(annotation.__supertype__)
    if (alias := getattr(annotation, "__value__", None)) is not None and not isinstance(annotation, type):
        return kind_of(alias)  # `type Alias = ...`
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(args[0])
    if origin is Literal:
        return _literal(args)
    if origin is Union or origin is types.UnionType:
        return _union([kind_of(each) for each in args])
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return _tuple(kind_of(args[0]))
        return _fixed_tuple([kind_of(each) for each in args])
    if origin is collections.abc.Sequence:
        return _tuple(kind_of(args[0]))
    if origin in (dict, collections.abc.Mapping):
        return _mapping(kind_of(args[0]), kind_of(args[1]))
    if origin is collections.abc.Callable or annotation is collections.abc.Callable:
        return Kind("a callable", lambda value, text: value if callable(value) else REFUSED, callable)
    if isinstance(annotation, TypeVar):
        return ANYTHING
    if isinstance(origin, type):
        return _instance(origin)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _enum(annotation)
        if hasattr(annotation, "from_mapping"):
            return _nested(annotation)
        return _instance(annotation)
    raise TypeError(f"values cannot be checked against {annotation!r}")


def shown(value: object) -> str:
    """Show a value in an error: escaped, and 100 characters of it at most."""
    if isinstance(value, str | bytes | bytearray) and len(value) > 100:
        return ascii(value[:100]) + "..."
    text = ascii(value)
    return text if len(text) <= 100 else text[:100] + "..."


def one_of(values: collections.abc.Iterable[object]) -> str:
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


def _is_a(*classes: type) -> Callable[[object], bool]:
    return lambda value: type(value) in classes


NOTHING = Kind("none", _none, lambda value: value is None)
ANYTHING = Kind("anything", lambda value, text: value, lambda value: True)

SIMPLE: Mapping[Any, Kind] = {
    Any: ANYTHING,
    object: ANYTHING,
    bool: Kind("true or false", _bool, _is_a(bool)),
    int: Kind("an integer", _int, _is_a(int)),
    float: Kind("a number", _float, _is_a(float)),
    str: Kind("text (no NUL)", _str, _is_a(str)),
    bytes: Kind("bytes, as text with \\n, \\r, \\t, \\0, \\\\ or \\x0a", _bytes, _is_a(bytes)),
    Path: Kind("a path", _path, lambda value: isinstance(value, Path)),
    None: NOTHING,
    type(None): NOTHING,
}


def _literal(choices: tuple[Any, ...]) -> Kind:
    def convert(value: object, text: bool) -> object:
        for choice in choices:
            # True == 1, and a QoS of True is a mistake.
            if isinstance(value, bool) is isinstance(choice, bool) and value == choice:
                return choice
        if text and isinstance(value, str):
            word = value.strip().lower()
            for choice in choices:
                if str(choice).lower() == word or (choice is None and word in NONE):
                    return choice
        return REFUSED

    return Kind(one_of(choices), convert, lambda value: any(value is choice for choice in choices))


def _enum(cls: type[enum.Enum]) -> Kind:
    def convert(value: object, text: bool) -> object:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            for name, member in cls.__members__.items():
                if name.lower() == value.strip().lower():
                    return member
        found = by_value.convert(value, text)
        return REFUSED if found is REFUSED else cls(found)

    by_value = _literal(tuple(member.value for member in cls))
    names = one_of(name.lower() for name in cls.__members__)
    return Kind(names, convert, lambda value: isinstance(value, cls))


def _union(kinds: list[Kind]) -> Kind:
    # Text fits everywhere, so what takes it as it is comes last.
    ordered = sorted(kinds, key=lambda kind: kind is SIMPLE[str])
    has_text = SIMPLE[str] in kinds

    def convert(value: object, text: bool) -> object:
        for kind in () if text and isinstance(value, str) else ordered:
            if kind.exact(value):
                return kind.convert(value, text)
        for kind in ordered:
            if has_text and kind is NOTHING and value is not None:
                continue  # "none" may be somebody's name
            if (found := kind.convert(value, text)) is not REFUSED:
                return found
        return REFUSED

    # `none` is said last.
    said = sorted(kinds, key=lambda kind: kind is NOTHING)
    return Kind(
        " or ".join(dict.fromkeys(kind.allowed for kind in said)),
        convert,
        lambda value: any(kind.exact(value) for kind in kinds),
        takes_many=any(kind.takes_many for kind in kinds),
    )


def _tuple(item: Kind) -> Kind:
    def convert(value: object, text: bool) -> object:
        if isinstance(value, str):
            pieces: list[object] = [piece.strip() for piece in value.split(",") if piece.strip()]
            return _all(item, pieces, True)
        if isinstance(value, list | tuple):
            return _all(item, value, text)
        return REFUSED

    return Kind(f"a list, or text with commas, of: {item.allowed}", convert, _is_a(tuple), takes_many=True)


def _all(item: Kind, values: collections.abc.Iterable[object], text: bool) -> object:
    found = tuple(item.convert(value, text) for value in values)
    return REFUSED if REFUSED in found else found


def _fixed_tuple(items: list[Kind]) -> Kind:
    def convert(value: object, text: bool) -> object:
        if isinstance(value, str):
            value, text = [piece.strip() for piece in value.split(",")], True
        if not isinstance(value, list | tuple) or len(value) != len(items):
            return REFUSED
        found = tuple(item.convert(each, text) for item, each in zip(items, value, strict=True))
        return REFUSED if REFUSED in found else found

    allowed = "a list, or text with commas, of " + ", ".join(item.allowed for item in items)
    return Kind(allowed, convert, _is_a(tuple), takes_many=True)


def _mapping(key: Kind, item: Kind) -> Kind:
    def convert(value: object, text: bool) -> object:
        if text and isinstance(value, str):
            value = _table(value)
        if not isinstance(value, Mapping):
            return REFUSED
        keys, values = _all(key, value, text), _all(item, value.values(), text)
        if not (isinstance(keys, tuple) and isinstance(values, tuple)):
            return REFUSED
        return dict(zip(keys, values, strict=True))

    allowed = f"a table, a JSON object or text as a=1,b=2, of: {item.allowed}"
    return Kind(allowed, convert, lambda value: isinstance(value, Mapping))


def _table(text: str) -> object:
    """Read `a=1,b=2` or a JSON object."""
    if text.lstrip().startswith("{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return REFUSED
    pairs = [piece.partition("=") for piece in text.split(",") if piece.strip()]
    if not all(equals for _, equals, _ in pairs):
        return REFUSED
    return {name.strip(): value.strip() for name, _, value in pairs}


def _nested(cls: Any) -> Kind:
    def convert(value: object, text: bool) -> object:
        if isinstance(value, cls):
            return value
        if text and isinstance(value, str):
            value = _table(value)
        return cls.from_mapping(value) if isinstance(value, Mapping) else REFUSED

    return Kind(f"a table of the options of {cls.__name__}", convert, lambda value: isinstance(value, cls))


def _instance(cls: type) -> Kind:
    article = "an" if cls.__name__[0].lower() in "aeiou" else "a"
    name = cls.__name__ if inspect.isclass(cls) else str(cls)
    return Kind(
        f"{article} {name}",
        lambda value, text: value if isinstance(value, cls) else REFUSED,
        lambda value: isinstance(value, cls),
    )
