"""The live view of the commands over URLs: lines that scroll, and one below them that changes."""

import asyncio
import base64
import contextlib
import re
import shutil
import sys
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import orjson

from nexus.adapters._base import LinkState
from nexus.adapters._console_text import visible
from nexus.cli._signals import signals

__all__ = ["Links", "Live", "Meter", "until"]
__all__ += ["as_json", "as_text", "by_reason", "duration", "line_of", "shortened", "size_of", "width"]

UNPRINTABLE = re.compile(r"[^ -~]")


def line_of(text: str | bytes) -> str:
    """Escape what a terminal would obey or hide, line ends and tabs included."""
    return visible(text).replace("\t", "\\x09")


def as_text(data: Any) -> str:
    """Write data for people, on one line: JSON, or as it is where it is text or bytes."""
    return line_of(data if isinstance(data, str | bytes) else packed(data))


def as_json(item: Mapping[str, Any]) -> str:
    """Write an object as one line of JSON in ASCII; bytes become ``{"base64": ...}``."""
    return UNPRINTABLE.sub(escaped, packed(item))


def packed(data: Any) -> str:
    """Return data as JSON; what JSON has not as its `repr`."""
    try:
        return orjson.dumps(data, default=plain_of, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):  # such as halves of surrogates, numbers over 64 bits
        return orjson.dumps(ascii(data)).decode()


def plain_of(value: Any) -> Any:
    """Return something JSON has for something it has not."""
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    return ascii(value)


def escaped(found: re.Match[str]) -> str:
    """Write a character of a JSON text as JSON writes it in ASCII."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def width() -> int:
    """Return the columns of a line: the terminal's, those of COLUMNS, else 120."""
    return shutil.get_terminal_size((120, 24)).columns


def shortened(text: str, columns: int) -> str:
    """Cut a text that takes more columns than there are; wide characters take two."""
    if len(text) * 2 <= columns:
        return text
    taken = 0
    for place, char in enumerate(text):
        if not char.isascii():
            wide = unicodedata.east_asian_width(char) in "WF"
            taken += 0 if unicodedata.combining(char) else 1 + wide
        else:
            taken += 1
        if taken > columns:
            return text[: max(0, place - 3)] + "..."
    return text


def size_of(count: float) -> str:
    """Write a number of bytes in three digits."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def duration(seconds: float) -> str:
    """Write a time in three digits."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


def by_reason(counts: Mapping[str, int]) -> str:
    """Write a count and what it consists of: ``3 (size 1, unpack 2)``."""
    parts = ", ".join(f"{line_of(reason)} {count:,}" for reason, count in counts.items() if count)
    total = sum(counts.values())
    return f"{total:,} ({parts})" if parts else "0"


class Meter:
    """Says how many items and bytes came in the last second.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: deque[tuple[float, int, int]] = deque(maxlen=20)
        self._items = self._bytes = 0

    def add(self, items: int, size: int) -> None:
        """Count items and their bytes."""
        now = round(self._clock(), 1)
        if self._slots and self._slots[-1][0] == now:
            _, before, bytes_before = self._slots.pop()
            items, size = items + before, size + bytes_before
        self._slots.append((now, items, size))

    def rates(self) -> tuple[int, int]:
        """Return items and bytes a second."""
        since = self._clock() - 1
        recent = [(items, size) for when, items, size in self._slots if when > since]
        return sum(items for items, _ in recent), sum(size for _, size in recent)


class Live:
    """Prints lines to the standard output, and keeps a status line below them on a terminal.

    Args:
        status: gives the status line.
        plain: without a status line on a terminal.
        interval: seconds between its changes.
        every: called each interval, also where there is no status line.
    """

    def __init__(
        self,
        status: Callable[[], str],
        *,
        plain: bool,
        interval: float = 0.25,
        every: Callable[[], object] | None = None,
    ) -> None:
        self._status = status
        self.in_place = not plain and sys.stdout.isatty() and sys.stderr.isatty()
        self._interval = interval
        self._every = every
        self._timer: asyncio.TimerHandle | None = None
        self._shown = ""

    def __enter__(self) -> Self:
        self._tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the status line away. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self.in_place:
            self.in_place = False
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()

    def print(self, lines: Iterable[str]) -> None:
        """Print lines to the standard output at once."""
        self._write(sys.stdout, lines)

    def say(self, *lines: str) -> None:
        """Print lines to the standard error at once."""
        self._write(sys.stderr, lines)

    def _write(self, stream: Any, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if self.in_place:
            text = f"\r\x1b[K{text}{self._shown}"
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)
        if self._every is not None:
            self._every()
        if self.in_place:
            self._shown = shortened(self._status(), width() - 1)
            self.print(())


class Links:
    """Says how links change, each change once: a peer that is tried again and again is one line."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._last: dict[str, str] = {}
        self.failed: str | None = None
        """Why a link has failed for good."""

    def __call__(self, state: LinkState) -> None:
        if state.state in ("connecting", "stopped"):
            return
        text = f"link {state.name}: {state.state}" + (f", {state.error}" if state.error else "")
        if state.state == "failed":
            self.failed = f"{state.name}: {state.error}"
        if self._last.get(state.name) != text:
            self._last[state.name] = text
            self._say(line_of(text))


@contextlib.asynccontextmanager
async def until(seconds: float | None) -> AsyncIterator[None]:
    """Run the block until its end, a signal, or the end of the time, all without an error."""
    task = asyncio.current_task()
    assert task is not None
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            with signals(stop):
                yield
    except TimeoutError:
        if not limit.expired():
            raise
    except asyncio.CancelledError:
        if not stopped:
            raise
        while task.cancelling():
            task.uncancel()
