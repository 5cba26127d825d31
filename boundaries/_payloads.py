"""Payloads of named events that come back as objects of their class."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from nexus import NamedEvent
from nexus.adapters._safe import why
from nexus.adapters._typed import faults_of, strict_converter
from nexus.errors import BadEvent, ConfigError

__all__ = ["Make", "maker_of"]

Make: TypeAlias = Callable[[Any], Any]
"""Makes a payload of what JSON gives."""

_CONVERTED: Final = (
    tuple,
    set,
    frozenset,
    enum.Enum,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
)
"""Classes of which JSON gives something else."""


def maker_of(cls: type[NamedEvent[Any]]) -> Make | None:
    """Return what makes the payload of a class of named events; None where what JSON gives is the payload.

    A flat class of attrs, all fields of which JSON gives as they are, is made by its own constructor. Classes
    within classes, dataclasses, enums, dates, tuples and so on are made by cattrs, strictly: nothing is
    guessed.

    Raises:
        ConfigError: the package cattrs is needed and not there, or knows no way to make such a payload.
    """
    wanted = cls.payload_class
    if not _is_converted(wanted):
        return None
    if attrs.has(wanted) and not any(map(_is_converted, _hints(wanted).values())):
        return _flat(cls, wanted)
    return _converted(cls, wanted)


def _flat(cls: type[NamedEvent[Any]], wanted: Any) -> Make:
    names = {field.name for field in attrs.fields(wanted)}
    words = {field.name: field.alias for field in attrs.fields(wanted) if field.init}

    def make(payload: Any) -> Any:
        if not isinstance(payload, dict) or not payload.keys() <= names:
            raise BadEvent(f"the payload of a {cls.__name__} is a {wanted.__name__}, not {payload!a:.100}")
        try:
            return wanted(**{words[name]: value for name, value in payload.items() if name in words})
        except Exception as exc:  # its validators may raise anything
            raise BadEvent(f"the payload of a {cls.__name__} is a {wanted.__name__}: {why(exc)}") from exc

    return make


def _converted(cls: type[NamedEvent[Any]], wanted: Any) -> Make:
    try:
        converter = strict_converter()
    except ConfigError as exc:
        raise ConfigError(f"types: {cls.__name__}, whose payload is {wanted!r}: {exc}") from exc
    try:
        structure = converter.get_structure_hook(wanted)
    except Exception as exc:
        raise ConfigError(f"types: cattrs cannot make the payload of {cls.__name__}: {exc}") from exc

    def make(payload: Any) -> Any:
        try:
            return structure(payload, wanted)
        except Exception as exc:
            raise BadEvent(f"the payload of a {cls.__name__} is not {wanted!r}: {faults_of(exc)}") from exc

    return make


def _is_converted(wanted: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Say whether JSON gives something else in place of such a value."""
    if wanted in seen:
        return False
    if isinstance(wanted, type) and typing.get_origin(wanted) is None:
        return attrs.has(wanted) or dataclasses.is_dataclass(wanted) or issubclass(wanted, _CONVERTED)
    origin = typing.get_origin(wanted)
    if isinstance(origin, type) and _is_converted(origin):
        return True
    return any(_is_converted(each, (*seen, wanted)) for each in typing.get_args(wanted))


def _hints(wanted: type) -> dict[str, Any]:
    """Return the types of the fields, those that are written as text looked up where that can be done."""
    fields = {field.name: field.type for field in attrs.fields(wanted)}
    try:
        found = typing.get_type_hints(wanted)
    except (NameError, TypeError):
        return fields
    return {name: found.get(name, type_) for name, type_ in fields.items()}
