"""What may be published to and what may be subscribed to, by section 4.7 of the MQTT specifications.

A broker ends the connection of whoever breaks these rules, so nothing that breaks them is ever sent.
"""

from __future__ import annotations

import re
from functools import lru_cache

from nexus.errors import ConfigError

__all__ = ["check_filter", "check_topic"]

MAX_BYTES = 65535

# Control characters, surrogates and noncharacters (1.5.4).
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr(plane << 16 | low) for plane in range(1, 17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


@lru_cache(maxsize=256)
def check_topic(topic: str) -> bytes:
    """Return a topic to publish to as it goes over the wire, its length first.

    Raises:
        ConfigError: nobody may publish to it.
    """
    _check_text("topic", topic)
    if "+" in topic or "#" in topic:
        raise _wrong("topic", topic, "a topic without + and #, which only a subscription may have")
    if topic.split("/", 1)[0] in ("$SYS", "$share"):
        raise _wrong(
            "topic", topic, "a topic that does not begin with $SYS or $share: those are the broker's"
        )
    data = topic.encode()
    return len(data).to_bytes(2, "big") + data


def check_filter(topic: str) -> bytes:
    """Return a filter to subscribe to as it goes over the wire, its length first.

    ``+`` stands for one level, ``#`` at the end for all that follow; ``$share/GROUP/FILTER`` is shared by
    all who subscribe with the same group.

    Raises:
        ConfigError: it is none.
    """
    _check_text("topic", topic)
    levels = topic.split("/")
    if levels[0] == "$share":
        if len(levels) < 3 or not levels[1] or levels[2:] == [""] or "+" in levels[1] or "#" in levels[1]:
            raise _wrong("topic", topic, "$share/GROUP/FILTER, with a group without + and #")
        levels = levels[2:]
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            raise _wrong("topic", topic, "+ and # only as a whole level, as in oven/+/# ")
    if "#" in levels[:-1]:
        raise _wrong("topic", topic, "# only as the last level")
    data = topic.encode()
    return len(data).to_bytes(2, "big") + data


def _check_text(field: str, topic: object) -> None:
    if not isinstance(topic, str):
        raise ConfigError(f"{field}: found {type(topic).__name__}, allowed: a text")
    if not topic:
        raise _wrong(field, topic, "at least one character")
    if found := _FORBIDDEN.search(topic):
        raise _wrong(field, topic, f"no control character or noncharacter such as {found[0]!a}")
    if len(topic.encode()) > MAX_BYTES:
        raise _wrong(field, topic, f"up to {MAX_BYTES} bytes")


def _wrong(field: str, topic: str, allowed: str) -> ConfigError:
    shown = ascii(topic[:80]) + ("..." if len(topic) > 80 else "")
    return ConfigError(f"{field}: found {shown}, allowed: {allowed.strip()}")
