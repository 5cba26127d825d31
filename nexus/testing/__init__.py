"""Test event-driven programs in virtual time: the kit this project's own tests use."""

from nexus.testing._deadlock import DeadlockError, TimeLimitError
from nexus.testing._loop import VirtualTimeLoop
from nexus.testing._run import run, virtual_time

__all__ = ["DeadlockError", "TimeLimitError", "VirtualTimeLoop", "run", "virtual_time"]
