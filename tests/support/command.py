"""The `nexus` command as a process of its own."""

import asyncio
import os
import signal
import sys
from typing import Self

__all__ = ["Command"]

PATIENCE = 30.0
"""Seconds until it must have said or done what is waited for."""


class Command:
    """One run of the command; killed at the end of the block if it still runs.

    Args:
        arguments: of the command.
        env: variables besides those of the tests.
    """

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self._arguments = arguments
        self._env = {**os.environ, "COLUMNS": "200", **(env or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._said = b""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nexus.cli", *self._arguments),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=self._env,
            limit=2**20,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.end()

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said this on its standard error."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while self._said.count(text.encode()) < times:
                line = await self.process.stderr.readline()
                assert line, f"it never said {text!r}: {self._said!r}"
                self._said += line

    async def line(self) -> str:
        """Wait for a line of its standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode()

    async def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        await self.end()

    async def interrupt(self) -> tuple[int, str, str]:
        """Send SIGINT and wait for the end; see `end`."""
        self.process.send_signal(signal.SIGINT)
        return await self.end()

    async def end(self, data: bytes | None = None) -> tuple[int, str, str]:
        """Give it an input, wait for its end; return the exit status, what it printed, and what it said."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate(data)
        assert self.process.returncode is not None
        self._said += err
        return self.process.returncode, out.decode(), self._said.decode()
