"""Somebody between two sides that know a token: what he makes, changes or plays again has no effect."""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from link_server import Server, client, crosses, cut, strangers
from link_sides import sides

from nexus import AsyncEventNexus, Event
from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.adapters.packing import bytes_packer
from nexus.boundaries.link import Link, LinkBroken, LinkLimits
from nexus.boundaries.link._adapters import Part
from nexus.boundaries.link._frames import CHALLENGE, Ack, Bye, Hello, pack, pack_events
from nexus.boundaries.link._seal import SealedWire
from nexus.testing import MemoryWire, virtual_time

TOKEN = "a secret that nobody guesses"
FORGED = [
    pack(Hello("evil", "evil", "evil")),
    pack_events(0, 1, 0, [b'[666,"t","evil"]']),
    pack_events(0, 1, 0, [b'[666,"t","evil"]']) + bytes(16),
    pack(Ack(8192)),
    pack(Bye("go away")),
    CHALLENGE + bytes(64),
    b"",
    b"x",
]


class Middle:
    """Sits between the two ends of a link, passes on what they say, and adds to it."""

    def __init__(self, seed: int, share: float = 1.0) -> None:
        self.rng = random.Random(seed)
        self.share = share
        self.seen: list[list[bytes]] = [[], []]
        self.added = 0
        self.ends: list[list[MemoryWire]] = []
        self._waiting: asyncio.Future[MemoryWire] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def dial(self) -> MemoryWire:
        """Give one end of a new connection, as soon as both want one."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
            return await self._waiting
        one, other = MemoryWire.pair(), MemoryWire.pair()
        for way in ((one[1], other[1], 0), (other[1], one[1], 1)):
            task = asyncio.get_running_loop().create_task(self._pass(*way))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.ends.append([one[1], other[1]])
        self._waiting.set_result(other[0])
        return one[0]

    async def _pass(self, source: MemoryWire, target: MemoryWire, way: int) -> None:
        with suppress(ConnectionError):
            while True:
                for message in await source.receive():
                    data = b"".join(message)
                    self.seen[way].append(data)
                    while self.rng.random() < self.share / 2:
                        self.added += 1
                        await target.send([self._evil(data, way)])
                    await target.send([data])
        target.close()

    def _evil(self, data: bytes, way: int) -> bytes:
        """Make something of what was heard."""
        rng = self.rng
        match rng.randrange(6):
            case 0:
                return rng.choice(self.seen[way])  # played again, of this session or an older one
            case 1:
                return rng.choice(self.seen[1 - way] or [data])  # sent back to who said it
            case 2:
                changed = bytearray(data)
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                return bytes(changed)
            case 3:
                other = rng.choice(self.seen[way])
                return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
            case 4:
                return data[: rng.randrange(len(data))]
            case _:
                return rng.choice(FORGED)

    def break_now(self) -> None:
        """End the connection there is."""
        for wire in self.ends[-1]:
            wire.close()


async def tampered(seed: int, wanted: int) -> None:
    """Send events both ways past somebody who adds what he likes; all comes once and nothing else."""
    middle = Middle(seed)
    limits = LinkLimits(maxsize=300, most_window=16)
    nexuses = [AsyncEventNexus(name=name) for name in ("near", "far")]
    links = [Link.over(middle.dial, name=name, limits=limits, token=TOKEN) for name in ("here", "there")]
    got: tuple[list[Any], list[Any]] = ([], [])
    for at in (0, 1):
        nexuses[at].register(links[at])
        nexuses[at].add_handler(f"from {at}", links[at])
        for type_ in (f"from {1 - at}", "t"):
            nexuses[at].add_handler(type_, partial(_take, got[at]))
    count = 0
    async with nexuses[0], nexuses[1]:
        while middle.added < wanted:
            for at in (0, 1):
                await nexuses[at].ingest_many(
                    Event(n, f"from {at}", n % 3, n) for n in range(count, count + 100)
                )
            count += 100
            await asyncio.sleep(0.05)
            if count % 1000 == 0:
                middle.break_now()
        middle.share = 0
        for at in (0, 1):
            await nexuses[at].drained()
            assert await links[at].flushed(600)
        for at in (0, 1):
            await nexuses[at].drained()
    for at in (0, 1):
        for priority in range(3):
            assert [n for n in got[at] if n % 3 == priority] == list(range(priority, count, 3))
        assert links[at].counts.received == count
        assert links[at].counts.left_out == {}
    assert sum(link.counts.forged for link in links) > middle.added / 4
    assert not any(TOKEN.encode() in data for way in middle.seen for data in way)


def _take(got: list[Any], event: Event[Any]) -> None:
    got.append(event.payload)


@virtual_time
async def test_what_others_put_on_the_wire_has_no_effect() -> None:
    """Ten thousand frames played again, sent back, changed, spliced, cut and made up: no event of them."""
    await tampered(1, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@virtual_time
async def test_many_frames_of_others_have_no_effect() -> None:
    """The long form, from NEXUS_SEED."""
    await tampered(int(os.environ.get("NEXUS_SEED", "0")), 500_000)


@asynccontextmanager
async def met(is_whole: bool) -> AsyncIterator[tuple[SealedWire, SealedWire, MemoryWire, list[int]]]:
    """Give two sealed wires that have met, the wire below the first one, and what counts forged ones."""
    one, other = MemoryWire.pair()
    for wire in (one, other):
        wire.is_whole = is_whole  # type: ignore[attr-defined]
    forged: list[int] = []
    ends = [SealedWire(wire, TOKEN, 1.0, lambda: forged.append(1)) for wire in (one, other)]
    await asyncio.gather(*(end.meet() for end in ends))
    yield ends[0], ends[1], one, forged
    one.close()
    other.close()


@virtual_time
async def test_a_token_holds_in_bad_weather() -> None:
    """Where challenges and frames are lost, come twice and are overtaken, both sides meet and all crosses."""
    weather: dict[str, Any] = {"loss": 0.2, "dup": 0.2, "reorder": 0.2, "delay": 0.02}

    def end(there: str, here: str, seed: int) -> Link:
        return Link.over_adapters(
            MemorySender[Any](MemoryConfig(topic=there)),
            MemoryReceiver[Any](MemoryConfig(topic=here)),
            chaos=weather | {"seed": seed},
            limits=LinkLimits(patience=0.2),
            token=TOKEN,
        )

    async with sides(end("a", "b", 1), end("b", "a", 2)) as it:
        await it.give(range(500))
        await it.across()
        it.check(500)
        assert it.links[0].counts.forged == 0


@virtual_time
async def test_strangers_on_a_topic_end_no_session() -> None:
    """Thousands of parts made by who does not know the token, with sessions of their own: nobody notices."""
    limits = LinkLimits(patience=0.2)

    def end(there: str, here: str) -> Link:
        config = MemoryConfig(topic=there)
        receiver = MemoryReceiver[Any](MemoryConfig(topic=here))
        return Link.over_adapters(MemorySender[Any](config), receiver, limits=limits, token=TOKEN)

    rng = random.Random(5)
    stranger = MemorySender[Any](MemoryConfig(topic="b"), packer=bytes_packer)
    async with sides(end("a", "b"), end("b", "a")) as it:
        ups = [link.link.ups for link in it.links]
        await stranger.start()
        for number in range(200):
            await it.give(range(10 * number, 10 * number + 10))
            for _ in range(10):
                source, target = (rng.randrange(1, 2**32), 1), rng.choice(((0, 0), it_means(it.links[0])))
                part = Part(source, target, number, 0, 1, rng.choice(FORGED))
                await stranger.deliver(part.pack(rng.choice((b"", b"guess"))))
            await asyncio.sleep(0.01)
        await it.across()
        await stranger.stop()
        it.check(2000)
        assert [link.link.ups for link in it.links] == ups


def it_means(link: Link) -> tuple[int, int]:
    """Return what parts for an end of a link have to say."""
    dialler: Any = link._dialler
    return (dialler.instance, dialler._sessions)


@virtual_time
async def test_any_bytes_are_no_challenge() -> None:
    """Whatever comes first, on a whole wire it ends the connection, and it does so with the one error."""
    rng = random.Random(3)
    for number in range(500):
        data = rng.choice(FORGED) if number < 50 else rng.randbytes(rng.randrange(100))
        if number % 3 == 0:
            data = CHALLENGE + data
        one, other = MemoryWire.pair()
        one.is_whole = True  # type: ignore[attr-defined]
        await other.send([data])
        with pytest.raises(LinkBroken):
            await SealedWire(one, TOKEN, 1.0, lambda: None).meet()
        one.close()
        other.close()


@pytest.mark.parametrize("data", FORGED, ids=range(len(FORGED)))
@virtual_time
async def test_what_is_forged_ends_a_whole_wire(data: bytes) -> None:
    """Where nobody else can be on the wire, a frame without proof ends the connection, and says why."""
    async with met(is_whole=True) as (one, other, below, _):
        await one.send([b"good"])
        assert await other.receive() == [[b"good"]]
        await below.send([data])
        with pytest.raises(LinkBroken, match="has not sent"):
            await other.receive()


@virtual_time
async def test_a_message_is_good_for_its_session_and_direction() -> None:
    """What was said in one session is nothing in another, nor to who has said it."""
    async with met(is_whole=False) as (one, other, below, forged):
        captured: list[Sequence[bytes]] = []
        send, below.send = below.send, lambda frames: _keep(captured, frames)  # type: ignore[method-assign]
        await one.send([b"word"])
        below.send = send  # type: ignore[method-assign]
        for _ in range(20):
            async with met(is_whole=False) as (_, later, elsewhere, late):
                await elsewhere.send(captured[-1])
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(later.receive(), 1)
                assert len(late) == 1
        await other._wire.send(captured[-1])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.receive(), 1)
        assert len(forged) == 1
        await below.send(captured[-1])
        assert await other.receive() == [[b"word"]]


async def _keep(captured: list[Sequence[bytes]], frames: Sequence[bytes]) -> None:
    captured.append([b"".join(frames)])


@pytest.mark.parametrize(
    ("mine", "others", "said"),
    [
        ("one", "other", "the other side does not know the token"),
        ("one", "", "the other side has no token, and this one has"),
        ("", "one", "the other side has a token, and this one has none"),
    ],
)
async def test_each_side_says_why_the_tokens_will_not_do(
    mine: str, others: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong token, one too many and one too few are told apart, in the state and in the log."""
    caplog.set_level(logging.INFO)
    async with Server(token=mine) as server, client(server.link.port, name="x", token=others) as (_, link):
        down = asyncio.Event()
        link.on_link(lambda state: down.set() if state.state == "down" else None)
        await asyncio.wait_for(down.wait(), 10)
        assert said in caplog.text
        assert link.link.error is not None
        assert "token" in link.link.error
        assert link.link.ups == server.link.link.ups == 0
        assert not server.link._peers.all


async def test_a_conversation_played_again_is_nobody() -> None:
    """All that one said, played to the same listener once more: nothing is held for him nor taken of him."""
    said: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", server.link.port)

        async def there_and_heard() -> None:
            while data := await reader.read(65536):
                said.append(data)
                there.write(data)
            there.close()

        async def back_again() -> None:
            while data := await back.read(65536):
                writer.write(data)
            writer.close()

        with suppress(OSError):
            await asyncio.gather(there_and_heard(), back_again())
        done.set()

    done = asyncio.Event()
    async with Server(token=TOKEN) as server, await asyncio.start_server(listen, "127.0.0.1", 0) as relay:
        port = relay.sockets[0].getsockname()[1]
        async with client(port, name="good", token=TOKEN) as (nexus, _):
            await crosses(nexus, server, "once")
        await asyncio.wait_for(done.wait(), 10)
        before = server.link.counts
        async with strangers(server.link.port, [b"".join(said)]) as (reader,):
            await cut(reader)
        assert server.got == ["once"]
        assert server.link.counts == before
        assert server.link.link.ups == 1
