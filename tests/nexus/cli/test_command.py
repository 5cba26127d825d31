"""Laws about the `nexus` command as a whole: what it offers, and what it says to a wrong target."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import nexus
from nexus.cli import main

APP = """
import nexus

domain = nexus.AsyncEventNexus(name="mine")
number = 7

def made():
    return domain

async def made_later():
    return domain

def wants(argument):
    return domain

def empty():
    pass

class Holder:
    inner = domain
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, under a name that no other test uses."""
    name = f"app_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(APP)
    (tmp_path / f"broken_{name}.py").write_text("import there_is_no_such_thing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_version_is_told() -> None:
    """`nexus --version` says the version of the package."""
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"nexus, version {nexus.__version__}\n")


def test_help_lists_every_command() -> None:
    """`nexus --help` names each command with a sentence."""
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert "demo Watch urgent events overtake a flood." in said
    assert "graph Print a nexus as a Mermaid flow chart." in said
    assert "run Run a nexus until SIGINT or SIGTERM, then report." in said


def test_unknown_command_is_an_error() -> None:
    """A command that is not there ends with status 2 and is named."""
    done = CliRunner().invoke(main, ["fly"])
    assert done.exit_code == 2
    assert "No such command 'fly'" in done.output


@pytest.mark.parametrize("attribute", ["domain", "made", "made_later", "Holder.inner"])
def test_target_is_a_nexus_or_makes_one(app: str, attribute: str) -> None:
    """A nexus, a plain function, a coroutine function and a dotted attribute all name the nexus."""
    done = CliRunner().invoke(main, ["graph", f"{app}:{attribute}"])
    assert (done.exit_code, done.exception) == (0, None)
    assert 'subgraph nexus0["mine"]' in done.output


WRONG = [
    ("{app}", ["not of the form module:attribute", "'{app}'"]),
    ("{app}:", ["not of the form module:attribute"]),
    (":domain", ["not of the form module:attribute"]),
    ("no_{app}:domain", ["no module 'no_{app}'", "current directory"]),
    ("{app}.inner:domain", ["no module '{app}.inner'"]),
    ("{app}:absent", ["has no attribute 'absent'", "it has domain, ", "made_later"]),
    ("{app}:Holder.absent", ["the class {app}.Holder", "has no attribute 'absent'", "it has inner"]),
    ("{app}:number", ["is an object of class builtins.int", "AsyncEventNexus"]),
    ("{app}:Holder", ["is the class {app}.Holder"]),
    ("{app}:empty", ["gives None"]),
    ("{app}:wants", ["called without arguments", "'argument'"]),
]


@pytest.mark.parametrize(("target", "words"), WRONG)
@pytest.mark.parametrize("command", ["graph", "run"])
def test_wrong_target_says_what_was_found(app: str, command: str, target: str, words: list[str]) -> None:
    """The error names what was asked, what was found, and what there is; its status is 2."""
    done = CliRunner().invoke(main, [command, target.format(app=app)])
    said = " ".join(done.output.split())
    assert done.exit_code == 2
    assert [each for each in words if each.format(app=app) not in said] == []


def test_error_inside_the_module_stays_itself(app: str) -> None:
    """A module that fails to import something else is not called missing."""
    done = CliRunner().invoke(main, ["run", f"broken_{app}:domain"])
    assert isinstance(done.exception, ModuleNotFoundError)
    assert done.exception.name == "there_is_no_such_thing"


@pytest.mark.parametrize("missing", ["psutil", "rich"])
def test_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the extra brings, the demo says which extra to install."""
    monkeypatch.setattr("nexus.cli.demo.find_spec", lambda name: None if name == missing else object())
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert f"needs {missing}: install the extra, pip install 'event-nexus[demo]'" in done.output
