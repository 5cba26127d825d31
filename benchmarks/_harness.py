"""Alternating rounds, each contestant in a fresh process; medians, ranges, ratios, targets."""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from nexus import __version__

ROOT = Path(__file__).resolve().parent.parent
OURS = "event-nexus"
PEERS = (
    "async-nexus",
    "blinker",
    "pyee",
    "psygnal",
    "reactivex",
    "bubus",
    "pyventus",
    "pyzmq",
    "attrs",
    "pyserial-asyncio",
    "serialx",
    "heisskleber",
    "aiomqtt",
)
MODULES = (
    "dispatch",
    "urgent",
    "memory",
    "timers",
    "zmq",
    "zmq_adapter",
    "serial",
    "mqtt",
    "tcp",
    "link",
    "outbox",
)
WORKER_TIMEOUT = 120.0


class MissingPeer(Exception):
    """A peer that is not installed; the text is the distribution's name."""


@attrs.frozen
class Outcome:
    """What one run of one contestant measured."""

    figures: Mapping[str, float]
    """Figures by name, in the units the contest states."""
    balanced: bool | None = None
    """Whether the nexus's ledger balanced after the run; None for contestants that keep none."""


@attrs.frozen
class Target:
    """A promise about the ratio of two contestants' figures."""

    of: str
    against: str
    at_least: float | None = None
    at_most: float | None = None
    figure: str | None = None
    """Which figure; None for the contest's first."""

    @property
    def wanted(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:.4g}"

    def met(self, ratio: float) -> bool:
        return ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0.0)


@attrs.frozen
class Limit:
    """A promise about one contestant's own figure."""

    of: str
    figure: str
    at_most: float

    @property
    def wanted(self) -> str:
        return f"<= {self.at_most:g}"


@attrs.frozen
class Contest:
    """One thing measured, by several contestants in turn."""

    name: str
    title: str
    figures: Mapping[str, str]
    """Unit by name of figure; the first is the one a target means when it names none."""
    contestants: Mapping[str, Callable[..., Outcome]]
    """Called with the parameters below, in a process of its own."""
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    targets: Sequence[Target] = ()
    limits: Sequence[Limit] = ()
    rounds: int = 7
    """The fewest rounds of a full run."""


def contests(names: Iterable[str] = ()) -> list[Contest]:
    """Return the contests of the named modules, or the named contests; all of them for no name.

    Raises:
        ValueError: a name is neither a module's nor a contest's.
    """
    chosen = list(names)
    # Only the modules asked for: what a worker imports is part of the heap it measures on.
    wanted = [m for m in MODULES if not chosen or any(name.split(".")[0] == m for name in chosen)]
    every = [c for m in wanted for c in importlib.import_module(f"benchmarks.{m}").CONTESTS]
    for name in chosen:
        if not any(_named(contest, name) for contest in every):
            known = ", ".join([*MODULES, *(contest.name for contest in every)])
            raise ValueError(f"no benchmark {name!r}; there are {known}")
    return [c for c in every if not chosen or any(_named(c, name) for name in chosen)]


def measure(contest: Contest, *, quick: bool, rounds: int | None = None) -> dict[str, Any]:
    """Run the contest's rounds and return its report, ready for JSON.

    Every round runs each contestant once, in the order they are listed, each in a process of its own.
    """
    count = rounds or (1 if quick else contest.rounds)
    runs: dict[str, list[Outcome]] = {name: [] for name in contest.contestants}
    trouble: dict[str, dict[str, str]] = {}
    load = os.getloadavg()[0]
    for _ in range(count):
        for name in contest.contestants:
            if name in trouble:
                continue
            said = _in_fresh_process(contest.name, name, quick=quick)
            if "figures" in said:
                runs[name].append(Outcome(said["figures"], said["balanced"]))
            else:
                trouble[name] = said
                runs[name].clear()
    return {
        "name": contest.name,
        "title": contest.title,
        "parameters": dict(contest.quick if quick else contest.full),
        "units": dict(contest.figures),
        "rounds": count,
        "load_before": load,
        "contestants": {name: _summary(runs[name], trouble.get(name)) for name in contest.contestants},
        "targets": [_judged(contest, target, runs) for target in contest.targets]
        + [_limited(limit, runs) for limit in contest.limits],
    }


def run_here(contest: str, contestant: str, *, quick: bool) -> dict[str, Any]:
    """Run one contestant once in this process and return what it says, ready for JSON."""
    (chosen,) = contests([contest])
    parameters = chosen.quick if quick else chosen.full
    gc.collect()
    try:
        outcome = chosen.contestants[contestant](**parameters)
    except MissingPeer as missing:
        return {"missing": str(missing)}
    return {"figures": dict(outcome.figures), "balanced": outcome.balanced}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, the versions of the peers among it (None if missing)."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {OURS: __version__, **{name: _version(name) for name in PEERS}},
    }


def peer(module: str, distribution: str) -> Any:
    """Import a peer.

    Raises:
        MissingPeer: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPeer(distribution) from error


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def sound(report: Mapping[str, Any]) -> bool:
    """Say whether every contestant that is installed ran, and every ledger balanced."""
    return all(
        "error" not in entry and entry.get("balanced") is not False
        for contest in report["contests"]
        for entry in contest["contestants"].values()
    )


def missed(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the targets that were measured and not met."""
    return [t for contest in report["contests"] for t in contest["targets"] if t["met"] is False]


def _named(contest: Contest, name: str) -> bool:
    return contest.name == name or contest.name.startswith(f"{name}.")


def _in_fresh_process(contest: str, contestant: str, *, quick: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks._worker", contest, contestant, *(["--quick"] * quick)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=WORKER_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {WORKER_TIMEOUT:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": done.stderr.strip()[-2000:] or f"exit status {done.returncode}"}
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def _summary(runs: Sequence[Outcome], trouble: Mapping[str, str] | None) -> dict[str, Any]:
    if trouble is not None:
        return dict(trouble)
    ledgers = [run.balanced for run in runs if run.balanced is not None]
    return {
        "balanced": all(ledgers) if ledgers else None,
        "figures": {name: _spread([run.figures[name] for run in runs]) for name in runs[0].figures},
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def _judged(contest: Contest, target: Target, runs: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    figure = target.figure or next(iter(contest.figures))
    pairs = list(zip(runs[target.of], runs[target.against], strict=False))
    # The two of one round ran one after the other, so what else the machine did weighs on both.
    ratios = [a.figures[figure] / b.figures[figure] for a, b in pairs if b.figures[figure]]
    spread = _spread(ratios) if ratios else None
    return {
        "of": target.of,
        "against": target.against,
        "figure": figure,
        "wanted": target.wanted,
        "ratio": spread,
        "met": target.met(spread["median"]) if spread else None,
    }


def _limited(limit: Limit, runs: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    values = [run.figures[limit.figure] for run in runs[limit.of]]
    spread = _spread(values) if values else None
    return {
        "of": limit.of,
        "against": None,
        "figure": limit.figure,
        "wanted": limit.wanted,
        "ratio": spread,
        "met": spread["median"] <= limit.at_most if spread else None,
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
