"""Boundaries refuse functions that they would have to await."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.memory import MemoryReceiver, MemorySender
from nexus.boundaries.inbound import InboundBoundary, Rule
from nexus.boundaries.outbound import OutboundBoundary
from nexus.boundaries.outbox import Effects, Outbox, SpillFile
from nexus.boundaries.zmq import ZmqEventReceiver
from nexus.testing import MemoryWire


async def waits(*given: object) -> Any:
    """Wait, as what makes events and data cannot."""
    await asyncio.sleep(0)


BOX = Path("never-opened.box")
RECEIVER: Any = MemoryReceiver
SENDER: Any = MemorySender
PLACES: dict[str, Callable[[], object]] = {
    "quarantine": lambda: InboundBoundary(RECEIVER(), "t", quarantine=waits),
    "what makes events": lambda: InboundBoundary(RECEIVER(), waits),  # type: ignore[arg-type]
    "type": lambda: Rule(type=waits),  # type: ignore[arg-type]
    "where": lambda: Rule(type="t", where=waits),
    "priority": lambda: Rule(type="t", priority=waits),  # type: ignore[arg-type]
    "payload of a rule": lambda: Rule(type="t", payload=waits),
    "payload": lambda: OutboundBoundary(SENDER(), payload=waits),
    "topic": lambda: OutboundBoundary(SENDER(), topic=waits),  # type: ignore[arg-type]
    "convert": lambda: OutboundBoundary(SENDER(), convert=waits),  # type: ignore[arg-type]
    "on_bad": lambda: ZmqEventReceiver(MemoryWire.pair()[0], on_bad=waits),
    "apply": lambda: Effects(Outbox(BOX), waits),
    "outbox": lambda: Outbox(BOX).on_state(waits),
    "spill": lambda: SpillFile(BOX).on_state(waits),
}
"""Where functions are given, and only called."""


@pytest.mark.parametrize("give", PLACES.values(), ids=PLACES.keys())
def test_what_would_not_run_is_refused(give: Callable[[], object]) -> None:
    """An async function is refused where it is given, with the reason, and not taken and left unrun."""
    with pytest.raises(TypeError, match="is called and not awaited, so nothing of waits would run"):
        give()
