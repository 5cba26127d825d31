"""Links over real ZMQ sockets: many peers at one door, connections that break, keys, and full peers."""

import asyncio
import os
from typing import Any

import pytest
import zmq
from link_sides import HASTE, break_off, sides, through_breaks
from real import free_port

from nexus import AsyncEventNexus, Event
from nexus.boundaries.link import Link
from nexus.boundaries.link._frames import Hello, pack
from nexus.boundaries.link._zmq import FULL_FIRST, HELD, HWM, RouterWire
from nexus.errors import ConfigError, OpenError


def pair(**options: Any) -> tuple[Link, Link]:
    """Make an end that connects and one that listens."""
    url = f"zmq+tcp://127.0.0.1:{free_port()}"
    return Link.connect(url, limits=HASTE, name="caller", **options), Link.listen(
        url, limits=HASTE, name="door"
    )


async def test_all_crosses_though_the_connection_breaks() -> None:
    """The end that connects goes five times and comes back, and all comes once and in order."""
    async with sides(*pair()) as it:

        async def breaks() -> None:
            await break_off(it.links[0])

        await through_breaks(it, breaks, 5)


async def test_all_crosses_though_the_door_closes() -> None:
    """The end that listens closes five times, with all that libzmq holds, and opens again."""
    async with sides(*pair()) as it:

        async def breaks() -> None:
            await break_off(it.links[1])

        await through_breaks(it, breaks, 5)


async def test_a_door_serves_many() -> None:
    """Each of eight that connect gets everything, and what they send all arrives."""
    door = Link.listen("zmq+tcp://127.0.0.1:0")
    hub = AsyncEventNexus(name="hub")
    hub.register(door)
    got: list[Any] = []
    hub.add_handler("up", lambda event: got.append(event.payload))
    hub.add_handler("down", door)
    async with hub, asyncio.TaskGroup() as group:
        done = asyncio.Barrier(8)

        async def one(number: int) -> None:
            link = Link.connect(f"zmq+tcp://127.0.0.1:{door.port}", name=f"link{number}")
            nexus, mine = AsyncEventNexus(name=f"n{number}"), asyncio.Event()
            nexus.register(link)
            nexus.add_handler("up", link)
            nexus.add_handler("down", lambda event: mine.set())
            async with nexus:
                await link.connected(5)
                await nexus.ingest_many([Event(n, "up", 0, (number, n)) for n in range(100)])
                await nexus.drained()
                assert await link.flushed(5)
                await done.wait()
                if number == 0:
                    await hub.ingest(Event(1, "down", 0, None))
                await asyncio.wait_for(mine.wait(), 5)
                await done.wait()

        for number in range(8):
            group.create_task(one(number))
    assert sorted(got) == [[number, n] for number in range(8) for n in range(100)]


async def test_a_peer_that_takes_nothing_holds_nobody_back() -> None:
    """One peer says hello and reads no more; another one gets its events all the same."""
    door = Link.listen("zmq+tcp://127.0.0.1:0", limits=HASTE)
    hub = AsyncEventNexus(name="hub")
    hub.register(door)
    hub.add_handler("down", door)
    nexus, link = AsyncEventNexus(name="good"), None
    got: list[int] = []
    nexus.add_handler("down", lambda event: got.append(event.id))
    async with hub:
        with zmq.Context() as context, context.socket(zmq.DEALER) as lazy:
            lazy.linger = 0
            lazy.rcvhwm = 1
            lazy.connect(f"tcp://127.0.0.1:{door.port}")
            lazy.send(HELLO)
            link = Link.connect(f"zmq+tcp://127.0.0.1:{door.port}", limits=HASTE)
            nexus.register(link)
            async with nexus:
                await link.connected(5)
                await hub.ingest_many([Event(n, "down", 0, "x" * 10_000) for n in range(500)])
                async with asyncio.timeout(10):
                    while len(got) < 500:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
    assert got == list(range(500))


HELLO = pack(Hello("lazy", "lazy", "s"))


async def test_garbage_costs_who_sends_it() -> None:
    """What is no frame, empty or of many parts ends at most its own connection."""
    async with sides(*pair()) as it:
        port = it.links[1].port
        with zmq.Context() as context, context.socket(zmq.DEALER) as bad:
            bad.linger = 0
            bad.connect(f"tcp://127.0.0.1:{port}")
            for message in (
                [b""],
                [b"\0"],
                [b"\1"],
                [b"\2\0"],
                [HELLO[:-9]],
                [b"x"] * 9,
                [b"\xff"],
                [b"\1" * 17_000],
            ):
                bad.send_multipart(message)
            await it.give(range(300))
            await it.across()
        it.check(300)


