"""Back-off: the first retry at once, jitter within bounds, degraded after too many failures."""

import random

import pytest

from nexus._backoff import Backoff


class Extreme(random.Random):
    """Chance that always takes the least or the most."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


def test_first_retry_comes_at_once() -> None:
    """After the first failure there is no wait."""
    assert Backoff(Extreme(1)).failed(100.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_waits_stay_within_a_bound_that_doubles(seed: int) -> None:
    """Wait n is random from 0 to 50 ms * 2 ** (n - 2), and never more than 5 s."""
    backoff = Backoff(random.Random(seed))
    now = 0.0
    for number in range(1, 30):
        wait = backoff.failed(now)
        assert not backoff.degraded
        assert 0 <= wait <= (0 if number == 1 else min(5.0, 0.05 * 2 ** (number - 2)))
        now += wait + 2  # 2 s apart: never more than three in five


def test_waits_reach_their_bound() -> None:
    """The bound is reached, so that the jitter is a full one and the cap is what it says."""
    backoff, now = Backoff(Extreme(1)), 0.0
    waits = []
    for _ in range(10):
        waits.append(backoff.failed(now))
        now += waits[-1] + 2
    assert waits == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_more_than_three_failures_in_five_seconds_degrade() -> None:
    """The fourth failure within 5 s degrades, and the one at the very edge of the window still counts."""
    backoff = Backoff(Extreme(0))
    for now in (0.0, 1.0, 2.0):
        backoff.failed(now)
    assert not backoff.degraded
    backoff.failed(5.0)
    assert backoff.degraded


def test_three_failures_in_five_seconds_are_borne() -> None:
    """Failures slower than that never degrade."""
    backoff = Backoff(Extreme(1))
    for number in range(100):
        backoff.failed(number * 1.7)
        assert not backoff.degraded


@pytest.mark.parametrize(("share", "wait"), [(0, 15), (1, 30)])
def test_degraded_it_is_probed_every_fifteen_to_thirty_seconds(share: float, wait: float) -> None:
    """A degraded thing is tried for ever, each time after 15 to 30 s."""
    backoff = Backoff(Extreme(share))
    for _ in range(4):
        backoff.failed(0.0)
    for number in range(100):
        assert backoff.failed(100.0 * number) == wait
        assert backoff.degraded


def test_ten_healthy_seconds_forget_what_was() -> None:
    """A failure after more than 10 s without one is a first failure again."""
    backoff = Backoff(Extreme(1))
    backoff.failed(0.0)
    assert backoff.failed(9.0) == 0.05
    assert backoff.failed(19.1) == 0
    assert backoff.failures == 1


def test_recovery_forgets_the_failures() -> None:
    """After a recovery everything begins anew."""
    backoff = Backoff(Extreme(1))
    for _ in range(5):
        backoff.failed(0.0)
    backoff.recovered()
    assert (backoff.failures, backoff.degraded) == (0, False)
    assert backoff.failed(0.1) == 0
