"""A real MQTT broker of the test's own: mosquitto, on a free port of the loopback."""

import asyncio
import getpass
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from real import find_program, free_port, require

__all__ = ["Mosquitto"]

PATIENCE = 10.0
"""Seconds until it must have come up or gone."""

TRIES = 5
TAKEN = ("Unable to create websockets listener", "Address already in use")
"""What it says of a port that somebody else has."""

LOSSLESS = {
    "persistence": "true",
    "max_queued_messages": "0",
    "max_queued_bytes": "0",
    "max_inflight_messages": "0",
    "allow_anonymous": "true",
}
"""With its defaults it forgets its sessions when it ends, and drops what exceeds 1000 messages a client."""


class Mosquitto:
    """One mosquitto, which may be ended and started again on the same port with what it has saved.

    It saves when it is ended with `stop`, not when it is killed.

    Args:
        options: lines of its configuration, over `LOSSLESS`; None leaves one out.
        listener: lines that belong to the listener, such as its certificates.
        websockets: lines of a second listener, for WebSockets, at `websockets_port`; None for none.
    """

    def __init__(
        self,
        options: Mapping[str, str | None] | None = None,
        listener: Mapping[str, str] | None = None,
        websockets: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.websockets_port = free_port()
        self._options: dict[str, str | None] = {**LOSSLESS, **(options or {})}
        self._listener = listener or {}
        self._websockets = websockets
        self._folder = tempfile.TemporaryDirectory(prefix="nexus-mosquitto-")
        self._process: subprocess.Popen[bytes] | None = None
        self._was_up = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (Path(self._folder.name) / "log").read_text(encoding="utf-8", errors="replace")

    async def start(self) -> None:
        """Start it, and wait until it listens. Skips the test where mosquitto is missing.

        A port that was free may have been taken since: the first start then tries others.
        """
        for left in reversed(range(TRIES)):
            self._begin()
            try:
                await self._come_up()
                break
            except AssertionError:
                if not left or not any(words in self.log for words in TAKEN):
                    raise
                if not self._was_up:
                    self.port, self.websockets_port = free_port(), free_port()
        self._was_up = True

    def _begin(self) -> None:
        program = find_program("mosquitto")
        require("mosquitto", program, "apt-get install mosquitto")
        assert program is not None
        folder = Path(self._folder.name)
        lines = [f"listener {self.port} 127.0.0.1", *(f"{k} {v}" for k, v in self._listener.items())]
        if self._websockets is not None:
            # Alone it would not do: mosquitto 2.0 counts only the others, and ends where there are none.
            lines += [f"listener {self.websockets_port} 127.0.0.1", "protocol websockets"]
            lines += [f"{name} {value}" for name, value in self._websockets.items()]
        # Started by root it would become another user, who may not write there.
        options = {"persistence_location": f"{folder}/", "user": getpass.getuser(), **self._options}
        lines += [f"{name} {value}" for name, value in options.items() if value is not None]
        (folder / "conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(folder / "conf")], stdout=log, stderr=subprocess.STDOUT
            )

    async def _come_up(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            while not await self._listens():
                assert self._process.poll() is None, self.log
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        """End it; it saves its sessions and messages first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; what it did not save is lost."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still: its connections stay, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def restart(self) -> None:
        """End it and start it again."""
        self.stop()
        await self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE)

    async def _listens(self) -> bool:
        for port in (self.port,) if self._websockets is None else (self.port, self.websockets_port):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
        return True
