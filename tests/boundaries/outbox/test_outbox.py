"""Laws of the outbox on a disk that works."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from nexus.adapters._thread import Worker
from nexus.boundaries.outbox import Cursor, LaneContents, NoOutbox, Outbox, OutboxInUse, OutboxState
from nexus.boundaries.outbox._schema import connect
from nexus.errors import BadCall, QueueFull

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name an outbox that is not there yet."""
    return tmp_path / "out.box"


def fill(
    outbox: Outbox, count: int, *, stream: str = "far", priority: int = 0, first: int = 1
) -> list[bytes]:
    """Put rows that tell their numbers."""
    rows = [f"{stream}/{priority}/{number}".encode() for number in range(first, first + count)]
    for number, row in enumerate(rows, start=first):
        outbox.put(stream, priority, number, row)
    return rows


async def test_rows_outlive_the_outbox(path: Path) -> None:
    """What was put is there after the file was closed and opened, under the same source."""
    async with Outbox(path) as outbox:
        source, rows = outbox.source, fill(outbox, 1000)
    async with Outbox(path) as outbox:
        assert (outbox.source, outbox.generation, len(source)) == (source, 2, 32)
        assert await outbox.read("far", 0, 1, most_rows=2000) == rows
        assert await outbox.read("far", 0, 991) == rows[990:]
        assert await outbox.read("far", 0, 1001) == []


async def test_accepted_rows_are_deleted_and_empty_lanes_keep_their_numbers(path: Path) -> None:
    """A lane of which everything was accepted goes on with the next number."""
    async with Outbox(path) as outbox:
        fill(outbox, 300)
        fill(outbox, 10, priority=-1)
        outbox.accepted("far", 0, 300)
        outbox.accepted("far", -1, 4)
    async with Outbox(path) as outbox:
        lanes = outbox.lanes("far")
        assert list(lanes) == [-1, 0]
        assert lanes[0] == LaneContents(301, 300, 0)
        assert (lanes[-1].first, lanes[-1].last) == (5, 10)
        assert await outbox.read("far", -1, 5) == [f"far/-1/{n}".encode() for n in range(5, 11)]
        assert await outbox.read("far", -1, 4) == []
        fill(outbox, 1, first=301)
        await outbox.durable()
        assert await outbox.read("far", 0, 301) == [b"far/0/301"]


async def test_what_was_accepted_goes_soon_without_a_row(path: Path) -> None:
    """Acceptance alone is committed within a moment."""
    async with Outbox(path) as outbox:
        fill(outbox, 3)
        await outbox.durable()
        outbox.accepted("far", 0, 2)
        async with asyncio.timeout(5):
            while outbox.lanes("far")[0].first != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_cursors_come_back(path: Path) -> None:
    """How far a source has come in is stored with its gaps."""
    cursor = Cursor(7, ((9, 9), (12, 40)))
    async with Outbox(path) as outbox:
        outbox.advance("abc", 3, Cursor(5))
        outbox.advance("abc", 3, cursor)
    async with Outbox(path) as outbox:
        assert outbox.cursors("abc") == {3: cursor}
        assert outbox.cursors("other") == {}


async def test_sources_that_were_never_heard_of_again_are_forgotten(path: Path) -> None:
    """A file keeps the cursors of the thousand sources that moved last; one that moves again stays."""
    async with Outbox(path) as outbox:
        for number in range(1000):
            outbox.advance(f"source {number}", 0, Cursor(1))
        await outbox.durable()
        outbox.advance("source 0", 0, Cursor(2))
        await outbox.durable()
        outbox.advance("new", 0, Cursor(1))
        outbox.advance("new", 1, Cursor(1))
        await outbox.durable()
        for _ in range(2):
            assert outbox.cursors("source 0") == {0: Cursor(2)}
            assert outbox.cursors("source 1") == {}
            assert outbox.cursors("source 2") == {0: Cursor(1)}
            assert len(outbox.cursors("new")) == 2
            await outbox.aclose()
            await outbox.open()


