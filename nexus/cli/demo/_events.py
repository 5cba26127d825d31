"""What crosses from plant to control: the types of events, their priorities and their payload."""

from typing import Any

import nexus

__all__ = ["BULK", "KINDS", "URGENT", "Alarm", "DemoEvent", "Heartbeat", "MachineReading", "ProcessReading"]

Payload = dict[str, Any]
"""``figure`` (its name), ``value``, ``created`` (seconds on the clock that all processes of a host share)."""


class DemoEvent(nexus.NamedEvent[Payload]):
    """What every kind has: one priority for all its events."""

    urgency = 0
    """The priority of this kind."""
    policy: nexus.Block | nexus.DropOldest | nexus.LatestByKey = nexus.Block()
    """What happens in the plant when its lane is full."""


class Alarm(DemoEvent):
    """A figure is over its limit, or the alarm line is being tested."""

    urgency = -10


class Heartbeat(DemoEvent):
    """The plant is alive."""

    urgency = -5


class MachineReading(DemoEvent):
    """One figure of processors, memory, disks or networks."""

    policy = nexus.LatestByKey(lambda event: event.payload["figure"])


class ProcessReading(DemoEvent):
    """One figure of one process: the flood."""

    urgency = 10
    policy = nexus.DropOldest()


URGENT: tuple[type[DemoEvent], ...] = (Alarm, Heartbeat)
"""What has a wire of its own and is never dropped."""
BULK: tuple[type[DemoEvent], ...] = (MachineReading, ProcessReading)
"""What shares the wire that is always full."""
KINDS = (*URGENT, *BULK)
