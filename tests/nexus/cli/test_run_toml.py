"""Laws about `nexus run nexus.toml`: a file makes a nexus, and every mistake in it is told with its line."""

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from real import free_port

from nexus.adapters import open_sender
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.cli import main
from nexus.cli._configured import configured
from nexus.cli._toml_lines import lines_of
from nexus.errors import ConfigError
from nexus.testing import virtual_time

LIMIT = 20.0
"""Seconds that a run may take."""

GATEWAY = """\
[nexus]
name = "gateway"
grace = 3.0

[[sources]]
name = "oven"
url = "tcp://127.0.0.1:{port}?listen=true"

[[rules]]
where = "temperature > 80"
type = "alarm"
priority = "-10 if temperature > 90 else -5"

[[rules]]
type = "reading"
payload = "temperature"
ttl = 60

[[sinks]]
name = "log"
url = "file://{folder}/log"
confirm = true

[[sinks]]
name = "screen"
url = "console:"
types = ["alarm"]
topic = "='alarms/' + meta.type"
payload = "{{'hot': temperature, 'priority': meta.priority}}"
policy = "drop_oldest"
"""


@contextmanager
def running(folder: Path, content: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a file in another process, and see that it is gone at the end."""
    (folder / "nexus.toml").write_text(content)
    command = (sys.executable, "-m", "nexus.cli", "run", "nexus.toml", *options)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_tcp_goes_to_a_file_and_the_console(tmp_path: Path, how: signal.Signals) -> None:
    """Readings and alarms go where the file says; a signal ends it with a report and status 0."""
    port = free_port()
    content = GATEWAY.format(port=port, folder=tmp_path)
    with running(tmp_path, content) as process:
        async with open_sender(f"tcp://127.0.0.1:{port}") as sender:
            for temperature in (20, 85, 95, "?"):
                await sender.send({"temperature": temperature})
            await sender.send({"temperature": 99})
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(3)]
        process.send_signal(how)
        out, err = await asyncio.to_thread(process.communicate, timeout=LIMIT)
    assert process.returncode == 0
    assert sorted(lines) == [
        'alarms/alarm:\t{"hot":85,"priority":-5}\n',
        'alarms/alarm:\t{"hot":95,"priority":-10}\n',
        'alarms/alarm:\t{"hot":99,"priority":-10}\n',
    ]
    logged = sorted((tmp_path / "log").read_text().splitlines())
    assert logged == ["20", '{"temperature":85}', '{"temperature":95}', '{"temperature":99}']
    assert out.startswith("stopped cleanly")
    assert "oven: 1 put aside (convert)" in out
    assert "oven put an item aside" in err


REPLAYED = """\
[[sources]]
name = "lines"
url = "file://{folder}/in?replay=true"
[[rules]]
type = "line"
[[sinks]]
name = "out"
url = "file://{folder}/out"
"""


def test_it_ends_with_its_sources(tmp_path: Path) -> None:
    """When all sources have ended, what they gave is handled, and it stops with status 0."""
    (tmp_path / "in").write_text("".join(f"{number}\n" for number in range(3000)))
    with running(tmp_path, REPLAYED.format(folder=tmp_path), "--json") as process:
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["stats"]["types"]["line"]["handled"] == 3000
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(3000)]


def test_grace_that_cuts_is_status_75(tmp_path: Path) -> None:
    """When a sink is too slow for the grace period, the status is 75 and the report says what is left."""
    (tmp_path / "in").write_text("".join(f"{number}\n" for number in range(100)))
    content = REPLAYED.format(folder=tmp_path).replace("replay=true", "start=beginning") + "rate = 4\n"
    with running(tmp_path, content, "--grace", "0.1") as process:
        for _ in range(1000):
            if (tmp_path / "out").exists() and (tmp_path / "out").read_text():
                break
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 75
    assert "stopped at the end of the grace period" in out


MEMORY = """\
[[sources]]
name = "in"
url = "mem://{name}-in"
[[rules]]
topic = "{name}-in"
type = "fast"
where = "fast"
priority = -1
[[rules]]
source = "in"
type = "=kind"
[[sinks]]
name = "out"
url = "mem://{name}-out"
types = ["fast", "*"]
{more}
"""


async def through(tmp_path: Path, more: str, items: list[object]) -> list[tuple[float, object]]:
    """Send items through a nexus, and note when each comes out of it."""
    name = tmp_path.name
    (tmp_path / "nexus.toml").write_text(MEMORY.format(name=name, more=more))
    made = configured(str(tmp_path / "nexus.toml"))
    receiver = MemoryReceiver[object](MemoryConfig(topic=f"{name}-out"))
    async with receiver, made.nexus, MemorySender(MemoryConfig(topic=f"{name}-in")) as sender:
        begin = asyncio.get_running_loop().time()
        for item in items:
            await sender.send(item)
        found = []
        for _ in items:
            data, _ = await receiver.receive()
            found.append((asyncio.get_running_loop().time() - begin, data))
    return found


@virtual_time
async def test_types_may_be_said_by_expressions(tmp_path: Path) -> None:
    """A type that an expression gives finds the sink of all others."""
    items: list[object] = [{"kind": "a", "n": 1}, {"fast": True, "kind": "b", "n": 2}]
    found = await through(tmp_path, 'payload = "[meta.type, n]"', items)
    assert sorted(str(data) for _, data in found) == ["['a', 1]", "['fast', 2]"]


@virtual_time
async def test_a_rate_is_kept(tmp_path: Path) -> None:
    """A sink with a rate sends no more often than that."""
    found = await through(tmp_path, "rate = 4", [{"kind": "a", "n": number} for number in range(5)])
    assert [when for when, _ in found] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0], abs=0.01)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_check_draws_and_runs_nothing(tmp_path: Path) -> None:
    """--check prints the picture that `nexus graph` prints."""
    (tmp_path / "nexus.toml").write_text(GATEWAY.format(port=1, folder=tmp_path))
    file = str(tmp_path / "nexus.toml")
    checked, drawn = invoke("run", file, "--check"), invoke("graph", file)
    assert (checked.exit_code, checked.output) == (0, drawn.output)
    assert '  subgraph nexus0["gateway"]' in drawn.output.splitlines()
    assert '    queue0 -->|"alarm"| boundary1' in drawn.output.splitlines()


def test_check_is_for_files() -> None:
    """--check of a module is refused."""
    done = invoke("run", "app:nexus", "--check")
    assert done.exit_code == 2
    assert "--check is for a file" in done.stderr


GOOD = """\
[nexus]
name = "n"
[[sources]]
name = "a"
url = "tcp://localhost:1"
options = {}
[[rules]]
source = "a"
type = "t"
priority = 0
[[sinks]]
name = "b"
url = "console:"
types = ["t"]
"""

WRONG = [
    ('name = "n"', 'nmae = "n"', "2: nexus.nmae: is no key; did you mean name?"),
    ('name = "n"', "name = 5", "2: nexus.name: found 5, allowed: a text that is not empty"),
    ('name = "n"', "maxsize = 0", "2: nexus.maxsize: found 0, allowed: an integer from 1"),
    ('name = "n"', "maxsize = true", "2: nexus.maxsize: found True, allowed: an integer from 1"),
    ('name = "n"', "grace = -1", "2: nexus.grace: found -1, allowed: a number from 0"),
    ('name = "n"', "ageing = 0", "2: nexus.ageing: found 0, allowed: a number above 0"),
    ("[nexus]", "[nexsu]", "1: nexsu: is no key; did you mean nexus?"),
    ('name = "a"\n', "", "3: sources[0]: name is missing"),
    ('name = "a"', "name =", "4: not TOML: Invalid value"),
    ('name = "b"', 'name = "a"', "12: sinks[0].name: found 'a', which is the name of sources[0] too"),
    (
        "tcp://localhost:1",
        "tpc://localhost:1",
        "5: sources[0].url: scheme 'tpc' is not known; did you mean 'tcp'?",
    ),
    ("tcp://localhost:1", "tcp://localhost:1?lisen=1", "5: sources[0].url: TcpConfig.lisen: is no option"),
    ("tcp://localhost:1", "localhost", "5: sources[0].url: URL 'localhost': it does not begin with a scheme"),
    ("options = {}", "options = {maxsize = 0}", "6: sources[0].options.maxsize: TcpConfig.maxsize: found 0"),
    (
        "options = {}",
        'pack = "xml"',
        "6: sources[0].pack: found 'xml', allowed: 'json', 'text', 'bytes', 'csv' or",
    ),
    ('source = "a"', 'source = "aa"', "8: rules[0].source: there is no source 'aa'; did you mean 'a'?"),
    ('source = "a"', 'where = "x >"', "8: rules[0].where: expression 'x >'"),
    (
        'source = "a"',
        'where = "open(x)"',
        "8: rules[0].where: expression 'open(x)', column 1: found the function",
    ),
    (
        "priority = 0",
        "priority = 1.5",
        "10: rules[0].priority: found 1.5, allowed: an integer, or an expression",
    ),
    ("priority = 0", "ttl = 0", "10: rules[0].ttl: found 0, allowed: a number above 0"),
    ("priority = 0", 'sources = ["a"]', "10: rules[0].sources: found with source, allowed: one of them"),
    ('type = "t"\n', "", "7: rules[0]: type is missing"),
    ('types = ["t"]', 'types = ["tt"]', "14: sinks[0].types: no rule makes the type 'tt'; did you mean 't'?"),
    ('types = ["t"]', 'types = "t"', "14: sinks[0].types: found 't', allowed: a list of types"),
    (
        'types = ["t"]',
        'policy = "drop"',
        "14: sinks[0].policy: found 'drop', allowed: 'block', 'drop_oldest', ",
    ),
    ('types = ["t"]', "policy = {u = 'block'}", "14: sinks[0].policy.u: the sink does not take the type 'u'"),
    ('types = ["t"]', "rate = 0", "14: sinks[0].rate: found 0, allowed: a number above 0"),
    ('types = ["t"]', 'confirm = "yes"', "14: sinks[0].confirm: found 'yes', allowed: true or false"),
    ('types = ["t"]', 'topic = "=1 +"', "14: sinks[0].topic: expression '1 +'"),
    (
        'types = ["t"]',
        'payload = "${NOT_SET}"',
        "14: sinks[0].payload: the environment has no variable NOT_SET",
    ),
    ('types = ["t"]', 'payload = "${}"', "14: sinks[0].payload: found '${}', allowed: ${NAME}, or $$"),
    ("console:", "console://host", "13: sinks[0].url: console://host: found a place, allowed: none"),
]


@pytest.mark.parametrize(("old", "new", "line"), WRONG)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    """The error is one line: the file, the line, the key, what was found and what is allowed."""
    file = tmp_path / "nexus.toml"
    file.write_text(GOOD.replace(old, new, 1))
    done = invoke("run", str(file))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{file}:{line}")
    assert done.stderr.count("\n") == 1


def test_the_good_file_is_good(tmp_path: Path) -> None:
    """The file that mistakes are put into has none."""
    (tmp_path / "nexus.toml").write_text(GOOD)
    assert invoke("run", str(tmp_path / "nexus.toml"), "--check").exit_code == 0


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A file with several mistakes is told all of them, in the order of its lines."""
    file = tmp_path / "nexus.toml"
    content = GOOD.replace('name = "n"', "grace = -1").replace("priority = 0", "ttl = 0")
    file.write_text(content.replace("console:", "consol:"))
    said = invoke("graph", str(file)).stderr.splitlines()
    assert [each.removeprefix(f"{file}:").partition(":")[0] for each in said] == ["2", "10", "13"]


@pytest.mark.parametrize("content", ["", "[nexus]\n"])
def test_an_empty_file_says_what_is_missing(tmp_path: Path, content: str) -> None:
    """Without sources, rules or sinks each of them is named."""
    file = tmp_path / "nexus.toml"
    file.write_text(content)
    said = invoke("run", str(file)).stderr.splitlines()
    assert said == [f"{file}:1: there is no [[{name}]]" for name in ("sources", "rules", "sinks")]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is an error that names it."""
    done = invoke("run", str(tmp_path / "nexus.toml"))
    assert (done.exit_code, done.stderr) == (
        2,
        f"{tmp_path / 'nexus.toml'}: cannot be read: No such file or directory\n",
    )


def test_variables_are_filled_in(tmp_path: Path) -> None:
    """A password from the environment may hold what means something in a URL; $$ is a dollar sign."""
    file = tmp_path / "nexus.toml"
    content = GOOD.replace("tcp://localhost:1", "mqtt://me:${KEY}@${HOST}:1/a").replace('"n"', '"$${KEY}"')
    file.write_text(content)
    made = configured(str(file), {"KEY": "p@ss/word?", "HOST": "broker"})
    config = made.sources[0].receiver.config  # type: ignore[attr-defined]
    assert (config.password, config.host, config.user) == ("p@ss/word?", "broker", "me")
    assert made.nexus.name == "${KEY}"


@pytest.mark.parametrize(
    "line",
    [
        'url = "mqtt://${KEY}"',
        'url = "${KEY}"',
        'url = "tcp://h:1?${KEY}=1"',
        'url = "tcp://h:${KEY}"',
        'url = "tcp://h:1"\noptions = {port = "${KEY}"}',
        'url = "tcp://h:1"\npack = "${KEY}"',
    ],
)
def test_what_a_variable_holds_is_not_told(tmp_path: Path, line: str) -> None:
    """Whatever is wrong with a value from the environment, errors name the variable instead."""
    file = tmp_path / "nexus.toml"
    file.write_text(GOOD.replace('url = "tcp://localhost:1"\noptions = {}', line))
    with pytest.raises(ConfigError) as caught:
        configured(str(file), {"KEY": "hush hush/"})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


VALUES = [
    "1",
    "-1",
    "1.5",
    "nan",
    "inf",
    "true",
    '""',
    '"a"',
    '"="',
    '"=a"',
    '"${X}"',
    '"$"',
    "[]",
    "[1]",
    '["a"]',
    "[[]]",
    "{}",
    "{a=1}",
    "{a={}}",
    "1979-05-27",
    '["*"]',
    "[{}]",
    "9999999999999999999999",
    "1e400",
    '"\\u0000"',
    '"\\n"',
    '"console:"',
    '"mem://a?pack=json"',
    '{t="block"}',
    '{"*"="latest"}',
]
KEYS = [
    "name",
    "url",
    "types",
    "topic",
    "payload",
    "policy",
    "rate",
    "source",
    "sources",
    "ttl",
    "nexus",
    "rules",
    "options",
    "a.b",
    "options.host",
]


def spoil(rng: random.Random) -> str:
    """Put one to three mistakes into the good file."""
    lines = GOOD.splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        place = rng.randrange(len(lines[at]) + 1)
        match rng.randrange(5):
            case 0 | 1:
                lines[at] = f"{lines[at].partition('=')[0]} = {rng.choice(VALUES)}"
            case 2:
                lines[at] = ""
            case 3:
                lines.insert(at, f"{rng.choice(KEYS)} = {rng.choice(VALUES)}")
            case _:
                lines[at] = lines[at][:place] + rng.choice("\"'[]{}=#.\\$*") + lines[at][place:]
    return "\n".join(lines)


@pytest.mark.parametrize("rounds", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_mistake_is_told_in_one_form(tmp_path: Path, rounds: int) -> None:
    """Whatever is wrong with a file, each mistake is one line that begins with the file and the line."""
    file, rng = tmp_path / "nexus.toml", random.Random(rounds)
    for _ in range(rounds):
        file.write_text(spoil(rng))
        try:
            configured(str(file), {})
        except ConfigError as exc:
            told = str(exc).splitlines()
            assert all(re.match(rf"{re.escape(str(file))}:\d+: ", line) for line in told), file.read_text()


def test_lines_of_keys_are_found() -> None:
    """Strings, comments and nested values do not mislead the search for lines."""
    text = '# [x]\na = """\n[b]\n"""\n[b]\n"c d".e = [\n 1, # ]\n 2,\n]\n'
    text += "[[f]]\n[[f]]\ng = {h = 1}\n[f.i]\nj = '\"'\n"
    assert lines_of(text) == {
        ("a",): 2,
        ("b",): 5,
        ("b", "c d"): 6,
        ("b", "c d", "e"): 6,
        ("f", 0): 10,
        ("f", 1): 11,
        ("f", 1, "g"): 12,
        ("f", 1, "i"): 13,
        ("f", 1, "i", "j"): 14,
    }
