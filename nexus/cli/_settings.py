"""What a table of a configuration file may hold, and every mistake in it, with its line."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from nexus.adapters._console_text import visible
from nexus.adapters._kinds import one_of, shown
from nexus.cli._toml_lines import Path, nearest, path_text

__all__ = [
    "Key",
    "Problems",
    "Variables",
    "check_table",
    "choice",
    "flag",
    "number",
    "table",
    "text",
    "texts",
    "whole",
]

MAX_PROBLEMS = 100
"""Mistakes that are told of one file."""

VARIABLE = re.compile(r"\$\$|\$\{([^}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Kind = Callable[[Any], str | None]
"""Says what would be allowed in place of a value; None where it will do."""


@attrs.frozen
class Key:
    """One key of a table."""

    kind: Kind
    is_required: bool = False


@attrs.define(eq=False)
class Problems:
    """The mistakes found in one file."""

    file: str
    places: Mapping[Path, int]
    hide: Callable[[str], str]
    """Takes out of a text what no reader should see."""
    found: list[tuple[int, str]] = attrs.field(factory=list)
    _spoilt: set[Path] = attrs.field(factory=set)

    def add(self, path: Path, why: str, *, spoils: bool = False) -> None:
        """Note a mistake; one that spoils the value is the last that is told of it."""
        if path in self._spoilt:
            return
        if spoils:
            self._spoilt.add(path)
        where = path_text(path)
        message = f"{where}: {self.hide(why)}" if where else self.hide(why)
        self.found.append((nearest(path, self.places), visible(message)))

    def __str__(self) -> str:
        ordered = sorted(self.found, key=lambda each: each[0])
        lines = [f"{self.file}:{line}: {message}" for line, message in ordered[:MAX_PROBLEMS]]
        if len(ordered) > MAX_PROBLEMS:
            lines.append(f"{self.file}: {len(ordered) - MAX_PROBLEMS} further mistakes")
        return "\n".join(lines)


class Variables:
    """Puts variables of the environment where a file says ``${NAME}``; ``$$`` stands for a dollar sign."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._used: dict[str, str] = {}

    def fill(self, value: Any, path: Path, problems: Problems) -> Any:
        """Fill in all texts of a value, however deep."""
        match value:
            case dict():
                return {name: self.fill(each, (*path, name), problems) for name, each in value.items()}
            case list():
                return [self.fill(each, (*path, place), problems) for place, each in enumerate(value)]
            case str() if "$" in value:
                return self._fill_text(value, path, problems)
        return value

    def hide(self, message: str) -> str:
        """Put the names of variables in place of what they hold."""
        for held, name in sorted(self._used.items(), key=lambda each: -len(each[0])):
            message = message.replace(held, f"${{{name}}}")
        return message

    def _fill_text(self, template: str, path: Path, problems: Problems) -> str:
        is_url = path[-1:] == ("url",)
        query = template.find("?")
        authority = re.match(r"[^:/]*://[^/?]*@", template)

        def put(found: re.Match[str]) -> str:
            name = found[1]
            if name is None:
                return "$"
            if not NAME.fullmatch(name):
                problems.add(
                    path, f"found {shown(found[0])}, allowed: ${{NAME}}, or $$ for a dollar sign", spoils=True
                )
            elif name not in self._environ:
                problems.add(path, f"the environment has no variable {name}", spoils=True)
            else:
                held = self._environ[name]
                # In these parts of a URL a slash or an @ of a password would mean something else.
                is_quoted = authority is not None and found.start() < authority.end()
                is_quoted = is_url and (is_quoted or 0 <= query < found.start())
                for form in {held, quote(held, safe=""), ascii(held)[1:-1]}:
                    if len(form) > 2:
                        self._used[form] = name
                return quote(held, safe="") if is_quoted else held
            return found[0]

        return VARIABLE.sub(put, template)


def check_table(value: Any, path: Path, keys: Mapping[str, Key], problems: Problems) -> dict[str, Any]:
    """Return what of a table will do, and note what will not."""
    if not isinstance(value, dict):
        problems.add(path, f"found {shown(value)}, allowed: a table")
        return {}
    good: dict[str, Any] = {}
    for name, each in value.items():
        if name not in keys:
            like = difflib.get_close_matches(name, keys, 1)
            hint = f"did you mean {like[0]}?" if like else f"known are: {', '.join(keys)}"
            problems.add((*path, name), f"is no key; {hint}")
        elif allowed := keys[name].kind(each):
            problems.add((*path, name), f"found {shown(each)}, allowed: {allowed}")
        else:
            good[name] = each
    for name, key in keys.items():
        if key.is_required and name not in value:
            problems.add(path, f"{name} is missing")
    return good


def text(value: Any) -> str | None:
    """Take a text that is not empty."""
    return None if isinstance(value, str) and value else "a text that is not empty"


def texts(value: Any) -> str | None:
    """Take a text, or several."""
    many = value if isinstance(value, list) and value else [value]
    return None if all(text(each) is None for each in many) else "a text, or a list of texts"


def flag(value: Any) -> str | None:
    """Take true or false."""
    return None if isinstance(value, bool) else "true or false"


def table(value: Any) -> str | None:
    """Take a table of any keys."""
    return None if isinstance(value, dict) else "a table"


def whole(low: int) -> Kind:
    """Take an integer from a least one on."""

    def kind(value: Any) -> str | None:
        return None if type(value) is int and value >= low else f"an integer from {low}"

    return kind


def number(*, above: float | None = None, low: float | None = None) -> Kind:
    """Take a number above one, or from one on."""

    def kind(value: Any) -> str | None:
        is_number = type(value) in (int, float) and value < float("inf")
        if above is not None:
            return None if is_number and value > above else f"a number above {above:g}"
        return None if is_number and (low is None or value >= low) else f"a number from {low:g}"

    return kind


def choice(*values: str) -> Kind:
    """Take one of some texts."""
    return lambda value: None if value in values else one_of(values)
