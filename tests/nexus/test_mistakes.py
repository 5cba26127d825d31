"""Mistakes of a new user that would otherwise be silent."""

from typing import Any

import pytest

from nexus import AsyncEventNexus


def test_a_name_is_no_option() -> None:
    """A name given as the first argument is told from `multiple`."""
    with pytest.raises(TypeError, match="multiple is True or False, not 'oven'; a name is given as name="):
        AsyncEventNexus("oven")  # type: ignore[arg-type]


def test_a_decorator_without_a_type_is_an_error() -> None:
    """`@nexus.on` without its brackets registers nothing, and says so at once."""

    def handler(event: Any) -> None:
        pass

    with pytest.raises(TypeError, match="an event type is"):
        AsyncEventNexus().on(handler)  # type: ignore[arg-type]


async def yields_later(event: Any) -> Any:
    """Look like a handler, and be a generator."""
    yield event


def yields(event: Any) -> Any:
    """Look like a plain handler, and be a generator."""
    yield event


@pytest.mark.parametrize("handler", [yields, yields_later])
def test_a_generator_is_no_handler(handler: Any) -> None:
    """Calling a generator function runs none of its body, so it is refused where it is registered."""
    with pytest.raises(TypeError, match="yield"):
        AsyncEventNexus().add_handler("a", handler)
    with pytest.raises(TypeError, match="yield"):
        AsyncEventNexus().add_filter(handler)
