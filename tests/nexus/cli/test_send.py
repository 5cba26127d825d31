"""Laws about `nexus send`: it ends well only when everything was delivered, and says what was not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from command import Command
from mosquitto import Mosquitto
from real import free_port

from nexus.adapters import open_receiver
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.cli import main
from nexus.cli._send import Sending, arguments
from nexus.testing import virtual_time


def send(*arguments: str, data: bytes | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["send", *arguments], input=data)


async def sent(*options: str, data: bytes | None = None, pack: str = "json", count: int = 1) -> list[Any]:
    """Send to a TCP port with a process of its own; return what arrived."""
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    async with open_receiver(f"{url}?listen=1", pack=pack) as receiver, asyncio.timeout(30):
        async with Command("send", url, *options) as command:
            status, out, err = await command.end(data)
        assert (status, out) == (0, ""), err
        assert f"sent {count:,} of {count:,} to {url}" in err
        return [(await receiver.receive())[0] for _ in range(count)]


async def test_arguments_arrive_in_their_order() -> None:
    """Each argument is an item of JSON."""
    assert await sent('{"t": 81.5}', "[1, null]", '"x"', count=3) == [{"t": 81.5}, [1, None], "x"]


async def test_text_and_bytes_are_sent_as_they_stand() -> None:
    """With --pack text or bytes an argument is no JSON."""
    assert await sent("{", "--pack", "text", pack="text") == ["{"]
    assert await sent("é", "--pack", "bytes", pack="bytes") == ["é".encode()]


async def test_lines_of_the_input_arrive() -> None:
    """Without arguments each line of the standard input is an item, also the last without its end."""
    lines = b"".join(b"%d\n" % number for number in range(1000))
    assert await sent(data=lines + b"1000", count=1001) == list(range(1001))


async def test_lines_of_a_file_arrive(tmp_path: Path) -> None:
    """With --file the lines of a file are the items."""
    (tmp_path / "lines").write_text('{"a": 1}\n{"a": 2}\n')
    assert await sent("--file", str(tmp_path / "lines"), count=2) == [{"a": 1}, {"a": 2}]


async def test_a_topic_is_where_it_goes() -> None:
    """With --topic the items go there, over a real broker."""
    async with Mosquitto() as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with open_receiver(f"{url}/oven/#") as receiver:
            await receiver.connected(20)
            async with Command("send", f"{url}?qos=1", "--topic", "oven/2", "7") as command:
                status, _, err = await command.end()
            data, meta = await receiver.receive()
    assert (status, data, meta["topic"]) == (0, 7, "oven/2"), err


def test_nobody_there_is_said() -> None:
    """When nothing listens it ends in time, with status 1, and says why for each item."""
    done = send(f"tcp://127.0.0.1:{free_port()}", "1", "2", "--timeout", "0.3")
    assert done.exit_code == 1
    assert "argument 1 was not sent: not delivered in 0.3 s, the link is " in done.output
    assert "ConnectionRefusedError" in done.output
    assert "sent 0 of 2" in done.output


def test_an_endless_input_is_given_up_when_nobody_is_there() -> None:
    """Many lines and no link: it ends after the time of the first, and counts what it had read."""
    done = send(f"tcp://127.0.0.1:{free_port()}", "--timeout", "0.3", data=b"1\n" * 100_000)
    assert done.exit_code == 1
    assert len(done.output.splitlines()) == 22
    assert "what else was not sent is only counted" in done.output


def test_a_bad_line_costs_itself(tmp_path: Path) -> None:
    """A line that is no data is said and not sent; the others are; the status is 1."""
    target = tmp_path / "out.jsonl"
    done = send(f"file://{target}", data=b'1\n\x1b[31m{\n"x"\n')
    assert done.exit_code == 1
    assert "line 2 was not sent: cannot unpack" in done.output
    assert "\x1b" not in done.output
    assert target.read_text() == '1\n"x"\n'


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    """A line of more than a mebibyte is counted as not sent, and does not fill the memory."""
    done = send(f"file://{tmp_path}/out.jsonl", data=b'"' + b"x" * 2**21 + b'"\n5\n')
    assert done.exit_code == 1
    assert "1 lines was not sent: of a wrong size" in done.output or "sent 1 of 2" in done.output


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["tcp://127.0.0.1:1", "1", "{"], 2, "argument 2: cannot unpack"),
        (["tcp://127.0.0.1:1", "{"], 2, "--pack text sends text"),
        (["tcp://127.0.0.1:1", "1", "--file", "/dev/null"], 2, "exclude each other"),
        (["tcp://127.0.0.1:1", "--file", "/no/such"], 2, "/no/such"),
        (["odd://x", "1"], 1, "Error: scheme 'odd' is not known"),
        (["file:///dev/null/x", "1", "--timeout", "1"], 1, "/dev/null"),
        (["mem://x", "1", "--topic", "a"], 1, "topic"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_one_clear_line(arguments: list[str], status: int, words: str) -> None:
    """A wrong URL has the exit status 1, a wrong usage 2, and no traceback; nothing is sent then."""
    done = send(*arguments)
    assert (done.exit_code, "Traceback" in done.output) == (status, False), done.output
    assert words in done.output


async def test_a_signal_ends_the_reading() -> None:
    """SIGINT ends the reading of the input; what was read is delivered, and the status says so."""
    port = free_port()
    async with (
        open_receiver(f"tcp://127.0.0.1:{port}?listen=1") as receiver,
        Command("send", f"tcp://127.0.0.1:{port}") as command,
    ):
        assert command.process.stdin is not None
        command.process.stdin.write(b"1\n")
        async with asyncio.timeout(30):
            assert (await receiver.receive())[0] == 1
        status, _, err = await command.interrupt()
    assert (status, err.splitlines()[-1].split(" to ")[0]) == (0, "sent 1 of 1")


@virtual_time
async def test_a_rate_spaces_the_items() -> None:
    """With a rate of ten a second, eleven items take a second."""
    sender = MemorySender[Any](MemoryConfig(topic="rate"))
    sending = Sending(sender, {}, priority=0, rate=10.0, timeout=5.0)
    async with MemoryReceiver[Any](MemoryConfig(topic="rate")), sender, asyncio.TaskGroup() as group:
        begin = asyncio.get_running_loop().time()
        await sending.read(arguments(list(range(11))), group)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(1.0)
    assert (sending.sent, sending.total) == (11, 11)