async def test_then_calls_after_the_commit_and_at_once_if_nothing_waits(path: Path) -> None:
    """`then` is called when what was put before is in the file, in order, and at once where all is."""
    seen: list[object] = []
    async with Outbox(path) as outbox:
        outbox.then(lambda: seen.append("at once"))
        assert seen == ["at once"]
        fill(outbox, 2)
        outbox.then(lambda: seen.append(outbox.lanes("far")[0].last))
        outbox.then(lambda: seen.append("second"))
        assert seen == ["at once"]
        await outbox.durable()
        assert seen == ["at once", 2, "second"]


async def test_what_one_turn_puts_is_one_commit(path: Path) -> None:
    """Rows put in one turn of the loop cost one commit."""
    async with Outbox(path) as outbox:
        fill(outbox, 500)
        fill(outbox, 500, priority=1)
        await outbox.durable()
        assert outbox.state.commits == 1


async def test_large_commit_takes_few_statements(path: Path) -> None:
    """A statement stores many groups: the thread waits for the interpreter after each."""
    statements: list[str] = []

    def traced(name: str) -> sqlite3.Connection:
        connection = connect(name)
        connection.set_trace_callback(statements.append)
        return connection

    async with Outbox(path, connect=traced) as outbox:
        rows = fill(outbox, 20_000)
        await outbox.durable()
        assert await outbox.read("far", 0, 1, most_rows=20_000) == rows
    inserts = [each for each in statements if each.startswith("INSERT OR REPLACE INTO groups")]
    assert len(inserts) == 3  # 79 groups of 256 rows


async def test_effect_is_stored_with_the_cursor_or_not_at_all(path: Path) -> None:
    """An effect that raises takes back what it did, gets its error, and hinders nobody else."""
    told: list[BaseException | None] = []

    def bad(con: object) -> None:
        con.execute("INSERT INTO counted VALUES (99)")  # type: ignore[attr-defined]
        raise KeyError("bad")

    async with Outbox(path) as outbox:
        outbox.effect(lambda con: con.execute("CREATE TABLE counted (n)"), told.append)
        outbox.effect(bad, told.append)
        outbox.effect(lambda con: con.execute("INSERT INTO counted VALUES (1)"), told.append)
        outbox.advance("src", 0, Cursor(1))
        await outbox.durable()
        assert [type(each) for each in told] == [type(None), KeyError, type(None)]
        found: list[object] = []
        outbox.effect(lambda con: found.extend(con.execute("SELECT n FROM counted")), told.append)
        await outbox.durable()
        assert (found, outbox.cursors("src")) == ([(1,)], {0: Cursor(1)})


async def test_effect_must_not_end_the_transaction(path: Path) -> None:
    """An effect that commits by itself is told so, and the outbox goes on."""
    told: list[BaseException | None] = []
    async with Outbox(path) as outbox:
        outbox.effect(lambda con: con.execute("COMMIT"), told.append)
        fill(outbox, 1)
        await outbox.durable()
        assert [type(each) for each in told] == [BadCall]
        assert await outbox.read("far", 0, 1) == [b"far/0/1"]


async def test_file_in_use_is_refused(path: Path) -> None:
    """A second outbox does not get the file: not in this process, and not in another."""
    code = (
        "import asyncio, sys; from nexus.boundaries.outbox import Outbox; "
        "asyncio.run(Outbox(sys.argv[1]).open())"
    )
    async with Outbox(path) as outbox:
        fill(outbox, 1)
        with pytest.raises(OutboxInUse, match="in use"):
            await Outbox(path).open()
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=30
        )
        assert "OutboxInUse" in done.stderr
        await outbox.durable()
    async with Outbox(path) as outbox:
        assert outbox.lanes("far")[0].last == 1


