"""Record what a receiver gives: from the wire to a file, and accepted when it is there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from nexus.adapters._base import Meta, Receiver
from nexus.adapters._thread import Worker
from nexus.boundaries._recording import Recorded
from nexus.boundaries._recording_writer import RecordingWriter
from nexus.errors import EndOfData, NexusError

__all__ = ["Recorder"]

BATCH = 256
"""Frames that are taken at a time."""
WRITTEN = 1024
"""Frames that are written at a time: the thread that packs them takes its share of the processor."""
HELD_BYTES = 16 * 2**20
"""Bytes that wait for the disk before the receiver is left to wait itself."""
HELD = 65_536
"""Items that wait for the disk."""


@attrs.define(eq=False)
class Recorder:
    """Writes each frame of a receiver to a recording.

    One thread writes, a batch at a time, and each batch goes to the file at once; frames get their time when
    they come, not when they are written. While the disk is slow up to 16 MiB wait here, then the transport.

    Where the transport acknowledges, a frame is accepted when it is in the file; with `sync`, when it is
    durable.
    """

    receiver: Receiver[Any]
    """Gives the frames as bytes: its unpacker is `bytes_unpacker`."""
    writer: RecordingWriter
    """Where they go; closed by whoever made it."""
    priority: Callable[[bytes, Meta], int] = attrs.field(default=lambda payload, meta: 0, kw_only=True)
    """Says how urgent a frame is; what it raises counts as 0 and in `unranked`."""
    sync: bool = attrs.field(default=False, kw_only=True)
    sync_interval: float | None = attrs.field(default=None, kw_only=True)
    """Seconds after which what is written is made durable; None for at the end only."""
    count: int | None = attrs.field(default=None, kw_only=True)
    """Frames after which it ends."""
    seconds: float | None = attrs.field(default=None, kw_only=True)
    """Time after which it ends."""
    wall: Callable[[], int] = attrs.field(default=time.time_ns, kw_only=True)
    """Tells nanoseconds since the Unix epoch."""
    taken: int = attrs.field(default=0, init=False)
    """Frames taken from the receiver."""
    bytes: int = attrs.field(default=0, init=False)
    """Bytes of the frames written."""
    unranked: int = attrs.field(default=0, init=False)
    """Frames of which `priority` could make nothing."""
    _held: deque[tuple[Recorded, Meta]] = attrs.field(factory=deque, init=False)  # bounded by HELD
    _held_bytes: int = attrs.field(default=0, init=False)
    _begun: tuple[float, int] = attrs.field(default=(0.0, 0), init=False)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _is_stopped: bool = attrs.field(default=False, init=False)
    _is_ended: bool = attrs.field(default=False, init=False)
    _failure: NexusError | None = attrs.field(default=None, init=False)
    _limit: asyncio.Timeout | None = attrs.field(default=None, init=False)

    @property
    def written(self) -> int:
        """Frames that are in the file."""
        return self.writer.written

    def stop(self) -> None:
        """Take nothing further from the wire; what is here already is written, then `run` returns."""
        self._is_stopped = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Record until the receiver ends, `count` or `seconds` are reached, or `stop` is called.

        Cancelled, what is being written is written.

        Raises:
            OSError: the disk takes no more; what is in the file is whole.
            RecordingError: a frame is too large to be recorded.
            LinkDown: the peer is gone and retrying is off; what came before is in the file.
        """
        self.receiver.manual = True
        self._begin()
        worker = Worker("recorder")
        try:
            await self._record(worker)
            await worker.call(self.writer.sync)
        except BaseException:
            with contextlib.suppress(OSError):
                await worker.call(self.writer.sync)
            raise
        finally:
            worker.shutdown()
        if self._failure is not None:
            raise self._failure

    async def _record(self, worker: Worker) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(), name="recorder.read")
                await self._write(worker)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _begin(self) -> None:
        """Let time go on from the last record of the file."""
        now = self.wall()
        before = self.writer.continued
        offset = 0 if before is None else before[1] + max(0, now - before[0])
        self._begun = asyncio.get_running_loop().time(), offset

    async def _read(self) -> None:
        """Take frames as they come, until the end."""
        try:
            await self._take_until_stopped()
            # What the receiver has by now came before the end.
            left = self.receiver.counts.waiting
            while left > 0 and not self._is_counted:
                left -= await self._take(left)
        except EndOfData:
            pass
        except NexusError as exc:
            self._failure = exc
        finally:
            self._is_ended = True
            self._changed.set()

    async def _take_until_stopped(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(None if self.seconds is None else now + self.seconds) as limit:
                self._limit = limit
                while not self._is_stopped and not self._is_counted:
                    await self._take()
        except TimeoutError:
            pass
        finally:
            self._limit = None

    @property
    def _is_counted(self) -> bool:
        return self.count is not None and self.taken >= self.count

    async def _take(self, most: int = BATCH) -> int:
        if self.count is not None:
            most = min(most, self.count - self.taken)
        while self._held_bytes > HELD_BYTES or len(self._held) > HELD:
            await self._wait()
        items = await self.receiver.receive_many(min(most, BATCH))
        loop_time, begun = self._begun
        offset = begun + round((asyncio.get_running_loop().time() - loop_time) * 1e9)
        now = self.wall()
        for payload, meta in items:
            self._held.append((Recorded(payload, now, offset, self._rank(payload, meta), meta), meta))
            self._held_bytes += len(payload)
        self.taken += len(items)
        self._changed.set()
        return len(items)

    def _rank(self, payload: Any, meta: Meta) -> int:
        try:
            found = self.priority(payload, meta)
            if isinstance(found, int):
                return max(-(2**63), min(int(found), 2**63 - 1))
        except Exception:
            pass
        self.unranked += 1
        return 0

    async def _write(self, worker: Worker) -> None:
        """Write what was taken, and accept it, until all is written that ever comes."""
        loop = asyncio.get_running_loop()
        synced = loop.time()
        while self._held or not self._is_ended:
            if not self._held:
                await self._wait()
                continue
            batch = [self._held.popleft() for _ in range(min(len(self._held), WRITTEN))]
            self._held_bytes -= sum(len(item.payload) for item, _ in batch)
            before = self.writer.written
            try:
                await worker.call(self.writer.write, [item for item, _ in batch])
                due = self.sync_interval is not None and loop.time() - synced >= self.sync_interval
                if self.sync or due:
                    await worker.call(self.writer.sync)
                    synced = loop.time()
            except BaseException:
                self._note(batch[: self.writer.written - before], accept=not self.sync)
                raise
            self._note(batch, accept=True)
            self._changed.set()

    def _note(self, batch: list[tuple[Recorded, Meta]], *, accept: bool) -> None:
        for item, meta in batch:
            self.bytes += len(item.payload)
            if accept:
                self.receiver.accept(meta)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
