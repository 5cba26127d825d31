"""Laws about `nexus record` and `nexus replay`: real transports, other processes, signals, full disks."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mosquitto import Mosquitto
from real import free_port

from nexus.adapters import open_receiver, open_sender
from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.boundaries._recording import Recorded, Recording
from nexus.boundaries._recording_writer import open_file, open_recording
from nexus.cli import main

LIMIT = 20.0
"""Seconds that a command may take."""
FRAMES = [b'{"n": %d}' % number for number in range(300)]
CONFINED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from nexus.cli import main
main()
"""
"""The command, in a process whose files may not become larger."""
RULE = "7 if n >= 0 else 0"


@pytest.fixture(autouse=True)
def root_handlers() -> Iterator[None]:
    """Put back what commands run in this process set up for themselves."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@contextmanager
def running(*arguments: str, limit: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command in another process, and see that it is gone at the end."""

    command = [sys.executable, "-m", "nexus.cli", *arguments]
    if limit is not None:
        command[1:3] = ["-c", CONFINED.format(limit=limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def read(path: Path) -> list[Recorded]:
    """Read a recording that must be whole."""
    file = open_file(str(path))
    try:
        found = Recording(file)
        items = list(found)
    finally:
        file.close()
    assert not found.is_damaged
    return items


def write(path: Path, items: list[Recorded]) -> None:
    writer = open_recording(str(path), "new", {"url": "mem://a", "pack": "json", "started": 0})
    writer.write(items)
    writer.close()


async def until(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Wait for a process without holding up the loop."""
    return await asyncio.to_thread(process.communicate, timeout=LIMIT)


def first(out: str) -> str:
    """Return the line that is always there; a busy machine adds how late a frame was."""
    return out.splitlines()[0]


async def there(path: Path) -> None:
    """Wait until a recorder has begun."""
    async with asyncio.timeout(LIMIT):
        while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_tcp_is_recorded_and_replayed(tmp_path: Path) -> None:
    """What a sender sends over TCP comes out of the replay as the same bytes, in the same order."""
    path = tmp_path / "r"
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    with running("record", f"{url}?listen=true", str(path), "--count", "300", "--priority", RULE) as process:
        async with open_sender(url, packer=bytes_packer) as sender:
            for frame in FRAMES:
                await sender.send(frame)
            out, _ = await until(process)
    assert process.returncode == 0
    assert out.startswith(f"{path}: 300 records")
    assert [(item.payload, item.priority) for item in read(path)] == [(frame, 7) for frame in FRAMES]
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    async with open_receiver(f"{url}?listen=true", unpacker=bytes_unpacker) as receiver:
        with running("replay", str(path), url, "--speed", "100") as process:
            found = [(await receiver.receive())[0] for _ in FRAMES]
            out, _ = await until(process)
    assert found == FRAMES
    assert (process.returncode, first(out)) == (0, "sent 300, left out 0, not sent 0, damaged 0")


async def test_udp_is_recorded_and_replayed(tmp_path: Path) -> None:
    """Datagrams are recorded until a signal comes, and come out of the replay as they were."""
    path = tmp_path / "r"
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with running("record", url, str(path), "--plain") as process:
        await there(path)
        async with open_sender(url, packer=bytes_packer) as sender:
            count = 0
            async with asyncio.timeout(LIMIT):
                while path.stat().st_size < 1000:  # a datagram that nobody receives is lost
                    await sender.send(b"\x00\xff%d" % count)
                    count += 1
                    await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = await until(process)
    items = read(path)
    assert process.returncode == 0
    assert out.startswith(f"{path}: {len(items)} records")
    async with open_receiver(url, unpacker=bytes_unpacker) as receiver:
        await receiver.connected()
        done = await asyncio.to_thread(invoke_elsewhere, "replay", str(path), url, "--speed", "10")
        found = [(await receiver.receive())[0] for _ in items]
    assert done.returncode == 0
    assert found == [item.payload for item in items]


def invoke_elsewhere(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "nexus.cli", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


async def test_mqtt_topics_come_back(tmp_path: Path) -> None:
    """Over MQTT a frame is replayed to the topic it was recorded from."""
    path = tmp_path / "r"
    sent = [(b"%d" % number, f"oven/{number % 3}") for number in range(30)]
    async with Mosquitto() as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        session = f"{url}/oven/#?qos=1&clean_session=false&client_id="
        for client in ("first", "second"):
            async with open_receiver(session + client, unpacker=bytes_unpacker) as receiver:
                await receiver.connected(LIMIT)  # from now on the broker keeps for it what is sent
        async with open_sender(f"{url}?qos=1", packer=bytes_packer) as sender:
            for frame, topic in sent:
                await sender.send(frame, topic=topic)
        done = await asyncio.to_thread(
            invoke_elsewhere, "record", session + "first", str(path), "--count", "30"
        )
        assert done.returncode == 0
        assert [(item.payload, item.meta["topic"]) for item in read(path)] == sent
        done = await asyncio.to_thread(invoke_elsewhere, "replay", str(path), f"{url}?qos=1")
        assert (done.returncode, first(done.stdout)) == (0, "sent 30, left out 0, not sent 0, damaged 0")
        async with open_receiver(session + "second", unpacker=bytes_unpacker) as receiver:
            found = [await receiver.receive() for _ in sent * 2]
    assert [(frame, meta["topic"]) for frame, meta in found] == sent * 2


async def test_a_recorder_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Killed again and again, a recorder that is started again has everything that QoS 1 has brought."""
    path = tmp_path / "r"
    async with Mosquitto() as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        session = f"{url}/oven?qos=1&clean_session=false&client_id=r"
        async with open_receiver(session, unpacker=bytes_unpacker) as receiver:
            await receiver.connected(LIMIT)
        async with open_sender(f"{url}/oven?qos=1", packer=bytes_packer) as sender:
            for number in range(5000):
                await sender.send(b"%d" % number)
            await sender.flush()
        for round in range(4):
            with running("record", session, str(path), "--append") as process:
                before = await asyncio.to_thread(size, path)
                async with asyncio.timeout(LIMIT):
                    while await asyncio.to_thread(size, path) == before:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                if round == 3:
                    await asyncio.to_thread(until_all_are_there, path, 5000)
                process.kill()
    numbers = dict.fromkeys(int(item.payload) for item in whole_part(path))
    assert list(numbers) == list(range(5000))


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def whole_part(path: Path) -> list[Recorded]:
    """Read a recording that may have a torn tail, and no other damage."""
    file = open_file(str(path))
    try:
        found = Recording(file)
        items = list(found)
    finally:
        file.close()
    assert (found.lost, found.skipped) == (0, 0)
    return items


def until_all_are_there(path: Path, count: int) -> None:
    until = time.monotonic() + LIMIT
    while len({item.payload for item in whole_part(path)}) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_part_of_a_recording_goes_to_a_file(tmp_path: Path) -> None:
    """--from, --until, --filter and --loop choose what is sent; what is left out is counted."""
    path, target = tmp_path / "r", tmp_path / "lines"
    write(path, [Recorded(frame, 0, number * 10**7) for number, frame in enumerate(FRAMES[:100])])
    done = invoke(
        "replay", path, f"file://{target}", "--from", "0.1", "--until", "1970-01-01T00:00:00.5",
        "--filter", "n % 2 == 0", "--loop", "2", "--speed", "max",
    )  # fmt: skip
    assert done.exit_code == 0
    assert done.stdout == "sent 40, left out 160, not sent 0, damaged 0\n"
    assert target.read_bytes().splitlines() == FRAMES[10:50:2] * 2


def test_a_damaged_recording_is_replayed_with_status_1(tmp_path: Path) -> None:
    """What is whole is sent, what is not is told, and the status is 1."""
    path, target = tmp_path / "r", tmp_path / "lines"
    write(path, [Recorded(frame, 0, 0) for frame in FRAMES[:5]])
    content = path.read_bytes()
    at = content.index(b'"n": 2')
    path.write_bytes(content[:at] + b"?" + content[at + 1 : -1])
    done = invoke("replay", path, f"file://{target}", "--speed", "max")
    assert done.exit_code == 1
    assert done.stdout.startswith("sent 3, left out 0, not sent 0, damaged 1\n")
    assert "bytes at the end are an incomplete record" in done.stdout
    assert target.read_bytes().splitlines() == [FRAMES[0], FRAMES[1], FRAMES[3]]


def test_what_cannot_be_sent_is_status_1(tmp_path: Path) -> None:
    """A frame that the transport does not take is counted and said."""
    path = tmp_path / "r"
    write(path, [Recorded(b"a\nb", 0, 0), Recorded(b"c", 0, 0)])
    done = invoke("replay", path, f"file://{tmp_path / 'lines'}", "--speed", "max")
    assert done.exit_code == 1
    assert done.stdout.startswith("sent 1, left out 0, not sent 1, damaged 0\n")
    assert (tmp_path / "lines").read_bytes() == b"c\n"


def test_a_full_disk_ends_it_with_status_1(tmp_path: Path) -> None:
    """When the disk takes no more, the error says so, and what is in the file is whole."""
    path, source = tmp_path / "r", tmp_path / "lines"
    source.write_bytes(b"\n".join(FRAMES) + b"\n")
    with running("record", f"file://{source}?replay=true", str(path), limit=5000) as process:
        out, err = process.communicate(timeout=LIMIT)
    items = read(path)
    assert process.returncode == 1
    assert out.startswith(f"{path}: {len(items)} records")
    assert f"File too large; the {len(items)} records written are whole" in err
    assert [item.payload for item in items] == FRAMES[: len(items)]


def test_a_recording_is_continued(tmp_path: Path) -> None:
    """A file that is there is refused; with --append it goes on after what is whole."""
    path, source = tmp_path / "r", tmp_path / "lines"
    source.write_bytes(b"1\n2\n")
    url = f"file://{source}?replay=true"
    assert invoke("record", url, path).exit_code == 0
    again = invoke("record", url, path)
    assert again.exit_code == 1
    assert "it is there already; continue it with --append, or overwrite it with --force" in again.stderr
    with path.open("ab") as file:
        file.write(b"torn")
    continued = invoke("record", url, path, "--append")
    assert (continued.exit_code, len(read(path))) == (0, 4)
    assert "4 bytes of an incomplete record were cut off" in continued.stderr
    assert invoke("record", url, path, "--force").exit_code == 0
    assert (len(read(path)), path.stat().st_mode & 0o777) == (2, 0o600)


WRONG = [
    (["record", "nowhere", "{r}"], 1, "URL 'nowhere': it does not begin with a scheme"),
    (["record", "mem://a", "{r}", "--priority", "1 +"], 2, "expression '1 +'"),
    (["record", "mem://a", "{r}", "--append", "--force"], 2, "exclude each other"),
    (["record", "mem://a", "{folder}"], 2, "is a directory"),
    (["replay", "{missing}", "mem://a"], 1, "cannot be read: No such file"),
    (["replay", "{notes}", "mem://a"], 1, "{notes}: it is no recording"),
    (["replay", "{notes}", "mem://a", "--speed", "fast"], 2, "'fast' is neither a number above 0 nor max"),
    (
        ["replay", "{notes}", "mem://a", "--from", "noon"],
        2,
        "'noon' is neither a number of seconds nor a time",
    ),
]


@pytest.mark.parametrize(("arguments", "status", "words"), WRONG)
def test_wrong_arguments_are_told(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    """The error says what was asked and what would do; nothing is written."""
    (tmp_path / "notes").write_text("no recording, but notes about something else")
    places = {name: str(tmp_path / name) for name in ("r", "missing", "notes")} | {"folder": str(tmp_path)}
    done = invoke(*[each.format(**places) for each in arguments])
    assert done.exit_code == status
    assert words.format(**places) in " ".join(done.stderr.split())
    assert not (tmp_path / "r").exists()


def test_secrets_of_the_url_are_not_in_the_file(tmp_path: Path) -> None:
    """The header names where it came from without the password."""
    path = tmp_path / "r"
    url = f"mqtt://me:hush@127.0.0.1:{free_port()}/a"
    done = invoke("record", url, path, "--seconds", "0.05")
    assert done.exit_code == 0
    assert b"hush" not in path.read_bytes()
    assert b"me:***@127.0.0.1" in path.read_bytes()


def test_a_link_that_does_not_come_is_status_1(tmp_path: Path) -> None:
    """A replay waits for its link as long as told; then it says that nobody is there."""
    write(tmp_path / "r", [Recorded(b"a", 0, 0)])
    done = invoke("replay", tmp_path / "r", f"tcp://127.0.0.1:{free_port()}", "--wait", "0.1")
    assert done.exit_code == 1
    assert done.stdout == "sent 0, left out 0, not sent 0, damaged 0\n"
    assert "is down" in done.stderr or "not up" in done.stderr


async def test_a_signal_ends_a_replay(tmp_path: Path) -> None:
    """The first signal ends a replay; what was sent is told, and the status is 1, for not all was."""
    path, target = tmp_path / "r", tmp_path / "lines"
    write(path, [Recorded(b"a", 0, 0), Recorded(b"b", 0, 10**12)])
    with running("replay", str(path), f"file://{target}") as process:
        async with asyncio.timeout(LIMIT):
            while not await asyncio.to_thread(size, target):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = await until(process)
    assert (process.returncode, first(out)) == (1, "sent 1, left out 0, not sent 0, damaged 0")
    assert "stopped before the end" in err
