"""MQTT over WebSockets keeps the promises of MQTT over TCP, but for those its page takes back.

That QoS 1 loses nothing, whatever dies, is in test_mqtt_loss.py.
"""

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from mosquitto import Mosquitto

from nexus.adapters import open_receiver, open_sender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender, Will
from nexus.errors import ConfigError, LinkDown

PATIENCE = 10.0

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def broker() -> AsyncIterator[Mosquitto]:
    """A broker that loses nothing when it is restarted."""
    async with Mosquitto(websockets={}) as broker:
        yield broker


@pytest.fixture(params=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> str:
    """Each version of the protocol."""
    found: str = request.param
    return found


def config(broker: Mosquitto, **options: Any) -> MqttConfig:
    """Make a config for the broker."""
    usual: dict[str, Any] = {"host": "127.0.0.1", "port": broker.websockets_port, "transport": "websockets"}
    return MqttConfig(**usual | {"topic": "t", "retry_cap": 0.05} | options)


def remembered(broker: Mosquitto, **options: Any) -> MqttConfig:
    """Make a config for a receiver that the broker remembers."""
    return config(broker, **{"client_id": "r", "clean_session": False, "qos": 1} | options)


async def take(receiver: MqttReceiver[Any], count: int) -> list[Any]:
    """Receive some data."""
    async with asyncio.timeout(PATIENCE):
        return [(await receiver.receive())[0] for _ in range(count)]


async def test_each_send_chooses_its_own(broker: Mosquitto, version: str) -> None:
    """``topic``, ``qos`` and ``retain`` of a send win over the config's; those over TCP see the same."""
    plain = config(broker, port=broker.port, transport="tcp", topics=["#"], qos=2, protocol=version)
    async with MqttReceiver(plain) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker, protocol=version)) as sender:
            for qos in (2, 0, 1):
                await sender.deliver(qos, topic=f"a/{qos}", qos=qos, retain=True)
            metas = [(await receiver.receive())[1] for _ in range(3)]
    got = sorted((meta["topic"], meta["qos"]) for meta in metas)
    assert got == [("a/0", 0), ("a/1", 1), ("a/2", 2)]
    async with MqttReceiver(config(broker, topics=["a/#"], qos=1, protocol=version)) as late:
        kept = sorted([(await late.receive())[1]["retain"] for _ in range(3)])
    assert kept == [True] * 3


async def test_what_is_not_accepted_comes_again(broker: Mosquitto) -> None:
    """Acknowledgements go in the order of receipt, and only for what was accepted."""
    async with MqttReceiver(remembered(broker)) as receiver:
        await receiver.connected(PATIENCE)
        receiver.manual = True
        async with MqttSender(config(broker, qos=1)) as sender:
            for number in range(4):
                await sender.deliver(number)
        items = [await receiver.receive() for _ in range(4)]
        receiver.accept(items[0][1])
        receiver.accept(items[2][1])  # waits for the one before it
    async with MqttReceiver(remembered(broker)) as receiver:
        assert await take(receiver, 3) == [1, 2, 3]


async def test_what_was_received_before_a_restart_is_not_given_again(broker: Mosquitto) -> None:
    """The broker sends it again, and it is recognised."""
    async with MqttReceiver(remembered(broker)) as receiver, MqttSender(config(broker, qos=1)) as sender:
        await receiver.connected(PATIENCE)
        receiver.manual = True
        await sender.deliver(1)
        _, meta = await receiver.receive()
        await broker.restart()
        receiver.accept(meta)
        await sender.deliver(2)
        assert await take(receiver, 1) == [2]


async def test_subscriptions_come_and_go(broker: Mosquitto) -> None:
    """A filter counts at once and after a reconnect; one that ended does not."""
    async with (
        MqttReceiver(config(broker, topic="a", qos=1, protocol="5")) as receiver,
        MqttSender(config(broker, qos=1, protocol="5")) as sender,
    ):
        await receiver.connected(PATIENCE)
        await receiver.subscribe("b/+")
        await receiver.unsubscribe("a")
        for _ in range(2):
            await sender.deliver("no", topic="a")
            await sender.deliver("yes", topic="b/1")
            assert await take(receiver, 1) == ["yes"]
            ups = receiver.link.ups
            await broker.restart()
            async with asyncio.timeout(PATIENCE):
                while receiver.link.ups == ups:  # noqa: ASYNC110 - another process comes back
                    await asyncio.sleep(0.005)


