"""A coroutine begun at once, outside of the task that it belongs to and that goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from types import CoroutineType
from typing import Any

__all__ = ["Begun"]


class Begun:
    """What is left of a coroutine once it waits for something; for the task to await, before anything else.

    It is begun in the name of a task that is at rest, in its context, in a turn of the loop in which no task
    runs: to the coroutine it is as if the task had had its turn sooner.

    Args:
        context: that of the task.
        function: makes the coroutine.
    """

    __slots__ = ("_error", "_rest", "_waited", "is_done")

    def __init__(
        self,
        task: asyncio.Task[Any],
        loop: asyncio.AbstractEventLoop,
        context: Context,
        function: Callable[..., Awaitable[None] | None],
        *arguments: object,
    ) -> None:
        self.is_done = False
        """Whether nothing is left: it has waited for nothing, and raised nothing."""
        self._rest: Any = None
        self._waited: Any = None
        """What it waits for: a future, or None for a turn of the loop."""
        self._error: BaseException | None = None
        """What it has raised, or is to be raised where it waits."""
        asyncio._enter_task(loop, task)
        try:
            context.run(self._begin, function, arguments)
        except BaseException as exc:
            self._error = exc
        finally:
            asyncio._leave_task(loop, task)

    def _begin(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        rest = function(*arguments)
        if type(rest) is CoroutineType:
            try:
                self._waited = rest.send(None)
            except StopIteration:
                self.is_done = True
                return
        else:  # a function that only passes for a coroutine function
            rest = _awaiting(rest)
        self._rest = rest

    def cancel(self, exc: asyncio.CancelledError) -> None:
        """Cancel it where it waits: its task was cancelled before it could go on."""
        if self._rest is not None and (self._waited is None or not self._waited.cancel()):
            self._error = exc

    def __await__(self) -> Generator[Any, None, None]:
        rest = self._rest
        if rest is None:
            if self._error is not None:
                raise self._error
            return
        while True:
            if self._error is None:
                try:
                    yield self._waited
                except BaseException as exc:
                    self._error = exc
                else:
                    yield from rest.__await__()
                    return
            exc_, self._error = self._error, None
            try:
                self._waited = rest.throw(exc_)
            except StopIteration:
                return


async def _awaiting(awaitable: Awaitable[Any]) -> None:
    await awaitable
