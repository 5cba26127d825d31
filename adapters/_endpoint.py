"""Find the adapter of a URL and make its sender or receiver.

What is built in is looked up in a table and loaded when its scheme is first used. Packages of others offer
an `Adapter` under their scheme in the entry-point group `nexus.adapters`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from nexus.adapters._config import Config
from nexus.adapters._kinds import shown
from nexus.adapters._url import Url
from nexus.errors import ConfigError

if TYPE_CHECKING:
    from nexus.adapters._base import Receiver, Sender
    from nexus.adapters.packing import Packer, Unpacker

__all__ = ["Adapter", "Url", "find_adapter", "open_receiver", "open_sender", "schemes"]

GROUP: Final = "nexus.adapters"
"""The entry points in which packages offer adapters: the name is the scheme, the object an `Adapter`."""

BUILT_IN: Final[Mapping[str, str]] = {
    "console": "nexus.adapters.console",
    "file": "nexus.adapters.file",
    "mem": "nexus.adapters.memory",
    "mqtt": "nexus.adapters.mqtt",
    "mqtt+ws": "nexus.adapters.mqtt",
    "mqtts": "nexus.adapters.mqtt",
    "mqtts+ws": "nexus.adapters.mqtt",
    "serial": "nexus.adapters.serial",
    "tcp": "nexus.adapters.tcp",
    "tcps": "nexus.adapters.tcp",
    "udp": "nexus.adapters.udp",
    "zmq": "nexus.adapters.zmq",
    "zmq+pub": "nexus.adapters.zmq",
    "zmq+pull": "nexus.adapters.zmq",
    "zmq+push": "nexus.adapters.zmq",
    "zmq+sub": "nexus.adapters.zmq",
}
"""Which module has the `ADAPTER` of a scheme; no package can take one of these over."""

Half = Literal["sender", "receiver"]


@attrs.frozen
class Adapter:
    """What a transport offers."""

    name: str
    """For people: `MQTT`."""
    schemes: Collection[str]
    """The schemes of its URLs."""
    config: type[Config]
    """Its options."""
    sender: Callable[..., Sender[Any]] | None
    """Called as ``sender(config)`` or ``sender(config, packer=...)``; None if it only receives."""
    receiver: Callable[..., Receiver[Any]] | None
    """Called as ``receiver(config)`` or ``receiver(config, unpacker=...)``; None if it only sends."""
    summary: str = ""
    """One line on what it is for."""
    sends: Collection[str] | None = attrs.field(default=None, kw_only=True)
    """The schemes that send, where not all of them do."""
    receives: Collection[str] | None = attrs.field(default=None, kw_only=True)
    """The schemes that receive, where not all of them do."""

    def half(self, scheme: str, half: Half) -> Callable[..., Any] | None:
        """Give what makes one half for a scheme; None if the scheme has no such half."""
        only = self.sends if half == "sender" else self.receives
        make = self.sender if half == "sender" else self.receiver
        return make if only is None or scheme in only else None


def open_receiver(
    url: str | Url, *, unpacker: Unpacker[Any] | None = None, pack: str | None = None, **options: Any
) -> Receiver[Any]:
    """Make the receiver of a URL. Nothing is opened until it is started.

    ``async with open_receiver("mqtt://host/oven/#?qos=1") as oven:``

    Args:
        unpacker: what makes data of bytes; None for the transport's own, mostly JSON.
        pack: in its place, the name of a packing: json, text, bytes, csv or msgpack. The URL may say it too.
        options: of the transport's config; they win over the URL's.

    Raises:
        ConfigError: the URL, its scheme or an option is wrong, or the scheme only sends.
    """
    receiver: Receiver[Any] = _make("receiver", url, unpacker, pack, options)
    return receiver


def open_sender(
    url: str | Url, *, packer: Packer[Any] | None = None, pack: str | None = None, **options: Any
) -> Sender[Any]:
    """Make the sender of a URL. Nothing is opened until it is started.

    Args:
        packer: what makes bytes of data; None for the transport's own, mostly JSON.
        pack: in its place, the name of a packing: json, text, bytes, csv or msgpack. The URL may say it too.
        options: of the transport's config; they win over the URL's.

    Raises:
        ConfigError: the URL, its scheme or an option is wrong, or the scheme only receives.
    """
    sender: Sender[Any] = _make("sender", url, packer, pack, options)
    return sender


def schemes() -> list[str]:
    """Name every scheme there is, in order; those of other packages are not loaded for it."""
    return sorted({*BUILT_IN, *(point.name.lower() for point in entry_points(group=GROUP))})


def find_adapter(scheme: str) -> Adapter:
    """Load the adapter of a scheme.

    Raises:
        ConfigError: there is none, or it cannot be loaded; no other scheme suffers from that.
    """
    scheme = scheme.lower()
    if module := BUILT_IN.get(scheme):
        return _load(scheme, module, EntryPoint(scheme, f"{module}:ADAPTER", GROUP))
    points = {point.value: point for point in entry_points(group=GROUP) if point.name.lower() == scheme}
    if len(points) > 1:
        raise ConfigError(f"scheme {scheme!r}: found {' and '.join(sorted(points))}, allowed: one of them")
    for value, point in points.items():
        return _load(scheme, point.dist.name if point.dist else value, point)
    known = schemes()
    like = difflib.get_close_matches(scheme, known, 1)
    hint = f"; did you mean {like[0]!r}?" if like else ""
    raise ConfigError(f"scheme {scheme!r} is not known{hint}; known are: {', '.join(known)}")


def _load(scheme: str, origin: str, point: EntryPoint) -> Adapter:
    """Load what an entry point names; its package may be broken in any way."""
    try:
        found = point.load()
    except ModuleNotFoundError as error:
        raise ConfigError(f"scheme {scheme!r}: {origin} needs {error.name}, which is not there") from error
    except Exception as error:
        raise ConfigError(f"scheme {scheme!r}: {origin} cannot be loaded: {error!r}") from error
    if not isinstance(found, Adapter):
        raise ConfigError(f"scheme {scheme!r}: {origin} offers {type(found).__name__}, allowed: an Adapter")
    return found


def _make(half: Half, url: str | Url, own: object, pack: str | None, options: Mapping[str, Any]) -> Any:
    """Make one half of what a URL means; `own` is the caller's packer or unpacker."""
    address = Url.parse(url) if isinstance(url, str) else url
    adapter = find_adapter(address.scheme)
    make = adapter.half(address.scheme, half)
    if make is None:
        other: Half = "receiver" if half == "sender" else "sender"
        has_other = f"; it has a {other}" if adapter.half(address.scheme, other) else ""
        raise ConfigError(f"{address.place}: scheme {address.scheme!r} has no {half}{has_other}")
    packs = address.options.get("pack", ())
    rest = {name: values for name, values in address.options.items() if name != "pack"}
    config = adapter.config.from_url(attrs.evolve(address, options=rest), **options)
    if len(packs) > 1:
        raise ConfigError(f"{address.place}: found {len(packs)} values of pack, allowed: one")
    argument = "packer" if half == "sender" else "unpacker"
    for name in (pack,) if pack is not None else packs:
        if own is not None:
            raise ConfigError(
                f"{address.place}: found {argument}= and pack={shown(name)}, allowed: one of them"
            )
        # What packs is loaded only for those who ask for it by name.
        both = importlib.import_module("nexus.adapters.packing").packing(name)
        own = both[0] if half == "sender" else both[1]
    return make(config) if own is None else make(config, **{argument: own})
