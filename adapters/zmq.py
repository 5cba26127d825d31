"""Data over ZMQ: PUB and SUB through a broker or directly, PUSH and PULL.

``zmq://host`` is an XSUB/XPUB broker (``nexus zmq-broker``), in the layout of heisskleber: senders connect to
its ``publisher_port``, receivers to its ``subscriber_port``. ``zmq+pub``, ``zmq+sub``, ``zmq+push`` and
``zmq+pull`` go directly to a host and port; PUB and PULL bind there, SUB and PUSH connect, unless ``bind``
says otherwise. A message is ``[topic, data]``.
"""

from __future__ import annotations

from nexus.adapters._endpoint import Adapter
from nexus.adapters._zmq_config import ZmqConfig
from nexus.adapters._zmq_receiver import ZmqReceiver
from nexus.adapters._zmq_sender import ZmqSender

__all__ = ["ADAPTER", "ZmqConfig", "ZmqReceiver", "ZmqSender"]

ADAPTER = Adapter(
    name="ZMQ",
    schemes=("zmq", "zmq+pub", "zmq+sub", "zmq+push", "zmq+pull"),
    config=ZmqConfig,
    sender=ZmqSender,
    receiver=ZmqReceiver,
    summary="PUB/SUB through a broker (zmq://host) or directly, PUSH/PULL: zmq+push://host:port",
    sends=("zmq", "zmq+pub", "zmq+push"),
    receives=("zmq", "zmq+sub", "zmq+pull"),
)
