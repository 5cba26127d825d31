"""Remember in a file how far another was read and accepted, so that a restart goes on there."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from typing import Any

from nexus.adapters._file_disk import open_regular
from nexus.adapters._file_tail import WINDOW, Found, Place

__all__ = ["Progress", "load", "save"]

MAX_SIZE = 4096
"""Bytes of a cursor file that are read."""


class Progress:
    """Which lines were accepted: all up to `place`, whatever the order they were accepted in.

    Args:
        terminator: ends each line.
    """

    def __init__(self, terminator: bytes) -> None:
        self.place: Place | None = None
        """Where reading goes on after all that was accepted; None if nothing was."""
        self._terminator = terminator
        self._next = 0
        self._given: deque[tuple[int, Found]] = deque()  # bounded by the inbox and what is handed out
        self._accepted: set[int] = set()

    def give(self, found: Found) -> int:
        """Note a line that is handed out; return the token to accept it by."""
        token = self._next
        self._next += 1
        self._given.append((token, found))
        return token

    def accept(self, token: int) -> None:
        """Note that a line is done with; nothing happens if it was before."""
        if not self._given or not self._given[0][0] <= token < self._next:
            return
        self._accepted.add(token)
        last: Found | None = None
        while self._given and self._given[0][0] in self._accepted:
            first, last = self._given.popleft()
            self._accepted.discard(first)
        if last is not None:
            line = last.line
            before = line.payload + (self._terminator if line.is_terminated else b"")
            number = None if line.number is None else line.number + 1
            self.place = Place(*last.file, line.end, number, last.head, before[-WINDOW:])


def load(path: str) -> Place | None:
    """Read a cursor file; None if there is none, or it is not whole.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    try:
        fd = open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, MAX_SIZE)
    finally:
        os.close(fd)
    try:
        found: dict[str, Any] = json.loads(text)
        place = Place(
            int(found["device"]),
            int(found["inode"]),
            int(found["offset"]),
            None if found["line"] is None else int(found["line"]),
            bytes.fromhex(found["head"]),
            bytes.fromhex(found["before"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    sizes_fit = len(place.head) <= WINDOW and len(place.before) <= min(WINDOW, place.offset)
    return place if sizes_fit else None


def save(path: str, place: Place) -> None:
    """Write a cursor file, whole or not at all, and durably.

    Raises:
        OSError: it cannot be written; the one that was there stays.
    """
    text = json.dumps(
        {
            "device": place.device,
            "inode": place.inode,
            "offset": place.offset,
            "line": place.number,
            "head": place.head.hex(),
            "before": place.before.hex(),
        }
    )
    part = f"{path}.open"
    with contextlib.suppress(FileNotFoundError):
        os.remove(part)
    fd = open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, text.encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(part, path)
