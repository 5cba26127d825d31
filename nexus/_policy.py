"""Overload policies: what becomes of an event whose lane is full."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from ._event import Event, EventKey

__all__ = [
    "Block",
    "DropNewest",
    "DropOldest",
    "Fail",
    "LatestByKey",
    "OverloadPolicy",
    "Spill",
    "SpillStore",
    "check_policy",
]


@attrs.frozen
class Block:
    """The giver waits until there is room: back-pressure. What every type does unless told otherwise."""


@attrs.frozen
class DropOldest:
    """The oldest waiting event of the same type and priority is dropped; the new one, when there is none."""


@attrs.frozen
class DropNewest:
    """The new event is dropped."""


@attrs.frozen
class LatestByKey:
    """Only the latest event of each key waits: a newer one takes the place of the older, full or not.

    A lane full of other keys is handled as by `DropOldest`.
    """

    key: Callable[[Event[Any]], Hashable] | None = None
    """What makes two events of the type the same thing; None: all of the type are."""


@attrs.frozen
class Fail:
    """The giver gets `QueueFull`."""


class SpillStore(Protocol):
    """Where events wait that found their lane full, such as `nexus.boundaries.outbox.SpillFile`.

    It holds a line for each type and priority. The events of a line are numbered one by one, from where the
    line ended when the store was opened last. All methods are called in the loop of one nexus.
    """

    async def open(self) -> None:
        """Open it; what it held when it was closed, or its process died, is there again.

        What this raises ends the nexus, which then does not close it.
        """
        ...

    async def close(self) -> Sequence[Event[Any]]:
        """Make durable what can be, and close it, within 20 seconds.

        Returns:
            What was put and is not durable, so that it will not be there when it is opened again.
        """
        ...

    def held(self, type: EventKey) -> Mapping[int, range]:
        """Return the numbers of what is held of a type, by priority."""
        ...

    def put(self, event: Event[Any]) -> int | None:
        """Take an event at the end of its line.

        Returns:
            Its number; None when there is no room, or the event would not come back as it is.
        """
        ...

    async def read(self, type: EventKey, priority: int, first: int) -> Sequence[Event[Any] | None]:
        """Return the next events of a line, from number `first` on: at least one, and no more than a few
        hundred.

        One that was put a moment ago may be asked for. A deadline is on the clock of the loop that runs now.

        Returns:
            None in the place of an event that is damaged.

        Raises:
            Exception: nothing can be read now; it is tried again.
        """
        ...

    def settled(self, type: EventKey, priority: int, number: int) -> None:
        """Forget all events of a line up to this number: their stories have ended.

        Harmless when it is closed: a handler may be late.
        """
        ...

    def on_room(self, listener: Callable[[], object]) -> None:
        """Call this, in the loop, whenever there may be room again."""
        ...


@attrs.frozen
class Spill:
    """The event goes to the disk, and comes back in its turn as soon as the lane has room.

    While any of a type and priority are on the disk, later ones of these go there too, so that they keep
    their order. When the store takes no more, the giver waits as with `Block`.
    """

    store: SpillStore = attrs.field(eq=False)
    """Where to; several types may have the same."""


OverloadPolicy: TypeAlias = Block | DropOldest | DropNewest | LatestByKey | Fail | Spill


def check_policy(policy: object) -> OverloadPolicy:
    """Return the policy.

    Raises:
        TypeError: it is none.
    """
    if isinstance(policy, type) and issubclass(policy, OverloadPolicy) and not issubclass(policy, Spill):
        policy = policy()
    if not isinstance(policy, OverloadPolicy):
        words = {Spill: "Spill(store)"}
        known = ", ".join(words.get(kind, f"{kind.__name__}()") for kind in OverloadPolicy.__args__)
        raise TypeError(f"an overload policy is one of {known}, not {policy!r}")
    return policy
