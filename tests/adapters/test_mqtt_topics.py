"""Which topics and filters are sent, and that packets are found in any stream."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trials import Trials

from nexus.adapters import _mqtt_packets as wire
from nexus.adapters._mqtt_topics import check_filter, check_topic
from nexus.adapters.mqtt import MqttConfig, MqttSender, Will
from nexus.errors import ConfigError

LONGEST = "x" * 65535
NEVER = [
    "", "\0", "a\0", "a\0b", "/\0/", "x" * 65536, "\u00e9" * 32768, "\ud800", "a\udfff", "a/\udc80/b",
    *(f"a{chr(code)}b" for code in (*range(1, 0x20), *range(0x7F, 0xA0))),
    "\ufdd0", "a\ufdef", "\ufffe", "a/\uffff", *(chr(plane << 16 | 0xFFFF) for plane in range(1, 17)),
]  # fmt: skip
FINE = [
    "a", "/", "//", "a/", "/a", "a//b", " ", "a b", "$", "$a", "$SYSTEM", "$SYSx/a", "a/$SYS", "a/$share/b",
    "sensors/oven-1/temperature", "\u00e9\u4e2d/\U0001f600", "\ufeff", "A" * 1000, LONGEST, "a/b/c/d/e/f/g",
    "mqtt", "0", "-", "a.b", "a*b", "a>b", "~", "%2B", "%00", "\\0", "'; DROP", "${x}", "{}", "[]", "a?b=c",
]  # fmt: skip
FILTERS_ONLY = [
    "#", "+", "/#", "/+", "+/", "+/+", "+/#", "a/#", "a/+", "a/+/b", "+/b/#", "//+", "+//#", "$SYS/#",
    "$SYS/+/a", "$SYS", "$SYS/broker/uptime", "$share/g/a", "$share/g/#", "$share/g/+/b", "$share/g//",
    "$share/g/a/b/c",
]  # fmt: skip
BROKEN_FILTERS = [
    "a#", "#a", "a/#/b", "#/", "#/a", "##", "#/#", "a/##", "a+", "+a", "a/b+", "a/+b/c", "++", "a/++", "+#",
    "#+", "a/+#", "a/#+", "/#/", "$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a",
    "$share/#/a", "$share/g+/a", "$share/g#/a", "$share/g/a#", "$share/g/#/a", "$share/g/+a",
]  # fmt: skip


def test_there_are_two_hundred_vectors() -> None:
    """The lists below cover the rules, not a few of them."""
    assert len(NEVER) * 2 + len(FINE) * 2 + len(FILTERS_ONLY) * 2 + len(BROKEN_FILTERS) * 2 >= 200


@pytest.mark.parametrize(
    "topic", [*NEVER, *FILTERS_ONLY, *BROKEN_FILTERS], ids=lambda topic: ascii(topic[:20])
)
def test_what_nobody_may_publish_to_is_refused(topic: str) -> None:
    """Nothing with a wildcard, nothing of the broker's, nothing that is no text goes out."""
    with pytest.raises(ConfigError, match="topic: found") as caught:
        check_topic(topic)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("topic", [*NEVER, *BROKEN_FILTERS], ids=lambda topic: ascii(topic[:20]))
def test_what_is_no_filter_is_refused(topic: str) -> None:
    """Wildcards stand alone in their level, and ``#`` stands last; a config with another is refused."""
    with pytest.raises(ConfigError, match="topic: found"):
        check_filter(topic)
    with pytest.raises(ConfigError):
        MqttConfig(topics=(topic,))


@pytest.mark.parametrize("topic", FINE, ids=lambda topic: ascii(topic[:20]))
def test_what_is_fine_goes_as_it_is(topic: str) -> None:
    """A topic is its UTF-8 with its length before it, and a filter as well."""
    data = topic.encode()
    assert check_topic(topic) == check_filter(topic) == len(data).to_bytes(2, "big") + data


@pytest.mark.parametrize("topic", FILTERS_ONLY)
def test_filters_are_fine_where_they_belong(topic: str) -> None:
    """A receiver takes them; a sender and a will do not."""
    assert MqttConfig(topic=topic).filters == (topic,)
    with pytest.raises(ConfigError):
        MqttSender(MqttConfig(topic=topic))
    with pytest.raises(ConfigError):
        Will(topic=topic)


