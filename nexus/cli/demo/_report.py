"""The summary in words."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._screen import duration

__all__ = ["report"]


def report(summary: dict[str, Any]) -> RenderableType:
    """Draw the summary for a terminal or a file of at least 80 columns."""
    made, handled = sum(summary["made"].values()), sum(summary["handled"].values())
    dropped = sum(sum(reasons.values()) for reasons in summary["dropped"].values())
    count = Text.assemble(
        (f"{made:,}", "bold"),
        " events made in ",
        f"{summary['seconds']:.1f} s: ",
        (f"{handled:,}", "bold"),
        " handled, ",
        (f"{dropped:,}", "bold"),
        " dropped by policy",
    )
    lines = [count]
    for kind, reasons in summary["dropped"].items():
        for reason, number in reasons.items():
            lines.append(Text(f"    {number:,} {kind}, {reason}"))
    return Group("", *lines, "", latencies(summary), "", comparison(summary), *checks(summary))


def latencies(summary: dict[str, Any]) -> RenderableType:
    """Say how long each kind took from the plant's source to control's handler."""
    drawn = small_table("source in plant to handler in control", "events", "median", "p99", "longest")
    for kind in summary["made"]:
        if (found := summary["latency"].get(kind)) is not None:
            row = (f"{found['count']:,}", *(duration(found[each]) for each in ("p50", "p99", "max")))
            drawn.add_row(kind, *row)
    return drawn


def comparison(summary: dict[str, Any]) -> RenderableType:
    """Set the nexus beside the FIFO queue."""
    same = summary["same_flood"]
    title = f"the same {same['events']:,} events of {same['seconds']:g} s, arrival to end"
    drawn = small_table(title, "events", "median", "p99", "longest")
    for queue, name in (("nexus", "nexus"), ("fifo", "FIFO queue")):
        for which in ("urgent", "bulk"):
            found = same[queue][which]
            row = (f"{found['count']:,}", *(duration(found[each]) for each in ("p50", "p99", "max")))
            drawn.add_row(f"{name}, {which}", *row, style="bold" if which == "urgent" else "")
    ratios = [same["urgent_p50_ratio"], same["urgent_p99_ratio"]]
    if None in ratios:
        return drawn
    words = "Through the FIFO queue urgent events take {:,.0f} times as long (p99: {:,.0f})."
    return Group(drawn, "", Text(words.format(*ratios), style="bold"), "")


def checks(summary: dict[str, Any]) -> list[Text]:
    """List what was compared and whether it agreed."""
    return [
        Text(f"{'✓' if agreed else '✗'} {what}", style="green" if agreed else "bold red")
        for what, agreed in summary["checks"].items()
    ]


def small_table(title: str, *columns: str) -> Table:
    """Make a table with a left column of names and right columns of figures."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    drawn.add_column(title, min_width=43)
    for column in columns:
        drawn.add_column(column, justify="right")
    return drawn
