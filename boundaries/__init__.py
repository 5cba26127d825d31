"""Where events meet a wire or another nexus: the one place where data becomes events and events data.

An inbound boundary feeds a nexus from a receiver, an outbound boundary hands the events of a nexus to a
sender, and `AsyncEventBoundary` joins nexuses of one process. Those that need a transport are imported by
their own module (`nexus.boundaries.zmq`); importing this package loads none.
"""

from nexus.boundaries.local import AsyncEventBoundary

__all__ = ["AsyncEventBoundary"]
