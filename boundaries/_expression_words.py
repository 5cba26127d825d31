"""What the words of an expression do: fields, arithmetic and functions, each within bounds."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from nexus.adapters._kinds import shown

__all__ = ["FUNCTIONS", "Function", "add", "constant", "field", "index", "modulo", "multiply", "numeric"]

Compiled = Callable[[Any, Mapping[str, Any]], Any]

MAX_BITS = 1024
"""Of an integer."""
MAX_CHARS = 2**20
"""Of a text."""
MAX_LIKE = 4096
"""Of a text that is compared with a pattern."""
MAX_PATTERN = 200
"""Of a pattern."""
MAX_DIGITS = 320
"""Characters of a text that is read as a number."""


def constant(value: Any) -> Compiled:
    """Make a function that gives always the same."""
    return lambda data, meta: value


def field(name: str) -> Compiled:
    """Make a function that gives a field of the data."""

    def run(data: Any, meta: Mapping[str, Any]) -> Any:
        if type(data) is dict and name in data:
            return data[name]
        return item(data, name)

    return run


def index(whole: Compiled, key: Compiled) -> Compiled:
    """Make a function of `a.b` and `a["b"]`, which mean the same."""
    return lambda data, meta: item(whole(data, meta), key(data, meta))


def item(whole: Any, key: Any) -> Any:
    """Return what a mapping, a list or an object of attrs has under a key.

    Raises:
        LookupError: there is nothing; says what there is.
    """
    if isinstance(whole, Mapping):
        if isinstance(key, str | int) and key in whole:
            return whole[key]
        raise LookupError(f"there is no field {shown(key)}; the fields are: {listing(whole)}")
    if isinstance(key, str) and attrs.has(type(whole)):
        names = [each.name for each in attrs.fields(type(whole))]
        if key in names:
            return getattr(whole, key)
        raise LookupError(f"there is no field {shown(key)}; the fields are: {listing(names)}")
    if isinstance(key, int) and isinstance(whole, Sequence):
        if -len(whole) <= key < len(whole):
            return whole[key]
        raise LookupError(f"there is no item {key}; there are {len(whole)}")
    raise LookupError(f"there is no field {shown(key)} in a {type(whole).__name__}")


def listing(names: Any) -> str:
    """List names for a reader, the first ten."""
    known = heapq.nsmallest(10, map(str, names))
    return ", ".join(name[:50] for name in known) + (" ..." if len(names) > 10 else "") or "none"


def numbers(sign: str, *values: Any) -> None:
    """Refuse what is no number: a text times a number is a long text."""
    for value in values:
        if not isinstance(value, int | float):
            raise TypeError(f"{sign} is for numbers, found a {type(value).__name__}")


def bounded(value: Any) -> Any:
    """Refuse a number that grows without end."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"found an integer of more than {MAX_BITS} bits")
    return value


def numeric(compute: Callable[[Any, Any], Any], sign: str) -> Callable[[Any, Any], Any]:
    """Make an operation for numbers only."""

    def run(left: Any, right: Any) -> Any:
        numbers(sign, left, right)
        return bounded(compute(bounded(left), bounded(right)))

    return run


def add(left: Any, right: Any) -> Any:
    """Add numbers, or join texts."""
    if isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > MAX_CHARS:
            raise ValueError(f"found a text of more than {MAX_CHARS} characters")
        return left + right
    if isinstance(left, str) or isinstance(right, str):
        other = right if isinstance(left, str) else left
        raise TypeError(f"a text and a {type(other).__name__} cannot be joined; str() makes a text")
    numbers("+", left, right)
    return bounded(bounded(left) + bounded(right))


multiply = numeric(lambda left, right: left * right, "*")
modulo = numeric(lambda left, right: left % right, "%")


@attrs.frozen
class Function:
    """A function that expressions may call."""

    call: Callable[..., Any]
    arity: tuple[int, int]
    """The least and the largest number of arguments."""


def text_of(value: Any) -> str:
    """Return a number or a text as text; bytes are UTF-8."""
    if isinstance(value, bytes):
        return value[:MAX_CHARS].decode(errors="replace")
    if value is None or isinstance(value, str | bool | float):
        return str(value)
    if isinstance(value, int):
        return str(bounded(value))
    raise TypeError(f"str() is for numbers and texts, found a {type(value).__name__}")


def number_of(kind: type[int] | type[float], value: Any) -> Any:
    """Return a number or a text as a number."""
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        raise ValueError(f"{kind.__name__}() reads at most {MAX_DIGITS} characters, found {len(value)}")
    if not isinstance(value, str | int | float):
        raise TypeError(f"{kind.__name__}() is for numbers and texts, found a {type(value).__name__}")
    return bounded(kind(value))


def rounded(value: Any, digits: Any = None) -> Any:
    """Round a number."""
    numbers("round()", value)
    if digits is not None and (not isinstance(digits, int) or abs(digits) > 100):
        raise ValueError(f"round() takes -100 to 100 digits, found {shown(digits)}")
    return round(bounded(value), digits)


def length(value: Any) -> int:
    """Count characters or items."""
    if not isinstance(value, str | bytes | Sequence | Mapping):
        raise TypeError(f"len() is for texts, lists and mappings, found a {type(value).__name__}")
    return len(value)


def extreme(which: Callable[..., Any], *values: Any) -> Any:
    """Return the least or the largest of the arguments, or of the items of a list."""
    if len(values) == 1 and not isinstance(values[0], Sequence):
        raise TypeError(f"{which.__name__}() of one value is for lists, found a {type(values[0]).__name__}")
    return which(*values)


def of_text(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function whose arguments are texts."""

    def run(*values: Any) -> Any:
        for value in values:
            if not isinstance(value, str):
                raise TypeError(f"{name}() is for texts, found a {type(value).__name__}")
        return method(*values)

    return run


def like(text: str, pattern: str) -> bool:
    """Say whether the whole of a text is as a pattern of the shell says: ``*``, ``?``, ``[a-z]``."""
    if len(text) > MAX_LIKE or len(pattern) > MAX_PATTERN:
        raise ValueError(
            f"like() takes a text of {MAX_LIKE} characters and a pattern of {MAX_PATTERN} at most"
        )
    return fnmatchcase(text, pattern)


def absolute(value: Any) -> Any:
    """Return a number without its sign."""
    numbers("abs()", value)
    return abs(value)


FUNCTIONS: dict[str, Function] = {
    "abs": Function(absolute, (1, 1)),
    "min": Function(lambda *values: extreme(min, *values), (1, 20)),
    "max": Function(lambda *values: extreme(max, *values), (1, 20)),
    "len": Function(length, (1, 1)),
    "round": Function(rounded, (1, 2)),
    "int": Function(lambda value: number_of(int, value), (1, 1)),
    "float": Function(lambda value: number_of(float, value), (1, 1)),
    "str": Function(text_of, (1, 1)),
    "lower": Function(of_text("lower", str.lower), (1, 1)),
    "upper": Function(of_text("upper", str.upper), (1, 1)),
    "startswith": Function(of_text("startswith", str.startswith), (2, 2)),
    "endswith": Function(of_text("endswith", str.endswith), (2, 2)),
    "like": Function(of_text("like", like), (2, 2)),
}
"""By name."""
