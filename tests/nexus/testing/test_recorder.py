"""Laws of the recorder."""

import asyncio

import pytest

from nexus._event import Event, NamedEvent
from nexus._queue import AsyncEventPriorityQueue, SecondaryQueue
from nexus.testing import Recorder, virtual_time


class Alarm(NamedEvent[float]):
    """An event with a class of its own."""


@pytest.fixture
def queue() -> SecondaryQueue:
    """Give the queue that handlers get."""
    return SecondaryQueue(AsyncEventPriorityQueue())


async def feed(recorder: Recorder, queue: SecondaryQueue, *events: Event[object], gap: float = 1.0) -> None:
    """Hand events to the recorder, some seconds apart."""
    for event in events:
        await asyncio.sleep(gap)
        await recorder.handle(event, queue)


@virtual_time
async def test_events_payloads_and_times_are_kept(queue: SecondaryQueue) -> None:
    """Everything is kept in the order of handling, with the loop's time."""
    recorder = Recorder()
    events = Event(1, "a", 0, "one"), Alarm(2, 80.5), Event(3, "a", 0, "three")
    await feed(recorder, queue, *events)
    assert recorder.events == list(events)
    assert recorder.payloads == ["one", 80.5, "three"]
    assert recorder.times == [1.0, 2.0, 3.0]
    assert [(record.time, record.event.id) for record in recorder] == [(1.0, 1), (2.0, 2), (3.0, 3)]
    assert recorder.by_type(Alarm) == recorder.by_type("Alarm") == [events[1]]


@virtual_time
async def test_oldest_are_forgotten_and_counted(queue: SecondaryQueue) -> None:
    """Beyond maxlen the oldest go, and the counts still know them."""
    recorder = Recorder(maxlen=3)
    await feed(recorder, queue, *(Event(number, "a", 0, None) for number in range(10)))
    assert [event.id for event in recorder.events] == [7, 8, 9]
    assert (len(recorder), recorder.count, recorder.forgotten) == (3, 10, 7)
    assert len(await recorder.wait_for(10)) == 3
    recorder.clear()
    assert (len(recorder), recorder.count, recorder.forgotten) == (0, 0, 0)


def test_maxlen_is_positive() -> None:
    """A recorder that keeps nothing is refused."""
    with pytest.raises(ValueError, match="maxlen"):
        Recorder(maxlen=0)


@virtual_time
async def test_wait_for_ends_with_the_nth_event(queue: SecondaryQueue) -> None:
    """Several may wait, each for its number or type; what is there already is not waited for."""
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    feeding = asyncio.create_task(feed(recorder, queue, *(Event(n, f"t{n % 2}", 0, n) for n in range(6))))

    async def moment(n: int, type_: str | None = None) -> float:
        await (recorder.wait_for(n) if type_ is None else recorder.wait_for_type(type_, n))
        return loop.time()

    moments = await asyncio.gather(moment(4), moment(2), moment(2, "t1"), moment(0))
    assert list(moments) == [4.0, 2.0, 4.0, 0.0]
    await feeding
    assert await moment(3) == 6.0


@virtual_time
async def test_wait_for_says_what_came_instead(queue: SecondaryQueue) -> None:
    """When the wait is over in vain, the error names what was wanted and what was handled."""
    recorder = Recorder()
    await feed(recorder, queue, Event(1, "reading", 0, None))
    with pytest.raises(TimeoutError, match=r"waited 5 s for 2 events of type 'Alarm'.*'reading': 1"):
        await recorder.wait_for_type(Alarm, 2, timeout=5)
    assert asyncio.get_running_loop().time() == 6.0
