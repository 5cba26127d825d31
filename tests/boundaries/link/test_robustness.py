"""Hostile frames, and two whole peers against each other whatever the wire does."""

import math
import os
import random
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from memory_use import resident
from mutation import Mutator

from nexus import Event
from nexus.boundaries.link import LinkBroken, LinkLimits
from nexus.boundaries.link._frames import (
    Ack,
    Bye,
    Events,
    Hello,
    LaneAck,
    Ping,
    Pong,
    pack,
    pack_events,
    unpack,
)
from nexus.boundaries.link._peer import Arrival, Peer
from nexus.boundaries.link._rows import Rows
from nexus.errors import PackerError

HELLO = pack(Hello("x", "x", "other", ((0, 1), (5, 3))))
ROW = orjson.dumps([1, "t", {"a": [1, 2]}])
GOOD = [
    HELLO,
    pack_events(0, 1, 5, [ROW]),
    pack_events(0, 4, 5, [ROW, ROW]),
    pack_events(-1, 1, 5, [orjson.dumps([1, 2, None, {"due": 1500000, "path": ["a"]}])] * 3),
    pack(Ack(64, (LaneAck(0, 0, 64), LaneAck(5, 0, 9, ((2, 3), (5, 5)))))),
    pack(Ping(b"12345678")),
    pack(Pong(b"12345678")),
    pack(Bye("over")),
]
LIMITS = LinkLimits(maxsize=20, most_window=8, patience=1.0, heartbeat=2.0)


def fuzz_peers(seed: object, number: int) -> dict[str, int]:
    """Feed a peer with anything; return what became of it."""
    mutator = Mutator(seed, GOOD, [b"[[1,2,3]]", b'"lanes":', b"\xff\xff\xff\xff\xff\xff\xff\xff"])
    found = {"broken": 0, "arrived": 0, "most_held": 0}
    peer = Peer(lambda: ("me", "me"), "mine", LIMITS)
    peer.opened(0.0)
    peer.feed(HELLO, 0.0)
    for place in range(number):
        now = place / 1000
        inflow = peer.inflow
        assert inflow is not None
        data = mutator.next()
        if place % 10 == 0 and (lane := inflow._lane(0)) is not None:
            data = pack_events(0, lane.expected, 5, [ROW])  # so that it goes on
        if place % 50 == 0:
            peer.outflow.push(place % 3, ROW)
        try:
            arrival = peer.feed(data, now)
            if arrival is not None:
                arrival.read()
        except LinkBroken:
            found["broken"] += 1
            peer.closed()
            peer.opened(now)
            peer.feed(HELLO, now)
            continue
        if arrival is not None:
            found["arrived"] += len(arrival.rows)
            peer.accepted(arrival, len(arrival.rows), now)
        if place % 20 == 0:
            list(peer.output(now))
        held = sum(len(rows) for lane in inflow._lanes.values() for rows, _ in lane.held.values())
        found["most_held"] = max(found["most_held"], held)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_hostile_frames_only_break_the_connection(seed: int) -> None:
    """Whatever comes is taken or ends the connection, and a lane holds no more than its window."""
    found = fuzz_peers(f"frames{seed}", 5000)
    assert found["broken"] > 500
    assert found["arrived"] > 50
    assert found["most_held"] <= 64 * LIMITS.most_window


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_hostile_frames() -> None:
    """The long form, from NEXUS_SEED."""
    memory = resident()
    fuzz_peers(os.environ.get("NEXUS_SEED", "0"), 1_000_000)
    assert resident() - memory < 64 << 20


def test_questions_nobody_fetches_answers_to_take_no_memory() -> None:
    """A side that asks and asks, and reads nothing, is owed a few answers and no more."""
    peer = Peer(lambda: ("me", "me"), "mine", LIMITS)
    peer.opened(0.0)
    for _ in range(10_000):
        peer.feed(HELLO, 0.0)
        peer.feed(pack(Ping(b"12345678")), 0.0)
    assert len(list(peer.output(0.0))) < 50


