"""No secret is ever shown, and nobody outside writes lines of our log."""

import asyncio
import contextlib
import functools
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from certificates import Authority, x509
from click.testing import CliRunner
from hostile_texts import VECTORS, is_one_line
from mosquitto import Mosquitto
from real import free_port, require
from test_contract import PAIRS

from nexus.adapters import open_receiver, open_sender, schemes
from nexus.adapters._config import Config, _rules
from nexus.adapters._endpoint import find_adapter
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.adapters.serial import SerialConfig, SerialReceiver, SerialSender
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.cli import main
from nexus.errors import LinkDown, NexusError, UnpackerError

CANARY = "hunter2-canary-" + "x" * 25
"""Forty characters, as a key of ZMQ has."""
PATIENCE = 10.0


class Overheard(logging.Handler):
    """Everything that a reader could come to see."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.texts: list[str] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.texts += [self.format(record), repr(record.args)]

    def look(self, half: Any) -> None:
        """Look at what a half shows of itself."""
        shown = (half, half.config, half.link, half.counts, half.name, half.counts.as_dict(), vars(half))
        self.texts += [text for each in shown for text in (repr(each), str(each))]

    def error(self, exc: BaseException) -> None:
        """Look at an error and at all that led to it."""
        self.texts += [*traceback.format_exception(exc), repr(exc), str(exc)]

    @property
    def all(self) -> str:
        return "\n".join(self.texts)


@pytest.fixture
def overheard() -> Iterator[Overheard]:
    """Listen to all loggers of nexus, at DEBUG."""
    logger, handler = logging.getLogger("nexus"), Overheard()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def live(half: Any, overheard: Overheard) -> None:
    """Start a half, wait until it is up or has failed, use it, stop it; look at it all the while."""
    half.on_link(lambda state: overheard.texts.append(f"{state} {state!r}"))
    overheard.look(half)
    try:
        await half.connected(0.3)
        if hasattr(half, "send"):
            await half.send({"n": 1})
    except (NexusError, OSError) as exc:
        overheard.error(exc)
    overheard.look(half)
    await half.stop()
    overheard.look(half)


def secrets_of(config: type[Config]) -> set[str]:
    """Name the options of a config that are declared secret."""
    return {name for name, rule in _rules(config).items() if rule.about.secret}


def test_the_matrix_holds_every_secret() -> None:
    """Whoever declares another option secret has to add it below."""
    found = {
        f"{adapter.config.__name__}.{name}"
        for adapter in map(find_adapter, schemes())
        for name in secrets_of(adapter.config)
    }
    assert found == {
        "MqttConfig.key_password",
        "MqttConfig.password",
        "MqttConfig.websocket_headers",
        "TcpConfig.key_password",
        "ZmqConfig.curve_secret",
    }


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("fate", ["refused", "let in", "nobody there"])
@pytest.mark.parametrize("make", [MqttSender, MqttReceiver, open_sender, open_receiver])
async def test_a_password_of_mqtt_is_never_shown(
    make: Any, fate: str, version: str, tmp_path: Path, overheard: Overheard
) -> None:
    """Neither where the broker refuses it, nor where it takes it, nor where there is none."""
    (tmp_path / "passwords").touch()
    options = {"allow_anonymous": "false", "password_file": str(tmp_path / "passwords")}
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()
        if fate != "nobody there":
            broker = Mosquitto(options if fate == "refused" else None)
            port = (await stack.enter_async_context(broker)).port
        if isinstance(make, type):
            given: dict[str, Any] = {"port": port, "user": "user", "password": CANARY, "protocol": version}
            half = make(MqttConfig(host="127.0.0.1", **given))
        else:
            half = make(f"mqtt://user:{CANARY}@127.0.0.1:{port}/t?protocol={version}")
        await live(half, overheard)
    assert ("is up" in overheard.all) is (fate == "let in")
    assert CANARY not in overheard.all


@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
@pytest.mark.parametrize(
    "url",
    [
        "tcps://127.0.0.1:0?listen=1",
        "tcps://127.0.0.1:{}?retry=never",
        "mqtts://127.0.0.1:{}/t?retry=never",
        "mqtts+ws://127.0.0.1:{}/t?retry=never",
    ],
)
@pytest.mark.parametrize("make", [open_sender, open_receiver])
async def test_what_a_key_is_locked_with_is_never_shown(
    make: Any, url: str, is_right: bool, tmp_path: Path, overheard: Overheard
) -> None:
    """Neither where the key opens nor where it does not."""
    require("cryptography", x509, "pip install cryptography")
    authority = Authority(tmp_path)
    made = authority.issue("server", password=CANARY if is_right else "another")
    files = "&".join(f"{name}={file}" for name, file in made.items())
    half = make(f"{url.format(free_port())}&{files}&key_password={CANARY}")
    await live(half, overheard)
    assert ("cert_file and key_file" in overheard.all) is not is_right
    assert CANARY not in overheard.all


@pytest.mark.parametrize("fate", ["refused", "nonsense", "let in", "nobody there"])
@pytest.mark.parametrize("make", [open_sender, open_receiver])
async def test_headers_and_passwords_of_websockets_are_never_shown(
    make: Any, fate: str, overheard: Overheard
) -> None:
    """Neither where the server refuses them, nor where it repeats them, nor where it takes them."""
    answers = {
        "refused": f"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nX: {CANARY}\r\n\r\nno\r\n",
        "nonsense": f"{CANARY}\r\n\r\n",
    }
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()
        if fate in answers:
            said = functools.partial(answer, answers[fate].encode())
            server = await asyncio.start_server(said, "127.0.0.1", port)
            await stack.enter_async_context(server)
        elif fate == "let in":
            broker = await stack.enter_async_context(Mosquitto(websockets={}))
            port = broker.websockets_port
        url = f"mqtt+ws://user:{CANARY}@127.0.0.1:{port}/t"
        half = make(url, websocket_headers={"Authorization": f"Bearer {CANARY}"})
        await live(half, overheard)
    assert ("is up" in overheard.all) is (fate == "let in")
    assert CANARY not in overheard.all


@pytest.mark.parametrize("fate", ["nobody there", "another server", "let in"])
@pytest.mark.parametrize(("ours", "theirs"), [(ZmqSender, ZmqReceiver), (ZmqReceiver, ZmqSender)])
async def test_a_secret_key_of_zmq_is_never_shown(
    ours: Any, theirs: Any, fate: str, overheard: Overheard
) -> None:
    """Neither the one of the end that connects nor the one of the end that is bound."""
    (server, server_key), (_, own_key) = zmq.curve_keypair(), zmq.curve_keypair()
    wrong, _ = zmq.curve_keypair()
    bound = theirs(ZmqConfig(pattern="pushpull", port=0, bind=True, curve_secret=server_key.decode()))
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()
        if fate != "nobody there":
            await stack.enter_async_context(bound)
            port = int(bound.address.rpartition(":")[2])
        known = (server if fate == "let in" else wrong).decode()
        given: dict[str, Any] = {"curve_secret": own_key.decode(), "curve_server": known}
        half = ours(ZmqConfig(pattern="pushpull", port=port, bind=False, **given))
        await live(half, overheard)
        overheard.look(bound)
    assert ("is up" in overheard.all) is (fate == "let in")
    assert own_key.decode() not in overheard.all
    assert server_key.decode() not in overheard.all


@pytest.mark.parametrize("secret", [CANARY + "~", CANARY * 200, CANARY + "/x", "\udcff" + CANARY])
@pytest.mark.parametrize("make", [ZmqSender, ZmqReceiver])
async def test_what_is_no_key_is_not_shown_either(make: Any, secret: str, overheard: Overheard) -> None:
    """A key that cannot be used is refused without a word of it."""
    server = zmq.curve_keypair()[0].decode()
    for options in ({"bind": True}, {"bind": False, "curve_server": server}):
        half = make(ZmqConfig(pattern="pushpull", port=free_port(), curve_secret=secret, **options))
        with pytest.raises(NexusError, match="curve_secret") as caught:
            await half.start()
        overheard.error(caught.value)
        overheard.look(half)
        await half.stop()
    assert CANARY not in overheard.all


COMMANDS = [
    "tap mqtt://user:{}@127.0.0.1:1/t?retry=never",
    "tap mqtt://user:{}@127.0.0.1:1/t?odd=1",
    "tap mqtt://user:{}@127.0.0.1:x/t",
    "tap tcps://127.0.0.1:1?retry=never&key_password={}&cert_file=/no/such",
    "tap zmq+pull://127.0.0.1:0?curve_secret={}~",
    "send mqtt://user:{}@127.0.0.1:1/t?retry=never 1",
    "send mqtt://user:{}@127.0.0.1:1/+?qos=9 1",
    "send zmq+push://127.0.0.1:1?curve_secret={} 1",
    "record mqtt://user:{}@127.0.0.1:1/t?odd=1 x.rec",
    "bridge mqtt://user:{}@127.0.0.1:1/t?retry=never mqtt://user:{}@127.0.0.1:2/t?odd=1",
    "bridge mqtt://user:{}@127.0.0.1:1/t?retry=never mqtt://user:{}@127.0.0.1:2/t?retry=never",
]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.partition("?")[0].replace("/", "_"))
def test_no_command_shows_a_secret(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with a URL, the command says so without its password or key."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, line.replace("{}", CANARY).split())
    assert done.exit_code != 0
    assert done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert CANARY not in done.output


Half = Callable[[str], Any]

NAMES: dict[str, Half] = {
    "tcp host": lambda text: TcpReceiver(TcpConfig(host=text, port=free_port())),
    "tcp listening host": lambda text: TcpSender(TcpConfig(host=text, port=0, listen=True)),
    "udp host": lambda text: UdpSender(UdpConfig(host=text)),
    "udp receiving host": lambda text: UdpReceiver(UdpConfig(host=text, port=0)),
    "mqtt host": lambda text: MqttSender(MqttConfig(host=text)),
    "mqtt topic": lambda text: MqttReceiver(MqttConfig(port=free_port(), topic=text)),
    "zmq host": lambda text: ZmqSender(ZmqConfig(host=text)),
    "zmq bound host": lambda text: ZmqReceiver(ZmqConfig(pattern="pushpull", port=0, host=text)),
    "serial port": lambda text: SerialReceiver(SerialConfig(port=f"/nowhere/{text}")),
    "serial sender": lambda text: SerialSender(SerialConfig(port=f"/nowhere/{text}")),
}

NAMES_OF = {make: name for name, make in NAMES.items()}


@pytest.mark.parametrize("make", NAMES.values(), ids=list(NAMES))
async def test_no_name_forges_a_line_of_the_log(make: Half, overheard: Overheard) -> None:
    """Hosts, topics and paths of many kinds: each record of the log is one line of printable text."""
    halves = []
    for text in VECTORS[:: 5 if "host" in NAMES_OF[make] else 1]:  # each host is looked up
        with contextlib.suppress(NexusError):
            halves.append(make(text))
    for half in halves:
        with contextlib.suppress(NexusError):
            await half.start()
    for half in halves:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while half.link.state == "connecting":  # noqa: ASYNC110 - whichever way it goes
                    await asyncio.sleep(0.005)
    for half in halves:
        assert is_one_line(repr(half)), repr(half)
        assert is_one_line(str(half.link.error)), half.link.error
        await half.stop()
    assert [text for text in overheard.messages if not is_one_line(text)] == []


@pytest.fixture(params=PAIRS, ids=lambda pair: pair.name)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A transport with its counterpart running."""
    async with asyncio.timeout(50), request.param() as pair:
        yield pair


