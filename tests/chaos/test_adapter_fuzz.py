"""Hostile input for all that reads from outside: only the declared error, soon, in little memory."""

import asyncio
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from mutation import Mutator
from trials import SLOWEST, Trials

from nexus.adapters import _mqtt_packets as mqtt
from nexus.adapters import open_receiver, open_sender, schemes
from nexus.adapters._config import _rules
from nexus.adapters._endpoint import find_adapter
from nexus.adapters._file_lines import LineCutter
from nexus.adapters._mqtt_connection import Connection
from nexus.adapters._mqtt_topics import check_filter, check_topic
from nexus.adapters._url import Url
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver
from nexus.boundaries._recording import HEAD, SUMS, Recorded, Recording, RecordingError, pack_record, preamble
from nexus.cli._configured import configured
from nexus.errors import ConfigError

BATCH = 1000

Law = Callable[..., Awaitable[None]]
Target = Callable[[Mutator], bytes]
"""Makes one input and gives it to what is tried; returns it. Raises only when a law is broken."""


@pytest.fixture
def law(request: pytest.FixtureRequest, form: Any, figures: Any) -> Law:
    """Try a target in the size of the form, and judge it."""

    async def judge(
        target: Target, good: list[bytes], parts: list[bytes], short: int = 100_000, long: int = 5_000_000
    ) -> None:
        number = form.size(short, long)
        mutator = Mutator(f"{form.seed}{request.node.name}", good, parts)
        trials = Trials(mutator.rng, lambda: target(mutator))
        asyncio.get_running_loop().set_debug(False)  # it keeps the stack of every future
        for place in range(0, number, BATCH):
            await asyncio.sleep(0)  # for what was to be called soon
            trials.run(min(BATCH, number - place))
        found = trials.judge()
        figures(offered=number, **attrs.asdict(found) | {"slowest": ascii(found.slowest)})

    return judge


def text_of(data: bytes) -> str:
    """Make a text of it, with halves of surrogates where it is none."""
    return data.decode("utf-8", "surrogateescape")


TOPIC = b"\x00\x03a/b"
PACKETS = [
    b"\x30\x08" + TOPIC + b"{}!",
    b"\x30\x09" + TOPIC + b"\x00" + b"{}!",
    b"\x32\x0a" + TOPIC + b"\x00\x01" + b"{}!",
    b"\x3d\x0b" + TOPIC + b"\x12\x34\x00" + b"{}!",
    b"\x34\x12" + TOPIC + b"\x00\x02\x08\x26\x00\x01k\x00\x01v\x00" + b"x",
    b"\x30\xc8\x01" + TOPIC + bytes(195),
    b"\x40\x02\x00\x01",
    b"\x50\x03\x00\x01\x87",
    b"\x62\x02\x00\x02",
    b"\x70\x02\x00\x02",
    b"\x90\x04\x00\x01\x00\x01",
    b"\xb0\x03\x00\x01\x00",
    b"\xd0\x00",
    b"\xe0\x02\x8e\x00",
    b"\x20\x02\x00\x00",
    b"\x20\x06\x01\x00\x03\x21\x00\x14",
]
PACKET_PARTS = [
    TOPIC,
    b"\x80\x80\x80\x01",
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\x7f",
    b"\x26\x00\x00\x00\x00",
]


async def test_mqtt_packets(law: Law) -> None:
    """Any stream gives packets or is malformed, and no more of it is held than one packet."""

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        reader = mqtt.PacketReader(100)
        try:
            for piece in mutator.pieces(data):
                for first, body in reader.feed(piece):
                    assert 0 <= first < 0x200
                    assert len(body) <= 100 or first & mqtt.OVERSIZE
            assert len(reader._buffer) <= 2**16 + 16
        except mqtt.Malformed:
            pass
        return data

    await law(target, PACKETS, PACKETS + PACKET_PARTS)


async def test_mqtt_properties(law: Law) -> None:
    """Properties are read, or malformed."""
    names = [bytes((code,)) for code in range(0x2B)]

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        try:
            found, end = mqtt.properties_of(data, 0)
        except mqtt.Malformed:
            return data
        assert isinstance(found, dict)
        assert end <= len(data)
        return data

    good = [
        b"\x08\x26\x00\x01k\x00\x01v\x00",
        b"\x05\x02\x00\x00\x00\x09",
        b"\x02\x0b\x7f",
        b"\x03\x21\x00\x14",
    ]
    await law(target, good, names)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("half", [MqttReceiver, MqttSender])
