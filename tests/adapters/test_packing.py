"""Laws about turning data into bytes and back."""

import contextlib
import dataclasses
import datetime
import enum
import json
import math
import uuid
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_use import resident

from nexus.adapters import _msgpack, _typed
from nexus.adapters._json import JSONFault, refuse_wide
from nexus.adapters.packing import (
    BytesPacker,
    BytesUnpacker,
    CSVPacker,
    CSVUnpacker,
    JSONPacker,
    JSONUnpacker,
    MsgpackPacker,
    MsgpackUnpacker,
    TextPacker,
    TextUnpacker,
    TypedPacker,
    TypedUnpacker,
    packing,
)
from nexus.errors import BadCall, ConfigError, PackerError, UnpackerError

INT64 = st.integers(-(2**63), 2**64 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MARKS = st.text(st.sampled_from('{}[]:,"\\ 0') | st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | INT64 | FINITE | MARKS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(MARKS, inner), max_leaves=20)
BINARY = st.recursive(
    SCALARS | st.floats() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT | st.binary(), inner),
    max_leaves=20,
)


@attrs.frozen
class Position:
    """Where something is."""

    x: float
    y: float = 0.0


class Grade(enum.IntEnum):
    """How good something is."""

    POOR = 1
    GOOD = 2


@attrs.frozen
class Reading:
    """What something said."""

    name: str
    count: int
    grade: Grade = Grade.GOOD
    at: datetime.datetime | None = None
    track: list[Position] = attrs.field(factory=list)


READINGS = st.builds(
    Reading,
    TEXT,
    INT64,
    st.sampled_from(Grade),
    st.none() | st.datetimes(timezones=st.just(datetime.UTC)),
    st.lists(st.builds(Position, FINITE, FINITE)),
)


def unpack(payload: bytes, **limits: int) -> Any:
    """Read JSON, without what is known beside it."""
    return JSONUnpacker(**limits)(payload)[0]


# There and back.


@given(JSON)
def test_json_comes_back(data: Any) -> None:
    """What is written as JSON is read equal, and is what the json module reads."""
    packed = JSONPacker()(data)
    assert unpack(packed) == data == json.loads(packed)


@given(JSON, st.booleans(), st.sampled_from([None, (",", ":"), (" , ", " : ")]), st.none() | st.just(1))
def test_json_of_others_is_read(data: Any, ascii: bool, separators: Any, indent: int | None) -> None:
    """What the json module writes is read equal, in any of its forms."""
    text = json.dumps(data, ensure_ascii=ascii, separators=separators, indent=indent)
    assert unpack(text.encode()) == data


@given(TEXT, st.sampled_from(["utf-8", "utf-16", "utf-32-be"]))
def test_text_comes_back(data: str, encoding: str) -> None:
    """Text is read as it was written."""
    assert TextUnpacker(encoding)(TextPacker(encoding)(data)) == (data, {})


@given(st.binary())
def test_bytes_come_back(data: bytes) -> None:
    """Bytes pass as they are, whatever holds them."""
    assert BytesPacker()(bytearray(data)) == BytesPacker()(memoryview(data)) == data
    assert BytesUnpacker()(data) == (data, {})


