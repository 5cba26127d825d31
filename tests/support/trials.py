"""Input after input for a parser: which took longest, and what of them was kept."""

import gc
import heapq
import random
import time
from collections.abc import Callable
from typing import Any

import attrs
from memory_use import resident

__all__ = ["GROWTH", "SLOWEST", "Found", "Trials"]

GROWTH = 16 << 20
"""Bytes that the process may grow by."""
SLOWEST = 0.020
"""Seconds of the processor that no single input may take, the making of it included."""
KEPT = 32
"""How many of the slowest are tried again: more than accidents, which are rare, can crowd out."""
AGAIN = 5
BLOCK = 10
"""Inputs from one state of the random numbers to the next that is remembered."""


@attrs.frozen
class Found:
    """How it went."""

    slowest_ms: float
    slowest: bytes
    rss_bytes: int


class Trials:
    """Tries inputs, and judges how long the slowest took and by how much the process has grown.

    The first time of an input says little: a collection of garbage, a cold cache or another program may have
    fallen into it. So the slowest few are made once more, and each counts with its best time of five.

    Args:
        rng: what the inputs are made with, and nothing else.
        attempt: makes one, tries it and returns it.
    """

    def __init__(self, rng: random.Random, attempt: Callable[[], bytes]) -> None:
        self._rng = rng
        self._attempt = attempt
        self._tried = 0
        self._state: tuple[Any, ...] = ()
        self._slow: list[tuple[float, int, tuple[Any, ...]]] = []
        self._memory: int | None = None

    def run(self, number: int) -> None:
        """Try so many. What the first run has loaded, once and for all, is no growth."""
        for _ in range(number):
            if self._tried % BLOCK == 0:
                self._state = self._rng.getstate()
            took, _data = self._timed()
            if len(self._slow) < KEPT:
                heapq.heappush(self._slow, (took, self._tried, self._state))
            elif took > self._slow[0][0]:
                heapq.heapreplace(self._slow, (took, self._tried, self._state))
            self._tried += 1
        if self._memory is None:
            gc.collect()
            self._memory = resident()

    def judge(self) -> Found:
        """Fail if one took too long, or too much was kept."""
        gc.collect()
        grown = resident() - (self._memory or 0)
        took, data = max(self._again(place, state) for _, place, state in self._slow)
        found = Found(round(took * 1000, 3), data[:200], grown)
        assert took < SLOWEST, found
        assert grown <= GROWTH, found
        return found

    def _timed(self) -> tuple[float, bytes]:
        began = time.process_time()
        data = self._attempt()
        return time.process_time() - began, data

    def _again(self, place: int, state: tuple[Any, ...]) -> tuple[float, bytes]:
        """Make an input once more, after the others of its block, and give its best time."""
        times = []
        for _ in range(AGAIN):
            self._rng.setstate(state)
            for _ in range(place % BLOCK):
                self._attempt()
            times.append(self._timed())
        return min(times)
