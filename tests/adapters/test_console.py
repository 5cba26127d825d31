"""The laws of the console: nothing blocks, nothing spins, and no data steers a terminal."""

# ruff: noqa: ASYNC220, ASYNC230 - the files here are small, the process is waited for in a thread
import asyncio
import io
import os
import pty
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters import open_receiver, open_sender
from nexus.adapters._console_text import visible
from nexus.adapters.console import ConsoleConfig, ConsoleReceiver, ConsoleSender
from nexus.adapters.packing import bytes_packer, text_packer, text_unpacker
from nexus.errors import ConfigError, LinkDown, OpenError


def sender(stream: Any, packer: Any = None, **options: Any) -> ConsoleSender[Any]:
    return ConsoleSender(ConsoleConfig(**options), packer, stream=stream)


def receiver(stream: Any, unpacker: Any = text_unpacker, **options: Any) -> ConsoleReceiver[Any]:
    return ConsoleReceiver(ConsoleConfig(**options), unpacker, stream=stream)


async def flood(target: ConsoleSender[Any]) -> None:
    while True:
        await target.send("x" * 1000)


def vectors() -> list[str]:
    """List 200 texts that would steer a terminal or forge a line."""
    controls = [chr(code) for code in (*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0))]
    bidi = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
    others = ["\u2028", "\u2029", "\ufeff", "\u200b", "\xad", "\U000e0041", "\u180e"]
    ansi = [f"\x1b[{code}" for code in ("2J", "31m", "6n", "?1049h", "H", "1;1H", "s", "5i")]
    osc = [
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0gLXJm\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x1bP1$r\x1b\\",
        "\x9b31m",
    ]
    forged = ["ok\r\nadmin:\t1", "a\nb", "a\rb", "a\x0bb", "a\x0cb", "a\x85b", "x\x08\x08y", "\x00"]
    found = controls + bidi + others + ansi + osc + forged
    return list(dict.fromkeys(found + [f"<{each}>" for each in found]))[:200]


async def test_nothing_steers_a_terminal() -> None:
    """Of 200 vectors, in the data and in the topic, none leaves a control character in its one line."""
    assert len(set(vectors())) == 200
    out = io.StringIO()
    async with sender(out, text_packer) as target:
        for text in vectors():
            await target.send(text, topic=text)
    lines = out.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 200
    for line in lines:
        head, _, rest = line.partition(":\t")
        assert not [
            each
            for each in head + rest
            if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") and each != "\t"
        ]


async def test_raw_lets_everything_pass() -> None:
    """With ``raw`` the frames are written as they are."""
    out = io.BytesIO()
    async with sender(out, bytes_packer, raw=True) as target:
        await target.send(b"\x1b[1m\xff", topic="t")
    assert out.getvalue() in (b"t:\t\x1b[1m\xff\n",)


def test_readable_text_stays_as_it_is() -> None:
    """Letters of any script, emoji, tabs and blanks are shown; bytes that are no UTF-8 are escaped."""
    for text in ("plain", "Größe\t1", "温度", "🌡", 'q"\\n"'):
        assert visible(text) == visible(text.encode()) == text
    assert visible(b"\xff\xfe") == "\\xff\\xfe"


async def test_a_blocked_pipe_stalls_nothing() -> None:
    """While nobody reads, the loop goes on, `send` waits, and the stop keeps its bound and counts."""
    read_end, write_end = os.pipe()
    try:
        target = sender(write_end, maxsize=100, flush_timeout=0.1)
        await target.start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(target), 0.3)
        assert os.get_blocking(write_end)
        begun = time.monotonic()
        await target.stop()
        assert time.monotonic() - begun < 2
        assert sum(target.counts.dropped.values()) > 0
        received = os.read(read_end, 2**20)
        assert received.count(b"\n") == target.counts.items
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_a_line_that_was_torn_is_begun_anew() -> None:
    """After a stop within a line, the next start writes on a line of its own."""
    read_end, write_end = os.pipe()
    try:
        target = sender(write_end, flush_timeout=0.05)
        for number in range(200):
            await target.send(f"{number:05}" * 200)
        await target.stop()
        text = os.read(read_end, 2**20)
        async with target:
            await target.send("last")
        text += os.read(read_end, 2**20)
        lines = text.decode().splitlines()
        assert lines[-1] == '"last"'
        assert sum(line.endswith('"') and line.startswith('"') for line in lines) == target.counts.items
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_a_broken_pipe_takes_the_link_down() -> None:
    """When the reader is gone, the link says so, and what was not written is kept."""
    read_end, write_end = os.pipe()
    try:
        async with sender(write_end, flush_timeout=0.01, retry_cap=0.01) as target:
            await target.deliver(1)
            os.close(read_end)
            await target.send(2)
            async with asyncio.timeout(5):
                while target.link.state != "down":  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            assert "Broken pipe" in (target.link.error or "")
            assert target.counts.waiting == 1
    finally:
        os.close(write_end)


