"""Turn a report into the tables of README.md: `python -m benchmarks._markdown report.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.__main__ import describe_number, describe_range


def main() -> None:
    """Print the tables of the report named on the command line."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, {machine['python']}.")
    print(f"Measured {machine['when']}.")
    print(
        ", ".join(f"{name} {version or 'missing'}" for name, version in machine["versions"].items()) + ".\n"
    )
    print("\n".join(_targets(report)))
    for contest in report["contests"]:
        print("\n".join(_contest(contest)))


def _targets(report: Mapping[str, Any]) -> list[str]:
    lines = ["| benchmark | what | wanted | found [least - most] | |", "|---|---|---|---|---|"]
    for contest in report["contests"]:
        for target in contest["targets"]:
            what = f"{target['figure']}: {target['of']}" + (
                f" / {target['against']}" if target["against"] else ""
            )
            found = describe_range(target["ratio"]) if target["ratio"] else ""
            verdict = {None: "not measured", True: "met", False: "**missed**"}[target["met"]]
            lines.append(f"| {contest['name']} | {what} | {target['wanted']} | {found} | {verdict} |")
    return [*lines, ""]


def _contest(contest: Mapping[str, Any]) -> list[str]:
    units = contest["units"]
    lines = [f"**{contest['name']}**: {contest['title']}. Medians of {contest['rounds']} rounds.", ""]
    lines += [
        "| | " + " | ".join(f"{name}, {unit}" for name, unit in units.items()) + " |",
        "|---" * (len(units) + 1) + "|",
    ]
    for name, entry in contest["contestants"].items():
        cells = [_cell(entry, figure) for figure in units]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(entry: Mapping[str, Any], figure: str) -> str:
    if "figures" not in entry:
        return "missing" if "missing" in entry else "failed"
    spread = entry["figures"][figure]
    if spread["min"] == spread["max"]:
        return describe_number(spread["median"])
    return describe_range(spread)


if __name__ == "__main__":
    main()
