"""Deliveries: timeouts, retries, failures, and who is told of them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from nexus import AsyncEventNexus, DeadLetter, Event
from nexus.errors import HandlerTimeout, UnhandledEvent
from nexus.testing import Recorder, assert_ledger_balanced, virtual_time


def event(number: int, type_: str = "a", priority: int = 0) -> Event[Any]:
    return Event(number, type_, priority, None)


class Failing:
    """Fails so many times, and keeps the moments of its tries."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.tries: list[tuple[int, float]] = []

    async def __call__(self, event: Event[Any]) -> None:
        self.tries.append((event.id, asyncio.get_running_loop().time()))
        self.left -= 1
        if self.left >= 0:
            raise ValueError(f"try {len(self.tries)}")


@virtual_time
async def test_retries_follow_at_once_or_after_a_doubling_delay() -> None:
    """So many further tries, the first after the delay, each next one after twice as long."""
    for delay, moments in ((0.0, [0, 0, 0, 0]), (1.0, [0, 1, 3, 7])):
        failing = Failing(3)
        nexus = AsyncEventNexus()
        nexus.add_handler("a", failing, retries=3, retry_delay=delay)
        async with nexus:
            began = asyncio.get_running_loop().time()
            await nexus.ingest(event(1))
            await nexus.drained()
        assert [moment - began for _, moment in failing.tries] == moments
        assert_ledger_balanced(nexus, handled=1, failed=0)
        assert nexus.dead_letters == ()


@virtual_time
async def test_the_last_try_decides() -> None:
    """An event fails once, after its last try, with what that raised."""
    nexus = AsyncEventNexus()
    nexus.add_handler("a", Failing(99), retries=2)
    async with nexus:
        await nexus.ingest(event(1))
        await nexus.drained()
    (letter,) = nexus.dead_letters
    assert (letter.event, letter.attempts, str(letter.exception)) == (event(1), 3, "try 3")
    assert_ledger_balanced(nexus, failed=1)


@virtual_time
async def test_others_go_on_while_one_waits_for_its_next_try() -> None:
    """A delayed retry holds nobody up, counts as active, and comes before what is younger in its lane."""
    failing = Failing(1)
    nexus = AsyncEventNexus()
    nexus.add_handler("a", failing, retries=1, retry_delay=1.0)
    async with nexus:
        await nexus.ingest_many(map(event, (1, 2, 3)))
        await asyncio.sleep(0.5)
        assert_ledger_balanced(nexus, handled=2, active=1, queued=1)
        await nexus.drained()
    assert [number for number, _ in failing.tries] == [1, 2, 3, 1]


@virtual_time
async def test_two_handlers_of_one_event_may_both_try_again() -> None:
    """Each has its own tries; the event is settled when the last has come to its end."""
    first, second = Failing(1), Failing(2)
    nexus = AsyncEventNexus(multiple=True)
    nexus.add_handler("a", first, retries=2, retry_delay=1.0)
    nexus.add_handler("a", second, retries=2, retry_delay=1.0)
    async with nexus:
        await nexus.ingest(event(1))
        await asyncio.sleep(2.0)
        assert_ledger_balanced(nexus, active=1)
        await nexus.drained()
    assert (len(first.tries), len(second.tries)) == (2, 3)
    assert_ledger_balanced(nexus, handled=1)


@virtual_time
async def test_a_stop_gives_back_what_waits_for_its_next_try() -> None:
    """No second try is left behind when the grace is over; the event is among the remaining."""
    failing = Failing(99)
    nexus = AsyncEventNexus(multiple=True)
    for _ in range(2):
        nexus.add_handler("a", failing, retries=5, retry_delay=100.0)
    nexus.start()
    await nexus.ingest(event(1))
    await asyncio.sleep(1.0)
    report = await nexus.stop(grace=1.0)
    assert [e.id for e in report.remaining] == [1]
    await asyncio.sleep(1000.0)
    assert len(failing.tries) == 2
    assert_ledger_balanced(nexus, queued=1, active=0)


@virtual_time
async def test_a_timeout_ends_each_try() -> None:
    """A try that takes too long is cancelled where it waits, and fails with an error that says so."""
    ends: list[float] = []

    async def slow(event: Event[Any]) -> None:
        try:
            await asyncio.sleep(100.0)
        finally:
            ends.append(asyncio.get_running_loop().time())

    nexus = AsyncEventNexus()
    nexus.add_handler("a", slow, timeout=2.0, retries=1)
    async with nexus:
        await nexus.ingest(event(7))
        await nexus.drained()
    assert ends == [2.0, 4.0]
    (letter,) = nexus.dead_letters
    assert isinstance(letter.exception, HandlerTimeout)
    assert isinstance(letter.exception, TimeoutError)
    assert "slow took longer than its timeout of 2.0 s on event 7" in str(letter.exception)


