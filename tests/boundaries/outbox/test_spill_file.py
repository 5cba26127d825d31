"""Laws of spilling to a real file: what comes back, what does not go there, full and failing disks."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given
from memory_use import resident

from nexus import AsyncEventNexus, Event, NamedEvent, SecondaryQueue, Spill
from nexus.boundaries.links import OutboxStateEvent, announce_outboxes
from nexus.boundaries.outbox import NoOutbox, OutboxInUse, OutboxState, SpillFile
from nexus.boundaries.outbox._spill_rows import SpillRows, is_plain
from nexus.errors import BadCall, PackerError, QueueFull, UnpackerError
from nexus.testing import Recorder, assert_ledger_balanced

WAIT = 30.0


@attrs.frozen
class Place:
    """A payload of a class of its own."""

    x: float
    names: Any = None


class Moved(NamedEvent[Place]):
    """A named event that may go to the disk."""


class Secret(NamedEvent[Place]):
    """One that may not."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a file that is not there yet."""
    return tmp_path / "spilled"


class World:
    """A nexus with a small lane, whose handler can be held up, and a file."""

    def __init__(self, file: SpillFile, *, maxsize: int = 10, **options: Any) -> None:
        self.file = file
        self.seen = Recorder()
        self.go_on = asyncio.Event()
        self.nexus = AsyncEventNexus(maxsize=maxsize, **options)
        self.nexus.add_handler("a", self.handle)
        self.nexus.add_handler(Moved, self.handle)
        self.nexus.set_policy("a", Spill(file))
        self.nexus.set_policy(Moved, Spill(file))

    async def handle(self, event: Event[Any], queue: SecondaryQueue) -> None:
        await self.go_on.wait()
        await self.seen.handle(event, queue)

    @property
    def ids(self) -> list[int]:
        return [each.id for each in self.seen.events]

    def give(self, *numbers: int, **words: Any) -> None:
        for number in numbers:
            self.nexus.ingest_nowait(Event(number, "a", 0, {"n": number}, **words))

    async def drained(self) -> None:
        self.go_on.set()
        await asyncio.wait_for(self.nexus.drained(), WAIT)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


# What becomes a row, and what does not.

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
words = st.lists(st.text(max_size=5), max_size=3).map(tuple)
times = st.floats(-1e9, 1e9)
metadata = st.fixed_dictionaries(
    {},
    optional={
        **{"created": times, "deadline": times, "headers": st.dictionaries(st.text(), plain, max_size=3)},
        **{"source": st.text(max_size=5), "correlation": st.integers(-9, 9) | st.text(max_size=5)},
        **{"reply_to": words, "path": words, "route": words},
    },
)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9) | st.text(), plain, metadata)
def test_an_event_comes_back_equal(number: int, type_: int | str, payload: Any, meta: dict[str, Any]) -> None:
    """Whatever becomes a row comes back as it was, metadata included."""
    rows, event = SpillRows(), Event(number, type_, -3, payload, **meta)
    try:
        row = rows.pack(event, 5.0)
    except PackerError:
        assert any("\ud800" <= char <= "\udfff" for char in repr(event))
        return
    back = rows.unpack(row, -3, 5.0)
    assert back == event
    assert repr(back.payload) == repr(event.payload)
    for name in ("headers", "source", "correlation", "reply_to", "path", "route"):
        assert getattr(back, name) == getattr(event, name)
    assert (back.created, back.deadline) == pytest.approx((event.created, event.deadline))


def nest(depth: int) -> Any:
    """Make lists within each other."""
    return [] if depth == 0 else [nest(depth - 1)]


@pytest.mark.parametrize(
    "payload",
    [b"", (1, 2), {1: 2}, {"a": {3}}, math.nan, [math.inf], 2**63, "\ud800", object(), Place(1.0), nest(200)],
    ids=lambda payload: str(type(payload)),
)
def test_what_would_come_back_otherwise_is_no_row(payload: Any) -> None:
    """JSON would make something else of it, or nothing."""
    with pytest.raises(PackerError):
        SpillRows().pack(Event(1, "a", 0, payload), 0.0)
    with pytest.raises(PackerError):
        SpillRows().pack(Event(1, "a", 0, None, headers={"a": payload}), 0.0)


