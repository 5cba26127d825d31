"""The outbox: what must not be lost is on the disk before anybody is told that it is safe."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar

import attrs

from nexus.adapters._plain import plain
from nexus.adapters._retry import Retry, Waits
from nexus.adapters._thread import Worker
from nexus.boundaries.outbox._files import Files
from nexus.boundaries.outbox._kinds import Condition, Cursor, LaneContents, OutboxInUse, OutboxState
from nexus.boundaries.outbox._schema import Broken, Connect, Trouble, connect
from nexus.boundaries.outbox._standby import Standby
from nexus.boundaries.outbox._store import Batch, Effect, Key, Store
from nexus.errors import BadCall, ConfigError, OpenError, QueueFull

__all__ = ["Outbox"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LAZY = 0.1
"""Seconds after which what was accepted is deleted, if nothing else is committed before."""
PATIENCE = 5.0
"""Seconds that closing waits for what is not stored yet."""
PENDING = 2**22
"""Bytes that may wait to be stored. Who has more to give waits, and so the event loop leaves the interpreter
to the writing thread: the sooner a commit is done, the sooner its rows go."""
LEAST_TAKEOVER = 0.1
"""Seconds within which a process may be asked for signs of life; a busy one gives them later at times."""
ROW_HEAD = 8
"""Bytes that a row takes beside itself."""


class Run(Protocol):
    """Does work that blocks, one piece after the other, and gives what it gives."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


@attrs.define(eq=False)
class Tail:
    """How far a lane was given to the outbox."""

    last: int
    waiting: list[bytes] = attrs.field(factory=list)
    """Rows for the next commit, up to `last`."""


