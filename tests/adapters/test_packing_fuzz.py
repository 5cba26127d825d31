"""Hostile bytes for every unpacker: only UnpackerError, soon, and in little memory.

The long form: `pytest -m slow tests/adapters/test_packing_fuzz.py`; NEXUS_SEED chooses another seed than 0.
"""

import json
import os
import random
import subprocess
import sys
import time
from typing import Any

import attrs
import pytest
from trials import GROWTH, Trials

from nexus.adapters.packing import (
    CSVUnpacker,
    JSONUnpacker,
    MsgpackPacker,
    MsgpackUnpacker,
    TextUnpacker,
    TypedUnpacker,
    Unpacker,
)
from nexus.errors import UnpackerError

FORMS = [100_000, pytest.param(5_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]


@attrs.frozen
class Point:
    """Something to be read."""

    x: float
    name: str = ""
    inner: "Point | None" = None


DATA: list[Any] = [
    {"x": 1.5, "name": "a:b", "inner": {"x": 2}},
    {"id": 7, "values": [1, -2.5e300, None, True], "text": 'é"\\\n', "deep": [[[[{}]]]]},
    [2**64 - 1, -(2**63), 1e-5, "", {"": {"": ""}}],
]
JSON = [json.dumps(each, ensure_ascii=place == 1).encode() for each in DATA for place in (0, 1)]
CSV = [b'a,b,"c,d","e ""f""",\r\n', '"two\nlines",é,1.5'.encode(), b"x,y,z"]
ROWS = [b"1.5,true,x", b'"-1",,"a ""b"""', b"1e5,0,\r\n"]
JSON_PARTS = [
    *b'{}[]",:\\0919eE+-. \n',
    b'"a":',
    b"[[[[[[[[",
    b'{"a":' * 9,
    b"\\u003a",
    b"\\ud800",
    b"null",
    b"9" * 20,
]
CSV_PARTS = [*b'",;\r\n \x00', b'""', b'","', b'\r\n"', b"\xef\xbb\xbf", b"," * 50]
MSGPACK_PARTS = [
    *range(0x80, 0xE0),
    b"\xdc\x27\x10",
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 40,
    b"\xd6\xff\0\0\0\1",
]

PARSERS: dict[str, tuple[Unpacker[Any], list[bytes], list[Any]]] = {
    "json": (JSONUnpacker(), JSON, JSON_PARTS),
    "typed": (TypedUnpacker(Point), JSON, [*JSON_PARTS, b'"x":', b'"inner":{', b'"name":']),
    "csv": (CSVUnpacker(), CSV, CSV_PARTS),
    "csv with fields": (CSVUnpacker(["a", "b", "c"], types={"a": float, "b": bool}), ROWS, CSV_PARTS),
    "text": (
        TextUnpacker(),
        [each.encode() for each in ("", "héllo", "\U0001f600\0")],
        [0xC0, 0xED, 0xFF, b"\xf4\x90"],
    ),
    "msgpack": (MsgpackUnpacker(), [MsgpackPacker()([each, b"x"]) for each in DATA], MSGPACK_PARTS),
}


def mutated(rng: random.Random, seeds: list[bytes], parts: list[Any]) -> bytes:
    """Take a good one and change, leave out, repeat and add some of it."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(5)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place : place + rng.randrange(1, 8)]
            case 2:
                data[place:place] = data[rng.randrange(len(data) + 1) :][: rng.randrange(1, 40)]
            case _:
                part = rng.choice(parts)
                data[place:place] = bytes([part]) if isinstance(part, int) else part
    return bytes(data)


@pytest.mark.parametrize("number", FORMS)
@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_bytes_raise_nothing_else(parser: str, number: int, capsys: Any) -> None:
    """Whatever comes, it is read or raises UnpackerError, soon, and nothing of it is kept."""
    unpacker, seeds, parts = PARSERS[parser]
    seed = int(os.environ.get("NEXUS_SEED", "0"))
    rng = random.Random(seed)
    refused, began = 0, time.perf_counter()

    def attempt() -> bytes:
        nonlocal refused
        payload = mutated(rng, seeds, parts)
        try:
            unpacker(payload)
        except UnpackerError:
            refused += 1
        return payload

    trials = Trials(rng, attempt)
    trials.run(number // 10)
    trials.run(number - number // 10)
    assert number // 20 < refused < number
    found = trials.judge()
    if number > 100_000:
        line = {"law": "fuzz", "parser": parser, "seed": seed, "offered": number, "refused": refused}
        line |= {"slowest_ms": found.slowest_ms, "grown_mb": round(found.rss_bytes / 2**20, 1)}
        with capsys.disabled():
            sys.stdout.write(f"\n{json.dumps(line | {'wall_s': round(time.perf_counter() - began, 1)})}\n")


BOMBS = """
import json, resource, sys, time
import orjson
from nexus.adapters.packing import CSVUnpacker, JSONUnpacker, MsgpackUnpacker
from nexus.errors import UnpackerError
size = 1_000_000
json_, csv, msgpack = JSONUnpacker(), CSVUnpacker(), MsgpackUnpacker()
bombs = {
    "deep": (json_, b"[" * size),
    "deep objects": (json_, b'{"a":' * (size // 5)),
    "deep and closed": (json_, b"[" * (size // 2) + b"]" * (size // 2)),
    "many chains": (json_, b"[" + (b"[" * 500 + b"]" * 500 + b",") * (size // 1001) + b"0]"),
    "wide": (json_, b"[" + b"0," * (size // 2) + b"0]"),
    "objects": (json_, b"[" + b'{"a":1},' * (size // 8) + b"0]"),
    "empty objects": (json_, b"[" + b"{}," * (size // 3) + b"0]"),
    "texts": (json_, b"[" + b'"ab",' * (size // 5) + b"0]"),
    "quotes": (json_, b'"' * size),
    "escapes": (json_, b'"' + b'\\\\"' * (size // 2)),
    "escapes and marks": (json_, b'"' + b'\\\\",' * (size // 3)),
    "digits": (json_, b"9" * size),
    "twice": (json_, b"{" + b'"a":1,' * 9_000 + b'"a":"' + b"x" * (size // 2) + b'"}'),
    "fields": (csv, b"a," * (size // 2)),
    "quoted fields": (csv, b'"a",' * (size // 4)),
    "quotes alone": (csv, b'"' * (size - 1)),
    "claims": (msgpack, b"\\xdc\\x27\\x10" * (size // 3)),
    "nested claims": (msgpack, b"\\xdd\\x00\\x0f\\x00\\x00" * 1000 + b"\\xc0" * (size // 2)),
    "arrays": (msgpack, b"\\xdc\\x03\\xe8" + (b"\\xdc\\x03\\xe8" + b"\\x90" * 1000) * 990),
    "maps": (msgpack, b"\\xdc\\x03\\xe8" + (b"\\xdc\\x03\\xe8" + b"\\x80" * 1000) * 990),
}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
json_(b'[{"a": 1}]'), csv(b"a"), msgpack(b"\\x90")
before = peak()
def spent(unpacker, payload):
    start = time.process_time()
    try:
        unpacker(payload)
    except UnpackerError:
        return time.process_time() - start
grown = {name: [spent(*bomb), peak() - before][1] for name, bomb in bombs.items()}
times = {name: min(spent(*bomb) for _ in range(5)) for name, bomb in bombs.items()}
def read():
    start = time.process_time()
    orjson.loads(bombs["objects"][1])
    return time.process_time() - start
print(json.dumps([grown, times, min(read() for _ in range(5))]))
"""


def test_bombs_cost_little() -> None:
    """A megabyte made to become a hundred is refused before the memory is spent: 16 MB at most, for all.

    Nor does any of them take half of the time in which orjson reads a megabyte of objects.
    """
    done = subprocess.run(
        [sys.executable, "-c", BOMBS], capture_output=True, text=True, check=True, timeout=50
    )
    grown, times, read = json.loads(done.stdout)
    assert max(grown.values()) * 1024 <= GROWTH, grown
    assert max(times.values()) < read / 2, (times, read)
