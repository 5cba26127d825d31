"""`nexus tap`: look at what comes from a URL."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from nexus.cli._options import PACKS, expression_of, log_level, log_to_stderr, plain, said, seconds

__all__ = ["command"]

SIZE = "frame_size"
"""Where the size of a frame stands in the meta, for the time being."""


@click.command("tap")
@click.argument("url", metavar="URL")
@click.option(
    "--pack", type=PACKS, help="How bytes become data. Default: the URL's, else the transport's own."
)
@click.option("--json", "as_lines", is_flag=True, help="Print a line of JSON for each item.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many items.")
@seconds
@click.option("--filter", "where", metavar="EXPR", help='What to show, such as "temperature > 80".')
@plain
@log_level("error")
@click.pass_context
def command(
    ctx: click.Context,
    url: str,
    pack: str | None,
    as_lines: bool,
    count: int | None,
    seconds: float | None,
    where: str | None,
    plain: bool,
    log_level: str,
) -> None:
    """Show what comes from a URL, until SIGINT or SIGTERM.

    Each line has the time, the topic or peer, the size, items and bytes of the last second, and the data. How
    the link stands, and the summary at the end, go to the standard error. What a tap takes from a queue, such
    as zmq+pull or a serial port, nobody else gets.

    Exit status: 0, or 1 when the URL is wrong or the link has failed for good.
    """
    from nexus.adapters import open_receiver
    from nexus.errors import NexusError

    log_to_stderr(log_level)
    chosen = expression_of("--filter", where)
    try:
        receiver = open_receiver(url, pack=pack)
        tap = Tap(receiver, chosen, as_lines=as_lines, count=count, plain=plain)
        asyncio.run(tap.run(seconds))
    except NexusError as exc:
        raise click.ClickException(said(exc)) from exc
    ctx.exit(1 if tap.links.failed else 0)


class Tap:
    """Shows what a receiver gives.

    Args:
        receiver: to be used by nobody else.
        chosen: says what to show; None for all.
        as_lines: JSON in place of words.
        count: items to show; None for no limit.
        plain: without a status line.
    """

    def __init__(
        self,
        receiver: Any,
        chosen: Callable[[Any, Any], Any] | None,
        *,
        as_lines: bool = False,
        count: int | None = None,
        plain: bool = False,
    ) -> None:
        from nexus.cli._live import Links, Live, Meter

        self.receiver = receiver
        self.live = Live(self.status, plain=plain or as_lines)
        self.links = Links(self.live.say)
        self.meter = Meter(time.monotonic)
        self.left_out = self.shown = self.unfit = 0
        self._chosen = chosen
        self._as_lines = as_lines
        self._count = count
        self._bad = 0
        unpacker = receiver.unpacker

        def sized(payload: bytes) -> tuple[Any, dict[str, Any]]:
            data, meta = unpacker(payload)
            return data, {**(meta or {}), SIZE: len(payload)}

        receiver.unpacker = sized
        receiver.on_bad = self.bad
        receiver.on_link(self.links)

    async def run(self, seconds: float | None) -> None:
        """Show items until the end.

        Raises:
            OpenError: something on this machine cannot be opened.
        """
        from nexus.cli._live import until
        from nexus.errors import EndOfData, LinkDown

        with self.live:
            await self.receiver.start()
            try:
                async with until(seconds):
                    while self._count is None or self.shown < self._count:
                        limit = 256 if self._count is None else min(256, self._count - self.shown)
                        self.show(await self.receiver.receive_many(limit))
            except EndOfData:
                pass
            except LinkDown:
                if self.links.failed is None:
                    raise
            finally:
                await self.receiver.stop()
                self.live.end()
                self.live.say(self.summary())

    def show(self, items: list[tuple[Any, dict[str, Any]]]) -> None:
        """Print items, those that are chosen."""
        sizes = [meta.pop(SIZE) for _, meta in items]
        self.meter.add(len(items), sum(sizes))
        now, rates = time.time(), self.meter.rates()
        lines = []
        for (data, meta), size in zip(items, sizes, strict=True):
            if self.chosen(data, meta):
                lines.append(self.line(now, rates, size, data, meta))
        self.shown += len(lines)
        self.live.print(lines)

    def chosen(self, data: Any, meta: dict[str, Any]) -> bool:
        """Say whether to show an item; one that the expression does not fit is left out, and counted."""
        if self._chosen is None:
            return True
        try:
            if self._chosen(data, meta):
                return True
            self.left_out += 1
        except Exception as exc:
            self.unfit += 1
            if self.unfit & (self.unfit - 1) == 0:
                self.live.say(
                    f"the filter did not fit ({self.unfit:,} so far): {type(exc).__name__}: {said(exc)}"
                )
        return False

    def line(self, now: float, rates: tuple[int, int], size: int, data: Any, meta: dict[str, Any]) -> str:
        """Write an item."""
        from nexus.cli._live import as_json, as_text

        if self._as_lines:
            return as_json({"time": now, "meta": plain_meta(meta), "size": size, "data": data})
        return self.columns(now, rates, size, as_text(data), meta)

    def columns(self, now: float, rates: tuple[int, int], size: int, text: str, meta: dict[str, Any]) -> str:
        """Write the columns of a line."""
        from nexus.cli._live import line_of, shortened, size_of, width

        where = shortened(line_of(str(meta.get("topic") or meta.get("peer") or self.receiver.name)), 30)
        clock = datetime.fromtimestamp(now).isoformat("T", "milliseconds")[11:]
        head = f"{clock}  {where:<20}  {size_of(size):>7} {rates[0]:>6,}/s {size_of(rates[1]):>7}/s  "
        return head + shortened(text, max(20, width() - len(head)))

    def bad(self, error: Any) -> None:
        """Print a bad frame."""
        from nexus.cli._live import as_json

        now, size = time.time(), len(error.payload)
        self._bad += 1
        self.meter.add(1, size)
        if self._as_lines:
            payload = (
                error.payload
                if isinstance(error.payload, bytes)
                else bytes(error.payload, "utf-8", "replace")
            )
            meta = plain_meta(error.meta)
            line = as_json({"time": now, "meta": meta, "size": size, "bad": error.why, "payload": payload})
        else:
            text = f"BAD ({self._bad:,} so far) {said(error)}"
            line = self.columns(now, self.meter.rates(), size, text, error.meta)
        self.live.print([line])

    def status(self) -> str:
        """Write how it goes."""
        from nexus.cli._live import line_of, size_of

        items, size = self.meter.rates()
        link = self.receiver.link
        why = f", {link.error}" if link.error else ""
        return line_of(f"{items:,}/s  {size_of(size)}/s  {self.summary()}  link {link.state}{why}")

    def summary(self) -> str:
        """Write what has come."""
        from nexus.cli._live import by_reason

        counts = self.receiver.counts
        text = f"received {counts.items:,}, bad {by_reason(counts.bad)}, dropped {by_reason(counts.dropped)}"
        if self._chosen is not None:
            text += f", filtered out {self.left_out:,}, not fit for the filter {self.unfit:,}"
        return text


def plain_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a transport keeps in the meta for itself."""
    kinds = (str, int, float, bytes, list, tuple, dict)
    return {
        key: value
        for key, value in meta.items()
        if key != SIZE and (value is None or isinstance(value, kinds))
    }
