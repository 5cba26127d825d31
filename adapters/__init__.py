"""Data in, data out: one module a transport, imported by its own name (`nexus.adapters.zmq`) or by URL.

An adapter is everything for one transport: a sender, a receiver and a frozen config. It moves data and
knows no events; what becomes an event is decided in `nexus.boundaries`. Importing this package loads
no transport, and no transport imports another.

``open_receiver("mqtt://host/oven/#")`` and ``open_sender("serial:///dev/ttyUSB0?baudrate=115200")`` find
the adapter of a URL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.adapters._endpoint import open_receiver, open_sender

__all__ = ["open_receiver", "open_sender"]


def __getattr__(name: str) -> Any:
    """Load what finds adapters when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module("nexus.adapters._endpoint"), name)
    globals()[name] = found
    return found