@pytest.mark.parametrize("value", [True, 1, -(2**63), 0.5, "ü", None, [], {"a": [{"b": None}]}])
def test_plain_json_is_known(value: Any) -> None:
    """Everything that JSON knows is a row."""
    assert is_plain(value)


def test_named_events_come_back_as_what_they_were() -> None:
    """Those that the file was told of, if their payload does."""
    rows = SpillRows([Moved])
    event = Moved(1, Place(0.5, ["a"]), priority=2, headers={"a": 1})
    back = rows.unpack(rows.pack(event, 0.0), 2, 0.0)
    assert (back, back.__class__, back.headers) == (event, Moved, {"a": 1})
    for other in (Secret(1, Place(0.5)), Moved(1, Place(0.5, ("a",))), Moved(1, Place(0.5, {1}))):
        with pytest.raises(PackerError):
            rows.pack(other, 0.0)


@pytest.mark.parametrize("row", [b"", b"{}", b"[1]", b"[1,2]", b'["a","b",3,{}]', b'[1,"Moved",{"z":1}]'])
def test_a_row_that_is_no_event_is_told_so(row: bytes) -> None:
    """There is one error, whatever is wrong."""
    with pytest.raises(UnpackerError):
        SpillRows([Moved]).unpack(row, 0, 0.0)


def test_a_row_keeps_no_more_memory_than_its_bytes() -> None:
    """Many rows wait in memory for the disk, so none may keep the buffer it was written in."""
    rows = SpillRows()
    before = resident()
    kept = [rows.pack(Event(number, "a", 0, None), 0.0) for number in range(20_000)]
    assert resident() - before < 200 * len(kept)


def test_deadlines_go_on_from_one_life_to_the_next() -> None:
    """In one life they go by the loop's clock, whatever the system's says; after it by the system's."""
    wall = 1000.0
    first, second = (SpillRows(wall=lambda: wall) for _ in range(2))
    row = first.pack(Event(1, "a", 0, None, deadline=110.0, created=95.0), now=100.0)
    wall = 1004.0
    same = first.unpack(row, 0, now=107.0)
    assert (same.deadline, same.created) == (110.0, 95.0)
    other = second.unpack(row, 0, now=50.0)
    assert (other.deadline, other.created) == (56.0, 41.0)
    wall = 900.0  # set back: no more than what was left
    assert second.unpack(row, 0, now=50.0).deadline == 60.0


# The file, and a nexus over it.


async def test_a_flood_goes_to_the_disk_and_comes_back(path: Path) -> None:
    """Thousands of events behind a lane of ten keep their order and leave an empty file."""
    file = SpillFile(path)
    world = World(file)
    async with world.nexus as domain:
        world.give(*range(5000))
        assert domain.stats().spilled == {0: 4990}
        await world.drained()
        assert_ledger_balanced(domain, ingested=5000, handled=5000)
    assert world.ids == list(range(5000))
    assert world.seen.events[-1].payload == {"n": 4999}
    assert file.state.stored_rows == 0


async def test_those_not_stored_yet_come_back_from_memory(path: Path) -> None:
    """Nobody waits for the disk who gives, and who takes only if it is the slower one."""
    world = World(SpillFile(path), maxsize=1)
    world.go_on.set()
    async with world.nexus as domain:
        for burst in range(50):
            world.give(*range(20 * burst, 20 * burst + 20))
            await wait_for(lambda: domain.stats().queued <= 10)
        await world.drained()
    assert world.ids == list(range(1000))


async def test_a_stop_leaves_the_rest_in_the_file(path: Path) -> None:
    """The next nexus over the file handles the rest first, under another object as well."""
    world = World(SpillFile(path, types=[Moved]))
    async with world.nexus as domain:
        world.give(*range(3000))
        domain.ingest_nowait(Moved(-1, Place(1.0)))
        with pytest.raises(QueueFull):
            domain.ingest_nowait(Moved(-2, Place(1.0, (1, 2))))
        report = await domain.stop(grace=0)
    assert ([event.id for event in report.remaining], report.spilled) == ([*range(10)], 2991)
    again = World(SpillFile(path, types=[Moved]))
    async with again.nexus as domain:
        assert domain.stats().queued == 2991
        again.give(5000)
        await again.drained()
    assert [n for n in again.ids if n >= 0] == [*range(10, 3000), 5000]
    assert [event for event in again.seen.events if event.id < 0] == [Moved(-1, Place(1.0))]


