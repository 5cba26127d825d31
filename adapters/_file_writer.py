"""Write lines to files: whole or not at all, whatever the disk does. Blocks; it lives in a thread."""

from __future__ import annotations

import errno
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator
from itertools import accumulate
from typing import Literal, TypeAlias

import attrs

from nexus.adapters._file_disk import Disk, DiskFile, Folder, InUse
from nexus.adapters._file_gzip import compress
from nexus.adapters._file_names import OPEN, Names

__all__ = ["Batch", "Fsync", "Plan", "Writer"]

logger = logging.getLogger(__name__)

Fsync: TypeAlias = Literal["never", "interval", "always"]

WAITS = (errno.ENOSPC, errno.EDQUOT)
"""Errors that pass when there is room again; after others, a new file is begun."""

TRIES = 100
"""Names tried for a new file before giving up."""


@attrs.frozen
class Plan:
    """How files are written; see the options of the same names."""

    fixed: str | None
    """The name of the file that is written; None for a new name each time."""
    terminator: bytes = b"\n"
    rollover: float | None = None
    rollover_size: int | None = None
    fsync: Fsync = "interval"
    fsync_interval: float = 1.0
    compress: bool = False


@attrs.define(eq=False)
class Batch:
    """Lines to be written; the thread counts those that are."""

    lines: list[bytes]
    """Each with its end."""
    header: bytes = b""
    """What each new file begins with."""
    is_fixed_header: bool = False
    """Whether a file that begins otherwise is not to be continued."""
    appended: int = 0
    """Lines that are in a file."""
    written: int = 0
    """Lines that need not be written again: with ``fsync="always"`` they are durable."""
    ended: bool = False
    """Whether the thread is done with it."""


