"""Links over two halves of adapters: a serial line, UDP both ways, two topics of a broker.

Nothing is asked of the transport but that some of what is sent arrives. So each frame of the link goes in one
or more parts, and each part says of itself: a checksum, who sends it in which session, for whom it is meant,
and which part of which frame it is. A session is what a connection is elsewhere: each side numbers its own,
and answers to that of the other side; who finds that the other side has begun anew begins anew as well. So
does who finds that the transport's own connection was gone and is back: what was on its way is lost, and need
not be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import attrs

from nexus.adapters._base import Receiver, Sender
from nexus.adapters._link import LinkState
from nexus.adapters._wire import Wire
from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.boundaries.link._ends import FIRST
from nexus.boundaries.link._frames import MAX_WIRE
from nexus.errors import ConfigError, EndOfData, LinkDown

__all__ = ["AdapterDialler", "AdapterWire"]

_HEAD: Final = struct.Struct("!IIIIIIHH")
"""Checksum of the rest; the sender's instance and session; those it means, or zeros; number of the frame,
place of the part, how many there are."""
LEAST_SIZE: Final = 64
"""Bytes that a frame of the adapter must be able to have."""
UNFINISHED: Final = 32
"""Frames of which some parts have come and others have not; the oldest is given up first."""
AGAIN: Final = 0.1
"""Seconds between two answers to what belongs to a session that is over."""
GRACE: Final = 0.2
"""Seconds that the sender has for what it still holds when the link closes."""


@attrs.frozen
class Part:
    """What one frame of an adapter carries."""

    source: tuple[int, int]
    """Instance and session of who sends it."""
    target: tuple[int, int]
    """Those it is meant for; zeros where it does not know any."""
    number: int
    """Of the frame of the link that it belongs to."""
    place: int
    count: int
    body: bytes

    def pack(self, key: bytes = b"") -> bytes:
        """Make the bytes, for who has the same key."""
        head = _HEAD.pack(0, *self.source, *self.target, self.number, self.place, self.count)[4:]
        return _check_of(head + self.body, key) + head + self.body

    @classmethod
    def unpack(cls, data: bytes, key: bytes = b"") -> Part | None:
        """Read the bytes; None if they were damaged on the way, or are none of ours."""
        if len(data) < _HEAD.size:
            return None
        _, instance, session, to_instance, to_session, number, place, count = _HEAD.unpack_from(data)
        if data[:4] != _check_of(data[4:], key) or not place < count or not instance:
            return None
        body = data[_HEAD.size :]
        return cls((instance, session), (to_instance, to_session), number, place, count, body)


class AdapterDialler:
    """Makes sessions over two halves, which it starts and stops; their packers are replaced.

    Args:
        sender: what this side sends with.
        receiver: what this side receives with.
        token: what both sides know; empty for nothing. Parts of others are taken for damaged.

    Raises:
        ConfigError: they cannot carry any bytes at all.
    """

    def __init__(self, sender: Sender[Any], receiver: Receiver[Any], token: str = "") -> None:
        for half in (sender, receiver):
            _check(half)
        sender.packer = bytes_packer
        receiver.unpacker = bytes_unpacker
        self.name = f"{sender.name} and {receiver.name}"
        self.sender = sender
        self.receiver = receiver
        self.key = hmac.digest(token.encode(), b"part of a link", "sha256") if token else b""
        self.instance = secrets.randbelow(2**32 - 1) + 1
        self.stashed: bytes | None = None
        """What told the last session that the other side has begun anew; the next one begins with it."""
        self._sessions = 0
        self._wire: AdapterWire | None = None
        self._gone: set[int] = set()
        """Which of the halves have lost their connection, and not yet got it back."""
        sender.on_link(partial(self._moved, 0))
        receiver.on_link(partial(self._moved, 1))

    def _moved(self, place: int, state: LinkState) -> None:
        """Let a session end when a half has its connection back."""
        if state.state == "down":
            self._gone.add(place)
        elif state.state == "up" and place in self._gone:
            self._gone.discard(place)
            if self._wire is not None:
                self._wire.outdate()

    async def dial(self) -> Wire:
        """Wait until the receiver is connected, and begin a session.

        Raises:
            OpenError: one of them cannot be opened on this machine.
            LinkDown: one of them has failed for good.
        """
        await self.sender.start()  # first: the other side's receiver may wait for it, as ours for theirs
        await self.receiver.connected()  # of a sender over UDP only sending tells whether somebody is there
        self._sessions += 1
        self._wire = AdapterWire(self, self._sessions)
        return self._wire

    async def aclose(self) -> None:
        """Stop both halves."""
        for half in (self.sender, self.receiver):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await half.stop()


class AdapterWire:
    """One session with the other side."""

    def __init__(self, dialler: AdapterDialler, session: int) -> None:
        self._dialler = dialler
        self._own = (dialler.instance, session)
        self._other = (0, 0)
        self._is_greeted = False
        self._number = 0
        self._room = dialler.sender.config.max_size - _HEAD.size  # type: ignore[attr-defined]
        self._unfinished: OrderedDict[int, _Parts] = OrderedDict()
        self._reading: asyncio.Timeout | None = None
        self._is_outdated = False
        self._greetings: list[bytes] = []
        """What was said first; said again to a side that cannot have heard it."""
        self._greeted = 0.0
        """When it was said again to one that goes by an old session."""

    def outdate(self) -> None:
        """End the session: the transport has a new connection."""
        self._is_outdated = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message in as many parts as it takes; wait until the transport has them."""
        data = b"".join(frames)
        if data[:1] in FIRST and data not in self._greetings:
            self._greetings = [*self._greetings[-1:], data]
        for part in self._parts(data, self._other):
            try:
                await self._dialler.sender.deliver(part)
            except LinkDown:
                if not self._dialler.sender.is_started:
                    raise
                # There was no room for it, and something was dropped: it comes again.

    async def receive(self) -> list[list[bytes]]:
        """Wait for messages of this session.

        Raises:
            ConnectionError: the other side or the transport has begun anew, or the receiver has ended.
        """
        stashed, self._dialler.stashed = self._dialler.stashed, None
        if stashed is not None and (message := self._take(stashed)) is not None:
            return [[message]]
        while True:
            try:
                async with asyncio.timeout(0 if self._is_outdated else None) as self._reading:
                    items = await self._dialler.receiver.receive_many()
            except TimeoutError:
                raise ConnectionResetError("the transport has a new connection") from None
            except EndOfData as exc:
                raise ConnectionAbortedError(str(exc)) from exc
            finally:
                self._reading = None
            messages = [[found] for data, _ in items if (found := self._take(data)) is not None]
            if messages:
                return messages

    def _parts(self, data: bytes, target: tuple[int, int]) -> Iterator[bytes]:
        """Give the parts in which a frame goes."""
        self._number = (self._number + 1) % 2**32
        places = range(0, max(len(data), 1), self._room)
        for place, start in enumerate(places):
            body = data[start : start + self._room]
            yield Part(self._own, target, self._number, place, len(places), body).pack(self._dialler.key)

    def close(self) -> None:
        """Do nothing: the other side learns of it by the next session, or by silence."""

    def _take(self, data: bytes) -> bytes | None:
        """Take a part; give the frame that is whole with it, if it is for this session.

        Raises:
            ConnectionResetError: the other side has begun anew.
        """
        part = Part.unpack(data, self._dialler.key)
        if part is None or part.source[0] == self._own[0]:
            return None
        if part.target not in (self._own, (0, 0)):
            if part.target[0] == self._own[0] and part.target[1] < self._own[1]:
                self._greet_again()  # the other side goes by what came late of a session that is over
            return None
        if part.source != self._other:
            if part.source[0] == self._other[0] and part.source[1] < self._other[1]:
                return None  # it was long on its way
            if self._other[0]:
                self._dialler.stashed = data if part.target == (0, 0) else None
                raise ConnectionResetError("the other side has begun anew")
            self._other = part.source
        message = self._joined(part)
        if message is None or (not self._is_greeted and message[:1] not in FIRST):
            return None  # what overtook the hello comes again
        self._is_greeted = True
        if part.target == (0, 0) and message[:1] in FIRST:
            self._greet(self._other)  # it went before the other side could hear
        return message

    def _greet_again(self) -> None:
        """Say to whoever is there what was said first, now and then."""
        now = asyncio.get_running_loop().time()
        if now >= self._greeted + AGAIN:
            self._greeted = now
            self._greet((0, 0))

    def _greet(self, target: tuple[int, int]) -> None:
        """Say once more what was said first."""
        for greeting in self._greetings:
            for part in self._parts(greeting, target):
                self._dialler.sender.send_nowait(part)

    def _joined(self, part: Part) -> bytes | None:
        """Join the parts of a frame."""
        if part.count == 1:
            return part.body
        if part.count > MAX_WIRE // (LEAST_SIZE - _HEAD.size) + 1:
            return None
        parts = self._unfinished.setdefault(part.number, _Parts())
        if part.place not in parts.bodies:
            parts.bodies[part.place] = part.body
            parts.size += len(part.body)
        if len(parts.bodies) < part.count:
            if parts.size > MAX_WIRE:
                del self._unfinished[part.number]
            elif len(self._unfinished) > UNFINISHED:
                self._unfinished.popitem(last=False)
            return None
        del self._unfinished[part.number]
        return b"".join(parts.bodies[place] for place in sorted(parts.bodies))


