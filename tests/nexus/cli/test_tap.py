"""Laws about `nexus tap`: every item is a line, whatever is in it, and nothing is passed over in silence."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner
from command import Command
from hypothesis import given
from hypothesis import strategies as st
from real import free_port

from nexus.adapters import open_sender
from nexus.adapters._base import Sender
from nexus.cli import main
from nexus.cli._live import Meter, as_json, as_text, by_reason, duration, shortened, size_of

COLUMNS = re.compile(
    r"\d\d:\d\d:\d\d\.\d{3}  (?P<where>\S+) +(?P<size>[\d.]+ k?B) +"
    r"(?P<rate>[\d,]+)/s +[\d.e+]+ k?B/s  (?P<data>.*)"
)


@contextlib.asynccontextmanager
async def tapped(*options: str, pack: str = "json") -> AsyncIterator[tuple[Command, Sender[Any]]]:
    """Tap a TCP port that listens, and give what sends to it."""
    port = free_port()
    sender = open_sender(f"tcp://127.0.0.1:{port}?retry_cap=0.05", pack=pack)
    async with Command("tap", f"tcp://127.0.0.1:{port}?listen=1", *options) as tap, sender:
        await sender.connected(20)
        yield tap, sender


async def test_each_item_is_a_line_of_columns() -> None:
    """A line has the time, where it is from, the size, the rates and the data; the summary counts them."""
    async with tapped("--count", "2") as (tap, sender):
        await sender.send({"t": 21.5})
        await sender.send("x" * 1000)
        status, out, err = await tap.end()
    first, second = (COLUMNS.fullmatch(line) for line in out.splitlines())
    assert first is not None
    assert second is not None
    assert (first["data"], first["size"]) == ('{"t":21.5}', "10 B")
    assert first["where"].startswith("127.0.0.1:")
    assert second["data"].endswith("xxx...")
    assert (status, len(out.splitlines()[1])) == (0, 200)
    assert "received 2, bad 0, dropped 0" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_a_summary(how: signal.Signals) -> None:
    """SIGINT and SIGTERM end it with status 0; what came is counted."""
    async with tapped() as (tap, sender):
        await sender.deliver(1)
        await tap.line()
        tap.process.send_signal(how)
        status, _, err = await tap.end()
    assert (status, err.splitlines()[-1]) == (0, "received 1, bad 0, dropped 0")


async def test_json_lines_have_time_meta_and_data() -> None:
    """With --json each item is an object of its own, and bytes are base64."""
    async with tapped("--json", "--count", "1", "--pack", "bytes", pack="bytes") as (tap, sender):
        await sender.send(b"\x00\xff")
        _, out, _ = await tap.end()
    found = json.loads(out)
    assert found.pop("time") > 1.7e9
    assert found.pop("meta")["peer"].startswith("127.0.0.1:")
    assert found == {"size": 2, "data": {"base64": "AP8="}}


@pytest.mark.parametrize("as_json", [False, True])
async def test_bad_frames_are_shown_as_such(as_json: bool) -> None:
    """A frame that cannot be unpacked is a line that says so and why, and is in the summary."""
    options = ["--json"] if as_json else []
    async with tapped("--count", "1", *options, pack="bytes") as (tap, sender):
        await sender.send(b"\x1b[31m{")
        await sender.send(b"{")
        await sender.send(b"5")
        _, out, err = await tap.end()
    lines = out.splitlines()
    assert len(lines) == 3
    assert "received 1, bad 2 (unpack 2)" in err
    assert "\x1b" not in out
    if as_json:
        assert json.loads(lines[0])["bad"].startswith("not JSON")
        assert json.loads(lines[0])["payload"] == {"base64": "G1szMW17"}
    else:
        assert "BAD (2 so far)" in lines[1]


async def test_a_filter_chooses_what_is_shown() -> None:
    """Only what the expression takes is shown; what it does not fit is left out, and said."""
    async with tapped("--count", "1", "--filter", "t > 80 and startswith(meta.peer, '127')") as (tap, sender):
        for data in ({"t": 1}, {"x\x1b": 1}, 7, {"t": 81}):
            await sender.send(data)
        status, out, err = await tap.end()
    assert (status, len(out.splitlines())) == (0, 1)
    assert "received 4, bad 0, dropped 0, filtered out 1, not fit for the filter 2" in err
    assert "there is no field 't'; the fields are: x\\x1b" in err


async def test_links_are_told() -> None:
    """That the link comes, goes, and comes back is said on the standard error, once each."""
    port = free_port()
    sender = open_sender(f"tcp://127.0.0.1:{port}?listen=1")
    async with sender, Command("tap", f"tcp://127.0.0.1:{port}") as tap:
        await tap.says(": up")
        await sender.stop()
        await tap.says(": down")
        await sender.start()
        await tap.says(": up", times=2)
        _, out, err = await tap.interrupt()
    assert out == ""
    assert len(err.splitlines()) <= 5


def vectors() -> list[str]:
    """Make 200 texts that would steer a terminal or break a line."""
    signs = [
        chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, 0x2028, 0x2029, 0xFEFF, 0xE0041)
    ]
    signs += [chr(code) for code in (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))]
    shapes = [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0=\x07",
        "\x1bP+q\x1b\\",
        "\r\nfake",
        "\x9b31m",
        "a\rb",
    ]
    texts = [f"{sign}[31m" for sign in signs] + shapes + [f"a{shape}b" for shape in shapes]
    return (texts + [f"{a}{b}" for a in shapes for b in signs])[:200]


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_no_item_steers_the_terminal(options: tuple[str, ...]) -> None:
    """200 texts with line ends, escape sequences, bidi and NUL: each is one line of printable characters."""
    async with tapped("--count", "202", *options) as (tap, sender):
        for text in vectors():
            await sender.send({text: text})
        await sender.send("\x1b[31m\r\n")
        await sender.send([None, "plain"])
        status, out, _ = await tap.end()
    lines = out.split("\n")[:-1]
    assert (status, len(lines), out.splitlines()) == (0, 202, lines)
    assert all(
        unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029" for line in lines for char in line
    )
    if options:
        assert all(line.isascii() for line in lines)
        assert [json.loads(line)["data"] for line in lines[:200]] == [{text: text} for text in vectors()]


CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    "arguments",
    [
        ("tap", "mqtt://user:{}@127.0.0.1:1", "--seconds", "0.3"),
        ("tap", "mqtt://127.0.0.1:1?user=a&password={}", "--seconds", "0.3"),
        ("tap", "mqtt://user:{}@127.0.0.1:1?odd=1"),
        ("tap", "mqtt://user:{}@127.0.0.1:x"),
        ("send", "mqtt://user:{}@127.0.0.1:1", "1", "--timeout", "0.3"),
        ("bridge", "mqtt://user:{}@127.0.0.1:1", "mqtt://user:{}@127.0.0.1:1", "--seconds", "0.3"),
    ],
)
def test_secrets_are_never_said(arguments: tuple[str, ...]) -> None:
    """A password of a URL stands in no line, log or error, whatever the log level."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "nexus.cli",
            *(each.format(CANARY) for each in arguments),
            "--log-level",
            "debug",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["tap", "odd://x"], 1, "Error: scheme 'odd' is not known"),
        (["tap", "mem://x?odd=1"], 1, "odd"),
        (["tap", "tcp://127.0.0.1:1?retry=never"], 1, "failed"),
        (["tap", "file:///no/such/file?replay=1"], 1, "Error: "),
        (["tap"], 2, "Missing argument 'URL'"),
        (["tap", "mem://x", "--filter", "a.__class__"], 2, "begin with __"),
        (["tap", "mem://x", "--pack", "odd"], 2, "'odd' is not one of"),
        (["tap", "mem://x", "--seconds", "0"], 2, "--seconds"),
    ],
)
def test_what_is_wrong_is_one_clear_line(arguments: list[str], status: int, words: str) -> None:
    """A wrong URL has the exit status 1, a wrong usage 2, and no traceback."""
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, "Traceback" in done.output) == (status, False)
    assert words in done.output


