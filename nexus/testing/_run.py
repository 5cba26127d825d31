"""Run coroutines and tests in virtual time."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from ._deadlock import by_name
from ._loop import VirtualTimeLoop

T = TypeVar("T")
P = ParamSpec("P")
AsyncTest = Callable[P, Coroutine[Any, Any, None]]
Test = Callable[P, None]


def run(
    main: Coroutine[Any, Any, T], *, start: float = 0.0, debug: bool | None = None, limit: float | None = None
) -> T:
    """Run a coroutine in a fresh virtual-time loop, as `asyncio.run` does in a real one.

    What is left when it ends is cancelled, in the order of the tasks' names; asynchronous
    generators and the default executor are shut down; the loop is closed.

    Args:
        start: what the clock reads first, seconds.
        debug: asyncio's debug mode; None for the interpreter's setting.
        limit: simulated seconds allowed for `main`, more than 0; None for no limit.

    Raises:
        DeadlockError: nothing can happen any more, and `main` is not done.
        TimeLimitError: the limit is passed.
        RuntimeError: an event loop runs in this thread already.
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("run() starts a loop of its own, and this thread runs one already: await instead")
    if limit is not None and not limit > 0:
        main.close()
        raise ValueError(f"limit must be more than 0 simulated seconds, or None, not {limit!r}")
    loop = VirtualTimeLoop(start)
    with asyncio.Runner(debug=debug, loop_factory=lambda: loop) as runner:
        loop.set_limit(None if limit is None else start + limit)
        try:
            return runner.run(main)
        finally:
            loop.set_limit(None)
            loop.run_until_complete(_cancel_leftovers(loop))


@overload
def virtual_time(test: AsyncTest[P], /) -> Test[P]: ...
@overload
def virtual_time(
    *, start: float = 0.0, debug: bool | None = None, limit: float | None = None
) -> Callable[[AsyncTest[P]], Test[P]]: ...
def virtual_time(
    test: AsyncTest[P] | None = None,
    /,
    *,
    start: float = 0.0,
    debug: bool | None = None,
    limit: float | None = None,
) -> Test[P] | Callable[[AsyncTest[P]], Test[P]]:
    """Turn an ``async def`` test into a plain function that runs it in virtual time.

    No plugin is needed, and one that runs coroutines leaves it alone. The signature stays, so
    fixtures and parameters work; asynchronous fixtures belong to another loop and do not. With
    Hypothesis, write it below ``@given``. The arguments are those of `run`.
    """

    def decorate(test: AsyncTest[P]) -> Test[P]:
        @functools.wraps(test)
        def in_virtual_time(*args: P.args, **kwargs: P.kwargs) -> None:
            run(test(*args, **kwargs), start=start, debug=debug, limit=limit)

        return in_virtual_time

    return decorate if test is None else decorate(test)


async def _cancel_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    # asyncio.run does this too, in the order of a set of addresses: never the same twice.
    tasks = [task for task in by_name(asyncio.all_tasks(loop)) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler(
                {"message": "a leftover task failed while cancelled", "exception": error, "task": task}
            )
