"""The outbox against a model of it, through restarts and deaths at any moment."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus.boundaries.outbox import Cursor, Outbox

T = TypeVar("T")

STREAMS = st.sampled_from(["", "far", "Ærø"])
PRIORITIES = st.sampled_from([-1, 0, 7])
LANES = st.tuples(STREAMS, PRIORITIES)


@attrs.define
class Model:
    """What a file holds."""

    rows: dict[tuple[str, int], dict[int, bytes]] = attrs.field(factory=dict)
    last: dict[tuple[str, int], int] = attrs.field(factory=dict)
    accepted: dict[tuple[str, int], int] = attrs.field(factory=dict)
    cursors: dict[tuple[str, int], Cursor] = attrs.field(factory=dict)
    effects: int = 0

    def copy(self) -> "Model":
        return Model(
            {key: dict(rows) for key, rows in self.rows.items()},
            dict(self.last),
            dict(self.accepted),
            dict(self.cursors),
            self.effects,
        )


class OutboxMachine(RuleBasedStateMachine):
    """Whatever is done, what is in the file is what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.lives = 0
        self.model = Model()
        self.safe = Model()
        """As the model was when the file last had all of it."""
        self.done: list[BaseException | None] = []
        self.gate = asyncio.Event()

    async def pass_gate(self, work: Callable[[], T]) -> T:
        """Do what blocks, once the disk is not held up."""
        await self.gate.wait()
        return work()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def path(self) -> Path:
        return Path(self.folder.name, str(self.lives), "out.box")

    @initialize()
    def begin(self) -> None:
        self.path.parent.mkdir()
        self.start()
        self.outbox.effect(lambda con: con.execute("CREATE TABLE mine (n)"), self.done.append)
        self.settle()

    def start(self) -> None:
        async def make() -> Outbox:
            self.gate = asyncio.Event()
            self.gate.set()
            outbox = Outbox(self.path, run=self.pass_gate, synchronous="normal")
            await outbox.open()
            return outbox

        self.outbox = self.run(make())

    @rule(lane=LANES, count=st.integers(1, 600), size=st.sampled_from([0, 1, 300]), together=st.booleans())
    def put(self, lane: tuple[str, int], count: int, size: int, together: bool) -> None:
        async def work() -> None:
            first = self.model.last.get(lane, 0) + 1
            rows = {
                number: f"{lane}{number}".encode() + bytes(size) for number in range(first, first + count)
            }
            if together:
                assert self.outbox.put_many(*lane, first, list(rows.values())) == count
            else:
                for number, row in rows.items():
                    self.outbox.put(*lane, number, row)
            self.model.rows.setdefault(lane, {}).update(rows)
            self.model.last[lane] = first + count - 1

        self.run(work())

    @rule(lane=LANES, share=st.floats(0, 1))
    def accept(self, lane: tuple[str, int], share: float) -> None:
        async def work() -> None:
            if lane in self.model.last:
                number = int(self.model.last[lane] * share)
                self.outbox.accepted(*lane, number)
                number = max(number, self.model.accepted.get(lane, 0))
                self.model.accepted[lane] = number
                for each in [each for each in self.model.rows.get(lane, {}) if each <= number]:
                    del self.model.rows[lane][each]

        self.run(work())

    @rule(source=STREAMS, priority=PRIORITIES, number=st.integers(0, 2**63 - 1), gap=st.integers(1, 9))
    def advance(self, source: str, priority: int, number: int, gap: int) -> None:
        async def work() -> None:
            cursor = Cursor(number, ((number + 1 + gap, number + 2 + gap),))
            self.outbox.advance(source, priority, cursor)
            self.model.cursors[source, priority] = cursor

        self.run(work())

    @rule(fails=st.booleans())
    def effect(self, fails: bool) -> None:
        def apply(con: Any) -> None:
            con.execute("INSERT INTO mine VALUES (1)")
            if fails:
                raise LookupError

        async def work() -> None:
            self.outbox.effect(apply, self.done.append)
            self.model.effects += not fails

        self.run(work())

    @rule(stream=STREAMS)
    def forget(self, stream: str) -> None:
        async def work() -> None:
            self.outbox.forget(stream)

        self.run(work())
        for kept in (self.model.rows, self.model.last, self.model.accepted):
            for lane in [lane for lane in kept if lane[0] == stream]:
                del kept[lane]

    @rule()
    def hold_up(self) -> None:
        """From now on nothing reaches the file."""
        self.settle()
        self.gate.clear()

    @rule()
    def settle(self) -> None:
        """Whatever was given is in the file."""
        self.gate.set()
        self.run(self.commit())
        self.safe = self.model.copy()

    async def commit(self) -> None:
        # What was accepted goes with the next commit, and nobody waits for it.
        self.outbox.effect(lambda con: None, self.done.append)
        await self.outbox.durable()

    @rule()
    def renew(self) -> None:
        self.gate.set()
        source = self.outbox.source
        self.run(self.outbox.renew())
        assert self.outbox.source != source
        for lane in self.model.last:
            rows = self.model.rows.get(lane, {})
            self.model.rows[lane] = dict(enumerate((row for _, row in sorted(rows.items())), start=1))
            self.model.last[lane], self.model.accepted[lane] = len(rows), 0
        self.safe = self.model.copy()

    @rule(lane=LANES, share=st.floats(0, 1), most=st.integers(1, 900), size=st.sampled_from([1, 5000, 2**20]))
    def read(self, lane: tuple[str, int], share: float, most: int, size: int) -> None:
        """What is read are the rows from that number on, none left out."""
        self.settle()
        rows = self.model.rows.get(lane, {})
        first = max(self.model.accepted.get(lane, 0), int(self.model.last.get(lane, 0) * share)) + 1
        found = self.run(self.outbox.read(*lane, first, most_rows=most, most_bytes=size))
        assert found == [rows[first + at] for at in range(len(found))]
        assert bool(found) == bool(first in rows)
        assert len(found) <= most
        assert len(found) <= 1 or sum(map(len, found)) <= size

    @rule()
    def reopen(self) -> None:
        """Closing stores what waits."""
        self.gate.set()
        self.run(self.outbox.aclose())
        self.start()
        self.safe = self.model.copy()
        self.check()

    @rule()
    def die(self) -> None:
        """What was safe is in what a dead process leaves, and nothing that was held up."""
        if self.gate.is_set():
            self.settle()
        old = self.path.parent
        self.lives += 1
        shutil.copytree(old, self.path.parent)
        self.gate.set()
        self.run(self.outbox.aclose())
        self.start()
        self.model = self.safe.copy()
        self.check()
        self.safe = self.model.copy()

    def check(self) -> None:
        assert self.holds(self.model), (self.outbox.lanes("far"), self.model)

    def holds(self, model: Model) -> bool:
        """Say whether all numbers, rows, cursors and effects are as the model says."""
        outbox = self.outbox
        streams = {lane[0] for lane in model.last}
        found = {
            (stream, priority): (lane.first - 1, lane.last)
            for stream in outbox.streams()
            for priority, lane in outbox.lanes(stream).items()
        }
        if found != {lane: (model.accepted.get(lane, 0), last) for lane, last in model.last.items()}:
            return False
        if streams != set(outbox.streams()):
            return False
        for lane, last in model.last.items():
            first = model.accepted.get(lane, 0) + 1
            rows = self.run(outbox.read(*lane, first, most_rows=last + 1, most_bytes=2**30))
            if rows != [model.rows[lane][number] for number in range(first, last + 1)]:
                return False
        if any(
            outbox.cursors(source).get(priority) != each for (source, priority), each in model.cursors.items()
        ):
            return False
        counted: list[tuple[int]] = []
        outbox.effect(lambda con: counted.extend(con.execute("SELECT count(*) FROM mine")), self.done.append)
        self.run(outbox.durable())
        return counted == [(model.effects,)]

    @invariant()
    def counts_add_up(self) -> None:
        if self.lives or hasattr(self, "outbox"):
            state = self.outbox.state
            waiting = sum(len(rows) for rows in self.model.rows.values())
            assert state.stored_rows + state.pending_rows >= waiting
            assert state.condition == "open"
            assert not state.damaged

    def teardown(self) -> None:
        self.gate.set()
        if hasattr(self, "outbox"):
            self.run(self.outbox.aclose())
        self.runner.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestOutbox = OutboxMachine.TestCase
