"""Data over an MQTT broker, MQTT 3.1.1 or 5: ``mqtt://user:password@host:port/topic?qos=1``.

What is received with QoS 1 or 2 is acknowledged when the program has accepted it and not before; what is
sent is pipelined, and sent again after a reconnect until the broker has acknowledged it. ``mqtts://`` is
TLS; ``mqtt+ws://`` and ``mqtts+ws://`` go through WebSockets.
"""

from __future__ import annotations

from nexus.adapters._endpoint import Adapter
from nexus.adapters._mqtt_config import MqttConfig, Will
from nexus.adapters._mqtt_receiver import MqttReceiver
from nexus.adapters._mqtt_sender import MqttSender

__all__ = ["ADAPTER", "MqttConfig", "MqttReceiver", "MqttSender", "Will"]

ADAPTER = Adapter(
    name="MQTT",
    schemes=("mqtt", "mqtts", "mqtt+ws", "mqtts+ws"),
    config=MqttConfig,
    sender=MqttSender,
    receiver=MqttReceiver,
    summary="over a broker: mqtt://host/topic?qos=1",
)
