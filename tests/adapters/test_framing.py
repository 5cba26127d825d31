"""Laws of framing: the pieces a stream comes in do not matter, and nothing costs more than itself."""

import os
import random
import time
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given
from trials import Trials

from nexus.adapters._framing import (
    ByteOrder,
    FixedFramer,
    Framer,
    FramingError,
    LengthFramer,
    LineFramer,
    make_framer,
)
from nexus.errors import ConfigError, PackerError

ORDERS: tuple[ByteOrder, ...] = ("big", "little")
SEED = int(os.environ.get("NEXUS_SEED", "0"))

terminators = st.sampled_from([b"\n", b"\r\n", b"aa", b"aba", b"aab", b"\0"])
streams = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n", b"\r\n", b"aab", b"\0"]), max_size=60).map(
    b"".join
)
frames = st.lists(st.binary(max_size=20), max_size=20)
chances = st.builds(random.Random, st.integers(0, 2**32))
"""Seeded: Hypothesis would draw each number by itself, and give up at some hundred."""


def pieces(stream: bytes, rng: random.Random, longest: int = 9) -> list[bytes]:
    """Cut a stream at random places; some pieces are empty."""
    found, at = [], 0
    while at < len(stream):
        size = rng.randint(0, longest)
        found.append(stream[at : at + size])
        at += size
    return found


def feed_all(framer: Framer, chunks: list[bytes]) -> list[bytes]:
    """Give a framer a stream in pieces, and its end."""
    return [frame for chunk in chunks for frame in framer.feed(chunk)] + framer.finish()


def lines_of(stream: bytes, terminator: bytes, max_size: int) -> tuple[list[bytes], int]:
    """Find the lines of a whole stream, and how many are too long."""
    *lines, last = stream.split(terminator)
    lines += [last] if last else []
    short = [line for line in lines if len(line) <= max_size]
    return short, len(lines) - len(short)


def fuzz_lines(rng: random.Random) -> bytes:
    """Try one stream of lines in one cut."""
    terminator = rng.choice([b"\n", b"\r\n", b"aa", b"aba", b"aab"])
    max_size = rng.randint(1, 6)
    stream = bytes(rng.choices(b"ab\r\n", k=rng.randint(0, 40)))
    framer = LineFramer(terminator, max_size)
    found = []
    for chunk in pieces(stream, rng):
        found += framer.feed(chunk)
        assert framer.held < max_size + len(terminator)
    found += framer.finish()
    assert (found, framer.rejected.get("size", 0)) == lines_of(stream, terminator, max_size)
    return stream


def fuzz_lengths(rng: random.Random) -> bytes:
    """Try one stream of length-led frames, sound or not, in one cut."""
    width, order = rng.randint(1, 3), rng.choice(ORDERS)
    stream = bytes(rng.choices(range(8), weights=[9, 4, 2, 2, 1, 1, 1, 1], k=rng.randint(0, 40)))
    whole, cut = (make_framer("length", width=width, byteorder=order, max_size=5) for _ in "ab")
    expected, broke = [], False
    try:
        expected = whole.feed(stream)
        whole.feed(b"")
    except FramingError:
        broke = True
    found: list[bytes] = []
    try:
        for chunk in pieces(stream, rng):
            found += cut.feed(chunk)
            assert cut.held < 5 + width
        cut.feed(b"")
    except FramingError:
        assert broke
    else:
        assert not broke
    assert (found, cut.finish(), cut.rejected) == (expected, whole.finish(), whole.rejected)
    return stream


