"""The real machine, as figures: names and numbers that psutil reads."""

import time
from collections.abc import Iterator

import attrs
import psutil

__all__ = ["Figure", "Machine", "ProcessFigures", "Processes"]

Figure = tuple[str, float]
"""What was read: a dotted name such as ``cpu0.user``, and its value."""


class Machine:
    """Reads processors, memory, disks and networks; one sweep takes a fraction of a millisecond."""

    def sweep(self) -> Iterator[Figure]:
        """Read every figure once.

        Times of a processor are in percent since the sweep before, sizes in bytes; counters grow since boot.
        """
        for number, cpu in enumerate(psutil.cpu_times_percent(percpu=True)):
            yield f"cpu{number}.busy", max(0.0, 100.0 - cpu.idle - getattr(cpu, "iowait", 0.0))
            yield from named(f"cpu{number}", cpu)
        yield from named("memory", psutil.virtual_memory())
        for name, disk in (psutil.disk_io_counters(perdisk=True) or {}).items():
            yield from named(f"disk.{name}", disk)
        for name, net in (psutil.net_io_counters(pernic=True) or {}).items():
            yield from named(f"net.{name}", net)
        yield from named("kernel", psutil.cpu_stats())
        yield from zip(("load.1min", "load.5min", "load.15min"), psutil.getloadavg(), strict=True)


@attrs.frozen
class ProcessFigures:
    """What was read of one process at one moment."""

    pid: int
    name: str
    busy: float
    """Percent of one processor since it was looked at before; 0 the first time."""
    figures: tuple[Figure, ...]


@attrs.define(eq=False)
class Processes:
    """Reads the processes one after the other, round and round; one takes some tens of microseconds."""

    hottest: ProcessFigures | None = None
    """The busiest process of the last full round; None before there was one."""
    _seen: dict[int, tuple[float, float, float]] = attrs.field(factory=dict, init=False)
    """By pid: when it was measured, the processor time it had used, and how busy that made it."""

    MEASURED_OVER = 0.25
    """Seconds over which busy is measured: the kernel counts processor time in steps of 10 ms."""

    def round(self) -> Iterator[ProcessFigures]:
        """Read every process that is there now and may be read; those that vanish meanwhile are left out."""
        hottest: ProcessFigures | None = None
        for process in psutil.process_iter():
            try:
                read = self._read(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                self._seen.pop(process.pid, None)
                continue
            if hottest is None or read.busy > hottest.busy:
                hottest = read
            yield read
        self.hottest = hottest

    def _read(self, process: psutil.Process) -> ProcessFigures:
        with process.oneshot():
            name, times, memory = process.name(), process.cpu_times(), process.memory_info()
            switches, threads = process.num_ctx_switches(), process.num_threads()
        busy = self._busy(process.pid, times.user + times.system)
        figures = (
            (f"{process.pid}.busy", busy),
            (f"{process.pid}.user", times.user),
            (f"{process.pid}.system", times.system),
            (f"{process.pid}.resident", float(memory.rss)),
            (f"{process.pid}.virtual", float(memory.vms)),
            (f"{process.pid}.switches", float(switches.voluntary + switches.involuntary)),
            (f"{process.pid}.threads", float(threads)),
        )
        return ProcessFigures(process.pid, name, busy, figures)

    def _busy(self, pid: int, used: float) -> float:
        now = time.monotonic()
        then, used_then, busy = self._seen.get(pid, (now, used, 0.0))
        if pid in self._seen and now - then < self.MEASURED_OVER:
            return busy
        busy = 100.0 * (used - used_then) / (now - then) if now > then else 0.0
        self._seen[pid] = (now, used, busy)
        return busy


def named(prefix: str, fields: object) -> Iterator[Figure]:
    """Give the numbers of one of psutil's named tuples."""
    for name in getattr(fields, "_fields", ()):
        yield f"{prefix}.{name}", float(getattr(fields, name))
