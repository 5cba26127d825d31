"""Laws of configs: every way in ends in the same checks, and errors say what is needed to put it right."""

import datetime
import enum
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

from nexus.adapters._config import Config, option, option_table
from nexus.adapters._url import Url
from nexus.errors import ConfigError, OpenError

CANARY = "c4n4ry"


class Restart(enum.Enum):
    """When to begin again."""

    NEVER = 0
    ONCE = 1
    ALWAYS = "for ever"


@attrs.frozen(kw_only=True)
class Will(Config):
    """What is said when we are gone."""

    topic: str = option(help="where it is said")
    qos: Literal[0, 1, 2] = option(0, help="quality of service")


@attrs.frozen(kw_only=True)
class OvenConfig(Config):
    """Options of every kind."""

    host: str = option("localhost", help="where the oven is")
    port: int = option(1883, low=0, high=65535, help="its port")
    qos: Literal[0, 1, 2] = option(0, help="quality of service")
    parity: Literal["N", "E", "O"] = option("N", help="parity")
    stop_bits: float = option(1.0, choices=(1, 1.5, 2), help="stop bits")
    retain: bool = option(False, help="keep the last one")
    delay: float = option(5.0, low=0.0, unit="s", help="between two tries")
    timeout: float | None = option(60.0, low=0.1, unit="s", help="until giving up")
    user: str | None = option(None, help="who we are")
    password: str | None = option(None, secret=True, help="what proves it")
    pin: int | None = option(None, low=1000, secret=True, help="a secret number")
    topics: tuple[str, ...] = option((), help="what to hear")
    rates: tuple[int, ...] = option((9600,), help="to be tried")
    terminator: bytes = option(b"\n", help="at the end of a line")
    restart: Restart = option(Restart.ALWAYS, help="when to begin again")
    headers: Mapping[str, str] = option(attrs.Factory(dict), help="sent with all")
    will: Will | None = option(None, help="what is said when we are gone")
    path: Path | None = option(None, help="a file")
    level: str = option("low", choices=("low", "high"), help="how hot")


@attrs.frozen(kw_only=True)
class Vault(Config):
    """A table that is secret as a whole."""

    will: Will | None = option(None, secret=True, help="what is said when we are gone")


@attrs.frozen(kw_only=True)
class Required(Config):
    """An option without default."""

    port: int = option(low=1, help="its port")


Seconds = NewType("Seconds", float)


@attrs.frozen(kw_only=True)
class Rarer(Config):
    """Annotations that are seldom needed."""

    wait: Seconds = option(Seconds(1.0), help="of a type of its own")
    level: Annotated[int, "dB"] = option(0, help="with a note", low=-9)
    size: tuple[int, float] = option((1, 1.0), help="a pair")
    steps: Sequence[int] = option((), help="like a tuple")
    port: int | str = option(0, help="a number, or else a name")
    zone: datetime.tzinfo = option(datetime.UTC, help="an object, only from Python")
    made: Callable[[], int] | None = option(None, help="a function, only from Python")
    extra: Any = option(None, help="anything")


def error_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Give the text of the ConfigError that a call raises."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


