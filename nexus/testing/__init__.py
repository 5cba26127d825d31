"""Test event-driven programs in virtual time: the kit this project's own tests use.

- time: `run`, `virtual_time`, `VirtualTimeLoop`, `DeadlockError`, `TimeLimitError`
- events in and out: `Script`, `Recorder`, `Record`
- assertions: `assert_ledger_balanced`, `assert_waited_less`, `assert_order`
- the world, from a seed: `MemoryWire`, `WireCounts`, `MemoryDisk`, `MemoryFile`, `DiskFault`
"""

from ._assertions import assert_ledger_balanced, assert_order, assert_waited_less
from ._deadlock import DeadlockError, TimeLimitError
from ._disk import DiskFault, MemoryDisk, MemoryFile
from ._loop import VirtualTimeLoop
from ._recorder import Record, Recorder
from ._run import run, virtual_time
from ._script import Script
from ._wire import MemoryWire, WireCounts

__all__ = [
    "DeadlockError",
    "DiskFault",
    "MemoryDisk",
    "MemoryFile",
    "MemoryWire",
    "Record",
    "Recorder",
    "Script",
    "TimeLimitError",
    "VirtualTimeLoop",
    "WireCounts",
    "assert_ledger_balanced",
    "assert_order",
    "assert_waited_less",
    "run",
    "virtual_time",
]
