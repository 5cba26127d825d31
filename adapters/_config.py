"""The options of an adapter: a frozen class whose fields check themselves.

Every way in (keywords, a mapping, the environment, a file, a URL) ends in the same checks, and every error
names the field, what was found and what is allowed. What a secret field holds is never said.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_type_hints

import attrs

from nexus.adapters._config_file import line_of, read_table
from nexus.adapters._kinds import one_of, shown
from nexus.adapters._option import Rule, WrongOption, option, rule_of
from nexus.errors import ConfigError

if TYPE_CHECKING:
    from nexus.adapters._url import Url

__all__ = ["Config", "OptionRow", "WrongOption", "option", "option_table"]


@attrs.frozen(kw_only=True)
class Config:
    """The base of every adapter's options.

    Derive with ``@attrs.frozen(kw_only=True)`` and declare each field with `option`. Values are checked by
    annotation: an int will do for a float, a bool never for a number, a list for a tuple, a name or a value
    for an Enum. Whatever does not come from Python may be text: ``1e3``, ``true``, ``a,b``, ``\\r\\n``.
    """

    def __attrs_post_init__(self) -> None:
        for rule in _rules(type(self)).values():
            value = getattr(self, rule.attribute)
            found = rule.apply(value, False)
            if found is not value:
                object.__setattr__(self, rule.attribute, found)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Make one from names and values, where a text may stand for a value.

        ``keep-alive`` and ``keep_alive`` are the same name.

        Raises:
            ConfigError: a name is unknown, a value is wrong, or a required one is missing.
        """
        values = _convert_all(cls, mapping)
        for name, rule in _rules(cls).items():
            if rule.is_required and name not in values:
                raise WrongOption(name, cls.__name__, f"is missing, allowed: {rule.allowed}")
        return cls(**values)

    @classmethod
    def from_env(cls, prefix: str, environ: Mapping[str, str] | None = None) -> Self:
        """Make one from the variables whose names are the prefix and an option in capitals.

        A variable that has the prefix and names no option is an error.

        Args:
            prefix: such as ``NEXUS_MQTT_``; not empty.
            environ: in place of the environment of the process.
        """
        if not prefix:
            raise ConfigError("prefix: found '', allowed: the begin of the variables' names")
        variables = os.environ if environ is None else environ
        found = {
            name[len(prefix) :].lower(): value for name, value in variables.items() if name.startswith(prefix)
        }
        try:
            return cls.from_mapping(found)
        except WrongOption as error:
            wrong = error
        place = f"environment variable {prefix}{wrong.option.upper()}"
        raise _placed(wrong, place)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], section: str | None = None) -> Self:
        """Make one from a file: .toml, .json, or .yaml and .yml where PyYAML is installed.

        Blocks while it reads.

        Args:
            section: the table to read, such as ``sources.oven``; None for the whole file.

        Raises:
            OpenError: the file cannot be read.
            ConfigError: it is not what its name says, the section is missing, or an option is wrong; names
                the line if it can.
        """
        table, text = read_table(path, section)
        try:
            return cls.from_mapping(table)
        except WrongOption as error:
            wrong = error
        line = line_of(text, section, wrong.option)
        raise _placed(wrong, f"{Path(path)}:{line}" if line else f"{Path(path)}")

    @classmethod
    def from_url(cls, url: Url, **options: Any) -> Self:
        """Make one from a URL; its options and the keywords name fields, and the keywords win."""
        values: dict[str, Any] = dict(cls._from_url(url))
        rules = _rules(cls)
        for name, given in url.options.items():
            rule = rules.get(_field_name(name))
            if rule is not None and len(given) > 1 and not rule.kind.takes_many:
                raise WrongOption(rule.name, cls.__name__, f"found {len(given)} values, allowed: one")
            values[_field_name(name)] = given[0] if len(given) == 1 else given
        return cls.from_mapping(values | {_field_name(name): value for name, value in options.items()})

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        """Give the options that the URL says by its parts, not by its query; transports override this."""
        parts = {"host": url.host, "port": url.port, "user": url.user, "password": url.password}
        if url.path not in ("", "/"):
            parts["path"] = url.path
        given = {name: value for name, value in parts.items() if value not in (None, "")}
        if extra := given.keys() - _rules(cls):
            raise ConfigError(f"{url.place}: {cls.__name__} has no {one_of(sorted(extra))}")
        return given

    def with_options(self, **changes: Any) -> Self:
        """Give a copy with some options changed; a text may stand for a value."""
        return attrs.evolve(self, **_convert_all(type(self), changes))


class OptionRow(NamedTuple):
    """One option, for people."""

    name: str
    type: str
    """What is allowed, in words."""
    default: str
    """As it would be written in Python; `required` if there is none."""
    help: str


def option_table(cls: type[Config]) -> list[OptionRow]:
    """Give a row for every option, in the order they are declared."""
    return [
        OptionRow(rule.name, rule.allowed, rule.default, rule.about.help) for rule in _rules(cls).values()
    ]


_compiled: dict[type, dict[str, Rule]] = {}


def _rules(cls: type[Config]) -> dict[str, Rule]:
    """Compile the annotations of a class, the first time they are asked for."""
    try:
        return _compiled[cls]
    except KeyError:
        hints = get_type_hints(cls)
        rules = [rule_of(cls, field, hints[field.name]) for field in attrs.fields(cls) if field.init]
        return _compiled.setdefault(cls, {rule.name: rule for rule in rules})


def _convert_all(cls: type[Config], mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of a mapping by the rules of a class."""
    rules = _rules(cls)
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        name = _field_name(key)
        if name not in rules:
            raise _unknown(cls, key)
        if name in found:
            raise WrongOption(name, cls.__name__, "is there twice, allowed: once")
        found[name] = rules[name].apply(value, True)
    return found


def _field_name(key: object) -> str:
    return key.replace("-", "_") if isinstance(key, str) else ""


def _unknown(cls: type[Config], key: object) -> WrongOption:
    """Say that there is no such option, and which there are."""
    name = shown(key) if not isinstance(key, str) or not key.isidentifier() else key
    like = difflib.get_close_matches(str(key), _rules(cls), 1)
    hint = f"; did you mean {like[0]!r}?" if like else ""
    known = ", ".join(_rules(cls)) or "none"
    return WrongOption(name, cls.__name__, f"is no option{hint}; known are: {known}")


def _placed(wrong: WrongOption, place: str) -> WrongOption:
    """Make the same error, with the place first."""
    placed = WrongOption(wrong.option, wrong.config, wrong.why)
    placed.args = (f"{place}: {wrong}",)
    return placed
