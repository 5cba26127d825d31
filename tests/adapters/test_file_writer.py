"""The laws of the file sender: names, rollover, full and failing disks, and what a reader finds."""

# ruff: noqa: ASYNC240 - the folders looked at here are small
import asyncio
import csv
import errno
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures_file import FailingFolder

from nexus.adapters import open_sender
from nexus.adapters._base import LinkState
from nexus.adapters._file_names import Names
from nexus.adapters.file import FileConfig, FileSender
from nexus.adapters.packing import CSVPacker, bytes_packer, text_packer
from nexus.errors import ConfigError, LinkDown, OpenError, PackerError
from nexus.testing import DiskFault, MemoryDisk

MOMENT = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)


def sender(path: object, packer: Any = None, **options: Any) -> FileSender[Any]:
    """Make a sender at one moment, that tries again soon."""
    given = {name: options.pop(name) for name in ("header", "disk") if name in options}
    config = FileConfig(**{"path": str(path), "retry_cap": 0.01, **options})
    return FileSender(config, packer, now=lambda: MOMENT, **given)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a thread writes
            await asyncio.sleep(0.002)


def memory_files(disk: MemoryDisk) -> dict[str, bytes]:
    return {name: bytes(disk._names[name].content) for name in sorted(disk._names)}


async def test_names_say_the_time_and_never_collide(tmp_path: Path) -> None:
    """Files of one second are numbered; while one is written its name ends in .open; all are private."""
    folder = tmp_path / "new"
    for number in range(3):
        async with sender(f"{folder}/") as target:
            await target.deliver({"n": number})
            assert [each.name for each in folder.glob("*.open")] == [
                f"data_20261121T183000Z_{number + 1:04d}.jsonl.open"
            ]
    names = sorted(each.name for each in folder.iterdir())
    assert names == [f"data_20261121T183000Z_{number:04d}.jsonl" for number in (1, 2, 3)]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}


async def test_lines_are_on_the_disk_when_they_are_delivered(tmp_path: Path) -> None:
    """A delivered line is in the file, without a stop; one that is sent is there soon."""
    path = tmp_path / "run.jsonl"
    async with sender(path) as target:
        await target.deliver({"n": 1})
        assert path.read_text() == '{"n":1}\n'
        await target.send({"n": 2})
        await until(lambda: path.read_text() == '{"n":1}\n{"n":2}\n')


async def test_a_flush_interval_gathers_lines(tmp_path: Path) -> None:
    """Lines wait for others, but not for longer than a flush or a stop asks."""
    path = tmp_path / "run.jsonl"
    async with sender(path, flush_interval=60.0) as target:
        await target.connected(5)
        await target.send(1)
        await asyncio.sleep(0.05)
        assert path.read_text() == ""
        assert await target.flush(5)
        assert path.read_text() == "1\n"
        await target.send(2)
    assert path.read_text() == "1\n2\n"


async def test_a_file_is_continued(tmp_path: Path) -> None:
    """Lines are added to what is there; a line that a death has cut stands alone."""
    path = tmp_path / "run.txt"
    path.write_text("old\ncut")
    async with sender(path, text_packer) as target:
        await target.send("new")
    assert path.read_text() == "old\ncut\nnew\n"


@pytest.mark.parametrize("compress", [False, True])
async def test_files_roll_over_by_size(tmp_path: Path, compress: bool) -> None:
    """No file is larger than told, no line is divided, and the order goes on from name to name."""
    async with sender(f"{tmp_path}/", rollover_size=100, compress=compress) as target:
        for number in range(100):
            await target.send({"n": number})
    contents = []
    for path in sorted(tmp_path.iterdir()):
        assert path.name.endswith(".jsonl.gz" if compress else ".jsonl")
        contents.append(gzip.decompress(path.read_bytes()) if compress else path.read_bytes())
    assert all(len(content) <= 100 for content in contents)
    assert [json.loads(line)["n"] for line in b"".join(contents).splitlines()] == list(range(100))


