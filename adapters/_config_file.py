"""Files of options: TOML, JSON and YAML, and the line that an option is on."""

from __future__ import annotations

import importlib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from nexus.adapters._kinds import one_of, shown
from nexus.errors import ConfigError, OpenError

__all__ = ["line_of", "read_table"]


def read_table(path: str | os.PathLike[str], section: str | None) -> tuple[dict[Any, Any], str]:
    """Read a table of a file; give it, and the text of the whole file.

    Args:
        section: the names of tables in tables, joined by dots; None for the whole file.

    Raises:
        OpenError: the file cannot be read.
        ConfigError: it is not what its name says, or the section is missing.
    """
    file = Path(path)
    text = _read(file)
    table = _parse(file, text)
    for part in section.split(".") if section else ():
        if not isinstance(table, dict) or part not in table:
            known = one_of(table) if isinstance(table, dict) else "nothing"
            raise ConfigError(f"{file}: section {shown(part)} is missing, found: {known}")
        table = table[part]
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: found {type(table).__name__}, allowed: a table of options")
    return table, text


def _read(file: Path) -> str:
    """Read a file of text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OpenError(error.errno, f"cannot read the configuration: {error.strerror}", str(file)) from error
    except UnicodeDecodeError as error:
        where = error.start
    raise ConfigError(f"{file}: byte {where} is not UTF-8")


def _parse(file: Path, text: str) -> object:
    """Read what a file says; the parsers' own errors may quote a secret and are not passed on."""
    suffix = file.suffix.lower()
    why = ""
    try:
        match suffix:
            case ".toml":
                return tomllib.loads(text)
            case ".json":
                return json.loads(text)
            case ".yaml" | ".yml":
                return _parse_yaml(file, text)
            case _:
                why = f" found {suffix!r}, allowed: '.toml', '.json', '.yaml' or '.yml'"
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        why = f"{error.lineno}: {error.msg}"
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        why = f"{line[1]}: not TOML" if line else " not TOML"
    except (ValueError, RecursionError):  # 5,000 digits, a date that is none, tables in tables in tables
        why = " not to be read"
    raise ConfigError(f"{file}:{why}")


def _parse_yaml(file: Path, text: str) -> object:
    """Read YAML, with no type of its own that could run anything."""
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise ConfigError(f"{file}: YAML needs PyYAML; install event-nexus[yaml]") from error
    line = ""
    try:
        return yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}:" if mark else ""
    raise ConfigError(f"{file}:{line} not YAML")


def line_of(text: str, section: str | None, option: str) -> int | None:
    """Find the line of an option: in the TOML table that holds it, or below the keys that lead to it."""
    path = (f"{section}." if section else "") + option
    names = [rf"""["']?{re.escape(each).replace("_", "[-_]")}["']?""" for each in path.split(".")]
    for depth in range(len(names) - 1, -1, -1):
        begin, end = 0, len(text)
        if depth:
            dotted = r"\s*\.\s*".join(names[:depth])
            header = re.search(rf"(?m)^[ \t]*\[+\s*{dotted}\s*\]+", text)
            if header is None:
                continue
            begin = header.end()
            following = re.compile(r"(?m)^[ \t]*\[").search(text, begin)
            end = following.start() if following else end
        for name in names[depth:]:
            # name = in TOML, name: in YAML, "name": in JSON.
            found = re.compile(rf"(?m)(?:^|[{{,])\s*{name}\s*[=:]").search(text, begin, end)
            if found is None:
                break
            begin = found.end()
        else:
            return text.count("\n", 0, begin) + 1
    return None
