"""Turn what a program, a file, the environment or a URL says into what an annotation asks for."""

from __future__ import annotations

import collections.abc
import enum
import types
from collections.abc import Mapping
from typing import Any, Literal, NewType, Union, get_args, get_origin

import orjson

from nexus.adapters._kinds import NONE, NOTHING, PLAIN, REFUSED, Kind, is_a, one_of

__all__ = ["kind_of"]


def kind_of(annotation: Any) -> Kind:
    """Compile an annotation.

    Raises:
        TypeError: values cannot be checked against it.
    """
    if annotation in PLAIN:
        return PLAIN[annotation]
    if isinstance(annotation, NewType):
        return kind_of(annotation.__supertype__)
    if (alias := getattr(annotation, "__value__", None)) is not None and not isinstance(annotation, type):
        return kind_of(alias)  # `type Alias = ...`
    origin, args = get_origin(annotation), get_args(annotation)
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
    if isinstance(annotation, type) and origin is None:
        if issubclass(annotation, enum.Enum):
            return _enum(annotation)
        if hasattr(annotation, "from_mapping"):
            return _nested(annotation)
        return _instance(annotation)
    raise TypeError(f"values cannot be checked against {annotation!r}")


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
    ordered = sorted(kinds, key=lambda kind: kind is PLAIN[str])
    has_text = PLAIN[str] in kinds

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

    return Kind(f"a list, or text with commas, of: {item.allowed}", convert, is_a(tuple), takes_many=True)


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
    return Kind(allowed, convert, is_a(tuple), takes_many=True)


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
    return Kind(
        f"{article} {cls.__name__}",
        lambda value, text: value if isinstance(value, cls) else REFUSED,
        lambda value: isinstance(value, cls),
    )