async def test_qos_2_is_not_received(broker: Mosquitto) -> None:
    """Where it would lose what a dead program had not accepted it is refused, in config and call."""
    with pytest.raises(ConfigError, match="qos: found 2"):
        MqttReceiver(config(broker, qos=2))
    async with MqttReceiver(config(broker)) as receiver:
        with pytest.raises(ConfigError, match="qos: found 2"):
            await receiver.subscribe("b", qos=2)


async def test_qos_2_goes_out_in_spite_of_restarts(broker: Mosquitto) -> None:
    """What is sent with QoS 2 arrives, however often the link breaks, and leaves nothing half done."""
    plain = remembered(broker, port=broker.port, transport="tcp", qos=2)
    sending = config(broker, qos=2, client_id="s", clean_session=False)
    async with MqttReceiver(plain) as receiver, MqttSender(sending) as sender:
        await receiver.connected(PATIENCE)
        for number in range(90):
            await sender.send(number)
            if number in (30, 60):
                await broker.restart()
        assert await sender.flush(PATIENCE)
        got: set[int] = set()
        async with asyncio.timeout(PATIENCE):
            while got != set(range(90)):
                got.add((await receiver.receive())[0])


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_message_that_is_too_large_costs_itself_only(broker: Mosquitto, qos: Any) -> None:
    """One above `max_size` is counted, acknowledged and not given."""
    async with (
        MqttReceiver(remembered(broker, max_size=100, qos=qos)) as receiver,
        MqttSender(config(broker, qos=1)) as sender,
    ):
        await receiver.connected(PATIENCE)
        await sender.deliver("x" * 200)
        await sender.deliver("small")
        assert await take(receiver, 1) == ["small"]
        assert receiver.counts.bad == {"size": 1}


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_qos_0_is_dropped_by_policy(broker: Mosquitto, overflow: Any) -> None:
    """Only as many as there is room for stay, and the others are counted."""
    async with (
        MqttReceiver(config(broker, maxsize=10, overflow=overflow)) as receiver,
        MqttSender(config(broker, qos=0)) as sender,
    ):
        await receiver.connected(PATIENCE)
        for number in range(50):
            await sender.send(number)
        async with asyncio.timeout(PATIENCE):
            while receiver.counts.dropped != {overflow: 40}:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)
        assert await take(receiver, 10) == list(range(10) if overflow == "drop_newest" else range(40, 50))


async def test_a_full_receiver_holds_the_broker_up(broker: Mosquitto) -> None:
    """With ``block`` QoS 0 waits in the broker too, and no more are held than the bound."""
    count = 1500
    async with (
        MqttReceiver(config(broker, maxsize=10)) as receiver,
        MqttSender(config(broker, qos=0)) as sender,
    ):
        await receiver.connected(PATIENCE)
        for number in range(count):
            await sender.send(number)
        assert await sender.flush(PATIENCE)
        assert receiver.counts.waiting <= 10
        assert await take(receiver, count) == list(range(count))
        assert receiver.counts.dropped == {}


async def test_the_will_is_published(broker: Mosquitto) -> None:
    """It goes out when the client is gone without a word, and not after a stop."""
    will = Will(topic="gone", payload=b'"alas"', qos=1, retain=False)
    watching = config(broker, port=broker.port, transport="tcp", topic="gone", qos=1)
    async with MqttReceiver(watching) as watcher:
        await watcher.connected(PATIENCE)
        async with MqttSender(config(broker, will=will)) as sender:
            await sender.connected(PATIENCE)
        async with MqttSender(config(broker, will=will)) as sender:
            await sender.connected(PATIENCE)
            connection: Any = sender._connection
            connection.fail(ConnectionResetError("gone"))
            assert await take(watcher, 1) == ["alas"]
            assert watcher.counts.waiting == 0


async def test_a_wrong_password_is_told(version: str) -> None:
    """The link says what the broker refuses, and no secret."""
    async with Mosquitto({"allow_anonymous": "false"}, websockets={}) as broker:
        options = config(broker, user="anna", password="hunter2", protocol=version, retry="never")
        sender: MqttSender[Any] = MqttSender(options)
        with pytest.raises(LinkDown, match=r"refuses (not authorised|user or password)") as caught:
            await sender.connected(PATIENCE)
        assert "hunter2" not in f"{caught.value}{sender!r}{options!r}"
        await sender.stop()