async def test_mqtt_connections(law: Law, half: Any, version: Any) -> None:
    """Whatever a broker sends, before its welcome or after, ends the connection at most."""
    config = MqttConfig(keep_alive=0, protocol=version, max_size=100, maxsize=10, overflow="drop_oldest")
    halves: list[Any] = []
    login = config.login()
    welcome = b"\x20\x03\x00\x00\x00" if version == "5" else b"\x20\x02\x00\x00"

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        if mutator.rng.random() < 0.001 or not halves:
            halves[:] = [half(config)]  # what one remembers of its broker is bounded, and much
        one = halves[0]
        connection = Connection(login, one._welcome, one._take)
        if mutator.rng.random() < 0.9:
            connection.data_received(welcome)
        for piece in mutator.pieces(data):
            connection.data_received(piece)
        assert connection._error is None or isinstance(connection._error, ConnectionError)
        connection._soon.clear()
        if connection._flushing is not None:
            connection._flushing.cancel()
        if half is MqttReceiver:
            one._backlog.clear()
            while len(one._inbox):
                payload, meta = one._inbox.take_nowait()
                assert len(payload) <= 100
                one.accept(meta)
            assert len(one._known) <= 1024
        return data

    await law(target, PACKETS, PACKETS + PACKET_PARTS, 50_000)  # of each of the four


async def test_mqtt_topics(law: Law) -> None:
    """A text is a topic, a filter, or a ConfigError; whatever is a topic is a filter too."""

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        text = text_of(data)
        taken = []
        for check in (check_topic, check_filter):
            try:
                packed = check(text)
            except ConfigError:
                continue
            taken.append(check)
            assert packed == len(data).to_bytes(2, "big") + data
        assert check_topic not in taken or check_filter in taken
        return data

    good = [b"a/b/c", b"oven/+/#", b"$share/group/a/#", b"$SYS/broker", b"+", b"#", "öfen/1".encode()]
    await law(target, good, [b"/", b"+", b"#", b"$share/", b"$SYS", b"x" * 1000])


async def test_zmq_messages(law: Law) -> None:
    """Each message of any frames is an item, or is counted by its reason."""
    receivers = [ZmqReceiver[Any](ZmqConfig(max_size=50, topic_frame=framed)) for framed in (True, False)]

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        messages = [mutator.pieces(data) for _ in range(3)]
        for receiver, read in zip(receivers, (receivers[0]._read, receivers[1]._read_plain), strict=True):
            before = sum(receiver.counts.bad.values())
            items = read(messages)
            assert len(items) + sum(receiver.counts.bad.values()) - before == len(messages)
            assert all(len(payload) <= 50 for payload, _ in items)
        assert len(receivers[0]._names) <= 1024
        return data

    await law(target, [b"topic{}", b"t" * 60, "öfen".encode()], [b"x" * 5000])


CONFIGS = list(dict.fromkeys(find_adapter(scheme).config for scheme in schemes()))
VALUES = [
    b"1",
    b"-1",
    b"1e3",
    b"0.5",
    b"true",
    b"none",
    b"a,b",
    b"a=1,b=2",
    b'{"topic": "t"}',
    b"\\r\\n",
    b"\\x0a",
    b"0x1F",
    b"localhost",
    b"always",
    b"line",
    b"drop_oldest",
    b"5",
    b"/tmp/x",
    b"1e999999999",
]


async def test_config_from_text(law: Law) -> None:
    """Any text for any option gives a config or a ConfigError that shows no more than it should."""
    options = [(config, name) for config in CONFIGS for name in _rules(config)]

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        config, name = mutator.rng.choice(options)
        try:
            made = config.from_mapping({name: text_of(data)})
        except ConfigError as exc:
            said = str(exc)
        else:
            said = repr(made)
        assert len(said) < 3000 + 10 * len(data)
        return data

    await law(target, VALUES, [*VALUES, b"\\", b"{", b",", b"=", b"9" * 400])


