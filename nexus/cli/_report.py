"""What `nexus run` says at the end: the ledger and what a stop left behind."""

import orjson

from nexus import StopReport

__all__ = ["as_lines", "as_object"]


def as_lines(report: StopReport) -> str:
    """Write the report for people."""
    stats = report.stats
    lines = [
        f"stopped {'cleanly' if report.clean else 'at the end of the grace period'}: "
        f"{report.handled_during_stop:,} events handled while stopping, {len(report.remaining):,} left"
        + (f", {report.spilled:,} on the disk" if report.spilled else ""),
        f"ingested {stats.ingested:,} = handled {stats.handled:,} + failed {stats.failed:,} "
        f"+ unhandled {stats.unhandled:,} + expired {stats.expired:,} + dropped {stats.dropped:,} "
        f"+ queued {stats.queued:,}",
    ]
    for key, counts in stats.types.items():
        lines += [f"dropped {number:,} of type {key}: {reason}" for reason, number in counts.drops.items()]
    lines += [f"would not end: {name}" for name in report.stuck]
    if not stats.balanced:
        lines.append("the ledger does not balance")
    return "\n".join(lines)


def as_object(report: StopReport) -> bytes:
    """Write the report as one JSON object."""
    content = {
        "clean": report.clean,
        "handled_during_stop": report.handled_during_stop,
        "remaining": len(report.remaining),
        "spilled": report.spilled,
        "stuck": report.stuck,
        "stats": report.stats.as_dict(),
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)
