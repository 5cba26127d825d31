"""What strict JSON is: no equal keys, no long integers, nothing too wide or too deep, found out cheaply."""

from __future__ import annotations

import json
from itertools import accumulate, count
from operator import sub
from typing import Any

import orjson

from nexus.adapters._safe import printable

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_SIZE",
    "JSONFault",
    "check",
    "fault",
    "opens",
    "refuse_wide",
]

MAX_SIZE = 1024 * 1024
"""Bytes that are read at once."""
MAX_DEPTH = 32
"""Lists and objects within each other."""
MAX_NODES = 10_000
"""Values, all levels together."""

_HUGE = float(2**63)
_BRACKETS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_OTHERS = bytes(set(range(256)) - set(b"[{]}"))


class JSONFault(ValueError):
    """What is wrong with some JSON.

    Attributes:
        reason: one word, to count by: ``json``, ``duplicate``, ``numbers``, ``depth`` or ``nodes``.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def refuse_wide(data: bytes, *, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES) -> None:
    """Refuse what has far too many values before it is read, so that no memory is spent on it.

    What has up to twice `max_nodes` values passes, and what has more than four times as many does not. Worth
    the call for more bytes than twice `max_nodes`: each value takes two.

    Raises:
        JSONFault: ``depth`` or ``nodes``.
    """
    if data.count(b",") + opens(data) < max_nodes:
        return
    if data.find(b"\\") >= 0:
        # The quotes that stay begin and end texts. Of the same length: that is faster than leaving out.
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    most = 2 * max_nodes
    quotes = 4 * most  # a value brings two texts at most, itself and its key
    parts = data.split(b'"', quotes + 1)
    marks = b"".join(parts[::2])
    # A value has a comma before it or is the first of a list or an object, and each of these is a value.
    if len(parts) > quotes + 1 or marks.count(b",") >= most or opens(marks) > most:
        steps = marks.translate(_BRACKETS, _OTHERS)[:most]
        if max(map(sub, accumulate(steps), count(1)), default=0) > max_depth:
            raise _too_deep(max_depth)
        raise _too_many(max_nodes)


def opens(data: bytes) -> int:
    """Count the lists and objects in some JSON, and the brackets in its texts."""
    return data.count(b"[") + data.count(b"{")


def check(
    data: bytes,
    value: object,
    *,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
    keys: int = 0,
    colons: int = 0,
) -> None:
    """Hold what orjson made of some bytes, or a part of it, against the limits and the bytes.

    Args:
        value: what to look through.
        keys: those in the bytes that are not in the value.
        colons: those within strings that are not in the value.

    Raises:
        JSONFault: ``nodes``, ``depth``, ``duplicate`` or ``numbers``.
    """
    level = [value]
    nodes = depth = 0
    huge = False
    while level:
        nodes += len(level)
        if nodes > max_nodes:
            raise _too_many(max_nodes)
        below: list[object] = []
        for each in level:
            if isinstance(each, str):
                colons += each.count(":")
            elif isinstance(each, dict):
                keys += len(each)
                colons += sum(key.count(":") for key in each)
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
            elif isinstance(each, float) and not -_HUGE < each < _HUGE:
                huge = True
            if isinstance(each, dict | list) and depth == max_depth:
                raise _too_deep(max_depth)
        level = below
        depth += 1
    # orjson lets the last of several equal keys win, and the others leave their colons behind. Only a colon
    # written as an escape can make up for one; then, and where a large float may have been an integer, the
    # bytes are read again.
    if data.count(b":") != colons + keys or huge or data.find(b"\\u003") >= 0:
        _read_again(data)


def _read_again(data: bytes) -> None:
    """Look for what orjson does not tell: equal keys, and integers that became floats."""

    def integer(text: str) -> int:
        if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
            raise JSONFault("numbers", f"integers have 64 bits, {text[:30]} has more")
        return int(text)

    def pairs(found: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in found}) < len(found):
            seen: set[str] = set()
            for key, _ in found:
                if key in seen:
                    raise JSONFault("duplicate", f"the key '{printable(key, 50)}' comes twice")
                seen.add(key)

    json.loads(data, parse_int=integer, object_pairs_hook=pairs)


def fault(exc: orjson.JSONDecodeError) -> JSONFault:
    """Say in our words why orjson does not read something."""
    if "depth limit" in exc.msg:
        return JSONFault("depth", "lists and objects are too deep in each other")
    if "infinity" in exc.msg:
        return JSONFault("numbers", "a number is too large")
    return JSONFault("json", f"not JSON: {exc.msg} at {exc.pos}")


def _too_deep(limit: int) -> JSONFault:
    return JSONFault("depth", f"lists and objects are more than {limit} deep in each other")


def _too_many(limit: int) -> JSONFault:
    return JSONFault("nodes", f"more than {limit} values")
