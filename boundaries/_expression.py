"""The expressions of the command line and of files: a small safe part of Python's own.

``temperature > 80 and topic == "oven/1"``, ``-10 if level in ("alarm", "fatal") else 0``. Names are fields
of the data; ``data``, ``meta`` and ``topic`` are the whole of it and what the transport said. Nothing can be
called but the functions of `FUNCTIONS`, nothing can be changed, and what an expression costs is bounded.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from nexus.adapters._kinds import shown
from nexus.adapters._safe import printable
from nexus.boundaries._expression_words import (
    FUNCTIONS,
    add,
    constant,
    field,
    index,
    modulo,
    multiply,
    numeric,
)
from nexus.errors import ConfigError

__all__ = ["Expression", "compile_expression"]

Expression: TypeAlias = "Callable[[Any, Mapping[str, Any]], Any]"
"""Gives a value for data and meta."""

MAX_TEXT = 2_000
"""Characters."""
MAX_NODES = 200
MAX_DEPTH = 30

COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, whole: item in whole,
    ast.NotIn: lambda item, whole: item not in whole,
}
COMPUTED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: add,
    ast.Sub: numeric(operator.sub, "-"),
    ast.Mult: multiply,
    ast.Div: numeric(operator.truediv, "/"),
    ast.FloorDiv: numeric(operator.floordiv, "//"),
    ast.Mod: modulo,
}
ALLOWED = (
    "allowed are fields, a.b, a['b'], numbers, texts, None, True, False, lists, mappings, comparisons, in, "
    "and, or, not, + - * / // %, x if y else z, and the functions " + ", ".join(sorted(FUNCTIONS))
)


def compile_expression(text: str) -> Expression:
    """Turn an expression into a function of data and meta.

    The function raises LookupError for a field that is not there, and says which there are; TypeError,
    ValueError and ZeroDivisionError as Python does.

    Raises:
        ConfigError: it is none, or more than is allowed; says where, and what is allowed.
    """
    if not isinstance(text, str):
        raise ConfigError(f"an expression is a text, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise ConfigError(f"an expression has at most {MAX_TEXT} characters, this one has {len(text)}")
    stripped = text.strip()
    if not stripped:
        raise ConfigError(f"an expression is empty; {ALLOWED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a text
            tree = ast.parse(stripped, mode="eval").body
    except SyntaxError as exc:
        where = f", column {exc.offset}" if exc.offset else ", at its end"
        raise ConfigError(f"expression {shown(stripped)}{where}: {printable(exc.msg)}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ConfigError(
            f"expression {shown(stripped)}: it cannot be read, or is nested too deeply"
        ) from None
    return Compiler(stripped).checked(tree)


class Compiler:
    """Makes functions of the nodes of one expression."""

    def __init__(self, text: str) -> None:
        self.text = text

    def checked(self, tree: ast.expr) -> Expression:
        """Refuse what is too large; then compile."""
        count = 0
        waiting: list[tuple[ast.AST, int]] = [(tree, 1)]
        while waiting:
            node, depth = waiting.pop()
            count += 1
            if depth > MAX_DEPTH:
                raise self.wrong(node, f"it is nested more than {MAX_DEPTH} deep")
            if count > MAX_NODES:
                raise self.wrong(node, f"it has more than {MAX_NODES} parts")
            waiting += [
                (each, depth + 1)
                for each in ast.iter_child_nodes(node)
                if isinstance(each, ast.expr | ast.keyword)
            ]
        return self.compile(tree)

    def wrong(self, node: ast.AST, why: str) -> ConfigError:
        """Make an error that says where."""
        line, begin = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        before = self.text.splitlines()[line - 1].encode()[:begin].decode(errors="ignore")
        where = f"line {line}, column {len(before) + 1}" if line > 1 else f"column {len(before) + 1}"
        return ConfigError(f"expression {shown(self.text)}, {where}: {why}")

    def found(self, node: ast.AST, what: str) -> ConfigError:
        """Make an error about a part that is not allowed."""
        return self.wrong(node, f"found {what}; {ALLOWED}")

    def compile(self, node: ast.expr) -> Expression:
        """Make a function of a node."""
        match node:
            case ast.Constant(value=value):
                if value is not None and not isinstance(value, bool | int | float | str | bytes):
                    raise self.found(node, type(value).__name__)
                if isinstance(value, int) and value.bit_length() > 64:
                    raise self.wrong(node, "found a number of more than 64 bits")
                return constant(value)
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Attribute(value=value, attr=name):
                return index(self.compile(value), constant(self.plain(node, name)))
            case ast.Subscript(value=value, slice=key):
                if isinstance(key, ast.Slice):
                    raise self.found(key, "a slice")
                return index(self.compile(value), self.compile(key))
            case ast.BoolOp(op=op, values=values):
                return joined(isinstance(op, ast.And), [self.compile(each) for each in values])
            case ast.Compare(left=left, ops=ops, comparators=others):
                return compared(
                    [COMPARED[type(op)] for op in ops], [self.compile(each) for each in (left, *others)]
                )
            case ast.UnaryOp(op=op, operand=operand):
                return self.unary(node, op, self.compile(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
                return computed(COMPUTED[type(op)], self.compile(left), self.compile(right))
            case ast.BinOp(op=op):
                raise self.found(node, f"the operator {type(op).__name__}")
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return chosen(self.compile(test), self.compile(body), self.compile(orelse))
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return listed([self.compile(each) for each in parts], isinstance(node, ast.Tuple))
            case ast.Dict(keys=keys, values=values):
                return mapped(self.keys(node, keys), [self.compile(each) for each in values])
            case ast.Call():
                return self.call(node)
        raise self.found(node, what(node))

    def plain(self, node: ast.AST, name: str) -> str:
        """Refuse the names that Python keeps for itself."""
        if name.startswith("__"):
            raise self.wrong(node, f"found {shown(name)}; names that begin with __ are no fields")
        return name

    def name(self, node: ast.AST, name: str) -> Expression:
        """Make a function of a name: a word of the transport's, or a field."""
        if name == "data":
            return lambda data, meta: data
        if name == "meta":
            return lambda data, meta: meta
        if name == "topic":
            return topic
        return field(self.plain(node, name))

    def unary(self, node: ast.AST, op: ast.unaryop, operand: Expression) -> Expression:
        """Make a function of `not x` or `-x`."""
        if isinstance(op, ast.Not):
            return lambda data, meta: not operand(data, meta)
        if isinstance(op, ast.USub):
            minus = numeric(lambda zero, value: -value, "-")
            return lambda data, meta: minus(0, operand(data, meta))
        raise self.found(node, f"the operator {type(op).__name__}")

    def keys(self, node: ast.AST, keys: list[ast.expr | None]) -> list[str]:
        """Return the keys of a mapping, which are texts as they stand."""
        names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
        if len(names) < len(keys):
            raise self.wrong(node, "the keys of a mapping are texts, as in {'t': temperature}")
        return names

    def call(self, node: ast.Call) -> Expression:
        """Make a function of a call of a known function."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        known = ", ".join(sorted(FUNCTIONS))
        if name not in FUNCTIONS:
            found = f"the function {shown(name)}" if name else f"a call of {what(node.func)}"
            raise self.wrong(node, f"found {found}; the functions are {known}")
        if node.keywords or any(isinstance(each, ast.Starred) for each in node.args):
            raise self.wrong(node, f"found a named or starred argument; {name}() takes plain ones")
        low, high = FUNCTIONS[name].arity
        if not low <= len(node.args) <= high:
            number = str(low) if low == high else f"{low} to {high}"
            raise self.wrong(node, f"{name}() takes {number} arguments, found {len(node.args)}")
        function, arguments = FUNCTIONS[name].call, [self.compile(each) for each in node.args]
        if len(arguments) == 1:
            only = arguments[0]
            return lambda data, meta: function(only(data, meta))
        return lambda data, meta: function(*[each(data, meta) for each in arguments])


def what(node: ast.AST) -> str:
    """Name a node in words."""
    names = {
        "Lambda": "a lambda",
        "NamedExpr": "an assignment",
        "JoinedStr": "an f-string",
        "Starred": "a star",
    }
    kind = type(node).__name__
    return names.get(kind, "a comprehension" if kind.endswith(("Comp", "Exp")) else f"{kind}")


def topic(data: Any, meta: Mapping[str, Any]) -> Any:
    """Return the topic that the transport gave."""
    if "topic" not in meta:
        raise LookupError(f"the transport gives no topic; it gives: {', '.join(map(str, meta)) or 'nothing'}")
    return meta["topic"]


def joined(is_and: bool, parts: list[Expression]) -> Expression:
    """Make a function of `a and b and c`, or of `a or b or c`."""
    if len(parts) == 2:
        left, right = parts
        if is_and:
            return lambda data, meta: left(data, meta) and right(data, meta)
        return lambda data, meta: left(data, meta) or right(data, meta)

    def run(data: Any, meta: Mapping[str, Any]) -> Any:
        value: Any = None
        for part in parts:
            value = part(data, meta)
            if bool(value) is not is_and:
                break
        return value

    return run


def compared(operators: list[Callable[[Any, Any], Any]], parts: list[Expression]) -> Expression:
    """Make a function of `a < b <= c`."""
    if len(operators) == 1:
        compare, left, right = operators[0], *parts
        return lambda data, meta: compare(left(data, meta), right(data, meta))

    def run(data: Any, meta: Mapping[str, Any]) -> Any:
        value, result = parts[0](data, meta), True
        for compare, part in zip(operators, parts[1:], strict=True):
            following = part(data, meta)
            result = compare(value, following)
            if not result:
                break
            value = following
        return result

    return run


def computed(compute: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    """Make a function of `a + b`."""
    return lambda data, meta: compute(left(data, meta), right(data, meta))


def chosen(test: Expression, body: Expression, orelse: Expression) -> Expression:
    """Make a function of `a if b else c`."""
    return lambda data, meta: body(data, meta) if test(data, meta) else orelse(data, meta)


def listed(parts: list[Expression], is_tuple: bool) -> Expression:
    """Make a function of `[a, b]` or `(a, b)`."""
    make = tuple if is_tuple else list
    return lambda data, meta: make([part(data, meta) for part in parts])


def mapped(names: list[str], parts: list[Expression]) -> Expression:
    """Make a function of `{"a": b}`."""
    pairs = list(zip(names, parts, strict=True))
    return lambda data, meta: {name: part(data, meta) for name, part in pairs}