URLS = [
    b"mqtt://user:password@host:1883/a/+/b?qos=1&topics=x&topics=y",
    b"mqtts://[::1]:8883/t?ca_file=x&will=%7B%22topic%22%3A%22t%22%7D",
    b"serial:///dev/ttyUSB0?baudrate=115200&terminator=%5Cr%5Cn",
    b"tcp://127.0.0.1:6000?listen=1&frame=length&width=2",
    b"udp://239.1.2.3:5000?interface=lo&ttl=2",
    b"zmq://host?publisher_port=1&pack=msgpack",
    b"zmq+pull://*:5000?curve_secret=x",
    b"file:///var/data/%Y/run.jsonl?replay=1",
    b"console:?output=stderr",
    b"mem://topic?maxsize=5",
]


async def test_urls(law: Law) -> None:
    """Any text is a URL, which stays itself when it is shown, or a ConfigError."""

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        try:
            url = Url.parse(text_of(data))
        except ConfigError as exc:
            said = str(exc)
        else:
            said = str(url)
            assert url.password is not None or Url.parse(said).host == url.host
        assert said.isprintable()
        return data

    await law(target, URLS, [b"?", b"&", b"@", b":", b"//", b"[", b"]", b"%", b"%00", b"%0a", b"=", b"#"])


async def test_halves_from_urls(law: Law) -> None:
    """Any text makes a half that is not started, or a ConfigError."""
    makers = (open_receiver, open_sender)

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        try:
            half = mutator.rng.choice(makers)(text_of(data))
        except ConfigError:
            return data
        assert not half.is_started
        assert half.name.isprintable()
        return data

    # A half takes ten times as long to make as its URL to read, and test_urls has read a hundred thousand.
    await law(target, URLS, [b"?", b"&", b"@", b"%", b"=", b"%0a", b"%e2%80%ae"], 10_000, 1_000_000)


async def test_lines_of_files(law: Law) -> None:
    """Lines are the same whatever pieces they come in, and of a long one only its end is held."""

    def target(mutator: Mutator) -> bytes:
        data, rng = mutator.next(), mutator.rng
        given: dict[str, Any] = {"quoted": rng.random() < 0.5, "skip": rng.random() < 0.1}
        cutters = [LineCutter(rng_choice, 40, **given) for rng_choice in [rng.choice((b"\n", b"\r\n"))] * 2]
        whole = cutters[0].feed(data)
        parts = [line for piece in mutator.pieces(data) for line in cutters[1].feed(piece)]
        if not given["quoted"]:  # of a quoted line that is too long, where it ends is a guess
            assert whole == parts
            assert cutters[0].too_long == cutters[1].too_long
        for cutter in cutters:
            assert cutter.held <= 42
            assert len(cutter.finish()) <= 1
        assert all(len(line.payload) <= 40 for line in whole + parts)
        assert [line.offset for line in whole] == sorted(line.offset for line in whole)
        return data

    good = [b"one\ntwo\r\nthree", b'a,"b\nc",d\n', b"x" * 50 + b"\n", b"\n\n\n"]
    await law(target, good, [b"\n", b"\r\n", b'"', b"x" * 45])


@attrs.frozen
class Memory:
    """A file in memory."""

    data: bytes

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def size(self) -> int:
        return len(self.data)


MARKER = b"\x01MARKER\x02"
BEGIN = preamble(MARKER, {"url": "tcp://x", "pack": "json"})
RECORDS = [
    pack_record(MARKER, place, Recorded(payload, 10**18 + place, place, place - 1, {"topic": "t"}))
    for place, payload in enumerate((b"{}", b"", b"x" * 100))
]


def sealed(meta: bytes, payload: bytes, index: int, sizes: tuple[int, int]) -> bytes:
    """Make a record that says anything, and whose sums are right."""
    head = HEAD.pack(MARKER, *sizes, index, 0, 0, 0)
    return head + SUMS.pack(zlib.crc32(head), zlib.crc32(payload, zlib.crc32(meta))) + meta + payload


