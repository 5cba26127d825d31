"""`nexus graph`: draw the nexus a module holds or a file describes as a Mermaid flow chart."""

import click

__all__ = ["command"]


@click.command("graph")
@click.argument("target", metavar="MODULE:ATTRIBUTE|FILE.toml")
def command(target: str) -> None:
    """Print a nexus as a Mermaid flow chart.

    MODULE is imported with the current directory on the path; ATTRIBUTE is an AsyncEventNexus, or a plain or
    coroutine function that returns one. FILE.toml describes sources, rules and sinks. Sources stand on the
    left, then the queue, the filters, and the handler of each type; a boundary leads on to the nexuses behind
    it.
    """
    from nexus.cli._mermaid import flowchart
    from nexus.cli._target import load

    click.echo(flowchart(load(target)))