WRONG: list[tuple[str, object, str]] = [
    ("qos", 3, "found 3, allowed: 0, 1 or 2"),
    ("qos", True, "found True, allowed: 0, 1 or 2"),
    ("port", True, "found True, allowed: an integer, from 0 to 65535"),
    ("port", 1.0, "found 1.0, allowed: an integer, from 0 to 65535"),
    ("port", 65536, "found 65536, allowed: an integer, from 0 to 65535"),
    ("port", -1, "found -1, allowed: an integer, from 0 to 65535"),
    ("port", None, "found None, allowed: an integer, from 0 to 65535"),
    ("port", "1883", "found '1883', allowed: an integer, from 0 to 65535"),
    ("host", 5, "found 5, allowed: text (no NUL)"),
    ("host", "a\0b", "found 'a\\x00b', allowed: text (no NUL)"),
    ("host", b"a", "found b'a', allowed: text (no NUL)"),
    ("delay", True, "found True, allowed: a number, from 0 (s)"),
    ("delay", -0.5, "found -0.5, allowed: a number, from 0 (s)"),
    ("delay", float("nan"), "found nan, allowed: a number, from 0 (s)"),
    ("delay", 10**400, "found 1000"),
    ("timeout", 0, "found 0, allowed: a number or none, from 0.1 (s)"),
    ("retain", 1, "found 1, allowed: true or false"),
    ("parity", "X", "found 'X', allowed: 'N', 'E' or 'O'"),
    ("topics", ("a", 5), "found ('a', 5), allowed: a list, or text with commas, of: text"),
    ("restart", "sometimes", "found 'sometimes', allowed: 'never', 'once' or 'always'"),
    ("headers", ["a"], "found ['a'], allowed: a table"),
    ("will", {"topic": "t", "qos": 9}, "OvenConfig.will.qos: found 9, allowed: 0, 1 or 2"),
    ("will", {}, "OvenConfig.will.topic: is missing, allowed: text"),
    ("level", "middle", "found 'middle', allowed: 'low' or 'high'"),
    ("host", 5 * ["x" * 100], "..., allowed: text"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_wrong_value_is_named_with_what_was_found_and_allowed(name: str, value: object, says: str) -> None:
    """A wrong value of any kind is refused with its class, its name, itself in short, and what will do."""
    text = error_of(OvenConfig, **{name: value})
    assert text.startswith(f"OvenConfig.{name}")
    assert says in text
    assert len(text) < 300


TEXTS: list[tuple[str, str, object]] = [
    ("port", "1883", 1883),
    ("port", " 0x10 ", 16),
    ("port", "1e3", 1000),
    ("port", "1_000", 1000),
    ("qos", "2", 2),
    ("parity", "e", "E"),
    ("stop_bits", "1.5", 1.5),
    *(("retain", word, True) for word in ("true", "1", "yes", "on", "TRUE")),
    *(("retain", word, False) for word in ("false", "0", "no", "off", "Off")),
    ("delay", "1e3", 1000.0),
    ("timeout", "none", None),
    ("timeout", "", None),
    ("user", "none", "none"),
    ("user", "", ""),
    ("pin", "1234", 1234),
    ("topics", "a/#, b/+", ("a/#", "b/+")),
    ("topics", "", ()),
    ("rates", "9600,19200", (9600, 19200)),
    ("terminator", "\\r\\n", b"\r\n"),
    ("terminator", "\\x0a\\x00\\\\", b"\n\0\\"),
    ("terminator", "\n", b"\n"),
    ("terminator", "ü", "ü".encode()),
    ("restart", "always", Restart.ALWAYS),
    ("restart", "1", Restart.ONCE),
    ("restart", "for ever", Restart.ALWAYS),
    ("headers", "a=1, b=2", {"a": "1", "b": "2"}),
    ("headers", '{"a": "1"}', {"a": "1"}),
    ("will", "topic=gone,qos=1", Will(topic="gone", qos=1)),
    ("path", "/tmp/oven", Path("/tmp/oven")),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_text_stands_for_a_value(name: str, text: str, value: object) -> None:
    """What comes from outside may be text, and means the same from a mapping, the environment and a URL."""
    escaped = "".join(f"%{byte:02x}" for byte in text.encode())
    for config in (
        OvenConfig.from_mapping({name: text}),
        OvenConfig.from_env("OVEN_", {f"OVEN_{name.upper()}": text, "HOME": "/"}),
        OvenConfig.from_url(Url.parse(f"oven:?{name}={escaped}")),
        OvenConfig().with_options(**{name: text}),
    ):
        found = getattr(config, name)
        assert found == value
        assert type(found) is type(value)


WRONG_TEXTS = [
    *(("port", text) for text in ("", "x", "1.5", "1e999999999", "9" * 5000, "0x", "nan", "inf", "True")),
    *(("delay", text) for text in ("", "x", "nan", "1e-400x", "none")),
    *(("retain", text) for text in ("", "2", "maybe")),
    *(("terminator", text) for text in ("\\", "\\q", "\\x0", "\\xzz")),
    *(("headers", text) for text in ("a", "{", "[1]", '{"a": 1}')),
    *(("rates", text) for text in ("a", "1,a")),
    ("will", "topic"),
]


@pytest.mark.parametrize(("name", "text"), WRONG_TEXTS, ids=str)
def test_wrong_text_is_refused(name: str, text: str) -> None:
    """Text that means no value of the kind is refused, at once, however large the number it names."""
    assert error_of(OvenConfig.from_mapping, {name: text}).startswith(f"OvenConfig.{name}")


def test_rarer_annotations_are_checked_too() -> None:
    """Own types, notes, pairs, sequences, unions with text, objects and functions are taken and refused."""
    found = Rarer.from_mapping(
        {"wait": "2", "level": "-9", "size": "3, 4", "steps": "5,6", "port": "80", "extra": "x"}
    )
    assert found == Rarer(wait=Seconds(2.0), level=-9, size=(3, 4.0), steps=[5, 6], port=80, extra="x")
    assert (found.size, found.steps, type(found.size[1])) == ((3, 4.0), (5, 6), float)
    assert Rarer.from_mapping({"port": "http", "made": int}) == Rarer(port="http", made=int)
    assert (Rarer(port="80").port, Rarer(port=80).port) == ("80", 80)
    for name, wrong in {
        "wait": "x",
        "level": -10,
        "size": (1,),
        "steps": "a",
        "port": 1.5,
        "zone": "UTC",
        "made": "int",
    }.items():
        assert error_of(Rarer.from_mapping, {name: wrong}).startswith(f"Rarer.{name}: found ")


def test_annotation_that_cannot_be_checked_is_refused() -> None:
    """What would let anything in is told to the author of the config."""

    @attrs.frozen(kw_only=True)
    class Unchecked(Config):
        names: list[int] = option(attrs.Factory(list), help="not frozen")

    with pytest.raises(TypeError, match=r"cannot be checked against list\[int\]"):
        Unchecked()


@given(st.dictionaries(st.sampled_from([row.name for row in option_table(OvenConfig)]), st.text(max_size=9)))
def test_any_text_is_taken_or_refused(values: dict[str, str]) -> None:
    """No text does anything but give a config or a ConfigError."""
    try:
        config = OvenConfig.from_mapping(values)
    except ConfigError:
        return
    assert attrs.evolve(config) == config


@given(st.binary())
def test_escaped_bytes_come_back(value: bytes) -> None:
    """All bytes can be said in text."""
    text = "".join(f"\\x{byte:02x}" for byte in value)
    assert OvenConfig.from_mapping({"terminator": text}).terminator == value


# What went wrong with configs of this kind before.


def test_wrong_type_says_what_is_wrong() -> None:
    """An error is never empty: it names the field, the value and what would do."""
    assert error_of(OvenConfig, port="x") == (
        "OvenConfig.port: found 'x', allowed: an integer, from 0 to 65535"
    )


def test_unknown_key_is_refused_with_a_hint() -> None:
    """A typing error is no silence: it gives the likely name, and the list, in one line."""
    text = error_of(OvenConfig.from_mapping, {"prot": 1})
    assert text.startswith("OvenConfig.prot: is no option; did you mean 'port'?")
    assert text.endswith("known are: " + ", ".join(row.name for row in option_table(OvenConfig)))


def test_int_will_do_for_a_float() -> None:
    """`delay=1` is 1.0, by keyword and in a file."""
    assert repr(OvenConfig(delay=1).delay) == repr(OvenConfig.from_mapping({"delay": 1}).delay) == "1.0"


def test_bool_will_not_do_for_a_number() -> None:
    """`port=True` and `delay=False` are mistakes."""
    for name in ("port", "delay", "qos", "pin"):
        error_of(OvenConfig, **{name: True})
        error_of(OvenConfig.from_mapping, {name: True})


FILES = {
    ".toml": 'restart = "always"\nterminator = "\\r\\n"\nqos = {qos}\ndelay = 1\ntopics = ["a", "b"]\n',
    ".json": '{{\n"restart": "always", "terminator": "\\r\\n",\n"qos": {qos},\n"delay": 1, "topics": "a,b"}}',
    ".yaml": 'restart: always\nterminator: "\\r\\n"\nqos: {qos}\ndelay: 1\ntopics: [a, b]\n',
    ".yml": "restart: always\nterminator: '\\r\\n'\nqos: {qos}\ndelay: 1\ntopics:\n- a\n- b\n",
}


@pytest.mark.parametrize("suffix", FILES)
def test_enums_and_bytes_can_come_from_files(suffix: str, tmp_path: Path) -> None:
    """Every kind of option can be written in every kind of file."""
    file = tmp_path / f"oven{suffix}"
    file.write_text(FILES[suffix].format(qos=2))
    assert OvenConfig.from_file(file) == OvenConfig(
        restart=Restart.ALWAYS, terminator=b"\r\n", qos=2, delay=1.0, topics=("a", "b")
    )


@pytest.mark.parametrize("suffix", FILES)
def test_error_in_a_file_names_file_line_and_key(suffix: str, tmp_path: Path) -> None:
    """A wrong option is found by its file and line."""
    file = tmp_path / f"oven{suffix}"
    file.write_text(FILES[suffix].format(qos=7))
    assert error_of(OvenConfig.from_file, file) == (f"{file}:3: OvenConfig.qos: found 7, allowed: 0, 1 or 2")


def test_section_of_a_file(tmp_path: Path) -> None:
    """A dotted name finds its table; lines are counted from there, and other tables do not matter."""
    file = tmp_path / "nexus.toml"
    file.write_text("port = 1\n[sources.a]\nport = -1\n[sources.oven]\nstop-bits = 2\nport = 70000\n")
    assert error_of(OvenConfig.from_file, file, "sources.oven").startswith(
        f"{file}:6: OvenConfig.port: found"
    )
    assert "found: 'a' or 'oven'" in error_of(OvenConfig.from_file, file, "sources.over")
    file.write_text("[sources.oven]\nstop-bits = 2\n[sources.oven.will]\ntopic = 't'\n")
    assert OvenConfig.from_file(file, "sources.oven") == OvenConfig(stop_bits=2, will=Will(topic="t"))


@pytest.mark.parametrize(
    ("name", "content", "section", "line"),
    [
        ("a.toml", "qos = 1\n[will]\ntopic = 't'\nqos = 9", None, 4),
        ("a.toml", "qos = 1\n\nwill = { topic = 't', qos = 9 }", None, 3),
        ("a.toml", "[a]\nqos = 1\n[b.c.will]\ntopic = 't'\n'qos' = 9\n[d]\nqos = 1", "b.c", 5),
        ("a.toml", "[b]\nc.will.topic = 't'\nc.will.qos = 9", "b.c", None),  # better none than a wrong one
        ("a.json", '{"qos": 1, "will":\n{"topic": "t",\n"qos": 9}}', None, 3),
        ("a.yaml", "b:\n  qos: 1\n  will:\n    topic: t\n    qos: 9\n", "b", 5),
    ],
)
def test_line_of_an_option_in_a_table_in_a_table(
    name: str, content: str, section: str | None, line: int | None, tmp_path: Path
) -> None:
    """The line is that of the option in its own table, not of its namesake elsewhere."""
    file = tmp_path / name
    file.write_text(content)
    place = f"{file}:{line}" if line else f"{file}"
    text = error_of(OvenConfig.from_file, file, section)
    assert text == f"{place}: OvenConfig.will.qos: found 9, allowed: 0, 1 or 2"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.toml", b"x = 1\ny = = 2", ":2: not TOML"),
        ("a.json", b'{"x": 1\n"y"}', ":2: "),
        ("a.json", b"[" * 100_000, ": not to be read"),
        ("a.json", b"[1]", ": found list, allowed: a table of options"),
        ("a.yaml", b"a: [1", ":1: not YAML"),
        ("a.yaml", b"a: !!python/object/apply:os.system ['true']", ":1: not YAML"),
        ("a.toml", b"host = '\xff'", ": byte 8 is not UTF-8"),
        ("a.ini", b"", ": found '.ini', allowed: '.toml', '.json', '.yaml' or '.yml'"),
    ],
)
def test_unreadable_file_is_named(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    """What is no file of its kind is refused with its name, and the line where there is one."""
    file = tmp_path / name
    file.write_bytes(content)
    assert f"{file}{says}" in error_of(OvenConfig.from_file, file)


def test_yaml_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML is not there, a YAML file is answered with what to install."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = tmp_path / "oven.yaml"
    file.write_text("qos: 1")
    assert error_of(OvenConfig.from_file, file).endswith("YAML needs PyYAML; install event-nexus[yaml]")


def test_missing_file_is_an_open_error(tmp_path: Path) -> None:
    """A file that is not there is an OSError of ours, with its name."""
    with pytest.raises(OpenError, match=r"No such file or directory.*none\.toml"):
        OvenConfig.from_file(tmp_path / "none.toml")


def test_environment_errors_name_the_variable() -> None:
    """A wrong or unknown variable is named as it was written."""
    assert error_of(OvenConfig.from_env, "OVEN_", {"OVEN_QOS": "3"}) == (
        "environment variable OVEN_QOS: OvenConfig.qos: found '3', allowed: 0, 1 or 2"
    )
    assert "variable OVEN_QOSS: " in error_of(OvenConfig.from_env, "OVEN_", {"OVEN_QOSS": "3"})
    assert "prefix" in error_of(OvenConfig.from_env, "", {})


def test_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own variables count."""
    monkeypatch.setenv("OVEN_STOP_BITS", "2")
    assert OvenConfig.from_env("OVEN_") == OvenConfig(stop_bits=2)


def test_url_parts_are_options() -> None:
    """Host, port, user, password and the query name fields; a repeated option is a list; keywords win."""
    url = Url.parse("oven://me:s3cret@hot:99?qos=1&topics=a,b&topics=c&stop-bits=2&delay=3")
    assert OvenConfig.from_url(url, delay=4) == OvenConfig(
        host="hot", port=99, user="me", password="s3cret", qos=1, topics=("a,b", "c"), stop_bits=2, delay=4.0
    )
    assert "qos: found 2 values, allowed: one" in error_of(
        OvenConfig.from_url, Url.parse("oven:?qos=1&qos=2")
    )


def test_url_part_without_an_option_is_refused() -> None:
    """A user for a transport that knows none is a mistake, not a silence."""
    text = error_of(Required.from_url, Url.parse("oven://me@hot:5/x"))
    assert text == "oven://me@hot:5/x: Required has no 'host', 'path' or 'user'"


def test_required_option_must_be_there() -> None:
    """What has no default is asked for by name."""
    assert error_of(Required.from_mapping, {}) == "Required.port: is missing, allowed: an integer, from 1"
    assert option_table(Required)[0] == ("port", "an integer, from 1", "required", "its port")


def test_name_said_twice_is_refused() -> None:
    """`stop-bits` and `stop_bits` are one option."""
    assert "twice" in error_of(OvenConfig.from_mapping, {"stop-bits": 1, "stop_bits": 2})


@pytest.mark.parametrize("key", [5, None, True, "a\nb", ""])
def test_key_that_is_no_name_is_refused(key: Any) -> None:
    """Keys of any kind are named in one line, escaped."""
    assert "\n" not in error_of(OvenConfig.from_mapping, {key: 1}).partition("is no option")[0]


def test_config_is_frozen_and_its_changes_are_checked() -> None:
    """A config never changes; a changed copy is checked like a new one."""
    config = OvenConfig(qos=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.qos = 2  # type: ignore[misc]
    assert config.with_options(qos="2", port=5) == OvenConfig(qos=2, port=5)
    for change in (config.with_options, lambda **c: attrs.evolve(config, **c)):
        assert "allowed: 0, 1 or 2" in error_of(change, qos=5)


def test_default_is_checked() -> None:
    """A default that its own option would refuse is found at the first use."""

    @attrs.frozen(kw_only=True)
    class Odd(Config):
        qos: Literal[0, 1] = option(2, help="wrong")  # type: ignore[arg-type]

    assert "Odd.qos: found 2" in error_of(Odd)


def test_table_has_a_row_for_every_option() -> None:
    """Docs and the command line can show every option: name, what is allowed, default, help."""
    rows = {row.name: row for row in option_table(OvenConfig)}
    assert list(rows) == [field.name for field in attrs.fields(OvenConfig)]
    assert rows["port"] == ("port", "an integer, from 0 to 65535", "1883", "its port")
    assert rows["timeout"].type == "a number or none, from 0.1 (s)"
    assert all(row.help and row.default for row in rows.values())


def leaks(tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Name every way in which something goes wrong beside, or with, a secret."""
    toml, broken, yml = tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "c.yaml"
    toml.write_text(f"password = '{CANARY}'\nqos = 9")
    broken.write_text(f"password = '{CANARY}' '{CANARY}'")
    yml.write_text(f"password: {CANARY}: {CANARY}")
    doc = tmp_path / "d.json"
    doc.write_text(json.dumps({"pin": CANARY}) + CANARY)
    return {
        "type": lambda: OvenConfig(pin=CANARY),  # type: ignore[arg-type]
        "other": lambda: OvenConfig(password=CANARY, qos=9),  # type: ignore[arg-type]
        "mapping": lambda: OvenConfig.from_mapping({"pin": CANARY}),
        "list": lambda: OvenConfig.from_mapping({"password": [CANARY]}),
        "bytes": lambda: OvenConfig.from_mapping({"password": CANARY.encode()}),
        "table": lambda: Vault.from_mapping({"will": {"topic": "t", "qos": CANARY}}),
        "unknown": lambda: OvenConfig.from_mapping({"password": CANARY, "qoss": 1}),
        "environment": lambda: OvenConfig.from_env("OVEN_", {"OVEN_PIN": CANARY}),
        "url": lambda: OvenConfig.from_url(Url.parse(f"oven://me:{CANARY}@hot?qos=9")),
        "url part": lambda: Required.from_url(Url.parse(f"oven://me:{CANARY}@hot:1?password={CANARY}")),
        "url option": lambda: OvenConfig.from_url(Url.parse(f"oven:?pin={CANARY}")),
        "port": lambda: Url.parse(f"oven://me:{CANARY}@hot:x"),
        "slash": lambda: Url.parse(f"oven://me:{CANARY}/{CANARY}@hot"),
        "mark": lambda: Url.parse(f"oven://me:{CANARY}?{CANARY}@hot"),
        "percent": lambda: Url.parse(f"oven://me:{CANARY}%@hot"),
        "query": lambda: Url.parse(f"oven://hot:x?password={CANARY}"),
        "scheme": lambda: Url.parse(f"{CANARY}@hot"),
        "toml": lambda: OvenConfig.from_file(toml),
        "broken": lambda: OvenConfig.from_file(broken),
        "yaml": lambda: OvenConfig.from_file(yml),
        "json": lambda: OvenConfig.from_file(doc),
        "change": lambda: OvenConfig(password=CANARY).with_options(qos=9),
        "pin change": lambda: OvenConfig().with_options(pin=CANARY),
    }


def test_no_error_says_a_secret(tmp_path: Path) -> None:
    """Whatever goes wrong, and however, no text of the error, its causes or its context holds the secret."""
    for name, call in leaks(tmp_path).items():
        with pytest.raises(ConfigError) as caught:
            call()
        error: BaseException | None = caught.value
        assert CANARY not in "".join(traceback.format_exception(caught.value)), name
        while error is not None:
            assert CANARY not in f"{error} {error!r} {error.args} {vars(error)}", name
            error = error.__context__ or error.__cause__


def test_nothing_shown_says_a_secret() -> None:
    """Neither a config, nor its table, nor a URL shows a secret; that there is one may be seen."""

    @attrs.frozen(kw_only=True)
    class Careless(Config):
        key: str = option(CANARY, secret=True, help="a default that should not be")
        none: str | None = option(None, secret=True, help="none")

    url = Url.parse(f"oven://me:{CANARY}@hot?password={CANARY}&access_token={CANARY}")
    config = OvenConfig.from_url(url.place, password=CANARY)
    shown = f"{config} {config!r} {Careless()} {option_table(Careless)} {url} {url!r} {[url]}"
    assert CANARY not in shown
    assert set(re.findall(r"(?:password|key)='\*\*\*'", shown)) == {"password='***'", "key='***'"}
    assert "none=None" in shown
    assert config.password == CANARY
