"""Laws about the tree, the packages made from it, and what importing them costs."""

import configparser
import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nexus

HERE = Path(__file__).parent
SETUP = HERE.parent / "setup.cfg"
ROOT = Path(nexus.__file__).parent
IS_CHECKOUT = ROOT.is_relative_to(HERE.parent)
TRANSPORTS = ("zmq", "aiomqtt", "paho", "serial", "serial_asyncio", "orjson", "click", "rich", "psutil")


def modules() -> Iterator[tuple[str, bool]]:
    """Name every module of the three roots, through the links as users see them, and tell packages apart."""
    for folder, _, files in os.walk(ROOT, followlinks=True):
        package = ".".join(("nexus", *Path(folder).relative_to(ROOT).parts))
        for file in files:
            if file.endswith(".py"):
                is_package = file == "__init__.py"
                yield package if is_package else f"{package}.{file.removesuffix('.py')}", is_package


FOUND = sorted(modules())
MODULES = [name for name, _ in FOUND if not name.endswith("__main__")]


def options() -> configparser.SectionProxy:
    """Read the section of setup.cfg that says what is installed."""
    config = configparser.ConfigParser()
    config.read(SETUP)
    return config["options"]


def test_listed_packages_are_the_folders() -> None:
    """The packages in setup.cfg are the folders that hold Python files, each once."""
    listed = options()["packages"].split()
    assert sorted(listed) == sorted(
        {name if is_package else name.rpartition(".")[0] for name, is_package in FOUND}
    )


def test_mapped_packages_are_the_linked_folders() -> None:
    """The build maps exactly the two folders that the tree links; what lies below them follows."""
    mapped = dict(line.split(" = ") for line in options()["package_dir"].strip().splitlines())
    assert mapped == {"nexus.adapters": "adapters", "nexus.boundaries": "boundaries"}


@pytest.mark.parametrize("name", ["adapters", "boundaries"])
def test_roots_are_links_in_the_tree_and_folders_when_installed(name: str) -> None:
    """A checkout links nexus/NAME to ../NAME; an installed package holds the files themselves."""
    path = ROOT / name
    assert path.is_symlink() == IS_CHECKOUT
    assert not IS_CHECKOUT or os.readlink(path) == f"../{name}"
    assert (path / "__init__.py").is_file()


def test_version_is_the_distributions() -> None:
    """The package says the version it was installed as."""
    assert nexus.__version__ == importlib.metadata.version("event-nexus")


def test_package_is_typed() -> None:
    """The marker that lets type checkers read our annotations is installed."""
    assert (ROOT / "py.typed").is_file()


@pytest.mark.parametrize("package", ["nexus", "nexus.adapters", "nexus.boundaries"])
def test_import_loads_no_transport(package: str) -> None:
    """Importing a root loads no transport and no optional part."""
    code = f"import sys, {package}; print(*(set({TRANSPORTS!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30, cwd="/"
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist(name: str) -> None:
    """Every name in a module's `__all__` exists and is listed once."""
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(public) == len(set(public))
    assert [each for each in public if not hasattr(module, each)] == []


def test_import_loads_the_runtime_when_it_is_asked_for() -> None:
    """`import nexus` loads neither asyncio nor attrs; the first name brings all of them."""
    program = (
        "import sys, nexus; print('asyncio' in sys.modules, 'attr' in sys.modules);"
        "nexus.Event; print('asyncio' in sys.modules, all(hasattr(nexus, name) for name in nexus.__all__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["False", "False", "True", "True"]
