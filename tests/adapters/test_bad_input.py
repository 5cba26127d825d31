"""Whatever comes from outside costs itself at most, is counted, and what comes after works."""

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from memory_use import PeakGrowth
from real import free_port
from test_contract import PAIRS

from nexus.adapters import schemes
from nexus.adapters._config import Config, WrongOption, _rules
from nexus.adapters._endpoint import find_adapter
from nexus.adapters._kinds import ANYTHING
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.adapters.udp import UdpConfig, UdpSender
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.errors import ConfigError, UnpackerError

MB = 10**6

BAD: dict[str, bytes] = {
    "not UTF-8": b'{"n": "\xff\xfe"}',
    "truncated": b'{"n": [1, 2',
    "nested": b"[" * 50_000,
    "nested and closed": b"[" * 25_000 + b"]" * 25_000,
    "NaN": b'{"n": NaN}',
    "infinite": b"-Infinity",
    "beyond floats": b"1e999",
    "huge integer": b"9" * 5000,
    "duplicate keys": b'{"n": 1, "n": 2}',
    "half a surrogate": b'"\\ud800"',
    "NUL": b"\0",
    "nothing": b"",
    "two values": b"1 2",
}


@pytest.fixture(params=PAIRS, ids=lambda pair: pair.name)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A transport with its counterpart running."""
    async with asyncio.timeout(50), request.param() as pair:
        yield pair


async def test_bad_json_of_any_kind_costs_itself_only(pair: Any) -> None:
    """Each kind raises once, is counted once, and the item behind it comes."""
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        for number, payload in enumerate(BAD.values()):
            await pair.raw(payload)
            with pytest.raises(UnpackerError, match="cannot unpack"):
                await receiver.receive()
            assert receiver.counts.bad == {"unpack": number + 1}
            await sender.send({"n": number})
            assert (await receiver.receive())[0] == {"n": number}
        assert receiver.link.state == "up"


Write = Callable[[bytes], Awaitable[None]]


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[Write]:
    """Write to a port of this machine, as fast as it is taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    with contextlib.suppress(ConnectionError):  # whoever is cut off has deserved it
        yield write
        writer.write_eof()
        await reader.read()  # until all of it was taken
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening_receiver(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    async with connection(receiver.port) as write:
        yield write
        await write(b"\n")


@contextlib.asynccontextmanager
async def relayed(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    yield pair.relay.write
    await pair.relay.write(b"\n")


@contextlib.asynccontextmanager
async def listening_sender(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    (peer,) = pair.last._listener.peers

    async def write(data: bytes) -> None:
        peer.write(data)
        await peer.drained()

    yield write
    await write(b"\n")


@contextlib.asynccontextmanager
async def piped(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    async def write(data: bytes) -> None:
        while data:
            data = data[await asyncio.to_thread(os.write, pair.write_end, data) :]

    yield write
    await write(b"\n")


@contextlib.asynccontextmanager
async def appended(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    with open(pair.path, "ab", buffering=0) as file:  # noqa: ASYNC230 - as another program would

        async def write(data: bytes) -> None:
            await asyncio.to_thread(file.write, data)

        yield write
        await write(b"\n")


@contextlib.asynccontextmanager
async def over_the_cable(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    async def write(data: bytes) -> None:
        pair.cable.inject(1, data)
        while pair.cable._held[0]:  # noqa: ASYNC110 - the line is slow
            await asyncio.sleep(0)

    yield write
    await write(b"\n")


@contextlib.asynccontextmanager
async def published(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    async with connection(pair.broker.port) as write:
        await write(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03big")
        topic = b"\x00\x0dcontract/data"
        left, length = size + len(topic), bytearray()
        while left:
            left, digit = left >> 7, left & 127
            length.append(digit | (128 if left else 0))
        await write(b"\x30" + bytes(length) + topic)
        yield write


@contextlib.asynccontextmanager
async def over_zmtp(pair: Any, receiver: Any, size: int) -> AsyncIterator[Write]:
    kind = b"PUSH" if pair.name == "zmq-push" else b"\x00PUB"[1:]
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    async with connection(pair.port) as write:
        await write(greeting + bytes((4, len(ready))) + ready)
        await write(b"\x01\x03zmq\x02" + struct.pack(">Q", size))
        yield write


STREAMS: dict[str, Any] = {
    "file": appended,
    "console": piped,
    "mqtt": published,
    "mqtt5": published,
    "serial": over_the_cable,
    "serialx": over_the_cable,
    "tcp": relayed,
    "tcp-receiver-listens": listening_receiver,
    "tcp-sender-listens": listening_sender,
    "zmq-push": over_zmtp,
    "zmq-pub": over_zmtp,
}
"""How one endless frame comes in pieces. In memory and by datagrams there is no such thing; over WebSockets
mosquitto 2.0 sends the rest of a large message only when something else is to be sent, to any client."""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is in /proc")
@pytest.mark.parametrize("size", [4 * MB, pytest.param(100 * MB, marks=pytest.mark.slow)])
async def test_a_frame_of_any_size_takes_no_memory(pair: Any, size: int) -> None:
    """It is skipped while it comes, or its peer is cut off; what comes after works."""
    stream = STREAMS.get(pair.name)
    if stream is None:
        pytest.skip(f"over {pair.name} a large frame does not come in pieces, or not from this counterpart")
    limit = 1000
    async with pair.receiver(max_size=limit) as receiver, pair.sender(max_size=limit) as sender:
        await pair.ready(sender, receiver)
        await sender.send({"n": 0})
        assert (await receiver.receive())[0] == {"n": 0}
        growth, piece = PeakGrowth(), b"x" * 50_000
        async with stream(pair, receiver, size) as write:
            for _ in range(size // len(piece)):
                await write(piece)
        if not pair.name.startswith("zmq"):  # libzmq cuts off whoever claims so much
            while receiver.counts.bad != {"size": 1}:  # noqa: ASYNC110 - another program passes it on
                await asyncio.sleep(0.01)
        await sender.send({"n": 1})
        assert (await receiver.receive())[0] == {"n": 1}
        assert growth.bytes <= 2 << 20
        assert sum(receiver.counts.bad.values()) <= 1


CONFIGS: list[type[Config]] = list(dict.fromkeys(find_adapter(scheme).config for scheme in schemes()))
FIELDS = [(config, rule) for config in CONFIGS for rule in _rules(config).values()]


def wrong_values(rule: Any) -> list[Any]:
    """List values that an option does not take: other types, and just out of its range."""
    wrong: list[Any] = [object(), 1j, {1, 2}, [[]], [object()], lambda: None]
    about = rule.about
    is_float = rule.kind.convert(0.5, False) == 0.5
    step = 1e-6 if is_float else 1
    wrong += [] if about.low is None else [about.low - step, -(10**30)]
    wrong += [] if about.high is None else [about.high + step, 10**30]
    if rule.kind.convert(1, False) == 1 and type(rule.kind.convert(1, False)) is not bool:
        wrong += [True, float("nan"), "1"]
    if rule.kind.convert(True, False) is True:
        wrong += [1, "true"]
    if about.choices is not None or rule.kind.convert("x", False) == "x":
        wrong += [b"x", 1.25]
    return wrong


@pytest.mark.parametrize(
    ("config", "rule"), FIELDS, ids=[f"{config.__name__}.{rule.name}" for config, rule in FIELDS]
)
def test_every_option_refuses_what_it_is_not(config: type[Config], rule: Any) -> None:
    """The error names the class and the option, what was found, and what is allowed, in one line."""
    assert rule.kind is not ANYTHING
    for value in wrong_values(rule):
        with pytest.raises(WrongOption) as caught:
            config(**{rule.name: value})
        text = str(caught.value)
        assert text.startswith((f"{config.__name__}.{rule.name}: found ", f"{config.__name__}.{rule.name}."))
        assert ", allowed: " in text
        assert text.isprintable(), text
        assert len(text) < 1000


@pytest.mark.parametrize("config", CONFIGS)
def test_what_does_not_fit_together_names_the_option(config: type[Config]) -> None:
    """Every option, given the least and the greatest it takes, is taken or refused by its name."""
    for rule in _rules(config).values():
        for value in (rule.about.low, rule.about.high, "", (), False, True, None):
            if value is None or rule.kind.convert(value, False) != value:
                continue
            with contextlib.suppress(ConfigError):
                made = config(**{rule.name: value})
                assert attrs.asdict(made, recurse=False)[rule.attribute] == value
                continue
            with pytest.raises(ConfigError, match=r"^\w*\.?\w+(\.\w+)?: (found|is given)"):
                config(**{rule.name: value})


NOBODY: dict[str, Callable[[str, int], Any]] = {
    "tcp sender": lambda host, port: TcpSender(TcpConfig(host=host, port=port)),
    "tcp receiver": lambda host, port: TcpReceiver(TcpConfig(host=host, port=port)),
    "mqtt sender": lambda host, port: MqttSender(MqttConfig(host=host, port=port)),
    "mqtt receiver": lambda host, port: MqttReceiver(MqttConfig(host=host, port=port)),
    "udp sender": lambda host, port: UdpSender(UdpConfig(host=host, port=port)),
    "zmq sender": lambda host, port: ZmqSender(
        ZmqConfig(host=host, port=port, pattern="pushpull", flush_timeout=0.2, linger=0)
    ),
    "zmq receiver": lambda host, port: ZmqReceiver(ZmqConfig(host=host, port=port, pattern="pubsub")),
}


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "nobody.invalid", "a" * 70 + ".invalid", "no host\n", "\u202e"]
)
@pytest.mark.parametrize("name", NOBODY)
async def test_nobody_there_is_a_link_that_is_down(name: str, host: str) -> None:
    """Refused, unknown or no host at all: the link says so, does not try wildly, and stops at once."""
    if name == "udp sender" and host == "127.0.0.1":
        pytest.skip("UDP hears of it only when it sends")
    half = NOBODY[name](host, free_port())
    try:
        await half.start()
    except ConfigError as exc:
        said = str(exc)  # it can be no host, and that is said before anything is tried
    else:
        async with asyncio.timeout(10):
            while half.link.error is None:  # noqa: ASYNC110 - libzmq goes on connecting
                await asyncio.sleep(0.01)
        said = half.link.error
    assert len(said.split()) >= 2
    assert half.link.attempts <= 12
    began = asyncio.get_running_loop().time()
    await half.stop()
    assert asyncio.get_running_loop().time() - began < 1.0


FORBIDDEN = """
import asyncio, json, os, sys
from nexus.adapters.file import FileConfig, FileReceiver, FileSender
from nexus.errors import NexusError

async def main(folder):
    found = []
    for half in (
        FileSender(FileConfig(path=os.path.join(folder, "closed", "x.jsonl"), retry="never")),
        FileSender(FileConfig(path=os.path.join(folder, "closed", ""), retry="never")),
        FileReceiver(FileConfig(path=os.path.join(folder, "secret.jsonl"), retry="never")),
        FileReceiver(FileConfig(path=os.path.join(folder, "closed", "x.jsonl"), retry="never")),
    ):
        try:
            await half.connected(5)
            found.append("up")
        except NexusError as exc:
            found.append(f"{type(exc).__name__}: {exc}")
        await half.stop()
    print(json.dumps(found))

async def warm_up():
    await asyncio.to_thread(lambda: None)

asyncio.run(warm_up())
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main(sys.argv[1]))
"""


def test_what_may_not_be_opened_is_said(tmp_path: Path) -> None:
    """As a user without the right, each half of the file adapter says that permission is what it lacks."""
    if not hasattr(os, "setuid"):
        pytest.skip("this system has no users of this kind")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "secret.jsonl").touch(mode=0o000)
    (tmp_path / "closed").mkdir(mode=0o000)
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    (tmp_path / "closed").chmod(0o700)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4
    for each in found:
        assert each.split(":")[0] in ("OpenError", "LinkDown"), found
        assert "ermission" in each, found
