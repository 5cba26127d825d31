"""A process that receives over MQTT and writes down what it has handled; its test kills it at will.

Arguments: port, transport, version of MQTT, when it acknowledges (``handled`` or ``received``), file.
"""

import asyncio
import os
import sys
from typing import Any

from nexus.adapters import _mqtt_receiver
from nexus.adapters.mqtt import MqttConfig, MqttReceiver


class Hasty(MqttReceiver[Any]):
    """Acknowledges what it receives at once."""

    def _token(self, *arguments: Any) -> _mqtt_receiver.Token | None:
        token = super()._token(*arguments)
        if token is not None:
            self.accept({"ack": token})
        return token


async def main(port: str, transport: Any, protocol: Any, when: str, file: str) -> None:
    """Handle items until killed."""
    config = MqttConfig(
        host="127.0.0.1",
        port=int(port),
        transport=transport,
        topic="loss",
        qos=1,
        protocol=protocol,
        client_id="consumer",
        clean_session=False,
        retry_cap=0.05,
    )
    receiver: MqttReceiver[Any] = (Hasty if when == "received" else MqttReceiver)(config)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with receiver:
        while True:
            items = await receiver.receive_many(16)
            await asyncio.sleep(0.005)  # what it is busy with, and what most kills come into
            os.write(descriptor, b"".join(b"%d\n" % data["i"] for data, _ in items))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
