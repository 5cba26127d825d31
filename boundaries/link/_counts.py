"""The account of a link."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["LinkCounts"]


@attrs.frozen
class LinkCounts:
    """What became of the events of a link, in both directions.

    ``taken = accepted + waiting + lost`` at any moment.
    """

    taken: int
    """Given to the link by its nexus; for a listener once for each other side."""
    accepted: int
    """Accepted by the nexus on the other side."""
    waiting: int
    """Held here: not sent, or not acknowledged."""
    lost: Mapping[str, int]
    """Given up, by reason: ``shed`` while the other side was away, ``slow`` because it did not keep up,
    ``expired`` before they could go, ``forgotten`` with one that did not come back."""
    resent: int
    """Events that were sent more than once."""
    received: int
    """Events that came and were accepted by the own nexus, or answered a request."""
    duplicates: int
    """Events that came again and were left out."""
    left_out: Mapping[str, int]
    """Events that came, or were to go, and were left out, by reason: ``loop``, ``hops``, ``bad``;
    ``forbidden``, what the other side may not send; ``late``, answers nobody waited for any more."""
    peers: int
    """Other sides that are connected."""
    forged: int = 0
    """Frames that came over a wire that others can reach, without the proof of the token; left out."""