async def test_it_ends_by_itself_in_time() -> None:
    """With --seconds it ends after so long, with status 0."""
    async with Command("tap", "mem://x", "--seconds", "0.2") as tap:
        status, out, err = await tap.end()
    assert (status, out) == (0, "")
    assert "received 0" in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_on_a_terminal_a_status_line_stays_below() -> None:
    """On a terminal the last line says how it goes, never wider than the terminal, and is gone at the end."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 60))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "nexus.cli", "tap", "mem://x", "--seconds", "0.8"],
        stdout=slave,
        stderr=slave,
        env=environment,
    ) as tap:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):
            while data := os.read(master, 65536):
                shown += data
        os.close(master)
    assert tap.returncode == 0
    lines = shown.decode().replace("\r\n", "\n").split("\r\x1b[K")
    assert any("0/s  0 B/s  received 0" in line for line in lines)
    assert all(len(part) <= 60 for line in lines for part in line.split("\n"))
    assert lines[-1] == "received 0, bad 0, dropped 0\n"


@given(
    st.text() | st.binary() | st.dictionaries(st.text(), st.floats() | st.binary() | st.text(), max_size=4)
)
def test_any_data_is_one_line(data: Any) -> None:
    """Whatever data is, as text and as JSON it is one line of what can be printed."""
    text = as_text(data)
    assert len(text.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)
    line = as_json({"data": data})
    assert line.isascii()
    assert line.isprintable()
    json.loads(line)


def test_what_json_has_not_is_shown_all_the_same() -> None:
    """Halves of surrogates, sets and numbers of any size are shown as Python writes them."""
    assert json.loads(as_json({"data": {1, 2}})) == {"data": "{1, 2}"}
    assert "2361183241434822606848" in as_json({"data": 2**71})
    assert as_json({"a": "\U0001f600\u202e"}) == '{"a":"\\ud83d\\ude00\\u202e"}'


def test_words_for_numbers() -> None:
    """Sizes, times and counts by reason are written in three digits with their units."""
    assert [size_of(n) for n in (0, 999, 1500, 2.5e6, 3e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3,000.0 GB",
    ]
    assert [duration(t) for t in (1e-5, 0.0123, 12.34)] == ["10 us", "12.3 ms", "12.34 s"]
    assert (by_reason({}), by_reason({"a": 1, "b\n": 2})) == ("0", "3 (a 1, b\\x0a 2)")
    assert [shortened("温度" * 10, 9), shortened("abc", 3)] == ["温...", "abc"]


def test_the_meter_counts_the_last_second() -> None:
    """Rates are what came within the last second."""
    now = 0.0
    meter = Meter(lambda: now)
    meter.add(1, 10)
    meter.add(2, 20)
    assert meter.rates() == (3, 30)
    now = 0.9
    meter.add(1, 5)
    assert meter.rates() == (4, 35)
    now = 1.2
    assert meter.rates() == (1, 5)