@pytest.mark.parametrize("content", [b"hello world\n" * 20, b"SQLite format 4\0" * 300, b"x" * 5000])
def test_other_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """A file that was never an outbox is not touched."""
    path.write_bytes(content)
    with pytest.raises(NoOutbox, match="no outbox"):
        asyncio.run(Outbox(path).open())
    assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_missing_file_is_refused_where_none_is_to_be_made(path: Path) -> None:
    """A file is only made where it is wanted."""
    with pytest.raises(NoOutbox, match="there is no outbox"):
        await Outbox(path).open(create=False)
    assert list(path.parent.iterdir()) == []


def test_memory_is_no_outbox() -> None:
    """An outbox in memory would survive nothing."""
    with pytest.raises(BadCall, match="file"):
        Outbox(":memory:")


async def test_numbers_are_checked(path: Path) -> None:
    """Only the next number of a lane is taken, and only while it is open."""
    outbox = Outbox(path)
    with pytest.raises(BadCall, match="closed"):
        outbox.put("far", 0, 1, b"")
    async with outbox:
        with pytest.raises(BadCall, match="next number of the lane is 1"):
            outbox.put("far", 0, 2, b"")
        fill(outbox, 1)
        with pytest.raises(BadCall, match="never put"):
            outbox.accepted("far", 0, 2)
        with pytest.raises(BadCall, match="bytes"):
            outbox.put("far", 0, 2, "text")  # type: ignore[arg-type]


async def test_full_outbox_says_so_and_goes_on_when_there_is_room(path: Path) -> None:
    """Beyond max_bytes nothing is put, listeners are told, and what was accepted makes room."""
    states: list[OutboxState] = []
    async with Outbox(path, max_bytes=10_000) as outbox:
        outbox.on_state(states.append)
        number = 0
        while outbox.has_room(100):
            number += 1
            outbox.put("far", 0, number, bytes(100))
        assert 80 < number < 100
        with pytest.raises(QueueFull):
            outbox.put("far", 0, number + 1, bytes(100))
        await outbox.durable()
        outbox.accepted("far", 0, number)
        outbox.advance("any", 0, Cursor(1))
        await outbox.durable()
        assert outbox.has_room(100)
        assert [each.condition for each in states] == ["full", "open"]


async def test_what_waits_for_the_disk_is_bounded(path: Path) -> None:
    """Up to 4 MiB wait for a commit; then there is no room until it is done."""
    async with Outbox(path) as outbox:
        row, count = b"x" * 2**16, 0
        while outbox.has_room(len(row)):
            count += 1
            outbox.put("far", 0, count, row)
        assert 2**22 - 2**17 < outbox.state.pending_bytes <= 2**22
        assert outbox.put_many("far", 0, count + 1, [row] * 3) == 0
        await outbox.durable()
        assert outbox.put_many("far", 0, count + 1, [row] * 3) == 3


async def test_forgotten_stream_begins_again(path: Path) -> None:
    """A stream that is forgotten has no rows, and its numbers begin at 1."""
    async with Outbox(path) as outbox:
        fill(outbox, 300)
        fill(outbox, 3, stream="other")
        await outbox.durable()
        fill(outbox, 5, first=301)
        outbox.forget("far")
        fill(outbox, 2)
    async with Outbox(path) as outbox:
        assert outbox.streams() == ["far", "other"]
        assert (outbox.lanes("far")[0].first, outbox.lanes("far")[0].last) == (1, 2)
        assert await outbox.read("far", 0, 1) == [b"far/0/1", b"far/0/2"]


async def test_renewed_outbox_numbers_its_rows_from_one(path: Path) -> None:
    """A new source begins at 1 with what is not accepted, in its order."""
    async with Outbox(path) as outbox:
        rows, source = fill(outbox, 700), outbox.source
        outbox.accepted("far", 0, 300)
        await outbox.renew()
        assert outbox.source != source
        assert (outbox.lanes("far")[0].first, outbox.lanes("far")[0].last) == (1, 400)
        assert await outbox.read("far", 0, 1) == rows[300:]
        fill(outbox, 1, first=401)
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 1) == [*rows[300:], b"far/0/401"]


