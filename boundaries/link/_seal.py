"""A wire between two sides that know the same token, which itself never goes over it.

Each side sends a challenge: a nonce, and the proof that who made it knows the token. Of both nonces and the
token comes a key for each direction, and every message that follows ends with a code made with it. So
nothing is taken that somebody else has made or changed, that comes from another session, or that is one's
own come back. What is played again within its session is left to the numbers of the events. Nothing is
hidden: for that there is TLS.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from nexus.adapters._wire import Wire
from nexus.boundaries.link._frames import BYE, CHALLENGE, HELLO, Bye, unpack
from nexus.boundaries.link._peer import LinkBroken

__all__ = ["CODE_SIZE", "SealedWire"]

CODE_SIZE: Final = 16
"""Bytes that a message is longer."""
NONCE_SIZE: Final = 32
CANDIDATES: Final = 4
"""Challenges between which a wire that may repeat old ones is undecided."""


class SealedWire:
    """A wire that carries nothing but what the other side has sent in this session.

    Where the wire is whole and in order, what has no proof ends the connection. Elsewhere somebody may put
    something on it who has nothing to do with either side: it is left out and counted.

    Args:
        patience: seconds until a challenge is repeated on a wire that may lose it.
        forged: told of each message that was left out.
    """

    def __init__(self, wire: Wire, token: str, patience: float, forged: Callable[[], None]) -> None:
        self._wire = wire
        self._token = token.encode()
        self._patience = patience
        self._forged = forged
        self._is_whole = getattr(wire, "is_whole", False)
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self._keys: deque[tuple[bytes, bytes, bytes]] = deque(maxlen=CANDIDATES)
        """The other side's nonce, the key of what comes and of what goes; of several until one has proved
        right."""
        self._is_proven = False
        self._early: list[list[bytes]] = []
        self.trouble = "the other side says nothing, or nothing with this token"
        """Why the two have not met yet."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost on it while it stands."""
        return bool(self._is_whole)

    async def meet(self) -> None:
        """Wait until the other side has shown that it knows the token.

        Raises:
            LinkBroken: it does not, and nobody else can be on the wire.
            ConnectionError: the wire is closed.
        """
        while True:
            await self._wire.send([self._challenge()])
            try:
                async with asyncio.timeout(None if self._is_whole else self._patience):
                    while not self._keys:
                        messages = await self._wire.receive()
                        while messages and not self._keys:
                            self._consider(b"".join(messages.pop(0)))
                        self._early = messages
                    return
            except TimeoutError:
                continue

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message with its code; until the other side has answered, on a wire that may lose, with the
        challenge before it."""
        message = b"".join(frames)
        if self._is_proven or self._is_whole:
            await self._wire.send([message, _code(self._keys[0][2], message)])
            return
        await self._wire.send([self._challenge()])
        for _, _, key in list(self._keys):
            await self._wire.send([message, _code(key, message)])

    async def receive(self) -> list[list[bytes]]:
        """Wait for messages of the other side.

        Raises:
            LinkBroken: something else came, and nobody else can be on the wire.
            ConnectionError: the wire is closed.
        """
        while True:
            messages, self._early = self._early or await self._wire.receive(), []
            opened = [self._opened(b"".join(message)) for message in messages]
            if found := [[message] for message in opened if message is not None]:
                return found

    def close(self) -> None:
        """End the connection."""
        self._wire.close()

    def _challenge(self) -> bytes:
        return CHALLENGE + self._nonce + self._proof(self._nonce)

    def _proof(self, nonce: bytes) -> bytes:
        return hmac.digest(self._token, b"challenge of a link" + nonce, "sha256")

    def _opened(self, data: bytes) -> bytes | None:
        """Take the code off a message; None if it is not one of the other side's."""
        message, code = data[:-CODE_SIZE], data[-CODE_SIZE:]
        for keys in self._keys:
            if message and hmac.compare_digest(_code(keys[1], message), code):
                if not self._is_proven:
                    self._is_proven = True
                    self._keys = deque([keys], CANDIDATES)
                return message
        if self._is_whole:
            raise LinkBroken("a frame came that the other side has not sent in this session")
        self._consider(data)
        return None

    def _consider(self, data: bytes) -> None:
        """Take a challenge; count what is none.

        Raises:
            LinkBroken: it is none, and nobody else can be on the wire.
        """
        nonce = data[len(CHALLENGE) : len(CHALLENGE) + NONCE_SIZE]
        trouble = self._trouble(data, nonce)
        if trouble is None:
            if not self._is_proven and all(nonce != known for known, _, _ in self._keys):
                self._keys.append((nonce, *self._keys_of(nonce)))
            return
        self.trouble = trouble
        if self._is_whole:
            raise LinkBroken(trouble)
        self._forged()

    def _trouble(self, data: bytes, nonce: bytes) -> str | None:
        """Say what is wrong with a challenge; None if nothing is."""
        if data.startswith(CHALLENGE):
            if not hmac.compare_digest(data[len(CHALLENGE) + NONCE_SIZE :], self._proof(nonce)):
                return "the other side does not know the token"
            return "the other side is this one" if nonce == self._nonce else None
        if data.startswith(HELLO):
            return "the other side has no token, and this one has"
        if data.startswith(BYE):
            bye = unpack(data)
            assert isinstance(bye, Bye)
            return f"the other side ends the connection: {bye.reason}"
        return "the first frame is a challenge, and this is none"

    def _keys_of(self, nonce: bytes) -> tuple[bytes, bytes]:
        """Make the key of what comes and the one of what goes."""
        both = b"".join(sorted((nonce, self._nonce)))
        session = hmac.digest(self._token, b"session of a link" + both, "sha256")
        return hmac.digest(session, nonce, "sha256"), hmac.digest(session, self._nonce, "sha256")


def _code(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")[:CODE_SIZE]