@pytest.mark.parametrize("fuzz", [fuzz_lines, fuzz_lengths])
@pytest.mark.parametrize(
    "number", [100_000, pytest.param(5_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_any_bytes_in_any_pieces_give_the_same_frames(
    fuzz: Callable[[random.Random], bytes], number: int
) -> None:
    """Random bytes, cut at random, give what the whole gives, soon, with no more held than one frame."""
    rng = random.Random(SEED)
    trials = Trials(rng, lambda: fuzz(rng))
    for _ in range(10):
        trials.run(number // 10)
    trials.judge()


@given(streams, terminators, st.integers(1, 10), chances)
def test_lines_do_not_depend_on_the_pieces(
    stream: bytes, terminator: bytes, max_size: int, rng: random.Random
) -> None:
    """Any cut of a stream gives the lines of the whole, and rejects only those that are too long."""
    framer = LineFramer(terminator, max_size)
    found = feed_all(framer, pieces(stream, rng))
    assert (found, framer.rejected.get("size", 0)) == lines_of(stream, terminator, max_size)


@given(frames, terminators, chances)
def test_packed_lines_come_back(lines: list[bytes], terminator: bytes, rng: random.Random) -> None:
    """What `pack` takes comes back; what it refuses would not have."""
    framer, stream, sent = LineFramer(terminator), b"", []
    for line in lines:
        try:
            stream += framer.pack(line)
        except PackerError:
            assert (line + terminator).split(terminator)[0] != line
        else:
            sent.append(line)
    assert feed_all(framer, pieces(stream, rng)) == sent


@given(frames, st.integers(1, 8), st.sampled_from(ORDERS), chances)
def test_packed_lengths_come_back(
    sent: list[bytes], width: int, order: ByteOrder, rng: random.Random
) -> None:
    """Frames led by their length come back from any cut, whatever they hold."""
    framer = make_framer("length", width=width, byteorder=order)
    assert feed_all(framer, pieces(b"".join(map(framer.pack, sent)), rng)) == sent
    assert framer.rejected == {}


@given(st.lists(st.binary(min_size=3, max_size=3)), chances)
def test_packed_fixed_frames_come_back(sent: list[bytes], rng: random.Random) -> None:
    """Frames of one size come back from any cut."""
    framer = FixedFramer(3)
    assert feed_all(framer, pieces(b"".join(map(framer.pack, sent)), rng)) == sent


def test_overlong_line_costs_itself_only() -> None:
    """100 MB without an end are skipped in constant memory; the lines before and after are there."""
    framer = LineFramer(max_size=1000)
    assert framer.feed(b"before\nlong") == [b"before"]
    for _ in range(1600):
        assert framer.feed(b"x" * 65536) == []
        assert framer.held <= 1000
    assert framer.feed(b"\nafter\n") == [b"after"]
    assert framer.rejected == {"size": 1}


def test_line_of_the_greatest_size_passes() -> None:
    """`max_size` counts the line without its terminator, also where the terminator comes in two pieces."""
    framer = LineFramer(b"\r\n", max_size=4)
    assert framer.feed(b"1234\r") == []
    assert framer.feed(b"\n12345\r") == [b"1234"]
    assert framer.feed(b"\nok\r\n") == [b"ok"]
    assert framer.rejected == {"size": 1}


def test_finish_gives_the_last_line_and_begins_anew() -> None:
    """The end of a stream ends its last line; nothing of it goes into the next stream."""
    framer = LineFramer()
    assert framer.feed(b"a\nb") == [b"a"]
    assert framer.finish() == [b"b"]
    assert framer.finish() == []
    assert framer.feed(b"c\n") == [b"c"]


def test_reset_forgets_half_a_line_and_keeps_the_count() -> None:
    """After a reset no half of an older stream is joined to the new one."""
    framer = LineFramer(max_size=4)
    framer.feed(b"toolong")
    framer.reset()
    assert framer.feed(b"x\n") == [b"x"]
    assert framer.rejected == {"size": 1}


@pytest.mark.parametrize("framer", [FixedFramer(4), LengthFramer(2)])
def test_cut_binary_frame_is_counted(framer: Framer) -> None:
    """A stream that ends within a binary frame gives nothing of it, and says so."""
    assert framer.feed(b"\x00\x09x") == []
    assert framer.finish() == []
    assert framer.rejected == {"cut": 1}
    assert framer.held == 0


def test_impossible_length_ends_the_stream_after_what_was_sound() -> None:
    """The frames before a claim of 4 GiB are given; then nothing more, until a reset."""
    framer = LengthFramer(max_size=100)
    assert framer.feed(b"\0\0\0\x02ok\xff\xff\xff\xff") == [b"ok"]
    for _ in range(2):
        with pytest.raises(FramingError, match="4294967295 bytes, allowed: at most 100"):
            framer.feed(b"more")
    framer.reset()
    assert framer.feed(b"\0\0\0\x01x") == [b"x"]
    assert framer.rejected == {"size": 1}


def test_big_frame_in_small_pieces_takes_linear_time() -> None:
    """A mebibyte, byte by byte, is not copied for every byte: twice the bytes take about twice the time."""
    for framer in (LineFramer(), LengthFramer(), FixedFramer(2**18)):
        stream = framer.pack(b"x" * 2**18)
        began = time.process_time()
        assert [len(frame) for at in range(len(stream)) for frame in framer.feed(stream[at : at + 1])] == [
            2**18
        ]
        assert time.process_time() - began < 3  # 0.2 s; were it quadratic, 10 s and more


def test_bulk_is_fast() -> None:
    """Lines of 20 bytes in pieces of 64 KiB go at more than two million a second, also with a small limit."""
    chunk = (b"x" * 19 + b"\n") * 3276 + b"tail"
    for max_size in (30, 2**20):
        best = 0.0
        for _ in range(5):
            framer, began = LineFramer(max_size=max_size), time.process_time()
            number = sum(len(framer.feed(chunk)) for _ in range(20))
            best = max(best, number / max(1e-9, time.process_time() - began))
        assert best > 2e6


@pytest.mark.parametrize(
    ("framer", "frame"),
    [
        (LineFramer(), b"a\nb"),
        (LineFramer(b"aa"), b"xa"),  # its end and the terminator's begin would make a terminator
        (LineFramer(max_size=3), b"four"),
        (FixedFramer(3), b"four"),
        (LengthFramer(1), b"x" * 256),
        (LengthFramer(max_size=3), b"four"),
    ],
)
def test_pack_refuses_what_would_not_come_back(framer: Framer, frame: bytes) -> None:
    """A frame the other side would cut elsewhere, or refuse, is refused here."""
    with pytest.raises(PackerError):
        framer.pack(frame)


@pytest.mark.parametrize(
    ("kind", "arguments", "names"),
    [
        ("lines", {}, "framing: found 'lines', allowed: 'line', 'fixed' or 'length'"),
        ("line", {"terminator": b""}, "terminator: found b''"),
        ("line", {"max_size": 0}, "max_size: found 0"),
        ("fixed", {}, "size: found none"),
        ("fixed", {"size": 0}, "size: found 0"),
        ("fixed", {"size": 9, "max_size": 8}, "size: found 9, allowed: at most max_size, 8"),
        ("length", {"width": 9}, "width: found 9, allowed: 1 to 8 bytes"),
        ("length", {"byteorder": "middle"}, "byteorder: found 'middle'"),
    ],
)
def test_wrong_framing_is_named(kind: str, arguments: dict[str, object], names: str) -> None:
    """A framer that makes no sense is refused: what was found, what is allowed."""
    with pytest.raises(ConfigError, match=names):
        make_framer(kind, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["line", "fixed", "length"])
def test_every_kind_keeps_the_protocol(kind: str) -> None:
    """What `make_framer` gives is a `Framer`, and takes any bytes-like piece."""
    framer = make_framer(kind, size=4)
    assert isinstance(framer, Framer)
    assert feed_all(framer, [bytes(bytearray(framer.pack(b"four")))]) == [b"four"]
    for kept in (bytearray, memoryview):
        packed = framer.pack(b"five")
        found = framer.feed(kept(packed[:3])) + framer.feed(kept(packed[3:] + packed))
        assert found == [b"five", b"five"]
        assert all(type(frame) is bytes for frame in found)


@pytest.mark.parametrize("framer", [LineFramer(b"\r\n", max_size=4), FixedFramer(4), LengthFramer()])
def test_unfinished_frame_is_seen(framer: Framer) -> None:
    """Between frames nothing is unfinished; within one, also one that is skipped, something is."""
    seen = [framer.unfinished]
    for byte in framer.pack(b"four"):
        framer.feed(bytes([byte]))
        seen.append(framer.unfinished)
    assert seen == [False, *[True] * (len(seen) - 2), False]
    if isinstance(framer, LineFramer):
        framer.feed(b"toolong")
        assert framer.unfinished
