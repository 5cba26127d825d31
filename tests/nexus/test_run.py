"""run(): a nexus as a whole program, in a process of its own, ended by signals."""

import asyncio
import gc
import os
import re
import selectors
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nexus import AsyncEventNexus, Event, EventConverter, errors
from nexus.testing import assert_ledger_balanced

posix = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX sends them")

HEAD = """
import asyncio, signal, sys, time
from nexus import AsyncEventNexus, Event, EventProducer

class Feed(EventProducer):
    async def start(self):
        await super().start()
        for number in range(COUNT):
            await self.distribute_event(Event(number, "t", 0, None))
        print("fed", flush=True)

nexus = AsyncEventNexus(grace=30)
"""

TAIL = """
nexus.add_producer(Feed())
report = nexus.run()
print("stopped", len(report.remaining), report.clean, report.stats.balanced, report.stuck, flush=True)
"""


class Program:
    """A child process whose output is read line by line."""

    def __init__(self, body: str, count: int) -> None:
        source = HEAD.replace("COUNT", str(count)) + textwrap.dedent(body) + TAIL
        self.process = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.output = b""

    def expect(self, words: str, timeout: float = 30) -> str:
        """Wait for a line that contains the words, and return it."""
        assert self.process.stdout is not None
        until = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                *lines, self.output = self.output.split(b"\n")
                found = [place for place, line in enumerate(lines) if words in line.decode()]
                if found:
                    self.output = b"\n".join([*lines[found[0] + 1 :], self.output])
                    return lines[found[0]].decode()
                assert selector.select(max(0, until - time.monotonic())), f"no line with {words!r} came"
                more = os.read(self.process.stdout.fileno(), 65536)
                assert more, f"the program ended without {words!r}: {self.errors()}"
                self.output += more

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(timeout=30)


@contextmanager
def program(body: str, count: int = 3) -> Iterator[Program]:
    """Run a program that ends with the block."""
    child = Program(body, count)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.communicate()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program_gracefully(number: signal.Signals) -> None:
    """After SIGINT or SIGTERM what is queued is handled, run returns its report, and the status is 0."""
    body = """
        @nexus.on("t")
        async def handler(event):
            await asyncio.sleep(0.05)
    """
    with program(body, count=10) as child:
        child.expect("fed")
        child.send(number)
        assert child.expect("stopped") == "stopped 0 True True ()"
        assert child.wait() == 0


@posix
def test_second_signal_ends_a_hung_handler_at_once() -> None:
    """A handler that hangs holds up the first signal for the grace, and the second not at all."""
    body = """
        @nexus.on("t")
        async def handler(event):
            print("hung", flush=True)
            await asyncio.sleep(3600)
    """
    with program(body) as child:
        child.expect("hung")
        child.send(signal.SIGTERM)
        began = time.monotonic()
        child.send(signal.SIGINT)  # two signals of one kind may become one
        assert child.wait() != 0
        assert time.monotonic() - began < 5
        assert "KeyboardInterrupt" in child.errors()


@posix
def test_second_interrupt_breaks_into_a_busy_handler() -> None:
    """A handler that computes and never waits is interrupted by the second signal."""
    body = """
        @nexus.on("t")
        def handler(event):
            print("busy", flush=True)
            while True:
                pass
    """
    with program(body) as child:
        child.expect("busy")
        child.send(signal.SIGINT)
        child.send(signal.SIGTERM)  # two signals of one kind may become one
        assert child.wait() != 0
        assert "in handler" in child.errors()


@posix
def test_handler_that_swallows_cancellation_cannot_keep_the_program() -> None:
    """run ends within its bounds though a handler ignores its cancellation; the report names its task."""
    body = """
        nexus.grace = 0.1
        @nexus.on("t")
        async def handler(event):
            print("hung", flush=True)
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
    """
    with program(body) as child:
        child.expect("hung")
        child.send(signal.SIGTERM)
        assert re.match(r"stopped 3 False True \('nexus\[nexus\].drain',\)", child.expect("stopped"))
        assert child.wait() == 0


def one_event_and_stop(nexus: AsyncEventNexus) -> None:
    """Give the nexus a source whose one event stops it."""

    class One(EventConverter):
        async def event_generator(self):  # type: ignore[no-untyped-def]
            yield Event(1, "t", 0, None)
            nexus.stop()

    nexus.add_converter(One())
    nexus.add_handler("t", lambda event: None)


def test_run_returns_the_report_and_puts_everything_back() -> None:
    """run ends with the stop; signal handlers and the garbage collector are as before."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), gc.get_freeze_count()
    nexus = AsyncEventNexus()
    one_event_and_stop(nexus)
    report = nexus.run(freeze=False)
    assert report.clean
    assert_ledger_balanced(report.stats, ingested=1, handled=1)
    assert (
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        gc.get_freeze_count(),
    ) == before


def test_run_works_in_any_thread() -> None:
    """Outside the main thread run works without signals."""
    reports = []

    def work() -> None:
        nexus = AsyncEventNexus()
        one_event_and_stop(nexus)
        reports.append(nexus.run(freeze=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=20)
    assert [report.clean for report in reports] == [True]


def test_run_raises_what_made_the_nexus_fail() -> None:
    """With on_error="stop" run raises the handler's error."""
    nexus = AsyncEventNexus(on_error="stop")
    one_event_and_stop(nexus)
    nexus.remove_handler("t")
    nexus.add_handler("t", lambda event: {}[event.id])
    with pytest.raises(KeyError, match="1"):
        nexus.run(freeze=False)


async def test_run_inside_a_loop_is_refused() -> None:
    """run makes a loop of its own; inside another one it says what to do instead."""
    with pytest.raises(errors.BadCall, match="loop_forever"):
        AsyncEventNexus().run()


def test_nexus_runs_once() -> None:
    """A second run is refused, as a second start is."""
    nexus = AsyncEventNexus()
    one_event_and_stop(nexus)
    nexus.run(freeze=False)
    with pytest.raises(errors.InvalidLoopState):
        nexus.run(freeze=False)


def test_leftover_tasks_of_the_program_are_ended() -> None:
    """A task that a handler left behind is cancelled before run returns."""
    ended: list[bool] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    nexus = AsyncEventNexus()
    one_event_and_stop(nexus)
    nexus.remove_handler("t")
    kept: list[asyncio.Task[None]] = []
    nexus.add_handler("t", lambda event: kept.append(asyncio.create_task(linger(), name="lingers")))
    nexus.run(freeze=False)
    assert ended == [True]
    assert kept[0].cancelled()
