"""The watchdog: what it notices, whom it tells, and that it leaves nothing behind."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nexus import AsyncEventNexus, Event, EventProducer, Stall, Watchdog
from nexus._notify import Notifier
from nexus.errors import MisconfiguredEventProducer, MultipleStart
from nexus.testing import virtual_time

posix = pytest.mark.skipif(os.name != "posix", reason="there are no such sockets and signals elsewhere")
LIMIT = 20.0


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nexus.watchdog"]


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(LIMIT)

    def hear(self) -> str:
        return self.socket.recv(100).decode()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that asks for a sign of life within a fifth of a second."""
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    manager = Manager(address)
    yield manager
    manager.socket.close()


class Blocker(AsyncEventNexus):
    """A nexus whose handler of "block" blocks the loop until the watchdog has noticed."""

    def __init__(self) -> None:
        super().__init__(name="blocker")
        self.found: list[Stall] = []
        self.noticed = threading.Event()
        self.add_handler("block", self.hold_everything_up)

    def hold_everything_up(self, event: Event[None]) -> None:
        self.noticed.clear()
        assert self.noticed.wait(LIMIT)

    def note(self, stall: Stall) -> None:
        self.found.append(stall)
        self.noticed.set()


async def test_a_blocked_loop_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """The stall is counted, told and logged, with the stack of what blocks; each stall once."""
    nexus = Blocker()
    watchdog = Watchdog(0.05, on_stall=nexus.note)
    nexus.register(watchdog)
    async with nexus:
        for number in range(3):
            await nexus.ingest(Event(number, "block", 0, None))
            await nexus.drained()
    assert watchdog.stalls == len(nexus.found) == 3
    assert all(stall.seconds >= 0.05 and not stall.is_frozen for stall in nexus.found)
    assert all("hold_everything_up" in stall.stacks for stall in nexus.found)
    assert "in task nexus[blocker].drain" in nexus.found[0].stacks.splitlines()[0]
    said = [record for record in caplog.records if "has not turned" in record.getMessage()]
    assert len(said) >= 3
    assert "hold_everything_up" in said[0].getMessage()


async def test_a_loop_that_turns_is_left_alone() -> None:
    """A nexus that is idle, and one that is busy without blocking, is not told of."""
    nexus, watchdog = AsyncEventNexus(), Watchdog(0.5)
    nexus.register(watchdog)
    nexus.add_handler("t", lambda event: None)
    async with nexus:
        assert watchdog.is_watching
        await nexus.ingest_many([Event(number, "t", 0, None) for number in range(20_000)])
        await nexus.drained()
    assert watchdog.stalls == 0


async def test_it_goes_with_the_nexus() -> None:
    """It watches from the start to the end of the drain; no thread is left, and it may serve again."""
    watchdog = Watchdog()
    seen = []
    for _ in range(2):
        nexus = AsyncEventNexus()
        nexus.register(watchdog)
        nexus.add_handler("t", lambda event: seen.append((watchdog.is_watching, len(threads()))))
        async with nexus:
            await nexus.ingest(Event(1, "t", 0, None))
            nexus.stop(grace=5)
        assert not watchdog.is_watching
        assert threads() == []
    assert seen == [(True, 1), (True, 1)]


async def test_two_nexuses_of_a_loop_share_one() -> None:
    """It watches until the last of them has stopped."""
    one, other, watchdog = AsyncEventNexus(), AsyncEventNexus(), Watchdog()
    one.register(watchdog)
    other.register(watchdog)
    async with one:
        async with other:
            assert len(threads()) == 1
        assert watchdog.is_watching
    assert not watchdog.is_watching


async def test_misuse_is_told() -> None:
    """It is started by a nexus, once."""
    watchdog, nexus = Watchdog(), AsyncEventNexus()
    with pytest.raises(MisconfiguredEventProducer):
        await watchdog.start()
    nexus.register(watchdog)
    async with nexus:
        with pytest.raises(MultipleStart):
            await watchdog.start()
    for period in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="more than 0"):
            Watchdog(period)


def test_a_listener_that_waits_is_refused() -> None:
    """The thread has no loop that could run it."""

    async def on_stall(stall: object) -> None: ...

    with pytest.raises(TypeError, match=r"called on a thread and not awaited, .*on_stall.* is async"):
        Watchdog(on_stall=on_stall)


@virtual_time
async def test_virtual_time_is_not_watched() -> None:
    """In a loop that skips time there is no thread, and a day passes as ever."""
    nexus, watchdog = AsyncEventNexus(), Watchdog(1)
    nexus.register(watchdog)
    async with nexus:
        await asyncio.sleep(86_400)
        assert not watchdog.is_watching
        assert threads() == []
    assert watchdog.stalls == 0


async def test_a_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What on_stall raises ends nothing."""
    nexus = Blocker()

    def fail(stall: Stall) -> None:
        nexus.note(stall)
        raise ValueError("of the callback")

    nexus.register(watchdog := Watchdog(0.05, on_stall=fail))
    async with nexus:
        for number in range(2):
            await nexus.ingest(Event(number, "block", 0, None))
            await nexus.drained()
    assert watchdog.stalls == 2
    assert "on_stall failed" in caplog.text


class Late(EventProducer):
    """A source that starts when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def start(self) -> None:
        await super().start()
        await self.may.wait()


