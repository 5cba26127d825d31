"""Read CSV, one row a frame, quoted as RFC 4180 says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nexus.adapters._csv_form import dialect, listed, names_of
from nexus.adapters._safe import why
from nexus.errors import ConfigError, UnpackerError

__all__ = ["CSVUnpacker"]

MAX_FIELDS = 10_000
"""Fields of one row that are read."""


class CSVUnpacker:
    """Read rows: dicts of text by field, or lists of text where no fields are known.

    Args:
        fields: the names, in the order of the row.
        header: take the names from the first row. It, and every row equal to it (as where files were joined),
            gives an empty dict and the names as ``header`` in the meta.
        types: what to call with the text of a field: ``{"volts": float}``. An empty field of these is None.
            For bool, ``true``, ``false``, ``1`` and ``0`` are taken.
        delimiter: one character, not a quote or a line break.

    Raises:
        ConfigError: equal names; fields and header; types of no field; a delimiter that is none.
        UnpackerError: by the call: text that is not of the encoding, a row with more or fewer fields, a quote
            where none may be, more than `MAX_FIELDS`, or a type that refuses.
    """

    def __init__(
        self,
        fields: Iterable[str] | None = None,
        *,
        header: bool = False,
        types: Mapping[str, Callable[[str], Any]] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        if header and fields is not None:
            raise ConfigError("fields and header=True: give one of them; a header would be read as a row")
        self.fields = names_of(fields)
        self._header = header
        self._types = {name: _boolean if kind is bool else kind for name, kind in (types or {}).items()}
        self._delimiter, self._encoding = dialect(delimiter, encoding)
        if self.fields is not None or not header:
            self._check_types(self.fields or ())
        # A quoted field up to its end, or a plain one, and what follows it; every way through is linear.
        mark = re.escape(delimiter)
        self._field = re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"{mark}\r\n]*+))({mark}|\Z)')

    def __repr__(self) -> str:
        return f"CSVUnpacker({None if self.fields is None else list(self.fields)}, header={self._header})"

    def __call__(self, payload: bytes) -> tuple[Any, dict[str, Any]]:
        try:
            row = self._read(payload.decode(self._encoding))
            if self._header and (self.fields is None or row == list(self.fields)):
                if self.fields is None:
                    row[0] = row[0].removeprefix("\ufeff")
                    names = names_of(row)
                    self._check_types(names or ())
                    self.fields = names
                return {}, {"header": self.fields}
            if self.fields is None:
                return row, {}
            if len(row) != len(self.fields):
                raise ValueError(f"{len(row)} values for {len(self.fields)} fields: {listed(self.fields)}")
            found: dict[str, Any] = dict(zip(self.fields, row, strict=True))
            for name, kind in self._types.items():
                found[name] = self._typed(name, kind, found[name])
            return found, {}
        except Exception as exc:
            known = type(exc) in (ValueError, ConfigError)
            raise UnpackerError(payload, str(exc) if known else why(exc)) from exc

    def reset(self) -> None:
        """Forget the names that came from a header: the next row is one."""
        if self._header:
            self.fields = None

    def _typed(self, name: str, kind: Callable[[str], Any], text: str) -> Any:
        if not text:
            return None
        try:
            return kind(text)
        except Exception as exc:
            raise ValueError(f"the field {listed([name])}: {why(exc)}") from exc

    def _read(self, text: str) -> list[str]:
        end = len(text) - (2 if text.endswith("\r\n") else 1 if text.endswith(("\n", "\r")) else 0)
        if text.count(self._delimiter, 0, end) >= MAX_FIELDS and '"' not in text:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        text = text[:end]
        if not text:
            raise ValueError("an empty row")
        if '"' not in text and "\n" not in text and "\r" not in text:
            return text.split(self._delimiter)
        row: list[str] = []
        place = 0
        while found := self._field.match(text, place):
            quoted, plain, mark = found.groups()
            row.append(plain if quoted is None else quoted.replace('""', '"'))
            place = found.end()
            if not mark:
                return row
            if len(row) == MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
        raise ValueError(f"the field at character {place} is not quoted as RFC 4180 says")

    def _check_types(self, fields: Sequence[str]) -> None:
        unknown = [name for name in self._types if name not in fields]
        if unknown:
            raise ConfigError(
                f"types of no field: {listed(unknown)}; the fields are {listed(fields) or 'none'}"
            )


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
    except KeyError:
        raise ValueError("neither true nor false") from None