@given(st.lists(TEXT, min_size=1), st.sampled_from(",;\t|-]^"), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_rows_come_back(row: list[str], delimiter: str, end: bytes) -> None:
    """A row of any text is read as it was written, with or without the end of its line."""
    packed = CSVPacker(delimiter=delimiter)(row)
    assert CSVUnpacker(delimiter=delimiter)(packed + end) == (row, {})


@given(st.dictionaries(TEXT, TEXT, min_size=1))
def test_rows_with_names_come_back(row: dict[str, str]) -> None:
    """A mapping of text is read equal by who knows the fields, or the header."""
    packer = CSVPacker()
    packed = packer(row)
    assert CSVUnpacker(row)(packed) == (row, {})
    unpacker = CSVUnpacker(header=True)
    names = tuple(row)
    if not names[0].startswith("\ufeff"):
        assert unpacker(packer.header()) == ({}, {"header": names})
        assert unpacker(packed) == ((row, {}) if tuple(row.values()) != names else ({}, {"header": names}))


@given(BINARY)
def test_msgpack_comes_back(data: Any) -> None:
    """What is written as MessagePack is read equal; NaN, bytes and keys of bytes too."""
    assert repr(MsgpackUnpacker()(MsgpackPacker()(data))[0]) == repr(data)


@given(READINGS, st.booleans())
def test_typed_data_comes_back(data: Reading, is_json: bool) -> None:
    """Objects of a class are read equal, over JSON and over MessagePack."""
    packer = TypedPacker(Reading, JSONPacker() if is_json else MsgpackPacker())
    unpacker = TypedUnpacker(Reading, JSONUnpacker() if is_json else MsgpackUnpacker())
    assert unpacker(packer(data)) == (data, {})


@pytest.mark.parametrize(
    ("name", "data"),
    [("json", {"a": 1}), ("text", "é"), ("bytes", b"\xff"), ("csv", ["a", "b"]), ("msgpack", {"a": b"b"})],
)
def test_every_packing_has_a_name(name: str, data: Any) -> None:
    """A packing is found by its name, and its halves fit each other."""
    packer, unpacker = packing(name)
    assert unpacker(packer(data)) == (data, {})


def test_an_unknown_packing_is_answered_with_those_there_are() -> None:
    """A name that is none raises ConfigError with the names."""
    with pytest.raises(ConfigError, match=r"'jsn'; allowed are json, text, bytes, csv, msgpack"):
        packing("jsn")


# Writing.


@attrs.define
class Slotted:
    _hidden: int
    inner: Any = None


@dataclasses.dataclass
class Plain:
    _hidden: int
    inner: Any = None


class Colour(enum.Enum):
    RED = "red"


class Ratio(float):
    pass


@pytest.mark.parametrize("kind", [Slotted, Plain])
def test_objects_go_as_all_their_fields(kind: Callable[..., Any]) -> None:
    """Objects of attrs and dataclasses, within each other, keep each field; enums and dates have a form."""
    data = kind(1, (kind(2), Colour.RED, datetime.date(2026, 1, 2), uuid.UUID(int=0), Ratio(0.5), None))
    inner = [{"_hidden": 2, "inner": None}, "red", "2026-01-02", str(uuid.UUID(int=0)), 0.5, None]
    assert unpack(JSONPacker()(data)) == {"_hidden": 1, "inner": inner}


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
LOOP: dict[str, Any] = {}
LOOP["a"] = Slotted(1, LOOP)
DEEP: Any = None
for _ in range(100_000):
    DEEP = [DEEP]
NO_JSON = {
    "bytes": b"x",
    "set": {1, 2},
    "object": object(),
    "nan": math.nan,
    "nan and null": {"a": None, "b": math.nan},
    "nan deep": {"a": [None, {"b": (1.0, math.inf)}]},
    "nan in attrs": Slotted(1, -math.inf),
    "nan in a dataclass": [Plain(1, math.nan)],
    "nan of its own kind": {"a": Ratio(math.nan)},
    "nan in an enum": enum.Enum("Odd", {"NAN": math.nan}).NAN,  # type: ignore[attr-defined]
    "circle": CIRCLE,
    "loop": LOOP,
    "deep": DEEP,
    "long": [2**64],
    "very long": 10**5000,
    "key": {1: 2},
    "surrogate": "\ud800",
    "surrogate key": {"\udfff": 1},
}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON.keys())
def test_what_is_not_json_is_refused(data: Any) -> None:
    """What no reader would understand, or would read as something else, raises PackerError."""
    with pytest.raises(PackerError, match=f"cannot pack {type(data).__qualname__} data: .") as caught:
        JSONPacker()(data)
    assert caught.value.data is data
    assert str(caught.value).isascii()


def test_null_is_no_nan() -> None:
    """None, and texts that say null, are written in any place."""
    for data in (None, "null", {"a": None, "b": 1.5}, [None, [None, 1.5]], {"null": Plain(1)}):
        assert b"null" in JSONPacker()(data)


def test_a_default_writes_what_has_no_form() -> None:
    """What nothing else takes is given to `default`; what that raises, or a NaN of it, is a PackerError."""
    assert JSONPacker(lambda data: sorted(data))({"a": {2, 1}, "b": Plain(1)}).startswith(b'{"a":[1,2]')
    with pytest.raises(PackerError, match="ZeroDivisionError"):
        JSONPacker(lambda data: 1 / 0)({1})
    with pytest.raises(PackerError, match="NaN"):
        JSONPacker(lambda data: math.nan)({1})


@pytest.mark.parametrize("data", [{1, 2}, CIRCLE, LOOP, DEEP, 2**64, object(), "\ud800"])
def test_what_is_not_msgpack_is_refused(data: Any) -> None:
    """What MessagePack has no form for raises PackerError."""
    with pytest.raises(PackerError):
        MsgpackPacker()(data)


