"""Laws of the virtual-time loop: its clock, its order, and the world outside it."""

import asyncio
import logging
import random
import selectors
import socket
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from nexus.testing import DeadlockError, TimeLimitError, VirtualTimeLoop, run

DAY = 24 * 3600


def now() -> float:
    """Read the running loop's clock."""
    return asyncio.get_running_loop().time()


def test_time_starts_at_zero_or_as_given() -> None:
    """The clock starts at 0.0 or at the given moment."""

    async def main() -> float:
        return now()

    assert run(main()) == 0.0
    assert run(main(), start=1e9) == 1e9


@pytest.mark.parametrize("start", [-1.0, float("inf"), float("nan")])
def test_start_is_a_finite_moment(start: float) -> None:
    """A clock that could not be added to is refused."""
    with pytest.raises(ValueError, match="finite"):
        VirtualTimeLoop(start)


@pytest.mark.parametrize("start", [0.0, 0.1, 12345.678, 1e9])
def test_clock_lands_on_the_timers_moment(start: float) -> None:
    """When a timer runs, the clock reads its moment to the last bit."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []

        def note(when: float) -> None:
            seen.append((when, loop.time()))

        for when in (start + 0.1, start + 0.3, start + 7.7):
            loop.call_at(when, note, when)
        await asyncio.sleep(10)
        assert [asked == read for asked, read in seen] == [True] * 3

    run(main(), start=start)


async def sleeps() -> None:
    """Wait by sleep."""
    await asyncio.sleep(3.5)


async def times_out() -> None:
    """Wait by the end of a timeout."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.5):
            await asyncio.Event().wait()


async def waits_for() -> None:
    """Wait by wait_for."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 3.5)


async def calls_at() -> None:
    """Wait by call_at."""
    loop = asyncio.get_running_loop()
    called = loop.create_future()
    loop.call_at(loop.time() + 3.5, called.set_result, None)
    await called


@pytest.mark.parametrize("wait", [sleeps, times_out, waits_for, calls_at])
@pytest.mark.parametrize("debug", [False, True])
def test_waiting_takes_virtual_time(wait: Callable[[], Awaitable[None]], debug: bool) -> None:
    """Every way of asyncio to wait moves the virtual clock by what was asked, in debug mode too."""

    async def main() -> float:
        await wait()
        return now()

    assert run(main(), debug=debug) == 3.5


def test_equal_moments_keep_their_order() -> None:
    """Timers due at one moment run in the order they were set, however many there are."""
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(200):
            loop.call_at(5.0, ran.append, number)
            loop.call_at(1.0 + number % 3, lambda: None)
        await asyncio.sleep(6)

    run(main())
    assert ran == list(range(200))


def test_cancelled_timers_do_not_disturb_the_order() -> None:
    """The order survives asyncio's clearing of cancelled timers from its heap."""
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_at(5.0, ran.append, number) for number in range(1000)]
        for timer in timers[::2] + timers[1:700:2]:
            timer.cancel()
        await asyncio.sleep(6)

    run(main())
    assert ran == list(range(701, 1000, 2))


def trace(seed: int) -> list[tuple[float, int]]:
    """Run workers whose sleeps depend on each other, and note who woke when."""
    rng = random.Random(seed)
    notes: list[tuple[float, int]] = []

    async def worker(number: int) -> None:
        for _ in range(20):
            await asyncio.sleep(rng.choice((0, 0.1, 0.1, 0.2, 1.0)))
            notes.append((now(), number))

    async def main() -> None:
        await asyncio.gather(*(worker(number) for number in range(10)))

    run(main())
    return notes


def test_same_seed_same_trace() -> None:
    """A program that takes chance from a seed does the same thing at the same time in every run."""
    first = trace(7)
    assert len(first) == 200
    assert all(trace(7) == first for _ in range(20))
    assert trace(8) != first


def test_a_day_of_timers_is_cheap() -> None:
    """A simulated day of ticks and timeouts takes fewer than three turns of the loop a tick."""

    async def main() -> tuple[int, int]:
        ticks = 0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def time_out() -> None:
            while True:
                await times_out()

        others = asyncio.create_task(time_out())
        while loop.time() < DAY:
            async with asyncio.timeout(30):
                await asyncio.sleep(1)
            ticks += 1
        others.cancel()
        return ticks, loop.turns

    ticks, turns = run(main())
    assert ticks == DAY
    assert turns < 3 * ticks


def test_timers_alone_need_no_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing but timers can happen, the system is never asked what is ready."""
    polled: list[float | None] = []
    real = selectors.DefaultSelector.select

    def select(self: selectors.DefaultSelector, timeout: float | None = None) -> object:
        polled.append(timeout)
        return real(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)
    run(asyncio.sleep(10))
    assert polled == []


def test_endless_timer_is_no_timer() -> None:
    """A timer set for never does not drag the clock to infinity, and one for nan is refused."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="nan"):
            loop.call_at(float("nan"), print)
        await asyncio.sleep(float("inf"))

    with pytest.raises(DeadlockError, match="at 0 s"):
        run(main())


