"""The outbox: rows that wait on the disk until another side has accepted them."""

from nexus.boundaries.outbox._effects import Apply, Effects
from nexus.boundaries.outbox._kinds import (
    Connection,
    Cursor,
    LaneContents,
    NoOutbox,
    OutboxDamaged,
    OutboxInUse,
    OutboxState,
)
from nexus.boundaries.outbox._outbox import Outbox
from nexus.boundaries.outbox._spill import SpillFile

__all__ = [
    "Outbox",
    "Effects",
    "Apply",
    "SpillFile",
    "OutboxState",
    "LaneContents",
    "Cursor",
    "Connection",
    "OutboxDamaged",
    "OutboxInUse",
    "NoOutbox",
]
