"""Where events meet a wire or another nexus: the one place where data becomes events and events data.

An inbound boundary feeds a nexus from a receiver, an outbound boundary hands the events of a nexus to a
sender, and a local boundary joins two nexuses of one process. Boundaries are imported by their own module
(`nexus.boundaries.zmq`); importing this package loads no transport.
"""

__all__: list[str] = []