async def test_files_roll_over_by_time(tmp_path: Path) -> None:
    """A file is finished when its time is over, also when nothing more comes; empty ones are not kept."""
    async with sender(f"{tmp_path}/", rollover=0.05) as target:
        await target.send(1)
        await until(lambda: [each.name for each in tmp_path.glob("*.jsonl")])
        await target.deliver(2)
    assert [each.read_text() for each in sorted(tmp_path.iterdir())] == ["1\n", "2\n"]


async def test_one_file_is_renamed_when_it_rolls_over(tmp_path: Path) -> None:
    """With a path of a file, that is always the one being written."""
    async with sender(tmp_path / "run.jsonl", rollover_size=5) as target:
        for number in range(5):
            await target.deliver(number)
    names = [each.name for each in sorted(tmp_path.iterdir())]
    assert names == ["run.jsonl", "run_20261121T183000Z_0001.jsonl", "run_20261121T183000Z_0002.jsonl"]
    assert (tmp_path / "run.jsonl").read_text() == "4\n"


async def test_each_file_has_its_header_first(tmp_path: Path) -> None:
    """Every new file begins with the header, whatever was sent around the rollover."""
    async with sender(f"{tmp_path}/", rollover_size=20, header=lambda: "# begin") as target:
        for number in range(20):
            await target.send(number)
    texts = [each.read_text().splitlines() for each in sorted(tmp_path.iterdir())]
    assert len(texts) > 3
    assert all(lines[0] == "# begin" for lines in texts)
    assert [line for lines in texts for line in lines[1:]] == [str(number) for number in range(20)]


async def test_csv_is_quoted_and_headed(tmp_path: Path) -> None:
    """Commas, quotes and line ends come back from a CSV reader; a new key is refused where it is sent."""
    rows = [{"a": 'x,"y"', "b": "two\r\nlines"}, {"a": "1", "b": ""}, {"a": "é", "b": "\n"}]
    async with sender(f"{tmp_path}/", CSVPacker(), rollover_size=40) as target:
        for row in rows:
            await target.send(row)
        with pytest.raises(PackerError, match="no such field"):
            await target.send({"a": 1, "c": 2})
    got = []
    for path in sorted(tmp_path.iterdir()):
        assert path.suffix == ".csv"
        with path.open(newline="") as file:
            got += list(csv.DictReader(file))
    assert got == rows


async def test_a_file_with_another_csv_header_is_not_continued(tmp_path: Path) -> None:
    """Rows never land under the names of others: the old file is put aside, and a new one begun."""
    path = tmp_path / "run.csv"
    path.write_bytes(b"x,y\r\n1,2\r\n")
    for number in range(2):
        async with sender(path, CSVPacker()) as target:
            await target.send({"a": number})
    assert path.read_bytes() == b"a\r\n0\r\n1\r\n"
    assert (tmp_path / "run_20261121T183000Z_0001.csv").read_bytes() == b"x,y\r\n1,2\r\n"


async def test_a_frame_with_a_line_end_is_refused(tmp_path: Path) -> None:
    """Bytes that a reader would take for two lines cost themselves only."""
    async with sender(tmp_path / "run.dat", bytes_packer) as target:
        with pytest.raises(PackerError, match="end of a line"):
            await target.send(b"a\nb")
        await target.send(b"c")
    assert (tmp_path / "run.dat").read_bytes() == b"c\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
async def test_a_failing_disk_is_announced_and_nothing_is_lost(tmp_path: Path, code: int) -> None:
    """The link is down with the reason, `send` waits when the backlog is full, and all goes when it works."""
    disk = FailingFolder(str(tmp_path))
    states: list[LinkState] = []
    async with sender(f"{tmp_path}/", disk=disk, maxsize=10) as target:
        target.on_link(states.append)
        await target.deliver(0)
        disk.error = code
        for number in range(1, 11):
            await target.send(number)
        await until(lambda: target.link.state == "down")
        assert target.link.error is not None
        assert os.strerror(code) in target.link.error
        waiting = asyncio.ensure_future(target.send(11))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        disk.error = None
        await waiting
        assert await target.flush(10)
    disk.close()
    lines = b"".join(each.read_bytes() for each in sorted(tmp_path.iterdir())).splitlines()
    assert [int(line) for line in lines] == list(range(12))
    assert [state.state for state in states if state.state in ("up", "down")].count("up") <= 2


