"""Laws of the MQTT adapter, against mosquitto."""

import asyncio
import contextlib
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mosquitto import Mosquitto
from real import find_program, free_port, require

from nexus.adapters import open_receiver, open_sender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender, Will
from nexus.errors import BadCall, ConfigError, LinkDown

try:
    import aiomqtt
except ImportError:
    aiomqtt = None  # type: ignore[assignment,unused-ignore]

PATIENCE = 10.0


@pytest.fixture
async def broker() -> AsyncIterator[Mosquitto]:
    """A broker that loses nothing when it is restarted."""
    async with asyncio.timeout(30), Mosquitto() as broker:
        yield broker


@pytest.fixture(params=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> str:
    """Each version of the protocol."""
    found: str = request.param
    return found


def config(broker: Mosquitto, **options: Any) -> MqttConfig:
    """Make a config for the broker."""
    usual: dict[str, Any] = {"host": "127.0.0.1", "port": broker.port, "topic": "t", "retry_cap": 0.05}
    return MqttConfig(**usual | options)


def remembered(broker: Mosquitto, **options: Any) -> MqttConfig:
    """Make a config for a receiver that the broker remembers."""
    return config(broker, **{"client_id": "r", "clean_session": False, "qos": 1} | options)


async def take(receiver: MqttReceiver[Any], count: int) -> list[Any]:
    """Receive some data."""
    async with asyncio.timeout(PATIENCE):
        return [(await receiver.receive())[0] for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process brings about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing here is told
            await asyncio.sleep(0.005)


async def nothing_comes(receiver: MqttReceiver[Any]) -> bool:
    """Say whether nothing comes until a message that was sent afterwards would have."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await receiver.receive()
        return False
    return True


# What goes out.


async def test_another_client_gets_what_is_sent(broker: Mosquitto, version: str) -> None:
    """The payload is what the packer gave and nothing else; topic, QoS and retain are as configured."""
    require("aiomqtt", aiomqtt, "pip install aiomqtt")
    options: dict[str, Any] = {"qos": 1, "retain": True, "protocol": version}
    async with MqttSender(config(broker, **options)) as sender:
        await sender.deliver({"i": 1})
        await sender.deliver({"i": 2}, topic="t/2", qos=2)
        await sender.deliver({"i": 3}, topic="t/3", qos=0, retain=False)
        async with aiomqtt.Client("127.0.0.1", broker.port) as other:
            await other.subscribe("t/#", qos=2)
            kept = {}
            for _ in range(2):
                message = await anext(aiter(other.messages))
                kept[str(message.topic)] = (message.payload, message.qos, message.retain)
    assert kept == {"t": (b'{"i":1}', 1, True), "t/2": (b'{"i":2}', 2, True)}


async def test_each_send_chooses_its_own(broker: Mosquitto, version: str) -> None:
    """``topic``, ``qos`` and ``retain`` of a send win over the config's; the meta says them."""
    async with MqttReceiver(config(broker, topics=["#"], qos=2, protocol=version)) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker, protocol=version)) as sender:
            for qos in (2, 0, 1):
                await sender.send(qos, topic=f"a/{qos}", qos=qos)
            metas = [(await receiver.receive())[1] for _ in range(3)]
    got = sorted((meta["topic"], meta["qos"], meta["retain"]) for meta in metas)
    assert got == [("a/0", 0, False), ("a/1", 1, False), ("a/2", 2, False)]


@pytest.mark.parametrize(
    "options",
    [{"qos": 3}, {"qos": True}, {"qos": "1"}, {"retain": 1}, {"topic": ""}, {"topic": "a/+"}, {"topic": 5}],
)
async def test_wrong_send_options_are_refused(options: dict[str, Any]) -> None:
    """What no broker takes is refused where it is sent, and nothing is queued."""
    sender: MqttSender[Any] = MqttSender(MqttConfig(port=free_port()))
    with pytest.raises(ConfigError, match=next(iter(options))):
        await sender.send(1, **options)
    with pytest.raises(BadCall, match="colour"):
        await sender.send(1, colour="red")
    assert not sender.is_started


