"""When to try again: soon at first, then ever less often up to a bound, never all at once."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

import attrs

from nexus.errors import ConfigError

__all__ = ["Retry", "Waits"]

Again: TypeAlias = Literal["always", "once", "never"]


@attrs.frozen(kw_only=True)
class Retry:
    """What to do when a connection cannot be made, or ends."""

    again: Again = "always"
    """``once`` gives up when the second connection has ended as well, ``never`` when the first has."""
    base: float = 0.02
    """Seconds that bound the wait after the first failure; the bound doubles from one to the next."""
    cap: float = 0.5
    """Seconds that no wait exceeds."""

    def __attrs_post_init__(self) -> None:
        if self.again not in ("always", "once", "never"):
            raise ConfigError(f"retry: found {self.again!r}, allowed: always, once or never")
        if not 0 < self.base <= self.cap:
            raise ConfigError(
                f"retry: found base {self.base!r} and cap {self.cap!r}, allowed: 0 < base <= cap, in seconds"
            )


class Waits:
    """The waits of one series of failures, with equal jitter: between half of the bound and all of it.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, retry: Retry, rng: random.Random | None = None) -> None:
        self._retry = retry
        self._rng = rng or random.Random()
        self.failures = 0
        """Failures in a row."""

    def next(self) -> float:
        """Note a failure, and return how many seconds to wait."""
        bound = min(self._retry.cap, self._retry.base * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return bound * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Note a success."""
        self.failures = 0
