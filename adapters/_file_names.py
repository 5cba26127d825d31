"""The names of the files that a sender writes: a stamp of time and a number, never anything from the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from nexus.errors import ConfigError

__all__ = ["OPEN", "Names", "zone"]

OPEN = ".open"
"""Ends the name of a file that is not finished."""

DIRECTIVES = "YyGmdjHMSfzVuUWw%"
"""What may follow a ``%``: the same in every locale and on every system."""

LENGTH = 200
"""Characters that a stamp may have; file systems allow 255 bytes for all of the name."""


class Names:
    """Gives each file a name that is not taken.

    Args:
        pattern: for `datetime.strftime`, with numbers and ``%z`` only: see `DIRECTIVES`.
        suffix: the end of each name, such as ``.jsonl``.
        zone: the time zone of the stamps; None for that of the machine.
        now: in place of the clock of the machine.

    Raises:
        ConfigError: the names would hold a path, or mean something else elsewhere.
    """

    def __init__(
        self,
        pattern: str,
        suffix: str,
        zone: tzinfo | None = UTC,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        for directive in re.findall(r"%(.?)", pattern.replace("%%", "")):
            if directive not in DIRECTIVES or not directive:
                allowed = " ".join(f"%{each}" for each in DIRECTIVES)
                raise ConfigError(f"name: found {'%' + directive!r} in {pattern!r}, allowed: {allowed}")
        _check_plain("name", pattern, empty=False)
        _check_plain("suffix", suffix, empty=True)
        if pattern.startswith("."):
            raise ConfigError(f"name: found {pattern!r}, allowed: a name without a dot at its begin")
        if suffix.endswith((OPEN, ".gz")):
            raise ConfigError(f"suffix: found {suffix!r}, allowed: one that does not end in {OPEN} or .gz")
        self.pattern = pattern
        self.suffix = suffix
        self._zone = zone
        self._now = now
        self._ours = re.compile(self._regex())
        if len(self.stamp()) > LENGTH:
            raise ConfigError(f"name: found {pattern!r}, allowed: up to {LENGTH} characters")

    def stamp(self) -> str:
        """Say the time by the pattern; ``%z`` is ``Z`` in UTC and like ``+0100`` elsewhere."""
        moment = self._now().astimezone(self._zone)
        offset = "Z" if not moment.utcoffset() else moment.strftime("%z").replace(":", "")
        parts = self.pattern.split("%%")
        return "%".join(moment.strftime(part.replace("%z", offset)) for part in parts)

    def next(self, taken: Iterable[str]) -> str:
        """Give the next name for now: one above the highest number of this stamp."""
        stamp = self.stamp()
        number = re.compile(re.escape(stamp) + r"_(\d{4,})(?:\.|$)")
        numbers = [int(found[1]) for name in taken if (found := number.match(name))]
        return f"{stamp}_{max(numbers, default=0) + 1:04d}{self.suffix}"

    def is_ours(self, name: str) -> bool:
        """Say whether a name is one of those that `next` gives, at any time."""
        return self._ours.fullmatch(name) is not None

    def _regex(self) -> str:
        parts = re.split(r"(%.)", self.pattern)
        kinds = {"%%": "%", "%z": r"(?:Z|[+-]\d{4,6})"}
        stamp = "".join(
            kinds.get(part, r"\d+") if part.startswith("%") else re.escape(part) for part in parts
        )
        return rf"{stamp}_\d{{4,}}{re.escape(self.suffix)}"


def zone(name: str) -> tzinfo | None:
    """Give the time zone of a name; None for ``local``.

    Raises:
        ConfigError: there is none.
    """
    if name == "local":
        return None
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ConfigError(
            f"timezone: found {name[:100]!r}, allowed: UTC, local, or one such as Europe/Berlin"
        ) from None


def _check_plain(field: str, text: str, *, empty: bool) -> None:
    if (not text and not empty) or not text.isprintable() or any(char in text for char in '/\\:*?"<>|'):
        raise ConfigError(f"{field}: found {text[:100]!r}, allowed: a plain name without a path")