class Writer:
    """One sender's files.

    A write that fails takes back the part of a line that was written. What cannot be taken back, or may not
    be durable although it should, stays behind in a file that is not written any more.

    Args:
        disk: where the files are.
        names: names them.
        plan: see the class.
        clock: tells seconds.
    """

    def __init__(self, disk: Disk, names: Names, plan: Plan, clock: Callable[[], float]) -> None:
        self.files = 0
        """Files begun or continued."""
        self._disk = disk
        self._names = names
        self._plan = plan
        self._clock = clock
        self._file: DiskFile | None = None
        self._name = ""
        self._size = 0
        self._synced = 0
        self._lines = 0
        self._opened = 0.0
        self._sync_at: float | None = None
        self._checked = False
        self._work: deque[str] = deque()  # bounded by the files of the folder
        self._step: Generator[None] | None = None

    def recover(self) -> None:
        """Finish the files that a writer left open when it died."""
        names = self._disk.list()
        for name in names:
            final = name.removesuffix(OPEN)
            if final == name or not self._names.is_ours(final) or final in names:
                continue
            try:
                file = self._disk.open(name)
                size = file.size()
                file.close()
                if size:
                    self._finish(name, final)
                else:
                    self._disk.remove(name)
            except OSError as exc:  # mostly, that it is being written
                logger.debug("%s is left as it is: %s", name, exc)

    def open(self) -> None:
        """Have a file to write to, if there is none.

        Raises:
            OSError: there cannot be one now.
        """
        if self._file is not None:
            if not isinstance(self._disk, Folder) or self._disk.is_at(self._name, self._file):
                return
            logger.warning("%s was moved away; a new one is begun", self._name)
            self._drop_file()
        fixed = self._plan.fixed
        file = self._disk.open(fixed, create=True) if fixed else self._create()
        try:
            if fixed:
                self._name = fixed
            size = file.size()
            end = self._plan.terminator
            if size and file.read(max(0, size - len(end)), len(end)) != end:
                # A line that was cut off by a death of its writer stands alone.
                if file.append(end) != len(end):
                    raise OSError(errno.EIO, "the end of a line could not be written")
                size += len(end)
            if self._plan.fsync != "never":
                self._disk.fsync_dir()
        except BaseException:
            file.close()
            raise
        self._file, self._size, self._synced, self._lines = file, size, size, 0
        self._checked = not size
        self._opened = self._clock()
        self._sync_at = None
        self.files += 1

    def write(self, batch: Batch) -> None:
        """Append the lines of a batch; `Batch.written` says how many are, also when it raises.

        Raises:
            OSError: the rest could not be written now.
        """
        always = self._plan.fsync == "always"
        try:
            while batch.appended < len(batch.lines):
                self.open()
                self._begin(batch)
                if fitting := self._fitting(batch):
                    self._append(batch, fitting)
                    continue
                if self._plan.fsync != "never":
                    self.sync()
                batch.written = batch.appended
                self.roll()
        except OSError as exc:
            if always and self._file is not None and batch.appended > batch.written:
                self.sync()
                batch.written = batch.appended
            if exc.errno not in WAITS:
                self._abandon()
            raise
        if always:
            self.sync()
            batch.written = batch.appended
        elif self._plan.fsync == "interval" and self._sync_at is None:
            self._sync_at = self._clock() + self._plan.fsync_interval

    def tick(self) -> float | None:
        """Do what is due; return the seconds until something will be, None if nothing.

        Raises:
            OSError: a file could not be made durable or be finished; a new one will be begun.
        """
        now = self._clock()
        age = now - self._opened
        if self._file is not None and self._plan.rollover is not None and age >= self._plan.rollover:
            if self._lines:
                self.roll()
            else:
                self._opened = now
        if self._sync_at is not None and now >= self._sync_at:
            self.sync()
        self._compress_a_slice()
        if self._work or self._step is not None:
            return 0.0
        moments = [self._sync_at]
        if self._file is not None and self._plan.rollover is not None:
            moments.append(self._opened + self._plan.rollover)
        due = [moment for moment in moments if moment is not None]
        return max(0.0, min(due) - now) if due else None

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: it may never be; what was not durable is cut off, and a new file will be begun.
        """
        self._sync_at = None
        if self._file is None or self._synced == self._size:
            return
        try:
            self._file.fsync()
        except OSError as exc:
            lost = self._size - self._synced
            cut = self._plan.fsync == "always"  # then these lines are written again
            name = self._name
            self._abandon(cut_to=self._synced if cut else None)
            fate = "they go to a new file" if cut else "they may not survive a power cut"
            raise OSError(
                exc.errno, f"{name}: {lost} bytes were not made durable ({exc.strerror}); {fate}"
            ) from exc
        self._synced = self._size

    def roll(self) -> None:
        """Finish the file; the next line begins another.

        Raises:
            OSError: it could not be made durable, or not get its name.
        """
        if self._file is None:
            return
        if self._plan.fsync != "never":
            self.sync()
        self._put_away()

    def close(self, until: float | None = None) -> None:
        """Finish what is open, and compress until a moment of the clock.

        Raises:
            OSError: the file could not be made durable, or not get its name.
        """
        try:
            if self._plan.fixed and self._file is not None:
                if self._plan.fsync != "never":
                    self.sync()
                self._drop_file()
            else:
                self.roll()
            while (self._work or self._step is not None) and (until is None or self._clock() < until):
                self._compress_a_slice()
        finally:
            self._drop_file()
            if self._step is not None:
                self._step.close()
                self._step = None
            self._work.clear()

    def _create(self) -> DiskFile:
        self.recover()
        taken = list(self._disk.list())
        for _ in range(TRIES):
            final = self._names.next(taken)
            taken.append(final)
            try:
                file = self._disk.open(final + OPEN, create=True)
            except InUse:
                continue
            if not file.size():
                self._name = final + OPEN
                return file
            file.close()
        raise OSError(errno.EEXIST, f"{TRIES} names were taken, the last one {taken[-1]}")

    def _begin(self, batch: Batch) -> None:
        """Write the header to a new file; do not continue one that has another."""
        assert self._file is not None
        header = batch.header
        is_to_check = header and self._size and not self._checked and batch.is_fixed_header
        if is_to_check and self._file.read(0, len(header)) != header:
            self._put_away()
            self.open()
        self._checked = True
        if header and not self._size:
            self._append(None, [header])

    def _fitting(self, batch: Batch) -> list[bytes]:
        """Take the lines that the file has room for, at least one if it has none."""
        rest = batch.lines[batch.appended :]
        limit = self._plan.rollover_size
        if limit is None:
            return rest
        sizes = list(accumulate(map(len, rest)))
        return rest[: max(0 if self._lines else 1, bisect_right(sizes, limit - self._size))]

    def _append(self, batch: Batch | None, lines: list[bytes]) -> None:
        assert self._file is not None
        file = self._file
        data = b"".join(lines)
        done = 0
        try:
            while done < len(data):
                taken = file.append(data[done:] if done else data)
                if taken <= 0:
                    raise OSError(errno.EIO, "the disk took nothing")
                done += taken
        except OSError:
            ends = list(accumulate(map(len, lines)))
            whole = bisect_right(ends, done)
            kept = ends[whole - 1] if whole else 0
            if done > kept:
                try:
                    file.truncate(file.size() - (done - kept))
                except OSError:
                    self._size += kept
                    self._count(batch, whole)
                    self._abandon()
                    raise
            self._size += kept
            self._count(batch, whole)
            raise
        self._size += len(data)
        self._count(batch, len(lines))

    def _count(self, batch: Batch | None, lines: int) -> None:
        if batch is not None:
            self._lines += lines
            batch.appended += lines
            if self._plan.fsync != "always":
                batch.written = batch.appended

    def _put_away(self) -> None:
        """Close the file and give it the name it keeps."""
        name, is_empty = self._name, not self._size or not (self._lines or self._plan.fixed)
        self._drop_file()
        if is_empty:
            self._disk.remove(name)
            return
        if self._plan.fixed:
            self._finish(name, self._names.next(self._disk.list()))
        else:
            self._finish(name, self._free(name.removesuffix(OPEN)))

    def _free(self, name: str) -> str:
        taken = self._disk.list()
        return self._names.next(taken) if name in taken else name

    def _finish(self, name: str, final: str) -> None:
        self._disk.rename(name, final)
        if self._plan.fsync != "never":
            self._disk.fsync_dir()
        if self._plan.compress:
            self._work.append(final)

    def _abandon(self, cut_to: int | None = None) -> None:
        """Write no more to this file, and leave it as it is as well as may be."""
        if self._file is None:
            return
        try:
            if cut_to is not None:
                self._file.truncate(cut_to)
                self._size = cut_to
            self._put_away()
        except OSError as exc:
            logger.warning("%s is left as it is: %s", self._name, exc)
        finally:
            self._drop_file()

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        self._sync_at = None
        if file is not None:
            try:
                file.close()
            except OSError as exc:
                logger.warning("%s: %s", self._name, exc)

    def _compress_a_slice(self) -> None:
        if self._step is None:
            if not self._work:
                return
            self._step = compress(self._disk, self._work.popleft(), fsync=self._plan.fsync != "never")
        try:
            next(self._step)
        except StopIteration:
            self._step = None
        except OSError as exc:
            self._step = None
            logger.warning("a finished file stays uncompressed: %s", exc)
