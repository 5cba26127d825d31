"""A console sender and receiver at the ends of a pipe, for the contract."""

from __future__ import annotations

import os
from typing import Any, Self

from nexus.adapters.console import ConsoleConfig, ConsoleReceiver, ConsoleSender


class ConsolePair:
    """Two halves on one pipe, as ``sender | receiver`` in a shell; once broken, a pipe stays so."""

    name = "console"
    lossy = False
    can_break = False

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        os.close(self.read_end)
        os.close(self.write_end)

    def sender(self, *, packer: Any = None, **options: Any) -> ConsoleSender[Any]:
        return ConsoleSender(ConsoleConfig(**options), packer, stream=self.write_end)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> ConsoleReceiver[Any]:
        return ConsoleReceiver(ConsoleConfig(**options), unpacker, stream=self.read_end)

    async def ready(self, sender: ConsoleSender[Any], receiver: ConsoleReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Write a line as it is."""
        os.write(self.write_end, payload + b"\n")
