"""A lone event from outside is begun with in the turn in which it comes, as if by the nexus's own task."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from nexus import AsyncEventNexus, DropOldest, Event
from nexus.testing import assert_ledger_balanced, virtual_time

spoken: ContextVar[str] = ContextVar("spoken", default="nothing")

Handler = Callable[[Event[Any], Any], Awaitable[None]]


def event(payload: Any = None, type: str = "t", priority: int = 0, **meta: Any) -> Event[Any]:
    return Event(1, type, priority, payload, **meta)


async def begin(
    nexus: AsyncEventNexus, given: Event[Any], before: Any = lambda: None, after: Any = lambda: None
) -> bool:
    """Give an event in a callback, as the wire of a link does; say whether it was begun with."""
    begun: list[bool] = []

    def give() -> None:
        before()
        begun.append(nexus._straight.begin(given))
        after()

    asyncio.get_running_loop().call_soon(give)
    await asyncio.sleep(0)
    return begun[0]


async def warm(nexus: AsyncEventNexus) -> None:
    """Let the first event of the lane pass: the lane is there then, and all is at rest."""
    await nexus.ingest(event("first", type="nobody"))
    await nexus.drained()
    await asyncio.sleep(0.001)


def nexus_with(handler: Handler) -> AsyncEventNexus:
    nexus = AsyncEventNexus()
    nexus.add_handler("t", handler)
    return nexus


@virtual_time
async def test_it_is_handled_at_once() -> None:
    """A handler that waits for nothing is done before the callback is."""
    got: list[Any] = []

    async def handle(given: Event[Any], queue: object) -> None:
        got.append(given.payload)

    nexus = nexus_with(handle)
    async with nexus:
        assert not await begin(nexus, event(0))  # there is no lane yet, and it was not given
        await warm(nexus)
        for number in (1, 2):
            assert await begin(nexus, event(number))
        assert got == [1, 2]
        await nexus.drained()
        assert nexus.stats().types["t"].handled == 2
        assert_ledger_balanced(nexus)


@virtual_time
async def test_a_handler_that_waits_goes_on_in_the_task() -> None:
    """It is one task and one context from its first step to its last, and those that follow wait for it."""
    seen: list[tuple[Any, object, str]] = []

    async def handle(given: Event[Any], queue: object) -> None:
        token = spoken.set(f"by {given.payload}")
        for _ in range(3):
            seen.append((given.payload, asyncio.current_task(), spoken.get()))
            await asyncio.sleep(0 if given.payload == "a" else 0.01)
        spoken.reset(token)
        assert spoken.get() == "nothing"

    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        assert await begin(nexus, event("a"))
        assert not await begin(nexus, event("b"))
        assert nexus.stats().types["t"].active == 1
        await nexus.ingest(event("b"))
        await nexus.drained()
        assert_ledger_balanced(nexus)
    assert [(payload, word) for payload, _, word in seen] == [("a", "by a")] * 3 + [("b", "by b")] * 3
    (task,) = {task for _, task, _ in seen}
    assert isinstance(task, asyncio.Task)
    assert task.get_name().endswith("drain")


@virtual_time
async def test_a_timeout_within_the_handler_holds() -> None:
    """It cancels what the handler waits for, though that began before its task went on."""
    ends: list[str] = []

    async def handle(given: Event[Any], queue: object) -> None:
        try:
            async with asyncio.timeout(given.payload):
                await asyncio.Event().wait()
        except TimeoutError:
            ends.append("in time")

    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        for delay in (0.5, 0.0, -1.0):
            assert await begin(nexus, event(delay))
            await nexus.drained()
        assert nexus.stats().types["t"].handled == 3
    assert ends == ["in time"] * 3


@virtual_time
@pytest.mark.parametrize("waits", [False, True])
async def test_a_failure_is_told_as_any_other(waits: bool) -> None:
    """Whether it fails at once or later, the event has failed and the next one is handled."""
    told: list[Any] = []

    async def handle(given: Event[Any], queue: object) -> None:
        if given.payload == "bad":
            if waits:
                await asyncio.sleep(1.0)
            raise ValueError("as told")
        told.append(given.payload)

    nexus = nexus_with(handle)
    nexus.set_error_handler(lambda failed, exc, name: told.append((failed.payload, str(exc))))
    async with nexus:
        await warm(nexus)
        assert await begin(nexus, event("bad"))
        await nexus.ingest(event("good"))
        await nexus.drained()
        assert told == [("bad", "as told"), "good"]
        assert nexus.stats().types["t"].failed == 1
        assert_ledger_balanced(nexus)


@virtual_time
async def test_what_it_puts_comes_after_it() -> None:
    """A secondary event waits until the handler is done, also while that waits."""
    order: list[Any] = []

    async def handle(given: Event[Any], queue: Any) -> None:
        order.append(("begin", given.payload))
        if given.payload:
            await queue.put(event(given.payload - 1))
            assert not nexus._straight.begin(event(99))
            await asyncio.sleep(given.payload - 1)
        order.append(("end", given.payload))

    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        assert await begin(nexus, event(2))
        await nexus.drained()
        assert order == [(what, number) for number in (2, 1, 0) for what in ("begin", "end")]
        assert_ledger_balanced(nexus)


@virtual_time
@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("waits_for", ["a turn", "a future", "a task", "one that is done"])
async def test_a_stop_cancels_the_handler_where_it_waits(turns: int, waits_for: str) -> None:
    """The handler is told, what it waits for is cancelled, and the event is reported as not handled."""
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    inner, ready = loop.create_task(asyncio.sleep(9)), loop.create_future()

    async def handle(given: Event[Any], queue: object) -> None:
        try:
            while True:
                if waits_for == "a turn":
                    await asyncio.sleep(0)
                elif waits_for == "one that is done" and not seen:
                    seen.append("went on")
                    await ready
                else:
                    await (inner if waits_for == "a task" else loop.create_future())
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.1)
            seen.append("cleaned up")
            raise

    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        drain = nexus._drain._task
        assert drain is not None
        if turns == 0:  # before it could go on with what was begun
            assert await begin(nexus, event("held"), after=lambda: (ready.set_result(None), drain.cancel()))
            report = await nexus.stop()
        else:
            assert await begin(nexus, event("held"))
            ready.set_result(None)
            for _ in range(turns):
                await asyncio.sleep(0)
            report = await nexus.stop(grace=0)
    assert seen[-2:] == ["cancelled", "cleaned up"]
    assert inner.cancelled() == (waits_for == "a task")
    inner.cancel()
    assert [left.payload for left in report.remaining] == ["held"]
    assert report.stats.types["t"].handled == 0


@virtual_time
async def test_a_handler_may_cancel_its_own_task() -> None:
    """As in any task, that is raised where it waits next."""
    seen: list[str] = []

    async def handle(given: Event[Any], queue: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            task.uncancel()
            seen.append("cancelled")
        await asyncio.sleep(1)
        seen.append("went on")

    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        assert await begin(nexus, event())
        await nexus.drained()
        assert seen == ["cancelled", "went on"]
        assert nexus.stats().types["t"].handled == 1


@virtual_time
@pytest.mark.parametrize(
    "reason", ["task", "filter", "policy", "deadline", "queued", "plain", "pool", "two", "getter", "stopping"]
)
async def test_whatever_wants_a_closer_look_gets_it(reason: str) -> None:
    """It is not begun with, and not taken."""
    got: list[Any] = []

    async def handle(given: Event[Any], queue: object) -> None:
        got.append(given.payload)

    nexus = AsyncEventNexus(multiple=True)
    if reason == "plain":
        nexus.add_handler("t", lambda given: got.append(given.payload))
    else:
        nexus.add_handler("t", handle, concurrency=1 if reason == "pool" else None)
    if reason == "two":
        nexus.add_handler("t", handle)
    if reason == "filter":
        nexus.add_filter(lambda _: False)
    if reason == "policy":
        nexus.set_policy("t", DropOldest())
    async with nexus:
        await warm(nexus)
        getter = asyncio.ensure_future(nexus.queue.get()) if reason == "getter" else None
        if reason == "task":
            assert not nexus._straight.begin(event())
        elif reason == "stopping":
            stopping = nexus.stop()
            assert not await begin(nexus, event())
            await stopping
        else:
            await asyncio.sleep(0)
            given = event(deadline=1e9) if reason == "deadline" else event()
            first = event("first", type="nobody")
            assert not await begin(
                nexus, given, (lambda: nexus.ingest_nowait(first)) if reason == "queued" else lambda: None
            )
        if getter is not None:
            getter.cancel()
    assert got == []


@virtual_time
async def test_a_loop_with_its_own_tasks_is_left_alone() -> None:
    """Who makes tasks himself may make them without a context that is known here."""

    async def handle(given: Event[Any], queue: object) -> None: ...

    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **_: asyncio.Task(work, loop=loop))
    nexus = nexus_with(handle)
    async with nexus:
        await warm(nexus)
        assert not await begin(nexus, event())
    loop.set_task_factory(None)
