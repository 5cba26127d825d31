"""The laws of the file receiver: following through whatever happens to a file, and reading one once."""

import asyncio
import gzip
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters import open_receiver
from nexus.adapters._base import LinkState
from nexus.adapters._file_lines import LineCutter
from nexus.adapters.file import FileConfig, FileReceiver
from nexus.adapters.packing import CSVUnpacker, bytes_unpacker, text_unpacker
from nexus.errors import ConfigError, EndOfData, LinkDown, OpenError, UnpackerError

WRITER = Path(__file__).parents[1] / "support" / "rotating_writer.py"
SLOW = [pytest.mark.slow, pytest.mark.timeout(300)]
KINDS = ["renamed", "copied", "replaced", "removed", "gzipped", "switched"]


def receiver(path: Path, unpacker: Any = text_unpacker, **options: Any) -> FileReceiver[Any]:
    """Make a receiver that looks often."""
    return FileReceiver(FileConfig(path=str(path), poll=0.002, retry_cap=0.01, **options), unpacker)


async def take(source: FileReceiver[Any], count: int) -> list[Any]:
    """Receive so many items, without their meta."""
    async with asyncio.timeout(20):
        return [(await source.receive())[0] for _ in range(count)]


async def take_all(source: FileReceiver[Any], got: list[Any]) -> None:
    """Receive until that raises."""
    while True:
        got.append((await source.receive())[0])


def append(path: Path, text: str) -> None:
    with path.open("a", newline="") as file:
        file.write(text)


async def follow(path: Path, kind: str, rotations: int, lines: int) -> tuple[list[int], int]:
    """Receive what another process writes while it rotates its file; return it, and how many there were."""
    got: list[int] = []
    arguments = [str(WRITER), kind, str(path), str(rotations), str(lines)]
    pipe = asyncio.subprocess.PIPE
    async with receiver(path, None, follow_symlinks=kind == "switched") as source:
        writer = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
        assert writer.stdin is not None
        begun = -1
        while len(got) < (rotations + 1) * lines:
            data, _ = await source.receive()
            got.append(data["n"])
            if data["generation"] > begun:
                begun = data["generation"]
                writer.stdin.write(b"\n")
        written, _ = await writer.communicate()
        async with asyncio.timeout(5):
            while source.counts.waiting:
                got.append((await source.receive())[0]["n"])
    return got, int(written)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rotations", "lines"),
    [(10, 200), pytest.param(100, 2000, marks=SLOW)],
)
async def test_rotation_loses_and_repeats_nothing(
    tmp_path: Path, kind: str, rotations: int, lines: int
) -> None:
    """Each line is received once and in order, however often the file is rotated under a writer."""
    got, written = await follow(tmp_path / "run.jsonl", kind, rotations, lines)
    assert got == list(range(written))


