"""Data of a class of one's own: objects of attrs and dataclasses over JSON or MessagePack, through cattrs."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

try:
    import cattrs as _cattrs
    from cattrs.preconf import json as _json
except ImportError:
    _cattrs = _json = None  # type: ignore[assignment]

from nexus.adapters._json_packing import JSONPacker, JSONUnpacker
from nexus.adapters._safe import printable, why
from nexus.errors import ConfigError, PackerError, UnpackerError

__all__ = ["TypedPacker", "TypedUnpacker", "faults_of", "strict_converter"]

T = TypeVar("T")

cattrs: Any = _cattrs
json: Any = _json

SHOWN = 4
"""Faults of one object that an error names."""


class TypedPacker(Generic[T]):
    """Write objects of a class of attrs, a dataclass, or any type that cattrs knows.

    Args:
        cls: the type of what is written.
        base: writes what cattrs makes of it: dicts, lists, strings, numbers; JSON unless told otherwise.
        converter: your own ``cattrs.Converter``; None for one that writes dates as text, enums as values.

    Raises:
        ConfigError: the package cattrs is not there.
        PackerError: by the call: data of another class, or what the base refuses.
    """

    def __init__(
        self, cls: type[T], base: Callable[[Any], bytes] | None = None, *, converter: Any = None
    ) -> None:
        self._base = JSONPacker() if base is None else base
        self._converter = strict_converter() if converter is None else converter
        self._cls = cls

    def __repr__(self) -> str:
        return f"TypedPacker({_name(self._cls)}, {self._base!r})"

    def __call__(self, data: T) -> bytes:
        if isinstance(self._cls, type) and not isinstance(data, self._cls):
            raise PackerError(data, f"{_name(self._cls)} is expected")
        try:
            return self._base(self._converter.unstructure(data, unstructure_as=self._cls))
        except PackerError as exc:
            raise PackerError(data, exc.why) from exc
        except Exception as exc:
            raise PackerError(data, why(exc)) from exc


class TypedUnpacker(Generic[T]):
    """Read objects of a class of attrs, a dataclass, or any type that cattrs knows.

    Nothing is guessed: ``"5"`` and ``true`` are no integers, ``1.5`` is none either, and a key that the class
    does not have is refused. An integer is a float, too.

    Args:
        cls: the type of what is read.
        base: reads what cattrs makes the object of; JSON unless told otherwise.
        converter: your own ``cattrs.Converter``, with your own rules.

    Raises:
        ConfigError: the package cattrs is not there, or knows no way to make such a class.
        UnpackerError: by the call: it is not such an object; the error says where in it (``$.position.x``).
    """

    def __init__(
        self,
        cls: type[T],
        base: Callable[[bytes], tuple[Any, dict[str, Any]]] | None = None,
        *,
        converter: Any = None,
    ) -> None:
        self._base = JSONUnpacker() if base is None else base
        self._converter = strict_converter() if converter is None else converter
        self._cls = cls
        try:
            self._converter.get_structure_hook(cls)
        except Exception as exc:
            raise ConfigError(f"cattrs cannot make objects of {_name(cls)}: {why(exc)}") from exc

    def __repr__(self) -> str:
        return f"TypedUnpacker({_name(self._cls)}, {self._base!r})"

    def __call__(self, payload: bytes) -> tuple[T, dict[str, Any]]:
        try:
            found, meta = self._base(payload)
            return self._converter.structure(found, self._cls), meta
        except UnpackerError:
            raise
        except Exception as exc:
            raise UnpackerError(payload, f"not {_name(self._cls)}: {faults_of(exc)}") from exc


def _name(cls: object) -> str:
    return cls.__qualname__ if isinstance(cls, type) else str(cls)


def faults_of(exc: Exception) -> str:
    """List what is wrong, each with its place."""
    try:
        faults = cattrs.transform_error(exc, format_exception=_fault)
    except Exception:  # of somebody's own converter
        return why(exc)
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return "; ".join(printable(text.removeprefix("$ ")) for text in faults[:SHOWN]) + more


def _fault(exc: BaseException, kind: type | None) -> str:
    if isinstance(exc, _NotExactly):
        return str(exc)
    if isinstance(exc, KeyError) and exc.args:
        return f"the field {exc.args[0]!r} is missing"
    if type(exc) is TypeError:  # from where cattrs takes what is none for an object
        return f"{'something else' if kind is None else _name(kind)} is expected"
    return str(cattrs.v.format_exception(exc, kind))


def strict_converter() -> Any:
    """Make a converter that changes nothing on the way.

    Raises:
        ConfigError: the package cattrs is not there.
    """
    if cattrs is None:
        raise ConfigError("typed data needs the package cattrs: pip install 'event-nexus[cattrs]'")
    converter = json.make_converter(forbid_extra_keys=True)
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    for other, read in ((uuid.UUID, uuid.UUID), (datetime.time, datetime.time.fromisoformat)):
        converter.register_structure_hook(other, _of_text(read))
        converter.register_unstructure_hook(other, str)
    return converter


def _of_text(read: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, wanted: Any) -> Any:
        if type(value) is not str:
            raise _NotExactly(f"{_name(wanted)} is expected as text, not {type(value).__name__}")
        return read(value)

    return structure


class _NotExactly(TypeError):
    """A value is of another type than the class says."""


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, wanted: Any) -> Any:
        if type(value) is kind:
            return value if wanted is kind else wanted(value)  # an enum of integers, say
        if kind is float and type(value) is int:
            return float(value)
        raise _NotExactly(f"{kind.__name__} is expected, not {type(value).__name__}")

    return structure
