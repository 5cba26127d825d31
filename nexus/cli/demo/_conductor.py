"""Starts the two domains, lets them run, stops them in order, and sees to it that both are gone."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from ._domain import Domain
from ._view import View, view_of

__all__ = ["Outcome", "Settings", "perform"]

STARTING = 20.0
"""Seconds a domain may take to come up."""
STOPPING = 15.0
"""Seconds a domain may take to drain, and to tell its last figures."""


@attrs.frozen
class Settings:
    """What the demo was asked to do."""

    seconds: float
    """How long the flood lasts."""
    rate: float
    """Readings of processes a second to aim at."""
    seed: int
    """Seeds the work of control's handlers and the order of the plant's readings."""
    show_every: float = 0.25
    """Seconds between two pictures."""


@attrs.frozen
class Outcome:
    """What both domains told at their end."""

    seconds: float
    """How long the flood really lasted."""
    plant: dict[str, Any]
    control: dict[str, Any]
    view: View | None
    """The last picture of the running flood."""


async def perform(settings: Settings, show: Callable[[View], None], note: Callable[[str], None]) -> Outcome:
    """Run both domains for the time asked for, or until Ctrl-C, and return their last figures.

    Control is started first and told last: it listens, and it handles everything that the plant had sent.

    Raises:
        DomainLost: one of them ended, or would not stop in time; both are gone.
    """
    async with contextlib.AsyncExitStack() as stack:
        control = await Domain.start("control", attrs.asdict(settings))
        stack.push_async_callback(control.end)
        ready = await control.wait_for("ready", timeout=STARTING)
        plant = await Domain.start("plant", {**attrs.asdict(settings), "wires": ready["wires"]})
        stack.push_async_callback(plant.end)
        await plant.wait_for("ready", timeout=STARTING)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            last_of_plant = group.create_task(
                plant.wait_for("end", timeout=None), name="nexus demo: plant's lines"
            )
            last_of_control = group.create_task(
                control.wait_for("end", timeout=None), name="nexus demo: control's lines"
            )
            view = await watch(plant, control, settings, began, show)
            lasted = time.monotonic() - began
            note("The flood is over. Handling what is left, then its beginning through a FIFO ...")
            plant.order("stop")
            async with asyncio.timeout(STOPPING):
                sent = await last_of_plant
            control.order("drain", sent=sent["sent"])
            async with asyncio.timeout(STOPPING):
                received = await last_of_control
            plant.order("close")
        return Outcome(lasted, sent, received, view)


async def watch(
    plant: Domain, control: Domain, settings: Settings, began: float, show: Callable[[View], None]
) -> View | None:
    """Show the picture again and again until the time is over or Ctrl-C is pressed."""
    view: View | None = None
    with interruptible() as interrupted:
        while not interrupted.is_set() and (left := began + settings.seconds - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), min(left, settings.show_every))
            view = view_of(
                plant.states,
                control.states,
                began=began,
                seconds=settings.seconds,
                pids=(plant.pid, control.pid),
            )
            if view is not None:
                show(view)
    return view


@contextlib.contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """Set an event at the first Ctrl-C in place of raising; the next one raises again."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        interrupted.set()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        if not interrupted.is_set():
            interrupt()