def test_what_waits_of_a_peer_is_bounded() -> None:
    """Messages and bytes that nobody has taken yet are few of a stranger, and bounded of everybody."""
    wire = RouterWire(None, b"x")  # type: ignore[arg-type]
    for _ in range(100):
        wire.came([b"x", b"\1hello"])
    assert len(wire._mail.messages) == FULL_FIRST
    wire.trust()
    for _ in range(100):
        wire.came([b"x", b"\2" * 2**20])
    assert sum(len(message[-1]) for message in wire._mail.messages) <= HELD
    assert wire.refused > 180


async def test_keys_let_in_and_keep_out() -> None:
    """With CURVE whoever is on the list gets in, and whoever is not does not."""
    server, server_secret = (key.decode() for key in zmq.curve_keypair())
    client, client_secret = (key.decode() for key in zmq.curve_keypair())
    url = f"zmq+tcp://127.0.0.1:{free_port()}"
    door = Link.listen(url, curve_secret=server_secret, curve_clients=(client,))
    caller = Link.connect(url, curve_secret=client_secret, curve_server=server)
    stranger = Link.connect(url, curve_server=server)
    async with sides(caller, door) as it:
        other = AsyncEventNexus(name="stranger")
        other.register(stranger)
        async with other:
            await it.give(range(300))
            await it.across()
            assert stranger.link.ups == 0
        it.check(300)


@pytest.mark.parametrize("options", [{"curve_server": "x"}, {"curve_secret": "x"}, {"curve_clients": ("x",)}])
def test_wrong_keys_are_refused_at_once(options: dict[str, Any]) -> None:
    """An end that connects says at once, and not at its first try, that its keys will not do."""
    with pytest.raises(ConfigError, match="curve"):
        Link.connect("zmq+tcp://127.0.0.1:1", **options)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc/self/fd")
async def test_tries_in_vain_leave_nothing_behind() -> None:
    """While nobody listens each try gives back what it took, and once somebody does there is a link."""
    caller, door = pair()
    near, far = AsyncEventNexus(name="near"), AsyncEventNexus(name="far")
    near.register(caller)
    far.register(door)
    async with near:
        counts = []
        for tries in (3, 6):
            async with asyncio.timeout(10):
                while caller.link.attempts < tries:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            counts.append(len(os.listdir("/proc/self/fd")))
        assert abs(counts[1] - counts[0]) < 20
        async with far:
            await caller.connected(10)


async def test_a_door_beyond_loopback_needs_keys() -> None:
    """Without CURVE or insecure=True other machines cannot connect."""
    nexus = AsyncEventNexus(name="open")
    nexus.register(link := Link.listen("zmq+tcp://0.0.0.0:0"))
    with pytest.raises(ConfigError, match="insecure"):
        await link.start()


async def test_a_port_in_use_is_said() -> None:
    """A second door at the same port cannot be opened."""
    async with sides(*pair()) as it:
        second = Link.listen(f"zmq+tcp://127.0.0.1:{it.links[1].port}")
        AsyncEventNexus(name="second").register(second)
        with pytest.raises(OpenError):
            await second.start()


@pytest.mark.parametrize(
    "url",
    ["zmq+tcp://127.0.0.1", "zmq+tcp://127.0.0.1:1/x", "zmq+tcp://127.0.0.1:1?topic=a", "zmq+pub://a:1"],
)
def test_wrong_urls_are_refused(url: str) -> None:
    """A port is needed, and nothing else but the options of a link."""
    with pytest.raises(ConfigError, match="allowed"):
        Link.connect(url)


async def test_little_bulk_stands_before_an_urgent_event() -> None:
    """libzmq holds but a few messages for a peer: what is urgent does not wait for the backlog."""
    assert HWM <= 8
    async with sides(*pair()) as it:
        handled: list[int] = []
        it.nexuses[1].remove_handler("from one")
        it.nexuses[1].add_handler("from one", lambda event: handled.append(event.priority))
        await it.nexuses[0].ingest_many([Event(n, "from one", 5, "x" * 2000) for n in range(5000)])
        async with asyncio.timeout(5):
            while len(handled) < 100:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await it.nexuses[0].ingest(Event(1, "from one", -1, None))
        await it.across()
        assert len(handled) == 5001
        assert handled.index(-1) < 4500
