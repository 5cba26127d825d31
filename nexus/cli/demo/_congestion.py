"""`nexus demo congestion`: the same flood over two slow lines, one with a link, side by side."""

import sys
from pathlib import Path

import click

__all__ = ["command"]


@click.command("congestion")
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="How long it runs."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=2e5, max=2e7),
    default=2e6,
    show_default=True,
    help="Bytes a second that each line carries.",
)
@click.option(
    "--target",
    type=click.FloatRange(min=1e-4, max=10.0),
    default=0.001,
    show_default=True,
    help="Seconds of delay that the link's window aims at.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else.")
@click.option("--plain", is_flag=True, help="Print a line a second, as when the output is no terminal.")
@click.option("--capture", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
@click.pass_context
def command(
    ctx: click.Context,
    seconds: float,
    rate: float,
    target: float,
    as_json: bool,
    plain: bool,
    capture: Path | None,
) -> None:
    """Watch alarms overtake a flood on a slow line.

    A plant makes readings of about 200 bytes as fast as they go, and an alarm twenty times a second. They go
    to control over a TCP connection that carries only so many bytes a second. The same is done twice at the
    same time, each in two processes and over a line of its own: once with a TcpSender and a TcpReceiver, once
    with a Link.

    The plain sender keeps priorities too, but only up to the socket: whatever the systems at both ends of the
    line take into their buffers goes before an alarm, and how much that is they decide. The link has only
    as much on its way as control has granted.

    Waiting times are from the making of an alarm in the plant to its handler in control. At the end
    everything under way arrives, and the ledgers of both sides are compared.

    Exit status: 0 when all counts agree, 1 when they do not or a process was lost. Ctrl-C ends the flood
    early.
    """
    lines = plain or not sys.stdout.isatty()
    from ._congestion_play import play
    from ._congestion_run import Congestion

    settings = Congestion(seconds=seconds, rate=rate, target=target)
    ctx.exit(play(settings, as_json=as_json, lines=lines, capture=capture))
