"""A memory sender and receiver on one topic, for the contract."""

from __future__ import annotations

import itertools
from typing import Any, Self

from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender

_numbers = itertools.count()


class MemoryPair:
    """Two halves on a topic of their own; the link breaks when the receiver that helps goes away."""

    name = "memory"
    lossy = False
    can_break = False

    def __init__(self) -> None:
        self.topic = f"contract-{next(_numbers)}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def sender(self, *, packer: Any = None, **options: Any) -> MemorySender[Any]:
        return MemorySender(MemoryConfig(topic=self.topic, **options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> MemoryReceiver[Any]:
        return MemoryReceiver(MemoryConfig(topic=self.topic, **options), unpacker)

    async def ready(self, sender: MemorySender[Any], receiver: MemoryReceiver[Any]) -> None:
        await receiver.start()
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Put a frame on the topic as it is."""
        async with MemorySender[bytes](MemoryConfig(topic=self.topic), lambda data: data) as sender:
            await sender.deliver(payload)
