"""What there is to see of the two domains at one moment: a row for each priority."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

__all__ = ["Row", "View", "view_of"]

State = Mapping[str, Any]


@attrs.frozen
class Row:
    """One kind of event on its way."""

    kind: str
    priority: int
    made_rate: float
    """Events a second that the plant's sources make."""
    handled_rate: float
    """Events a second that control handles."""
    queued_in_plant: int
    queued_in_control: int
    median: float | None
    """Seconds from creation in the plant to the handler in control; None before the first."""
    p99: float | None
    """As the median; one in a hundred takes longer."""
    dropped: int
    """Events that the plant's policy has dropped so far."""
    policy: str
    """The overload policy that the plant has for this kind."""


@attrs.frozen
class View:
    """The whole picture."""

    elapsed: float
    """Seconds since both domains run."""
    seconds: float
    """Seconds that they shall run."""
    plant_pid: int
    control_pid: int
    rows: Sequence[Row]
    alarm: str
    """The last alarm handled."""


def view_of(
    plant: Sequence[State],
    control: Sequence[State],
    *,
    began: float,
    seconds: float,
    pids: tuple[int, int],
) -> View | None:
    """Put the newest states together; the rates are over the time since the ones before.

    Args:
        plant: one or two states, the newer last.
        control: the same of the other side.
        began: when both domains ran, on the monotonic clock.
        seconds: how long they shall run.
        pids: of plant and control.

    Returns:
        None until both have told a state.
    """
    if not plant or not control:
        return None
    made, handled = rates(plant, "made"), rates(control, "handled")
    here, there = plant[-1], control[-1]
    rows = [
        Row(
            kind=kind,
            priority=about["priority"],
            made_rate=made.get(kind, 0.0),
            handled_rate=handled.get(kind, 0.0),
            queued_in_plant=here["queued"].get(str(about["priority"]), 0),
            queued_in_control=there["queued"].get(str(about["priority"]), 0),
            median=there["latency"].get(kind, {}).get("p50"),
            p99=there["latency"].get(kind, {}).get("p99"),
            dropped=sum(here["dropped"].get(kind, {}).values()),
            policy=about["policy"],
        )
        for kind, about in here["kinds"].items()
    ]
    elapsed = min(max(here["at"], there["at"]) - began, seconds)
    return View(elapsed, seconds, *pids, rows, there["alarm"])


def rates(states: Sequence[State], what: str) -> dict[str, float]:
    """Say by how many a second each count grew between the first and the last state."""
    first, last = states[0], states[-1]
    span = last["at"] - first["at"]
    return {kind: (n - first[what].get(kind, 0)) / span if span else 0.0 for kind, n in last[what].items()}
