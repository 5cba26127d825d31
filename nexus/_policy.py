"""Overload policies: what becomes of an event whose lane is full."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import attrs

from ._event import Event

__all__ = ["Block", "DropNewest", "DropOldest", "Fail", "LatestByKey", "OverloadPolicy"]


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


OverloadPolicy: TypeAlias = Block | DropOldest | DropNewest | LatestByKey | Fail


def check_policy(policy: object) -> OverloadPolicy:
    """Return the policy.

    Raises:
        TypeError: it is none.
    """
    if isinstance(policy, type) and issubclass(policy, OverloadPolicy):
        policy = policy()
    if not isinstance(policy, OverloadPolicy):
        known = ", ".join(kind.__name__ + "()" for kind in OverloadPolicy.__args__)
        raise TypeError(f"an overload policy is one of {known}, not {policy!r}")
    return policy
