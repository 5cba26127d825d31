"""How many events a second may come: a bucket that fills slowly, and out of which every event takes one."""

from __future__ import annotations

from typing import Final

__all__ = ["Bucket"]

HELD: Final = 0.1
"""Seconds' worth that it holds."""
ROUND: Final = 0.01
"""Seconds' worth that is given out at once, where there was nothing left."""


class Bucket:
    """What one other side may still send.

    Args:
        rate: events a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * HELD)
        self._level = self._most
        self._filled = 0.0

    @property
    def first(self) -> int:
        """Events of a new priority that may come before anything is said of it; they are taken when they
        come."""
        return max(1, min(64, int(self._rate * HELD)))

    def fill(self, now: float) -> None:
        """Let in what has come since the last time."""
        self._level = min(self._most, self._level + max(0.0, now - self._filled) * self._rate)
        self._filled = max(self._filled, now)

    def take(self, most: int) -> int:
        """Take up to so many; return how many."""
        count = max(0, min(most, int(self._level)))
        self._level -= count
        return count

    def owe(self, count: int) -> None:
        """Take so many, though there may be fewer."""
        self._level -= count

    @property
    def next_time(self) -> float:
        """The moment at which there is enough for another round."""
        enough = max(1.0, min(self._rate * ROUND, self._most))
        return self._filled + max(0.0, enough - self._level) / self._rate
