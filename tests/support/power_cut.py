"""A disk in memory for SQLite, whose power can be cut and which can fail at any call.

What is written is seen by everybody at once, and survives a cut only if it was flushed. Of the rest, a cut
keeps what it likes: nothing, or some of the writes, some of them torn at a sector, in any order. Names behave
like those of a journaling file system: a cut keeps the first few of the changes that were not flushed.
"""

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import apsw
import attrs

from nexus.boundaries.outbox._files import Files

SECTOR = 512
Fault = Literal["full", "io", "short", "sync"]

FAULTS: tuple[Fault, ...] = ("full", "io", "short", "sync")
CALLS = {"full": {"write", "make"}, "io": {"write", "read", "truncate", "sync", "make", "name"}}
CALLS |= {"short": {"write"}, "sync": {"sync"}}
"""Which calls each fault may strike."""

numbers = itertools.count()


class Cut(Exception):
    """The power is off."""


@attrs.define(eq=False)
class Inode:
    """A file's content: as it is seen, as it is on the disk, and what was written since the last flush."""

    seen: bytearray = attrs.field(factory=bytearray)
    kept: bytearray = attrs.field(factory=bytearray)
    waiting: list[tuple[int, bytes | None]] = attrs.field(factory=list)
    """Where and what; None where the file was cut there."""
    number: int = attrs.field(factory=lambda: next(numbers))

    def apply(self, content: bytearray, at: int, data: bytes | None) -> None:
        """Do one write, or one cut."""
        if data is None:
            del content[at:]
        else:
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(data)] = data

    def change(self, at: int, data: bytes | None) -> None:
        self.apply(self.seen, at, data)
        self.waiting.append((at, data))

    def flush(self) -> None:
        for at, data in self.waiting:
            self.apply(self.kept, at, data)
        self.waiting.clear()


