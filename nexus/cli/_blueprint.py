"""What `nexus.toml` means: every part of the nexus it describes, or every mistake in it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from nexus import Event, EventKey
from nexus.adapters._base import Receiver, Sender
from nexus.adapters._config import WrongOption
from nexus.adapters._endpoint import open_receiver, open_sender
from nexus.adapters._kinds import shown
from nexus.boundaries._expression import Expression, compile_expression
from nexus.boundaries._rules import Rule
from nexus.cli._settings import Key, Problems, check_table
from nexus.cli._toml_keys import ENDPOINT, NEXUS, RULE, SINK, TOP
from nexus.cli._toml_lines import Path
from nexus.errors import ConfigError, NexusError

__all__ = ["ANY", "Blueprint", "Builder"]

ANY = "*"
"""The type that stands for all which no other sink takes."""


@attrs.frozen(eq=False)
class Blueprint:
    """The parts, which fit."""

    settings: dict[str, Any]
    """Arguments of the nexus."""
    sources: list[dict[str, Any]]
    receivers: list[Receiver[Any]]
    rules: dict[str, list[Rule]]
    """Of each source, by its name."""
    sinks: list[dict[str, Any]]
    senders: list[Sender[Any]]
    options: list[dict[str, Any]]
    """Arguments of the outbound boundaries."""
    types: list[list[EventKey]]
    """What each sink takes."""
    policies: dict[EventKey, str]


class Builder:
    """Makes the parts of a nexus, and notes all mistakes on the way."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def build(self, content: dict[str, Any]) -> Blueprint | None:
        """Make it; None if there are mistakes."""
        check_table(content, (), TOP, self.problems)
        settings = check_table(content.get("nexus", {}), ("nexus",), NEXUS, self.problems)
        sources, rules, sinks = (
            self.tables(content, name, keys)
            for name, keys in (("sources", ENDPOINT), ("rules", RULE), ("sinks", SINK))
        )
        self.unique([*(("sources", each) for each in sources), *(("sinks", each) for each in sinks)])
        receivers = [self.endpoint(open_receiver, ("sources", n), each) for n, each in enumerate(sources)]
        senders = [self.endpoint(open_sender, ("sinks", n), each) for n, each in enumerate(sinks)]
        made_rules = self.rules(rules, sources)
        taken = self.types(rules, sinks)
        policies = self.policies(sinks, taken)
        options = [self.sink(("sinks", place), each) for place, each in enumerate(sinks)]
        if self.problems.found:
            return None
        return Blueprint(settings, sources, receivers, made_rules, sinks, senders, options, taken, policies)

    def tables(self, content: dict[str, Any], name: str, keys: Mapping[str, Key]) -> list[dict[str, Any]]:
        """Check an array of tables."""
        found = content.get(name, [])
        if not isinstance(found, list):
            self.problems.add((name,), f"found {shown(found)}, allowed: tables, as in [[{name}]]")
            return []
        if not found:
            self.problems.add((), f"there is no [[{name}]]")
        return [check_table(each, (name, place), keys, self.problems) for place, each in enumerate(found)]

    def unique(self, named: list[tuple[str, dict[str, Any]]]) -> None:
        """Refuse two of one name."""
        seen: dict[str, str] = {}
        counts = {"sources": 0, "sinks": 0}
        for kind, each in named:
            path: Path = (kind, counts[kind], "name")
            counts[kind] += 1
            name = each.get("name")
            if name is None:
                continue
            where = f"{kind}[{path[1]}]"
            if seen.setdefault(name, where) != where:
                self.problems.add(path, f"found {shown(name)}, which is the name of {seen[name]} too")

    def endpoint(self, make: Callable[..., Any], path: Path, given: dict[str, Any]) -> Any:
        """Make a sender or receiver; None if that cannot be."""
        if "url" not in given:
            return None
        options = given.get("options", {})
        for name in options.keys() & {"url", "pack", "packer", "unpacker"}:
            self.problems.add((*path, "options", name), "is no option")
            return None
        try:
            return make(given["url"], pack=given.get("pack"), **options)
        except WrongOption as exc:
            name = exc.option.partition(".")[0]
            key = next((each for each in options if each.replace("-", "_") == name), None)
            where: Path = ("url",) if key is None else ("options", key)
            self.problems.add((*path, *where), shortened(str(exc)))
        except NexusError as exc:
            self.problems.add((*path, "url"), shortened(str(exc)))
        return None

    def expression(self, path: Path, given: str) -> Expression | None:
        """Compile an expression."""
        try:
            return compile_expression(given)
        except ConfigError as exc:
            self.problems.add(path, str(exc))
            return None

    def rules(self, rules: list[dict[str, Any]], sources: list[dict[str, Any]]) -> dict[str, list[Rule]]:
        """Make the rules of each source."""
        made: dict[str, list[Rule]] = {each["name"]: [] for each in sources if "name" in each}
        if len(made) < len(sources):
            return {}  # that is told; who is meant would be a guess
        for place, given in enumerate(rules):
            path: Path = ("rules", place)
            rule = self.rule(path, given)
            for name in self.chosen(path, given, list(made)):
                if rule is not None:
                    made[name].append(rule)
        reached = {
            name for place, each in enumerate(rules) for name in self.named(each, list(made))
        }  # also by a rule that has mistakes
        for place, source in enumerate(sources):
            if rules and reached <= made.keys() and "name" in source and source["name"] not in reached:
                self.problems.add(("sources", place), "no rule takes what it gives")
        return made

    def named(self, given: dict[str, Any], known: list[str]) -> list[str]:
        """Name the sources of a rule, as they are written."""
        names = given.get("sources", given.get("source"))
        return known if names is None else [names] if isinstance(names, str) else names

    def chosen(self, path: Path, given: dict[str, Any], known: list[str]) -> list[str]:
        """Name the sources of a rule that are there."""
        if "source" in given and "sources" in given:
            self.problems.add((*path, "sources"), "found with source, allowed: one of them")
        key = "sources" if "sources" in given else "source"
        names = self.named(given, known)
        for name in names:
            if name not in known:
                self.problems.add((*path, key), f"there is no source {shown(name)}{meant(name, known)}")
        return [name for name in names if name in known]

    def rule(self, path: Path, given: dict[str, Any]) -> Rule | None:
        """Make one rule."""
        type_ = self.said(path, "type", given.get("type", 0))
        priority: Any = given.get("priority", 0)
        if isinstance(priority, str):
            priority = self.expression((*path, "priority"), priority)
        where = self.expression((*path, "where"), given["where"]) if "where" in given else None
        payload = self.expression((*path, "payload"), given["payload"]) if "payload" in given else None
        if self.problems.found:
            return None  # no nexus comes of it; the other rules are still looked at
        return Rule(
            type=type_,
            topic=given.get("topic"),
            where=None if where is None else holds(where),
            priority=priority,
            payload=payload,
            ttl=given.get("ttl"),
        )

    def said(self, path: Path, key: str, value: Any) -> Any:
        """Return a text as it is; what begins with = is an expression."""
        if isinstance(value, str) and value.startswith("="):
            return self.expression((*path, key), value[1:])
        return value

    def types(self, rules: list[dict[str, Any]], sinks: list[dict[str, Any]]) -> list[list[EventKey]]:
        """Find the types that each sink takes."""
        made = [each["type"] for each in rules if "type" in each]
        plain = list(dict.fromkeys(each for each in made if not is_expression(each)))
        taken: list[list[EventKey]] = []
        for place, sink in enumerate(sinks):
            wanted = sink.get("types")
            if wanted is None and len(plain) < len(set(made)):
                self.problems.add(
                    ("sinks", place),
                    f"types is missing; a rule makes types by an expression, {ANY!r} takes all",
                )
            for each in wanted or ():
                if each != ANY and each not in plain and not any(map(is_expression, made)) and made:
                    self.problems.add(
                        ("sinks", place, "types"),
                        f"no rule makes the type {shown(each)}{meant(each, plain)}",
                    )
            taken.append(list(dict.fromkeys(plain if wanted is None else wanted)))
        return taken

    def policies(self, sinks: list[dict[str, Any]], taken: list[list[EventKey]]) -> dict[EventKey, str]:
        """Find the policy of each type."""
        found: dict[EventKey, str] = {}
        for place, (sink, types) in enumerate(zip(sinks, taken, strict=True)):
            given: Any = sink.get("policy", {})
            is_table = isinstance(given, dict)
            for name in given if is_table else types:
                policy: str = given[name] if is_table else given
                path: Path = ("sinks", place, "policy", *([name] if is_table else []))
                key = next((each for each in types if str(each) == str(name)), None)
                if key is None:
                    self.problems.add(
                        path, f"the sink does not take the type {shown(name)}{meant(name, types)}"
                    )
                elif key == ANY:
                    self.problems.add(path, f"{ANY!r} has no policy; name the type")
                elif found.setdefault(key, policy) != policy:
                    self.problems.add(
                        path, f"found {policy!r}, but another sink says {found[key]!r} of {shown(key)}"
                    )
        return found

    def sink(self, path: Path, given: dict[str, Any]) -> dict[str, Any]:
        """Make what says how events are sent."""
        options: dict[str, Any] = {"confirm": given.get("confirm", False)}
        topic = given.get("topic")
        if isinstance(topic, dict):
            known = {str(each): each for each in given.get("types", ())}
            options["topic"] = {known.get(name, name): each for name, each in topic.items()}
        elif topic is not None:
            topic = self.said(path, "topic", topic)
            options["topic"] = of_event(topic) if callable(topic) else topic
        if "payload" in given and (payload := self.expression((*path, "payload"), given["payload"])):
            options["payload"] = of_event(payload)
        return options


def holds(where: Expression) -> Callable[[Any, Mapping[str, Any]], bool]:
    """Make a condition that is false where it asks for a field that is not there."""

    def check(data: Any, meta: Mapping[str, Any]) -> bool:
        try:
            return bool(where(data, meta))
        except LookupError:
            return False

    return check


def of_event(expression: Expression) -> Callable[[Event[Any]], Any]:
    """Make a function of an event: its payload is the data, `type`, `priority` and `id` are the meta."""

    def evaluate(event: Event[Any]) -> Any:
        meta = {"type": event.type, "priority": event.priority, "id": event.id}
        return expression(event.payload, meta)

    return evaluate


def is_expression(value: object) -> bool:
    return isinstance(value, str) and value.startswith("=")


def meant(name: object, known: Any) -> str:
    """Say what somebody may have meant."""
    names = [str(each) for each in known]
    like = difflib.get_close_matches(str(name), names, 1)
    return f"; did you mean {like[0]!r}?" if like else f"; known are: {', '.join(names) or 'none'}"


def shortened(message: str) -> str:
    """Bring an error with a list of options into one line."""
    first, *rest = message.splitlines()
    return f"{first} {', '.join(line.partition(':')[0].strip() for line in rest)}" if rest else first
