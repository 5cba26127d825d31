"""A nexus as Mermaid text: sources, queue, filters, routes, boundaries, and the nexuses behind them."""

from collections import Counter

import attrs

from nexus import AsyncEventNexus, EventConsumer, EventProducer
from nexus._handler import name_of

__all__ = ["flowchart"]

FALLBACK = -1
"""The type under which the handler of all other events is registered."""
SHAPES = {
    "source": ("([", "])"),
    "queue": ("[[", "]]"),
    "filter": ("{{", "}}"),
    "handler": ("[", "]"),
    "boundary": ("[/", "/]"),
}
"""What stands around the label of each kind of node."""


def flowchart(nexus: AsyncEventNexus) -> str:
    """Draw a nexus and every nexus that its boundaries lead to; the same nexus gives the same text."""
    drawing = Drawing()
    waiting = [nexus]
    for each in waiting:
        waiting += [other for other in drawing.draw(each) if other not in waiting]
    return "\n".join(["flowchart LR", *drawing.lines, *drawing.links])


@attrs.define(eq=False)
class Drawing:
    """The text so far, and the name that each drawn object has in it."""

    lines: list[str] = attrs.field(factory=list)
    links: list[str] = attrs.field(factory=list)
    """What leads from one nexus to another: drawn last, outside of both."""
    names: dict[int, str] = attrs.field(factory=dict)
    counts: Counter[str] = attrs.field(factory=Counter)
    """How many nodes of each kind were drawn."""

    def draw(self, nexus: AsyncEventNexus) -> list[AsyncEventNexus]:
        """Draw one nexus; return those behind its boundaries."""
        self.lines.append(f"  subgraph {self.next('nexus')}[{quoted(nexus.name)}]")
        queue = self.node("queue", "queue")
        for source in (*nexus.converters, *nexus.producers):
            if isinstance(source, EventConsumer):
                self.links.append(f"  {self.outside(source)} --> {queue}")
            else:
                self.lines.append(f"    {self.named(source, 'source')} --> {queue}")
        last = queue
        for each in nexus.filters:
            following = self.node("filter", name_of(each))
            self.lines.append(f"    {last} --> {following}")
            last = following
        behind: list[AsyncEventNexus] = []
        for type_, handlers in nexus.handlers.items():
            label = quoted("anything else" if type_ == FALLBACK else str(type_))
            for handler in handlers:
                if isinstance(handler, EventProducer):
                    self.links.append(f"  {last} -->|{label}| {self.outside(handler)}")
                    behind += [other for other in handler.nexuses if isinstance(other, AsyncEventNexus)]
                else:
                    self.lines.append(f"    {last} -->|{label}| {self.named(handler, 'handler')}")
        self.lines.append("  end")
        return behind

    def named(self, item: object, kind: str) -> str:
        """Return the name of a node inside the nexus that is being drawn; draw it at the first time."""
        key = identity(item)
        if key not in self.names:
            wire = type(item).__module__.startswith("nexus.boundaries")
            self.names[key] = self.node("boundary" if wire else kind, name_of(item))
        return self.names[key]

    def outside(self, boundary: object) -> str:
        """Return the name of a boundary between nexuses; draw it at the first time."""
        key = identity(boundary)
        if key not in self.names:
            self.names[key] = self.next("boundary")
            begin, end = SHAPES["boundary"]
            self.links.append(f"  {self.names[key]}{begin}{quoted(name_of(boundary))}{end}")
        return self.names[key]

    def node(self, kind: str, label: str) -> str:
        """Draw a node and return its name."""
        name = self.next(kind)
        begin, end = SHAPES[kind]
        self.lines.append(f"    {name}{begin}{quoted(label)}{end}")
        return name

    def next(self, kind: str) -> str:
        """Return a new name."""
        self.counts[kind] += 1
        return f"{kind}{self.counts[kind] - 1}"


def identity(item: object) -> int:
    """Return what makes an object itself: a bound method is made anew each time, so its two parts count."""
    return hash((id(getattr(item, "__self__", None)), id(getattr(item, "__func__", item))))


def quoted(label: str) -> str:
    """Write a label so that Mermaid takes it for text, whatever it holds."""
    for char, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("\n", " ")):
        label = label.replace(char, code)
    return f'"{label}"'
