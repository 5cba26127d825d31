"""Words about errors that cannot do harm: printable ASCII, and not much of it."""

from __future__ import annotations

__all__ = ["one_line", "printable", "why"]

LENGTH = 200
"""Characters of foreign text that an error shows."""


def printable(text: str, length: int = LENGTH) -> str:
    """Escape what is not printable ASCII, and shorten."""
    return ascii(text[:length])[1:-1] + ("..." if len(text) > length else "")


def one_line(text: str) -> str:
    """Escape what ends a line, steers a terminal or hides; letters of any script stay."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def why(exc: BaseException) -> str:
    """Say what an error that somebody else raised says, whatever that is."""
    name = type(exc).__name__
    try:
        text = str(exc)
    except Exception:  # its own text may fail too
        return name
    return f"{name}: {printable(text)}" if text else name
