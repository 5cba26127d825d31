"""Data in, data out: one module a transport, imported by its own name (`nexus.adapters.zmq`).

An adapter is everything for one transport: a sender, a receiver and a frozen config. It moves data and
knows no events; what becomes an event is decided in `nexus.boundaries`. Importing this package loads
no transport, and no transport imports another.
"""

__all__: list[str] = []
