"""The signal of a ZMQ socket, shared by all who wait for it.

libzmq signals on one descriptor per socket, and only when something *changes*: any call on the socket, a
send included, may take the signal away from whoever waits to receive. So all wires on one socket share one
port: it alone watches the descriptor, it asks ``ZMQ_EVENTS`` whenever the signal may have been taken, and
every waiter tries again when it is woken. See zmq_getsockopt(3), ZMQ_FD and ZMQ_EVENTS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket as sockets
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import zmq
import zmq.asyncio
import zmq.backend

from nexus.errors import BadCall

__all__ = ["AnySocket", "ZmqPort"]

LOOK = 0.1
"""Seconds between looks at a socket that is waited for, against a signal taken by a call made past its
wires, and to notice a socket that was closed underneath."""

PAUSE = 1e-3
"""Seconds before the second try to send on a socket that does not say whether there is room; they double."""

AnySocket: TypeAlias = "zmq.Socket[Any]"

_EVENTS = zmq.EVENTS
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)


class ZmqPort:
    """What the wires on one socket share: its descriptor's only reader, and the list of those who wait."""

    _ports: ClassVar[weakref.WeakValueDictionary[int, ZmqPort]] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, socket: AnySocket) -> ZmqPort:
        """Return the port of the socket, a new one if it has none."""
        port = cls._ports.get(socket.underlying)
        if port is None or port.socket.closed:  # libzmq gives addresses out again
            port = cls._ports[socket.underlying] = cls(socket)
        return port

    def __init__(self, socket: AnySocket) -> None:
        self.socket = socket
        # The plain methods, also where zmq.asyncio has put its own, future-making ones over them.
        base: Any = zmq.backend.Socket
        self.send = base.send.__get__(socket)
        self.recv = base.recv.__get__(socket)
        self.get = base.get.__get__(socket)
        self.is_async = isinstance(socket, zmq.asyncio.Socket)
        # These say that there is room also when there is none (ZMQ_XPUB_NODROP).
        self.is_vague = self.get(zmq.TYPE) in (zmq.PUB, zmq.XPUB)
        self.wires: weakref.WeakSet[object] = weakref.WeakSet()
        self.readers: list[asyncio.Future[None]] = []
        self.writers: list[asyncio.Future[None]] = []
        self._attempts: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self.turn = asyncio.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._descriptor: int | sockets.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._pause = PAUSE
        self._soon: asyncio.Handle | None = None
        self._soon_on: asyncio.AbstractEventLoop | None = None

    @property
    def has_own_waits(self) -> bool:
        """Whether somebody waits on the asyncio socket itself, past its wires."""
        # Not public, and only read: what pyzmq watches the socket for. Where it is gone, we look each time.
        return bool(getattr(self.socket, "_state", True))

    async def wait(
        self, waiters: list[asyncio.Future[None]], attempt: Callable[[], bool] | None = None
    ) -> None:
        """Wait until something has changed; the caller has just tried, and tries again after.

        Args:
            attempt: called in place of waking the caller, in the turn of the loop in which the signal comes;
                the caller goes on waiting unless it returns True. Not called once the wait is cancelled.
        """
        loop = self.attach()
        future = loop.create_future()
        waiters.append(future)
        if attempt is not None:
            self._attempts[future] = attempt
        if self._timer is None:
            self._timer = loop.call_later(LOOK, self._tick)
        try:
            await future
        finally:
            waiters.remove(future)
            self._attempts.pop(future, None)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call back when there may be room, or somebody wakes everybody; after `attach`."""
        assert self.loop is not None
        future = self.loop.create_future()
        self.writers.append(future)

        def call(_: object) -> None:
            self.writers.remove(future)
            callback()

        future.add_done_callback(call)
        if self._timer is None:
            self._timer = self.loop.call_later(LOOK, self._tick)

    def wake(self, waiters: Sequence[asyncio.Future[None]] | None = None) -> None:
        """Let these, or all, try again."""
        for future in [*self.readers, *self.writers] if waiters is None else tuple(waiters):
            if not future.done():
                attempt = self._attempts.get(future)
                # An attempt may run the user's code, and that may close the wire and so end the wait.
                if (attempt is None or attempt()) and not future.done():
                    future.set_result(None)

    def look(self, *, signalled: bool = True) -> None:
        """Ask libzmq what is possible, which also takes the signal, and wake those it concerns.

        Args:
            signalled: something may have changed; False after a call of our own.
        """
        self._soon = None
        is_shared = self.is_async and self.has_own_waits
        if self._attempts and len(self._attempts) == len(self.readers) and not (self.writers or is_shared):
            self.wake(self.readers)  # who finds out by trying, and takes the signal by that
            return
        try:
            # On an asyncio socket this call wakes those who wait on the socket itself.
            events: Any = (self.socket.get if is_shared else self.get)(_EVENTS)
        except zmq.ZMQError:  # closed underneath: the waiters will find out and say so
            self.detach()
            self.wake()
            return
        if events & _POLLIN and self.readers:
            self.wake(self.readers)
        if events & _POLLOUT and self.writers:
            if signalled or not self.is_vague:
                self._pause = PAUSE
                self.wake(self.writers)
            elif self._later is None and self.loop is not None:
                # Perhaps this look has taken their signal; to wake them each time would be to spin.
                self._later = self.loop.call_later(self._pause, self._wake_writers)
                self._pause = min(2 * self._pause, LOOK)

    def _wake_writers(self) -> None:
        self._later = None
        self.wake(self.writers)

    def sent(self) -> None:
        """Note that a message was sent, which may have taken the signal that one has come."""
        if self.writers or (self.is_async and self.has_own_waits):
            self.look_soon()
        elif self.readers and self._soon is None:
            # Asking at once is cheaper than to look in vain in the next turn.
            try:
                if not self.get(_EVENTS) & _POLLIN:
                    return
            except zmq.ZMQError:  # closed underneath: who looks finds out
                pass
            self.look_soon()

    def look_soon(self) -> None:
        """Look once in this turn of the loop, however many calls were made."""
        loop = asyncio.get_running_loop()
        if self._soon is None or self._soon_on is not loop:
            self._soon_on = loop
            self._soon = loop.call_soon(functools.partial(self.look, signalled=False))

    def attach(self) -> asyncio.AbstractEventLoop:
        """Watch the descriptor on the running loop.

        Raises:
            BadCall: somebody waits on another loop, or this loop cannot watch descriptors.
        """
        loop = asyncio.get_running_loop()
        if self.loop is loop:
            return loop
        if self.loop is not None and not self.loop.is_closed() and (self.readers or self.writers):
            raise BadCall("the socket is waited for on another event loop; use it on one loop at a time")
        self.detach()
        # A descriptor of our own for the same signal: asyncio keeps one reader for each number, and
        # zmq.asyncio may have put its own on the socket's.
        descriptor = _duplicate(self.get(zmq.FD))
        try:
            loop.add_reader(descriptor, self.look)
        except NotImplementedError as exc:
            _close(descriptor)
            raise BadCall(
                f"{type(loop).__name__} cannot watch a ZMQ socket; run on asyncio.SelectorEventLoop, "
                "for example with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
            ) from exc
        self.loop = loop
        self.turn = asyncio.Lock()
        self._descriptor = descriptor
        return loop

    def detach(self) -> None:
        """Stop watching."""
        for handle in (self._timer, self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = self._later = None
        if self._descriptor is not None:
            if self.loop is not None and not self.loop.is_closed():
                self.loop.remove_reader(self._descriptor)
            _close(self._descriptor)
        self.loop = self._descriptor = None

    def _tick(self) -> None:
        """Look, and go on doing so while somebody waits."""
        self._timer = None
        self.look()
        if self.loop is not None and (self.readers or self.writers):
            self._timer = self.loop.call_later(LOOK, self._tick)

    def __del__(self) -> None:
        if self._descriptor is not None:  # the loop is gone, and nobody closed the wires
            with contextlib.suppress(OSError):
                _close(self._descriptor)


def _duplicate(descriptor: int) -> int | sockets.socket:
    """Return another descriptor for the same thing; on Windows they are sockets and not files."""
    if sys.platform == "win32":
        return sockets.fromfd(descriptor, sockets.AF_INET, sockets.SOCK_STREAM)
    return os.dup(descriptor)


def _close(descriptor: int | sockets.socket) -> None:
    if isinstance(descriptor, int):
        os.close(descriptor)
    else:
        descriptor.close()