async def test_a_line_waits_for_its_end(tmp_path: Path) -> None:
    """Half a line is nothing yet; with its end it is one."""
    path = tmp_path / "run.txt"
    append(path, "one\ntw")
    async with receiver(path) as source:
        assert await take(source, 1) == ["one"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await source.receive()
        append(path, "o\n")
        assert await take(source, 1) == ["two"]


async def test_the_last_line_of_a_rotated_file_is_marked(tmp_path: Path) -> None:
    """A line whose end never came is received when its file is finished, and says so."""
    path = tmp_path / "run.txt"
    append(path, "one\ntwo")
    async with receiver(path) as source:
        assert await take(source, 1) == ["one"]
        path.rename(tmp_path / "run.txt.1")
        append(path, "three\n")
        data, meta = await source.receive()
        assert (data, meta["unterminated"]) == ("two", True)
        data, meta = await source.receive()
        assert (data, meta["line"], meta.get("unterminated")) == ("three", 1, None)


async def test_the_meta_says_where_a_line_is(tmp_path: Path) -> None:
    """Path, offset, end and number lead back to the line, also after one that was too long."""
    path = tmp_path / "run.txt"
    path.write_bytes(b"one\n" + b"x" * 2000 + b"\nthree\n")
    async with receiver(path, max_size=1000) as source:
        metas = [(await source.receive())[1] for _ in range(2)]
        assert source.counts.bad == {"size": 1}
    assert [(meta["line"], meta["offset"], meta["end"]) for meta in metas] == [(1, 0, 4), (3, 2005, 2011)]
    assert metas[0]["path"] == str(path)


async def test_from_the_end_gives_only_what_comes(tmp_path: Path) -> None:
    """With start="end", lines that are there are left out, and the rest of one that is being written too."""
    path = tmp_path / "run.txt"
    append(path, "old\nhal")
    async with receiver(path, start="end") as source:
        await source.connected(5)
        append(path, "f\nnew\n")
        assert await take(source, 1) == ["new"]


async def test_a_file_that_comes_later_is_read_from_its_begin(tmp_path: Path) -> None:
    """The link is down while there is no file, also with start="end", and then nothing of it is missed."""
    path = tmp_path / "run.txt"
    async with receiver(path, start="end") as source:
        with pytest.raises(LinkDown, match="No such file"):
            await source.connected(0.05)
        append(path, "first\n")
        assert await take(source, 1) == ["first"]
        assert source.link.state == "up"


async def test_a_file_that_is_removed_takes_the_link_down(tmp_path: Path) -> None:
    """What was removed is announced, and read on when it is back."""
    path = tmp_path / "run.txt"
    append(path, "one\n")
    states: list[LinkState] = []
    async with receiver(path) as source:
        source.on_link(states.append)
        assert await take(source, 1) == ["one"]
        path.unlink()
        async with asyncio.timeout(5):
            while source.link.state != "down":  # noqa: ASYNC110 - a thread looks
                await asyncio.sleep(0.005)
        append(path, "two\n")
        assert await take(source, 1) == ["two"]
        await source.connected(5)
    assert [state.state for state in states[-3:]] == ["down", "up", "stopped"]


async def test_a_file_that_was_cut_is_begun_again(tmp_path: Path) -> None:
    """A file that became shorter, or was written anew to more than it had, is read from its begin."""
    path = tmp_path / "run.txt"
    append(path, "".join(f"old {number}\n" for number in range(100)))
    async with receiver(path) as source:
        await take(source, 100)
        path.write_text("short\n")
        assert await take(source, 1) == ["short"]
        path.write_text("".join(f"new {number}\n" for number in range(200)))
        assert await take(source, 200) == [f"new {number}" for number in range(200)]


async def test_a_stop_and_a_start_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """A receiver that is started again goes on where it was, through a rotation meanwhile."""
    path = tmp_path / "run.txt"
    append(path, "".join(f"{number}\n" for number in range(50)) + "5")
    source = receiver(path, maxsize=3)
    got = []
    for number in range(50):
        got += await take(source, 1)
        if number % 7 == 0:
            await source.stop()
            await source.start()
    await source.stop()
    append(path, "0\n")
    path.rename(tmp_path / "run.txt.1")
    append(path, "51\n")
    async with source:
        got += await take(source, 2)
    assert got == [str(number) for number in range(52)]


async def test_a_cursor_goes_on_after_what_was_accepted(tmp_path: Path) -> None:
    """A new receiver repeats what was not accepted, and nothing else, through a rotation meanwhile."""
    path, cursor = tmp_path / "run.txt", tmp_path / "cursor"
    append(path, "".join(f"{number}\n" for number in range(10)))
    async with receiver(path, cursor=str(cursor)) as source:
        source.manual = True
        metas = [(await source.receive())[1] for _ in range(6)]
        for place in (1, 0, 2, 5):  # 3 and 4 are not accepted, so 5 does not count
            source.accept(metas[place])
            source.accept(metas[place])
    path.rename(tmp_path / "run.txt.1")
    append(path, "10\n")
    async with receiver(path, cursor=str(cursor)) as source:
        assert await take(source, 8) == [str(number) for number in range(3, 11)]
        assert (await asyncio.wait_for(anext_meta(source, path, "11\n"), 5))["line"] == 2
    assert cursor.stat().st_mode & 0o777 == 0o600


async def anext_meta(source: FileReceiver[Any], path: Path, text: str) -> dict[str, Any]:
    append(path, text)
    return (await source.receive())[1]


async def test_a_cursor_is_written_while_it_runs(tmp_path: Path) -> None:
    """What was accepted is in the cursor file soon, not only after a stop."""
    path, cursor = tmp_path / "run.txt", tmp_path / "cursor"
    append(path, "one\ntwo\n")
    async with receiver(path, cursor=str(cursor), maxsize=1) as source:
        await take(source, 2)
        async with asyncio.timeout(5):
            while not cursor.exists():  # noqa: ASYNC110 - a thread writes
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"device": "x"}', "null", "[" * 5000])
async def test_a_broken_cursor_begins_at_the_beginning(tmp_path: Path, text: str) -> None:
    """A cursor file that is not whole is as good as none."""
    path, cursor = tmp_path / "run.txt", tmp_path / "cursor"
    append(path, "one\n")
    cursor.write_text(text)
    async with receiver(path, cursor=str(cursor)) as source:
        assert await take(source, 1) == ["one"]


