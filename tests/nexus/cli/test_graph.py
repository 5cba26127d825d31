"""Laws about `nexus graph`: what is in a nexus is in its picture."""

import nexus
from nexus.cli._mermaid import flowchart


class Numbers(nexus.EventConverter):
    """A source that is drawn and never started."""

    async def event_generator(self):
        yield nexus.Event(1, "number", 0, 1)


class Alarm(nexus.NamedEvent[float]):
    """A type that is drawn by its name."""


class Bridge(nexus.EventConsumer, nexus.EventProducer):
    """The least that joins two nexuses: a handler in one, a producer in the other."""

    async def handle(self, event, queue):
        await self.distribute_event(event)


def alert(event: nexus.Event[float]) -> None:
    """Take an alarm."""


def log(event: nexus.Event[float]) -> None:
    """Take anything."""


def quiet(event: nexus.Event[float]) -> bool:
    """Let everything pass."""
    return False


def test_every_part_is_drawn() -> None:
    """Sources lead to the queue, the queue through the filters, and these to the handler of each type."""
    plant = nexus.AsyncEventNexus(name="plant")
    plant.register(Numbers())
    plant.add_filter(quiet)
    plant.add_handler(Alarm, alert)
    plant.add_handler(-1, log)
    assert flowchart(plant).splitlines() == [
        "flowchart LR",
        '  subgraph nexus0["plant"]',
        '    queue0[["queue"]]',
        '    source0(["Numbers"])',
        "    source0 --> queue0",
        '    filter0{{"quiet"}}',
        "    queue0 --> filter0",
        '    handler0["alert"]',
        '    filter0 -->|"Alarm"| handler0',
        '    handler1["log"]',
        '    filter0 -->|"anything else"| handler1',
        "  end",
    ]


def test_boundary_leads_to_the_other_nexus() -> None:
    """A boundary stands between both nexuses, and what is behind it is drawn too."""
    plant, control = nexus.AsyncEventNexus(name="plant"), nexus.AsyncEventNexus(name="control")
    boundary = Bridge()
    plant.add_handler(Alarm, boundary)
    control.add_producer(boundary)
    control.add_handler(Alarm, alert)
    drawn = flowchart(plant).splitlines()
    assert '  subgraph nexus0["plant"]' in drawn
    assert '  subgraph nexus1["control"]' in drawn
    assert '  boundary0[/"Bridge"/]' in drawn
    assert '  queue0 -->|"Alarm"| boundary0' in drawn
    assert "  boundary0 --> queue1" in drawn


def test_one_handler_of_two_types_is_one_box() -> None:
    """A handler that takes two types is drawn once, with an arrow for each."""
    plant = nexus.AsyncEventNexus(name="plant")
    plant.add_handler("one", alert)
    plant.add_handler(2, alert)
    drawn = flowchart(plant)
    assert drawn.count('["alert"]') == 1
    assert '-->|"one"| handler0' in drawn
    assert '-->|"2"| handler0' in drawn


def test_labels_are_text_whatever_they_hold() -> None:
    """Quotes, brackets and line ends of a name do not end the label."""
    plant = nexus.AsyncEventNexus(name='a "b" <c>\n#d')
    assert '["a #quot;b#quot; #lt;c#gt; #35;d"]' in flowchart(plant)