@pytest.mark.parametrize("retry", ["never", "once"])
async def test_a_broken_pipe_ends_what_does_not_retry(retry: Any) -> None:
    """Without retries, sending fails instead of waiting for ever."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    target = sender(write_end, retry=retry, retry_cap=0.01)
    await target.start()
    with pytest.raises(LinkDown):
        await target.connected(5)
    with pytest.raises(LinkDown):
        await target.send(1)
    await target.stop()
    os.close(write_end)


async def test_a_pipe_is_read_to_its_end() -> None:
    """Each line comes when it is there, the last without its end too, and then receiving ends."""
    read_end, write_end = os.pipe()
    async with receiver(read_end) as source:
        os.write(write_end, b"one\ntw")
        assert (await source.receive()) == ("one", {"line": 1})
        os.write(write_end, b"o\nthree")
        assert (await source.receive())[0] == "two"
        os.close(write_end)
        assert [data async for data, _ in source] == ["three"]
    os.close(read_end)


async def test_waiting_for_input_costs_nothing() -> None:
    """Neither a silent pipe nor one at its end is looked at again and again."""
    read_end, write_end = os.pipe()
    async with receiver(read_end) as source:
        waiting = asyncio.ensure_future(source.receive())
        await asyncio.sleep(0.02)
        before = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - before < 0.1
        os.write(write_end, b"x\n")
        assert (await waiting)[0] == "x"
        os.close(write_end)
        assert [each async for each in source] == []
    os.close(read_end)


@pytest.mark.parametrize("kind", ["file", "memory", "null"])
async def test_files_are_read_and_written(tmp_path: Path, kind: str) -> None:
    """What the event loop cannot wait for is read and written all the same."""
    path = tmp_path / "lines.txt"
    path.touch()
    if kind == "null":
        with open(os.devnull, "r+b", buffering=0) as null:
            async with sender(null) as target, receiver(null) as source:
                await target.deliver(1)
                assert [each async for each in source] == []
        return
    out: Any = io.StringIO() if kind == "memory" else path.open("w")
    async with sender(out, text_packer) as target:
        for number in range(3000):
            await target.send(f"line {number}")
    if kind == "memory":
        out.seek(0)
    back: Any = out if kind == "memory" else path.open()
    async with receiver(back) as source:
        assert [data async for data, _ in source] == [f"line {number}" for number in range(3000)]
    out.close()
    back.close()


async def test_a_terminal_is_read_and_written() -> None:
    """Lines go through a terminal both ways; its hang-up is the end."""
    master, slave = pty.openpty()
    async with receiver(slave) as source, sender(slave, text_packer) as target:
        os.write(master, b"typed\n")
        assert (await source.receive())[0] == "typed"
        await target.deliver("shown", topic="t")
        shown = b""
        while b"shown" not in shown:
            shown += os.read(master, 1000)
        assert shown.endswith(b"t:\tshown\r\n")
        os.write(master, b"\x04")
        assert [each async for each in source] == []
    os.close(master)
    os.close(slave)


async def test_a_program_ends_although_it_reads_its_input() -> None:
    """A receiver that waits for input that never comes does not hold up the end of the process."""
    program = """
import asyncio
from nexus.adapters import open_receiver, open_sender
async def main():
    async with open_receiver("console:") as source, open_sender("console:") as target:
        data, meta = await source.receive()
        await target.send(data, topic="got")
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"n": 1}\n')
    process.stdin.flush()
    assert await asyncio.to_thread(process.wait, 20) == 0
    assert process.stdout.read() == b'got:\t{"n":1}\n'
    process.stdin.close()
    process.stdout.close()


async def test_a_closed_stream_is_told(tmp_path: Path) -> None:
    """What is closed cannot be opened; wrong options and places are errors too."""
    closed = (tmp_path / "x").open("w")
    closed.close()
    with pytest.raises(OpenError, match="closed"):
        await sender(closed).start()
    with pytest.raises(OpenError):
        await receiver(987654).start()
    with pytest.raises(ConfigError, match="topic"):
        await sender(io.StringIO()).send(1, topic=2)
    for url in ("console://host", "console:path", "console:?colour=red"):
        with pytest.raises(ConfigError):
            open_sender(url)
    assert open_receiver("console:?pack=text&maxsize=3").counts.items == 0


async def test_a_line_that_is_too_long_costs_itself_only() -> None:
    """It is skipped and counted, and its neighbours come."""
    async with receiver(io.BytesIO(b"a\n" + b"x" * 10_000_000 + b"\nb\n"), max_size=1000) as source:
        assert [data async for data, _ in source] == ["a", "b"]
        assert source.counts.bad == {"size": 1}