async def fake(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Any:
    """Listen, and answer whoever comes."""
    return await asyncio.start_server(answer, "127.0.0.1", 0)


NONSENSE = {
    "no HTTP": b"hello\r\n\r\n",
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "a bad key": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "no key": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nSec-WebSocket-Accept\r\n\r\n",
    "no text": b"\xff\xfe: sec-websocket-accept\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_a_server_without_websockets_is_left(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it answers, the link says so in time, and nothing but the link is down."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NONSENSE[what])
        writer.close()

    async with await fake(answer) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"mqtt+ws://127.0.0.1:{port}/t?retry=never&timeout=2"
        sender = open_sender(url)
        with pytest.raises(LinkDown, match="WebSocket"):
            await sender.connected(PATIENCE)
        await sender.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_server_that_says_nothing_is_left_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """Neither `timeout` nor a stop waits for it, in whatever stage of the beginning it is silent."""
    heard = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/upgraded" in request:
            writer.write(upgrade(request))
        heard.set()
        await reader.read()
        await reader.read()
        writer.close()

    async with await fake(answer) as server:
        port = server.sockets[0].getsockname()[1]
        for path in ("/silent", "/upgraded"):
            options = {"transport": "websockets", "websocket_path": path, "port": port, "host": "127.0.0.1"}
            impatient: MqttSender[Any] = MqttSender(MqttConfig(**options, timeout=0.2, retry="never"))
            with pytest.raises(LinkDown, match="no answer within"):
                await impatient.connected(PATIENCE)
            await impatient.stop()
            heard.clear()
            patient: MqttSender[Any] = MqttSender(MqttConfig(**options, timeout=20))
            await patient.start()
            await heard.wait()
            async with asyncio.timeout(2):
                await patient.stop()


def upgrade(request: bytes) -> bytes:
    """Answer the handshake as a server of WebSockets does."""
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n") if b": " in line)
    key = lines[b"Sec-WebSocket-Key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())  # RFC 6455, 4.2.2
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )


async def test_path_and_headers_are_sent(broker: Mosquitto) -> None:
    """What a front door wants to see is in the request; a URL says it too, and nothing shows it."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await fake(answer) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"mqtt+ws://127.0.0.1:{port}/t?websocket_path=/broker&retry=never"
        sender = open_sender(url, websocket_headers={"Authorization": "Bearer hunter2"})
        assert "hunter2" not in f"{sender!r}{sender.config!r}"  # type: ignore[attr-defined]
        with pytest.raises(LinkDown):
            await sender.connected(PATIENCE)
        await sender.stop()
    request = (await seen).split(b"\r\n")
    assert request[0] == b"GET /broker HTTP/1.1"
    assert b"Authorization: Bearer hunter2" in request
    assert b"Host: 127.0.0.1:%d" % port in request
    assert b"Sec-Websocket-Protocol: mqtt" in request


@pytest.mark.parametrize(
    "options",
    [
        {"websocket_path": "mqtt"},
        {"websocket_path": "/a b"},
        {"websocket_path": "/\r\nX: 1"},
        {"websocket_headers": {"X": "1\r\nY: 2"}},
        {"websocket_headers": {"X:": "1"}},
    ],
)
def test_what_would_break_the_request_is_refused(options: dict[str, Any]) -> None:
    """Neither path nor headers can end their line."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        MqttConfig(**options)


async def test_a_url_says_it_all(broker: Mosquitto) -> None:
    """Both halves of a URL meet at its topic; the ports are those of HTTP."""
    url = f"mqtt+ws://127.0.0.1:{broker.websockets_port}/oven/1?qos=1"
    async with open_receiver(url) as receiver, open_sender(url) as sender:
        await receiver.connected(PATIENCE)
        await sender.deliver({"i": 1})
        data, meta = await receiver.receive()
    assert (data, meta["topic"], meta["qos"]) == ({"i": 1}, "oven/1", 1)
    assert "mqtt+ws://h:80/t" in repr(open_sender("mqtt+ws://h/t"))
    assert "mqtts+ws://h:443/t" in repr(open_sender("mqtts+ws://h/t"))


async def test_silence_is_found(broker: Mosquitto) -> None:
    """A broker that stands still is given up after twice the keep-alive, and met again when it goes on."""
    async with MqttSender(config(broker, qos=1, keep_alive=1)) as sender:
        await sender.deliver(1)
        broker.freeze()
        try:
            async with asyncio.timeout(PATIENCE):
                while sender.link.state == "up":  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
        finally:
            broker.thaw()
        await sender.deliver(2)