async def test_opened_and_closed_as_often_as_one_likes(path: Path) -> None:
    """Opening twice and closing twice does no harm; it may be opened again."""
    outbox = Outbox(path)
    for number in (1, 2, 3):
        await outbox.open()
        await outbox.open()
        fill(outbox, 1, first=number)
        await outbox.aclose()
        await outbox.aclose()
        assert outbox.state.condition == "closed"
    async with outbox:
        assert outbox.state.stored_rows == 3


async def test_file_closes_with_its_last_user(path: Path) -> None:
    """Two that use one outbox may each open and close it."""
    async with Outbox(path) as outbox:
        async with outbox:
            pass
        fill(outbox, 1)
        await outbox.durable()
    assert outbox.state.condition == "closed"


async def test_file_is_its_owners_alone(path: Path) -> None:
    """Nobody else may read what may be secret."""
    async with Outbox(path) as outbox:
        fill(outbox, 1)
        await outbox.durable()
        assert {each.stat().st_mode & 0o077 for each in path.parent.iterdir()} == {0}


async def test_rows_of_any_size(path: Path) -> None:
    """Rows may be empty, and larger than a group; a read is bounded in rows and bytes."""
    rows = [b"", bytes(200_000), b"a", bytes(70_000), bytes(70_000), b"b"]
    async with Outbox(path) as outbox:
        for number, row in enumerate(rows, start=1):
            outbox.put("far", 0, number, row)
        await outbox.durable()
        assert await outbox.read("far", 0, 1) == rows
        assert await outbox.read("far", 0, 1, most_bytes=1) == rows[:1]
        assert await outbox.read("far", 0, 2, most_bytes=10) == rows[1:2]
        assert await outbox.read("far", 0, 2, most_rows=2) == rows[1:3]


async def test_link_leads_to_one_file(path: Path) -> None:
    """A symbolic link and the file it leads to are one outbox, with one log."""
    link = path.with_name("link.box")
    os.symlink(path, link)
    async with Outbox(path):
        pass
    async with Outbox(link) as outbox:
        fill(outbox, 3)
        await outbox.durable()
        with pytest.raises(OutboxInUse):
            await Outbox(path).open()
        os.remove(path)
        fill(outbox, 3, first=4)
    assert sorted(each.name for each in path.parent.iterdir()) == ["link.box", "out.box"]
    async with Outbox(path) as outbox:
        assert outbox.lanes("far")[0].last == 6


async def test_what_nobody_foresaw_is_tried_again(path: Path) -> None:
    """An error of the thread that is none of the disk's loses nothing."""
    worker, left = Worker("odd"), [3]

    async def odd(work: Callable[[], T]) -> T:
        if opened and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        return await worker.call(work)

    opened, states = False, list[OutboxState]()
    async with Outbox(path, run=odd) as outbox:
        opened = True
        outbox.on_state(states.append)
        rows = fill(outbox, 10)
        await outbox.durable()
        assert await outbox.read("far", 0, 1) == rows
        assert [each.condition for each in states] == ["failing", "open"]
        assert "new thread" in states[0].reason
    worker.shutdown()


async def test_file_that_was_removed_comes_back(path: Path) -> None:
    """Removing the file of an open outbox loses nothing."""
    async with Outbox(path) as outbox:
        rows = fill(outbox, 10)
        await outbox.durable()
        os.remove(path)
        rows += fill(outbox, 10, first=11)
        await outbox.durable()
        assert await outbox.read("far", 0, 1) == rows
        assert {each.stat().st_mode & 0o077 for each in path.parent.iterdir()} == {0}
    async with Outbox(path) as outbox:
        assert await outbox.read("far", 0, 1) == rows
