"""A serial sender and receiver at the two ends of a null modem, for the contract."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Self

from null_modem import NullModem
from real import require

from nexus.adapters import _serial_drivers
from nexus.adapters.serial import SerialConfig, SerialReceiver, SerialSender


class SerialPair:
    """Sends at one end and receives at the other; the link breaks when both devices are unplugged."""

    name = "serial"
    driver = "pyserial"
    lossy = True
    """What the operating system has taken is gone when the device is unplugged."""
    can_break = True
    receiver_first = True

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="nexus-serial-")
        self.cable = NullModem(Path(self.folder.name))
        self.options: dict[str, Any] = {"driver": self.driver, "retry_cap": 0.05}

    async def __aenter__(self) -> Self:
        self.cable.plug()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cable.unplug()
        self.folder.cleanup()

    def sender(self, *, packer: Any = None, **options: Any) -> SerialSender[Any]:
        return SerialSender(SerialConfig(port=self.cable.a, **self.options | options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> SerialReceiver[Any]:
        return SerialReceiver(SerialConfig(port=self.cable.b, **self.options | options), unpacker)

    async def ready(self, sender: SerialSender[Any], receiver: SerialReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Let a line arrive as it is."""
        self.cable.inject(1, payload + b"\n")

    async def break_link(self) -> None:
        """Unplug both devices."""
        self.cable.unplug()
        await asyncio.sleep(0)

    async def mend_link(self) -> None:
        """Plug other devices in."""
        self.cable.plug()


class SerialxPair(SerialPair):
    """The same, over the other driver."""

    name = "serialx"
    driver = "serialx"

    def __init__(self) -> None:
        require("serialx", _serial_drivers.serialx, "pip install 'event-nexus[serialx]'")
        super().__init__()
