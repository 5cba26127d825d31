"""One performance of the demo: on the screen, in lines, or as JSON, and its exit status."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import attrs
import click
import orjson
from rich.console import Console, RenderableType
from rich.live import Live

from ._conductor import Outcome, Settings, perform
from ._report import report
from ._running import run
from ._screen import line, table
from ._summary import summary_of
from ._view import View

__all__ = ["Screen", "play"]

Shown = tuple[Callable[[View], None], Callable[[str], None]]
"""What shows a picture, and what shows a sentence."""
WIDTH = 80
"""Columns of the picture that --capture draws, and of a summary that goes into a file."""


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
        draw(outcome, report(summary), capture)
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


def draw(outcome: Outcome, summary: RenderableType, path: Path) -> None:
    """Write the last picture and the summary as an SVG of fixed width that fetches no font from elsewhere."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print("$ nexus demo", style="dim")
    if outcome.view is not None:
        console.print(table(outcome.view))
    console.print(summary)
    drawn = console.export_svg(title="nexus demo", unique_id="nexus-demo")
    drawn = re.sub(r"@font-face {.*?}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "Menlo, Consolas, DejaVu Sans Mono, monospace")
    path.write_text(drawn, encoding="utf-8")