def test_what_is_not_of_the_class_is_refused() -> None:
    """Data of another class, or that its base refuses, raises PackerError."""
    with pytest.raises(PackerError, match="Position is expected"):
        TypedPacker(Position)(Reading("a", 1))  # type: ignore[arg-type]
    with pytest.raises(PackerError, match=r"cannot pack Position data: NaN"):
        TypedPacker(Position)(Position(math.nan))


def test_text_and_bytes_refuse_each_other() -> None:
    """A packer of text takes no bytes, one of bytes no text or number, and each says what and where."""
    cases: list[tuple[Any, Any]] = [(TextPacker(), b"x"), (BytesPacker(), "x"), (BytesPacker(), 5)]
    for packer, data in cases:
        with pytest.raises(PackerError, match="expected"):
            packer(data)
    with pytest.raises(PackerError, match=r"ascii has no '\\xe9', character 3"):
        TextPacker("ascii")("caf\xe9s")
    with pytest.raises(UnpackerError, match="not utf-8: byte 0xff at 2: invalid start byte"):
        TextUnpacker()(b"ab\xff")


@pytest.mark.parametrize("encoding", ["no such", "hex", "rot13", "a\0b"])
def test_an_encoding_must_be_one_of_text(encoding: str) -> None:
    """What is no encoding of text is refused before anything is packed."""
    for kind in (TextPacker, TextUnpacker):
        with pytest.raises(ConfigError, match="encoding is"):
            kind(encoding)


# Reading JSON.

