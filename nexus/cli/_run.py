"""`nexus run`: run the nexus a module holds or a file describes until a signal stops it."""

import os

import click

__all__ = ["command"]

CUT_SHORT = 75
"""Exit status when the grace period ended before the queue did: EX_TEMPFAIL of sysexits.h."""


@click.command("run")
@click.argument("target", metavar="MODULE:ATTRIBUTE|FILE.toml")
@click.option(
    "--grace", type=click.FloatRange(min=0), help="Seconds a stop may take. Default: the nexus's own."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option("--check", is_flag=True, help="Look for mistakes in a file, draw it, and run nothing.")
@click.option(
    "--watchdog",
    "period",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Log what every thread does when the event loop has not turned for so long. Default: 5 where a "
    "service manager sets NOTIFY_SOCKET, else not watched.",
)
@click.option("--abort", is_flag=True, help="End with status 70 then, after 5 s or those of --watchdog.")
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    grace: float | None,
    as_json: bool,
    check: bool,
    period: float | None,
    abort: bool,
) -> None:
    """Run a nexus until SIGINT or SIGTERM, then report.

    MODULE is imported with the current directory on the path; ATTRIBUTE is an AsyncEventNexus, or a plain or
    coroutine function that returns one. FILE.toml describes sources, rules and sinks; it runs until these
    have ended, too. The first signal stops its sources and drains its queue for as long as --grace allows; a
    second one ends it at once.

    Exit status: 0 after a clean stop, 75 when the grace period cut it short, 70 when --abort ended it, 2 when
    a file has mistakes.
    """
    from nexus import Watchdog
    from nexus.cli._mermaid import flowchart
    from nexus.cli._report import as_lines, as_object
    from nexus.cli._target import is_file, load

    notes: list[str] = []
    if is_file(target):
        from nexus.cli._configured import load_file

        made = load_file(target)
        domain = made.nexus
        if check:
            click.echo(flowchart(domain))
            return
    elif check:
        raise click.UsageError("--check is for a file, such as nexus.toml")
    else:
        made, domain = None, load(target)
    watched = period is not None or abort or "NOTIFY_SOCKET" in os.environ
    watchdog = Watchdog(period or 5.0, abort=abort) if watched else None
    report = domain.run(grace=grace, watchdog=watchdog)
    if made is not None and not as_json:
        notes = made.lines()
    click.echo(as_object(report) if as_json else "\n".join([as_lines(report), *notes]))
    ctx.exit(0 if report.clean else CUT_SHORT)
