"""What the demo comes to: the figures, whether every event is accounted for, and the comparison."""

from typing import Any

from nexus._version import __version__

from ._conductor import Outcome, Settings

__all__ = ["summary_of"]


def summary_of(outcome: Outcome, settings: Settings) -> dict[str, Any]:
    """Put the figures of both domains together, ready for JSON; all times are in seconds.

    ``balanced`` is true when every one of ``checks`` is: then no event is unaccounted for.
    """
    plant, control = outcome.plant, outcome.control
    here, there = plant["stats"], control["stats"]
    checked = checks(plant, control)
    return {
        "version": __version__,
        "seconds": outcome.seconds,
        "rate": settings.rate,
        "seed": settings.seed,
        "made": {kind: plant["made"].get(kind, 0) for kind in plant["sent"]},
        "ingested": here["ingested"],
        "dropped": {kind: counts["drops"] for kind, counts in here["types"].items() if counts["drops"]},
        "sent": sum(plant["sent"].values()),
        "received": control["received"],
        "handled": control["handled"],
        "latency": control["latency"],
        "same_flood": {
            "seconds": control["recorded"]["seconds"],
            "events": control["recorded"]["events"],
            "nexus": control["priorities"],
            "fifo": control["fifo"],
            "urgent_p50_ratio": ratio(control, "p50"),
            "urgent_p99_ratio": ratio(control, "p99"),
        },
        "checks": checked,
        "balanced": all(checked.values()),
        "plant": here,
        "control": there,
    }


def checks(plant: dict[str, Any], control: dict[str, Any]) -> dict[str, bool]:
    """Compare counts that were kept apart from each other."""
    here, there = plant["stats"], control["stats"]
    ingested = {kind: counts["ingested"] for kind, counts in here["types"].items() if counts["ingested"]}
    handled = {kind: counts["handled"] for kind, counts in there["types"].items() if counts["handled"]}
    return {
        "the plant's ledger balances": here["balanced"],
        "control's ledger balances": there["balanced"],
        "the plant ingested what its sources made": ingested == plant["made"],
        "the plant sent everything that it did not drop": here["queued"] == 0
        and here["ingested"] == sum(plant["sent"].values()) + here["dropped"],
        "control received what the plant sent": control["received"] == sum(plant["sent"].values()),
        "control ingested what it received": there["ingested"] == control["received"],
        "control's handlers handled what it ingested": handled == control["handled"]
        and sum(handled.values()) == there["ingested"],
        "every alarm and heartbeat was handled": all(
            plant["made"].get(kind, 0) == control["handled"].get(kind, 0) for kind in ("Alarm", "Heartbeat")
        ),
    }


def ratio(control: dict[str, Any], what: str) -> float | None:
    """Say how many times longer urgent events took through the FIFO queue; None without any."""
    ours = control["priorities"]["urgent"][what]
    return control["fifo"]["urgent"][what] / ours if ours else None
