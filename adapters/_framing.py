"""Cut a stream of bytes into frames, and mark the ends of frames on the way out; no I/O.

What is held is at most one unfinished frame, so memory is bounded by ``max_size`` and one chunk.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from nexus.errors import ConfigError, NexusError, PackerError

__all__ = [
    "MAX_SIZE",
    "FixedFramer",
    "Framer",
    "FramingError",
    "LengthFramer",
    "LineFramer",
    "make_framer",
]

MAX_SIZE = 1024 * 1024
"""Bytes a frame may have unless told otherwise."""

ByteOrder = Literal["big", "little"]


class FramingError(NexusError, ValueError):
    """The stream cannot go on: nobody knows where the next frame begins."""


@runtime_checkable
class Framer(Protocol):
    """Finds the frames of one stream, whatever pieces it comes in."""

    rejected: dict[str, int]
    """Frames that were not given, by reason: ``size`` (too long), ``cut`` (the stream ended within one)."""

    @property
    def held(self) -> int:
        """Bytes kept of a frame that is not complete."""
        ...

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended, be it one that is skipped."""
        ...

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take the next bytes of the stream; give the frames they complete, in order.

        Raises:
            FramingError: the stream cannot go on. The frames before were given by the call that saw it, if
                there were any; this and every later call raises, until `reset`.
        """
        ...

    def finish(self) -> list[bytes]:
        """Give the last line if it lacks only its end; a binary frame that was cut counts as rejected.

        Then be ready for another stream.
        """
        ...

    def cut(self) -> None:
        """Count what is unfinished, a line as well, as rejected; then be ready for another stream.

        Of a line that is skipped, it is known already.
        """
        ...

    def pack(self, frame: bytes) -> bytes:
        """Give a frame as it goes into the stream.

        Raises:
            PackerError: the other side could not tell where this frame ends, or it is longer than
                ``max_size``.
        """
        ...

    def reset(self) -> None:
        """Forget what is held; the next bytes begin a stream. What was rejected stays counted."""
        ...


class LineFramer:
    """Frames that end with a terminator, which is not part of them.

    A line that is too long costs itself only: it is skipped up to its terminator and counted as ``size``.
    Empty lines are frames.

    Args:
        terminator: bytes, at least one.
        max_size: bytes a line may have, without its terminator.
    """

    def __init__(self, terminator: bytes = b"\n", max_size: int = MAX_SIZE) -> None:
        if not terminator:
            raise ConfigError("terminator: found b'', allowed: one byte or more")
        self.terminator = bytes(terminator)
        self.max_size = _at_least_one("max_size", max_size)
        self.rejected: dict[str, int] = {}
        self._tail = bytearray()  # begins a line; or, while skipping, may begin a terminator
        self._skipping = False
        self._overlap = len(self.terminator) - 1

    @property
    def held(self) -> int:
        return len(self._tail)

    @property
    def unfinished(self) -> bool:
        return self._skipping or bool(self._tail)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        frames: list[bytes] = []
        if self._tail or self._skipping:
            # No terminator was there before, so the first one ends within the new bytes.
            before = len(self._tail)
            self._tail += data
            end = self._tail.find(self.terminator, max(0, before - self._overlap))
            if end < 0:
                self._shorten()
                return []
            if self._skipping:
                self._skipping = False
            elif end > self.max_size:
                _count(self.rejected, "size")
            else:
                frames.append(bytes(self._tail[:end]))
            data = data[end + len(self.terminator) - before :]
            self._tail.clear()
        lines = bytes(data).split(self.terminator)
        self._tail += lines.pop()
        if len(data) > self.max_size:
            short = [line for line in lines if len(line) <= self.max_size]
            if len(short) < len(lines):
                _count(self.rejected, "size", len(lines) - len(short))
                lines = short
        self._shorten()
        if frames:
            frames += lines
            return frames
        return lines

    def _shorten(self) -> None:
        """Keep no more of the last line than can matter."""
        if self._skipping or len(self._tail) > self.max_size + self._overlap:
            if not self._skipping:
                _count(self.rejected, "size")
                self._skipping = True
            del self._tail[: len(self._tail) - self._overlap]

    def finish(self) -> list[bytes]:
        last = bytes(self._tail)
        skipping = self._skipping
        self.reset()
        if skipping or not last:
            return []
        if len(last) > self.max_size:
            _count(self.rejected, "size")
            return []
        return [last]

    def cut(self) -> None:
        if self._tail and not self._skipping:
            _count(self.rejected, "cut")
        self.reset()

    def pack(self, frame: bytes) -> bytes:
        _check_size(frame, self.max_size)
        packed = frame + self.terminator
        # Not `terminator in frame`: the frame's end may make up one with the terminator's begin.
        if packed.find(self.terminator) != len(frame):
            raise PackerError(frame, f"it holds the terminator {self.terminator!r}")
        return packed

    def reset(self) -> None:
        self._tail = bytearray()
        self._skipping = False


class FixedFramer:
    """Frames of one size, with nothing between them.

    Args:
        size: bytes of every frame, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self.size = _at_least_one("size", size)
        self.rejected: dict[str, int] = {}
        self._tail = bytearray()

    @property
    def held(self) -> int:
        return len(self._tail)

    @property
    def unfinished(self) -> bool:
        return bool(self._tail)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        size = self.size
        self._tail += data
        if len(self._tail) < size:
            return []
        whole = len(self._tail) - len(self._tail) % size
        stream = bytes(self._tail[:whole])
        del self._tail[:whole]
        return [stream[at : at + size] for at in range(0, whole, size)]

    def finish(self) -> list[bytes]:
        self.cut()
        return []

    def cut(self) -> None:
        if self._tail:
            _count(self.rejected, "cut")
        self.reset()

    def pack(self, frame: bytes) -> bytes:
        if len(frame) != self.size:
            raise PackerError(frame, f"it has {len(frame)} bytes, and every frame has {self.size}")
        return frame

    def reset(self) -> None:
        self._tail = bytearray()