def test_the_last_word_says_what_was_accepted() -> None:
    """Who leaves says first what it has accepted, so that nothing of it goes to who comes in its place."""
    one, two = (Peer(lambda: ("me", "me"), source, LIMITS) for source in "ab")
    for peer in (one, two):
        peer.opened(0.0)
    for number in range(3):
        one.outflow.push(0, orjson.dumps([number, "t", None]))
    for _ in range(4):
        for here, there in ((one, two), (two, one)):
            for frame in list(here.output(0.0)):
                if (arrival := there.feed(frame, 0.0)) is not None:
                    there.accepted(arrival, len(arrival.rows), 0.0)
                    there.leave("enough")
                    *before, last = list(there.output(0.0))
                    for each in before:
                        here.feed(each, 0.0)
                    with pytest.raises(LinkBroken, match="enough"):
                        here.feed(last, 0.0)
                    assert len(one.outflow) == 0
                    assert list(there.output(0.0)) == []
                    return
    pytest.fail("nothing arrived")


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_hellos_that_come_twice_start_no_talk_without_end(copies: int) -> None:
    """Copies of a hello are not answered for ever: in one moment the two have soon said all."""
    one, two = (Peer(lambda: ("me", "me"), source, LIMITS) for source in "ab")
    for peer in (one, two):
        peer.opened(0.0)
    wires = [copies * list(one.output(0.0)), copies * list(two.output(0.0))]
    for now in (0.0, 0.7, 1.4):
        said = 0
        while any(wires) and said < 100:
            for at, peer in ((0, two), (1, one)):
                while wires[at]:
                    said += 1
                    peer.feed(wires[at].pop(0), now)
                wires[1 - at] += peer.output(now)
        assert said < 30
        wires = [[pack(one._own_hello())] * copies, [pack(two._own_hello())] * copies]


