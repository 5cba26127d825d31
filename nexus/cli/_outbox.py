"""`nexus outbox`: look at an outbox, and tend it, while no program uses it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nexus.cli._options import said

if TYPE_CHECKING:
    from nexus.boundaries.outbox._tend import LaneView, View

__all__ = ["command"]

path_argument = click.argument("path", metavar="PATH", type=click.Path(dir_okay=False))


@click.group("outbox", short_help="Look at an outbox, and tend it.")
def command() -> None:
    """Look at an outbox, the file in which a durable link or a spilling queue keeps its rows, and tend it.

    The program that uses it must have ended: an outbox is one program's at a time.
    """


@command.command("show")
@path_argument
@click.option(
    "--rows", type=click.IntRange(min=0), default=0, help="Show so many of the oldest rows of each lane."
)
@click.option("--json", "as_lines", is_flag=True, help="Print a line of JSON for each lane.")
@click.pass_context
def show(ctx: click.Context, path: str, rows: int, as_lines: bool) -> None:
    """Show what an outbox holds, and change nothing.

    For each stream and priority: the first and last number that is stored and not accepted, how many rows,
    how many bytes. Rows may be secret, and are only shown with --rows.

    Exit status: 0; 1 if it cannot be looked at; 2 if it is damaged: then what is shown is what can be
    salvaged, and will be by the program that opens it next.
    """
    from nexus.boundaries.outbox._tend import look

    with errors():
        view = look(path, rows)
    if as_lines:
        for lane in view.lanes:
            click.echo(json.dumps(plain(lane)))
    else:
        tell(path, view)
    if view.damage:
        click.echo(f"damaged: {said(ValueError(view.damage))}", err=True)
    ctx.exit(2 if view.damage else 0)


@command.command("drop")
@path_argument
@click.option("--stream", help="Only of this stream. Default: of all.")
@click.option("--priority", type=int, help="Only of this priority. Default: of all.")
@click.option("--upto", type=click.IntRange(min=1), metavar="N", help="Only up to this number. Default: all.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(path: str, stream: str | None, priority: int | None, upto: int | None, yes: bool) -> None:
    """Take rows out of an outbox for good.

    Their numbers stay, for the other side waits for them: it gets an empty row for each, which it leaves out
    and counts. What was accepted, and how far the rows of others have come in, is not touched.
    """
    from nexus.boundaries.outbox._tend import drop, look

    with errors():
        lanes = [
            lane
            for lane in look(path, 0).lanes
            if stream in (None, lane.stream) and priority in (None, lane.priority) and lane.rows
        ]
    if not lanes:
        raise click.ClickException("there is no such row; see nexus outbox show")
    if not yes:
        what = f"the rows up to {upto}" if upto else f"{sum(lane.rows for lane in lanes)} rows"
        click.confirm(f"Drop {what} of {len(lanes)} lanes for good?", abort=True)
    with errors():
        click.echo(f"{drop(path, stream, priority, upto)} rows dropped")


@command.command("requeue")
@path_argument
@click.option(
    "--from",
    "others",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Take rows from this file. Default: from each PATH.damaged-N.",
)
def requeue(path: str, others: tuple[str, ...]) -> None:
    """Put rows back that an outbox lacks.

    A row that damage or `drop` has cost is put back at its number, if it is intact in one of the damaged
    files that were kept, or in a copy given with --from; those are only read. That helps where the disk can
    read again what it could not, or where there is a copy. Rows that were accepted stay away, and so does
    what was numbered for another source: the outbox that was salvaged from it has it under new numbers.
    """
    from nexus.boundaries.outbox._tend import damaged_beside, requeue

    with errors():
        found = list(others or damaged_beside(path))
        if not found:
            raise click.ClickException(f"there is no {path}.damaged-1; give a file with --from")
        for other in found:
            back, missing = requeue(path, other)
            click.echo(f"{said(ValueError(other))}: {back} rows put back, {missing} missing still")


@contextmanager
def errors() -> Iterator[None]:
    """Say what is wrong in one line."""
    from nexus.boundaries.outbox._schema import Broken, Trouble
    from nexus.errors import NexusError

    try:
        yield
    except Broken as exc:
        raise click.ClickException(
            f"it is damaged: {said(exc)}; the program that opens it next salvages what can be read"
        ) from exc
    except (NexusError, Trouble, sqlite3.Error, OSError) as exc:
        raise click.ClickException(said(exc)) from exc


def plain(lane: "LaneView") -> dict[str, Any]:
    """Make what `--json` prints of a lane."""
    return {
        "stream": lane.stream,
        "priority": lane.priority,
        "first": lane.first,
        "last": lane.last,
        "rows": lane.rows,
        "bytes": lane.size,
        "oldest": [
            {"number": number, "row": row.decode(errors="backslashreplace")} for number, row in lane.oldest
        ],
    }


def tell(path: str, view: "View") -> None:
    """Print an outbox for people."""
    from nexus.adapters._console_text import visible

    click.echo(f"{visible(path)}: source {visible(view.source) or 'unknown'}, opened {view.generation} times")
    for lane in view.lanes:
        where = f"{visible(repr(lane.stream))} priority {lane.priority}"
        span = (
            f"{lane.first} to {lane.last}" if lane.first <= lane.last else f"empty, next is {lane.last + 1}"
        )
        click.echo(f"  {where}: {lane.rows} rows, {lane.size} bytes, {span}")
        for number, row in lane.oldest:
            click.echo(f"    {number}: {visible(row.decode(errors='backslashreplace'))}")
    for source, priority, accepted in view.cursors:
        click.echo(f"  from {visible(source)} priority {priority}: accepted up to {accepted}")
    for hole in view.missing:
        where = f"{visible(repr(hole.stream))} priority {hole.priority}"
        click.echo(f"  missing: {where}: {hole.first} to {hole.last}")
    for kept in view.set_aside:
        click.echo(f"  kept: {visible(kept)}")
