"""Both halves of a link together: whatever the wire does, all comes once and in the order of its lane."""

from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus.boundaries.link._frames import Ack, Events, Hello, pack, unpack
from nexus.boundaries.link._inflow import Inflow
from nexus.boundaries.link._outflow import Outflow

PRIORITIES = st.sampled_from([-1, 0, 5])


class FlowMachine(RuleBasedStateMachine):
    """A sender and a receiver, with a wire between them that loses, repeats, reorders and breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.out = Outflow(maxsize=20, patience=1.0)
        self.inflow = Inflow(least=2, most=8)
        self.there: list[bytes] = []
        self.back: list[bytes] = []
        self.arrived: list[tuple[int, int, list[list[Any]]]] = []
        self.pushed: dict[int, list[int]] = {}
        self.taken: dict[int, list[int]] = {}
        self.number = 0
        self.connect()

    def connect(self) -> None:
        """Begin a connection: nothing of the old one is on the wire, what was not accepted is forgotten."""
        self.there, self.back, self.arrived = [], [], []
        self.out.opened()
        self.inflow.opened(Hello("x", "x", "x", self.out.lanes))

    @rule(priority=PRIORITIES)
    def push(self, priority: int) -> None:
        self.number += 1
        if self.out.push(priority, orjson.dumps([self.number, "t", None])):
            self.pushed.setdefault(priority, []).append(self.number)

    @rule()
    def send(self) -> None:
        self.there += self.out.frames(self.now)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.there:
            frame = unpack(self.there.pop(data.draw(st.integers(0, len(self.there) - 1))))
            assert isinstance(frame, Events)
            rows = self.inflow.received(frame)
            if rows:
                self.arrived.append((frame.priority, frame.sent, rows))

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
            priority, sent, rows = self.arrived.pop(0)
            self.taken.setdefault(priority, []).extend(row[0] for row in rows)
            self.inflow.accepted(priority, len(rows), sent, self.now)

    @rule()
    def acknowledge(self) -> None:
        if (ack := self.inflow.ack()) is not None:
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

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @invariant()
    def all_comes_once_and_in_order(self) -> None:
        for priority, taken in self.taken.items():
            assert taken == self.pushed[priority][: len(taken)]

    @invariant()
    def the_account_is_exact(self) -> None:
        pushed = sum(map(len, self.pushed.values()))
        assert self.out.accepted + len(self.out) == pushed
        assert self.out.accepted <= sum(map(len, self.taken.values()))

    def teardown(self) -> None:
        """With a wire that works again everything arrives."""
        for _ in range(200):
            self.send()
            while self.there:
                frame = unpack(self.there.pop(0))
                assert isinstance(frame, Events)
                if rows := self.inflow.received(frame):
                    self.arrived.append((frame.priority, frame.sent, rows))
            while self.arrived:
                self.accept()
            self.acknowledge()
            while self.back:
                frame_back = unpack(self.back.pop(0))
                assert isinstance(frame_back, Ack)
                self.out.acknowledged(frame_back, self.now)
            if not len(self.out):
                break
            self.now += 70.0
            self.ask()
        assert self.taken == self.pushed
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


TestFlows = FromAnySide.TestCase
TestFlows.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
