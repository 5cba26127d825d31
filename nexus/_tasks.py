"""The tasks of a nexus: each is made, named and ended here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any

__all__ = ["Tasks"]

_PATIENCE = 1.0
"""Seconds that a cancelled task has to end; then it is cancelled again, has as long once more, and counts as
stuck."""


class Tasks:
    """Owns the tasks of a nexus.

    Args:
        name: what their names begin with.
        failed: told of the exception of a task that fails.

    Attributes:
        living: those that have not ended.
        handling: those of them in which handlers run.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.living: set[asyncio.Task[Any]] = set()
        self.handling: set[asyncio.Task[Any]] = set()
        self._name = name
        self._failed = failed

    def spawn(
        self, work: Coroutine[Any, Any, None], what: str, context: Context | None = None
    ) -> asyncio.Task[None]:
        """Make a task.

        Args:
            context: what it runs in; None for a copy of the present one.
        """
        assert self.loop is not None
        # A task factory need not know of contexts.
        given: dict[str, Any] = {} if context is None else {"context": context}
        task = self.loop.create_task(work, name=f"nexus[{self._name}].{what}", **given)
        self.living.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_handler(
        self, work: Coroutine[Any, Any, None], what: str, context: Context | None = None
    ) -> asyncio.Task[None]:
        """Make a task in which handlers run; see `spawn`."""
        task = self.spawn(work, what, context)
        self.handling.add(task)
        return task

    def is_own(self) -> bool:
        """Say whether it is one of these that runs now."""
        return self.loop is not None and asyncio.current_task(self.loop) in self.living

    def is_handling(self) -> bool:
        """Say whether it is a handler that runs now."""
        return self.loop is not None and asyncio.current_task(self.loop) in self.handling

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Let a task go, and report its failure."""
        self.living.discard(task)
        self.handling.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._failed(exc)

    async def cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
        """Cancel tasks and wait for their end; returns the names of those that would not."""
        left = {task for task in tasks if not task.done() and task is not asyncio.current_task()}
        for _ in range(2):
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=_PATIENCE)
        return [task.get_name() for task in left]
