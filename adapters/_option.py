"""One option of a config: how it is declared, and how its values are checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

import attrs

from nexus.adapters._convert import kind_of
from nexus.adapters._kinds import REFUSED, Kind, one_of, shown
from nexus.errors import ConfigError

__all__ = ["Rule", "WrongOption", "option", "rule_of"]

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


@attrs.frozen
class Rule:
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


def rule_of(cls: type, field: attrs.Attribute[Any], annotation: Any) -> Rule:
    """Compile one field."""
    about = field.metadata.get(_KEY, _Option())
    default = field.default
    if default is attrs.NOTHING:
        said = "required"
    elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        said = "made anew"
    else:
        said = _hidden(default) if about.secret else shown(default)
    return Rule(
        config=cls.__name__,
        name=field.alias or field.name,
        attribute=field.name,
        kind=kind_of(annotation),
        about=about,
        is_required=default is attrs.NOTHING,
        default=said,
    )


def _hidden(value: object) -> str:
    return repr(value) if value in (None, "", b"", ()) else "'***'"
