"""The options of an adapter: a frozen class whose fields check themselves.

Every way in (keywords, a mapping, the environment, a file, a URL) ends in the same checks, and every error
names the field, what was found and what is allowed. What a secret field holds is never said.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, get_type_hints, overload

import attrs

from nexus.adapters._convert import REFUSED, Kind, kind_of, one_of, shown
from nexus.errors import ConfigError, OpenError

if TYPE_CHECKING:
    from nexus.adapters._url import Url

try:
    import yaml
except ImportError:  # the extra `yaml`
    yaml = None  # type: ignore[assignment,unused-ignore]

_YAML_ERRORS: tuple[type[Exception], ...] = () if yaml is None else (yaml.YAMLError,)

__all__ = ["Config", "OptionRow", "WrongOption", "option", "option_table"]

T = TypeVar("T")

_KEY = "nexus.option"


class WrongOption(ConfigError):
    """One option is wrong.

    Attributes:
        option: its name; the names are joined by dots where tables lie in tables.
    """

    def __init__(self, option: str, config: str, why: str) -> None:
        self.option = option
        self.config = config
        self.why = why
        super().__init__(f"{config}.{option}: {why}")


@attrs.frozen
class _Option:
    """What `option` was told."""

    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    secret: bool = False
    unit: str | None = None


class OptionRow(NamedTuple):
    """One option, for people."""

    name: str
    type: str
    """What is allowed, in words."""
    default: str
    """As it would be written in Python; `required` if there is none."""
    help: str


@overload
def option(
    default: T,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    secret: bool = False,
    unit: str | None = None,
) -> T: ...


@overload
def option(
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    secret: bool = False,
    unit: str | None = None,
) -> Any: ...


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[Any] | None = None,
    secret: bool = False,
    unit: str | None = None,
) -> Any:
    """Declare a field of a `Config`.

    Args:
        default: the value unless told otherwise; without it the option is required.
        help: what it is for, in a few words without a full stop.
        low: the least number allowed, itself included.
        high: the greatest.
        choices: the values allowed; `typing.Literal` says the same to type checkers too.
        secret: never show the value.
        unit: of the number: ``s``, ``bytes``, ``baud``.
    """
    about = _Option(help, low, high, None if choices is None else tuple(choices), secret, unit)
    return attrs.field(
        default=default, kw_only=True, repr=_hidden if secret else True, metadata={_KEY: about}
    )


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
        file = Path(path)
        text = _read(file)
        table: object = _parse(file, text)
        for part in section.split(".") if section else ():
            if not isinstance(table, dict) or part not in table:
                known = one_of(table) if isinstance(table, dict) else "nothing"
                raise ConfigError(f"{file}: section {shown(part)} is missing, found: {known}")
            table = table[part]
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: found {type(table).__name__}, allowed: a table of options")
        try:
            return cls.from_mapping(table)
        except WrongOption as error:
            wrong = error
        line = _line_of(text, section, wrong.option)
        raise _placed(wrong, f"{file}:{line}" if line else f"{file}")

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


def option_table(cls: type[Config]) -> list[OptionRow]:
    """Give a row for every option, in the order they are declared."""
    return [
        OptionRow(rule.name, rule.allowed, rule.default, rule.about.help) for rule in _rules(cls).values()
    ]


@attrs.frozen
class _Rule:
    """How one field is checked; made once per class."""

    config: str
    name: str
    attribute: str
    kind: Kind
    about: _Option
    is_required: bool
    default: str

    def apply(self, value: object, text: bool) -> Any:
        """Convert and check a value.

        Raises:
            WrongOption: it will not do.
        """
        nested: WrongOption | None = None
        found: Any = REFUSED
        try:
            found = self.kind.convert(value, text)
        except WrongOption as error:
            nested = error
        # Raised here, outside, so that no error holds another one with the value.
        if nested is not None and not self.about.secret:
            raise WrongOption(f"{self.name}.{nested.option}", self.config, nested.why)
        if found is REFUSED or not self._in_range(found):
            what = "a secret that will not do" if self.about.secret else shown(value)
            raise WrongOption(self.name, self.config, f"found {what}, allowed: {self.allowed}")
        return found

    def _in_range(self, value: Any) -> bool:
        about = self.about
        if about.choices is not None and not any(
            value == choice and isinstance(value, bool) is isinstance(choice, bool)
            for choice in about.choices
        ):
            return False
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (about.low is None or value >= about.low) and (about.high is None or value <= about.high)

    @property
    def allowed(self) -> str:
        """What will do, in words."""
        about = self.about
        if about.choices is not None:
            return one_of(about.choices)
        words = self.kind.allowed
        bounds = " ".join(
            f"{word} {bound:g}" if isinstance(bound, float) else f"{word} {bound}"
            for word, bound in (("from", about.low), ("to", about.high))
            if bound is not None
        )
        return ", ".join(filter(None, (words, bounds))) + (f" ({about.unit})" if about.unit else "")


_compiled: dict[type, dict[str, _Rule]] = {}


def _rules(cls: type[Config]) -> dict[str, _Rule]:
    """Compile the annotations of a class, the first time they are asked for."""
    try:
        return _compiled[cls]
    except KeyError:
        hints = get_type_hints(cls)
        rules = [_rule(cls, field, hints[field.name]) for field in attrs.fields(cls) if field.init]
        return _compiled.setdefault(cls, {rule.name: rule for rule in rules})


def _rule(cls: type[Config], field: attrs.Attribute[Any], annotation: Any) -> _Rule:
    """Compile one field."""
    about = field.metadata.get(_KEY, _Option())
    default = field.default
    if default is attrs.NOTHING:
        said = "required"
    elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        said = "made anew"
    else:
        said = _hidden(default) if about.secret else shown(default)
    return _Rule(
        config=cls.__name__,
        name=field.alias or field.name,
        attribute=field.name,
        kind=kind_of(annotation),
        about=about,
        is_required=default is attrs.NOTHING,
        default=said,
    )


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
    known = "".join(
        f"\n  {row.name}: {row.type} (default: {row.default}); {row.help}" for row in option_table(cls)
    )
    return WrongOption(name, cls.__name__, f"is no option{hint}; known are:{known or ' none'}")


def _placed(wrong: WrongOption, place: str) -> WrongOption:
    """Make the same error, with the place first."""
    placed = WrongOption(wrong.option, wrong.config, wrong.why)
    placed.args = (f"{place}: {wrong}",)
    return placed


def _hidden(value: object) -> str:
    return repr(value) if value in (None, "", b"", ()) else "'***'"


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
                if yaml is None:
                    raise ConfigError(f"{file}: YAML needs PyYAML; install event-nexus[yaml]")
                return yaml.safe_load(text) if text.strip() else {}
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        why = f"{error.lineno}: {error.msg}"
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        why = f"{line[1]}: not TOML" if line else " not TOML"
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        why = f"{mark.line + 1}: not YAML" if mark else " not YAML"
    except (ValueError, RecursionError):  # 5,000 digits, a date that is none, tables in tables in tables
        why = " not to be read"
    else:
        raise ConfigError(f"{file}: found {suffix!r}, allowed: '.toml', '.json', '.yaml' or '.yml'")
    raise ConfigError(f"{file}:{why}")


def _line_of(text: str, section: str | None, option: str) -> int | None:
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