async def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    """What a full disk took of a line is taken back, so that every file always holds whole lines."""
    disk = MemoryDisk(capacity=100)
    async with sender("memory/", disk=disk, fsync="never", flush_timeout=0.05) as target:
        for number in range(50):
            await target.send({"number": number})
        await until(lambda: target.link.state == "down")
        (content,) = memory_files(disk).values()
        assert content.endswith(b"\n")
        assert len(content) > 80
        whole = len(content.splitlines())
    assert target.counts.items == whole
    assert target.counts.dropped == {"stopped": 50 - whole}


@pytest.mark.parametrize("policy", ["never", "interval", "always"])
@pytest.mark.parametrize("seed", range(15))
async def test_random_faults_lose_and_tear_nothing(policy: Any, seed: int) -> None:
    """Whatever calls fail, each line is in a file, whole, and once unless its fsync failed beyond repair."""
    rng = random.Random(seed)
    kinds = list(DiskFault)
    disk = MemoryDisk(faults={rng.randrange(5, 120): rng.choice(kinds) for _ in range(12)})
    path = "memory/run.jsonl" if seed % 2 else "memory/"
    options = {"fsync": policy, "fsync_interval": 0.01, "rollover_size": 200}
    async with sender(path, disk=disk, **options) as target:
        for number in range(60):
            await target.send({"n": number})
            if number % 5 == 0:
                await target.flush(10)
        assert await target.flush(10)
    contents = memory_files(disk)
    whole = [line for content in contents.values() for line in content.split(b"\n")[:-1]]
    found = [json.loads(line)["n"] for line in whole if line.startswith(b"{") and line.endswith(b"}")]
    assert set(found) == set(range(60))
    if policy != "always":
        assert len(found) == 60


async def test_a_failed_fsync_goes_on_in_a_new_file() -> None:
    """With fsync="always" lines whose fsync failed are written again elsewhere, and delivered only then."""
    disk = MemoryDisk()
    async with sender("memory/", disk=disk, fsync="always") as target:
        await target.deliver(1)
        disk.faults[disk.calls] = DiskFault.FAILED_FSYNC
        await target.deliver(2)
        disk.crash(random.Random(1))
    assert [content for content in memory_files(disk).values() if content] == [b"1\n", b"2\n"]


