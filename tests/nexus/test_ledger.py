"""The ledger: every event has one outcome, whatever happens to it and whenever one looks."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import nexus
from nexus import AsyncEventNexus, Event, StopReport
from nexus.errors import LoopStopped, QueueFull
from nexus.testing import VirtualTimeLoop, assert_ledger_balanced, virtual_time


@pytest.fixture(autouse=True, scope="module")
def without_log() -> Iterator[None]:
    """The handlers here fail by the thousand."""
    logger = logging.getLogger("nexus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


DELAYS = st.sampled_from([0.0, 0.25, 1.0, 3.0])


@attrs.frozen
class Task:
    """What an event asks of its handler."""

    number: int
    sleep: float = 0.0
    """Seconds the handler takes."""
    failures: int = 0
    """Tries that fail before one succeeds."""
    consumed: bool = False
    """Whether the filter keeps it."""
    children: tuple["Child", ...] = ()
    """Secondary events."""


@attrs.frozen
class Child:
    """A secondary event to be made."""

    type: str
    priority: int
    sleep: float


TYPES = (
    *("async", "plain", "failing", "timeout", "retries", "delayed"),
    *("pool", "pool-delayed", "two", "mixed", "nobody"),
)
POLICIES = (
    *(nexus.Block(), nexus.DropOldest(), nexus.DropNewest(), nexus.Fail()),
    *(nexus.LatestByKey(), nexus.LatestByKey(lambda event: event.payload.number % 3)),
)

types = st.sampled_from(TYPES)
priorities = st.integers(-1, 2)
children = st.lists(st.builds(Child, types, priorities, DELAYS), max_size=4).map(tuple)


events: dict[str, Any] = {
    "type_": types,
    "priority": priorities,
    "deadline": st.none() | DELAYS,
    "sleep": DELAYS,
    "failures": st.integers(0, 3),
    "consumed": st.booleans(),
    "children": children,
}
is_running = precondition(lambda machine: machine.report is None)


class LedgerMachine(RuleBasedStateMachine):
    """A nexus in virtual time beside a model that knows which events were accepted and which have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.accepted: set[int] = set()
        self.refused = 0
        self.ended: set[int] = set()
        self.consumed: set[int] = set()
        self.tries: Counter[tuple[str, int]] = Counter()
        self.open_parts: dict[int, int] = {}
        self.givers: list[asyncio.Task[None]] = []
        self.report: StopReport | None = None
        self.wrong: list[str] = []
        self.deadline = float("inf")

    # The nexus under test.

    @initialize(maxsize=st.integers(1, 6), max_lanes=st.integers(2, 4), ageing=st.sampled_from([None, 1.0]))
    def start(self, maxsize: int, max_lanes: int, ageing: float | None) -> None:
        """Start a nexus with a handler of every kind."""
        self.loop = VirtualTimeLoop()
        self.runner = asyncio.Runner(debug=False, loop_factory=lambda: self.loop)
        self.nexus = AsyncEventNexus(
            multiple=True, maxsize=maxsize, max_lanes=max_lanes, ageing=ageing, max_secondary=3
        )
        add = self.nexus.add_handler
        self.nexus.add_filter(self.filter)
        for type_ in TYPES[:-1]:
            if type_ != "plain":
                options: dict[str, Any] = {
                    "timeout": {"timeout": 0.5},
                    "retries": {"retries": 2},
                    "delayed": {"retries": 2, "retry_delay": 0.5},
                    "pool": {"concurrency": 2},
                    "pool-delayed": {"concurrency": 1, "retries": 1, "retry_delay": 1.0, "timeout": 2.0},
                    "mixed": {"concurrency": 1, "retries": 1},
                }.get(type_, {})
                add(type_, self.handler(type_, options.get("retries", 0)), **options)
        add("plain", self.plain)
        add("two", self.handler("two, again", 0))
        add("mixed", self.handler("mixed, inline", 0))
        add("mixed", self.handler("mixed, pool", 0), concurrency=1)
        self.parts = {"two": 2, "mixed": 3}
        self.run(self.begin())

    async def begin(self) -> None:
        self.nexus.start()
        await asyncio.sleep(0)

    @precondition(lambda self: self.report is None)
    @rule(type_=st.sampled_from(["pool", "pool-delayed", "async"]), policy=st.sampled_from(POLICIES))
    def flood(self, type_: str, policy: Any) -> None:
        """Many events of one type and priority come one after the other, more than its lane holds."""
        self.nexus.set_policy(type_, policy)

        async def flood() -> None:
            events = [self.make(type_, 0, None, sleep=3.0) for _ in range(10)]
            giver = self.loop.create_task(self.give_many(events[:5]))
            for event in events[5:]:
                await asyncio.sleep(0)
                self.givers.append(self.loop.create_task(self.give(event)))
            self.givers.append(giver)

        self.run(flood())

    @rule()
    def without_filter(self) -> None:
        """Filters may come and go; without one, events take the short way."""
        if self.nexus.filters:
            self.nexus.remove_filter(self.filter)
        else:
            self.nexus.add_filter(self.filter)

    def filter(self, event: Event[Any]) -> bool:
        self.look()
        if event.payload.consumed:
            self.ended.add(event.payload.number)
        return bool(event.payload.consumed)

    def handler(self, name: str, retries: int) -> Any:
        async def handle(event: Event[Task], queue: nexus.SecondaryQueue) -> None:
            task = event.payload
            self.look()
            self.tries[name, task.number] += 1
            tries = self.tries[name, task.number]
            try:
                if task.sleep:
                    await asyncio.sleep(task.sleep)
                self.have_children(task, queue)
                if tries <= task.failures:
                    raise ValueError(f"try {tries}")
            except BaseException as exc:
                cancelled = isinstance(exc, asyncio.CancelledError) and self.loop.time() >= self.deadline
                if tries > retries and not cancelled:
                    self.part_ended(event)
                raise
            self.part_ended(event)

        handle.__qualname__ = name
        return handle

    def plain(self, event: Event[Task], queue: nexus.SecondaryQueue) -> None:
        self.look()
        self.have_children(event.payload, queue)
        self.part_ended(event)
        if event.payload.failures:
            raise ValueError("a plain failure")

    def part_ended(self, event: Event[Task]) -> None:
        """Note that one of an event's handlers has come to its end."""
        number = event.payload.number
        if number in self.ended:
            self.wrong.append(f"event {number} was handled after its end")
        left = self.open_parts.setdefault(number, self.parts.get(str(event.type), 1)) - 1
        self.open_parts[number] = left
        if left == 0:
            self.ended.add(number)

    def have_children(self, task: Task, queue: nexus.SecondaryQueue) -> None:
        for child in task.children:
            event = self.make(child.type, child.priority, None, sleep=child.sleep)
            try:
                queue.put_nowait(event)
            except QueueFull:
                self.refused += 1
            else:
                self.accepted.add(event.payload.number)

    def look(self) -> None:
        """Look at the ledger in the middle of things."""
        stats = self.nexus.stats()
        if not stats.balanced or stats.ingested < len(self.accepted):
            self.wrong.append(f"seen from within: {stats}")

    # Givers.

    def make(self, type_: str, priority: int, deadline: float | None, **task: Any) -> Event[Task]:
        self.numbers += 1
        metadata = {}
        if deadline is not None and type_ != "mixed":  # its parts could meet different ends
            metadata["deadline"] = self.loop.time() + deadline
        return Event(self.numbers, type_, priority, Task(self.numbers, **task), **metadata)

    @is_running
    @rule(**events)
    def ingest(self, **words: Any) -> None:
        """Somebody gives an event and waits for room."""
        self.givers.append(self.loop.create_task(self.give(self.make(**words))))

    async def give(self, event: Event[Task]) -> None:
        try:
            await self.nexus.ingest(event)
        except QueueFull:
            self.refused += 1
        except LoopStopped:
            pass
        else:
            self.accepted.add(event.payload.number)

    @is_running
    @rule(count=st.integers(1, 12), **events)
    def ingest_many(self, count: int, **words: Any) -> None:
        """Somebody gives many at once."""
        self.givers.append(self.loop.create_task(self.give_many([self.make(**words) for _ in range(count)])))

    async def give_many(self, events: list[Event[Task]]) -> None:
        def noting() -> Iterator[Event[Task]]:
            for event in events:
                yield event
                self.accepted.add(event.payload.number)

        try:
            await self.nexus.ingest_many(noting())
        except QueueFull:
            self.refused += 1
        except LoopStopped:
            pass

    @is_running
    @rule(**events)
    def ingest_nowait(self, **words: Any) -> None:
        """Somebody gives an event at once or not at all."""

        async def give() -> None:
            event = self.make(**words)
            try:
                self.nexus.ingest_nowait(event)
            except QueueFull:
                self.refused += 1
            else:
                self.accepted.add(event.payload.number)

        self.run(give())

    @precondition(lambda self: self.givers)
    @rule(data=st.data())
    def cancel_giver(self, data: st.DataObject) -> None:
        """A giver loses patience."""
        data.draw(st.sampled_from(self.givers)).cancel()

    # Time, policies, the end.

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            for _ in range(5):  # what is due at this very moment is done, too
                await asyncio.sleep(0)

        self.run(wait())
        self.givers = [giver for giver in self.givers if not giver.done()]

    @rule(type_=types, policy=st.sampled_from(POLICIES))
    def set_policy(self, type_: str, policy: Any) -> None:
        """Another policy from now on."""
        self.nexus.set_policy(type_, policy)

    @is_running
    @rule(grace=st.sampled_from([0.0, 0.512, 30.012]))
    def stop(self, grace: float) -> None:
        """The nexus stops."""

        async def stop() -> StopReport:
            self.deadline = self.loop.time() + grace
            return await self.nexus.stop(grace=grace)

        self.report = self.run(stop())
        self.run(asyncio.sleep(10.0))
        numbers = [event.payload.number for event in self.report.remaining]
        assert len(numbers) == len(set(numbers)) == self.nexus.stats().queued
        assert set(numbers) <= self.accepted - self.ended
        assert self.report.stuck == ()
        assert sorted(event.priority for event in self.report.remaining) == [
            event.priority for event in self.report.remaining
        ]

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @invariant()
    def ledger_is_exact(self) -> None:
        """What the nexus says is what the model knows."""
        if hasattr(self, "nexus"):
            assert not self.wrong
            stats = self.nexus.stats()
            assert_ledger_balanced(stats)
            assert stats.ingested == len(self.accepted)
            assert stats.refused == self.refused
            assert stats.handled + stats.failed == len(self.ended)
            silent = stats.dropped + stats.expired + stats.unhandled
            assert stats.queued == len(self.accepted) - len(self.ended) - silent
            assert stats.queued >= stats.active >= 0
            assert sum(stats.lanes.values()) == stats.queued - stats.active

    def teardown(self) -> None:
        if hasattr(self, "nexus"):
            try:
                if self.report is None:
                    self.stop(0.512)
                    self.ledger_is_exact()
                for giver in self.givers:
                    giver.cancel()
                self.run(asyncio.sleep(0))
            finally:
                self.runner.close()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_ledger_is_exact_for_a_long_time() -> None:
    """The same machine, for as long as one has patience."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        LedgerMachine, settings=settings(max_examples=20_000, stateful_step_count=50, deadline=None)
    )


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fallback", [False, True])
@virtual_time
async def test_types_without_end_share_an_account(count: int, fallback: bool) -> None:
    """A peer who invents types cannot fill the memory: beyond a thousand they are counted together."""
    seen: Counter[str] = Counter()
    domain = AsyncEventNexus()
    domain.add_handler("known", lambda event: seen.update(["known"]))
    if fallback:
        domain.add_handler(-1, lambda event: seen.update(["rest"]))
    async with domain:
        await domain.ingest_many(Event(n, f"type-{n}", 0, None) for n in range(count))
        await domain.ingest(Event(0, "known", 0, None))
        await domain.drained()
        stats = domain.stats()
        assert len(stats.types) <= 1003
        assert stats.types["*"].ingested >= count - 1000
        assert seen == Counter(known=1, rest=count if fallback else 0)
        assert_ledger_balanced(
            stats, ingested=count + 1, **{"handled" if fallback else "unhandled": count + fallback}
        )


@virtual_time
async def test_a_refused_type_without_end_shares_an_account_too() -> None:
    """Refusals are counted under the same bound."""
    domain = AsyncEventNexus(maxsize=1)
    async with domain:
        domain.ingest_nowait(Event(0, "a", 0, None))
        for number in range(5000):
            with pytest.raises(QueueFull):
                domain.ingest_nowait(Event(number, f"type-{number}", 0, None))
        assert len(domain.stats().types) <= 1003
        assert_ledger_balanced(domain, refused=5000, ingested=1)


@pytest.mark.parametrize("kind", ["plain", "async", "several"])
@virtual_time
async def test_a_handler_may_look_at_the_ledger(kind: str) -> None:
    """Seen from within a handler, its own event is active and those before it are settled, exactly."""
    found: list[tuple[int, int, int, int]] = []
    domain = AsyncEventNexus(multiple=True)

    def look(event: Event[int]) -> None:
        stats = domain.stats()
        assert_ledger_balanced(stats)
        found.append((stats.ingested, stats.handled, stats.active, stats.queued))

    async def look_too(event: Event[int]) -> None:
        look(event)

    domain.add_handler("a", look if kind == "plain" else look_too)
    if kind == "several":
        domain.add_handler("a", lambda event: None)
    async with domain:
        await domain.ingest_many(Event(n, "a", 0, n) for n in range(100))
        await domain.drained()
    assert found == [(100, n, 1, 100 - n) for n in range(100)]
    assert_ledger_balanced(domain, handled=100, failed=0)
