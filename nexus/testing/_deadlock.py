"""Who waits, and where, when nothing can happen any more."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

STANDARD_LIBRARY = str(Path(asyncio.__file__).parent.parent)
SITE_PACKAGES = "site-packages"


class DeadlockError(RuntimeError):
    """Nothing can happen any more: no timer is set, and no socket or thread wakes the loop.

    The message names every task that still waits, and where.
    """


class TimeLimitError(TimeoutError):
    """The simulated time allowed by ``run(limit=...)`` is over; the message names who still waits."""


def by_name(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Sort tasks by name, numbers in it by value: the same order in every run."""
    return sorted(tasks, key=lambda task: [_number(part) for part in re.split(r"(\d+)", task.get_name())])


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Say of every unfinished task where it waits, one line each."""
    lines = [f"  {task.get_name()} {where_it_waits(task)}" for task in by_name(asyncio.all_tasks(loop))]
    return "\n".join(lines) or "  (no task is left: run_forever or a bare future waits)"


def where_it_waits(task: asyncio.Task[Any]) -> str:
    """Name the file, line and function in which a suspended task awaits, innermost code of the user first."""
    chain = list(_frames(task.get_coro()))
    if not chain:
        return "waits in code that shows no frame"
    own = [each for each in chain if not _is_library(each[0])] or chain
    code, line = own[-1]
    last = chain[-1][0]
    deeper = "" if last is code else f", for {last.co_qualname}"
    return f"waits at {code.co_filename}:{line} in {code.co_qualname}{deeper}"


def _frames(awaitable: Any) -> Iterator[tuple[CodeType, int]]:
    # Coroutines, generators and async generators spell the same two attributes in three ways.
    while awaitable is not None:
        for frame_name, next_name in (
            ("cr_frame", "cr_await"),
            ("gi_frame", "gi_yieldfrom"),
            ("ag_frame", "ag_await"),
        ):
            frame: FrameType | None = getattr(awaitable, frame_name, None)
            if frame is not None:
                yield frame.f_code, frame.f_lineno
                awaitable = getattr(awaitable, next_name)
                break
        else:
            return


def _is_library(code: CodeType) -> bool:
    return code.co_filename.startswith(STANDARD_LIBRARY) and SITE_PACKAGES not in code.co_filename


def _number(part: str) -> int | str:
    return int(part) if part.isdecimal() else part