async def test_a_limit_of_the_file_size_begins_another(tmp_path: Path) -> None:
    """A real EFBIG, from RLIMIT_FSIZE in a process of its own, loses nothing."""
    program = f"""
import asyncio, resource
from nexus.adapters.file import FileConfig, FileSender
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
async def main():
    async with FileSender(FileConfig(path={str(tmp_path)!r}, retry_cap=0.01)) as target:
        for number in range(1000):
            await target.send(number)
asyncio.run(main())
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=True, timeout=30)
    contents = [each.read_bytes() for each in sorted(tmp_path.iterdir())]
    assert max(map(len, contents)) <= 1000
    assert [int(line) for line in b"".join(contents).splitlines()] == list(range(1000))


async def test_a_file_that_was_moved_away_is_not_written_any_more(tmp_path: Path) -> None:
    """After a rotation by others, or a removal of the folder, lines go to the name that was asked for."""
    path = tmp_path / "new" / "run.txt"
    async with sender(path, text_packer) as target:
        await target.deliver("one")
        path.rename(tmp_path / "run.txt.1")
        await target.deliver("two")
        assert path.read_text() == "two\n"
        path.unlink()
        path.parent.rmdir()
        await target.deliver("three")
        assert path.read_text() == "three\n"


async def test_files_left_open_by_a_death_are_finished(tmp_path: Path) -> None:
    """The next sender gives them their name, unless somebody is writing them."""
    (tmp_path / "data_20200101T000000Z_0001.jsonl.open").write_text("1\n")
    (tmp_path / "data_20200101T000000Z_0002.jsonl.open").write_text("")
    (tmp_path / "other.open").write_text("2\n")
    async with sender(f"{tmp_path}/") as first, sender(f"{tmp_path}/") as second:
        await first.deliver("a")
        await second.deliver("b")
        assert len(list(tmp_path.glob("*.open"))) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "data_20200101T000000Z_0001.jsonl",
        "data_20261121T183000Z_0001.jsonl",
        "data_20261121T183000Z_0002.jsonl",
        "other.open",
    ]


async def test_two_senders_never_write_one_file(tmp_path: Path) -> None:
    """The second one's link is down until the first has stopped."""
    path = tmp_path / "run.jsonl"
    async with sender(path) as second:
        async with sender(path) as first:
            pass
        await second.deliver(1)
        async with sender(path) as first:
            with pytest.raises(LinkDown, match="another sender"):
                await first.connected(0.05)


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A link, a pipe and a device in the place of the file are errors at the start."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "pipe", "/dev/null", tmp_path / "secret" / "x"):
        with pytest.raises(OpenError):
            await sender(path).start()
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("swaps", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_racing_links_are_never_written(tmp_path: Path, swaps: int) -> None:
    """However often a link takes the place of the file, nothing is written to where it leads."""
    path, secret = tmp_path / "run.txt", tmp_path / "secret"
    secret.write_text("")

    def swap() -> None:
        for _ in range(swaps):
            (tmp_path / "link").symlink_to(secret)
            (tmp_path / "link").replace(path)
            path.unlink()

    async with sender(path, overflow="drop_oldest") as target:
        swapping = asyncio.create_task(asyncio.to_thread(swap))
        while not swapping.done():
            await target.send("x" * 20)
            await asyncio.sleep(0)
        await swapping
    assert secret.read_text() == ""


def vectors() -> list[str]:
    """List 500 names that lead elsewhere, or mean something else elsewhere."""
    parts = [
        "..",
        "/",
        "\\",
        "../x",
        "/etc/x",
        "..\\x",
        "\0",
        "a/b",
        "C:x",
        "~/../x",
        "x\n",
        "\x1b[2J",
        "\u202e",
    ]
    frames = ["{}", "a{}", "{}a", "%Y{}", "{}%Y", "a_{}_b", "%d{}%m", "x{}x%H"]
    found = [frame.format(part * times) for part in parts for frame in frames for times in (1, 2, 3, 4)]
    directives = ["%h", "%s", "%c", "%x", "%X", "%D", "%F", "%T", "%Z", "%n", "%t", "%E", "%O", "%-d", "%"]
    found += [frame.format(directive) for directive in directives for frame in frames[:6]]
    return [each for each in found if each != "~"][:500]


@pytest.mark.parametrize("field", ["name", "suffix"])
def test_names_hold_no_path(field: str) -> None:
    """Each of 500 patterns that leave the folder, or that locales read otherwise, is refused."""
    names = [each for each in vectors() if field == "name" or "%" not in each]
    assert len(vectors()) == 500
    for each in names:
        if field == "suffix" and set(each) <= set(".ax_b"):
            continue  # dots at the end of a name lead nowhere
        if field == "name" and each.strip("%Ydm") and set(each) <= set("ax_b%YdmH.") and each[0] != ".":
            continue
        with pytest.raises(ConfigError):
            FileConfig.from_mapping({field: each})


def test_names_tell_the_zone() -> None:
    """%z is Z in UTC and a plain offset elsewhere; %% is a percent sign."""
    zone = timezone(timedelta(hours=5, minutes=30))
    assert Names("%H%M%z", ".x", UTC, now=lambda: MOMENT).next([]) == "1830Z_0001.x"
    names = Names("%H%M%z_%%z", ".x", zone, now=lambda: MOMENT)
    assert names.next(["0000+0530_%z_0041.x.gz"]) == "0000+0530_%z_0042.x"
    assert names.is_ours("2359-0100_%z_0001.x")


async def test_urls_open_senders(tmp_path: Path) -> None:
    """A slash at the end, or a folder that is there, says that files get names of their own."""
    async with open_sender(f"file://{tmp_path}/new/?rollover=3600&compress=true&pack=text") as target:
        await target.send("one")
    async with open_sender(f"file://{tmp_path}/run.jsonl") as target:
        await target.send("two")
    assert (tmp_path / "run.jsonl").read_text() == '"two"\n'
    (packed,) = (tmp_path / "new").iterdir()
    assert gzip.decompress(packed.read_bytes()) == b"one\n"
