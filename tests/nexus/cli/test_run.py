"""Laws about `nexus run`: it runs until it is told to stop, ends within its grace, and reports."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

APP = """
import asyncio
import nexus

domain = nexus.AsyncEventNexus(name="mine", grace=5.0)

class Ticks(nexus.EventConverter):
    async def event_generator(self):
        for number in range(3):
            yield nexus.Event(number, "tick", 0, number)
        print("ready", flush=True)
        await asyncio.Event().wait()

@domain.on("tick")
async def take(event):
    if SLOW:
        await asyncio.Event().wait()

domain.add_converter(Ticks())
"""

LIMIT = 20.0
"""Seconds that a run may take."""


@contextmanager
def running(folder: Path, *options: str, slow: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run the application from its folder, wait until it is ready, and see that it is gone at the end."""
    (folder / "app.py").write_text(APP.replace("SLOW", str(slow)))
    command = (sys.executable, "-m", "nexus.cli", "run", "app:domain", *options)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_it_cleanly(tmp_path: Path, how: signal.Signals) -> None:
    """SIGINT and SIGTERM end it with status 0 and a report in words."""
    with running(tmp_path) as run:
        run.send_signal(how)
        out, err = run.communicate(timeout=LIMIT)
    assert (run.returncode, err) == (0, "")
    assert out.startswith("stopped cleanly")
    assert "ingested 3 = handled 3 +" in out


def test_report_as_json(tmp_path: Path) -> None:
    """With --json the report is one object with the whole ledger."""
    with running(tmp_path, "--json") as run:
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=LIMIT)
    report = json.loads(out)
    assert report["clean"] is True
    assert report["stats"]["balanced"] is True
    assert report["stats"]["types"]["tick"]["handled"] == 3


def test_deadline_that_cuts_is_status_75(tmp_path: Path) -> None:
    """When a handler outlasts the grace period, the status is 75 and the report says what is left."""
    with running(tmp_path, "--grace", "0.2", slow=True) as run:
        run.send_signal(signal.SIGTERM)
        out, _ = run.communicate(timeout=LIMIT)
    assert run.returncode == 75
    assert "stopped at the end of the grace period" in out


def test_negative_grace_is_refused(tmp_path: Path) -> None:
    """A grace period below 0 is an error that names the range."""
    command = (sys.executable, "-m", "nexus.cli", "run", "app:domain", "--grace", "-1")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert "x>=0" in done.stderr
