"""The `nexus` command: the top of the house, which imports the rest only when a command needs it."""

import click

from nexus._version import __version__

__all__ = ["main"]


@click.group()
@click.version_option(__version__, prog_name="nexus")
def main() -> None:
    """Run, draw and try event-nexus applications."""
