"""Run the benchmarks: `python -m benchmarks [name ...]` from the checkout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _harness


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments name, print the tables, return the exit status.

    Returns:
        0; 1 if a contestant failed or a ledger did not balance, or, with `--strict`, if a target was missed.
    """
    options = _options(arguments)
    try:
        chosen = _harness.contests(options.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    report: dict[str, Any] = {"machine": _harness.machine(), "quick": options.quick, "contests": []}
    print(_machine_line(report["machine"]))
    for contest in chosen:
        measured = _harness.measure(contest, quick=options.quick, rounds=options.rounds)
        report["contests"].append(measured)
        print("\n".join(_table(measured)), flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    missed = _harness.missed(report)
    sound = _harness.sound(report)
    print(f"\ntargets missed: {len(missed)}; every run and ledger sound: {'yes' if sound else 'NO'}")
    return 1 if not sound or (options.strict and missed) else 0


def describe_range(spread: Mapping[str, Any]) -> str:
    """Return the median, and the least and the most in brackets."""
    median, least, most = (describe_number(spread[name]) for name in ("median", "min", "max"))
    return f"{median} [{least} - {most}]"


def describe_number(value: float) -> str:
    """Return three figures, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="modules (dispatch, urgent, ...) or contests (dispatch.one)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: shows that it runs")
    parser.add_argument("--rounds", type=int, help="rounds in place of each benchmark's own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    parser.add_argument("--strict", action="store_true", help="a missed target is a failure")
    return parser.parse_args(arguments)


def _machine_line(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version or 'MISSING'}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, {machine['python']}\n{versions}"


def _table(contest: Mapping[str, Any]) -> list[str]:
    units = contest["units"]
    lines = ["", f"{contest['name']}: {contest['title']} ({contest['rounds']} rounds)"]
    width = max(len(name) for name in contest["contestants"])
    for name, entry in contest["contestants"].items():
        lines.append(f"  {name:<{width}}  {_entry(entry, units)}")
    lines += [f"  -> {_verdict(target)}" for target in contest["targets"]]
    return lines


def _entry(entry: Mapping[str, Any], units: Mapping[str, str]) -> str:
    if "missing" in entry:
        return f"MISSING: pip install {entry['missing']} (extra: bench)"
    if "error" in entry:
        return f"FAILED: {entry['error'].splitlines()[-1]}"
    cells = [f"{name} {describe_range(spread)} {units[name]}" for name, spread in entry["figures"].items()]
    ledger = {None: "", True: "ledger balanced", False: "LEDGER NOT BALANCED"}[entry["balanced"]]
    return "; ".join([*cells, *([ledger] if ledger else [])])


def _verdict(target: Mapping[str, Any]) -> str:
    verdict = {None: "not measured", True: "met", False: "MISSED"}[target["met"]]
    what = f"{target['figure']}: {target['of']}"
    what += f" / {target['against']}" if target["against"] else ""
    if target["ratio"] is None:
        return f"{what} wanted {target['wanted']}: {verdict}"
    return f"{what} = {describe_range(target['ratio'])}, wanted {target['wanted']}: {verdict}"


if __name__ == "__main__":
    sys.exit(main())
