"""`nexus demo`: two domains in two processes, fed by the real machine, joined over ZMQ."""

import sys
from importlib.util import find_spec
from pathlib import Path

import click
from click.core import ParameterSource

from ._congestion import command as congestion

__all__ = ["command"]

NEEDED = ("psutil", "rich")
"""What the extra `demo` brings."""


@click.group("demo", invoke_without_command=True)
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="How long it runs."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=8_000.0,
    show_default=True,
    help="Process readings a second to aim at.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the handlers' random work.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else.")
@click.option("--plain", is_flag=True, help="Print a line a second, as when the output is no terminal.")
@click.option("--capture", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
@click.pass_context
def command(
    ctx: click.Context,
    seconds: float,
    rate: float,
    seed: int,
    as_json: bool,
    plain: bool,
    capture: Path | None,
) -> None:
    """Watch urgent events overtake a flood.

    Two processes are started. The plant reads this machine (processors, memory, disks, networks, and every
    process, round and round) and makes an event of every figure: a flood of readings. Figures over a limit
    become alarms; so that there is something to see on an idle machine, the alarm line is also tested fifty
    times a second with the busiest process. Control handles alarms before readings. It works 50 to 250 us on
    each reading, so it cannot keep up, and a backlog stands in its queue for as long as the demo runs.

    The domains are joined by two ZMQ sockets on the loopback: one carries alarms and heartbeats, the other
    all readings, for in plain ZMQ nothing overtakes inside a pipe. The readings' pipe is kept short; what
    does not fit waits in the plant's queue. There readings are dropped: of each machine figure only the
    newest waits, and when their lane is full, the oldest of the process readings go. Alarms and heartbeats
    are never dropped.

    At the end, what arrived in control in the first seconds arrives once more, at the same pace, at a plain
    asyncio.Queue, where each event costs what it cost here. Then every count is compared with one that was
    kept apart from it.

    Latencies are from the creation of an event in the plant to its handler in control. Where both domains
    and libzmq's threads have to share two processors, most of an alarm's is the wait for a processor.

    Exit status: 0 when all counts agree, 1 when they do not or a domain was lost. Ctrl-C ends the flood
    early; a second one ends everything at once.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"nexus demo needs {' and '.join(missing)}: install the extra, pip install 'event-nexus[demo]'"
        )
    if ctx.invoked_subcommand is not None:
        given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"options of {ctx.invoked_subcommand} go behind it")
        return
    from ._conductor import Settings
    from ._play import Screen, play

    lines = plain or not sys.stdout.isatty()
    screen = Screen.NOTHING if as_json else Screen.LINES if lines else Screen.TABLE
    ctx.exit(play(Settings(seconds=seconds, rate=rate, seed=seed), screen, capture))


command.add_command(congestion)
