"""`nexus record`: write what comes over a wire to a file, as it comes."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nexus.boundaries._recorder import Recorder

__all__ = ["command"]


@click.command("record")
@click.argument("url", metavar="URL")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many records.")
@click.option("--append", is_flag=True, help="Continue a recording.")
@click.option("--force", is_flag=True, help="Overwrite a file.")
@click.option(
    "--priority",
    metavar="RULE",
    help='A number or an expression, such as "-10 if temperature > 80 else 0". Default: 0.',
)
@click.option("--sync", is_flag=True, help="Make each batch durable before it is acknowledged.")
@click.option(
    "--sync-every",
    type=click.FloatRange(min=0.01),
    metavar="SECONDS",
    help="Make it durable so often. Default: at the end.",
)
@click.option("--plain", is_flag=True, help="Print a line a second, also on a terminal.")
def command(
    url: str,
    file: str,
    seconds: float | None,
    count: int | None,
    append: bool,
    force: bool,
    priority: str | None,
    sync: bool,
    sync_every: float | None,
    plain: bool,
) -> None:
    """Record what comes from a URL to a file.

    It records until SIGINT or SIGTERM. Every frame is kept as it came over the wire, with its time, topic and
    priority. Where the transport acknowledges, a frame is acknowledged when it is in the file. The file is
    readable by its owner alone.

    Exit status: 0, or 1 when the file or the transport fails; what is in the file then is whole.
    """
    import attrs

    from nexus.adapters._endpoint import Url, open_receiver
    from nexus.adapters.packing import bytes_unpacker
    from nexus.boundaries._recorder import Recorder
    from nexus.boundaries._recording_writer import open_recording
    from nexus.cli._options import log_to_stderr
    from nexus.errors import NexusError

    log_to_stderr("error")
    if append and force:
        raise click.UsageError("--append and --force exclude each other")
    try:
        address = Url.parse(url)
        packs = address.options.get("pack", ("json",))
        rest = {name: values for name, values in address.options.items() if name != "pack"}
        rank = ranked(priority, packs[-1])
        receiver = open_receiver(attrs.evolve(address, options=rest), unpacker=bytes_unpacker)
        about = {"url": str(address), "pack": packs[-1], "started": time.time_ns()}
        writer = open_recording(file, "append" if append else "force" if force else "new", about)
    except NexusError as exc:
        raise click.ClickException(told(exc)) from exc
    if writer.recovered:
        click.echo(f"{file}: {writer.recovered:,} bytes of an incomplete record were cut off", err=True)
    recorder = Recorder(
        receiver, writer, priority=rank, sync=sync, sync_interval=sync_every, count=count, seconds=seconds
    )
    failure: Exception | None = None
    try:
        asyncio.run(record(recorder, plain))
    except (NexusError, OSError) as exc:
        failure = exc
    finally:
        writer.close()
    click.echo(summary(recorder, file))
    if failure is not None:
        raise click.ClickException(f"{told(failure)}; the {recorder.written:,} records written are whole")


def ranked(rule: str | None, pack: str) -> Callable[[bytes, dict[str, Any]], int]:
    """Make what says how urgent a frame is."""
    from nexus.adapters.packing import packing
    from nexus.cli._options import rank_of

    if rule is None:
        return lambda payload, meta: 0
    evaluate, unpack = rank_of(rule), packing(pack)[1]

    def rank(payload: bytes, meta: dict[str, Any]) -> int:
        data, more = unpack(payload)
        return evaluate(data, {**meta, **more})

    return rank


async def record(recorder: "Recorder", plain: bool) -> None:
    """Record until told to stop, and show how it goes."""
    from nexus.cli._live import Links
    from nexus.cli._progress import progress
    from nexus.cli._signals import signals

    with progress(lambda: line(recorder), plain=plain) as live, signals(recorder.stop):
        recorder.receiver.on_link(Links(live.say))
        async with recorder.receiver:
            await recorder.run()


def line(recorder: "Recorder") -> tuple[int, str]:
    """Say how it goes: a number of which the rate is shown, and words."""
    return recorder.written, f"{recorder.written:,} records, {recorder.bytes:,} bytes"


def summary(recorder: "Recorder", file: str) -> str:
    """Say what was recorded."""
    counts = recorder.receiver.counts
    lines = [f"{file}: {recorder.written:,} records, {recorder.bytes:,} bytes"]
    lines += [f"bad frames ({why}): {count:,}" for why, count in counts.bad.items()]
    lines += [f"dropped ({why}): {count:,}" for why, count in counts.dropped.items()]
    if recorder.unranked:
        lines.append(f"without a priority by the rule, so 0: {recorder.unranked:,}")
    return "\n".join(lines)


def told(exc: BaseException) -> str:
    """Say what an error says, and of which file."""
    from nexus.cli._options import said

    name = exc.filename if isinstance(exc, OSError) else None
    return f"{name}: {said(exc)}" if name else said(exc)
