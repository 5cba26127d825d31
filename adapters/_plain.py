"""Functions that are called and not awaited."""

from __future__ import annotations

from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TypeVar

__all__ = ["plain"]

F = TypeVar("F")


def plain(function: F, what: str) -> F:
    """Return a function that will be called and not awaited, or what is none at all.

    Args:
        what: the word for it, for the error.

    Raises:
        TypeError: calling it would run nothing of it, for it is async or has a yield.
    """
    # Asked of the class: that of a class is for its objects.
    for call in (function, getattr(type(function), "__call__", None)):  # noqa: B004
        if iscoroutinefunction(call) or isgeneratorfunction(call) or isasyncgenfunction(call):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise TypeError(
                f"{what} is called and not awaited, so nothing of {name} would run: it is async or has a "
                "yield; give a plain function, which may begin a task"
            )
    return function