async def test_no_data_forges_a_line_of_the_log(pair: Any, overheard: Overheard) -> None:
    """What a peer sends that is no JSON is told, but not in its own words."""
    async with pair.receiver() as receiver, pair.sender() as sender:
        await pair.ready(sender, receiver)
        bad: list[UnpackerError] = []
        receiver.on_bad = bad.append
        for text in VECTORS[: 20 if pair.lossy else 60]:
            if not {"\n", "\r"} & set(text):
                await pair.raw(f'{{"{text}": {text}'.encode("utf-8", "surrogatepass"))
        await sender.send({"last": True})
        assert (await receiver.__anext__())[0] == {"last": True}
        assert len(bad) >= 10
        for error in bad:
            assert is_one_line(str(error)), error
    assert overheard.messages
    assert [text for text in overheard.messages if not is_one_line(text)] == []


async def test_topics_of_others_forge_no_line(overheard: Overheard) -> None:
    """A peer's topics and frames that make no sense are counted, and their text is in no log."""
    config = ZmqConfig(pattern="pushpull", port=0, bind=True)
    async with ZmqReceiver[Any](config) as receiver:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.connect(receiver.address)
            for text in VECTORS:
                socket.send_multipart([text.encode("utf-8", "surrogatepass"), b"nonsense"])
                socket.send_multipart([b"\xff" + text.encode("utf-8", "surrogatepass"), b"1"])
            socket.send_multipart([b"t", b"1"])
            async with asyncio.timeout(PATIENCE):
                assert (await receiver.__anext__())[0] == 1
    assert receiver.counts.bad == {"topic": 200, "unpack": 200}
    assert [text for text in overheard.messages if not is_one_line(text)] == []


async def test_a_broker_forges_no_line(overheard: Overheard) -> None:
    """The reason that a broker gives is told as one line."""
    for text in VECTORS[:40]:
        reason = text.encode("utf-8", "surrogatepass")
        body = bytes((0, 0x87, len(reason) + 3, 0x1F)) + len(reason).to_bytes(2, "big") + reason
        connack = bytes((0x20, len(body))) + body
        server = await asyncio.start_server(functools.partial(answer, connack), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            options = MqttConfig(host="127.0.0.1", port=port, protocol="5", retry="never")
            receiver: Any = MqttReceiver(options)
            with pytest.raises(LinkDown, match="refuses") as caught:
                await receiver.connected(PATIENCE)
            assert is_one_line(str(caught.value))
            await receiver.stop()
    assert [text for text in overheard.messages if not is_one_line(text)] == []


async def answer(said: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say something to whoever says something first."""
    with contextlib.suppress(OSError):
        await reader.read(2)
        writer.write(said)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
