"""Laws about `nexus outbox`: what it shows, and what it does to a real file."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nexus.boundaries.outbox import Cursor, Outbox
from nexus.cli import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make an outbox with rows in three lanes, one of them empty."""

    async def fill() -> None:
        async with Outbox(tmp_path / "out.box") as outbox:
            for priority in (-1, 0):
                for number in range(1, 301):
                    outbox.put("far", priority, number, b'{"secret": %d}' % number)
            outbox.put("other", 5, 1, b"x")
            outbox.advance("source", 0, Cursor(17))
            await outbox.durable()
            outbox.accepted("other", 5, 1)
            outbox.accepted("far", -1, 10)

    asyncio.run(fill())
    return tmp_path / "out.box"


def nexus(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["outbox", *map(str, arguments)])


def read(path: Path, stream: str, priority: int, first: int) -> list[bytes]:
    """Read a lane as a program would."""

    async def rows() -> list[bytes]:
        async with Outbox(path) as outbox:
            return await outbox.read(stream, priority, first)

    return asyncio.run(rows())


def test_show_tells_what_is_there_and_no_secret(path: Path) -> None:
    """Streams, lanes, numbers, counts and cursors are shown; rows are not."""
    before = path.read_bytes()
    done = nexus("show", path)
    assert done.exit_code == 0, done.output
    assert "'far' priority -1: 290 rows" in done.output
    assert "11 to 300" in done.output
    assert "'other' priority 5: 0 rows, 0 bytes, empty, next is 2" in done.output
    assert "from source priority 0: accepted up to 17" in done.output
    assert "secret" not in done.output
    assert path.read_bytes() == before


def test_show_prints_rows_and_json_when_asked(path: Path) -> None:
    """With --rows the oldest are shown; with --json each lane is a line."""
    assert '    11: {"secret": 11}' in nexus("show", path, "--rows", 2).output
    lanes = [json.loads(line) for line in nexus("show", path, "--rows", 1, "--json").output.splitlines()]
    assert [
        (lane["stream"], lane["priority"], lane["first"], lane["last"], lane["rows"]) for lane in lanes
    ] == [
        ("far", -1, 11, 300, 290),
        ("far", 0, 1, 300, 300),
        ("other", 5, 2, 1, 0),
    ]
    assert lanes[1]["oldest"] == [{"number": 1, "row": '{"secret": 1}'}]


def test_drop_takes_out_what_was_named_and_keeps_the_numbers(path: Path) -> None:
    """Dropped rows are empty, the rest is as it was, and the next number is the next."""
    assert (
        nexus("drop", path, "--stream", "far", "--priority", 0, "--upto", 100, "--yes").output
        == "100 rows dropped\n"
    )
    rows = read(path, "far", 0, 1)
    assert rows == [b"null"] * 100 + [b'{"secret": %d}' % number for number in range(101, 301)]
    assert read(path, "far", -1, 11)[0] == b'{"secret": 11}'
    assert nexus("drop", path, "--yes").output == "490 rows dropped\n"
    assert read(path, "far", 0, 101) == [b"null"] * 200
    assert "1 to 300" in nexus("show", path).output


def test_drop_asks_first(path: Path) -> None:
    """Nothing is dropped without a yes, and nothing that is not there."""
    assert nexus("drop", path).exit_code == 1
    assert nexus("show", path, "--json").output.count('"rows": 300') == 1
    assert "no such row" in nexus("drop", path, "--stream", "nobody").output


def test_requeue_puts_back_what_a_copy_has(path: Path, tmp_path: Path) -> None:
    """Rows that are missing come back at their numbers, and only those."""
    copy = tmp_path / "copy.box"
    shutil.copy(path, copy)
    nexus("drop", path, "--stream", "far", "--priority", 0, "--upto", 40, "--yes")
    done = nexus("requeue", path, "--from", copy)
    assert "40 rows put back, 0 missing still" in done.output
    assert read(path, "far", 0, 1) == [b'{"secret": %d}' % number for number in range(1, 301)]
    assert "0 rows put back" in nexus("requeue", path, "--from", copy).output


def test_requeue_reads_the_damaged_files_that_were_kept(path: Path) -> None:
    """When a damaged file can be read again, what it cost comes back."""
    data = path.read_bytes()
    assert data.count(b'{"secret": 299}{"secret": 300}') == 2
    path.write_bytes(data.replace(b'{"secret": 299}', b'{"zecret": 299}', 1))
    assert read(path, "far", -1, 299)[0] == b"null" or read(path, "far", 0, 299)[0] == b"null"
    assert "missing" in nexus("show", path).output
    Path(f"{path}.damaged-1").write_bytes(data)
    assert "1 rows put back, 0 missing still" in nexus("requeue", path).output
    assert read(path, "far", -1, 299)[0] == read(path, "far", 0, 299)[0] == b'{"secret": 299}'


def test_damaged_outbox_is_shown_and_not_touched(path: Path) -> None:
    """A damaged file shows what can be salvaged, with an exit status that tells, and stays as it is."""
    data = bytearray(path.read_bytes())
    data[100:108] = b"damaged!"
    path.write_bytes(data)
    done = nexus("show", path)
    assert (done.exit_code, "damaged:" in done.output) == (2, True)
    assert "'far' priority 0: 300 rows" in done.output
    assert "it is damaged" in nexus("drop", path, "--yes").output
    assert path.read_bytes() == data


async def test_errors_teach(path: Path, tmp_path: Path) -> None:
    """A file in use, none, another one and a newer one are refused in words, and left as they are."""
    async with Outbox(path):
        assert "is in use" in nexus("show", path).output
    assert "there is no outbox" in nexus("show", tmp_path / "none").output
    assert names(tmp_path) == ["out.box"]
    other = tmp_path / "other.db"
    for sql in ("CREATE TABLE t (x)", "PRAGMA user_version=3"):
        run(other, sql)
    before = content(other)
    assert "another program's database" in nexus("show", other).output
    assert content(other) == before
    run(path, "PRAGMA user_version=2")
    run(path, "UPDATE outbox SET version=2")
    assert "newer event-nexus" in nexus("show", path).output


def run(path: Path, sql: str) -> None:
    """Do something to a database."""
    con = sqlite3.connect(path)
    con.execute(sql)
    con.commit()
    con.close()


def content(path: Path) -> bytes:
    """Read a file."""
    return path.read_bytes()


def names(folder: Path) -> list[str]:
    """Name the files of a folder."""
    return sorted(each.name for each in folder.iterdir())
