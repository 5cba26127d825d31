"""Texts that would steer a terminal, forge a line of a log, or hide what they say."""

__all__ = ["VECTORS", "is_one_line"]

_SIGNS = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *map(chr, (0xAD, 0x61C, 0x180E, 0x2028, 0x2029, 0xFEFF, 0xFFF9, 0xE0041)),
    *map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))),
]
_SHAPES = [
    "\x1b[2J",
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0=\x07",
    "\x1bP+q\x1b\\",
    "\x9b31m",
    "\r\n2026-01-01 00:00:00 INFO nexus forged",
    "\n\n",
    "a\rb",
    "\x08\x08\x08",
    "\u202eevil\u202c",
    "a\0b",
    "\x0c\x0b",
]

VECTORS = list(
    dict.fromkeys(_SHAPES + [f"a{sign}b" for sign in _SIGNS] + [f"{a}{b}" for a in _SHAPES for b in _SIGNS])
)[:200]
"""200 of them: line ends, ANSI, OSC, C1, bidi, zero widths, NUL."""


def is_one_line(text: str) -> bool:
    """Say whether a text is one line and nothing in it steers or hides."""
    return text.isprintable() and len(text.splitlines()) <= 1
