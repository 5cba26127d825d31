"""An MQTT sender and receiver at a mosquitto of their own, for the contract."""

from __future__ import annotations

from typing import Any, Self

from mosquitto import Mosquitto

from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender


class MqttPair:
    """Both with QoS 1 and a session that the broker remembers; the link breaks when the broker ends."""

    name = "mqtt"
    lossy = False
    can_break = True
    receiver_first = True
    options: dict[str, Any] = {"protocol": "3.1.1"}  # noqa: RUF012

    def __init__(self) -> None:
        self.broker = Mosquitto()
        self.port = self.broker.port

    async def __aenter__(self) -> Self:
        await self.broker.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.broker.__aexit__(*exc)

    def config(self, client_id: str, **options: Any) -> MqttConfig:
        usual: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "topic": "contract/data",
            "qos": 1,
            "client_id": client_id,
            "clean_session": False,
            "retry_cap": 0.05,
            "timeout": 5.0,
        }
        return MqttConfig(**usual | self.options | options)

    def sender(self, *, packer: Any = None, **options: Any) -> MqttSender[Any]:
        return MqttSender(self.config("sender", **options), packer)

    def receiver(self, *, unpacker: Any = None, **options: Any) -> MqttReceiver[Any]:
        return MqttReceiver(self.config("receiver", **options), unpacker)

    async def ready(self, sender: MqttSender[Any], receiver: MqttReceiver[Any]) -> None:
        await receiver.connected(5)
        await sender.connected(5)

    async def raw(self, payload: bytes) -> None:
        """Publish a frame as it is."""
        config = self.config("raw", max_size=2**28 - 1)
        async with MqttSender[bytes](config, lambda data: data) as sender:
            await sender.deliver(payload)

    async def break_link(self) -> None:
        """End the broker."""
        self.broker.stop()

    async def mend_link(self) -> None:
        """Start it again, with what it has saved."""
        await self.broker.start()


class Mqtt5Pair(MqttPair):
    """The same with MQTT 5."""

    name = "mqtt5"
    options: dict[str, Any] = {"protocol": "5"}  # noqa: RUF012


class MqttWsPair(MqttPair):
    """The same over WebSockets."""

    name = "mqttws"
    options: dict[str, Any] = {"transport": "websockets"}  # noqa: RUF012

    def __init__(self) -> None:
        self.broker = Mosquitto(websockets={})
        self.port = self.broker.websockets_port
