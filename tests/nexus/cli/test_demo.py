"""Laws about `nexus demo` as a user runs it: two real processes, real sockets, a real end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

DEMO = (sys.executable, "-m", "nexus.cli", "demo")
LIMIT = 45.0
"""Seconds that any run may take."""


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo and see that it is gone at the end."""
    with subprocess.Popen(
        [*DEMO, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def domains_of(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    """List the demo's child processes."""
    return psutil.Process(demo.pid).children()


def first_line(demo: subprocess.Popen[str]) -> str:
    """Wait until the demo shows something: then both domains run."""
    assert demo.stdout is not None
    return demo.stdout.readline()


@pytest.fixture(scope="module")
def summary() -> dict[str, object]:
    """What a demo of two seconds tells as JSON."""
    done = subprocess.run([*DEMO, "--seconds", "2", "--json"], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_every_event_is_accounted_for(summary: dict[str, dict[str, object]]) -> None:
    """All checks agree: both ledgers, both independent counts, and the wire between."""
    assert summary["balanced"] is True
    assert set(summary["checks"].values()) == {True}
    assert summary["received"] == summary["sent"]


def test_flood_is_more_than_control_can_do(summary: dict[str, dict[str, int]]) -> None:
    """Readings are dropped, by policy and by reason; alarms and heartbeats are not."""
    assert set(summary["dropped"]) <= {"MachineReading", "ProcessReading"}
    assert sum(summary["made"].values()) > sum(summary["handled"].values())
    assert summary["made"]["Alarm"] == summary["handled"]["Alarm"] >= 50


def test_urgent_overtakes_the_flood(summary: dict[str, dict[str, dict[str, float]]]) -> None:
    """Of a hundred alarms 99 are handled sooner than the slow end of the flood, and than through a FIFO."""
    latency, same = summary["latency"], summary["same_flood"]
    assert latency["Alarm"]["p99"] < latency["ProcessReading"]["p99"]
    assert same["nexus"]["urgent"]["p99"] < same["fifo"]["urgent"]["p99"]  # type: ignore[index]


def test_lines_where_there_is_no_terminal() -> None:
    """Into a pipe go plain lines, then the summary; no escape sequence."""
    done = subprocess.run([*DEMO, "--seconds", "1.5"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "Alarm [-10]" in done.stdout.splitlines()[0]
    assert done.stdout.count("✓") == 8
    assert "✗" not in done.stdout


def test_interrupt_ends_the_flood_early() -> None:
    """The first Ctrl-C is a short demo: summary, status 0, no process left."""
    with running("--seconds", "600", "--plain") as demo:
        first_line(demo)
        domains = domains_of(demo)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=LIMIT)
        assert (demo.returncode, err) == (0, "")
        assert "every alarm and heartbeat was handled" in out
    assert len(domains) == 2
    assert psutil.wait_procs(domains, timeout=LIMIT)[1] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_domains_do_not_outlive_the_command(how: signal.Signals) -> None:
    """However the command is killed, both domains end by themselves."""
    with running("--seconds", "600", "--plain") as demo:
        first_line(demo)
        domains = domains_of(demo)
        os.kill(demo.pid, how)
        demo.wait(LIMIT)
    assert len(domains) == 2
    assert psutil.wait_procs(domains, timeout=10.0)[1] == []


@pytest.mark.parametrize("which", [0, 1])
def test_lost_domain_is_an_error(which: int) -> None:
    """When a domain dies, the command says which, ends the other, and fails."""
    with running("--seconds", "600", "--plain") as demo:
        first_line(demo)
        domains = domains_of(demo)
        domains[which].kill()
        _, err = demo.communicate(timeout=LIMIT)
        assert demo.returncode == 1
        last = err.splitlines()[-1]
        assert last.startswith("Error: the ")
        assert f"domain (pid {domains[which].pid}) ended with status -9 before 'end'" in last
    assert psutil.wait_procs(domains, timeout=LIMIT)[1] == []


def test_reader_that_goes_away_ends_it() -> None:
    """When nobody reads the lines any more, as in `nexus demo | head -1`, it ends without a traceback."""
    with running("--seconds", "600", "--plain") as demo:
        first_line(demo)
        domains = domains_of(demo)
        assert demo.stdout is not None
        demo.stdout.close()
        demo.wait(LIMIT)
        assert demo.stderr is not None
        assert (demo.returncode, demo.stderr.read()) == (1, "")
    assert psutil.wait_procs(domains, timeout=LIMIT)[1] == []


def test_capture_is_an_svg(tmp_path: Path) -> None:
    """The picture for the documentation is a drawing of fixed width with the table in it."""
    path = tmp_path / "demo.svg"
    subprocess.run(
        [*DEMO, "--seconds", "1.5", "--json", "--capture", path],
        check=True,
        timeout=LIMIT,
        capture_output=True,
    )
    drawn = path.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "ProcessReading" in drawn
    assert "url(" not in drawn.replace("url(#", "")
