"""One performance of `nexus demo congestion`: on the screen, in lines, or as JSON, and its exit status."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import click
import orjson
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nexus._version import __version__

from ._congestion_run import Congestion, Figures, Show, congest
from ._picture import draw
from ._running import run
from ._screen import duration

__all__ = ["line_of", "play", "summary_of", "words_of"]

NAMES = {"plain": "plain TCP", "link": "link"}
State = Mapping[str, Any]


def play(settings: Congestion, *, as_json: bool, lines: bool, capture: Path | None = None) -> int:
    """Perform, print, and return the exit status.

    Args:
        capture: where the last picture and the summary go as a drawing; None for nowhere.

    Raises:
        click.ClickException: a process was lost.
    """
    every = 0.5 if as_json else 1.0 if lines else 0.25
    settings = attrs.evolve(settings, show_every=every)
    last: list[tuple[float, Mapping[str, State]]] = []
    with _silently() if as_json else _in_lines() if lines else _on_screen(settings) as show:

        def see(seconds: float, states: Mapping[str, State]) -> None:
            last[:] = [(seconds, states)]
            show(seconds, states)

        figures = run(congest(settings, show=see))
    summary = summary_of(settings, figures)
    if as_json:
        click.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    else:
        for words in words_of(summary):
            click.echo(words)
    if capture is not None:
        drawn = [table(settings, *each) for each in last]
        draw(capture, "nexus demo congestion", *drawn, *map(Text, words_of(summary)))
    return 0 if summary["balanced"] else 1


def summary_of(settings: Congestion, figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Put the figures together, ready for JSON; times in seconds, rates in readings a second."""
    plain, link = figures["plain"], figures["link"]
    return {
        "version": __version__,
        "seconds": settings.seconds,
        "rate": settings.rate,
        "target": settings.target,
        "plain": attrs.asdict(plain),
        "link": attrs.asdict(link),
        "urgent_p50_ratio": plain.p50 / link.p50 if link.p50 else None,
        "urgent_p99_ratio": plain.p99 / link.p99 if link.p99 else None,
        "bulk_ratio": link.rate / plain.rate if plain.rate else None,
        "balanced": plain.balanced and link.balanced,
    }


def words_of(summary: Mapping[str, Any]) -> list[str]:
    """Write the summary in lines; the last two are the two waiting times."""
    lines = ["", "What alarms waited on a line with a flood on it"]
    for way in NAMES:
        found = summary[way]
        lines.append(
            f"{'✓' if found['balanced'] else '✗'} {NAMES[way]}: {found['made']:,} events made, "
            f"{found['handled']:,} handled, {found['rate']:,.0f} readings/s, p99 of "
            f"{found['alarms']:,} alarms {duration(found['p99'])}"
        )
    if summary["urgent_p50_ratio"] is not None and summary["bulk_ratio"] is not None:
        lines.append(
            f"An alarm waits {summary['urgent_p50_ratio']:,.0f} times as long without the link; "
            f"with it the line carries {summary['bulk_ratio']:.2f} of the readings."
        )
    return [*lines, *(f"{NAMES[way] + ':':<11}{duration(summary[way]['p50'])}" for way in NAMES)]


def line_of(seconds: float, states: Mapping[str, State]) -> str:
    """Write how it goes as one line of plain text."""
    parts = [
        f"{NAMES[way]}: alarms {duration(state['p50'])}, newest {duration(state['age'])} old, "
        f"{state['rate'] or 0.0:,.0f} readings/s"
        for way, state in states.items()
    ]
    return f"{seconds:.1f} s | " + " | ".join(parts)


def table(settings: Congestion, seconds: float, states: Mapping[str, State]) -> RenderableType:
    """Draw how it goes for a terminal of at least 80 columns."""
    head = Text.assemble(
        ("plant", "bold"),
        (f" ── {settings.rate / 1e6:g} MB/s ──▶ ", "cyan"),
        ("control", "bold"),
        "   ",
        (f"{seconds:.1f} s", "bold"),
        f" of {settings.seconds:g} s",
    )
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False)
    drawn.add_column("", min_width=34)
    for way in states:
        drawn.add_column(NAMES[way], justify="right", min_width=14)
    rows: list[tuple[str, Callable[[State], str], str]] = [
        ("an alarm waits, median", lambda state: duration(state["p50"]), "bold red"),
        ("the newest that came is of ago", lambda state: duration(state["age"]), ""),
        ("alarms handled", lambda state: f"{state['alarms']:,}", ""),
        ("readings handled", lambda state: f"{state['readings']:,}", ""),
        ("  a second", lambda state: f"{state['rate'] or 0.0:,.0f}", ""),
    ]
    for name, cell, style in rows:
        drawn.add_row(name, *(cell(state) for state in states.values()), style=style)
    return Group(head, "", drawn)


@contextlib.contextmanager
def _on_screen(settings: Congestion) -> Iterator[Show]:
    with Live(auto_refresh=False) as live:
        yield lambda seconds, states: live.update(table(settings, seconds, states), refresh=True)


@contextlib.contextmanager
def _in_lines() -> Iterator[Show]:
    yield lambda seconds, states: click.echo(line_of(seconds, states))


@contextlib.contextmanager
def _silently() -> Iterator[Show]:
    yield lambda seconds, states: None
