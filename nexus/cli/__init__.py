"""The `nexus` command: the top of the house, which imports the rest only when a command needs it."""

import importlib

import click

from nexus._version import __version__

__all__ = ["main"]

MODULES = {
    "bridge": "nexus.cli._bridge",
    "demo": "nexus.cli.demo",
    "graph": "nexus.cli._graph",
    "outbox": "nexus.cli._outbox",
    "record": "nexus.cli._record",
    "replay": "nexus.cli._replay",
    "run": "nexus.cli._run",
    "send": "nexus.cli._send",
    "tap": "nexus.cli._tap",
    "zmq-broker": "nexus.cli._zmq_broker",
}
"""Where each command is: a module with the click command as its attribute `command`."""


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        command = importlib.import_module(MODULES[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.command("nexus", cls=Commands)
@click.version_option(__version__, prog_name="nexus")
def main() -> None:
    """Run, draw and try event-nexus applications."""