async def test_what_is_sent_before_there_is_a_broker_goes_when_there_is(version: str) -> None:
    """Frames wait in order for the broker."""
    broker = Mosquitto()
    sender: MqttSender[Any] = MqttSender(config(broker, qos=1, retain=True, protocol=version))
    for number in range(10):
        await sender.send(number, topic=f"t/{number}")
    assert sender.counts.waiting == 10
    async with broker, sender, MqttReceiver(config(broker, topic="t/+")) as receiver:
        assert await sender.flush(PATIENCE)
        await receiver.connected(PATIENCE)
        assert sorted(await take(receiver, 10)) == list(range(10))


async def test_what_was_sent_last_arrives_after_the_stop(broker: Mosquitto) -> None:
    """A stop hands everything of QoS 0 to the system before it closes, megabytes too."""
    async with MqttReceiver(config(broker)) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker)) as sender:
            for number in range(50):
                await sender.send([number, "x" * 100_000])
        assert [data[0] for data in await take(receiver, 50)] == list(range(50))


@pytest.mark.parametrize("qos", [1, 2])
async def test_frames_in_flight_survive_restarts(broker: Mosquitto, version: str, qos: int) -> None:
    """All arrive in spite of restarts, and those of QoS 2 come first in their order."""
    options: dict[str, Any] = {"qos": qos, "protocol": version}
    sending = remembered(broker, client_id="s", **options)
    async with MqttReceiver(remembered(broker, **options)) as receiver, MqttSender(sending) as sender:
        await receiver.connected(PATIENCE)
        received = asyncio.ensure_future(all_of(receiver, 399))
        for number in range(400):
            await sender.send(number)
            if number % 100 == 50:
                await asyncio.sleep(0)
                await broker.restart()
        assert await sender.flush(PATIENCE)
        got = await asyncio.wait_for(received, PATIENCE)
    assert sorted(set(got)) == list(range(400))
    if qos == 2:
        assert list(dict.fromkeys(got)) == list(range(400))


async def all_of(receiver: MqttReceiver[Any], last: object) -> list[Any]:
    """Receive up to the last, and until the account is whole."""
    got: list[Any] = []
    while last not in got or len(set(got)) <= 399:
        got.append((await receiver.receive())[0])
    return got


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_with_its_defaults_is_not_asked_too_much(version: str, qos: int) -> None:
    """mosquitto takes 20 of QoS 2 at once and hangs up above that; no connection is lost by a flood."""
    async with asyncio.timeout(30), Mosquitto({"max_inflight_messages": None}) as broker:
        options = config(broker, qos=qos, protocol=version)
        async with MqttReceiver(options) as receiver, MqttSender(options) as sender:
            await receiver.connected(PATIENCE)
            for number in range(500):
                await sender.send(number, qos=qos if number % 7 else 0)
            assert await sender.flush(PATIENCE)
            assert sorted(await take(receiver, 500)) == list(range(500))
            assert sender.link.ups == receiver.link.ups == 1


async def test_a_message_the_broker_refuses_is_told(tmp_path: Path) -> None:
    """With MQTT 5 a publication that is not allowed is counted and told, and the next one goes."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite open/#\n", encoding="utf-8")
    acl.chmod(0o644)
    async with asyncio.timeout(PATIENCE), Mosquitto({"acl_file": str(acl)}) as broker:
        async with MqttSender(config(broker, qos=1, protocol="5")) as sender:
            with pytest.raises(LinkDown, match="dropped"):
                await sender.deliver(1, topic="closed")
            await sender.deliver(1, topic="open/a")
        assert sender.counts.dropped == {"refused": 1}
        assert sender.counts.items == 1


# What comes in.


async def test_wildcards_choose_what_comes(broker: Mosquitto) -> None:
    """``+`` is one level and ``#`` all the rest."""
    async with MqttReceiver(config(broker, topics=["a/+/c", "b/#"])) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker)) as sender:
            for topic in ("a/c", "a/b/c", "a/b/c/d", "b", "b/x/y", "c"):
                await sender.send(topic, topic=topic)
        assert await take(receiver, 3) == ["a/b/c", "b", "b/x/y"]
        assert await nothing_comes(receiver)