async def test_a_deadline_holds_in_the_file(path: Path) -> None:
    """An event that expired while nobody ran counts as expired when it comes back."""
    wall = 1000.0
    world = World(SpillFile(path, wall=lambda: wall))
    now = asyncio.get_running_loop().time()
    async with world.nexus as domain:
        world.give(*range(11))
        world.give(11, deadline=now + 3600)
        world.give(12, deadline=now + 60)
        await domain.stop(grace=0)
    wall = 2000.0
    again = World(SpillFile(path, wall=lambda: wall))
    async with again.nexus as domain:
        await again.drained()
        assert_ledger_balanced(domain, handled=2, expired=1)
    assert again.ids == [10, 11]


async def test_what_cannot_be_a_row_waits_for_its_lane(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not lost, not changed, and comes in its order; the log says so once."""
    world = World(SpillFile(path))
    async with world.nexus as domain:
        world.give(*range(30))
        odd = [Event(number, "a", 0, (number,)) for number in (30, 31)]
        with pytest.raises(QueueFull):
            domain.ingest_nowait(odd[0])
        giving = asyncio.ensure_future(domain.ingest_many(odd))
        await asyncio.sleep(0)
        await world.drained()
        await giving
        await world.drained()
    assert world.ids == list(range(32))
    assert world.seen.events[-1].payload == (31,)
    assert caplog.text.count("wait for their lane") == 1


async def test_a_full_file_holds_the_giver_back(path: Path) -> None:
    """Its size is bounded; then the policy is to block, the nexus is told, and goes on as there is room."""
    states: list[str] = []
    file = SpillFile(path, max_bytes=20_000)
    world = World(file)
    world.nexus.add_handler(OutboxStateEvent, lambda event: states.append(event.payload.condition))
    announce_outboxes(world.nexus, file)
    async with world.nexus as domain:
        with pytest.raises(QueueFull, match="the disk takes no more"):
            world.give(*range(100_000))
        number = domain.stats().types["a"].ingested
        await file.durable()
        assert 10_000 < file.state.stored_bytes < 21_000
        giving = asyncio.ensure_future(
            domain.ingest_many(Event(n, "a", 0, {"n": n}) for n in range(number, 5000))
        )
        world.go_on.set()
        await asyncio.wait_for(giving, WAIT)
        await world.drained()
        assert_ledger_balanced(domain, handled=5000 + len(states), refused=1)
    assert world.ids == list(range(5000))
    assert states[:3] == ["open", "full", "open"]


async def test_a_file_is_for_one_nexus(path: Path, tmp_path: Path) -> None:
    """A second nexus, a second file object, and a file of another kind end with an error that says why."""
    file = SpillFile(path)
    async with World(file).nexus:
        with pytest.raises(BadCall, match="a file of its own"):
            async with World(file).nexus:
                pass
        with pytest.raises(OutboxInUse):
            async with World(SpillFile(path)).nexus:
                pass
    (tmp_path / "other").write_bytes(b"something else" * 1000)
    with pytest.raises(NoOutbox):
        async with World(SpillFile(tmp_path / "other")).nexus:
            pass
    with pytest.raises(BadCall):
        SpillFile(":memory:")


async def test_types_that_cannot_be_named_in_a_file_wait(path: Path) -> None:
    """A type or priority that the file has no place for is as one that it has no room for."""
    world = World(SpillFile(path), max_lanes=200)
    file = world.file
    async with world.nexus:
        assert file.put(Event(1, "a\0", 0, None)) is None
        assert file.put(Event(1, "\ud800", 0, None)) is None
        assert file.put(Event(1, "a", 2**63, None)) is None
        assert file.put(Event(1, 7, -(2**63), None)) == 1
        assert file.held("a\0") == {}
        assert (await file.read(7, -(2**63), 1))[0] == Event(1, 7, -(2**63), None)


# Disks that fail.


@contextmanager
def failing() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Give a disk that fails on demand, and the options that put a file on it."""
    pytest.importorskip("apsw", reason="apsw, which breaks the disk under SQLite")
    from power_cut import Disk, simulated

    disk = Disk(random.Random(0))
    with simulated(disk) as options:
        yield disk, options


@pytest.mark.parametrize("fault", ["full", "io", "sync"])
async def test_the_nexus_goes_on_while_its_disk_fails(fault: Any) -> None:
    """What was given waits in memory, urgent events pass, and all of it comes back in its order."""
    with failing() as (disk, options):
        file = SpillFile("/spilled", **options)
        world = World(file)
        world.nexus.add_handler("urgent", world.seen)
        failed: asyncio.Future[OutboxState] = asyncio.get_running_loop().create_future()
        file.on_state(
            lambda state: (
                failed.set_result(state) if state.condition == "failing" and not failed.done() else None
            )
        )
        async with world.nexus as domain:
            world.give(*range(500))
            await file.durable()
            disk.fault, disk.fault_calls = fault, 1_000_000
            world.give(*range(500, 1000))
            await asyncio.wait_for(failed, WAIT)
            world.go_on.set()
            await domain.ingest(Event(-1, "urgent", -1, None))
            await wait_for(lambda: -1 in world.ids)
            disk.mend()
            await world.drained()
            assert_ledger_balanced(domain, handled=1001)
        assert [n for n in world.ids if n >= 0] == list(range(1000))


async def test_what_a_dead_disk_did_not_take_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop gives the disk some seconds; what it does not take is in the report."""
    monkeypatch.setattr("nexus.boundaries.outbox._outbox.PATIENCE", 0.3)
    with failing() as (disk, options):
        file = SpillFile("/spilled", **options)
        world = World(file)
        async with world.nexus as domain:
            world.give(*range(100))
            await file.durable()
            disk.fault, disk.fault_calls = "full", 1_000_000
            world.give(*range(100, 200))
            report = await domain.stop(grace=0)
        assert [event.id for event in report.remaining] == [*range(10), *range(100, 200)]
        assert report.spilled == 90
        disk.mend()
        again = World(SpillFile("/spilled", **options))
        async with again.nexus as domain:
            await again.drained()
        assert again.ids == list(range(10, 100))


def damage(path: Path, where: bytes) -> None:
    """Write something else over a few bytes."""
    content = bytearray(path.read_bytes())
    middle = content.index(where)
    content[middle : middle + 3] = b"@@@"
    path.write_bytes(content)


async def test_a_damaged_file_costs_what_is_damaged(path: Path) -> None:
    """What can be read comes back in its order; the rest is dropped and counted, and the file kept."""
    world = World(SpillFile(path))
    async with world.nexus as domain:
        world.give(*range(5000))
        await domain.stop(grace=0)
    damage(path, b'{"n":2500}')
    again = World(SpillFile(path))
    async with again.nexus as domain:
        await again.drained()
        drops = domain.stats().types["a"].drops
        assert_ledger_balanced(domain, dropped=drops["damaged"])
    assert again.ids == sorted(again.ids)
    assert 0 < drops["damaged"] <= 300
    assert len(again.ids) + drops["damaged"] == 4990
    assert list(path.parent.glob("*damaged*"))


async def test_what_is_lost_with_its_numbers_holds_nothing_up(path: Path) -> None:
    """Where a damaged file does not know any more that there were events, they count as damaged."""
    world = World(SpillFile(path))
    async with world.nexus as domain:
        world.give(*range(210))
        await world.file.durable()
        world.file._outbox._store.lanes.clear()  # what a repair may leave of them
        await world.drained()
        assert_ledger_balanced(domain, ingested=210, dropped=210 - len(world.ids), queued=0)
        assert domain.stats().types["a"].drops["damaged"] > 100  # some had been read already
        await domain.stop()