def nested(levels: int) -> Any:
    """Make lists within lists."""
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "odd",
    [
        {"payload": nested(40)},
        {"payload": {"a": nested(33)}},
        {"headers": {"a": nested(33)}},
        {"payload": "x" * 2**20},
        {"payload": [{}] * 250_000},
        {"id": True},
        {"type": True},
        {"id": 2**70},
        {"payload": "\ud800"},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_what_no_other_side_would_read_is_never_sent(odd: dict[str, Any]) -> None:
    """An event that would end every connection it is sent on is refused where it is given."""
    fields: dict[str, Any] = {"id": 1, "type": "t", "priority": 0, "payload": None} | odd
    event: Event[Any] = Event(**fields)
    with pytest.raises(PackerError):
        Rows().pack(event)


@pytest.mark.parametrize(
    "odd", [{"payload": nested(32)}, {"payload": "x" * 1_000_000}, {"deadline": math.inf}]
)
def test_what_is_taken_can_be_read(odd: dict[str, Any]) -> None:
    """What is just small and flat enough makes a frame; a deadline that never comes is none."""
    row = Rows().pack(Event(1, "t", 0, **({"payload": None} | odd)))
    frame = unpack(pack_events(0, 1, 0, [row]))
    assert isinstance(frame, Events)
    assert len(frame.read()) == 1


class Side:
    """One of two peers, and the ledger of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = 0
        self.begin()

    def begin(self) -> None:
        """Be a new process."""
        self.lives += 1
        self.peer = Peer(lambda: (self.name, self.name), f"{self.name}{self.lives}", LIMITS)
        self.arrived: list[tuple[Arrival, int]] = []
        self.pushed: dict[int, list[int]] = {}
        self.taken: dict[tuple[str, int], list[int]] = {}


class PeersMachine(RuleBasedStateMachine):
    """Two peers, and between them a wire that loses, repeats, reorders and breaks; each may begin anew."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sides = [Side("a"), Side("b")]
        self.wires: list[list[bytes]] = [[], []]
        self.number = 0
        self.connect()

    def connect(self) -> None:
        """Begin a connection: nothing of the old one is on the wire."""
        self.wires = [[], []]
        for side in self.sides:
            side.peer.closed()
            side.arrived = []
            side.peer.opened(self.now)

    @rule(at=st.integers(0, 1), priority=st.sampled_from([-1, 0, 5]))
    def push(self, at: int, priority: int) -> None:
        self.number += 1
        side = self.sides[at]
        if side.peer.outflow.push(priority, orjson.dumps([self.number, "t", None])):
            side.pushed.setdefault(priority, []).append(self.number)

    @rule(at=st.integers(0, 1), straight=st.booleans())
    def send(self, at: int, straight: bool = False) -> None:
        """Send what there is to say, or a lone event the straight way, if it is one."""
        peer = self.sides[at].peer
        if straight and (frame := peer.lone(self.now)) is not None:
            self.wires[at].append(frame)
        else:
            self.wires[at] += peer.output(self.now)

    @rule(at=st.integers(0, 1), data=st.data())
    def arrive(self, at: int, data: st.DataObject) -> None:
        if self.wires[at]:
            self.feed(at, data.draw(st.integers(0, len(self.wires[at]) - 1)))

    def feed(self, at: int, place: int) -> None:
        """Take a frame from the wire of one side and give it to the other."""
        side = self.sides[1 - at]
        try:
            arrival = side.peer.feed(self.wires[at].pop(place), self.now)
        except LinkBroken:  # a frame came before the hello
            assert side.peer.hello is None
            self.connect()
            return
        if arrival is not None:
            side.arrived.append((arrival, self.sides[at].lives))

    @rule(at=st.integers(0, 1), data=st.data())
    def repeat_or_lose(self, at: int, data: st.DataObject) -> None:
        if self.wires[at]:
            place = data.draw(st.integers(0, len(self.wires[at]) - 1))
            if data.draw(st.booleans()):
                self.wires[at].append(self.wires[at][place])
            else:
                del self.wires[at][place]

    @rule(at=st.integers(0, 1))
    def accept(self, at: int) -> None:
        side = self.sides[at]
        if side.arrived:
            arrival, life = side.arrived.pop(0)
            taken = side.taken.setdefault((f"{self.sides[1 - at].name}{life}", arrival.priority), [])
            taken.extend(row[0] for row in arrival.read())
            side.peer.accepted(arrival, len(arrival.rows), self.now)

    @rule(seconds=st.sampled_from([0.001, 0.5, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides:
            try:
                side.peer.check(self.now)
            except LinkBroken:
                self.connect()
                return

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        self.sides[at].begin()
        self.connect()

    @invariant()
    def all_comes_once_and_in_order(self) -> None:
        for at in (0, 1):
            for (_, priority), taken in self.sides[at].taken.items():
                assert taken == sorted(set(taken)), priority

    def teardown(self) -> None:
        """With a wire that works again all that is held arrives, both ways."""
        for _ in range(300):
            for at in (0, 1):
                self.send(at)
            for at in (0, 1):
                while self.wires[at]:
                    self.feed(at, 0)
                while self.sides[1 - at].arrived:
                    self.accept(1 - at)
            if not any(len(side.peer.outflow) for side in self.sides):
                break
            self.now += 1.0
        for at, side in enumerate(self.sides):
            assert not len(side.peer.outflow), "something is held for ever"
            other = self.sides[1 - at]
            for priority, pushed in side.pushed.items():
                taken = other.taken.get((f"{side.name}{side.lives}", priority), [])
                assert taken == (pushed if other.lives == 1 else pushed[len(pushed) - len(taken) :])
        super().teardown()


TestPeers = PeersMachine.TestCase
TestPeers.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_chance_finds_nothing_that_is_left_out() -> None:
    """The same over many more steps, by chance: half of them broken by weather."""
    rng = random.Random(7)
    for _ in range(20):
        machine: Any = PeersMachine()
        for _ in range(300):
            at = rng.randrange(2)
            match rng.randrange(8):
                case 0 | 1:
                    machine.push(at, rng.choice((-1, 0, 5)))
                case 2 | 3:
                    machine.send(at)
                case 4 | 5 if machine.wires[at]:
                    machine.feed(at, rng.randrange(len(machine.wires[at])))
                case 6:
                    machine.accept(at)
                case _:
                    machine.time_passes(rng.choice((0.001, 0.5)))
        machine.teardown()