BAD = {
    "empty": (b"", "not JSON"),
    "truncated": (b'{"a": 1', "not JSON"),
    "trailing": (b"{} {}", "not JSON"),
    "not UTF-8": (b'"\xff"', "not JSON"),
    "byte order mark": (b"\xef\xbb\xbf1", "not JSON"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not JSON"),
    "lone surrogate": (b'"\\ud800"', "not JSON"),
    "NaN": (b"NaN", "not JSON"),
    "infinity": (b"[-Infinity]", "not JSON"),
    "too large": (b"1e400", "too large"),
    "long": (b'{"a":18446744073709551616}', "64 bits"),
    "long, spaced": (b'{"a": -9223372036854775809, "b": 1}', "64 bits"),
    "long inside": (b'{"a":[1,{"b":18446744073709551616}]}', "64 bits"),
    "5000 digits": (b"9" * 300, "64 bits"),
    "twice": (b'{"a":1,"a":1}', "'a' comes twice"),
    "twice, spaced": (b'{"a": 1, "a": 2}', "'a' comes twice"),
    "twice inside": (b'[{"b":{"a":1,"a":2}}]', "'a' comes twice"),
    "twice, hidden": (b'{"a": "\\u003a", "a": "\\u003A"}', "'a' comes twice"),
    "twice, spelt differently": (b'{"a":1,"\\u0061":1}', "'a' comes twice"),
    "deep": (b"[" * 33 + b"]" * 33, "more than 32 deep"),
    "deep objects": (b'{"a":' * 33 + b"1" + b"}" * 33, "more than 32 deep"),
    "very deep": (b"[" * 2000 + b"]" * 2000, "too deep"),
    "bomb": (b"[" * 1_000_000, "more than 32 deep"),
    "wide": (b"[" + b"0," * 10_000 + b"0]", "more than 10000 values"),
    "wide bomb": (b"[" + b"{}," * 300_000 + b"{}]", "more than 10000 values"),
    "wide, in texts": (b"[" + b'",",' * 200_000 + b"1]", "more than 10000 values"),
    "quotes": (b'"' * 1_000_000, "not JSON"),
    "escaped quotes": (b'["' + b'\\"' * 400_000 + b",[{" * 10_000 + b"\\", "not JSON"),
    "large": (b'"' + b"x" * 1024 * 1024 + b'"', "1048576 are allowed"),
}


@pytest.mark.parametrize(("payload", "why"), BAD.values(), ids=BAD.keys())
def test_what_is_not_strict_json_is_refused(payload: bytes, why: str) -> None:
    """Whatever two readers may read differently, or is over a limit, raises UnpackerError, which says why."""
    with pytest.raises(UnpackerError, match=why) as caught:
        unpack(payload)
    assert caught.value.payload is payload
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("space", ["", " "])
def test_limits_are_reached_before_they_are_exceeded(space: str) -> None:
    """What is just within a limit is read, and what is just beyond is not, in each form of writing."""
    for within, limits in (
        ([[[]]], {"max_depth": 3}),
        ({"a": {"b": {}}}, {"max_depth": 3}),
        ({"a": {}}, {"max_depth": 2}),
        ([1, 2, [3]], {"max_nodes": 5}),
        ({"a": 1, "b": {"c": 2}}, {"max_nodes": 4}),
        ({"a": 1}, {"max_size": 7 + len(space)}),
    ):
        payload = json.dumps(within, separators=(f",{space}", f":{space}")).encode()
        assert unpack(payload, **limits) == within
        with pytest.raises(UnpackerError):
            unpack(payload, **{name: limit - 1 for name, limit in limits.items()})
    with pytest.raises(ConfigError, match="max_nodes is 0"):
        JSONUnpacker(max_nodes=0)


def nodes(value: Any) -> int:
    """Count the values, all levels together."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(nodes, below))


JSON_VALUES = st.recursive(
    st.integers(0, 9) | st.text('\\",:[]{}n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text('\\",:[]{}n', max_size=3), inner, max_size=5)
    ),
)


@given(JSON_VALUES, st.integers(1, 20))
def test_the_look_ahead_is_right(value: Any, most: int) -> None:
    """What is refused has more than twice as many values as are allowed, and what passes up to four times."""
    data = json.dumps(value).encode()
    try:
        refuse_wide(data, max_nodes=most)
    except JSONFault:
        assert nodes(value) > 2 * most
    else:
        assert nodes(value) <= 4 * most


def test_large_and_good_is_read() -> None:
    """Long texts full of marks, and as many values as are allowed, are read."""
    for data in ("[{,:" * 200_000, ["[,]" * 10] * 9_999, {"k" * 90 + str(i): i for i in range(9_999)}):
        assert unpack(JSONPacker()(data)) == data
        assert unpack(json.dumps(data).encode()) == data


def reference(payload: bytes) -> Any:
    """Read JSON as strictly with the json module; raise ValueError or RecursionError."""

    def integer(text: str) -> int:
        if not -(2**63) <= (found := int(text)) < 2**64:
            raise ValueError
        return found

    def real(text: str) -> float:
        if not math.isfinite(found := float(text)):
            raise ValueError
        return found

    def constant(text: str) -> None:
        raise ValueError

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            raise ValueError
        return dict(found)

    text = payload.decode()
    data = json.loads(
        text, parse_int=integer, parse_float=real, parse_constant=constant, object_pairs_hook=pairs
    )
    json.dumps(data, ensure_ascii=False).encode()  # lone surrogates
    return data


NUMBERS = ["1", "-0", "1.5", "1e5", "1e999", "18446744073709551616", "9" * 19, "1.0000000000000000001"]
MARKS_OF_JSON = ['{"a":', '"a":', '"a": ', "[", "]", "}", ",", ", ", " ", "\\", '"', '": ']
WORDS = ["null", "NaN", '"x:y"', '"\\u003a"']
PIECES = st.sampled_from(NUMBERS + MARKS_OF_JSON + WORDS)


@given(st.lists(PIECES, max_size=12).map("".join).map(str.encode) | st.binary(max_size=20))
def test_only_what_a_slow_reader_takes_is_read(payload: bytes) -> None:
    """The fast ways to read take what a plain and strict reader takes, and find the same."""
    try:
        expected = reference(payload)
    except ValueError:
        with pytest.raises(UnpackerError):
            unpack(payload)
    else:
        assert repr(unpack(payload)).replace("-0.0", "0") == repr(expected).replace("-0.0", "0")


# Reading the others.


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x81\xa1a", "cannot unpack"),
        (b"\x01\x01", "extra data"),
        (b"\x81\x01\x01", "not allowed for map key"),
        (b"\x82\xa1a\x01\xa1a\x02", "comes twice"),
        (b"\xa1\xff", "utf-8"),
        (b"\xc1", "cannot unpack"),
        (b"\x91" * 33 + b"\x01", "more than 32 deep"),
        (b"\x91" * 100_000, "cannot unpack"),
        (b"\xdd\xff\xff\xff\xff", "cannot unpack"),
        (b"\xdc\x27\x10" * 300, "cannot unpack"),
        (b"\xdc\x27\x10" * 100_000, "cannot unpack"),
        (b"\xdc\x03\xe8" + (b"\xdc\x00\x64" + b"\x90" * 100) * 1000, "more than 10000 values"),
        (b"\xc6\x00\x10\x00\x00" + b"x" * 2**20, "are allowed"),
        (b"\xc7\x0c\xff" + b"\xff" * 12, "cannot unpack"),
    ],
)
def test_what_is_not_msgpack_is_not_read(payload: bytes, why: str) -> None:
    """Broken, ambiguous or hostile MessagePack raises UnpackerError."""
    with pytest.raises(UnpackerError, match=why):
        MsgpackUnpacker()(payload)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"name":"a","count":"5"}', r"int is expected, not str @ \$.count"),
        (b'{"name":"a","count":true}', r"int is expected, not bool @ \$.count"),
        (b'{"name":"a","count":1.0}', r"int is expected, not float @ \$.count"),
        (b'{"name":null,"count":1}', r"str is expected, not NoneType @ \$.name"),
        (b'{"name":"a"}', r"'count' is missing @ \$"),
        (b'{"name":"a","count":1,"x":1}', r"extra fields found \(x\) @ \$"),
        (
            b'{"name":"a","count":1,"track":[{"x":1},{"x":"1"}]}',
            r"float is expected, not str @ \$.track\[1\].x",
        ),
        (b'{"name":"a","count":1,"track":[3]}', r"Position is expected @ \$.track\[0\]"),
        (b'{"name":"a","count":1,"grade":3}', r"Grade @ \$.grade"),
        (b'{"name":"a","count":1,"at":"soon"}', r"\$.at"),
        (b"3", "not Reading: "),
        (b"[[", "not JSON"),
    ],
)
def test_what_is_not_of_the_class_is_not_read(payload: bytes, why: str) -> None:
    """Nothing is guessed or left out, and the error says where in the object it is wrong."""
    with pytest.raises(UnpackerError, match=why) as caught:
        TypedUnpacker(Reading)(payload)
    assert str(caught.value).isprintable()


def test_a_class_that_cannot_be_made_is_found_early() -> None:
    """A class that cattrs has no way to make raises ConfigError before anything is read."""
    with pytest.raises(ConfigError, match="cattrs cannot make objects of"):
        TypedUnpacker(Callable)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [MsgpackPacker, MsgpackUnpacker, lambda: packing("msgpack")])
def test_without_msgpack_the_extra_is_named(make: Callable[[], object], monkeypatch: Any) -> None:
    """Where msgpack is not installed, asking for it says what to install."""
    monkeypatch.setattr(_msgpack, "msgpack", None)
    with pytest.raises(ConfigError, match=r"pip install 'event-nexus\[msgpack\]'"):
        make()


@pytest.mark.parametrize("make", [TypedPacker, TypedUnpacker])
def test_without_cattrs_the_extra_is_named(make: Callable[[type], object], monkeypatch: Any) -> None:
    """Where cattrs is not installed, asking for it says what to install."""
    monkeypatch.setattr(_typed, "cattrs", None)
    with pytest.raises(ConfigError, match=r"pip install 'event-nexus\[cattrs\]'"):
        make(Reading)


# CSV.


def test_rows_are_quoted_as_rfc_4180_says() -> None:
    """Delimiters, quotes and line breaks are quoted; each kind of value has its text."""
    row = [
        "a,b",
        'say "x"',
        "two\r\nlines",
        " x ",
        None,
        True,
        1.5,
        Colour.RED,
        datetime.date(2026, 1, 2),
        [1, None],
    ]
    packed = CSVPacker()(row)
    assert packed == b'"a,b","say ""x""","two\r\nlines", x ,,true,1.5,red,2026-01-02,"[1,null]"'
    assert CSVPacker()([""]) == b'""'


def test_mappings_are_flattened_into_the_fields_of_the_first() -> None:
    """Inner values are `outer.inner`; later rows keep the order, and what they lack is empty."""
    packer = CSVPacker()
    with pytest.raises(BadCall, match="no fields"):
        packer.header()
    assert packer({"t": 1, "at": {"x": 2, "y": {"z": 3}}, "n": {}}) == b"1,2,3,"
    assert packer.header() == b"t,at.x,at.y.z,n"
    assert packer({"at": {"x": 5}}) == b",5,,"


def test_new_names_are_refused_or_ignored() -> None:
    """A name that is no field raises PackerError naming it, unless it is to be ignored."""
    with pytest.raises(PackerError, match=r"no such field: 'c', 'd.e'; the fields are 'a', 'b'"):
        CSVPacker(["a", "b"])({"a": 1, "c": 2, "d": {"e": 3}})
    assert CSVPacker(["a", "b"], extra="ignore")({"c": 2, "b": 1}) == b",1"


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"x",
        5,
        [],
        {},
        [object()],
        [b"x"],
        {1: 2},
        {"a": {"b": 1}, "a.b": 2},
        LOOP | {"b": LOOP},
        "\ud800",
        ["\ud800"],
        [[math.nan]],
        {"a": CIRCLE},
    ],
)
def test_what_is_no_row_is_refused(data: Any) -> None:
    """What is not a row of texts and numbers raises PackerError, and leaves the packer as it was."""
    packer = CSVPacker()
    with pytest.raises(PackerError):
        packer(data)
    assert packer.fields is None


