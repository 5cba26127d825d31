"""Both halves of a link together: whatever the wire does, all comes once and in the order of its lane."""

import copy

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus.boundaries.link import _inflow
from nexus.boundaries.link._bucket import Bucket
from nexus.boundaries.link._frames import MAX_FRAME, Ack, Events, Hello, pack, pack_events, unpack
from nexus.boundaries.link._inflow import Inflow
from nexus.boundaries.link._outflow import Outflow
from nexus.boundaries.link._peer import Arrival

PRIORITIES = st.sampled_from([-1, 0, 5])
LANE_BYTES, TOTAL_BYTES = 400, 700


def lanes_of(out: Outflow) -> list[list[object]]:
    """Give all that the lanes of a sender know."""
    return [[getattr(lane, name) for name in lane.__slots__] for lane in out._lanes.values()]


class FlowMachine(RuleBasedStateMachine):
    """A sender and a receiver, with a wire between them that loses, repeats, reorders and breaks."""

    keeps = True
    rate: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.out = Outflow(maxsize=20, patience=1.0, keeps=self.keeps)
        self.bucket = Bucket(self.rate) if self.rate is not None else None
        self.inflow = Inflow(
            least=2, most=8, lane_bytes=LANE_BYTES, total_bytes=TOTAL_BYTES, bucket=self.bucket
        )
        self.there: list[bytes] = []
        self.back: list[bytes] = []
        self.arrived: list[Arrival] = []
        self.pushed: dict[int, list[int]] = {}
        self.taken: dict[int, list[int]] = {}
        self.number = 0
        self.connect()

    def connect(self) -> None:
        """Begin a connection: nothing of the old one is on the wire, what was not accepted is forgotten."""
        self.there, self.back, self.arrived = [], [], []
        self.out.opened()
        self.inflow.opened(Hello("x", "x", "x", self.out.lanes))
        self.out.allowed(LANE_BYTES, TOTAL_BYTES)

    @rule(priority=PRIORITIES, size=st.sampled_from([0, 0, 150, 1000]), left=st.sampled_from([None, 0.7]))
    def push(self, priority: int, size: int = 0, left: float | None = None) -> None:
        self.number += 1
        deadline = None if left is None else self.now + left
        if self.out.push(priority, orjson.dumps([self.number, "t", size * "x"]), deadline):
            self.pushed.setdefault(priority, []).append(self.number)

    @rule(priority=PRIORITIES, sizes=st.lists(st.sampled_from([0, 0, 150, 1000]), min_size=1, max_size=12))
    def push_many(self, priority: int, sizes: list[int]) -> None:
        numbers = range(self.number + 1, self.number + 1 + len(sizes))
        rows = [orjson.dumps([n, "t", size * "x"]) for n, size in zip(numbers, sizes, strict=True)]
        count = self.out.push_many(priority, rows)
        self.number += len(sizes)
        self.pushed.setdefault(priority, []).extend(numbers[:count])

    @rule(straight=st.booleans())
    def send(self, straight: bool = False) -> None:
        """Send what may go; if it is but a lone event, the straight way gives the same."""
        other = copy.deepcopy(self.out)
        frames = list(self.out.frames(self.now))
        if (lone := other.lone(self.now)) is not None:
            assert frames == [lone]
            assert lanes_of(other) == lanes_of(self.out)
            self.out = other if straight else self.out
        self.there += frames

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.there:
            frame = unpack(self.there.pop(data.draw(st.integers(0, len(self.there) - 1))))
            assert isinstance(frame, Events)
            rows = self.inflow.received(frame)
            if rows:
                self.arrived.append(Arrival(frame.priority, frame.sent, rows))

    @rule(data=st.data())
    def repeat_or_lose(self, data: st.DataObject) -> None:
        if self.there:
            place = data.draw(st.integers(0, len(self.there) - 1))
            if data.draw(st.booleans()):
                self.there.append(self.there[place])
            else:
                del self.there[place]

    @rule()
    def accept(self) -> None:
        if self.arrived:
            arrival = self.arrived.pop(0)
            taken = self.taken.setdefault(arrival.priority, [])
            taken.extend(row[0] for row in arrival.read() if row is not None)
            self.inflow.accepted(arrival.priority, len(arrival.rows), arrival.sent, self.now)

    @rule()
    def acknowledge(self) -> None:
        if (ack := self.inflow.ack(self.now)) is not None:
            self.back.append(pack(ack))

    @rule()
    def ask(self) -> None:
        self.inflow.tell_all()

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        if self.back:
            frame = unpack(self.back.pop(data.draw(st.integers(0, len(self.back) - 1))))
            assert isinstance(frame, Ack)
            self.out.acknowledged(frame, self.now)

    @rule()
    def lose_an_acknowledgement(self) -> None:
        self.back[:1] = []

    @rule(seconds=st.sampled_from([0.001, 0.5, 3.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(priority=PRIORITIES)
    def give_up_what_is_slow(self, priority: int) -> None:
        if self.out.depths().get(priority):
            self.out.shed_unsent(priority)

    @rule()
    def hear_after_a_silence(self) -> None:
        self.out.hasten(self.now)

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @invariant()
    def all_comes_once_and_in_order(self) -> None:
        for priority, taken in self.taken.items():
            assert taken == sorted(set(taken) & set(self.pushed[priority]))

    @invariant()
    def the_account_is_exact(self) -> None:
        pushed = sum(map(len, self.pushed.values()))
        assert self.out.accepted + len(self.out) + sum(self.out.lost.values()) == pushed
        assert self.out.accepted <= sum(map(len, self.taken.values()))

    @invariant()
    def the_receiver_holds_no_more_bytes_than_it_allows(self) -> None:
        assert all(lane.bytes <= max(LANE_BYTES, 1020) for lane in self.inflow._lanes.values())
        assert self.inflow.bytes <= TOTAL_BYTES + 3 * 1020
        assert all(lane.flying >= 0 and lane.bytes >= 0 for lane in self.out._lanes.values())

    def teardown(self) -> None:
        """With a wire that works again everything arrives that was not given up."""
        for _ in range(200):
            self.send()
            while self.there:
                frame = unpack(self.there.pop(0))
                assert isinstance(frame, Events)
                if rows := self.inflow.received(frame):
                    self.arrived.append(Arrival(frame.priority, frame.sent, rows))
            while self.arrived:
                self.accept()
            self.acknowledge()
            while self.back:
                frame_back = unpack(self.back.pop(0))
                assert isinstance(frame_back, Ack)
                self.out.acknowledged(frame_back, self.now)
            if not any(lane.count for lane in self.out._lanes.values()):
                break
            self.now += 70.0
            self.ask()
        missing = sum(map(len, self.pushed.values())) - sum(map(len, self.taken.values()))
        if self.keeps:
            assert sum(self.out.lost.values()) == missing
            assert self.out.lost.keys() <= {"expired", "slow"}
        else:
            assert missing <= sum(self.out.lost.values())
        assert not any(lane.given_up or lane.deadlines or lane.bytes for lane in self.out._lanes.values())
        assert not self.inflow.bytes
        super().teardown()


class FromAnySide(FlowMachine):
    """The same, where something is on its way already."""

    @initialize()
    def begin(self) -> None:
        for priority in (0, 0, -1, 5, 0):
            self.push(priority)
        self.acknowledge()
        for frame in self.back:
            found = unpack(frame)
            assert isinstance(found, Ack)
            self.out.acknowledged(found, self.now)
        self.send()


class WithoutKeeping(FromAnySide):
    """The same, where what was sent is not kept: what is lost on the way is lost, and counted."""

    keeps = False


class AtARate(FromAnySide):
    """The same, where no more than so many events a second may come, and the others wait."""

    rate = 20.0

    @invariant()
    def no_more_come_than_may(self) -> None:
        came = sum(map(len, self.taken.values())) + sum(len(arrival.rows) for arrival in self.arrived)
        assert came <= 3 * 2 + 2 + self.rate * self.now + 1e-6


TestFlowsAtARate = AtARate.TestCase
TestFlowsAtARate.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestFlows = FromAnySide.TestCase
TestFlows.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestFlowsWithoutKeeping = WithoutKeeping.TestCase
TestFlowsWithoutKeeping.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


def sent(out: Outflow, now: float) -> list[Events]:
    """Give what goes now."""
    found = [unpack(frame) for frame in out.frames(now)]
    assert all(isinstance(frame, Events) for frame in found)
    return found  # type: ignore[return-value]


def test_lanes_are_patient_each_for_itself() -> None:
    """What is sent again in one lane makes no other wait longer; after a silence all go at once, once."""
    out = Outflow(patience=1.0)
    for priority in (-1, 0, 5):
        out.push(priority, b'[0,"t",null]')
    out.acknowledged(Ack(64), 0.0)
    times = [now / 10 for now in range(100) if sent(out, now / 10)]
    assert times == [0.0, 1.0, 3.0, 7.0]
    out.hasten(10.0)
    assert [len(sent(out, now)) for now in (10.0, 10.5, 11.0, 12.0, 13.0)] == [3, 0, 3, 0, 3]


def test_what_has_gone_is_not_given_up_for_a_slow_side() -> None:
    """Only what never went leaves a lane, the oldest first; deadlines stay with their events."""
    out = Outflow()
    for number in range(6):
        out.push(0, orjson.dumps([number, "t", None]), deadline=9.0 if number == 5 else None)
    out.acknowledged(Ack(2), 0.0)
    sent(out, 0.0)
    out.opened()
    assert [out.shed_unsent(0) for _ in range(3)] == [True] * 3
    assert (len(out), out.lost) == (3, {"slow": 3})
    out.acknowledged(Ack(64), 10.0)
    assert [frame.read() for frame in sent(out, 10.0)] == [[[0, "t", None], [1, "t", None], None]]
    assert out.lost == {"slow": 3, "expired": 1}
    assert not out.shed_unsent(0)


def test_what_is_too_late_leaves_its_number_behind() -> None:
    """An event past its deadline does not go; nothing has its number, and it is counted, once."""
    out, inflow = Outflow(), Inflow()
    for number, deadline in enumerate((None, 1.0, 5.0, 1.0)):
        out.push(0, orjson.dumps([number, "t", None]), deadline)
    out.acknowledged(Ack(64), 0.0)
    (frame,) = sent(out, 2.0)
    assert frame.read() == [[0, "t", None], None, [2, "t", None], None]
    assert (len(out), out.lost, out.depths()) == (2, {"expired": 2}, {0: 2})
    inflow.accepted(0, len(inflow.received(frame)), 0, 2.0)
    ack = inflow.ack()
    assert ack is not None
    assert out.acknowledged(ack, 2.0) == 2
    assert (len(out), out.accepted, out.lost) == (0, 2, {"expired": 2})


def test_what_was_sent_in_time_is_not_given_up_later() -> None:
    """What the other side may have accepted goes again as it was: only that side knows what became of it."""
    out = Outflow(patience=1.0)
    out.push(0, b'[1,"t",null]', 1.0)
    out.acknowledged(Ack(64), 0.0)
    assert sent(out, 0.5)[0].read() == sent(out, 2.0)[0].read() == [[1, "t", None]]
    out.opened()
    out.acknowledged(Ack(64), 3.0)
    assert sent(out, 3.0)[0].read() == [[1, "t", None]]
    assert out.lost == {}


def test_what_is_not_kept_takes_no_memory_once_it_is_sent() -> None:
    """Without keeping, what is on its way costs a few bytes; asked for again, it is given up and counted."""
    out = Outflow(patience=1.0, keeps=False)
    out.acknowledged(Ack(8192), 0.0)
    for number in range(100):
        out.push(0, orjson.dumps([number, "t", "x" * 10_000]))
    assert sum(len(frame) for frame in sent(out, 0.0)) == 100
    assert out._lanes[0].bytes == 400
    assert len(out) == 100
    out.opened()
    out.acknowledged(Ack(8192), 1.0)
    assert [row for frame in sent(out, 1.0) for row in frame.read()] == [None] * 100
    assert (len(out), out.lost) == (0, {"unacknowledged": 100})


def test_large_events_fill_the_window_of_bytes() -> None:
    """However many events may go, no more bytes do than the other side allows; one event always may."""
    out = Outflow(max_bytes=2**30)
    out.acknowledged(Ack(8192), 0.0)
    out.allowed(8 * 2**20, 12 * 2**20)
    for priority in (0, 5, 7):
        for number in range(20):
            out.push(priority, orjson.dumps([number, "t", "x" * (MAX_FRAME - 100)]))
    gone = [frame.priority for frame in sent(out, 0.0)]
    assert [gone.count(priority) for priority in (0, 5, 7)] == [8, 4, 1]
    out.allowed(1, 1)
    out.opened()
    out.acknowledged(Ack(8192), 1.0)
    out.allowed(1, 1)
    assert [frame.priority for frame in sent(out, 1.0)] == [0, 5, 7]


def test_more_bytes_than_allowed_are_not_taken() -> None:
    """A side that sends beyond the window of bytes is not listened to until there is room again."""
    inflow = Inflow(lane_bytes=2**20, total_bytes=2**21)
    inflow.opened(Hello("x", "x", "x"))
    inflow.tell_all()
    inflow.ack()
    row = orjson.dumps([1, "t", "x" * 500_000])
    for priority in range(10):
        for number in range(1, 20):
            frame = unpack(pack_events(priority, number + (priority % 2), 0, [row]))
            assert isinstance(frame, Events)
            inflow.received(frame)
    assert inflow.bytes <= 2**21 + 10 * (_inflow.SLACK + len(row))
    assert inflow.refused > 100
    inflow.accepted(0, 1, 0, 0.0)
    frame = unpack(pack_events(0, inflow._lanes[0].expected, 0, [row]))
    assert isinstance(frame, Events)
    before = inflow.refused
    while inflow._lanes[0].given:
        inflow.accepted(0, 1, 0, 0.0)
    assert inflow.received(frame)
    assert inflow.refused == before
