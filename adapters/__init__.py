"""Data in, data out: one module a transport, imported by its own name (`nexus.adapters.zmq`) or by URL.

An adapter is everything for one transport: a sender, a receiver and a frozen config. It moves data and
knows no events; what becomes an event is decided in `nexus.boundaries`. Importing this package loads
no transport, and no transport imports another.

- use: `open_receiver`, `open_sender`, `schemes`, `Url`
- what every adapter is: `Sender`, `Receiver`, `LinkState`, `Counts`, `Meta`
- write one: `Adapter`, `Config`, `option`, `option_table`, `Inbox`, `Backlog`, `OutItem`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.adapters._base import Backlog, Counts, Inbox, LinkState, Meta, OutItem, Receiver, Sender
    from nexus.adapters._config import Config, option, option_table
    from nexus.adapters._endpoint import Adapter, Url, open_receiver, open_sender, schemes

__all__ = [
    "Adapter",
    "Config",
    "Counts",
    "Inbox",
    "LinkState",
    "Meta",
    "OutItem",
    "Backlog",
    "Receiver",
    "Sender",
    "Url",
    "open_receiver",
    "open_sender",
    "option",
    "option_table",
    "schemes",
]

_HOMES = {
    "Adapter": "_endpoint",
    "Config": "_config",
    "Url": "_endpoint",
    "open_receiver": "_endpoint",
    "open_sender": "_endpoint",
    "option": "_config",
    "option_table": "_config",
    "schemes": "_endpoint",
}


def __getattr__(name: str) -> Any:
    """Load a name's home when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"nexus.adapters.{_HOMES.get(name, '_base')}"), name)
    globals()[name] = found
    return found