@posix
async def test_a_service_manager_hears_of_it(manager: Manager) -> None:
    """READY=1 once all sources have started, WATCHDOG=1 again and again before and after, STOPPING=1 last."""
    nexus, late = AsyncEventNexus(), Late()
    nexus.register(Watchdog())
    nexus.register(late)
    nexus.start()
    hear = asyncio.to_thread
    assert [await hear(manager.hear) for _ in range(3)] == ["WATCHDOG=1"] * 3
    late.may.set()
    heard = [await hear(manager.hear) for _ in range(6)]
    assert heard.count("READY=1") == 1
    await nexus.stop()
    manager.socket.setblocking(False)
    rest = []
    while True:
        try:
            rest.append(manager.hear())
        except BlockingIOError:
            break
    assert rest.count("STOPPING=1") == 1
    assert set(rest) <= {"STOPPING=1", "WATCHDOG=1"}


@posix
async def test_a_blocked_loop_gives_no_sign_of_life(manager: Manager) -> None:
    """While the loop stands still there is at most the one WATCHDOG=1 that was on its way."""
    nexus, heard = AsyncEventNexus(), []
    nexus.register(Watchdog())

    def block(event: Event[None]) -> None:
        until = time.monotonic() + 1
        while (left := until - time.monotonic()) > 0:
            manager.socket.settimeout(left)
            try:
                heard.append(manager.hear())
            except TimeoutError:
                return

    nexus.add_handler("block", block)
    async with nexus:
        assert [await asyncio.to_thread(manager.hear) for _ in range(3)].count("READY=1") == 1
        await nexus.ingest(Event(1, "block", 0, None))
        await nexus.drained()
    assert len(heard) <= 1


@posix
def test_what_the_variables_say(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Only this process's watchdog counts; an @ stands for an abstract name; nobody there is said once."""
    caplog.set_level(logging.WARNING)  # a command run in this process may have chosen another
    here = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "3000000"}
    assert Notifier(here).interval == 3.0
    assert Notifier({**here, "WATCHDOG_PID": str(os.getpid())}).interval == 3.0
    assert Notifier({**here, "WATCHDOG_PID": "1"}).interval is None
    assert Notifier({**here, "WATCHDOG_USEC": "soon"}).interval is None
    assert Notifier({"WATCHDOG_USEC": "3000000"}).interval is None
    assert not Notifier({"NOTIFY_SOCKET": "vsock:1:2"}).is_wanted
    notifier = Notifier(here)
    notifier.tell("READY=1")
    notifier.tell("STOPPING=1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    if sys.platform == "linux":
        manager = Manager(f"\0nexus-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@nexus-{os.getpid()}"}).tell("READY=1")
        assert manager.hear() == "READY=1"
        manager.socket.close()


PROGRAM = """
import asyncio, logging
from nexus import AsyncEventNexus, Event, EventProducer, Watchdog

class Feed(EventProducer):
    async def start(self):
        await super().start()
        # By then the sources have been started, and the watchdog has seen it.
        asyncio.get_running_loop().call_later(0.5, lambda: print("ready", flush=True))
        if HOW:
            await self.distribute_event(Event(1, "block", 0, None))

def block(event):
    if HOW == "log":
        logging.getLogger().handlers[0].acquire()
    while True:
        pass

logging.basicConfig()
nexus = AsyncEventNexus()
nexus.register(Feed())
nexus.add_handler("block", block)
nexus.run(watchdog=Watchdog(0.2, abort=True))
"""


@contextmanager
def run(how: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the program, and see that it is gone at the end."""
    source = PROGRAM.replace("HOW", repr(how))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", source], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_abort_ends_the_process() -> None:
    """With abort a process whose loop is blocked ends with status 70, and says where it was."""
    with run("cpu") as process:
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 70
    assert "in block" in said
    assert "ends the process" in said


def test_a_log_that_blocks_does_not_keep_it() -> None:
    """Where even the log is blocked it ends too, and the stacks are on the standard error."""
    with run("log") as process:
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "in block" in said


@posix
def test_a_process_that_was_stopped_is_not_ended() -> None:
    """Stopped and continued, a process notices that it stood still, and goes on: its loop was not blocked."""
    with run("") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            pass
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        assert "the process stood still for" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0


APP = """
import asyncio, time, nexus
domain = nexus.AsyncEventNexus()
domain.add_producer(nexus.Timer(0.01, event_type="tick", type=nexus.Timer.COUNT_UP, count=1))

@domain.on("tick")
def tick(event):
    while True:
        time.sleep(1)
"""


def test_the_command_watches(tmp_path: Path) -> None:
    """`nexus run --watchdog --abort` ends a program that hangs."""
    (tmp_path / "app.py").write_text(APP)
    command = (sys.executable, "-m", "nexus.cli", "run", "app:domain", "--watchdog", "0.2", "--abort")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 70
    assert "in tick" in done.stderr


@posix
def test_the_command_tells_a_service_manager(tmp_path: Path, manager: Manager) -> None:
    """Where NOTIFY_SOCKET is set, `nexus run` tells when it is ready and when it stops."""
    (tmp_path / "app.py").write_text("import nexus\ndomain = nexus.AsyncEventNexus()\n")
    command = (sys.executable, "-m", "nexus.cli", "run", "app:domain")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        try:
            while manager.hear() != "READY=1":
                pass
            process.send_signal(signal.SIGTERM)
            while manager.hear() != "STOPPING=1":
                pass
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
