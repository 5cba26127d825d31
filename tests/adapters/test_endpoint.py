"""Laws of endpoints: a URL says everything, and whatever it says wrong is answered with what is known."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

import nexus.adapters
from nexus.adapters import open_receiver, open_sender
from nexus.adapters._endpoint import BUILT_IN, find_adapter, schemes
from nexus.adapters._url import Url
from nexus.errors import ConfigError

FOLDER = Path(nexus.adapters.__file__).parent

PARSED = [
    ("console:", Url("console")),
    ("mem://name", Url("mem", host="name")),
    ("mem://name/of/topic?maxsize=5", Url("mem", host="name", path="/of/topic", options={"maxsize": ("5",)})),
    ("file:///abs/path%20x", Url("file", path="/abs/path x")),
    ("file:/abs", Url("file", path="/abs")),
    ("file:log/here.txt", Url("file", path="log/here.txt")),
    (
        "serial:///dev/ttyUSB0?baudrate=115200",
        Url("serial", path="/dev/ttyUSB0", options={"baudrate": ("115200",)}),
    ),
    ("serial://COM3?x=1", Url("serial", host="COM3", options={"x": ("1",)})),
    ("mqtt://h:1883/oven/+/#", Url("mqtt", host="h", port=1883, path="/oven/+/#")),
    ("mqtt://h?topic=a/+&topic=b/%23", Url("mqtt", host="h", options={"topic": ("a/+", "b/#")})),
    ("MQTTS://u:p%40ss%2F@h", Url("mqtts", "u", "p@ss/", "h")),
    ("tcp://u@h:0", Url("tcp", "u", None, "h", 0)),
    ("tcp://u:@h", Url("tcp", "u", "", "h")),
    ("tcp://:p@h:", Url("tcp", "", "p", "h")),
    ("tcp://[::1]:6000", Url("tcp", host="::1", port=6000)),
    ("tcp://[fe80::1%25eth0]/x", Url("tcp", host="fe80::1%eth0", path="/x")),
    ("zmq+sub://*:5556/oven.", Url("zmq+sub", host="*", port=5556, path="/oven.")),
    (
        "udp://h?terminator=%0D%0A&retain&note=",
        Url("udp", host="h", options={"terminator": ("\r\n",), "retain": ("true",), "note": ("",)}),
    ),
]


@pytest.mark.parametrize(("text", "url"), PARSED)
def test_url_is_read(text: str, url: Url) -> None:
    """Each part is found and decoded; wildcards of topics mean themselves."""
    assert Url.parse(text) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with a scheme"),
        ("/dev/ttyUSB0", "does not begin with a scheme"),
        ("1a://h", "does not begin with a scheme"),
        ("tcp://h:port", "the port is not a number from 0 to 65535"),
        ("tcp://h:65536", "the port is not a number from 0 to 65535"),
        ("tcp://h:-1", "the port is not a number from 0 to 65535"),
        ("tcp://h:\u0661", "the port is not a number from 0 to 65535"),
        ("tcp://::1:6000", "needs brackets"),
        ("tcp://[::1", "needs brackets"),
        ("tcp://[::1]6000", "needs brackets"),
        ("tcp://a b", "blank or a control character"),
        ("tcp://a%00b", "blank or a control character"),
        ("tcp://h/a\nb", "a control character; write it as %0A"),
        ("tcp://h/%zz", "two hexadecimal digits"),
        ("tcp://h/%ff", "two hexadecimal digits"),
        ("tcp://h/100%", "two hexadecimal digits"),
        ("tcp://h?=5", "an option has no name"),
    ],
)
def test_what_is_no_url_is_refused(text: str, why: str) -> None:
    """The error shows the URL in one line, and says what is wrong with it."""
    with pytest.raises(ConfigError, match="^URL '[^\n]*: .*" + why):
        Url.parse(text)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=" "), min_size=1, max_size=8
)
urls = st.builds(
    Url,
    scheme=st.sampled_from(["mqtt", "zmq+sub", "file"]),
    user=st.none() | words,
    password=st.none() | words,
    host=names,
    port=st.none() | st.integers(0, 65535),
    path=st.just("") | words.map("/".__add__),
    options=st.dictionaries(
        words.filter(bool).map("x".__add__), st.lists(words, min_size=1, max_size=3).map(tuple), max_size=3
    ),
)


@given(urls)
def test_shown_url_is_equal_but_for_the_password(url: Url) -> None:
    """What `str` gives can be read again and means the same, with *** for the password."""
    hidden = {
        name: tuple("***" for _ in values) if "pass" in name else values
        for name, values in url.options.items()
    }
    expected = attrs.evolve(url, options=hidden)
    if url.password is not None:
        expected = attrs.evolve(expected, user=url.user or "", password="***")
    assert Url.parse(str(url)) == expected


@given(st.text(max_size=40) | st.text("atcp:/@?#%[]=&1\n", max_size=40).map("tcp:".__add__))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """No text does anything but give a URL or a ConfigError; what is given stays itself when shown."""
    url: Url | None = None
    why = ""
    try:
        url = Url.parse(text)
    except ConfigError as error:
        why = str(error)
    assert why.isprintable()
    assert url is None or str(Url.parse(str(url))) == str(url)


THIRD_PARTY = """
import attrs
from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Adapter

