"""A thread for calls that may block, so that the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["Worker"]

P = ParamSpec("P")
T = TypeVar("T")

Job = tuple["Future[Any]", Callable[[], Any]]


class Worker(Executor):
    """One thread that makes calls in their order.

    It starts with the first call and ends when it was told to shut down. A call that never returns, as on a
    dead network disk, holds neither the event loop nor the end of the process.

    Args:
        name: of the thread.
        patience: seconds that a cancelled `call` waits for what it has begun.
    """

    def __init__(self, name: str, *, patience: float = 2.0) -> None:
        self.name = name
        self.patience = patience
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # bounded by the tasks that wait for a call
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call in the thread and wait for it.

        Cancelled, it waits up to `patience` for the end of the call: what the function has done is done.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self, lambda: function(*args, **kwargs))
        future.add_done_callback(_look)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                await asyncio.wait([future], timeout=self.patience)
            raise

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name=self.name, daemon=True)
            self._thread.start()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the thread end when the calls it has are made; the next call starts another."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(None)
        self._jobs = SimpleQueue()  # bounded by the tasks that wait for a call
        if wait:
            thread.join()


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, function = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)
        del job, future, function


def _look(future: asyncio.Future[Any]) -> None:
    # Who was cancelled does not look at the error any more.
    if not future.cancelled():
        future.exception()
