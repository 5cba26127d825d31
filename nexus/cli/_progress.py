"""How a command goes on, once a second: a status line on a terminal, else a line each time."""

import time
from collections.abc import Callable

from nexus.cli._live import Live

__all__ = ["progress"]


def progress(line: Callable[[], tuple[int, str]], *, plain: bool) -> Live:
    """Make what shows it.

    Args:
        line: gives a number, of which the rate is shown, and words.
        plain: print a line each time, also on a terminal.
    """
    before, since = line()[0], time.monotonic()

    def status() -> str:
        nonlocal before, since
        (count, words), now = line(), time.monotonic()
        rate = (count - before) / max(now - since, 1e-9)
        before, since = count, now
        return f"{words}, {rate:,.0f}/s"

    def every() -> None:
        if not live.in_place and time.monotonic() - since > 0.5:
            live.say(status())

    live = Live(status, plain=plain, interval=1.0, every=every)
    return live