def test_a_sequence_has_as_many_values_as_there_are_fields() -> None:
    """Where fields are known, a sequence of another length raises PackerError."""
    with pytest.raises(PackerError, match="3 values for 2 fields: 'a', 'b'"):
        CSVPacker(["a", "b"])([1, 2, 3])


def test_types_are_called_with_the_text() -> None:
    """A field with a type is what that makes of its text; an empty one is None; a bool is read strictly."""
    unpacker = CSVUnpacker(["n", "x", "ok", "s"], types={"n": int, "x": float, "ok": bool})
    assert unpacker(b"1,,false,\n") == ({"n": 1, "x": None, "ok": False, "s": ""}, {})
    with pytest.raises(UnpackerError, match="the field 'n': ValueError: invalid literal"):
        unpacker(b"one,1,true,s")
    with pytest.raises(UnpackerError, match="'ok': ValueError: neither true nor false"):
        unpacker(b"1,1,yes,s")


def test_a_header_is_read_once_and_again_where_it_is_repeated() -> None:
    """The first row names the fields, without a byte order mark; equal rows are headers; reset asks anew."""
    unpacker = CSVUnpacker(header=True, types={"b": int})
    assert unpacker(b"\xef\xbb\xbfa,b\r\n") == ({}, {"header": ("a", "b")})
    assert unpacker(b"x,1\r\n") == ({"a": "x", "b": 1}, {})
    assert unpacker(b"a,b\r\n") == ({}, {"header": ("a", "b")})
    unpacker.reset()
    assert unpacker(b"b\n") == ({}, {"header": ("b",)})
    unpacker.reset()
    with pytest.raises(UnpackerError, match="types of no field: 'b'"):
        unpacker(b"c,d")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        b'"a',
        b'a"b',
        b'"a"b',
        b'a,"b" ,c',
        b"a\nb",
        b"a\rb",
        b"\xff",
        b"a," * 10000 + b"a",
        b'"a",' * 10000 + b"a",
        b'"' * 999999,
        b'"' + b'""' * 400000,
    ],
)
def test_what_is_no_row_is_not_read(payload: bytes) -> None:
    """Stray quotes, line breaks outside of quotes, too many fields and empty rows raise UnpackerError."""
    with pytest.raises(UnpackerError):
        CSVUnpacker()(payload)
    with pytest.raises(UnpackerError):
        CSVUnpacker(["a", "b", "c", "d", "e"])(payload)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CSVPacker(["a", "a"]),
        lambda: CSVPacker([]),
        lambda: CSVPacker("abc"),
        lambda: CSVPacker(extra="drop"),  # type: ignore[arg-type]
        lambda: CSVPacker(delimiter=",,"),
        lambda: CSVPacker(encoding="no such"),
        lambda: CSVUnpacker(delimiter='"'),
        lambda: CSVUnpacker(["a"], header=True),
        lambda: CSVUnpacker(["a"], types={"b": int}),
        lambda: CSVUnpacker(types={"b": int}),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    """A wrong option raises ConfigError when it is given."""
    with pytest.raises(ConfigError):
        make()


@given(st.binary())
def test_any_bytes_are_data_or_an_unpacker_error(payload: bytes) -> None:
    """No bytes raise anything but UnpackerError."""
    for unpacker in (
        JSONUnpacker(),
        TextUnpacker(),
        CSVUnpacker(),
        MsgpackUnpacker(),
        TypedUnpacker(Reading),
    ):
        with contextlib.suppress(UnpackerError):
            unpacker(payload)


def test_what_was_packed_takes_no_more_memory_than_it_says() -> None:
    """Many small pieces of data that wait take their own size, and not that of a buffer each."""
    data = {"sensor": "oven-3", "value": 21.5}
    pack = JSONPacker()
    pack(data)
    before = resident()
    kept = [pack(data) for _ in range(50_000)]
    assert resident() - before < 50_000 * 1024
    assert len(kept) == 50_000
