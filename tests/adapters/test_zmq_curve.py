"""Laws about who gets in over ZMQ: CURVE and the list of clients."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from fixtures_zmq import Broker
from real import free_port

from nexus.adapters._link import Link
from nexus.adapters._zmq_end import End
from nexus.adapters.zmq import ZmqConfig, ZmqReceiver, ZmqSender
from nexus.errors import BadCall, ConfigError

pytestmark = pytest.mark.timeout(40)

COUNT = 1000
"""Messages that each intruder offers."""


def keys() -> tuple[str, str]:
    """Make a public and a secret key."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


SERVER, FRIEND, STRANGER = keys(), keys(), keys()


def server(**options: Any) -> ZmqReceiver[Any]:
    """Make a PULL with a key."""
    given: dict[str, Any] = {"pattern": "pushpull", "port": 0, "curve_secret": SERVER[1]}
    return ZmqReceiver(ZmqConfig(**(given | options)))


def client(receiver: ZmqReceiver[Any], **options: Any) -> ZmqSender[Any]:
    """Make a PUSH to it that gives up quickly."""
    port = int(receiver.address.rpartition(":")[2])
    given: dict[str, Any] = {
        "pattern": "pushpull",
        "port": port,
        "linger": 0,
        "flush_timeout": 0,
        "retry_cap": 0.05,
    }
    return ZmqSender(ZmqConfig(**(given | options)))


KNOWN = {"curve_server": SERVER[0], "curve_secret": FRIEND[1]}

INTRUDERS = {
    "no CURVE": {},
    "wrong server key": {"curve_server": STRANGER[0], "curve_secret": FRIEND[1]},
    "not listed": {"curve_server": SERVER[0], "curve_secret": STRANGER[1]},
    "no key of its own": {"curve_server": SERVER[0]},
}


@pytest.mark.parametrize("who", INTRUDERS)
async def test_nothing_of_an_intruder_is_accepted(who: str) -> None:
    """Who may not come in gets none of its messages in, both ends say so, and who may is served on."""
    async with server(curve_clients=(FRIEND[0],)) as receiver, client(receiver, **KNOWN) as friend:
        await friend.connected(5)
        async with client(receiver, maxsize=COUNT, **INTRUDERS[who]) as intruder:
            refusals = asyncio.Event()
            intruder.on_link(lambda state: refusals.set() if state.state == "down" else None)
            for number in range(COUNT):
                await intruder.send({"evil": number})
            async with asyncio.timeout(5):
                await refusals.wait()
                while sum(receiver.refused.values()) < 2:  # noqa: ASYNC110 - libzmq tells it by and by
                    await asyncio.sleep(0.01)
            assert intruder.counts.items == 0
            assert intruder.link.error
        await friend.send("good")
        assert (await receiver.receive())[0] == "good"
        assert receiver.counts.items == 1
        assert receiver.counts.waiting == 0


async def test_a_raw_intruder_gets_nothing_in() -> None:
    """Neither does one that does not wait for anybody's link, but fills libzmq's pipes."""
    async with server(curve_clients=(FRIEND[0],)) as receiver, client(receiver, **KNOWN) as friend:
        await friend.connected(5)
        context: Any = zmq.Context()
        for options in ({}, {"curve_serverkey": SERVER[0].encode()}):
            socket = context.socket(zmq.PUSH)
            if options:
                socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in STRANGER)
                socket.curve_serverkey = SERVER[0].encode()
            socket.connect(receiver.address)
            with contextlib.suppress(zmq.Again):  # it was thrown out meanwhile, and libzmq has no room left
                for _ in range(COUNT):
                    socket.send_multipart([b"evil", b"1"], zmq.NOBLOCK)
            socket.close(linger=100)
        async with asyncio.timeout(5):
            while sum(receiver.refused.values()) < 2:  # noqa: ASYNC110 - libzmq tells it by and by
                await asyncio.sleep(0.01)
        await friend.send("good")
        assert (await receiver.receive())[0] == "good"
        context.term()


async def test_a_revoked_client_is_thrown_out(tmp_path: Path) -> None:
    """Once the list is read again, who is no longer on it is disconnected and stays out; others come back."""
    listed = tmp_path / "clients"
    listed.write_text(f"# who may come\n{FRIEND[0]} # a friend\n{STRANGER[0]}\n", encoding="utf-8")
    port = free_port()
    async with server(curve_clients=(str(listed),), port=port) as receiver:
        revoked = client(receiver, curve_server=SERVER[0], curve_secret=STRANGER[1], maxsize=COUNT)
        async with client(receiver, **KNOWN) as friend, revoked:
            await revoked.connected(5)
            await revoked.send("before")
            assert (await receiver.receive())[0] == "before"
            listed.write_text(f"{FRIEND[0]}\n", encoding="utf-8")
            await receiver.reload_clients()
            async with asyncio.timeout(5):
                while revoked.link.error is None or "let in" not in revoked.link.error:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            for number in range(COUNT):
                await revoked.send({"evil": number})
            await friend.connected(5)
            await friend.send("good")
            assert (await receiver.receive())[0] == "good"
            assert (receiver.counts.items, receiver.counts.waiting) == (2, 0)