async def test_subscriptions_may_change_at_any_time(broker: Mosquitto, version: str) -> None:
    """A filter counts before the start, while connected, and after a reconnect; one that ended does not."""
    receiver: MqttReceiver[Any] = MqttReceiver(config(broker, topic="", protocol=version))
    await receiver.subscribe("a", qos=1)
    await receiver.subscribe("gone")
    async with receiver, MqttSender(config(broker)) as sender:
        await receiver.connected(PATIENCE)
        await receiver.subscribe("b")
        await receiver.unsubscribe("gone")
        await receiver.unsubscribe("never there")
        assert receiver.topics == {"a": 1, "b": 0}
        for ups in (1, 2):
            if ups == 2:
                await broker.restart()
            await until(lambda ups=ups: receiver.link.state == "up" and receiver.link.ups == ups)
            for topic in ("gone", "a", "b"):
                await sender.deliver(topic, topic=topic)
            assert await take(receiver, 2) == ["a", "b"]


async def test_a_group_shares_its_subscription(broker: Mosquitto, version: str) -> None:
    """Of those who share a filter each message goes to one."""
    shared = config(broker, topic="$share/group/work/#", qos=1, protocol=version)
    async with MqttReceiver(shared) as one, MqttReceiver(shared) as two:
        await one.connected(PATIENCE)
        await two.connected(PATIENCE)
        async with MqttSender(config(broker, qos=1)) as sender:
            for number in range(100):
                await sender.send(number, topic="work/a")
        await until(lambda: one.counts.waiting + two.counts.waiting == 100)
        first, second = await take(one, one.counts.waiting), await take(two, two.counts.waiting)
    assert first
    assert second
    assert sorted(first + second) == list(range(100))


async def test_a_subscription_the_broker_refuses_is_told() -> None:
    """The link says which filter is refused."""
    async with refusing_server(b"\x90\x03\x00\x01\x80") as port:
        receiver: MqttReceiver[Any] = MqttReceiver(
            MqttConfig(host="127.0.0.1", port=port, topic="closed", retry="never")
        )
        with pytest.raises(LinkDown, match="refuses the subscription to 'closed'"):
            await receiver.connected(PATIENCE)
        await receiver.stop()


async def test_a_filter_that_is_refused_later_costs_no_other() -> None:
    """`subscribe` raises, and what was subscribed before goes on."""
    answers = b"\x90\x03\x00\x01\x00", b"\x90\x03\x00\x02\x80" + b"\x30\x04\x00\x01t1"
    async with (
        refusing_server(*answers) as port,
        MqttReceiver(MqttConfig(host="127.0.0.1", port=port, topic="t")) as receiver,
    ):
        await receiver.connected(PATIENCE)
        with pytest.raises(LinkDown, match="'closed'"):
            await receiver.subscribe("closed")
        assert await take(receiver, 1) == [1]
        assert receiver.topics == {"t": 0}


async def test_an_item_is_acknowledged_when_it_is_accepted(broker: Mosquitto, version: str) -> None:
    """What the program has not accepted comes again to the next process, the rest does not."""
    options = remembered(broker, protocol=version)
    receiver: MqttReceiver[Any] = MqttReceiver(options)
    receiver.manual = True
    async with receiver, MqttSender(config(broker, qos=1)) as sender:
        await receiver.connected(PATIENCE)
        for number in range(5):
            await sender.deliver(number)
        metas = [(await receiver.receive())[1] for _ in range(5)]
        for meta in metas[:2]:
            receiver.accept(meta)
            receiver.accept(meta)
    async with MqttReceiver(options) as following:
        assert await take(following, 3) == [2, 3, 4]
        assert await nothing_comes(following)


@pytest.mark.parametrize("qos", [1, 2])
async def test_acknowledgements_keep_the_order_of_receipt(broker: Mosquitto, qos: int) -> None:
    """An item accepted before one that came earlier waits for it, as MQTT demands."""
    async with MqttReceiver(remembered(broker, qos=qos)) as first:
        await first.connected(PATIENCE)
    async with MqttSender(config(broker, qos=qos)) as sender:
        for number in range(3):
            await sender.deliver(number)
    for accepted in ([2, 1], [2, 0, 1]):
        receiver: MqttReceiver[Any] = MqttReceiver(remembered(broker, qos=qos))
        receiver.manual = True
        async with receiver:
            items = [await receiver.receive() for _ in range(3)]
            assert [data for data, _ in items] == [0, 1, 2]
            for number in accepted:
                receiver.accept(items[number][1])
    async with MqttReceiver(remembered(broker, qos=qos)) as last:
        await last.connected(PATIENCE)
        assert await nothing_comes(last)


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_item_in_hand_does_not_come_twice(broker: Mosquitto, version: str, qos: int) -> None:
    """What was received before a restart and is accepted during or after it is not given again."""
    receiver: MqttReceiver[Any] = MqttReceiver(remembered(broker, protocol=version, qos=qos))
    receiver.manual = True
    async with receiver, MqttSender(config(broker, qos=qos)) as sender:
        await receiver.connected(PATIENCE)
        for number in range(3):
            await sender.deliver(number)
        metas = [(await receiver.receive())[1] for _ in range(3)]
        broker.stop()
        await until(lambda: receiver.link.state != "up")
        receiver.accept(metas[0])
        await broker.start()
        await until(lambda: receiver.link.state == "up")
        receiver.accept(metas[1])
        await sender.deliver(3)
        data, meta = await receiver.receive()
        assert data == 3
        receiver.accept(metas[2])
        receiver.accept(meta)
    async with MqttReceiver(remembered(broker, protocol=version)) as following:
        await following.connected(PATIENCE)
        assert await nothing_comes(following)


