"""A disk in memory that crashes, tears and fails as told."""

import enum
import errno
import os
import random
from collections.abc import Mapping, Sequence

import attrs

from nexus._disk import plain_name

SECTOR = 512


class DiskFault(enum.Enum):
    """How a call of a `MemoryDisk` fails."""

    NO_SPACE = "no space"
    """An append, or the making of a file, raises ENOSPC."""
    IO_ERROR = "i/o error"
    """Any call raises EIO; an fsync is failed by it."""
    SHORT_WRITE = "short write"
    """An append takes only half of the bytes."""
    FAILED_FSYNC = "failed fsync"
    """An fsync raises EIO; what was not durable never will be, as on Linux, though it can still be read."""


@attrs.define(eq=False)
class _Inode:
    """One file's bytes, in memory and on the platter."""

    content: bytearray = attrs.field(factory=bytearray)
    """What a reader sees."""
    durable: bytes = b""
    """What a crash leaves for certain."""
    unchanged: int = 0
    """Bytes at the beginning in which content and durable agree."""
    doomed: list[tuple[int, int]] = attrs.field(factory=list)
    """Ranges whose fsync failed: they reach the platter as zeros."""

    def image(self) -> bytes:
        """Return what the platter gets when all is written."""
        image = bytearray(self.content)
        for begin, end in self.doomed:
            end = min(end, len(image))
            image[begin:end] = bytes(max(0, end - begin))
        return bytes(image)


class MemoryDisk:
    """A `Disk` in memory that keeps apart what is durable and what a crash may take.

    Args:
        faults: faults by the index of the call, from 0, all calls of the disk and its files counted;
            one that does not fit its call hits the next that it fits.
        capacity: bytes all files may hold; beyond them appends raise ENOSPC.
    """

    def __init__(
        self, *, faults: Mapping[int, DiskFault] | None = None, capacity: int = 64 * 1024 * 1024
    ) -> None:
        self.calls = 0
        """Calls made so far; the next one has this index."""
        self.faults: dict[int, DiskFault] = dict(faults or {})
        """Faults to come; more may be added."""
        self.crashes = 0
        """How often it has crashed. Files opened before the last crash raise EBADF."""
        self._capacity = capacity
        self._names: dict[str, _Inode] = {}
        # After each change of a name since the last fsync_dir: what a file system's journal would hold.
        self._history: list[dict[str, _Inode]] = [{}]

    def open(self, name: str, *, create: bool = False) -> "MemoryFile":
        """Open a file for reading and appending; with `create`, make it if it is missing."""
        plain_name(name)
        is_new = create and name not in self._names
        self._call(DiskFault.NO_SPACE if is_new else None)
        if is_new:
            self._change_names({**self._names, name: _Inode()})
        return MemoryFile(self, self._inode(name))

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        self._call()
        return len(self._inode(name).content)

    def list(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        self._call()
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing one of the new name; durable after `fsync_dir`."""
        self._call()
        inode = self._inode(old)
        kept = {name: each for name, each in self._names.items() if name != old}
        self._change_names({**kept, plain_name(new): inode})

    def remove(self, name: str) -> None:
        """Remove a file; durable after `fsync_dir`."""
        self._call()
        self._inode(name)
        self._change_names({each: inode for each, inode in self._names.items() if each != name})

    def fsync_dir(self) -> None:
        """Make created, renamed and removed names durable."""
        self._call(DiskFault.FAILED_FSYNC)
        self._history = [self._names]

    def crash(self, rng: random.Random) -> None:
        """Cut the power: unsynced bytes and names survive in part, as chance has it, and files are closed.

        Names come back as they were at some moment since `fsync_dir`. Of each file the durable part
        stays; the rest is cut at any byte, and one sector in what is left of it may be zeros.
        """
        self.crashes += 1
        self._names = dict(rng.choice(self._history))
        for inode in {id(each): each for _, each in sorted(self._names.items())}.values():
            inode.durable = _torn(inode, rng)
            inode.content = bytearray(inode.durable)
            inode.unchanged = len(inode.durable)
            inode.doomed.clear()
        self._history = [self._names]

    def _inode(self, name: str) -> _Inode:
        if plain_name(name) not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._names[name]

    def _change_names(self, names: dict[str, _Inode]) -> None:
        self._names = names
        self._history.append(names)

    def _room(self) -> int:
        return self._capacity - sum(len(inode.content) for inode in self._names.values())

    def _call(self, *possible: DiskFault | None) -> DiskFault | None:
        """Count a call and raise the fault that is due, if it fits; return a short write to the caller."""
        index = self.calls
        self.calls += 1
        fitting = {DiskFault.IO_ERROR, *possible}
        due = next((i for i in sorted(self.faults) if i <= index and self.faults[i] in fitting), None)
        fault = None if due is None else self.faults.pop(due)
        if fault is None or fault is DiskFault.SHORT_WRITE:
            return fault
        code = errno.ENOSPC if fault is DiskFault.NO_SPACE else errno.EIO
        raise OSError(code, os.strerror(code))


class MemoryFile:
    """An open file of a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk, inode: _Inode) -> None:
        """Open it; use `MemoryDisk.open`."""
        self._disk = disk
        self._inode = inode
        self._opened_after = disk.crashes
        self._closed = False

    def append(self, data: bytes) -> int:
        """Write at the end and return how many bytes were taken, which may be fewer than given."""
        self._check()
        fault = self._disk._call(DiskFault.NO_SPACE, DiskFault.SHORT_WRITE)
        room = self._disk._room()
        if data and room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        wanted = len(data) // 2 if fault is DiskFault.SHORT_WRITE else len(data)
        taken = data[: min(wanted, room)]
        self._inode.content += taken
        return len(taken)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        self._check()
        self._disk._call()
        return bytes(self._inode.content[offset : offset + size])

    def size(self) -> int:
        """Return the length in bytes, unsynced ones included."""
        self._check()
        self._disk._call()
        return len(self._inode.content)

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, no more than it has; durable after `fsync`."""
        self._check()
        self._disk._call()
        inode = self._inode
        if not 0 <= size <= len(inode.content):
            raise ValueError(f"a file of {len(inode.content)} bytes cannot be cut to {size!r}")
        del inode.content[size:]
        inode.unchanged = min(inode.unchanged, size)
        inode.doomed = [(begin, min(end, size)) for begin, end in inode.doomed if begin < size]

    def fsync(self) -> None:
        """Make what was written durable."""
        self._check()
        inode = self._inode
        try:
            self._disk._call(DiskFault.FAILED_FSYNC)
        except OSError:
            inode.doomed.append((inode.unchanged, len(inode.content)))
            raise
        inode.durable = inode.image()
        inode.unchanged = len(inode.content)

    def close(self) -> None:
        """Close it, without making anything durable; may be called twice."""
        self._closed = True

    def _check(self) -> None:
        if self._closed or self._opened_after != self._disk.crashes:
            raise OSError(errno.EBADF, "the file is closed, or was opened before the crash")


def _torn(inode: _Inode, rng: random.Random) -> bytes:
    """Return what a crash leaves of a file."""
    base, image = inode.durable, inode.image()
    if inode.unchanged < len(base) and rng.random() < 0.5:
        return base  # the cut was not written, nor anything after it
    begin = inode.unchanged
    rest = bytearray(image[begin : begin + rng.randint(0, len(image) - begin)])
    if rest and rng.random() < 0.5:
        sector = rng.randrange(0, len(rest), SECTOR)
        length = min(SECTOR, len(rest) - sector)
        rest[sector : sector + length] = bytes(length)
    return image[:begin] + bytes(rest)
