"""Cut a file into lines and know where each one begins; no I/O."""

from __future__ import annotations

import attrs

__all__ = ["Line", "LineCutter"]


@attrs.frozen
class Line:
    """One line, without its end."""

    payload: bytes
    offset: int
    """Where it begins, bytes from the begin of the file."""
    number: int | None
    """From 1; None where reading did not begin at the first."""
    end: int
    """Where the next one begins."""
    is_terminated: bool = True
    """False for the last line of a file that lacks only its end."""


class LineCutter:
    """The lines of one file. A line that is too long costs itself only, and is counted.

    Args:
        terminator: ends each line.
        max_size: bytes a line may have, without its terminator.
        quoted: whether a terminator between ``"`` is part of a line, as in CSV.
        offset: where in the file the first byte is that will be fed.
        number: of the line there; None if that is not known.
        skip: whether that place is within a line, whose rest is not wanted.
    """

    def __init__(
        self,
        terminator: bytes,
        max_size: int,
        *,
        quoted: bool = False,
        offset: int = 0,
        number: int | None = 1,
        skip: bool = False,
    ) -> None:
        self.too_long = 0
        """Lines that were skipped."""
        self._terminator = terminator
        self._max_size = max_size
        self._quoted = quoted
        self._begin = offset  # of the line that is not complete
        self._number = number
        self._held = bytearray()
        self._scanned = 0  # bytes held in which no terminator begins that ends this line
        self._quotes = 0
        self._gone = 0  # bytes of this line that are not held any more
        self._skipping = skip

    def feed(self, data: bytes) -> list[Line]:
        """Take the next bytes; give the lines they complete."""
        held, terminator = self._held, self._terminator
        held += data
        found: list[Line] = []
        begin = 0
        while (place := held.find(terminator, self._scanned)) >= 0:
            end = place + len(terminator)
            if self._quoted and not self._skipping:
                self._quotes += held.count(b'"', self._scanned, place)
                if self._quotes % 2:
                    self._scanned = end
                    continue
            self._emit(found, bytes(held[begin:place]), end - begin)
            begin = self._scanned = end
            self._quotes = 0
        del held[:begin]
        self._scanned -= begin
        self._shorten()
        return found

    def finish(self) -> list[Line]:
        """Give the last line if it lacks only its end."""
        payload = bytes(self._held)
        found: list[Line] = []
        if payload and not self._skipping:
            if len(payload) > self._max_size:
                self.too_long += 1
            else:
                end = self._begin + len(payload)
                found.append(Line(payload, self._begin, self._number, end, is_terminated=False))
        self._held.clear()
        self._scanned = 0
        return found

    @property
    def held(self) -> int:
        """Bytes kept of a line that is not complete."""
        return len(self._held)

    def _emit(self, found: list[Line], payload: bytes, length: int) -> None:
        end = self._begin + self._gone + length
        if self._skipping:
            self._skipping = False
        elif len(payload) > self._max_size:
            self.too_long += 1
        else:
            found.append(Line(payload, self._begin, self._number, end))
        if self._number is not None:
            self._number += 1
        self._begin = end
        self._gone = 0

    def _shorten(self) -> None:
        """Keep no more of an unfinished line than can matter."""
        overlap = len(self._terminator) - 1
        if not self._skipping and len(self._held) > self._max_size + overlap:
            self._skipping = True
            self.too_long += 1
        if self._skipping:
            dropped = max(0, len(self._held) - overlap)
            del self._held[:dropped]
            self._gone += dropped
            self._scanned = 0
        elif not self._quoted:
            self._scanned = max(self._scanned, len(self._held) - overlap)