async def test_what_is_not_accepted_is_bounded(broker: Mosquitto) -> None:
    """With MQTT 5 the broker sends no more than `max_inflight` until some are accepted."""
    receiver: MqttReceiver[Any] = MqttReceiver(config(broker, qos=1, protocol="5", max_inflight=5))
    receiver.manual = True
    async with receiver, MqttSender(config(broker, qos=1)) as sender:
        await receiver.connected(PATIENCE)
        for number in range(20):
            await sender.deliver(number)
        metas = [(await receiver.receive())[1] for _ in range(5)]
        assert await nothing_comes(receiver)
        receiver.accept(metas[0])
        assert await take(receiver, 1) == [5]


async def test_a_session_with_more_than_there_is_room_for_begins(broker: Mosquitto, version: str) -> None:
    """A receiver whose broker has kept more than fits is up, and gets it all as it takes it."""
    options = remembered(broker, protocol=version, maxsize=10, timeout=0.2)
    async with MqttReceiver(options) as before:
        await before.connected(PATIENCE)
    async with MqttSender(config(broker, qos=1)) as sender:
        for number in range(3000):
            await sender.send(number)
    async with MqttReceiver(options) as receiver:
        await receiver.connected(PATIENCE)
        assert await nothing_after(receiver, 0.3) == 10
        assert await take(receiver, 3000) == list(range(3000))
        assert receiver.link.ups == 1


async def nothing_after(receiver: MqttReceiver[Any], seconds: float) -> int:
    """Let time pass; return how many wait then."""
    await asyncio.sleep(seconds)
    return receiver.counts.waiting


@pytest.mark.parametrize(("policy", "first"), [("drop_oldest", 190), ("drop_newest", 0)])
async def test_a_flood_of_qos_0_drops_by_policy(broker: Mosquitto, policy: Any, first: int) -> None:
    """Only as many as there is room for stay, the newest or the oldest, and the others are counted."""
    async with MqttReceiver(config(broker, maxsize=10, overflow=policy)) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker)) as sender:
            for number in range(200):
                await sender.send(number)
        await until(lambda: sum(receiver.counts.dropped.values()) == 190)
        assert receiver.counts.dropped == {policy: 190}
        assert await take(receiver, 10) == list(range(first, first + 10))


async def test_a_flood_never_drops_what_is_to_be_acknowledged(broker: Mosquitto) -> None:
    """With any policy QoS 1 waits where QoS 0 is dropped."""
    async with MqttReceiver(config(broker, maxsize=10, overflow="drop_oldest", qos=1)) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker)) as sender:
            for number in range(200):
                await sender.send(number, qos=number % 2)
        got: list[int] = []
        while 199 not in got:
            got += await take(receiver, 1)
    assert [number for number in got if number % 2] == list(range(1, 200, 2))
    assert len(got) + sum(receiver.counts.dropped.values()) == 200


async def test_a_huge_message_costs_itself(broker: Mosquitto, version: str) -> None:
    """One above `max_size` is skipped, counted, acknowledged, and never held."""
    options = remembered(broker, protocol=version, max_size=1000)
    async with MqttReceiver(options) as receiver, MqttSender(config(broker, qos=1)) as sender:
        await receiver.connected(PATIENCE)
        for size in (1, 998, 999, 500_000, 1):
            await sender.deliver("x" * size)
        assert [len(text) for text in await take(receiver, 3)] == [1, 998, 1]
        assert receiver.counts.bad == {"size": 2}
    async with MqttReceiver(options) as following:
        await following.connected(PATIENCE)
        assert await nothing_comes(following)


