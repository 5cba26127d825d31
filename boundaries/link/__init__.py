"""The link: one reliable session between two nexuses; urgent events overtake, and nothing is lost."""

from nexus.boundaries.link._chaos import chaos
from nexus.boundaries.link._counts import LinkCounts
from nexus.boundaries.link._link import Link
from nexus.boundaries.link._peer import LinkBroken, LinkLimits

__all__ = ["Link", "LinkBroken", "LinkCounts", "LinkLimits", "chaos"]
