"""The seam between a boundary and its transport: frames out, frames in, nothing else.

A boundary that is given a `Wire` runs over a socket, and over memory in virtual time, with the same code.
"""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Wire"]


class Wire(Protocol):
    """Carries messages of one or more frames, whole and in order."""

    async def send(self, frames: Sequence[bytes]) -> None:
        """Hand over one message; wait while the wire has no room.

        Cancelled, the message was not handed over.

        Raises:
            ConnectionError: the wire is closed, by this end or the other.
            BadCall: the wire does not send.
        """
        ...

    async def receive(self) -> list[list[bytes]]:
        """Wait for the messages that are ready: at least one, in their order.

        Cancelled, no message was taken.

        Raises:
            ConnectionError: the wire is closed, by this end, or by the other one and all is read.
            BadCall: the wire does not receive.
        """
        ...

    def close(self) -> None:
        """Give up what the wire holds; whoever waits is told. May be called twice."""
        ...
