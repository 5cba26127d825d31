"""Whoever listens: its sockets, the peers that came, and why some had to go."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from nexus.adapters._framing import FramingError
from nexus.adapters._link import Link
from nexus.adapters._net import bind_all, place_of, refuse_exposed, resolve
from nexus.adapters._safe import why
from nexus.adapters._tcp_stream import Stream, StreamOptions, adopt
from nexus.errors import OpenError

__all__ = ["ListenOptions", "Listener", "PeerCut"]

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Stream)

BACKLOG = 128


class PeerCut(ConnectionError):
    """A peer broke a limit.

    Attributes:
        kind: which one, a word to count by.
    """

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        super().__init__(why)


class ListenOptions(StreamOptions, Protocol):
    """What a listener wants to know of a config."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def insecure(self) -> bool: ...
    @property
    def max_peers(self) -> int: ...
    @property
    def asks_for_certificates(self) -> bool: ...


class Listener(Generic[S]):
    """Accepts peers, and keeps to the limits; what one of them does, the others do not notice.

    Args:
        link: is up while there is a peer.
        make: makes the stream of a peer.
        serve: works with a peer until it is over.
        context: the context of TLS for the next peer; None without TLS.
        patience: seconds that closing a peer may take.
        most_strangers: peers of one address at once that have not proven themselves; None for any number.
    """

    def __init__(
        self,
        name: str,
        config: ListenOptions,
        link: Link,
        *,
        make: Callable[[], S],
        serve: Callable[[S], Awaitable[None]],
        context: Callable[[], ssl.SSLContext | None],
        patience: Callable[[], float],
        most_strangers: int | None = None,
    ) -> None:
        self.name = name
        self.peers: set[S] = set()
        self.refused: dict[str, int] = {}
        """Peers turned away or cut, by reason."""
        self._config = config
        self._link = link
        self._make = make
        self._serve = serve
        self._context = context
        self._patience = patience
        self._listening: list[socket.socket] = []
        self._coming: dict[socket.socket, str] = {}
        self._most_strangers = most_strangers
        self._someone = asyncio.Event()

    @property
    def port(self) -> int:
        """The port it listens at; 0 while it does not."""
        return int(self._listening[0].getsockname()[1]) if self._listening else 0

    async def open(self) -> None:
        """Bind and listen.

        Raises:
            ConfigError: other machines could connect, and need not show who they are.
            OpenError: the port is in use, or the host is not on this machine.
        """
        config = self._config
        self._someone = asyncio.Event()
        try:
            addresses = await resolve(config.host, config.port, socket.SOCK_STREAM)
        except OSError as exc:
            raise OpenError(exc.errno, f"{self.name}: no such host: {exc.strerror or exc}") from exc
        if not config.insecure and not config.asks_for_certificates:
            refuse_exposed(
                self.name, addresses, "TLS with client certificates (tls, ca_file), or insecure=True"
            )
        bound = bind_all(self.name, addresses, socket.SOCK_STREAM, _prepare)
        try:
            for sock in bound:
                sock.listen(BACKLOG)
        except OSError as exc:
            for sock in bound:
                sock.close()
            raise OpenError(exc.errno, f"{self.name} cannot listen: {exc.strerror}") from exc
        self._listening = bound

    async def run(self) -> None:
        """Accept and serve peers until cancelled; then close them all."""
        try:
            async with asyncio.TaskGroup() as group:
                for sock in self._listening:
                    group.create_task(self._accept(sock, group), name=f"adapter[{self.name}].accept")
        finally:
            for sock in self._coming:
                sock.close()
            self._coming.clear()

    def close(self) -> None:
        """Listen no more."""
        for sock in self._listening:
            sock.close()
        self._listening = []

    async def somebody(self) -> None:
        """Wait until there is a peer."""
        while not self.peers:
            self._someone.clear()
            await self._someone.wait()

    async def _accept(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, where = await loop.sock_accept(listening)
            except OSError as exc:  # too many open files, or the peer has gone again
                self._refuse("accept", "a peer", exc)
                await asyncio.sleep(0.1)
                continue
            if self._is_crowded(_address(place_of(where))):
                self._refuse("address", place_of(where), None)
                sock.close()
            elif self._is_full and not self._make_room():
                self._refuse("full", place_of(where), None)
                sock.close()
            else:
                sock.setblocking(False)
                self._coming[sock] = _address(place_of(where))
                group.create_task(self._meet(sock, where), name=f"adapter[{self.name}].peer")
            await asyncio.sleep(0)  # accepting never waits in a flood of peers

    async def _meet(self, sock: socket.socket, where: Any) -> None:
        """Serve a peer from its first byte to its last."""
        stream = self._make()
        try:
            await adopt(stream, sock, self._config, self._context())
        except OSError as exc:
            self._refuse("handshake", place_of(where), exc)
            return
        finally:
            self._coming.pop(sock, None)
        self.peers.add(stream)
        self._someone.set()
        self._link.up()
        try:
            await self._serve(stream)
        except (OSError, EOFError, FramingError) as exc:
            self._note_end(stream, exc)
        except Exception:
            logger.exception("%s: serving %s failed", self.name, stream.peer)
            self._refuse("failed", stream.peer, None)
        else:
            self._note_end(stream, stream.error)
        finally:
            self.peers.discard(stream)
            await stream.close(self._patience())
        if not self.peers:
            self._link.connecting()

    def _note_end(self, stream: S, exc: BaseException | None) -> None:
        if isinstance(stream.error, PeerCut | FramingError):
            exc = stream.error  # what it is served with may say only that it is over
        if isinstance(exc, PeerCut):
            self._refuse(exc.kind, stream.peer, exc)
        elif isinstance(exc, FramingError):
            self._refuse("size", stream.peer, exc)
        else:
            logger.debug("%s: %s has gone: %s", self.name, stream.peer, exc)

    def _is_crowded(self, address: str) -> bool:
        """Say whether too many of an address are here who have done nothing yet."""
        if self._most_strangers is None:
            return False
        here = [peer for peer in self.peers if not (peer.is_over or peer.is_proven)]
        count = sum(_address(peer.peer) == address for peer in here)
        return count + sum(each == address for each in self._coming.values()) >= self._most_strangers

    @property
    def _is_full(self) -> bool:
        count = len(self._coming) + sum(not peer.is_over for peer in self.peers)
        return count >= self._config.max_peers

    def _make_room(self) -> bool:
        """Cut the oldest of the peers that have said nothing for too long, if there is one."""
        latest = asyncio.get_running_loop().time() - self._config.handshake_timeout
        silent = [
            peer for peer in self.peers if not (peer.is_over or peer.is_proven) and peer.since <= latest
        ]
        if not silent:
            return False
        oldest = min(silent, key=lambda peer: peer.since)
        oldest.cut(PeerCut("silent", "it said nothing, and others came"))
        return True

    def _refuse(self, kind: str, peer: str, exc: BaseException | None) -> None:
        count = self.refused[kind] = self.refused.get(kind, 0) + 1
        if count & (count - 1) == 0:
            said = kind if exc is None else why(exc)
            logger.warning("%s: %s is turned away (%s; number %d)", self.name, peer, said, count)


def _address(place: str) -> str:
    return place.rpartition(":")[0]


def _prepare(sock: socket.socket) -> None:
    # Elsewhere it would let two programs listen at one port.
    if sys.platform != "win32":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
