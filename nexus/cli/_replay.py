"""`nexus replay`: send a recording again."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nexus.adapters._base import Sender
    from nexus.boundaries._recording import Recorded, Recording
    from nexus.boundaries._replay import Replay

__all__ = ["command"]

BATCH = 256
BATCH_BYTES = 4 * 2**20
"""What is read at a time."""


def speed_of(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Read a factor, or `max`."""
    if value == "max":
        return math.inf
    try:
        speed = float(value)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor max")
    return speed


def moment_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | datetime | None:
    """Read seconds since a recording began, or a date and time."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        return seconds
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a number of seconds nor a time such as 2026-03-01T12:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command("replay")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.argument("url", metavar="URL")
@click.option(
    "--speed", callback=speed_of, default="1", metavar="X", help="How many times as fast, or max. Default: 1."
)
@click.option(
    "--from",
    "begin",
    callback=moment_of,
    metavar="T",
    help="Leave out what came before: seconds since the begin, or a time (UTC unless it says otherwise).",
)
@click.option("--until", "end", callback=moment_of, metavar="T", help="Leave out what came then or later.")
@click.option("--loop", type=click.IntRange(min=0), default=1, metavar="N", help="How often; 0 for ever.")
@click.option("--filter", "where", metavar="EXPR", help="Send only what this is true for, such as level > 2.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the link.",
)
@click.option("--plain", is_flag=True, help="Print a line a second, also on a terminal.")
@click.pass_context
def command(
    ctx: click.Context,
    file: str,
    url: str,
    speed: float,
    begin: float | datetime | None,
    end: float | datetime | None,
    loop: int,
    where: str | None,
    wait: float,
    plain: bool,
) -> None:
    """Send a recording to a URL again.

    Frames go at the pace they were recorded, with their priorities and topics.

    Exit status: 0, or 1 when anything of the recording was damaged or was not sent.
    """
    import attrs

    from nexus.adapters._endpoint import Url, open_sender
    from nexus.adapters.packing import bytes_packer
    from nexus.boundaries._recording import Recording, RecordingError
    from nexus.boundaries._recording_writer import open_file
    from nexus.boundaries._replay import Replay
    from nexus.cli._options import log_to_stderr
    from nexus.cli._record import told
    from nexus.errors import NexusError

    log_to_stderr("error")
    try:
        stored = open_file(file)
    except OSError as exc:
        raise click.ClickException(told(exc)) from exc
    try:
        recording = Recording(stored)
        address = Url.parse(url)
        rest = {name: values for name, values in address.options.items() if name != "pack"}
        sender = open_sender(attrs.evolve(address, options=rest), packer=bytes_packer)
        replay = Replay(
            batches_of(recording),
            sender,
            speed=None if math.isinf(speed) else speed,
            begin=since_begin(begin, recording),
            end=since_begin(end, recording),
            rounds=loop,
            where=filtered(where, str(recording.header.about.get("pack", "json"))),
        )
        failure = asyncio.run(send(replay, sender, wait, plain))
    except RecordingError as exc:
        raise click.ClickException(f"{file}: {told(exc)}") from exc
    except (NexusError, OSError) as exc:
        raise click.ClickException(told(exc)) from exc
    finally:
        stored.close()
    click.echo(summary(replay, recording, sender))
    if failure:
        click.echo(failure, err=True)
    not_sent = sender.counts.items < replay.given or replay.refused
    ctx.exit(1 if failure or not_sent or recording.is_damaged else 0)


def batches_of(recording: "Recording") -> Callable[[], AsyncIterator[Sequence["Recorded"]]]:
    """Read a recording in a thread, some of it at a time."""
    from nexus.adapters._thread import Worker

    async def batches() -> AsyncIterator[Sequence["Recorded"]]:
        records = iter(recording)

        def some() -> list["Recorded"]:
            found: list[Recorded] = []
            size = 0
            for item in records:
                found.append(item)
                size += len(item.payload)
                if len(found) >= BATCH or size >= BATCH_BYTES:
                    break
            return found

        worker = Worker("replay")
        try:
            while batch := await worker.call(some):
                yield batch
        finally:
            worker.shutdown()

    return batches


def since_begin(moment: float | datetime | None, recording: "Recording") -> int | None:
    """Turn a moment into nanoseconds since the recording began."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        return round(moment * 1e9)
    started = recording.header.about.get("started")
    if not isinstance(started, int):
        raise click.ClickException(
            "the header of the recording is damaged, so only seconds say a moment of it"
        )
    return round(moment.timestamp() * 1e9) - started


def filtered(where: str | None, pack: str) -> Callable[[bytes, Mapping[str, Any]], object] | None:
    """Make what says whether a frame is to be sent."""
    from nexus.adapters.packing import packing
    from nexus.cli._options import expression_of

    evaluate = expression_of("--filter", where)
    if evaluate is None:
        return None
    unpack = packing(pack)[1]

    def takes(payload: bytes, meta: Mapping[str, Any]) -> object:
        data, more = unpack(payload)
        return evaluate(data, {**meta, **more})

    return takes


async def send(replay: "Replay", sender: "Sender[bytes]", wait: float, plain: bool) -> str | None:
    """Send until the end or a signal; return what went wrong."""
    from nexus.cli._live import Links, until
    from nexus.cli._progress import progress
    from nexus.errors import LinkDown

    is_done = False
    with progress(lambda: (replay.given, f"{replay.given:,} sent"), plain=plain) as live:
        sender.on_link(Links(live.say))
        async with sender:
            try:
                async with until(None):
                    await sender.connected(wait)
                    await replay.run()
                    is_done = True
            except LinkDown as exc:
                return str(exc)
    return None if is_done or not replay.rounds else "stopped before the end"


def summary(replay: "Replay", recording: "Recording", sender: "Sender[bytes]") -> str:
    """Say what was sent, and what not."""
    counts = sender.counts
    lost = replay.given - counts.items + replay.refused
    lines = [
        f"sent {counts.items:,}, left out {replay.left_out:,}, not sent {lost:,}, damaged {recording.lost:,}"
    ]
    if replay.failure:
        lines.append(f"the last that was refused: {replay.failure}")
    lines += [f"dropped ({why}): {count:,}" for why, count in counts.dropped.items()]
    if recording.skipped:
        lines.append(f"{recording.skipped:,} bytes between records are damaged and were skipped")
    if recording.cut:
        lines.append(f"{recording.cut:,} bytes at the end are an incomplete record")
    if recording.is_header_damaged:
        lines.append("the header is damaged")
    if replay.late >= 0.05:
        lines.append(f"the latest frame was {replay.late:.2f} s behind its time")
    return "\n".join(lines)
