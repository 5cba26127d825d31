"""One performance of the demo: on the screen, in lines, or as JSON, and its exit status."""

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import attrs
import click
import orjson
from rich.console import Console
from rich.live import Live

from ._conductor import Settings, perform
from ._picture import WIDTH, draw
from ._report import report
from ._running import run
from ._screen import line, table
from ._summary import summary_of
from ._view import View

__all__ = ["Screen", "play"]

Shown = tuple[Callable[[View], None], Callable[[str], None]]
"""What shows a picture, and what shows a sentence."""


class Screen(Enum):
    """How the demo shows itself."""

    TABLE = 0.25
    """A table that is drawn again and again in place; the value is the seconds between two pictures."""
    LINES = 1.0
    """A line of plain text a second."""
    NOTHING = 0.5
    """Nothing until the end, then one JSON object."""


def play(settings: Settings, screen: Screen, capture: Path | None) -> int:
    """Perform, print, and return the exit status.

    Raises:
        click.ClickException: a domain was lost.
    """
    settings = attrs.evolve(settings, show_every=screen.value)
    with SCREENS[screen]() as (see, note):
        outcome = run(perform(settings, see, note))
    summary = summary_of(outcome, settings)
    if screen is Screen.NOTHING:
        click.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    else:
        console = Console() if screen is Screen.TABLE else Console(width=WIDTH, highlight=False)
        console.print(report(summary))
    if capture is not None:
        draw(capture, "nexus demo", *([table(outcome.view)] if outcome.view else []), report(summary))
    return 0 if summary["balanced"] else 1


@contextlib.contextmanager
def on_screen() -> Iterator[Shown]:
    """Draw the table again and again in place."""
    with Live(auto_refresh=False) as live:
        yield (lambda view: live.update(table(view), refresh=True)), live.console.print


@contextlib.contextmanager
def in_lines() -> Iterator[Shown]:
    """Print a line for each picture."""
    yield (lambda view: click.echo(line(view))), click.echo


@contextlib.contextmanager
def silently() -> Iterator[Shown]:
    """Show nothing."""
    yield (lambda view: None), (lambda text: None)


SCREENS = {Screen.TABLE: on_screen, Screen.LINES: in_lines, Screen.NOTHING: silently}
