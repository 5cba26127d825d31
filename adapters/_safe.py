"""Words about errors that cannot do harm: printable ASCII, and not much of it."""

from __future__ import annotations

__all__ = ["printable", "why"]

LENGTH = 200
"""Characters of foreign text that an error shows."""


def printable(text: str, length: int = LENGTH) -> str:
    """Escape what is not printable ASCII, and shorten."""
    return ascii(text[:length])[1:-1] + ("..." if len(text) > length else "")


def why(exc: BaseException) -> str:
    """Say what an error that somebody else raised says, whatever that is."""
    name = type(exc).__name__
    try:
        text = str(exc)
    except Exception:  # its own text may fail too
        return name
    return f"{name}: {printable(text)}" if text else name