@given(st.text(st.characters(exclude_categories=()), max_size=20) | st.text("a/+#$\0\n", max_size=12))
def test_any_text_is_a_topic_or_an_error(text: str) -> None:
    """Nothing but `ConfigError` comes of any text, and whatever is a topic is a filter too."""
    fine = []
    for check in (check_topic, check_filter):
        try:
            fine.append(check(text))
        except ConfigError:
            fine.append(None)
    assert fine[0] is None or fine[0] == fine[1]


@pytest.mark.parametrize(
    "options",
    [
        {"clean_session": False}, {"password": "x"}, {"key_file": "x"}, {"client_id": "a\0"}, {"user": "a\0"},
        {"host": ""}, {"port": 0}, {"qos": 3}, {"protocol": "4"}, {"max_inflight": 0}, {"keep_alive": -1},
        {"max_size": 2**28}, {"will": {"payload": "x"}}, {"colour": "red"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_wrong_options_are_told(options: dict[str, object]) -> None:
    """The error names the option or the one that goes with it."""
    with pytest.raises(ConfigError):
        MqttConfig.from_mapping(options)


@given(
    st.lists(st.tuples(st.sampled_from([0x30, 0x32, 0x40, 0x90]), st.binary(max_size=300)), max_size=20),
    st.data(),
)
def test_packets_are_found_however_the_stream_is_cut(packets: list[wire.Packet], data: st.DataObject) -> None:
    """The same packets come out, whatever pieces the bytes come in."""
    stream = b"".join(wire.packet(first, body) for first, body in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    reader = wire.PacketReader(300)
    found = [
        each
        for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for each in reader.feed(stream[a:b])
    ]
    assert found == packets


@given(st.integers(301, 100_000), st.integers(1, 4000), st.sampled_from([0x30, 0x32]))
def test_a_large_message_is_never_held(size: int, piece: int, first: int) -> None:
    """Its topic and identifier come out, its body is skipped, and the next packet is found."""
    topic = b"\0\3a/b" + (b"\1\2" if first == 0x32 else b"")
    stream = wire.packet(first, topic + bytes(size)) + wire.packet(0x30, b"\0\1t")
    reader = wire.PacketReader(300)
    found = []
    for at in range(0, len(stream), piece):
        found += reader.feed(stream[at : at + piece])
        assert len(reader._buffer) <= 310 + piece
    assert found == [(first | wire.OVERSIZE, topic), (0x30, b"\0\1t")]


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(5_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_any_bytes_are_packets_or_malformed(count: int) -> None:
    """Whatever comes, the reader gives packets or says that it is not MQTT, and holds no more than it may."""
    rng = random.Random(1)

    def attempt() -> bytes:
        reader = wire.PacketReader(1000)
        pieces = [rng.randbytes(rng.randrange(40)) for _ in range(3)]
        with contextlib.suppress(wire.Malformed):
            for piece in pieces:
                for _, body in reader.feed(piece):
                    wire.properties_of(body, 0)
            assert len(reader._buffer) <= 200
        return b"".join(pieces)

    trials = Trials(rng, attempt)
    for _ in range(10):
        trials.run(count // 10)
    trials.judge()


def test_properties_are_read() -> None:
    """Each kind of property gives its value, a name that comes twice both of its values."""
    body = b"\x01\x01" + b"\x02\0\0\0\x05" + b"\x03\0\1t" + b"\x09\0\2\xff\xfe" + b"\x0b\x81\x01"
    body += b"\x21\x01\x00" + b"\x26\0\1a\0\1b" * 2
    assert wire.properties_of(bytes((len(body),)) + body + b"rest", 0) == (
        {
            "payload_format": 1, "message_expiry": 5, "content_type": "t", "correlation_data": b"\xff\xfe",
            "subscription": 129, "receive_maximum": 256, "user": [("a", "b"), ("a", "b")],
        },
        len(body) + 1,
    )  # fmt: skip