class LengthFramer:
    """Frames that begin with their length, an unsigned number which does not count itself.

    A length above ``max_size`` is either not a length or an attack: there is no telling where the next frame
    begins, so the stream is over.

    Args:
        width: bytes of the length, 1 to 8.
        byteorder: of the length.
        max_size: bytes a frame may have, without its length.
    """

    def __init__(self, width: int = 4, byteorder: ByteOrder = "big", max_size: int = MAX_SIZE) -> None:
        if not 1 <= width <= 8:
            raise ConfigError(f"width: found {width!r}, allowed: 1 to 8 bytes")
        if byteorder not in ("big", "little"):
            raise ConfigError(f"byteorder: found {byteorder!r}, allowed: 'big' or 'little'")
        self.width = width
        self.byteorder: ByteOrder = byteorder
        self.max_size = min(_at_least_one("max_size", max_size), 256**width - 1)
        self.rejected: dict[str, int] = {}
        self._tail = bytearray()
        self._need = width  # bytes to have before looking again
        self._broken = ""

    @property
    def held(self) -> int:
        return len(self._tail)

    @property
    def unfinished(self) -> bool:
        return bool(self._tail)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        if self._broken:
            raise FramingError(self._broken)
        if len(self._tail) + len(data) < self._need:
            self._tail += data
            return []
        stream = bytes(self._tail + data) if self._tail else bytes(data)
        width, byteorder, max_size = self.width, self.byteorder, self.max_size
        if len(stream) - width == int.from_bytes(stream[:width], byteorder) <= max_size:  # one, and whole
            if self._tail:
                self.reset()
            return [stream[width:]]
        frames: list[bytes] = []
        at, end, need = 0, len(stream), width
        while at + width <= end:
            body = at + width
            size = int.from_bytes(stream[at:body], byteorder)
            if size > max_size:
                return self._break(size, frames)
            if body + size > end:
                need = width + size
                break
            at = body + size
            frames.append(stream[body:at])
        self._tail = bytearray(stream[at:])
        self._need = need
        return frames

    def _break(self, size: int, frames: list[bytes]) -> list[bytes]:
        """End the stream, after the frames that came before."""
        self.reset()
        _count(self.rejected, "size")
        self._broken = f"a frame claims {size} bytes, allowed: at most {self.max_size}"
        if not frames:
            raise FramingError(self._broken)
        return frames

    def finish(self) -> list[bytes]:
        self.cut()
        return []

    def cut(self) -> None:
        if self._tail:
            _count(self.rejected, "cut")
        self.reset()

    def pack(self, frame: bytes) -> bytes:
        _check_size(frame, self.max_size)
        return len(frame).to_bytes(self.width, self.byteorder) + frame

    def reset(self) -> None:
        self._tail = bytearray()
        self._need = self.width
        self._broken = ""


def make_framer(
    kind: str,
    *,
    terminator: bytes = b"\n",
    size: int | None = None,
    width: int = 4,
    byteorder: ByteOrder = "big",
    max_size: int = MAX_SIZE,
) -> Framer:
    """Make the framer that a config describes.

    Args:
        kind: ``line`` (with ``terminator``), ``fixed`` (with ``size``) or ``length`` (with ``width`` and
            ``byteorder``).

    Raises:
        ConfigError: an argument is missing or out of range.
    """
    match kind:
        case "line":
            return LineFramer(terminator, max_size)
        case "fixed":
            if size is None:
                raise ConfigError("size: found none, allowed: the bytes of every frame, 1 or more")
            if size > max_size:
                raise ConfigError(f"size: found {size}, allowed: at most max_size, {max_size}")
            return FixedFramer(size)
        case "length":
            return LengthFramer(width, byteorder, max_size)
    raise ConfigError(f"framing: found {kind!r}, allowed: 'line', 'fixed' or 'length'")


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}: found {value!r}, allowed: 1 or more bytes")
    return value


def _check_size(frame: bytes, max_size: int) -> None:
    if len(frame) > max_size:
        raise PackerError(frame, f"it has {len(frame)} bytes, allowed: at most {max_size}")


def _count(rejected: dict[str, int], reason: str, number: int = 1) -> None:
    rejected[reason] = rejected.get(reason, 0) + number