# Test DeadlockError and limits.


async def wait_for_nothing() -> None:
    """Wait for what nobody does."""
    await asyncio.Event().wait()


def test_deadlock_names_who_waits_and_where() -> None:
    """A program that can never go on ends with an error that names each task, its file, line and function."""

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.create_task(wait_for_nothing(), name="the-reader")

    with pytest.raises(DeadlockError) as caught:
        run(main())
    message = str(caught.value)
    line = wait_for_nothing.__code__.co_firstlineno + 2
    assert "at 2 s" in message
    assert f"the-reader waits at {__file__}:{line} in wait_for_nothing, for Event.wait" in message
    assert "test_deadlock_names_who_waits_and_where.<locals>.main" in message


def test_deadlock_leaves_clean_tasks() -> None:
    """After a deadlock the waiting tasks are cancelled, and their clean-up runs."""
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("main")

    with pytest.raises(DeadlockError):
        run(main())
    assert cleaned == ["main"]


def test_deadlock_in_clean_up_is_told_too() -> None:
    """A task that waits for ever when it is cancelled does not hang the end of the run."""

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(main())


def test_idle_workers_of_the_executor_wake_nobody() -> None:
    """Threads of the default executor that have nothing to do are not waited for."""

    async def main() -> None:
        await asyncio.to_thread(int)
        await asyncio.Event().wait()

    started = time.monotonic()
    with pytest.raises(DeadlockError) as caught:
        run(main())
    assert "real seconds" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_silent_sockets_are_given_up_after_patience() -> None:
    """An open socket may wake the loop, so it is waited for in real time, and given up after `patience`."""
    loop = VirtualTimeLoop(patience=0.01)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs, pytest.raises(DeadlockError, match=r"waited 0\.01 real seconds"):
        loop.run_until_complete(loop.sock_recv(ours, 1))
    loop.close()


def test_limit_ends_a_run_that_goes_on_for_ever() -> None:
    """A program still running after its limit of simulated seconds ends with an error."""
    woken: list[float] = []

    async def main() -> None:
        while True:
            await asyncio.sleep(1)
            woken.append(now())

    with pytest.raises(TimeLimitError, match=r"until 105 s(.|\n)*in .*main"):
        run(main(), start=100, limit=5)
    assert woken == [101, 102, 103, 104, 105]


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_limit_is_more_than_zero(limit: float) -> None:
    """A limit that leaves no time is refused."""
    with pytest.raises(ValueError, match="more than 0"):
        run(asyncio.sleep(1), limit=limit)


# Test the world outside.


def test_sockets_work() -> None:
    """Data passes a real socket, and is there before the clock moves on."""

    async def main() -> tuple[bytes, float]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        _, other = await asyncio.open_connection(sock=theirs)
        asyncio.get_running_loop().call_later(2, other.write, b"hello\n")
        async with asyncio.timeout(60):
            line = await reader.readline()
        moment = now()
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        return line, moment

    assert run(main()) == (b"hello\n", 2.0)


def test_executor_holds_the_clock() -> None:
    """Time stands still while a job runs in a thread, so no timeout overtakes it."""
    go = threading.Event()

    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        loop.call_later(1, go.set)  # would never come first
        job = loop.run_in_executor(None, lambda: "done")
        return await asyncio.wait_for(job, 0.5), loop.time()

    assert run(main()) == ("done", 0.0)
    assert not go.is_set()


def test_cancelled_job_lets_the_clock_go() -> None:
    """A job whose future is cancelled holds the clock no longer."""
    go = threading.Event()

    async def main() -> float:
        job = asyncio.get_running_loop().run_in_executor(None, go.wait, 30)
        job.cancel()
        await asyncio.sleep(5)
        go.set()
        return now()

    assert run(main()) == 5.0


def test_threads_may_call() -> None:
    """A plain thread wakes a loop that has nothing else to do."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(answer.set_result, 42))
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert run(main()) == 42


def test_many_calls_from_threads_all_arrive() -> None:
    """Calls from a thread are never lost, though the wake-up socket is not looked at for each."""
    called: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        count = 200_000

        def call() -> None:
            for number in range(count):
                loop.call_soon_threadsafe(called.append, number)

        await asyncio.to_thread(call)
        assert called == list(range(count))

    run(main())


def test_debug_mode_finds_no_slow_callback(caplog: pytest.LogCaptureFixture) -> None:
    """In debug mode nothing is reported as slow: a day of virtual time is no work."""

    async def main() -> None:
        await asyncio.sleep(DAY)

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main(), debug=True)
    assert caplog.records == []


def test_debug_mode_still_checks() -> None:
    """Debug mode's own checks are kept: a coroutine is no callback."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match="call_at"):
            loop.call_at(1, wait_for_nothing)

    run(main(), debug=True)
