"""Listeners that would never run are refused where they are given."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from nexus.adapters._plain import plain
from nexus.adapters.memory import MemoryReceiver, MemorySender


async def waits(*given: object) -> None:
    """Wait, as a listener cannot."""
    await asyncio.sleep(0)


def gives(*given: object) -> Iterator[int]:
    """Give something, as a listener cannot."""
    yield 1


async def waits_and_gives(*given: object) -> AsyncIterator[int]:
    """Do both."""
    yield 1


class Waiting:
    """An object that is called as a function."""

    async def __call__(self, *given: object) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "function", [waits, gives, waits_and_gives, Waiting(), Waiting().__call__, partial(waits, 1)]
)
def test_what_would_not_run_is_refused(function: Any) -> None:
    """Whatever form it has, the error says which place will not await it, and what to give."""
    with pytest.raises(TypeError, match=r"^on_bad is called and not awaited, .* give a plain function"):
        plain(function, "on_bad")


@pytest.mark.parametrize("function", [None, print, [].append, Waiting, lambda: 1, partial(print, 1), "text"])
def test_what_runs_is_taken(function: Any) -> None:
    """A plain function of any form is given back as it is, and so is what is no function."""
    assert plain(function, "on_bad") is function


@pytest.mark.parametrize(
    "give",
    [
        lambda: MemoryReceiver[Any](on_bad=waits),
        lambda: setattr(MemoryReceiver[Any](), "on_bad", waits),
        lambda: MemoryReceiver[Any]().on_link(waits),  # type: ignore[arg-type]
        lambda: MemorySender[Any]().on_link(waits),  # type: ignore[arg-type]
    ],
    ids=["on_bad", "on_bad later", "on_link of a receiver", "on_link of a sender"],
)
def test_halves_refuse_it(give: Callable[[], object]) -> None:
    """Neither half takes a listener that waits."""
    with pytest.raises(TypeError, match="nothing of waits would run"):
        give()
