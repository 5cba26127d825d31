"""What the commands over URLs have in common: options, words for errors, and logging that cannot do harm."""

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["PACKS", "expression_of", "log_level", "log_to_stderr", "plain", "rank_of", "said", "seconds"]

F = TypeVar("F", bound=Callable[..., Any])

PACKS = click.Choice(["json", "text", "bytes", "csv", "msgpack"])

LEVELS = ["debug", "info", "warning", "error", "critical"]


def plain(command: F) -> F:
    """Add `--plain`."""
    return click.option("--plain", is_flag=True, help="Lines only, also on a terminal.")(command)


def seconds(command: F) -> F:
    """Add `--seconds`."""
    kind = click.FloatRange(min=0, min_open=True)
    return click.option("--seconds", type=kind, help="End after so long. Default: never.")(command)


def log_level(default: str) -> Callable[[F], F]:
    """Add `--log-level`."""
    return click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default=default,
        show_default=True,
        help="What is logged to the standard error.",
    )


class Visible(logging.Formatter):
    """Writes records that cannot steer a terminal, one line each; tracebacks only where all is logged."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        from nexus.adapters._console_text import visible

        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        from nexus.adapters._console_text import visible

        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            return ""
        return "\n".join(visible(line) for line in super().formatException(ei).splitlines())


def log_to_stderr(level: str) -> None:
    """Log to the standard error from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Visible("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def said(exc: BaseException) -> str:
    """Say what is wrong in one line that cannot steer a terminal."""
    from nexus.adapters._console_text import visible

    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return visible(text) or type(exc).__name__


def expression_of(option: str, text: str | None) -> Callable[[Any, Any], Any] | None:
    """Compile the expression of an option; None stays None.

    Raises:
        click.BadParameter: it is none.
    """
    from nexus.boundaries._expression import compile_expression
    from nexus.errors import ConfigError

    try:
        return None if text is None else compile_expression(text)
    except ConfigError as exc:
        raise click.BadParameter(said(exc), param_hint=option) from None


def rank_of(text: str) -> Callable[[Any, Any], int]:
    """Make a function of data and meta that gives a priority, of a number or an expression.

    Raises:
        click.BadParameter: it is neither.
    """
    rule = expression_of("--priority", text)
    assert rule is not None

    def rank(data: Any, meta: Any) -> int:
        found = rule(data, meta)
        if isinstance(found, bool) or not isinstance(found, int) or abs(found) >= 2**31:
            raise TypeError(f"a priority is an integer of 32 bits, and the rule gave {ascii(found)[:100]}")
        return found

    return rank
