"""A domain seen by the process that started it: its lines, its orders, its end."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from nexus.errors import NexusError

__all__ = ["Domain", "DomainLost"]

LINE_LIMIT = 2**22
"""Bytes that one line of a domain may have: the last one carries all its figures."""


class DomainLost(NexusError):
    """A domain ended, or fell silent, before it was told to."""


class Domain:
    """A child process that runs one domain.

    Use `start` to make one and `end` to be rid of it; it also ends by itself when this process dies.
    """

    def __init__(self, role: str, process: asyncio.subprocess.Process) -> None:
        self.role = role
        self.process = process
        self.states: tuple[dict[str, Any], ...] = ()
        """The last two states it told, the newer last."""

    @classmethod
    async def start(cls, role: str, settings: Mapping[str, Any]) -> "Domain":
        """Start a Python of the same kind, with the same path, in a session of its own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "nexus.cli.demo", role, orjson.dumps(settings).decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
            limit=LINE_LIMIT,
        )
        return cls(role, process)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    def order(self, order: str, **content: object) -> None:
        """Tell it to do something; lost when it has ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(orjson.dumps({"order": order, **content}) + b"\n")

    async def wait_for(self, says: str, *, timeout: float | None) -> dict[str, Any]:
        """Wait for a certain line, keeping the states that come before it.

        Raises:
            DomainLost: it ended, or the timeout, in seconds and None for none, did.
        """
        try:
            async with asyncio.timeout(timeout):
                async for line in self._lines():
                    if line["says"] == "state":
                        self.states = (*self.states[-1:], line)
                    if line["says"] == says:
                        return line
                status = await self.process.wait()
        except TimeoutError as exc:
            late = f"the {self.role} domain (pid {self.pid}) did not say {says!r} within {timeout:g} s"
            raise DomainLost(late) from exc
        raise DomainLost(
            f"the {self.role} domain (pid {self.pid}) ended with status {status} before {says!r}"
        )

    async def end(self, *, timeout: float = 3.0) -> None:
        """See to it that it is gone: close its line, after the timeout in seconds kill it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    async def _lines(self) -> AsyncIterator[dict[str, Any]]:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            yield orjson.loads(line)
