"""How much memory this process holds, and the most it has held, as the kernel tells it (proc(5))."""

import ctypes
import re
from pathlib import Path

__all__ = ["PeakGrowth", "resident"]

PAGE = 4096


def resident() -> int:
    """Return what is resident now, bytes, but for what the heap has free.

    That would hide what is kept: earlier tests may have left more of it than a leak takes.
    """
    _trim()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class PeakGrowth:
    """From its making, how far the resident memory has risen at its highest."""

    def __init__(self) -> None:
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self._before = _peak()

    @property
    def bytes(self) -> int:
        return _peak() - self._before


def _peak() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _trim() -> None:
    """Give back what the heap has free, where the C library can (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
