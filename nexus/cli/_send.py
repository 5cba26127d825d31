"""`nexus send`: send data to a URL."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any, BinaryIO

import click

from nexus.cli._options import PACKS, log_level, log_to_stderr, said

__all__ = ["command"]

WINDOW = 256
"""Items on their way at once."""

SAID = 20
"""Items of which it is said that they were not sent."""


@click.command("send")
@click.argument("url", metavar="URL")
@click.argument("data", metavar="[DATA]...", nargs=-1)
@click.option(
    "--pack", type=PACKS, help="How data becomes bytes. Default: the URL's, else the transport's own."
)
@click.option("--topic", help="Where to, for transports that have topics. Default: the URL's.")
@click.option("--priority", type=int, default=0, show_default=True, help="Lower goes sooner.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Items a second. Default: no limit."
)
@click.option("--file", type=click.File("rb", lazy=False), help="Send the lines of a file; - for the input.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds until an item must have been delivered.",
)
@log_level("error")
@click.pass_context
def command(
    ctx: click.Context,
    url: str,
    data: tuple[str, ...],
    pack: str | None,
    topic: str | None,
    priority: int,
    rate: float | None,
    file: BinaryIO | None,
    timeout: float,
    log_level: str,
) -> None:
    """Send data to a URL and wait until it is delivered.

    Without DATA each line of the standard input is sent. Data is JSON; with --pack text it is text, with
    --pack bytes it is bytes as they stand.

    Exit status: 0 when all was delivered, 1 when something was not, or the URL is wrong.
    """
    from nexus.adapters import open_sender
    from nexus.errors import NexusError, UnpackerError

    log_to_stderr(log_level)
    if data and file is not None:
        raise click.UsageError("DATA and --file exclude each other")
    try:
        sender = open_sender(url, pack=pack, flush_timeout=0.0)
        options = {} if topic is None else {"topic": topic}
        sending = Sending(sender, options, priority=priority, rate=rate, timeout=timeout)
    except NexusError as exc:
        raise click.ClickException(said(exc)) from exc
    items: list[Any] = []
    for number, each in enumerate(data, 1):
        try:
            items.append(sending.parse(each.encode(errors="surrogateescape")))
        except UnpackerError as exc:
            raise click.BadParameter(f"argument {number}: {said(exc)}; --pack text sends text") from exc
    try:
        asyncio.run(sending.run(arguments(items) if data else sending.lines(file or sys.stdin)))
    except NexusError as exc:
        raise click.ClickException(said(exc)) from exc
    click.echo(sending.summary(), err=True)
    ctx.exit(0 if sending.sent == sending.total else 1)


async def arguments(items: list[Any]) -> AsyncGenerator[tuple[str, Any], None]:
    """Give the arguments, each with what it is called."""
    for number, item in enumerate(items, 1):
        yield f"argument {number}", item


class Sending:
    """Sends items and keeps account.

    Args:
        sender: to be used by nobody else.
        options: the transport's own.
        priority: lower goes sooner.
        rate: items a second; None for no limit.
        timeout: seconds until an item must have been delivered.
    """

    def __init__(
        self, sender: Any, options: dict[str, Any], *, priority: int, rate: float | None, timeout: float
    ) -> None:
        from nexus.adapters.packing import bytes_unpacker, json_unpacker, packing, text_unpacker

        self.sender = sender
        self.sent = self.total = self.unsent = 0
        self._options = options
        self._priority = priority
        self._rate = rate
        self._timeout = timeout
        self._reading: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(WINDOW)
        own = {type(packing("text")[0]): text_unpacker, type(packing("bytes")[0]): bytes_unpacker}
        self._unpacker: Any = own.get(type(sender.packer), json_unpacker)

    def parse(self, line: bytes) -> Any:
        """Make data of what was typed.

        Raises:
            UnpackerError: it is none.
        """
        return self._unpacker(line)[0]

    async def lines(self, stream: Any) -> AsyncGenerator[tuple[str, Any], None]:
        """Give the data of each line, each with what it is called."""
        from nexus.adapters.console import ConsoleReceiver
        from nexus.adapters.packing import bytes_unpacker
        from nexus.errors import UnpackerError

        receiver = ConsoleReceiver[bytes](unpacker=bytes_unpacker, stream=stream)
        try:
            async with receiver:
                async for line, meta in receiver:
                    try:
                        yield f"line {meta['line']}", self.parse(line)
                    except UnpackerError as exc:
                        self.total += 1
                        self.not_sent(f"line {meta['line']}", said(exc))
        finally:
            for reason, count in receiver.counts.bad.items():
                self.total += count
                self.not_sent(f"{count} lines", f"of a wrong {reason}")

    async def run(self, items: AsyncGenerator[tuple[str, Any], None]) -> None:
        """Send all; a first signal ends the reading, a second one everything."""
        from nexus.cli._signals import signals

        def stop() -> None:
            if self._reading is not None:
                self._reading.cancel()

        try:
            with signals(stop):
                async with self.sender, asyncio.TaskGroup() as group:
                    self._reading = group.create_task(self.read(items, group), name="send.read")
        except asyncio.CancelledError:
            click.echo("interrupted", err=True)
        except ExceptionGroup as group_of_one:
            raise group_of_one.exceptions[0] from None

    async def read(self, items: AsyncGenerator[tuple[str, Any], None], group: asyncio.TaskGroup) -> None:
        """Begin to send one item after the other."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with contextlib.aclosing(items) as each:
            async for name, data in each:
                if self._rate is not None:
                    await asyncio.sleep(begin + self.total / self._rate - loop.time())
                await self._room.acquire()
                self.total += 1
                group.create_task(self.deliver(name, data), name=f"send.{name}")

    async def deliver(self, name: str, data: Any) -> None:
        """Send an item and wait until it is delivered."""
        from nexus.errors import NexusError

        try:
            async with asyncio.timeout(self._timeout):
                await self.sender.deliver(data, priority=self._priority, **self._options)
            self.sent += 1
        except TimeoutError:
            link = self.sender.link
            why = f": {link.error}" if link.error else ""
            self.not_sent(name, f"not delivered in {self._timeout:g} s, the link is {link.state}{why}")
            if self._reading is not None:
                self._reading.cancel()
        except NexusError as exc:
            self.not_sent(name, said(exc))
        finally:
            self._room.release()

    def not_sent(self, name: str, why: str) -> None:
        """Say what was not sent, and why; the first ones."""
        from nexus.cli._live import line_of

        self.unsent += 1
        if self.unsent <= SAID:
            click.echo(f"{name} was not sent: {line_of(why)}", err=True)
        if self.unsent == SAID:
            click.echo("what else was not sent is only counted", err=True)

    def summary(self) -> str:
        """Write what became of it."""
        from nexus.cli._live import line_of

        return f"sent {self.sent:,} of {self.total:,} to {line_of(self.sender.name)}"
