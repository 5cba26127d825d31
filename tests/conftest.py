"""What holds for every test: nothing is left behind, and the event loop has nothing to complain of.

A test fails when, after its fixtures are gone, it leaves a task, a thread, a socket or a pipe behind, or when
the asyncio logger reported an error ("was never retrieved", "was destroyed but it is pending"). asyncio's
debug mode is on for every async test (`asyncio_debug` in setup.cfg).
"""

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Generator

import hypothesis
import pytest

GRACE = 2.0
"""Seconds a library may take to let go of what was closed: libzmq closes its sockets on its own thread."""

PROCESS_WIDE_THREADS = ("GarbageCollectorThread",)
"""Classes of threads that a library starts once and keeps: pyzmq's keeper of buffers in flight."""

hypothesis.settings.register_profile("laws", deadline=None, print_blob=True)
hypothesis.settings.load_profile("laws")

Held = dict[object, str]
"""What the process holds: a key that is never used twice, and how to name the thing to a reader."""

before_test = pytest.StashKey[Held]()
shared = pytest.StashKey[Held]()


def held() -> Held:
    """List the threads, sockets and pipes that the process holds now."""
    found: Held = {
        thread: f"thread {thread.name}"
        for thread in threading.enumerate()
        if type(thread).__name__ not in PROCESS_WIDE_THREADS
    }
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # listdir's own descriptor, closed by now
        if target.startswith(("socket:", "pipe:")):
            found[target] = f"{target} (descriptor {fd})"
    return found


class Complaints(logging.Handler):
    """Keep the errors that asyncio logs: every loop's default exception handler logs there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set what is loaded aside, so that collecting garbage after every test costs a millisecond."""
    session.stash[shared] = {}
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Remember what a fixture of a wider scope opened: it outlives the test that asked first."""
    if fixturedef.scope == "function":
        return (yield)
    before = held()
    result = yield
    request.session.stash[shared] |= {key: name for key, name in held().items() if key not in before}
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember what was held before the test."""
    item.stash[before_test] = held()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test if, after its fixtures are gone, it still holds what it did not hold before."""
    result = yield
    allowed = item.stash[before_test].keys() | item.session.stash[shared].keys()
    until = time.monotonic() + GRACE
    while left := [name for key, name in held().items() if key not in allowed]:
        if time.monotonic() > until:
            pytest.fail(f"left behind: {', '.join(left)}", pytrace=False)
        time.sleep(0.005)
    return result


@pytest.fixture(autouse=True)
def no_complaints() -> Generator[None]:
    """Fail the test if asyncio logged an error during it or when its garbage was collected."""
    complaints = Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield
    gc.collect()
    logger.removeHandler(complaints)
    if complaints.messages:
        pytest.fail("asyncio reported:\n" + "\n".join(complaints.messages), pytrace=False)


@pytest.fixture(autouse=True)
def no_tasks_left(request: pytest.FixtureRequest) -> None:
    """Watch the loop of every async test; a plain test has none."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("watched_loop")


@pytest.fixture
async def watched_loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Fail the test if one of its tasks is still there at its end."""
    loop = asyncio.get_running_loop()
    yield loop
    # A task that was cancelled or has had its result set ends within a few turns of the loop.
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        pytest.fail("tasks left behind: " + ", ".join(map(repr, left)), pytrace=False)
