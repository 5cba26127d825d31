"""Runs a demo, and turns its troubles into one line for the terminal."""

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from nexus.errors import NexusError

__all__ = ["run"]

T = TypeVar("T")


def run(demo: Coroutine[Any, Any, T]) -> T:
    """Run a demo to its end and return what it returns.

    Raises:
        click.ClickException: a domain was lost, or would not stop.
        BrokenPipeError: whoever read the output is gone.
    """
    try:
        return asyncio.run(demo)
    except (NexusError, TimeoutError, ExceptionGroup) as exc:
        lost, other = ExceptionGroup("", [exc]).split((NexusError, TimeoutError))
        if other is not None and (broken := other.subgroup(BrokenPipeError)) is not None:
            raise BrokenPipeError(errno.EPIPE, "whoever read the output is gone") from broken
        if lost is None or other is not None:
            raise
        raise click.ClickException("; ".join(reasons(lost))) from exc


def reasons(error: Exception) -> list[str]:
    """List what the leaves of a group say, each once."""
    if isinstance(error, ExceptionGroup):
        return list(dict.fromkeys(reason for each in error.exceptions for reason in reasons(each)))
    return [str(error) or "a domain would not stop"]