class _Parts:
    """What has come of a frame."""

    __slots__ = ("bodies", "size")

    def __init__(self) -> None:
        self.bodies: dict[int, bytes] = {}
        self.size = 0


def _check_of(data: bytes, key: bytes) -> bytes:
    """Return what tells a part from one that was damaged, or that somebody without the key has made."""
    return hmac.digest(key, data, "sha256")[:4] if key else zlib.crc32(data).to_bytes(4, "big")


def _check(half: Sender[Any] | Receiver[Any]) -> None:
    """Say why an adapter cannot carry a link."""
    config: Any = getattr(half, "config", None)
    if getattr(config, "frame", "length") != "length":
        raise ConfigError(
            f"{half.name}: found frame={config.frame!r}, allowed: frame='length', for a link sends any bytes"
        )
    if type(half).__module__.startswith(("nexus.adapters.console", "nexus.adapters._file")):
        raise ConfigError(f"{half.name}: it carries lines of text, allowed: what carries any bytes")
    if getattr(config, "xonxoff", False):
        raise ConfigError(f"{half.name}: found xonxoff=True, allowed: False, for a link sends any bytes")
    if getattr(config, "max_size", 0) < LEAST_SIZE:
        raise ConfigError(
            f"{half.name}: found max_size={getattr(config, 'max_size', None)}, allowed: {LEAST_SIZE} or more"
        )
