"""From `nexus.toml` to a nexus: sources, rules, sinks."""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from nexus import AsyncEventNexus
from nexus.boundaries._pipeline import Sink, Source
from nexus.cli._blueprint import ANY, Blueprint, Builder
from nexus.cli._settings import Problems, Variables
from nexus.cli._toml_keys import POLICIES
from nexus.cli._toml_lines import lines_of
from nexus.errors import ConfigError

__all__ = ["Configured", "WrongFile", "configured", "load_file"]


class WrongFile(click.ClickException):
    """A file has mistakes; all of them are shown, a line each."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(self.message, file=file, err=file is None)


@attrs.frozen(eq=False)
class Configured:
    """A nexus as a file describes it."""

    nexus: AsyncEventNexus
    sources: tuple[Source, ...]
    sinks: tuple[Sink, ...]

    def lines(self) -> list[str]:
        """Say what did not go its usual way."""
        lines = [
            f"{source.name}: {count:,} put aside ({why})"
            for source in self.sources
            for why, count in source.quarantined.items()
        ]
        counts = [(each.name, each.receiver.counts) for each in self.sources]
        counts += [(each.name, each.sender.counts) for each in self.sinks]
        for name, count in counts:
            lines += [f"{name}: {lost:,} dropped ({why})" for why, lost in count.dropped.items()]
        return lines


def load_file(file: str) -> Configured:
    """Make a nexus of a file, for a command.

    Raises:
        WrongFile: it has mistakes.
    """
    try:
        return configured(file)
    except ConfigError as exc:
        raise WrongFile(str(exc)) from None


def configured(file: str, environ: Mapping[str, str] | None = None) -> Configured:
    """Read a file and make what it describes. Nothing is opened until the nexus runs.

    Raises:
        ConfigError: it has mistakes; tells them all, each with its line and key.
    """
    content = read(file)
    try:
        parsed = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        line = re.search(r"\(at line (\d+)", str(exc))
        number = line[1] if line else str(content.count("\n") + 1)
        raise ConfigError(f"{file}:{number}: not TOML: {str(exc).partition(' (at ')[0]}") from None
    variables = Variables(environ)
    problems = Problems(file, lines_of(content), variables.hide)
    found = Builder(problems).build(variables.fill(parsed, (), problems))
    if found is None:
        raise ConfigError(str(problems))
    return assemble(found)


def read(file: str) -> str:
    """Read the text of a file."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: byte {exc.start} is not UTF-8") from None


def assemble(parts: Blueprint) -> Configured:
    """Join the parts."""
    domain = AsyncEventNexus(multiple=True, **parts.settings)
    ends: list[Sink] = []
    for given, sender, how, types in zip(parts.sinks, parts.senders, parts.options, parts.types, strict=True):
        sink = Sink(sender, name=given["name"], **how)
        sink.rate = given.get("rate")
        domain.register(sink)  # before the sources, so that it is there when the first event comes
        for each in types:
            domain.add_handler(-1 if each == ANY else each, sink)
        ends.append(sink)
    for key, policy in parts.policies.items():
        domain.set_policy(key, POLICIES[policy])
    begins = [
        Source(receiver, parts.rules[given["name"]], event_factory=domain, name=given["name"])
        for given, receiver in zip(parts.sources, parts.receivers, strict=True)
    ]
    left = set(begins)

    def ended(source: Source) -> None:
        left.discard(source)
        if not left:
            # All that was ever to come is queued; a signal still cuts it short.
            domain.stop(grace=math.inf)

    for source in begins:
        source.on_end = ended
        domain.register(source)
    return Configured(domain, tuple(begins), tuple(ends))