async def test_replay_reads_once_to_the_end(tmp_path: Path) -> None:
    """A replay gives every line, the last without its end too, and then ends; started again, all again."""
    path = tmp_path / "run.txt"
    path.write_text("one\ntwo\nthree")
    source = receiver(path, replay=True)
    for _ in range(2):
        async with source:
            assert [data async for data, _ in source] == ["one", "two", "three"]
            with pytest.raises(EndOfData):
                await source.receive()


async def test_replay_stopped_on_the_way_goes_on(tmp_path: Path) -> None:
    """A replay that is stopped and started again gives each line once."""
    path = tmp_path / "run.txt.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % number for number in range(1000))))
    source = receiver(path, replay=True, maxsize=10)
    got = await take(source, 300)
    await source.stop()
    async with source:
        got += await take(source, 700)
    assert got == [str(number) for number in range(1000)]


async def test_replay_reads_what_gzip_made(tmp_path: Path) -> None:
    """A compressed file of several members is read whatever its name is."""
    path = tmp_path / "run.jsonl"
    path.write_bytes(gzip.compress(b"1\n2") + gzip.compress(b"2\n3\n") + b"\0" * 512)
    async with receiver(path, None, replay=True) as source:
        assert [data async for data, _ in source] == [1, 22, 3]


async def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    """A file that swells more than a hundredfold is given up after a MiB, whatever is still in it."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress((b"0" * 999 + b"\n") * 64_000))
    got: list[bytes] = []
    async with receiver(path, bytes_unpacker, replay=True) as source:
        with pytest.raises(LinkDown, match="100 for one are allowed"):
            await take_all(source, got)
        assert source.link.state == "failed"
    assert 1000 < len(got) < 7000


@pytest.mark.parametrize("harm", ["cut", "damaged"])
async def test_a_broken_gzip_file_gives_what_is_whole(tmp_path: Path, harm: str) -> None:
    """Lines before the damage are received, and then the error says what is wrong."""
    rng = random.Random(1)
    content = b"".join(b"%d\n" % rng.getrandbits(60) for _ in range(20_000))
    packed = bytearray(gzip.compress(content))
    if harm == "cut":
        del packed[-1000:]
    else:
        packed[len(packed) // 2 : len(packed) // 2 + 1000] = b"\xff" * 1000
    path = tmp_path / "run.gz"
    path.write_bytes(packed)
    got: list[bytes] = []
    async with receiver(path, bytes_unpacker, replay=True) as source:
        with pytest.raises(LinkDown, match=harm):
            await take_all(source, got)
    lines = content.splitlines()
    assert len(got) > 5000
    assert got[:5000] == lines[:5000]


@pytest.mark.parametrize("replay", [False, True])
async def test_only_regular_files_are_read(tmp_path: Path, replay: bool) -> None:
    """Directories, pipes, devices and links are refused at the start, with the reason."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("secret\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path, why in [
        (tmp_path, "directory"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "link", "symbolic link"),
    ]:
        with pytest.raises(OpenError, match=why):
            await receiver(path, replay=replay).start()
    async with receiver(tmp_path / "link", replay=replay, follow_symlinks=True) as source:
        assert await take(source, 1) == ["secret"]


async def test_a_pipe_is_read_when_that_is_allowed(tmp_path: Path) -> None:
    """A named pipe gives the lines of one writer after the other."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    async with receiver(path, allow_special=True) as source:
        await source.connected(5)
        for number in range(3):
            append(path, f"{number}\n")
            assert await take(source, 1) == [str(number)]


async def test_a_link_put_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    """The link is announced and takes the receiver's link down until a file is there again."""
    path = tmp_path / "run.txt"
    append(path, "one\n")
    (tmp_path / "secret").write_text("secret\n")
    async with receiver(path) as source:
        assert await take(source, 1) == ["one"]
        states: list[LinkState] = []
        source.on_link(states.append)
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        async with asyncio.timeout(5):
            while not any("symbolic link" in (state.error or "") for state in states):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        path.unlink()
        append(path, "two\n")
        assert await take(source, 1) == ["two"]


