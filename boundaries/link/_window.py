"""How many events of one priority may be under way: as many as keep the delay near its target."""

from __future__ import annotations

from typing import Final

__all__ = ["Window"]

MEMORY: Final = 10.0
"""Seconds for which the least delay is remembered."""


class Window:
    """A window that grows while what comes is not delayed, and shrinks when it is.

    The delay is that beyond the least one seen lately, so the two clocks need not agree. See RFC 6817,
    LEDBAT, sections 2.4 and 3.4.

    Args:
        size: events, to begin with.
        least: events it never falls below.
        most: events it never exceeds.
        target: seconds of delay it aims at.
    """

    def __init__(self, size: int, least: int, most: int, target: float) -> None:
        self._size = float(size)
        self._least = least
        self._most = most
        self._target = target
        self._bases: list[tuple[float, float]] = []
        """The least delay of each of the last periods, and when the period began."""

    @property
    def size(self) -> int:
        """Events."""
        return int(self._size)

    def record(self, count: int, sent: int, now: float) -> None:
        """Note that events were accepted.

        Args:
            sent: microseconds on the sender's clock, when they went.
            now: seconds on the own clock.
        """
        delay = now - sent / 1e6
        if not self._bases or now - self._bases[-1][1] > MEMORY / 4:
            self._bases.append((delay, now))
            del self._bases[:-4]
        elif delay < self._bases[-1][0]:
            self._bases[-1] = (delay, self._bases[-1][1])
        queued = delay - min(base for base, _ in self._bases)
        off = max(-1.0, (self._target - queued) / self._target)
        # Up to double in a window's worth of events, down to half.
        self._size += off * count * (1.0 if off > 0 else 0.5)
        self._size = min(max(self._size, self._least), self._most)
