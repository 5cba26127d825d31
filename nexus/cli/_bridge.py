"""`nexus bridge`: pass on what comes from one URL to another one, by priority."""

import asyncio
from typing import Any

import click

from nexus.cli._options import expression_of, log_level, log_to_stderr, plain, rank_of, said, seconds

__all__ = ["command"]

CUT_SHORT = 75
"""Exit status when the grace period ended before the queue did: EX_TEMPFAIL of sysexits.h."""

POLICIES = ("block", "drop_oldest", "drop_newest", "latest")


@click.command("bridge")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--type", "type_", default="item", show_default=True, help="Type of the events.")
@click.option(
    "--priority",
    metavar="RULE",
    default="0",
    show_default=True,
    help='A number or an expression, such as "-10 if temperature > 80 else 0"; lower goes sooner.',
)
@click.option("--filter", "where", metavar="EXPR", help='What to pass on, such as "temperature > 80".')
@click.option(
    "--topic",
    metavar="T|=EXPR",
    help="Where to; after = an expression, such as \"='copy/' + topic\". Default: the URL's, else the "
    "source's.",
)
@click.option("--payload", metavar="EXPR", help="What to send, such as \"{'t': temperature}\". Default: all.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second. Default: no limit."
)
@click.option(
    "--policy",
    metavar="POLICY",
    default="block",
    show_default=True,
    help="When the queue is full: block, drop_oldest, drop_newest; latest[:EXPR] keeps only the latest of "
    "each topic, or of each value of the expression.",
)
@click.option(
    "--maxsize",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Events a priority holds.",
)
@click.option(
    "--confirm/--no-confirm",
    default=True,
    show_default=True,
    help="Acknowledge at the source when the destination has it, or when it is on its way.",
)
@click.option(
    "--grace", type=click.FloatRange(min=0), default=5.0, show_default=True, help="Seconds a stop may take."
)
@click.option("--json", "as_lines", is_flag=True, help="Print a line of JSON a second, and one at the end.")
@plain
@seconds
@log_level("warning")
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    destination: str,
    type_: str,
    priority: str,
    where: str | None,
    topic: str | None,
    payload: str | None,
    rate: float | None,
    policy: str,
    maxsize: int,
    confirm: bool,
    grace: float,
    as_lines: bool,
    plain: bool,
    seconds: float | None,
    log_level: str,
) -> None:
    """Pass on what comes from one URL to another one.

    It ends with the source, or by SIGINT or SIGTERM. What waits goes by priority. Unless --no-confirm, and
    where SRC acknowledges, an item is acknowledged when DST has it: what was on its way when the bridge died
    comes again, and nothing is lost.

    Exit status: 0; 75 when the grace period cut the stop short; 1 when a URL is wrong, a link has failed for
    good, or what went in and what came out do not add up.
    """
    from nexus.adapters import open_receiver, open_sender
    from nexus.cli._bridging import Bridge, Conversion
    from nexus.errors import NexusError

    log_to_stderr(log_level)
    # What is sent there is the output, and nothing may come in between.
    to_console = destination.lower().startswith("console:")
    conversion = Conversion(
        type=type_,
        priority=rank_of(priority),
        where=expression_of("--filter", where),
        payload=expression_of("--payload", payload),
        topic=expression_of("--topic", topic[1:]) if topic and topic.startswith("=") else topic,
        key=key_of(policy),
    )
    try:
        bridge = Bridge(
            open_receiver(source),
            open_sender(destination),
            conversion,
            policy=policy.partition(":")[0],
            rate=rate,
            maxsize=maxsize,
            confirm=confirm,
            plain=plain or to_console,
            as_lines=as_lines,
        )
        report = asyncio.run(bridge.run(seconds, grace))
    except NexusError as exc:
        raise click.ClickException(said(exc)) from exc
    click.echo(bridge.final(report), err=to_console)
    wrong = bridge.links.failed is not None or not bridge.is_balanced(report)
    ctx.exit(1 if wrong else 0 if report.clean else CUT_SHORT)


def key_of(policy: str) -> Any:
    """Return what makes two items the same thing for the policy; None where it does not matter.

    Raises:
        click.BadParameter: there is no such policy.
    """
    name, colon, text = policy.partition(":")
    if name not in POLICIES or (colon and name != "latest"):
        raise click.BadParameter(
            f"found {ascii(policy)[:100]}, allowed: block, drop_oldest, drop_newest, latest or latest:EXPR",
            param_hint="--policy",
        )
    if name != "latest":
        return None
    return expression_of("--policy", text) if colon else lambda data, meta: meta.get("topic")