@pytest.mark.parametrize("swaps", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_racing_links_are_never_followed(tmp_path: Path, swaps: int) -> None:
    """However a link and a file take turns under a name, nothing of what the link leads to is received."""
    path = tmp_path / "run.txt"
    secret = tmp_path / "elsewhere" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("secret\n" * 100)
    append(path, "good\n")
    stop = asyncio.Event()

    def swap() -> None:
        for number in range(swaps):
            link, file = tmp_path / "new-link", tmp_path / "new-file"
            link.symlink_to(secret)
            link.replace(path)
            file.write_text(f"good {number}\n")
            file.replace(path)

    got: list[str] = []
    async with receiver(path) as source:

        async def collect() -> None:
            async for data, _ in source:
                got.append(data)
                if data == f"good {swaps - 1}":
                    stop.set()

        task = asyncio.ensure_future(collect())
        await asyncio.to_thread(swap)
        await asyncio.wait_for(stop.wait(), 10)
    await task
    assert all(each.startswith("good") for each in got)


async def test_csv_rows_may_hold_line_ends(tmp_path: Path) -> None:
    """A quoted line end is part of its row, and each file has a header of its own."""
    path = tmp_path / "run.csv"
    path.write_text('a,b\r\n1,"x\r\ny"\r\n', newline="")
    async with receiver(path, CSVUnpacker(header=True)) as source:
        assert await take(source, 2) == [{}, {"a": "1", "b": "x\r\ny"}]
        path.rename(tmp_path / "run.csv.1")
        append(path, "c,a\r\n3,4\r\n")
        assert await take(source, 2) == [{}, {"c": "3", "a": "4"}]


async def test_a_bad_line_costs_itself_only(tmp_path: Path) -> None:
    """A line of 100 MB, one that is no UTF-8 and one that is no JSON are counted; the others come."""
    path = tmp_path / "run.jsonl"
    with path.open("wb") as file:
        file.write(b"1\n" + b"x" * 100_000_000 + b"\n\xff\n{\n2\n")
    async with receiver(path, None) as source:
        assert await take(source, 1) == [1]
        for _ in range(2):
            with pytest.raises(UnpackerError):
                await source.receive()
        assert await take(source, 1) == [2]
        assert source.counts.bad == {"size": 1, "unpack": 2}


def test_lines_are_the_same_however_they_are_cut() -> None:
    """Any pieces of a stream give the lines, offsets and numbers that splitting all of it gives."""
    rng = random.Random(7)
    for end in (b"\n", b"\r\n", b"ab"):
        for _ in range(300):
            lines = [bytes(rng.choices(b"abcx\r", k=rng.randrange(12))) for _ in range(8)]
            stream = end.join(lines)
            cutter, found, place = LineCutter(end, 8), [], 0
            while place < len(stream):
                size = rng.randrange(1, 7)
                found += cutter.feed(stream[place : place + size])
                place += size
            found += cutter.finish()
            parts = stream.split(end)
            whole = [each for each in parts[:-1] if len(each) <= 8]
            whole += [each for each in parts[-1:] if 0 < len(each) <= 8]
            assert [line.payload for line in found] == whole
            assert all(stream[line.offset :].startswith(line.payload) for line in found)
            assert [parts[(line.number or 0) - 1] for line in found] == whole


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"path": ""}, "path"),
        ({"path": "a\0b"}, "path"),
        ({"terminator": b""}, "terminator"),
        ({"cursor": "c", "replay": True}, "cursor"),
        ({"start": "middle"}, "start"),
        ({"poll": 0}, "poll"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], why: str) -> None:
    """Each error names the option."""
    with pytest.raises(ConfigError, match=why):
        FileConfig(**options)


@pytest.mark.parametrize(
    "url", ["file://host/run.jsonl", "file://me@/run.jsonl", "file:///run.jsonl?colour=red"]
)
def test_wrong_urls_are_told(url: str) -> None:
    """A host, a user and an unknown option are errors."""
    with pytest.raises(ConfigError):
        open_receiver(url)


async def test_a_url_opens_a_file(tmp_path: Path) -> None:
    """`file:` URLs take the options of the config and a packing."""
    path = tmp_path / "run.txt"
    path.write_text("one\n")
    async with open_receiver(f"file://{path}?replay=1&pack=text") as source:
        assert [data async for data, _ in source] == ["one"]


async def test_a_file_with_more_than_fits_is_up(tmp_path: Path) -> None:
    """The link is up before what is in the file has found room, so that who waits for it first may."""
    path = tmp_path / "x.txt"
    append(path, "".join(f"{number}\n" for number in range(100)))
    async with receiver(path, maxsize=10) as source:
        await source.connected(5)
        assert await take(source, 100) == [str(number) for number in range(100)]
