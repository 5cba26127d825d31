"""The watch that conftest.py keeps over every test sees what it is there to see."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

SAMPLES = """
import asyncio, socket, threading
import pytest

kept = []
forever = threading.Event()

@pytest.fixture(scope="module")
def module_socket():
    with socket.socket() as opened:
        yield opened

async def fail():
    raise ValueError

async def turn():
    await asyncio.sleep(0)

async def good_tasks():
    assert asyncio.get_running_loop().get_debug()
    async with asyncio.TaskGroup() as group:
        group.create_task(turn())
    await asyncio.to_thread(len, ())

def good_wide_socket(module_socket):
    assert module_socket.fileno() > 0

async def bad_task():
    kept.append(asyncio.create_task(asyncio.Event().wait()))

async def bad_unread_failure():
    task = asyncio.create_task(fail())
    await turn()
    await turn()

def bad_callback():
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await turn()
    asyncio.run(main())

def bad_pending_task():
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.Event().wait())
    loop.run_until_complete(turn())
    loop.close()

def bad_thread():
    threading.Thread(target=forever.wait, daemon=True).start()

def bad_socket():
    kept.append(socket.socket())
"""


def test_watch_fails_the_bad_and_only_the_bad(tmp_path: Path) -> None:
    """Each sample that leaves something behind ends in an error, and no good one does."""
    shutil.copy(HERE / "conftest.py", tmp_path)
    shutil.copy(HERE.parent / "setup.cfg", tmp_path)
    (tmp_path / "test_samples.py").write_text(SAMPLES)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-rA",
            "-o",
            "python_functions=good_* bad_*",
            ".",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    names = SAMPLES.split("\ndef ") + SAMPLES.split("\nasync def ")
    bad = {name.partition("(")[0] for name in names if name.startswith("bad_")}
    erred = {
        line.split("::")[1].split()[0] for line in run.stdout.splitlines() if line.startswith("ERROR test_")
    }
    assert erred == bad, run.stdout
    assert "8 passed" in run.stdout, run.stdout
