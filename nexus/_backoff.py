"""Back-off: how long to wait before trying again, jittered, and when to call it degraded."""

from __future__ import annotations

import random
from collections import deque

import attrs

__all__ = ["Backoff"]


@attrs.define
class Backoff:
    """The waits between tries: none before the first, then random up to a bound that doubles (full jitter).

    Full jitter: see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    rng: random.Random
    base: float = 0.05
    """Seconds that bound the second wait."""
    cap: float = 5.0
    """Seconds no wait exceeds before the thing is degraded."""
    healthy: float = 10.0
    """Seconds without a failure after which all is forgotten."""
    intensity: int = 3
    """Failures within `window` that are still borne; one more, and the thing is degraded."""
    window: float = 5.0
    probe: float = 30.0
    """Seconds between tries while degraded; jittered by half."""

    failures: int = attrs.field(default=0, init=False)
    """Failures in a row."""
    degraded: bool = attrs.field(default=False, init=False)
    _recent: deque[float] = attrs.field(factory=lambda: deque(maxlen=64), init=False)

    def failed(self, now: float) -> float:
        """Note a failure, and return how many seconds to wait before the next try.

        Args:
            now: seconds on the loop's clock.
        """
        if self._recent and now - self._recent[-1] > self.healthy and not self.degraded:
            self.failures = 0
            self._recent.clear()
        self._recent.append(now)
        self.failures += 1
        if sum(now - moment <= self.window for moment in self._recent) > self.intensity:
            self.degraded = True
        if self.degraded:
            return self.probe * self.rng.uniform(0.5, 1.0)
        if self.failures == 1:
            return 0.0
        return self.rng.uniform(0.0, min(self.cap, self.base * 2.0 ** (self.failures - 2)))

    def recovered(self) -> None:
        """Note that the thing works again."""
        self.failures = 0
        self.degraded = False
        self._recent.clear()
