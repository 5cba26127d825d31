"""What CSV is written and read by: the names of its fields, its delimiter, its encoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nexus.adapters._safe import printable
from nexus.adapters._text import known_encoding
from nexus.errors import ConfigError

__all__ = ["dialect", "listed", "names_of"]

SHOWN = 20
"""Names that an error lists."""


def names_of(fields: Iterable[str] | None) -> tuple[str, ...] | None:
    """Check the names of fields: one or more, none of them twice; None stays None."""
    if fields is None:
        return None
    if isinstance(fields, str):
        raise ConfigError(f"fields is {fields!r}; a list of names is needed")
    names = tuple(fields)
    if not names:
        raise ConfigError("there must be at least one field")
    if len(set(names)) < len(names):
        twice = [name for place, name in enumerate(names) if name in names[:place]][:SHOWN]
        raise ConfigError(f"fields that come twice: {listed(twice)}")
    return names


def listed(names: Sequence[str]) -> str:
    """List names for an error: escaped, and not too many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{printable(name, 50)}'" for name in names[:SHOWN]) + more


def dialect(delimiter: str, encoding: str) -> tuple[str, str]:
    """Check a delimiter and an encoding."""
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigError(
            f"delimiter is {delimiter!r}; it must be one character, not a quote or a line break"
        )
    return delimiter, known_encoding(encoding)