async def test_a_forgotten_session_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that does not save its sessions is found out at the reconnect, with a warning."""
    async with Mosquitto({"persistence": "false"}) as broker, MqttReceiver(remembered(broker)) as receiver:
        await receiver.connected(PATIENCE)
        await broker.restart()
        await until(lambda: receiver.link.ups == 2)
    assert "forgotten the session" in caplog.text


# The connection.


async def test_the_will_is_published(broker: Mosquitto, version: str) -> None:
    """It goes out when the client is gone without a word, and not after a stop."""
    will = Will(topic="will/a", payload=b'"gone"', qos=1)
    async with MqttReceiver(config(broker, topic="will/#")) as receiver:
        await receiver.connected(PATIENCE)
        async with MqttSender(config(broker, will=will, protocol=version)) as sender:
            await sender.connected(PATIENCE)
        assert await nothing_comes(receiver)
        async with MqttSender(config(broker, will=will, protocol=version, retry_cap=5.0)) as sender:
            await sender.connected(PATIENCE)
            assert sender._connection is not None
            sender._connection.fail(ConnectionError("pulled"))
            assert await take(receiver, 1) == ["gone"]


async def test_silence_is_found(broker: Mosquitto, version: str) -> None:
    """A broker that stands still is given up after the keep-alive, and met again when it goes on."""
    options = config(broker, keep_alive=1, timeout=0.2, protocol=version)
    async with MqttReceiver(options) as receiver, MqttSender(options) as sender:
        await receiver.connected(PATIENCE)
        await sender.connected(PATIENCE)
        broker.freeze()
        try:
            await until(lambda: receiver.link.state != "up" and sender.link.state != "up")
        finally:
            broker.thaw()
        await until(lambda: receiver.link.state == "up" and sender.link.state == "up")


async def test_an_idle_line_stays_up(broker: Mosquitto, version: str) -> None:
    """Pings keep the connection when nothing else does, for the broker and for the client."""
    options = config(broker, keep_alive=1, timeout=0.5, protocol=version)
    async with MqttReceiver(options) as receiver:
        await receiver.connected(PATIENCE)
        await asyncio.sleep(2.2)
        assert receiver.link.ups == 1
        assert receiver.link.state == "up"


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """A file with one user and password for mosquitto."""
    program = find_program("mosquitto_passwd")
    require("mosquitto_passwd", program, "apt-get install mosquitto")
    assert program is not None
    file = tmp_path / "passwords"
    subprocess.run([program, "-b", "-c", file, "user", "right-secret"], check=True, capture_output=True)
    return file


async def test_a_wrong_password_is_told_and_never_shown(
    passwords: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The link says that the broker refuses the login; no secret is in a name, a config or a log."""
    options = {"password_file": str(passwords), "allow_anonymous": "false"}
    caplog.set_level(logging.DEBUG)
    async with asyncio.timeout(PATIENCE), Mosquitto(options) as broker:
        for password in ("wrong-secret", "right-secret"):
            whole = config(broker, user="user", password=password, protocol=version, retry="never")
            sender: MqttSender[Any] = MqttSender(whole)
            if password == "right-secret":
                await sender.connected(PATIENCE)
            else:
                with pytest.raises(LinkDown, match="the broker refuses"):
                    await sender.connected(PATIENCE)
            await sender.stop()
            shown = f"{whole} {sender!r} {sender._login!r} {sender.link} {sender.name}"
            assert "secret" not in shown + caplog.text


async def test_why_the_broker_disconnects_is_told() -> None:
    """With MQTT 5 it says why, for instance that another client has the same id."""
    answers = b"\x90\x04\x00\x01\x00\x00" + b"\xe0\x01\x8e"
    async with refusing_server(answers, welcome=b"\x20\x03\x00\x00\x00") as port:
        options = MqttConfig(host="127.0.0.1", port=port, protocol="5", retry="never")
        async with MqttReceiver(options) as receiver:
            await until(lambda: receiver.link.state == "failed")
            assert "same client_id" in str(receiver.link.error)


