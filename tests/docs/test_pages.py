"""Every block of code in README.md and docs/ runs.

On a page, in order and in one namespace:

- a ``python`` block is executed, `asyncio.run` in virtual time; then its functions ``test_...`` are called;
- a ``python`` or ``toml`` block that begins with a comment such as ``# app.py`` is written to that file;
- a ``console`` block is run in the folder of those files: commands after ``$``, and their output;
- a ``text`` block right after a ``python`` block is what that one prints;
- a ``sh`` block holds the two commands of README.md, which `.ci/run` runs.

A page that speaks of ``$BROKER`` gets a real MQTT broker there.
"""

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from mosquitto import Mosquitto

from nexus.testing import run

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PATIENCE = 30.0
"""Seconds that the commands of one block may take."""
COMMANDS = """\
python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/nexus demo
python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest
"""
FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|toml))\n")


@attrs.frozen
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Where its text begins in the page, from 1."""
    follows: bool
    """Whether nothing but blank lines stands between it and the block before."""


def blocks(page: str) -> Iterator[Block]:
    """Find the fenced blocks of a page; directives such as ``{toctree}`` are not code."""
    end = 0
    for found in FENCE.finditer(page):
        if not found["language"].startswith("{"):
            line = page.count("\n", 0, found.start("text")) + 1
            yield Block(found["language"], found["text"], line, not page[end : found.start()].strip())
        end = found.end()


class Page:
    """Runs the blocks of one page."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.printed: str | None = None

    def run_all(self, text: str) -> None:
        """Run the page's blocks in their order."""
        for block in blocks(text):
            self.run(block)

    def run(self, block: Block) -> None:
        """Run one block, or hold it against what the one before has printed."""
        printed, self.printed = self.printed, None
        match block.language:
            case "python" | "toml" if file := FILE.match(block.text):
                (self.folder / file[1]).write_text(block.text, encoding="utf-8")
            case "python":
                self.printed = self.execute(block)
            case "console":
                assert self.talk(block.text) == block.text, f"{self.path.name}, line {block.line}"
            case "text" if block.follows and printed is not None:
                assert printed == block.text, f"{self.path.name}, line {block.line}"
            case "text":
                pass
            case "sh":
                assert block.text in COMMANDS
            case language:
                pytest.fail(f"{self.path.name}, line {block.line}: nobody runs blocks of {language!r}")

    def execute(self, block: Block) -> str:
        """Execute Python, with the page's own line numbers; return what it printed."""
        code = compile("\n" * (block.line - 1) + block.text, self.path, "exec")
        before = set(self.namespace)
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.chdir(self.folder):
            exec(code, self.namespace)
            for name in self.namespace.keys() - before:
                if name.startswith("test_"):
                    self.namespace[name]()
        return out.getvalue()

    def talk(self, text: str) -> str:
        """Run the commands of a console block; return them and their output as a console shows them."""
        shown = ""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for line in text.splitlines():
            if line.startswith("$ "):
                done = subprocess.run(
                    ["bash", "-c", line[2:]],
                    cwd=self.folder,
                    env={**os.environ, "PATH": path, "COLUMNS": "80"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                shown += f"{line}\n{done.stdout}"
        return shown


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real MQTT broker at ``$BROKER``."""
    broker = Mosquitto()
    asyncio.run(broker.start())
    monkeypatch.setenv("BROKER", f"127.0.0.1:{broker.port}")
    yield
    asyncio.run(broker.__aexit__())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every block of the page runs, and prints what the page says it prints."""
    text = path.read_text(encoding="utf-8")
    if "$BROKER" in text:
        request.getfixturevalue("broker")
    monkeypatch.setattr(asyncio, "run", run)
    Page(path, tmp_path).run_all(text)


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",
        "```python\ndef test_it():\n    assert False\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```console\n$ echo 1\n2\n```\n",
        "```sh\nrm -r somewhere\n```\n",
        "```yaml\na: 1\n```\n",
    ],
)
def test_a_wrong_block_fails(text: str, tmp_path: Path) -> None:
    """A block that raises, prints something else, or that nobody runs fails its page."""
    page = Page(tmp_path / "page.md", tmp_path)
    with pytest.raises((ZeroDivisionError, AssertionError, pytest.fail.Exception)):
        page.run_all(text)
