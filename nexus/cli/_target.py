"""From `module:attribute` on the command line to a nexus."""

import asyncio
import importlib
import inspect
import os
import sys
from types import ModuleType

import click

from nexus import AsyncEventNexus

__all__ = ["is_file", "load"]


def is_file(target: str) -> bool:
    """Say whether a target is a file that describes a nexus."""
    return target.endswith(".toml")


def load(target: str) -> AsyncEventNexus:
    """Import what `module:attribute` names and return the nexus that it is or makes; or make that of a file.

    The current directory is importable. The attribute may be dotted; it is an `AsyncEventNexus`, or a plain
    or coroutine function without required arguments that returns one.

    Raises:
        click.BadParameter: it is not of this form, is not there, or is something else. An error inside the
        module
            or the function passes as it is.
    """
    if is_file(target):
        from nexus.cli._configured import load_file

        return load_file(target).nexus
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        raise click.BadParameter(f"{target!r} is not of the form module:attribute, such as app:nexus")
    found = find(name, attribute)
    if isinstance(found, AsyncEventNexus):
        return found
    made = call(found, target) if callable(found) and not isinstance(found, type) else found
    if not isinstance(made, AsyncEventNexus):
        how = "gives" if made is not found else "is"
        raise click.BadParameter(
            f"{target!r} {how} {describe(made)}; "
            "it must be an AsyncEventNexus, or a function without arguments that returns one"
        )
    return made


def find(name: str, attribute: str) -> object:
    """Import a module and follow the dots of the attribute."""
    module = import_from_here(name)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            where = (
                f"module {name!r} ({module.__file__})"
                if found is module
                else f"{describe(found)} in {name!r}"
            )
            raise click.BadParameter(f"{where} has no attribute {part!r}; it has {names_in(found)}")
        found = getattr(found, part)
    return found


def import_from_here(name: str) -> ModuleType:
    """Import a module with the current directory in front of the path.

    Only the absence of the module itself is a wrong argument; what goes wrong inside it is its own.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        looked = f"the current directory, {here}, and the installed packages were searched"
        raise click.BadParameter(f"there is no module {exc.name!r} for {name!r}; {looked}") from exc


def call(function: object, target: str) -> object:
    """Call a plain or coroutine function that needs no argument."""
    assert callable(function)
    try:
        inspect.signature(function).bind()
    except TypeError as exc:
        raise click.BadParameter(f"{target!r} is called without arguments, and has a {exc}") from exc
    made = function()
    return asyncio.run(waited(made)) if inspect.isawaitable(made) else made


async def waited(made: object) -> object:
    """Wait for an awaitable of any kind: `asyncio.run` takes coroutines only."""
    assert inspect.isawaitable(made)
    result: object = await made
    return result


def names_in(found: object) -> str:
    """List the public names a reader may have meant, nexuses first."""
    names = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
    names.sort(key=lambda name: (not isinstance(getattr(found, name, None), AsyncEventNexus), name))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more if names else "no public names"


def describe(found: object) -> str:
    """Say what an object is: the class and where it is from."""
    if found is None:
        return "None"
    kind = found if isinstance(found, type) else type(found)
    article = "the class" if isinstance(found, type) else "an object of class"
    return f"{article} {kind.__module__}.{kind.__qualname__}"
