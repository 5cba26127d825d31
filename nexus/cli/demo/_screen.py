"""The live picture: a table on a terminal, one line a second elsewhere."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._view import View

__all__ = ["duration", "line", "table"]


def duration(seconds: float | None) -> str:
    """Write a time with three digits and its unit; a dash for None."""
    if seconds is None:
        return "-"
    if seconds >= 0.9995:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 0.0009995 else f"{seconds * 1e6:.0f} µs"


def line(view: View) -> str:
    """Write the picture as one line of plain text."""
    parts = [
        f"{row.kind} [{row.priority}] {row.handled_rate:,.0f}/s of {row.made_rate:,.0f}/s, "
        f"queued {row.queued_in_plant}+{row.queued_in_control}, "
        f"p50 {duration(row.median)}, p99 {duration(row.p99)}, dropped {row.dropped:,}"
        for row in view.rows
    ]
    return f"{view.elapsed:.1f} s | " + " | ".join(parts)


def table(view: View) -> RenderableType:
    """Draw the picture for a terminal of at least 80 columns."""
    head = Text.assemble(
        ("plant", "bold"),
        f" (pid {view.plant_pid}) ",
        ("── ZMQ ──▶ ", "cyan"),
        ("control", "bold"),
        f" (pid {view.control_pid})   ",
        (f"{view.elapsed:.1f} s", "bold"),
        f" of {view.seconds:g} s",
    )
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    drawn.add_column("event", no_wrap=True)
    titles = ("prio", "made\n/s", "handled\n/s", "queued\nplant", "queued\ncontrol")
    for title in (*titles, "latency\nmedian", "latency\np99", "dropped\nby plant"):
        drawn.add_column(title, justify="right", no_wrap=True)
    for row in view.rows:
        drawn.add_row(
            row.kind,
            str(row.priority),
            f"{row.made_rate:,.0f}",
            f"{row.handled_rate:,.0f}",
            f"{row.queued_in_plant:,}",
            f"{row.queued_in_control:,}",
            duration(row.median),
            duration(row.p99),
            f"{row.dropped:,}",
            style="bold red" if row.priority < 0 else "",
        )
    policies = ", ".join(f"{row.kind} {row.policy}" for row in view.rows if row.policy != "Block")
    alarm = Text.assemble(
        ("last alarm  ", "dim"), view.alarm or "none yet", no_wrap=True, overflow="ellipsis"
    )
    notes = (
        "latency: from its source in the plant to its handler in control",
        f"policies: {policies}, others Block",
    )
    return Group(head, "", drawn, "", alarm, *(Text(note, style="dim") for note in notes))