@pytest.mark.parametrize("error", [TimeoutError("mine"), asyncio.CancelledError("mine"), KeyError("mine")])
@pytest.mark.parametrize("timeout", [None, 10.0])
@virtual_time
async def test_what_a_handler_raises_itself_is_its_own_failure(
    error: BaseException, timeout: float | None
) -> None:
    """A TimeoutError or CancelledError of the handler's own making is not taken for ours."""

    async def fail(event: Event[Any]) -> None:
        raise error

    nexus = AsyncEventNexus()
    nexus.add_handler("a", fail, timeout=timeout)
    async with nexus:
        await nexus.ingest_many(map(event, (1, 2)))
        await nexus.drained()
    assert [letter.exception for letter in nexus.dead_letters] == [error, error]
    assert_ledger_balanced(nexus, failed=2)


def both_kinds(listener: Callable[..., None]) -> list[Callable[..., Any]]:
    async def waiting(*words: Any) -> None:
        await asyncio.sleep(1.0)
        listener(*words)

    return [listener, waiting]


@virtual_time
async def test_listeners_are_told_of_each_failed_event() -> None:
    """Error handler and dead-letter handler, plain or async, get the event, the exception and the name."""
    errors: list[Any] = []
    letters: list[DeadLetter] = []
    for on_error, on_letter in zip(
        both_kinds(lambda *words: errors.append(words)), both_kinds(letters.append), strict=True
    ):
        nexus = AsyncEventNexus()
        nexus.add_handler("a", Failing(1), retries=0)
        nexus.set_error_handler(on_error)
        nexus.set_dead_letter_handler(on_letter)
        async with nexus:
            await nexus.ingest_many(map(event, (1, 2)))
            await nexus.drained()
        assert_ledger_balanced(nexus, failed=1, handled=1)
    assert [(e.id, str(x), name) for e, x, name in errors] == [(1, "try 1", "Failing")] * 2
    assert [(letter.event.id, letter.attempts, letter.handler) for letter in letters] == [
        (1, 1, "Failing")
    ] * 2


@virtual_time
async def test_a_listener_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The nexus goes on, whatever those who are told of failures do."""

    def worse(*words: Any) -> None:
        raise RuntimeError("worse")

    nexus = AsyncEventNexus()
    nexus.add_handler("a", Failing(1))
    nexus.set_error_handler(worse)
    nexus.set_dead_letter_handler(worse)
    async with nexus:
        await nexus.ingest_many(map(event, (1, 2)))
        await nexus.drained()
    assert_ledger_balanced(nexus, failed=1, handled=1)
    assert caplog.text.count("RuntimeError: worse") == 2


@virtual_time
async def test_many_failures_are_logged_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that always fails does not fill the disk; the last thousand events are kept."""
    nexus = AsyncEventNexus()
    nexus.add_handler("a", Failing(10_000))
    with caplog.at_level(logging.ERROR):
        async with nexus:
            await nexus.ingest_many(map(event, range(3000)))
            await nexus.drained()
    assert 10 <= len(caplog.records) <= 20
    assert [letter.event.id for letter in nexus.dead_letters] == list(range(2000, 3000))
    assert_ledger_balanced(nexus, failed=3000)


@pytest.mark.parametrize("options", [{}, {"timeout": 1.0}, {"concurrency": 1}], ids=str)
@virtual_time
async def test_on_error_stop_ends_the_nexus_with_the_error(options: dict[str, Any]) -> None:
    """With on_error="stop" the first failure is the nexus's own, and the rest is reported."""
    nexus = AsyncEventNexus(on_error="stop")
    nexus.add_handler("a", Failing(1), **options)
    task = nexus.start()
    await nexus.ingest_many(map(event, range(5)))
    with pytest.raises(ValueError, match="try 1"):
        await task
    report = await nexus.stop()
    assert report.stats.failed == 1
    assert report.stats.handled + len(report.remaining) == 4
    assert_ledger_balanced(nexus)


@virtual_time
async def test_on_error_stop_covers_events_that_nobody_takes() -> None:
    """An unhandled event is an error too."""
    nexus = AsyncEventNexus(on_error="stop")
    task = nexus.start()
    await nexus.ingest(event(1))
    with pytest.raises(UnhandledEvent, match="no handler for event 1 of type 'a', and no fallback"):
        await task
    assert_ledger_balanced(nexus, unhandled=1)


@virtual_time
async def test_a_dead_letter_may_be_tried_again() -> None:
    """The event in a dead letter is whole, and may be ingested again."""
    nexus = AsyncEventNexus()
    seen = Recorder()
    nexus.add_handler("a", Failing(1))
    nexus.add_handler("again", seen)

    async def again(letter: DeadLetter) -> None:
        nexus.ingest_nowait(letter.event.evolve(type="again"))

    nexus.set_dead_letter_handler(again)
    async with nexus:
        await nexus.ingest(event(5))
        await nexus.drained()
    assert [e.id for e in seen.events] == [5]
    assert_ledger_balanced(nexus, failed=1, handled=1)
