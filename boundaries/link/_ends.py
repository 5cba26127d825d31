"""What makes the connections of a link, and the URLs that name it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nexus.adapters._endpoint import Url
from nexus.adapters._wire import Wire
from nexus.adapters.tcp import TcpConfig
from nexus.errors import ConfigError

__all__ = ["Dialler", "Door", "FunctionDialler", "tcp_config"]


class Dialler(Protocol):
    """Makes connections."""

    @property
    def name(self) -> str: ...
    async def dial(self) -> Wire: ...


class Door(Protocol):
    """Takes connections."""

    @property
    def name(self) -> str: ...
    async def open(self) -> None: ...
    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None: ...
    def close(self) -> None: ...


class FunctionDialler:
    """Makes connections by a function."""

    def __init__(self, dial: Callable[[], Awaitable[Wire]]) -> None:
        self.name = "any wire"
        self._dial = dial

    async def dial(self) -> Wire:
        return await self._dial()


def tcp_config(url: str, options: dict[str, Any]) -> tuple[TcpConfig, dict[str, Any]]:
    """Split options into those of TCP and those of the link."""
    address = Url.parse(url)
    if address.scheme not in ("tcp", "tcps"):
        raise ConfigError(f"{address}: a link goes over tcp or tcps, found {address.scheme!r}")
    own = {"name", "limits", "types", "token"}
    rest = {key: value for key, value in options.items() if key in own}
    tcp = {key: value for key, value in options.items() if key not in own}
    return TcpConfig.from_url(address, **(tcp | {"frame": "length", "max_size": 2**20})), rest
