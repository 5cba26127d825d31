"""Write CSV, one row a frame, quoted as RFC 4180 says."""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from nexus.adapters._csv_form import dialect, listed, names_of
from nexus.adapters._json_packing import JSONPacker
from nexus.adapters._safe import why
from nexus.errors import BadCall, ConfigError, PackerError

__all__ = ["CSVPacker"]

MAX_DEPTH = 32
"""Mappings within each other that are flattened."""

_json = JSONPacker()
_AS_TEXT = (decimal.Decimal, uuid.UUID, os.PathLike)


class CSVPacker:
    """Write rows, without the end of the line: that is the framing's.

    Mappings and sequences are rows; of a mapping within a mapping each value is a field, ``outer.inner``.
    None is an empty field, and comes back as one; booleans are ``true`` and ``false``, dates ISO 8601, lists
    JSON.

    A field with a line break is quoted and keeps it. Framing by lines cuts such a row in two, so a transport
    that frames by lines refuses it; datagrams, messages and length-led frames carry it.

    Args:
        fields: the names, in the order of the row; None to take those of the first mapping.
        extra: what happens to a name that is not among them: ``"refuse"`` the row or ``"ignore"`` the value.
            A name that a row lacks is an empty field.
        delimiter: one character, not a quote or a line break.

    Raises:
        ConfigError: equal names, or a delimiter that is none.
        PackerError: by the call: new names, a sequence of another length, or what is neither text nor number.
    """

    def __init__(
        self,
        fields: Iterable[str] | None = None,
        *,
        extra: Literal["refuse", "ignore"] = "refuse",
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        if extra not in ("refuse", "ignore"):
            raise ConfigError(f"extra is {extra!r}; allowed are 'refuse' and 'ignore'")
        self.fields = names_of(fields)
        self._ignores = extra == "ignore"
        self._delimiter, self._encoding = dialect(delimiter, encoding)
        self._special = re.compile(f'[{re.escape(delimiter)}"\r\n]').search

    def __repr__(self) -> str:
        return f"CSVPacker({None if self.fields is None else list(self.fields)})"

    def header(self) -> bytes:
        """Write the row of the names.

        Raises:
            BadCall: there are none yet: none were given, and no mapping was written.
        """
        if self.fields is None:
            raise BadCall("no fields were given, and no mapping was written yet: CSVPacker(['time', ...])")
        return self._row(self.fields)

    def __call__(self, data: Mapping[str, Any] | Sequence[Any]) -> bytes:
        try:
            if isinstance(data, Mapping):
                return self._row(self._arranged(data))
            if isinstance(data, str | bytes | bytearray) or not isinstance(data, Sequence):
                raise ValueError("a row is a mapping or a sequence")
            if self.fields is not None and len(data) != len(self.fields):
                raise ValueError(f"{len(data)} values for {len(self.fields)} fields: {listed(self.fields)}")
            return self._row(_cell(value) for value in data)
        except Exception as exc:
            raise PackerError(data, str(exc) if type(exc) is ValueError else why(exc)) from exc

    def _arranged(self, data: Mapping[str, Any]) -> list[str]:
        found: dict[str, str] = {}
        for name, value in _flat(data, "", 1):
            if name in found:
                raise ValueError(f"the field {listed([name])} comes twice")
            found[name] = _cell(value)
        fields = tuple(found) if self.fields is None else self.fields
        if not self._ignores and not found.keys() <= set(fields):
            new = [name for name in found if name not in fields]
            raise ValueError(f"no such field: {listed(new)}; the fields are {listed(fields)}")
        row = [found.get(name, "") for name in fields]
        if self.fields is None:
            self._row(fields)  # names that cannot be written are not kept
            self.fields = fields
        return row

    def _row(self, cells: Iterable[str]) -> bytes:
        quoted = ['"' + cell.replace('"', '""') + '"' if self._special(cell) else cell for cell in cells]
        if not quoted:
            raise ValueError("a row has at least one field")
        # One empty field would be an empty line, which is no row.
        return (self._delimiter.join(quoted) if quoted != [""] else '""').encode(self._encoding)


def _flat(data: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise ValueError(f"mappings are more than {MAX_DEPTH} deep in each other")
    for key, value in data.items():
        if not isinstance(key, str):
            raise ValueError(f"a field is named by a string, not by {type(key).__qualname__}")
        name = prefix + key
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, None if isinstance(value, Mapping) else value


def _cell(value: Any) -> str:
    """Write one value as text."""
    if isinstance(value, enum.Enum):
        value = value.value
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case list() | tuple():
            return _json(value).decode()
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise ValueError(f"{type(value).__qualname__} has no form in CSV")
