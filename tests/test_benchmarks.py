"""The benchmarks run, say what they measured in JSON, leave every ledger balanced; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not installed: it is in the checkout only"
)


def report_of(name: str, file: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    "name",
    [
        "dispatch.one", "dispatch.ten", "dispatch.types", "dispatch.many", "dispatch.plain",
        "urgent.idle", "urgent.idle-frozen", "urgent.busy", "urgent.busy-frozen",
        "memory.event", "memory.import", "timers.ticking", "timers.many",
        "zmq.rate", "zmq.round-trip", "zmq_adapter.rate", "tcp.rate",
        "serial.lines", "serial.slow", "mqtt.qos0", "mqtt.qos1", "link.congestion",
        "link.rate", "link.round-trip", "link.durable", "outbox.rate", "outbox.lone",
    ],
)  # fmt: skip
def test_a_benchmark_runs_and_its_ledger_balances(name: str, tmp_path: Path) -> None:
    """Every installed contestant gives its figures, a missing one is named, and our ledger balances."""
    (contest,) = report_of(name, tmp_path / "report.json")["contests"]
    assert contest["targets"]
    for contestant, entry in contest["contestants"].items():
        if "missing" in entry:
            assert "event-nexus" not in contestant
            continue
        assert set(entry["figures"]) == set(contest["units"])
        assert entry["balanced"] is not False


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    """A name that is no benchmark's ends with status 2 and says which there are."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dispatch.eleven"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 2
    assert "dispatch.ten" in done.stderr
