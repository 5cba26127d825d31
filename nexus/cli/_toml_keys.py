"""The keys of `nexus.toml`, and what each may hold."""

from typing import Any

from nexus import Block, DropNewest, DropOldest, LatestByKey, OverloadPolicy
from nexus.cli._settings import Key, choice, flag, number, table, text, texts, whole

__all__ = ["ENDPOINT", "NEXUS", "POLICIES", "RULE", "SINK", "TOP"]

POLICIES: dict[str, OverloadPolicy] = {
    "block": Block(),
    "drop_oldest": DropOldest(),
    "drop_newest": DropNewest(),
    "latest": LatestByKey(),
}


def key_kind(value: Any) -> str | None:
    """Take an event type."""
    return (
        None
        if (type(value) is int and value >= 0) or (isinstance(value, str) and value)
        else "a text or a number"
    )


def types_kind(value: Any) -> str | None:
    """Take several event types."""
    good = isinstance(value, list) and value and all(key_kind(each) is None for each in value)
    return None if good else "a list of types"


def priority_kind(value: Any) -> str | None:
    """Take a priority, or an expression that gives one."""
    return (
        None if type(value) is int or (isinstance(value, str) and value) else "an integer, or an expression"
    )


def topic_kind(value: Any) -> str | None:
    """Take a topic, or one for each type."""
    good = isinstance(value, dict) and value and all(text(each) is None for each in value.values())
    return None if good or text(value) is None else "a text, or a table of types and texts"


def policy_kind(value: Any) -> str | None:
    """Take a policy, or one for each type."""
    if not isinstance(value, dict):
        return choice(*POLICIES)(value)
    wrong = [each for each in value.values() if choice(*POLICIES)(each)]
    return choice(*POLICIES)(wrong[0]) if wrong else None


PACKS = choice("json", "text", "bytes", "csv", "msgpack")
TOP = {"nexus": Key(table), "sources": Key(lambda value: None), "rules": Key(lambda value: None)}
TOP["sinks"] = Key(lambda value: None)
NEXUS = {
    "name": Key(text),
    "maxsize": Key(whole(1)),
    "grace": Key(number(low=0)),
    "ageing": Key(number(above=0)),
}
ENDPOINT = {"name": Key(text, True), "url": Key(text, True), "pack": Key(PACKS), "options": Key(table)}
RULE = {
    "source": Key(text),
    "sources": Key(texts),
    "topic": Key(text),
    "where": Key(text),
    "type": Key(key_kind, True),
    "priority": Key(priority_kind),
    "payload": Key(text),
    "ttl": Key(number(above=0)),
}
SINK = {
    **ENDPOINT,
    "types": Key(types_kind),
    "topic": Key(topic_kind),
    "payload": Key(text),
    "confirm": Key(flag),
    "policy": Key(policy_kind),
    "rate": Key(number(above=0)),
}
