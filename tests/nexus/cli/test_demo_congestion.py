"""Laws about `nexus demo congestion`: real processes, a slow line, and what it says at its end."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nexus.cli.demo._congestion_relay import SlowLine

DEMO = (sys.executable, "-m", "nexus.cli", "demo")
LIMIT = 45.0
"""Seconds that any run may take."""


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run a demo to its end."""
    return subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=LIMIT, check=False)


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo, wait until it shows something, and see that it is gone at the end."""
    with subprocess.Popen(
        [*DEMO, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            run.stdout.readline()
            yield run
        finally:
            run.kill()


def parts_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """List the five processes of a demo, in the order of their start."""
    parts: list[psutil.Process] = psutil.Process(run.pid).children()
    assert len(parts) == 5
    return sorted(parts, key=lambda each: each.pid)


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """What two seconds tell as JSON."""
    done = demo("congestion", "--seconds", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_every_event_arrives(summary: dict[str, Any]) -> None:
    """Over both ways control handles what the plant made, and all ledgers balance."""
    assert summary["balanced"] is True
    for way in ("plain", "link"):
        assert summary[way]["handled"] == summary[way]["made"] > 1000
        assert summary[way]["alarms"] >= 10


def test_alarms_overtake_on_the_link_alone(summary: dict[str, Any]) -> None:
    """An alarm waits for the whole of the sockets' buffers, and with the link for next to nothing of them."""
    assert summary["link"]["p50"] < summary["plain"]["p50"] / 3
    assert summary["link"]["rate"] > summary["plain"]["rate"] / 5


def test_ends_with_the_two_waiting_times() -> None:
    """Into a pipe go plain lines, and the last two are what an alarm waited."""
    done = demo("congestion", "--seconds", "1.5")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1.0 s | plain TCP: alarms ")
    assert lines[-2].startswith("plain TCP: ")
    assert lines[-1].startswith("link:      ")


def test_interrupt_ends_the_flood_early() -> None:
    """The first Ctrl-C is a short demo: all that was under way arrives, status 0, no process left."""
    with running("congestion", "--seconds", "600") as run:
        parts = parts_of(run)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=LIMIT)
        assert (run.returncode, err) == (0, "")
        assert out.count("✓") == 2
    assert psutil.wait_procs(parts, timeout=LIMIT)[1] == []


@pytest.mark.parametrize("which", [2, 4], ids=["relay", "plant"])
def test_lost_process_is_an_error(which: int) -> None:
    """When a process dies, the command says which, ends the others, and fails."""
    with running("congestion", "--seconds", "600") as run:
        parts = parts_of(run)
        parts[which].kill()
        _, err = run.communicate(timeout=LIMIT)
        assert run.returncode == 1
        assert f"(pid {parts[which].pid}) ended with status -9 before 'end'" in err
    assert psutil.wait_procs(parts, timeout=LIMIT)[1] == []


def test_options_go_behind_the_subcommand() -> None:
    """An option that stands before the subcommand is an error, and is not passed over."""
    done = demo("--seconds", "1", "congestion")
    assert done.returncode == 2
    assert "options of congestion go behind it" in done.stderr


def test_line_carries_its_rate() -> None:
    """A line of 1 MB/s carries 300 kB unchanged, in three tenths of a second."""
    data = bytes(range(250)) * 1200
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = SlowLine(listener.getsockname()[1], 1e6)
        with socket.create_connection(("127.0.0.1", line.port)) as near, listener.accept()[0] as far:
            began = time.monotonic()
            sending = threading.Thread(target=near.sendall, args=(data,))
            sending.start()
            came = b""
            while len(came) < len(data):
                came += far.recv(65536)
            lasted = time.monotonic() - began
            sending.join()
        line.close()
    assert came == data
    assert 0.28 < lasted < 5.0


def test_capture_is_an_svg(tmp_path: Path) -> None:
    """The picture for the documentation is a drawing with both waiting times, which fetches nothing."""
    path = tmp_path / "congestion.svg"
    done = demo("congestion", "--seconds", "1", "--json", "--capture", str(path))
    assert done.returncode == 0
    drawn = path.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "plain" in drawn
    assert "readings" in drawn
    assert "url(" not in drawn.replace("url(#", "")
