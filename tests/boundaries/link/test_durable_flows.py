"""Both halves of a durable link with models of their files: whoever begins anew, all is done, and once."""

from __future__ import annotations

from functools import partial

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus.boundaries.link._frames import Ack, Events, Hello, pack, pack_events, unpack
from nexus.boundaries.link._inflow import Inflow
from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.link._peer import Arrival
from nexus.boundaries.outbox import Cursor
from nexus.boundaries.outbox._receipts import Track

PRIORITIES = st.sampled_from([-1, 0, 5])
ROOM = 25
"""Rows that the near file holds."""


class NearFile:
    """The model of an outbox: what was put, and what of it is committed."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[int, bytes]] = {}
        self.last: dict[int, int] = {}
        self.put_rows: list[tuple[int, int, bytes]] = []
        self.put_accepted: dict[int, int] = {}

    def put(self, priority: int, number: int, row: bytes) -> None:
        assert number == 1 + max(
            [self.last.get(priority, 0), *(n for p, n, _ in self.put_rows if p == priority)]
        )
        self.put_rows.append((priority, number, row))

    def put_many(self, priority: int, number: int, rows: list[bytes]) -> int:
        for place, row in enumerate(rows):
            if not self.has_room(len(row)):
                return place
            self.put(priority, number + place, row)
        return len(rows)

    def accepted(self, priority: int, number: int) -> None:
        self.put_accepted[priority] = number

    def has_room(self, size: int) -> bool:
        return sum(map(len, self.rows.values())) + len(self.put_rows) < ROOM

    def read(self, priority: int, first: int) -> list[bytes]:
        """Give up to three rows."""
        rows = self.rows.get(priority, {})
        numbers = [number for number in range(first, first + 3) if number in rows]
        return [rows[number] for number in numbers]

    def commit(self, out: Outflow | None) -> None:
        """Make it durable, and say so."""
        stored: dict[int, int] = {}
        for priority, number, row in self.put_rows:
            self.rows.setdefault(priority, {})[number] = row
            stored[priority] = self.last[priority] = number
        for priority, number in self.put_accepted.items():
            rows = self.rows.get(priority, {})
            for gone in [each for each in rows if each <= number]:
                del rows[gone]
        self.forget()
        for priority, number in stored.items():
            if out is not None:
                out.stored(priority, number)

    def forget(self) -> None:
        """Lose what is not committed."""
        self.put_rows = []
        self.put_accepted = {}


class FarFile:
    """The model of cursors and effects, which are committed together."""

    def __init__(self) -> None:
        self.cursors: dict[int, Cursor] = {}
        self.effects: list[int] = []
        self.put_effects: list[int] = []
        self.moved: list[Track] = []

    def due(self, track: Track) -> None:
        self.moved.append(track)

    def commit(self) -> None:
        """Make it durable, and say so."""
        found = [(track, track.fetch()) for track in self.moved]
        for track, cursor in found:
            self.cursors[track.priority] = cursor
        self.effects += self.put_effects
        self.forget()
        for track, cursor in found:
            track.stored(cursor.accepted)

    def forget(self) -> None:
        """Lose what is not committed."""
        self.put_effects = []
        self.moved = []


class DurableMachine(RuleBasedStateMachine):
    """Two sides that are killed, and a wire between them that loses, repeats, reorders and breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.near_file, self.far_file = NearFile(), FarFile()
        self.there: list[bytes] = []
        self.back: list[bytes] = []
        self.given: set[int] = set()
        """Committed on the near side: these are promised."""
        self.may_go: set[int] = set()
        """Those that may be given up: they have deadlines, or were shed."""
        self.shed_upto: dict[int, int] = {}
        self.begin_near()
        self.begin_far()

    # Lives and connections.

    def begin_near(self) -> None:
        self.near_file.forget()
        self.out = Outflow(maxsize=4, patience=1.0, store=self.near_file)
        for priority, last in self.near_file.last.items():
            rows = self.near_file.rows.get(priority, {})
            self.out.restore(priority, min(rows, default=last + 1), last)
        self.taken = len(self.out)

    def begin_far(self) -> None:
        self.far_file.forget()
        self.inflow = Inflow(least=2, most=8, lane_bytes=400, total_bytes=700, track=self.track)
        self.in_nexus: list[tuple[int, int, Track]] = []
        self.arrived: list[Arrival] = []

    def track(self, priority: int) -> Track:
        cursor = self.far_file.cursors.get(priority, Cursor())
        return Track(self.far_file, "x", priority, cursor, partial(self.inflow_settled, priority))  # type: ignore[arg-type]

    def inflow_settled(self, priority: int, number: int) -> None:
        self.inflow.settled(priority, number)

    def connect(self) -> None:
        self.there, self.back, self.arrived, self.asked = [], [], [], None
        self.out.opened()
        self.inflow.opened(Hello("x", "x", "x", self.out.lanes))
        self.out.allowed(400, 700)

    @initialize()
    def begin(self) -> None:
        for priority in (0, 0, -1, 5, 0):
            self.push(priority)
        self.near_commits()
        self.connect()
        self.acknowledge()
        self.hear_all()
        self.send()

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule(which=st.sampled_from(["near", "far", "both"]))
    def kill(self, which: str) -> None:
        if which != "far":
            self.begin_near()
        if which != "near":
            self.begin_far()
        self.connect()

    # The near side.

    @rule(
        priority=PRIORITIES, size=st.sampled_from([0, 0, 150, 1000]), left=st.sampled_from([None, None, 0.7])
    )
    def push(self, priority: int, size: int = 0, left: float | None = None) -> None:
        self.number += 1
        due = [] if left is None else [{"due": int((self.now + left) * 1e6)}]
        row = orjson.dumps([self.number, "t", size * "x", *due])
        if self.out.push(priority, row, None if left is None else self.now + left):
            self.taken += 1
            if left is not None:
                self.may_go.add(self.number)

    @rule(priority=PRIORITIES, sizes=st.lists(st.sampled_from([0, 0, 150, 1000]), min_size=1, max_size=12))
    def push_many(self, priority: int, sizes: list[int]) -> None:
        numbers = range(self.number + 1, self.number + 1 + len(sizes))
        rows = [orjson.dumps([n, "t", size * "x"]) for n, size in zip(numbers, sizes, strict=True)]
        put = len(self.near_file.put_rows)
        count = self.out.push_many(priority, rows)
        self.number += len(sizes)
        self.taken += count
        assert [row for _, _, row in self.near_file.put_rows[put:]] == rows[:count]

    @rule()
    def near_commits(self) -> None:
        self.given |= {orjson.loads(row)[0] for _, _, row in self.near_file.put_rows}
        self.near_file.commit(self.out)

    @rule(priority=PRIORITIES)
    def shed(self, priority: int) -> None:
        lane = self.out._lanes.get(priority)
        if lane is not None and lane.base <= lane.stored:
            number, self.asked = lane.base, None
            row = self.near_file.rows.get(priority, {}).get(number)
            if self.out.shed(priority) and row is not None:
                self.may_go.add(orjson.loads(row)[0])
            self.shed_upto[priority] = max(number, self.shed_upto.get(priority, 0))
            self.connect()  # it is done while the other side is away

    @rule()
    def ask_the_file(self) -> None:
        place = self.out.hungry()
        if place is not None and self.asked is None:
            self.asked = (*place, self.near_file.read(*place))

    @rule()
    def the_file_answers(self) -> None:
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self.out.loaded(*asked)

    asked: tuple[int, int, list[bytes]] | None = None

    @rule()
    def send(self) -> None:
        for frame in self.out.frames(self.now):
            found = unpack(frame)
            assert isinstance(found, Events)
            last = found.first + len(found) - 1
            assert last <= self.near_file.last.get(found.priority, 0), "sent before it was durable"
            self.there.append(frame)

    # The wire.

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.there:
            self.take(self.there.pop(data.draw(st.integers(0, len(self.there) - 1))))

    def take(self, data: bytes) -> None:
        frame = unpack(data)
        assert isinstance(frame, Events)
        if rows := self.inflow.received(frame):
            first, track = self.inflow.given(frame.priority, len(rows))
            assert track is not None
            self.arrived.append(Arrival(frame.priority, frame.sent, rows, first, track))

    @rule(data=st.data())
    def repeat_or_lose(self, data: st.DataObject) -> None:
        if self.there:
            place = data.draw(st.integers(0, len(self.there) - 1))
            if data.draw(st.booleans()):
                self.there.append(self.there[place])
            else:
                del self.there[place]

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        if self.back:
            self.hear_one(self.back.pop(data.draw(st.integers(0, len(self.back) - 1))))

    def hear_one(self, data: bytes) -> None:
        frame = unpack(data)
        assert isinstance(frame, Ack)
        self.out.acknowledged(frame, self.now)
        assert not self.out.is_overtaken

    def hear_all(self) -> None:
        while self.back:
            self.hear_one(self.back.pop(0))

    @rule()
    def lose_an_acknowledgement(self) -> None:
        self.back[:1] = []

    @rule()
    def all_goes_round(self) -> None:
        """Have an undisturbed moment, in which nothing is settled."""
        self.near_commits()
        self.ask_the_file()
        self.send()
        while self.there:
            self.take(self.there.pop(0))
        while self.arrived:
            self.accept()
        self.acknowledge()
        self.hear_all()

    # The far side.

    @rule()
    def accept(self) -> None:
        """Let the nexus take the next that came; those that an earlier life has settled are left out."""
        if self.arrived:
            arrival = self.arrived.pop(0)
            track = arrival.track
            assert track is not None
            for number, row in enumerate(arrival.read(), arrival.first):
                if row is None or track.has(number):
                    track.settled(number)
                else:
                    self.in_nexus.append((number, row[0], track))
            self.inflow.accepted(arrival.priority, len(arrival.rows), arrival.sent, self.now)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.in_nexus:
            self.settle_one(data.draw(st.integers(0, len(self.in_nexus) - 1)))

    @rule()
    def settle_the_last(self) -> None:
        if self.in_nexus:
            self.settle_one(len(self.in_nexus) - 1)

    def settle_one(self, place: int) -> None:
        number, identity, track = self.in_nexus.pop(place)
        track.settled(number)
        self.far_file.put_effects.append(identity)

    @rule()
    def far_commits(self) -> None:
        self.far_file.commit()

    @rule()
    def acknowledge(self) -> None:
        if (ack := self.inflow.ack()) is not None:
            self.back.append(pack(ack))

    @rule()
    def ask(self) -> None:
        self.inflow.tell_all()

    @rule(seconds=st.sampled_from([0.001, 0.5, 3.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # Laws.

    @invariant()
    def nothing_is_done_twice_or_before_it_was_promised(self) -> None:
        done = self.far_file.effects + self.far_file.put_effects
        assert len(done) == len(set(done))
        assert set(done) <= self.given

    @invariant()
    def what_is_accepted_is_durable_beyond(self) -> None:
        for priority, lane in self.out._lanes.items():
            cursor = self.far_file.cursors.get(priority, Cursor())
            assert lane.base - 1 <= max(cursor.accepted, self.shed_upto.get(priority, 0))

    @invariant()
    def the_account_is_exact(self) -> None:
        assert self.out.accepted + len(self.out) + sum(self.out.lost.values()) == self.taken

    @invariant()
    def memory_is_bounded(self) -> None:
        assert all(lane.count <= 4 + 3 for lane in self.out._lanes.values())
        assert all(lane.flying >= 0 and lane.bytes >= 0 for lane in self.out._lanes.values())

    def teardown(self) -> None:
        """With files and a wire that work again all is done that was promised, and nothing is left."""
        for _ in range(300):
            self.near_commits()
            self.ask_the_file()
            self.the_file_answers()
            self.send()
            while self.there:
                self.take(self.there.pop(0))
            while self.arrived:
                self.accept()
            while self.in_nexus:
                self.settle_one(0)
            self.far_commits()
            self.acknowledge()
            self.hear_all()
            if not len(self.out) and not any(self.near_file.rows.values()):
                break
            self.now += 70.0
            self.ask()
        assert not any(self.near_file.rows.values())
        assert self.given - self.may_go <= set(self.far_file.effects) <= self.given
        lanes = self.out._lanes.values()
        assert not any(lane.given_up or lane.deadlines or lane.bytes or lane.behind for lane in lanes)
        assert not self.inflow.bytes
        super().teardown()


def test_what_an_earlier_life_has_settled_out_of_turn_is_not_waited_for() -> None:
    """The other side need not send it, and the lane goes on behind it; nothing is given twice."""
    file = FarFile()
    file.cursors[0] = Cursor(0, ((2, 2),))
    inflow = Inflow(track=lambda priority: Track(file, "x", 0, file.cursors[0], partial(inflow.settled, 0)))  # type: ignore[arg-type]
    inflow.opened(Hello("x", "x", "x", ((0, 1),)))
    frames = [unpack(pack_events(0, number, 1, [b'[%d,"t",1]' % number])) for number in (1, 3, 4)]
    one, three, four = (frame for frame in frames if isinstance(frame, Events))
    assert inflow.received(one) is one
    _, track = inflow.given(0, 1)
    assert track is not None
    inflow.accepted(0, 1, 1, 0.0)
    assert inflow.received(four) == []
    track.settled(1)
    file.commit()
    assert file.cursors[0].accepted == 2
    assert inflow.received(three) is three
    inflow.accepted(0, 1, 1, 0.0)
    inflow.opened(Hello("x", "x", "x", ((0, 3),)))
    assert inflow.received(three) == []
    assert inflow.received(four) is four


def test_what_was_settled_out_of_turn_counts_once_those_before_it_never_come() -> None:
    """A number that is given up closes the gap before those that were settled already."""
    file = FarFile()
    track = Track(file, "x", 0, Cursor(), lambda number: None)  # type: ignore[arg-type]
    track.settled(2)
    track.settled(3)
    track.skip_to(1)
    file.commit()
    assert file.cursors == {0: Cursor(3)}


TestDurableFlows = DurableMachine.TestCase
TestDurableFlows.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
