"""What makes the connections of a link, and the URLs that name it."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import attrs

from nexus.adapters._link import Link as Connection
from nexus.adapters._url import Url
from nexus.adapters._wire import Wire
from nexus.boundaries.link._frames import CHALLENGE, HELLO
from nexus.errors import ConfigError

__all__ = [
    "FIRST",
    "FIRST_SIZE",
    "Dialler",
    "Door",
    "FunctionDialler",
    "MakeDoor",
    "dialler_of",
    "door_of",
    "trust",
]

TRANSPORTS: Final[Mapping[str, str]] = {
    "tcp": "nexus.boundaries.link._tcp",
    "tcps": "nexus.boundaries.link._tcp",
    "zmq+tcp": "nexus.boundaries.link._zmq",
}
"""Which module has `dialler(url, options)` and `door(url, options)` for a scheme; loaded when it is used."""

CHAOS: Final = "chaos+"
"""What stands before a scheme whose wires are to be made worse."""

FIRST: Final = (HELLO, CHALLENGE)
"""What the first frame of each side begins with; by it a transport without connections knows a new one."""

FIRST_SIZE: Final = 16 * 1024
"""Bytes that a frame may have of somebody who has not shown yet who it is."""

_OF_THE_LINK: Final = ("name", "limits", "types", "token", "accept", "most_urgent", "outbox", "delivery")


def trust(wire: Wire) -> None:
    """Let a wire carry all it can: whoever is there has shown who it is."""
    trusted = getattr(wire, "trust", None)
    if trusted is not None:
        trusted()


class Dialler(Protocol):
    """Makes connections."""

    @property
    def name(self) -> str: ...
    async def dial(self) -> Wire: ...
    async def aclose(self) -> None: ...


class Door(Protocol):
    """Takes connections."""

    @property
    def name(self) -> str: ...
    async def open(self) -> None: ...
    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None: ...
    def close(self) -> None: ...


MakeDoor = Callable[[Connection], Door]
"""Makes a door that says through the connection how it stands."""


class FunctionDialler:
    """Makes connections by a function."""

    def __init__(self, dial: Callable[[], Awaitable[Wire]]) -> None:
        self.name = "any wire"
        self._dial = dial

    async def dial(self) -> Wire:
        return await self._dial()

    async def aclose(self) -> None:
        """Do nothing: what it has made, others close."""


def dialler_of(url: str, options: Mapping[str, Any]) -> tuple[Dialler, dict[str, Any]]:
    """Make what connects to a URL; give it with those options that are the link's own.

    Raises:
        ConfigError: the URL or an option is wrong.
    """
    address, module, weather, own, rest = _read(url, options)
    dialler: Dialler = module.dialler(address, own)
    if weather is not None:
        dialler = weather.dialler(dialler)
    return dialler, rest


def door_of(url: str, options: Mapping[str, Any]) -> tuple[MakeDoor, dict[str, Any]]:
    """Make what listens at a URL; give it with those options that are the link's own.

    Raises:
        ConfigError: the URL or an option is wrong.
    """
    address, module, weather, own, rest = _read(url, options)
    make: MakeDoor = module.door(address, own)
    if weather is not None:
        make = weather.door(make)
    return make, rest


def _read(url: str, options: Mapping[str, Any]) -> tuple[Url, Any, Any, dict[str, Any], dict[str, Any]]:
    """Give the address, the module of its transport, the weather or None, the options of both."""
    address = Url.parse(url)
    rest = {key: value for key, value in options.items() if key in _OF_THE_LINK}
    own = {key: value for key, value in options.items() if key not in _OF_THE_LINK}
    weather = None
    if address.scheme.startswith(CHAOS):
        chaos = importlib.import_module("nexus.boundaries.link._chaos")
        weather, address, own = chaos.weather_of(address, own)
        address = attrs.evolve(address, scheme=address.scheme.removeprefix(CHAOS))
    module = TRANSPORTS.get(address.scheme)
    if module is None:
        known = ", ".join(TRANSPORTS)
        raise ConfigError(
            f"{address.place}: found scheme {address.scheme!r}, allowed: {known}; or {CHAOS}..."
        )
    return address, importlib.import_module(module), weather, own, rest