async def test_recordings(law: Law) -> None:
    """Any file is read as far as it is one, or is a RecordingError; sums that are right prove nothing."""

    def target(mutator: Mutator) -> bytes:
        rng, data = mutator.rng, mutator.next()
        if rng.random() < 0.5:
            meta, payload = data[:50], data[50:]
            exact = len(meta), len(payload)
            sizes = rng.choice(
                (exact, exact, (rng.choice((0, 2**16, 2**32 - 1)), rng.choice((0, 2**26, 2**31))))
            )
            data = BEGIN + RECORDS[0] + sealed(meta, payload, rng.choice((0, 1, 2**63, 2**64 - 1)), sizes)
            data += RECORDS[-1]
        try:
            recording = Recording(Memory(data))
            found = list(recording)
        except RecordingError:
            return data
        assert len(found) <= len(data)
        assert recording.cut + recording.skipped <= len(data)
        return data

    await law(
        target,
        [BEGIN + b"".join(RECORDS), BEGIN, RECORDS[2]],
        [MARKER, BEGIN, b"{}", struct.pack(">I", 2**32 - 1)],
    )


TOML = [
    b"""[nexus]
maxsize = 1000
[[sources]]
name = "plant"
url = "mem://plant?maxsize=5"
[[rules]]
source = "plant"
type = "reading"
where = "value > 3"
priority = "value // 2"
[[sinks]]
name = "log"
url = "console:"
types = ["reading"]
rate = 10
policy = "latest"
topic = "=type"
""",
    b'[[sources]]\nname = "a"\nurl = "tcp://${HOST}:1"\npack = "json"\noptions = { maxsize = 3 }\n',
]
TOML_PARTS = [
    b"[[sources]]\n",
    b"[[sinks]]\n",
    b"[[rules]]\n",
    b"[nexus]\n",
    b'"""',
    b"'''",
    b'"',
    b"=",
    b"[",
    b"]",
    b"{",
    b"}",
    b".",
    b"#",
    b"\n",
    b"${HOST}",
    b"${",
    b"$$",
    b"1979-05-27",
    b"nan",
    b"inf",
    b"true",
    b"0x",
    b"9" * 30,
    b'url = "zmq://x"\n',
    b'name = "a"\n',
    b"[[[[[[[[[",
    b"a.b.c.d = 1\n",
    b'ttl = "x"\n',
    b"\\u0000",
    b"\\ud800",
]


async def test_configuration_files(law: Law, tmp_path: Path) -> None:
    """Any file is a nexus that is not started, or a ConfigError that names the file."""
    path = tmp_path / "nexus.toml"

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        path.write_bytes(data)
        said = str(path)
        try:
            configured(str(path), {"HOST": "127.0.0.1"})
        except ConfigError as exc:
            said = str(exc)
        assert said.startswith(str(path))
        return data

    # Each is written, read back, and makes a whole nexus with its halves.
    await law(target, TOML, TOML_PARTS, 3_000, 300_000)


KEPT: list[bytes] = []


def raises(data: bytes) -> None:
    if b"odd" in data:
        raise IndexError(data)


def keeps(data: bytes) -> None:
    KEPT.append(data + bytes(40_000))


def spend() -> None:
    until = time.process_time() + SLOWEST * 1.1
    while time.process_time() < until:
        pass


def dawdles(data: bytes) -> None:
    if not KEPT and len(data) > 30:
        KEPT.append(data)
    if data in KEPT:
        spend()


def stumbles(data: bytes) -> None:
    if not KEPT:
        KEPT.append(data)
        spend()


@pytest.mark.parametrize(
    ("broken", "error"), [(raises, IndexError), (keeps, AssertionError), (dawdles, AssertionError)]
)
async def test_each_kind_of_failure_is_seen(law: Law, form: Any, broken: Any, error: Any) -> None:
    """A reader that raises, keeps what it has read, or takes its time over one input, is found out."""

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        broken(data)
        return data

    number = {raises: 5000, keeps: 2000, dawdles: 1000}[broken]
    try:
        with pytest.raises(error):
            await law(target, [b"even"], [b"odd"], number, number)
    finally:
        KEPT.clear()


async def test_an_accident_is_no_failure(law: Law) -> None:
    """What took long once, and takes no time when it is tried again, is not held against an input."""

    def target(mutator: Mutator) -> bytes:
        data = mutator.next()
        stumbles(data)
        return data

    try:
        await law(target, [b"even"], [b"odd"], 1000, 1000)
    finally:
        KEPT.clear()
