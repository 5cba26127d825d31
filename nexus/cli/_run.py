"""`nexus run`: run the nexus a module holds until a signal stops it."""

import click

__all__ = ["command"]

CUT_SHORT = 75
"""Exit status when the grace period ended before the queue did: EX_TEMPFAIL of sysexits.h."""


@click.command("run")
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option(
    "--grace", type=click.FloatRange(min=0), help="Seconds a stop may take. Default: the nexus's own."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.pass_context
def command(ctx: click.Context, target: str, grace: float | None, as_json: bool) -> None:
    """Run a nexus until SIGINT or SIGTERM, then report.

    MODULE is imported with the current directory on the path; ATTRIBUTE is an AsyncEventNexus, or a plain or
    coroutine function that returns one. The first signal stops its sources and drains its queue for as long
    as --grace allows; a second one ends it at once.

    Exit status: 0 after a clean stop, 75 when the grace period cut it short.
    """
    from nexus.cli._report import as_lines, as_object
    from nexus.cli._target import load

    report = load(target).run(grace=grace)
    click.echo(as_object(report) if as_json else as_lines(report))
    ctx.exit(0 if report.clean else CUT_SHORT)
