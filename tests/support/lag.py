"""How long an event loop does not come round, and what it does meanwhile."""

import asyncio
import contextlib
import os
import sys
import threading
import traceback
from time import perf_counter

__all__ = ["Lag"]


class Lag:
    """Watches the running loop while it is entered.

    A beat every millisecond notes how late it is; a thread looks at the loop's stack while a beat is overdue.
    The time that the loop's thread waited for a processor is left out where the system says it (Linux).
    """

    BEAT = 0.001

    def __init__(self) -> None:
        self.worst = 0.0
        """The longest stall, seconds."""
        self.stack = ""
        """What the loop was doing during the longest stall that the thread saw."""
        self._last = self._last_waited = 0.0
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stat = -1

    def __enter__(self) -> "Lag":
        with contextlib.suppress(OSError):
            self._stat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._last, self._last_waited = perf_counter(), self._waited()
        self._timer = self._loop.call_later(self.BEAT, self._beat)
        self._watcher = threading.Thread(target=self._watch, name="lag")
        self._watcher.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._beat()
        self._timer.cancel()
        self._over.set()
        self._watcher.join()
        if self._stat >= 0:
            os.close(self._stat)

    def _waited(self) -> float:
        """Say how long this thread was ready to run and had no processor, seconds."""
        if self._stat < 0:
            return 0.0
        return int(os.pread(self._stat, 100, 0).split()[1]) / 1e9

    def _beat(self) -> None:
        now, waited = perf_counter(), self._waited()
        self.worst = max(self.worst, now - self._last - self.BEAT - (waited - self._last_waited))
        self._last, self._last_waited = now, waited
        self._timer.cancel()
        self._timer = self._loop.call_later(self.BEAT, self._beat)

    def _watch(self) -> None:
        longest = 0.005
        while not self._over.wait(0.002):
            late = perf_counter() - self._last
            if late > longest:
                longest = late
                frame = sys._current_frames().get(self._thread)
                self.stack = f"after {late:.3f} s:\n" + "".join(traceback.format_stack(frame))