class Outbox:
    """One file in which rows for other sides wait until they are accepted, and how far theirs have come in.

    Rows belong to a stream and a priority, and are numbered from 1 without gaps. What is given to the outbox
    in one turn of the event loop, or while the disk is busy, is committed together. `put`, `accepted`,
    `advance` and `effect` never wait; `then` and `durable` tell when all of it is safe.

    A disk that fails loses nothing: it is tried again until it works, and nobody is told before that anything
    is safe. A damaged file is kept, and what can be read of it goes on in a new one. Listeners are told.

    Args:
        path: of the file; made for its owner alone if it is missing. SQLite puts ``PATH-wal`` beside it.
        max_bytes: of rows that are stored or wait for it, more than 0.
        synchronous: ``full`` survives a power cut; ``normal`` survives the death of the process, and may lose
            what was stored last in a power cut.
        takeover_after: lets processes of one machine share the file, if all of them give this: one has it,
            and `open` of the others waits until that one closes it or ends. If its event loop stands still
            for so many seconds, at least 0.1, **another of them kills it**. None for no such thing.
        connect: opens the database; for tests.
        run: does what blocks; None for a thread of its own.
        files: what is done beside SQLite; for tests.

    Raises:
        BadCall: the path is ``:memory:``, which survives nothing.
        ConfigError: another argument is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 2**30,
        synchronous: Literal["full", "normal"] = "full",
        takeover_after: float | None = None,
        connect: Connect = connect,
        run: Run | None = None,
        files: Files | None = None,
    ) -> None:
        self.path = os.fspath(path)
        if not self.path or self.path.startswith((":memory:", "file:")):
            raise BadCall(f"an outbox is a file, and {self.path!r} is none: it would survive nothing")
        if not max_bytes > 0:
            raise ConfigError(f"max_bytes: found {max_bytes!r}, allowed: more than 0")
        if synchronous not in ("full", "normal"):
            raise ConfigError(f"synchronous: found {synchronous!r}, allowed: full or normal")
        if takeover_after is not None and not LEAST_TAKEOVER <= takeover_after < math.inf:
            raise ConfigError(
                f"takeover_after: found {takeover_after!r}, allowed: None, or seconds from {LEAST_TAKEOVER}"
            )
        self.max_bytes = max_bytes
        self.takeover_after = takeover_after
        self._standby = Standby(self.path, takeover_after) if takeover_after is not None else None
        self._taken_over = ""
        self.synchronous = synchronous
        self._store = Store(os.path.abspath(self.path), synchronous, connect, files)
        self._worker = Worker(f"outbox[{os.path.basename(self.path)}]")
        self._run: Run = run or self._worker.call
        self._lock = asyncio.Lock()
        self._listeners: list[Callable[[OutboxState], object]] = []
        self._watchers: dict[str, Callable[[int, int], object]] = {}
        self._tails: dict[Key, Tail] = {}
        self._next = Batch()
        self._current: Batch | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._users = 0
        self._closing = False
        self._quiet = False
        self._size = 0
        self._stored = 0
        self._stored_rows = 0
        self._pending_rows = 0
        self._commits = 0
        self._condition: Condition = "closed"
        self._reason = ""

    # Its life

    async def open(self, *, create: bool = True, wait: bool = True) -> None:
        """Open the file and start; if it is open, count one more who uses it.

        With `takeover_after` this waits while another process has the file; see there. Cancelled, it does so
        no more.

        Args:
            create: whether a missing file is made.
            wait: False for `OutboxInUse` instead of waiting.

        Raises:
            OutboxInUse: another outbox has the file.
            NoOutbox: it is something else, was made by a newer version, or is missing and not to be made.
            OpenError: the disk does not let it.
        """
        if not wait and self._condition == "standby":
            raise OutboxInUse(f"{self.path}: {self._reason}")
        async with self._lock:
            if self._task is not None:
                self._users += 1
                return
            try:
                self._taken_over = await self._acquire(create, wait)
            except BaseException as exc:
                if isinstance(exc, asyncio.CancelledError):
                    self._worker.submit(self._store.close)  # it may be open all the same
                self._worker.shutdown()
                if self._condition == "standby":
                    self._tell("closed")
                if isinstance(exc, Trouble | Broken | OSError) and not isinstance(exc, OpenError):
                    raise OpenError(f"the outbox {self.path} cannot be opened: {exc}") from exc
                raise
            self._tails = {key: Tail(lane.last) for key, lane in self._store.lanes.items()}
            self._next, self._size, self._pending_rows, self._commits = Batch(), 0, 0, 0
            self._closing = False
            self._users = 1
            self._measure()
            self._task = asyncio.get_running_loop().create_task(
                self._write(), name=f"outbox[{self.path}].write"
            )
        if self._taken_over:
            logger.warning("%s: taken over: %s", self.path, self._taken_over)
        self._tell("open")

    async def _acquire(self, create: bool, wait: bool) -> str:
        """Open the file once this process may; return from whom it was taken over."""

        async def opened() -> None:
            await self._run(lambda: self._store.open(create=create))

        if self._standby is None:
            await opened()
            return ""
        return await self._standby.acquire(
            opened, wait=wait, waiting=functools.partial(self._tell, "standby")
        )

    async def aclose(self) -> None:
        """Commit what waits, for up to 5 seconds, and close, if nobody else has opened it; may be repeated.

        What the disk does not take in that time is not stored, and nobody was told that it is: `then` calls
        nothing, and effects get the error.
        """
        task = self._task
        self._users = max(0, self._users - 1)
        if task is None or self._users:
            return
        self._closing = True
        self._stir()
        await asyncio.wait([task], timeout=PATIENCE)
        if self._task is not task:
            return  # two have closed it
        self._task = None
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lost = [each for each in (self._current, self._next) if each is not None]
        self._current, self._next = None, Batch()
        if self._pending_rows:
            logger.warning("%s: closed before %d rows were stored", self.path, self._pending_rows)
        for effect in (effect for batch in lost for effect in batch.effects):
            _call(effect.done, OpenError(f"the outbox {self.path} was closed: {self._reason or 'too slow'}"))
        try:
            await asyncio.wait_for(self._run(self._store.close), PATIENCE)
            if self._standby is not None:
                await self._standby.release()
        except TimeoutError:
            logger.warning("%s: the disk does not answer; left open", self.path)
        finally:
            if self._standby is not None:
                self._standby.drop(behind=self._worker)
            self._worker.shutdown()
            self._pending_rows = self._size = 0
            self._tell("closed")

    async def __aenter__(self) -> Outbox:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # What is there

    @property
    def is_open(self) -> bool:
        """Whether something may be put."""
        return self._task is not None

    @property
    def source(self) -> str:
        """Under which name its rows are numbered: 32 hexadecimal digits, made with the file.

        A copy of the file has the same one.
        """
        return self._store.source

    @property
    def generation(self) -> int:
        """How often the file was opened."""
        return int(self._store.meta["generation"])

    @property
    def state(self) -> OutboxState:
        """How it is now."""
        return OutboxState(
            condition=self._condition,
            reason=self._reason,
            pending_rows=self._pending_rows,
            pending_bytes=self._size,
            stored_rows=self._stored_rows,
            stored_bytes=self._stored,
            commits=self._commits,
            damaged=self._store.damaged,
            set_aside=tuple(self._store.set_aside),
            taken_over=self._taken_over,
        )

    def on_state(self, listener: Callable[[OutboxState], object]) -> None:
        """Call a listener, in the loop, when the condition or the damage changes.

        Raises:
            TypeError: it is async, and would not run.
        """
        self._listeners.append(plain(listener, "a listener to an outbox"))

    def streams(self) -> list[str]:
        """Return the names of the streams that have, or had, rows."""
        return sorted({stream for stream, _ in self._store.lanes})

    def lanes(self, stream: str) -> dict[int, LaneContents]:
        """Return what is stored of a stream, by priority. An empty lane keeps its numbers."""
        return {
            priority: LaneContents(lane.accepted + 1, lane.last, lane.bytes)
            for (name, priority), lane in sorted(self._store.lanes.items())
            if name == stream
        }

    def cursors(self, source: str) -> dict[int, Cursor]:
        """Return how far the rows of a source have come in, by priority, as it was stored."""
        return {
            priority: cursor
            for (name, priority), cursor in sorted(self._store.cursors.items())
            if name == source
        }

    def has_room(self, size: int) -> bool:
        """Say whether a row of that many bytes may be put now.

        Where the file is full, the condition becomes ``full`` until there is room again; where only the disk
        is behind, there is room after the next commit.
        """
        if self._quiet or self._closing:
            return False
        if self._stored + self._size + size + ROW_HEAD > self.max_bytes:
            if self._condition == "open":
                self._tell("full", f"holds {self._stored + self._size} of {self.max_bytes} bytes")
            return False
        return self._size + size <= PENDING or not self._size

    # What is to be stored

    def put(self, stream: str, priority: int, number: int, row: bytes) -> None:
        """Store a row with the next commit.

        Args:
            number: the next of its lane, 1 for a new one.

        Raises:
            QueueFull: there is no room; see `has_room`.
            BadCall: it is not open, or the number is not the next.
        """
        tail = self._tails.get((stream, priority)) or self._tail(stream, priority)
        if number != tail.last + 1 or type(row) is not bytes or self._closing or self._task is None:
            self._refuse(tail, number, row)
        if not self.has_room(len(row)):
            raise QueueFull(f"the outbox {self.path} has no room for {len(row)} bytes; wait, or give it more")
        tail.last = number
        if not tail.waiting:
            tail.waiting = [row]
            self._next.rows[stream, priority] = (number, tail.waiting)
        else:
            tail.waiting.append(row)
        size = len(row) + ROW_HEAD
        self._next.size += size
        self._size += size
        self._pending_rows += 1
        if self._wake is not None:
            self._stir()

    def put_many(self, stream: str, priority: int, number: int, rows: list[bytes]) -> int:
        """Store the first of some rows with the next commit, as far as there is room; return how many.

        Args:
            number: of the first of them, the next of its lane.

        Raises:
            BadCall: see `put`.
        """
        size = sum(map(len, rows)) + ROW_HEAD * len(rows)
        is_tight = (
            self._quiet or self._size + size > PENDING or self._stored + self._size + size > self.max_bytes
        )
        tail = self._tails.get((stream, priority))
        if is_tight or tail is None or number != tail.last + 1 or self._closing or self._task is None:
            for place, row in enumerate(rows):
                if not self.has_room(len(row)):
                    return place
                self.put(stream, priority, number + place, row)
            return len(rows)
        if not tail.waiting:
            tail.waiting = []
            self._next.rows[stream, priority] = (number, tail.waiting)
        tail.waiting += rows
        tail.last += len(rows)
        self._next.size += size
        self._size += size
        self._pending_rows += len(rows)
        if self._wake is not None:
            self._stir()
        return len(rows)

    def accepted(self, stream: str, priority: int, number: int) -> None:
        """Delete all rows of a lane up to a number, with the next commit or a tenth of a second later.

        Raises:
            BadCall: it is not open, or no such row was put.
        """
        self._must_be_open()
        tail = self._tails.get((stream, priority))
        if tail is None or number > tail.last or self._quiet:
            raise BadCall(f"row {number} of priority {priority} of stream {stream!r} was never put")
        waiting = self._next.accepted
        waiting[stream, priority] = max(number, waiting.get((stream, priority), 0))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LAZY, self._stir_lazily)

    def advance(self, source: str, priority: int, cursor: Cursor) -> None:
        """Store with the next commit how far the rows of a source have come in."""
        self._must_be_open()
        if not 0 <= cursor.accepted < 2**63:
            raise BadCall(f"a cursor is a number from 0 on, of 63 bits, not {cursor.accepted!r}")
        self._next.cursors[source, priority] = cursor
        self._stir()

    def effect(self, apply: Callable[[Any], object], done: Callable[[BaseException | None], object]) -> None:
        """Do something to the database within the next commit: all of that commit is stored, or nothing.

        Args:
            apply: gets the connection, on the thread of the outbox; it must not begin or end a transaction,
                nor touch the tables of the outbox. What it raises takes back what it did, and nothing else.
                If the disk fails, it is called again.
            done: called in the loop: with None when it is safe, with what was raised when it was taken back.
        """
        self._must_be_open()
        self._next.effects.append(Effect(apply, done))
        self._stir()

    def forget(self, stream: str) -> None:
        """Drop a stream, with the next commit: its rows, and its numbers, which begin at 1 again.

        Only for a side that knows nothing of the old numbers.
        """
        self._must_be_open()
        for key in [key for key in self._tails if key[0] == stream]:
            del self._tails[key]
            _, rows = self._next.rows.pop(key, (0, []))
            size = sum(map(len, rows)) + ROW_HEAD * len(rows)
            self._next.size -= size
            self._size -= size
            self._pending_rows -= len(rows)
            self._next.accepted.pop(key, None)
        self._next.forgotten.add(stream)
        self._stir()

    def watch(self, stream: str, safe: Callable[[int, int], object]) -> None:
        """Call with a priority and a number, in the loop, when all rows of a lane up to that number are safe.

        It takes the place of what was to be called for that stream before.
        """
        self._watchers[stream] = safe

    def then(self, call: Callable[[], object]) -> None:
        """Call when all that was put, advanced and done so far is safe; at once if it is.

        Calls come in their order. They are never made if the outbox is closed before.
        """
        self._must_be_open()
        if _has_work(self._next):
            self._next.calls.append(call)
        elif self._current is not None:
            self._current.calls.append(call)
        else:
            _call(call)

    async def durable(self) -> None:
        """Wait until all that was put, advanced and done so far is safe.

        Raises:
            OpenError: the outbox was closed before.
        """
        self._must_be_open()
        task = self._task
        assert task is not None
        safe = asyncio.get_running_loop().create_future()
        self.then(lambda: None if safe.done() else safe.set_result(None))
        await asyncio.wait([safe, task], return_when=asyncio.FIRST_COMPLETED)
        if not safe.done():
            raise OpenError(f"the outbox {self.path} was closed: {self._reason or 'not all of it is stored'}")

    async def read(
        self, stream: str, priority: int, first: int, *, most_rows: int = 1024, most_bytes: int = 2**20
    ) -> list[bytes]:
        """Return stored rows with the numbers from `first` on; none if `first` is not stored.

        A row that was lost to damage is ``b"null"``. While the disk fails, this waits.

        Args:
            most_rows: 1 at least.
            most_bytes: at least one row is given, however large.
        """
        return await self._try(lambda: self._store.read(stream, priority, first, most_rows, most_bytes))

    async def renew(self) -> None:
        """Begin a new source, once all that waits is stored: rows are numbered from 1, without the lost ones.

        For when the other side has accepted numbers that this file never gave: it is an old copy. Nothing may
        be put until it is done.
        """
        # What was accepted before is a number of the old source: it is not left for later.
        while True:
            self._next.is_urgent = True
            self._stir()
            await self.durable()
            if self._current is None and not (_has_work(self._next) or self._next.accepted):
                break
        self._quiet = True
        try:
            await self._try(self._store.renew)
            self._tails = {key: Tail(lane.last) for key, lane in self._store.lanes.items()}
        finally:
            self._quiet = False
        self._measure()

    # The writer

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next
            if not (_has_work(batch) or (batch.accepted and (self._closing or self._timer is None))):
                if self._closing:
                    return
                self._wake = loop.create_future()
                await self._wake
                continue
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._current, self._next = batch, Batch()
            for key in batch.rows:
                if tail := self._tails.get(key):
                    tail.waiting = []
            await self._try(functools.partial(self._store.commit, batch))
            self._current = None
            self._commits += 1
            self._size -= batch.size
            self._pending_rows -= sum(len(rows) for _, rows in batch.rows.values())
            self._measure()
            for (stream, priority), (first, rows) in batch.rows.items():
                if (watcher := self._watchers.get(stream)) is not None:
                    _call(watcher, priority, first + len(rows) - 1)
            for effect in batch.effects:
                _call(effect.done, effect.error)
            for call in batch.calls:
                _call(call)

    async def _try(self, work: Callable[[], T]) -> T:
        """Do what needs the file, again and again while the disk fails."""
        waits: Waits | None = None
        repaired = False
        mend: Callable[[], None] | None = None
        async with self._lock:
            while True:
                if self._task is None:
                    self._must_be_open()
                try:
                    if mend is not None:
                        await self._run(mend)
                        mend = None
                    result = await self._run(work)
                except Exception as exc:
                    if not isinstance(exc, Trouble | Broken):
                        # Not foreseen, and no reason to lose what waits.
                        logger.exception("%s: the disk could not be used", self.path)
                    if isinstance(exc, Broken) and not repaired:
                        repaired = True
                        mend = functools.partial(self._store.repair, str(exc))
                        continue
                    self._tell("failing", str(exc))
                    waits = waits or Waits(Retry())
                    mend = self._store.recover
                    await asyncio.sleep(waits.next())
                else:
                    break
        if waits is not None or repaired:
            self._measure()
            self._tell("open")
        return result

    def _stir(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    def _stir_lazily(self) -> None:
        self._timer = None
        self._stir()

    def _measure(self) -> None:
        lanes = self._store.lanes.values()
        self._stored = sum(lane.bytes for lane in lanes)
        self._stored_rows = sum(lane.last - lane.accepted for lane in lanes)
        if self._condition == "full" and self._stored + self._size < self.max_bytes * 0.9:
            self._tell("open")

    def _tell(self, condition: Condition, reason: str = "") -> None:
        if (condition, reason) == (self._condition, self._reason) and condition != "open":
            return
        if condition == "failing" and self._condition != "failing":
            logger.warning("%s: %s; trying again, nothing is lost", self.path, reason)
        elif self._condition == "failing":
            logger.info("%s: the disk works again", self.path)
        self._condition, self._reason = condition, reason
        for listener in list(self._listeners):
            _call(listener, self.state)

    # Mistakes

    def _tail(self, stream: str, priority: int) -> Tail:
        if (
            not isinstance(stream, str)
            or "\0" in stream
            or stream != stream.encode(errors="replace").decode()
        ):
            raise BadCall(f"a stream is named by text without NUL, not {stream!r}")
        if not isinstance(priority, int) or not -(2**63) <= priority < 2**63:
            raise BadCall(f"a priority is an integer of 64 bits, not {priority!r}")
        self._must_be_open()
        tail = self._tails[stream, priority] = Tail(0)
        return tail

    def _refuse(self, tail: Tail, number: int, row: object) -> None:
        self._must_be_open()
        if type(row) is not bytes:
            raise BadCall(f"a row is bytes, not {type(row).__qualname__}")
        if self._closing:
            raise BadCall(f"the outbox {self.path} is being closed")
        raise BadCall(f"the next number of the lane is {tail.last + 1}, not {number}")

    def _must_be_open(self) -> None:
        if self._task is None:
            raise BadCall(f"the outbox {self.path} is closed")


def _has_work(batch: Batch) -> bool:
    return bool(batch.rows or batch.cursors or batch.effects or batch.forgotten or batch.is_urgent)


def _call(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except Exception:
        logger.exception("%r failed", function)