@attrs.frozen(kw_only=True)
class KilnConfig(Config):
    host: str = option("localhost", help="where it is")
    port: int = option(1, low=1, help="its port")
    heat: float = option(0.0, help="to begin with", unit="K")

@attrs.frozen
class Half:
    config: KilnConfig
    packer: object = None
    unpacker: object = None

ADAPTER = Adapter("Kiln", ["kiln", "kiln+out"], KilnConfig, Half, Half, "A kiln", receives=["kiln"])
ONLY_RECEIVES = Adapter("Kiln", ["kiln+in"], KilnConfig, None, Half, "A kiln")
NO_ADAPTER = 5
"""

ENTRY_POINTS = """
[nexus.adapters]
kiln = kiln_adapter:ADAPTER
kiln+out = kiln_adapter:ADAPTER
kiln+in = kiln_adapter:ONLY_RECEIVES
kiln+odd = kiln_adapter:NO_ADAPTER
kiln+none = kiln_adapter:NOT_THERE
kiln+lost = kiln_lost:ADAPTER
kiln+broken = kiln_broken:ADAPTER
kiln+twice = kiln_adapter:ADAPTER
mem = kiln_adapter:ADAPTER
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package of somebody else, some of whose adapters are broken."""
    for name, text in (
        ("event_kiln", ENTRY_POINTS),
        ("other_kiln", "[nexus.adapters]\nkiln+twice = other:A\n"),
    ):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(text)
    (tmp_path / "kiln_adapter.py").write_text(THIRD_PARTY)
    (tmp_path / "kiln_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "kiln_adapter", None)
    monkeypatch.delitem(sys.modules, "kiln_adapter")


def error_of(url: str, open_half: Any = open_receiver, **options: Any) -> str:
    """Give the text of the ConfigError that opening a URL raises."""
    with pytest.raises(ConfigError) as caught:
        open_half(url, **options)
    return str(caught.value)


@pytest.mark.usefixtures("third_party")
def test_adapters_of_others_are_found_by_their_scheme() -> None:
    """An entry point is enough to be opened by URL; keywords win over its options."""
    receiver: Any = open_receiver("kiln://hot:9?heat=1e3", port="8")
    assert (receiver.config.host, receiver.config.port, receiver.config.heat) == ("hot", 8, 1000.0)
    assert {"kiln", "kiln+out"} < set(schemes())
    assert find_adapter("KILN").summary == "A kiln"


@pytest.mark.usefixtures("third_party")
def test_packer_and_unpacker_reach_their_half() -> None:
    """One's own packer is handed on; without one the adapter's own default holds."""
    sender: Any = open_sender("kiln://hot", packer=bytes)
    receiver: Any = open_receiver(Url.parse("kiln://hot"), unpacker=plain)
    assert (sender.packer, sender.unpacker) == (bytes, None)
    assert (receiver.packer, receiver.unpacker) == (None, plain)


def plain(payload: bytes) -> tuple[bytes, dict[str, Any]]:
    """Give the payload."""
    return payload, {}


@pytest.mark.usefixtures("third_party")
def test_packing_by_name() -> None:
    """`pack=` in the URL or as a keyword chooses the packing; the keyword wins."""
    sender: Any = open_sender("kiln://hot?pack=text")
    assert sender.packer("warm") == b"warm"
    receiver: Any = open_receiver("kiln://hot?pack=text", pack="json")
    assert receiver.unpacker(b"[1]")[0] == [1]
    assert "msgpack" in error_of("kiln://hot?pack=pickle")
    assert "found unpacker= and pack='text', allowed: one of them" in error_of(
        "kiln://hot?pack=text", unpacker=plain
    )
    assert "found 2 values of pack" in error_of("kiln://hot?pack=text&pack=json")


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kiln+odd://h", "scheme 'kiln+odd': event-kiln offers int, allowed: an Adapter"),
        ("kiln+none://h", "scheme 'kiln+none': event-kiln cannot be loaded: AttributeError"),
        ("kiln+lost://h", "scheme 'kiln+lost': event-kiln needs kiln_lost, which is not there"),
        ("kiln+broken://h", "scheme 'kiln+broken': event-kiln cannot be loaded: ZeroDivisionError"),
        ("kiln+twice://h", "scheme 'kiln+twice': found kiln_adapter:ADAPTER and other:A, allowed: one"),
    ],
)
def test_broken_adapter_breaks_its_own_scheme_only(url: str, says: str) -> None:
    """What cannot be loaded says so by scheme and package; every other scheme works."""
    assert says in error_of(url)
    assert open_receiver("kiln://h") is not None


@pytest.mark.usefixtures("third_party")
def test_half_that_is_not_there_is_named() -> None:
    """A scheme that only sends, or only receives, says which half it has."""
    assert error_of("kiln+out://h") == "kiln+out://h: scheme 'kiln+out' has no receiver; it has a sender"
    assert (
        error_of("kiln+in://h", open_sender)
        == "kiln+in://h: scheme 'kiln+in' has no sender; it has a receiver"
    )
    assert open_sender("kiln+out://h") is not None


@pytest.mark.usefixtures("third_party")
def test_builtin_scheme_cannot_be_taken_over() -> None:
    """Installing a package never changes what a known scheme means."""
    assert find_adapter("mem").config.__module__ == "nexus.adapters.memory"


def test_unknown_scheme_is_answered_with_the_known_ones() -> None:
    """A typing error gets the likely scheme, and all there are."""
    text = error_of("mqqt://h")
    assert text.startswith("scheme 'mqqt' is not known; did you mean 'mqtt'?")
    assert all(scheme in text for scheme in BUILT_IN)


@pytest.mark.usefixtures("third_party")
def test_unknown_option_is_answered_with_the_known_ones() -> None:
    """A typing error gets the likely option, and all there are."""
    for text in (error_of("kiln://h?heta=5"), error_of("kiln://h", heta=5)):
        assert text.startswith("KilnConfig.heta: is no option; did you mean 'heat'?")
        assert text.endswith("known are: host, port, heat")


@pytest.mark.usefixtures("third_party")
def test_errors_of_opening_hide_the_password() -> None:
    """No error of opening shows the password or an option."""
    for url in ("kiln+out://me:c4n4ry@h?x=c4n4ry", "kiln://me:c4n4ry@h?login=c4n4ry", "kiln://me:c4n4ry@h:x"):
        assert "c4n4ry" not in error_of(url)


@pytest.mark.parametrize("scheme", BUILT_IN)
def test_builtin_scheme_is_offered_by_its_module(scheme: str) -> None:
    """Each scheme of the table leads to an adapter that lists it and has a half for it."""
    module = BUILT_IN[scheme].rpartition(".")[2]
    if not (FOLDER / f"{module}.py").exists() and not os.environ.get("NEXUS_CI"):
        pytest.skip(f"{BUILT_IN[scheme]} is not there")
    adapter = find_adapter(scheme)
    assert scheme in adapter.schemes
    assert adapter.summary
    assert adapter.half(scheme, "sender") or adapter.half(scheme, "receiver")


def test_only_what_is_asked_for_is_loaded() -> None:
    """Opening one scheme loads the module of no other."""
    code = (
        "import sys; from nexus.adapters import open_receiver; open_receiver('mem://x');"
        "print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *BUILT_IN.values(), "zmq", "aiomqtt", "serial"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == ["nexus.adapters.memory"]