class Disk:
    """Files by name, a counter of calls, and what is to happen at which call.

    Args:
        rng: decides what a cut keeps.
        tears: whether a cut keeps some of what was not flushed, rather than nothing.
    """

    def __init__(self, rng: random.Random, *, tears: bool = True) -> None:
        self.rng = rng
        self.tears = tears
        self.names: dict[str, Inode] = {}
        self.kept_names: dict[str, Inode] = {}
        self.changes: list[tuple[str, Inode | None]] = []
        self.calls = 0
        self.cut_at: int | None = None
        self.fault: Fault | None = None
        self.fault_at = 0
        self.fault_calls = 0
        """How many calls that can fail do so, from the one at `fault_at` on."""
        self.struck = 0
        """Calls that failed."""
        self.is_off = False
        self.on_flush: Callable[[str], object] = lambda name: None

    # What SQLite and the outbox do

    def call(self, kind: str) -> None:
        """Count a call, and let happen what is to happen at it."""
        if self.is_off:
            raise cut()
        self.calls += 1
        if self.cut_at is not None and self.calls >= self.cut_at:
            self.is_off = True
            raise cut()
        is_due = self.calls >= self.fault_at and self.struck < self.fault_calls
        if self.fault and is_due and kind in CALLS[self.fault]:
            self.struck += 1
            raise fault(self.fault, kind)

    def find(self, name: str) -> Inode:
        if name not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.names[name]

    def write(self, inode: Inode, at: int, data: bytes) -> None:
        try:
            self.call("write")
        except Exception:
            # The write under way may reach the disk, or a part of it.
            if not self.is_off:
                inode.change(at, data[: len(data) // 2] if self.fault == "short" else b"")
            elif self.calls == self.cut_at:
                inode.change(at, data)
                self.cut_at = None
            raise
        inode.change(at, data)

    def flush(self, name: str, inode: Inode) -> None:
        try:
            self.call("sync")
        except Exception:
            if not self.is_off:
                # The system takes it for written from now on, and it never will be.
                inode.waiting.clear()
            raise
        inode.flush()
        self.on_flush(name)

    def rename(self, old: str, new: str) -> None:
        self.call("name")
        inode = self.find(old)
        del self.names[old]
        self.names[new] = inode
        self.changes += [(new, inode), (old, None)]

    def make(self, name: str) -> Inode:
        self.call("make")
        inode = self.names[name] = Inode()
        self.changes.append((name, inode))
        return inode

    def remove(self, name: str) -> None:
        self.call("name")
        self.find(name)
        del self.names[name]
        self.changes.append((name, None))

    def flush_names(self) -> None:
        self.call("sync")
        self._keep(len(self.changes))

    def _keep(self, count: int) -> None:
        for name, inode in self.changes[:count]:
            if inode is None:
                self.kept_names.pop(name, None)
            else:
                self.kept_names[name] = inode
        del self.changes[:count]

    # What happens to it

    def restart(self) -> None:
        """Go on with what a cut has left."""
        if self.tears:
            self._keep(self.rng.randint(0, len(self.changes)))
        self.changes.clear()
        files: dict[str, Inode] = {}
        for name, inode in self.kept_names.items():
            if self.tears:
                some = [each for each in inode.waiting if self.rng.random() < 0.5]
                self.rng.shuffle(some)
                for at, data in some:
                    if data is not None and self.rng.random() < 0.2:
                        data = data[: self.rng.randrange(0, len(data) + 1, SECTOR)]
                    inode.apply(inode.kept, at, data)
            files[name] = Inode(bytearray(inode.kept), bytearray(inode.kept))
        self.names, self.kept_names = files, dict(files)
        self.is_off, self.cut_at, self.fault = False, None, None

    def mend(self) -> None:
        """No call fails any more."""
        self.fault = None


def cut() -> Exception:
    """Make the error that SQLite gets from a disk without power."""
    exc = apsw.IOError("the power is off")
    exc.extendedresult = apsw.SQLITE_IOERR
    exc.__cause__ = Cut()
    return exc


def fault(kind: Fault, call: str) -> Exception:
    """Make the error of a call that fails."""
    if kind == "full":
        full = apsw.FullError("no space left on the disk")
        full.extendedresult = apsw.SQLITE_FULL
        return full
    codes = {
        "read": apsw.SQLITE_IOERR_READ,
        "sync": apsw.SQLITE_IOERR_FSYNC,
        "write": apsw.SQLITE_IOERR_WRITE,
    }
    exc = apsw.IOError(f"the disk fails: {call}")
    exc.extendedresult = codes.get(call, apsw.SQLITE_IOERR)
    return exc


class SimulatedFile(apsw.VFSFile):
    """An open file of a `Disk`."""

    def __init__(self, disk: Disk, name: str, inode: Inode, is_temporary: bool) -> None:
        self.disk = disk
        self.name = name
        self.inode = inode
        self.is_temporary = is_temporary

    def xRead(self, amount: int, offset: int) -> bytes:
        self.disk.call("read")
        return bytes(self.inode.seen[offset : offset + amount])

    def xWrite(self, data: Any, offset: int) -> None:
        self.disk.write(self.inode, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self.disk.call("truncate")
        self.inode.change(newsize, None)

    def xSync(self, flags: int) -> None:
        self.disk.flush(self.name, self.inode)
        # Unix flushes the folder with the first flush of a journal or log.
        if self.disk.changes and self.name.endswith(("-wal", "-journal")):
            self.disk.flush_names()

    def xFileSize(self) -> int:
        return len(self.inode.seen)

    def xLock(self, level: int) -> None: ...
    def xUnlock(self, level: int) -> None: ...
    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None: ...
    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class SimulatedVFS(apsw.VFS):
    """Gives SQLite the files of a `Disk`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        super().__init__(name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> SimulatedFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:
            return SimulatedFile(self.disk, "", Inode(), True)
        flags[1] = flags[0]
        if path not in self.disk.names:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            self.disk.make(path)
        return SimulatedFile(self.disk, path, self.disk.names[path], False)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if filename not in self.disk.names:
            exc = apsw.IOError(filename)
            exc.extendedresult = apsw.SQLITE_IOERR_DELETE_NOENT
            raise exc
        self.disk.remove(filename)
        if syncdir:
            self.disk.flush_names()

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.disk.names

    def xFullPathname(self, name: str) -> str:
        return name


@contextmanager
def system_errors() -> Iterator[None]:
    """Raise what the system raises, where SQLite is not asked."""
    try:
        yield
    except apsw.Error as exc:
        number = errno.ENOSPC if isinstance(exc, apsw.FullError) else errno.EIO
        raise OSError(number, os.strerror(number)) from exc


class SimulatedFiles(Files):
    """What the outbox does beside SQLite, on a `Disk`."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def create(self, path: str) -> None:
        with system_errors():
            if path not in self.disk.names:
                self.disk.make(path)

    def identity(self, path: str) -> tuple[int, int] | None:
        inode = self.disk.names.get(path)
        return None if inode is None else (0, inode.number)

    def size(self, path: str) -> int:
        inode = self.disk.names.get(path)
        return 0 if inode is None else len(inode.seen)

    def read(self, path: str, most: int = -1) -> bytes:
        inode = self.disk.names.get(path, Inode())
        return bytes(inode.seen if most < 0 else inode.seen[:most])

    def rewrite(self, path: str) -> None:
        copy = f"{path}-copy"
        with system_errors():
            inode = self.disk.make(copy)
            self.disk.write(inode, 0, self.read(path))
            self.disk.flush(copy, inode)
        self.replace(copy, path)

    def write(self, path: str, content: bytes) -> None:
        copy = f"{path}-copy"
        with system_errors():
            inode = self.disk.make(copy)
            self.disk.write(inode, 0, content)
            self.disk.flush(copy, inode)
        self.replace(copy, path)

    def replace(self, old: str, new: str) -> None:
        with system_errors():
            self.disk.rename(old, new)
        self.sync_folder(new)

    def remove(self, path: str) -> None:
        with system_errors():
            if path in self.disk.names:
                self.disk.remove(path)

    def sync_folder(self, path: str) -> None:
        with system_errors():
            self.disk.flush_names()


@contextmanager
def simulated(disk: Disk, *, checkpoint: int = 20) -> Iterator[dict[str, Any]]:
    """Give what a store or an outbox needs to use a disk: `connect` and `files`.

    Args:
        checkpoint: pages after which the log is moved into the database.
    """
    name = f"simulated-{next(numbers)}"
    vfs = SimulatedVFS(name, disk)
    connections: list[apsw.Connection] = []

    def connect(path: str) -> Any:
        con = apsw.Connection(path, vfs=name)
        connections.append(con)
        con.execute(f"PRAGMA wal_autocheckpoint={checkpoint}")
        return con

    try:
        yield {"connect": connect, "files": SimulatedFiles(disk)}
    finally:
        disk.is_off = True
        for con in connections:
            with suppress(apsw.Error):
                con.close(True)
        vfs.unregister()
