"""Events, their order, their dispatch and their time: the core of event-nexus.

A nexus owns one priority queue. It pulls events from converters, is pushed to by producers, and
hands each event to the handlers of its type, the most urgent first. The core knows no wire:
`nexus.adapters` moves data, and `nexus.boundaries` turns data into events and back.
"""

from nexus._version import __version__

__all__ = ["__version__"]