@contextlib.asynccontextmanager
async def refusing_server(*answers: bytes, welcome: bytes = b"\x20\x02\x00\x00") -> AsyncIterator[int]:
    """Serve as a broker that welcomes everybody, then says what it was told to whatever it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for answer in (welcome, *answers):
                if not await reader.read(65536):
                    break
                writer.write(answer)
                await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"\x20\xff\xff\xff\xff\x01",
        b"\x20\x02\x00",
        b"\x20\x00",
        b"\x90\x80\x80\x80\x01",
        b"\x30\x02\x00\x00",
        b"\x20\x02\x00\x05",
    ],
)
@pytest.mark.parametrize("make", [MqttSender, MqttReceiver])
async def test_a_broker_that_speaks_nonsense_is_left(answer: bytes, make: Any) -> None:
    """Whatever answers in place of a broker, the link is down with a reason, and it is tried again."""
    async with refusing_server(welcome=answer) as port:
        half = make(MqttConfig(host="127.0.0.1", port=port, timeout=0.1, retry_cap=0.01))
        async with half:
            await until(lambda: half.link.attempts >= 3)
            assert half.link.error or half.link.state == "connecting"
    assert half.link.state == "stopped"


@pytest.mark.parametrize(
    "answer",
    [
        b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
        b"\x32\x03\x00\x01t",  # no identifier
        b"\x30\x01\x00",  # half a length of a topic
        b"\x30\x03\x00\xfft",  # a topic longer than the packet
        b"\x40\x02\x00\x01",  # an acknowledgement to a receiver
        b"\x10\x00",  # a CONNECT
    ],
)
async def test_malformed_packets_end_the_connection_only(answer: bytes) -> None:
    """After each of them the receiver connects again."""
    async with (
        refusing_server(b"\x90\x03\x00\x01\x00" + answer) as port,
        MqttReceiver(MqttConfig(host="127.0.0.1", port=port, retry_cap=0.01)) as receiver,
    ):
        await until(lambda: receiver.link.ups >= 3)


async def test_a_topic_that_is_no_text_costs_itself() -> None:
    """A message whose topic is not UTF-8 is counted, and the next one comes."""
    messages = b"\x30\x04\x00\x01\xff1" + b"\x30\x04\x00\x01t2"
    async with (
        refusing_server(b"\x90\x03\x00\x01\x00" + messages) as port,
        MqttReceiver(MqttConfig(host="127.0.0.1", port=port)) as receiver,
    ):
        assert await take(receiver, 1) == [2]
        assert receiver.counts.bad == {"topic": 1}


@pytest.mark.parametrize("make", [open_receiver, open_sender])
async def test_a_host_that_is_not_there_is_told(make: Callable[..., Any]) -> None:
    """A name nobody knows and a port nobody serves are reasons of the link, not failures."""
    for place in ("no-such-host.invalid:1883", f"127.0.0.1:{free_port()}"):
        async with make(f"mqtt://{place}/t?retry_cap=0.01") as half:
            await until(lambda half=half: half.link.error is not None)
            assert half.link.state in ("down", "connecting")


@pytest.fixture(scope="module")
def uvloop() -> Any:
    """Give uvloop, with the pipe that it opens once and keeps."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    uvloop.new_event_loop().close()
    return uvloop


def test_it_runs_on_uvloop(uvloop: Any) -> None:
    """A loop with transports of its own does as well."""

    async def exchange() -> None:
        async with asyncio.timeout(PATIENCE), Mosquitto() as broker:
            options = config(broker, qos=1)
            async with MqttReceiver(options) as receiver, MqttSender(options) as sender:
                await receiver.connected(PATIENCE)
                for number in range(500):
                    await sender.send([number, "x" * 10_000])
                assert [data[0] for data in await take(receiver, 500)] == list(range(500))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())


async def test_a_url_says_it_all(broker: Mosquitto) -> None:
    """Both halves of a URL meet at its topic, with its options."""
    url = f"mqtt://127.0.0.1:{broker.port}/oven/1/temperature?qos=1&keep-alive=30"
    async with open_receiver(url) as receiver, open_sender(url + "&retain=false") as sender:
        await receiver.connected(PATIENCE)
        await sender.deliver({"i": 1})
        data, meta = await receiver.receive()
    assert (data, meta["topic"], meta["qos"]) == ({"i": 1}, "oven/1/temperature", 1)
