"""Laws of `run` and `@virtual_time`."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus.testing import TimeLimitError, VirtualTimeLoop, run, virtual_time


def test_run_returns_or_raises_what_main_does() -> None:
    """The result of the coroutine is the result of the run, and so is its exception."""

    async def main(fail: bool) -> int:
        await asyncio.sleep(1)
        return 1 // (not fail)

    assert run(main(False)) == 1
    with pytest.raises(ZeroDivisionError):
        run(main(True))


def test_run_cancels_leftovers_in_order() -> None:
    """Tasks left over are cancelled in the order of their names, numbers by value, and awaited."""
    ended: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main() -> list[asyncio.Task[None]]:
        names = [f"worker-{number}" for number in range(12)]
        tasks = [asyncio.create_task(wait(name), name=name) for name in reversed(names)]
        await asyncio.sleep(0)
        return tasks

    tasks = run(main())
    assert ended == [f"worker-{number}" for number in range(12)]
    assert all(task.cancelled() for task in tasks)


def test_run_reports_failing_clean_up() -> None:
    """What a leftover raises when it is cancelled goes to the loop's exception handler."""
    reported: list[str] = []

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("lost")

    async def main() -> asyncio.Task[None]:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told["message"]))
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        return task

    run(main())
    assert reported == ["a leftover task failed while cancelled"]


def test_run_closes_generators_and_the_loop() -> None:
    """Asynchronous generators are closed, and then the loop is."""
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(1)
            closed.append(True)

    async def main() -> tuple[AsyncIterator[int], asyncio.AbstractEventLoop]:
        generator = numbers()
        await anext(generator)
        return generator, asyncio.get_running_loop()

    _, loop = run(main())
    assert closed == [True]
    assert loop.is_closed()


@virtual_time
async def test_run_refuses_a_running_loop() -> None:
    """Inside a loop, run says so and leaves no coroutine behind."""
    with pytest.raises(RuntimeError, match="await instead"):
        run(asyncio.sleep(1))


@virtual_time
async def test_bare_decorator_runs_in_virtual_time() -> None:
    """`@virtual_time` gives the test a fresh loop at 0.0."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    assert loop.time() == 0.0
    await asyncio.sleep(3600)
    assert loop.time() == 3600


@virtual_time(start=50.0, debug=True)
async def test_decorator_takes_arguments() -> None:
    """`@virtual_time(...)` takes the arguments of run."""
    loop = asyncio.get_running_loop()
    assert (loop.time(), loop.get_debug()) == (50.0, True)


@pytest.mark.parametrize("number", [1, 2])
@virtual_time
async def test_fixtures_and_parameters_arrive(number: int, tmp_path: Path) -> None:
    """pytest sees the signature of the decorated test."""
    await asyncio.sleep(number)
    assert isinstance(tmp_path, Path)
    assert asyncio.get_running_loop().time() == number


def test_decorated_test_is_plain() -> None:
    """No plugin takes the decorated test for a coroutine; its name and signature stay."""

    async def test_something(number: int) -> None:
        """Say something."""

    plain = virtual_time(test_something)
    assert not inspect.iscoroutinefunction(plain)
    assert (plain.__name__, plain.__doc__) == ("test_something", "Say something.")
    assert list(inspect.signature(plain).parameters) == ["number"]


def test_decorator_enforces_the_limit() -> None:
    """A decorated test that passes its limit fails."""

    @virtual_time(limit=10)
    async def test_something() -> None:
        await asyncio.sleep(11)

    with pytest.raises(TimeLimitError):
        test_something()


class TestInAClass:
    """Tests that are methods."""

    @virtual_time
    async def test_method(self) -> None:
        """A method may be decorated too."""
        await asyncio.sleep(1)
        assert isinstance(self, TestInAClass)


async def test_real_time_still_works_beside() -> None:
    """A coroutine test without the decorator runs in pytest-asyncio's own loop."""
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