async def test_certificates_serve_as_keys(tmp_path: Path) -> None:
    """Keys may be the files that zmq.auth.create_certificates makes, and the list a folder of them."""
    server_public, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    (tmp_path / "clients").mkdir()
    _, friend_secret = zmq.auth.create_certificates(tmp_path / "clients", "friend")
    async with (
        server(curve_secret=server_secret, curve_clients=(str(tmp_path / "clients"),)) as receiver,
        client(receiver, curve_server=server_public, curve_secret=friend_secret) as friend,
    ):
        await friend.deliver("good")
        assert (await receiver.receive())[0] == "good"


async def test_without_a_list_the_servers_key_is_the_ticket() -> None:
    """A bound end with a key and no list takes whoever knows its public key, and nobody else."""
    async with server() as receiver, client(receiver, curve_server=SERVER[0]) as guest:
        await guest.send("good")
        assert (await receiver.receive())[0] == "good"
        async with client(receiver) as intruder:
            await intruder.send("evil")
            async with asyncio.timeout(5):
                while not receiver.refused:  # noqa: ASYNC110 - libzmq tells it by and by
                    await asyncio.sleep(0.01)
        assert receiver.counts.items == 1


async def test_a_publisher_has_a_list_too() -> None:
    """Only listed subscribers get what a bound publisher sends."""
    config = ZmqConfig(pattern="pubsub", port=0, host="*", curve_secret=SERVER[1], curve_clients=(FRIEND[0],))
    async with ZmqSender[Any](config) as sender:
        port = int(sender.address.rpartition(":")[2])
        subscriber = ZmqConfig(pattern="pubsub", port=port, retry_cap=0.05, curve_server=SERVER[0])
        stranger = ZmqReceiver[Any](subscriber.with_options(curve_secret=STRANGER[1]))
        friend = ZmqReceiver[Any](subscriber.with_options(curve_secret=FRIEND[1]))
        async with stranger, friend:
            await sender.subscribed(timeout=5)
            async with asyncio.timeout(5):
                while not sender.refused:  # noqa: ASYNC110 - libzmq tells it by and by
                    await asyncio.sleep(0.01)
            for number in range(COUNT):
                await sender.send(number)
            assert [(await friend.receive())[0] for _ in range(COUNT)] == list(range(COUNT))
            assert stranger.counts.items == stranger.counts.waiting == 0
            assert stranger.link.ups == 0


async def test_a_broker_with_a_list() -> None:
    """A broker lets listed publishers and subscribers in, and counts who else tried."""
    async with Broker(curve_secret=SERVER[1], curve_clients=(FRIEND[0],)) as running:
        config = running.config.with_options(curve_clients=(), linger=0, retry_cap=0.05, **KNOWN)
        evil = config.with_options(curve_secret=STRANGER[1])
        async with (
            ZmqReceiver[Any](config) as receiver,
            ZmqSender[Any](config) as sender,
            ZmqReceiver[Any](evil) as spy,
            ZmqSender[Any](evil.with_options(flush_timeout=0)) as intruder,
        ):
            await intruder.send("evil")
            await sender.subscribed(timeout=5)
            await sender.send("good")
            assert (await receiver.receive())[0] == "good"
            async with asyncio.timeout(5):
                while running.broker.counts.refused < 2:  # noqa: ASYNC110 - libzmq tells it by and by
                    await asyncio.sleep(0.01)
            assert spy.counts.waiting == intruder.counts.items == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"curve_secret": "short"}, "curve_secret"),
        ({"curve_server": SERVER[0]}, "curve_secret"),
        ({"curve_secret": None, "curve_clients": (FRIEND[0],)}, "curve_clients"),
        ({"curve_clients": ("/no/such/file",)}, "curve_clients"),
        ({"bind": False, "port": 9, "curve_server": None}, "curve_server"),
        ({"bind": False, "port": 9, "curve_server": "short"}, "curve_server"),
    ],
)
async def test_wrong_keys_are_told_and_not_shown(options: dict[str, Any], word: str) -> None:
    """A key that will not do raises an error that names the option and shows no secret."""
    with pytest.raises(ConfigError, match=word) as caught:
        await server(**options).start()
    assert SERVER[1] not in str(caught.value)
    assert SERVER[1] not in repr(server())
    assert SERVER[1] not in repr(server().config)


async def test_only_a_list_can_be_read_again() -> None:
    """Reading the clients again where there are none is a wrong call."""
    async with server() as receiver:
        with pytest.raises(BadCall):
            await receiver.reload_clients()


async def test_an_end_that_is_cut_ends_what_follows_it_without_an_error() -> None:
    """What follows the socket and the gate may see that they are closed before it sees its cancellation."""
    config = ZmqConfig(pattern="pushpull", port=0, curve_secret=SERVER[1], curve_clients=(FRIEND[0],))
    end = End(config, "receiver", zmq.ROUTER, Link("any"))
    end.open()
    following = asyncio.create_task(end.run())
    await asyncio.sleep(0.01)
    end.cut()
    async with asyncio.timeout(5):
        await following
