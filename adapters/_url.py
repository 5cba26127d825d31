"""The address of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import quote, unquote_to_bytes

import attrs

from nexus.errors import ConfigError

__all__ = ["Url"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRET = re.compile(r"pass|secret|token|credential|private|header", re.IGNORECASE)
_HIDDEN = "***"


@attrs.frozen(repr=False)
class Url:
    """Where an endpoint is: ``scheme://user:password@host:port/path?option=value``.

    All parts are decoded. There are no fragments, and ``+`` is no space: ``mqtt://host/oven/+/#`` means what
    it says. Showing one never shows the password, nor an option whose name sounds like one.
    """

    scheme: str
    user: str | None = None
    password: str | None = None
    host: str = ""
    """Without the brackets of IPv6; empty if there is none."""
    port: int | None = None
    path: str = ""
    """With the slash it begins with, if it does."""
    options: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Each in the order given; an option without a value is `true`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL.

        Raises:
            ConfigError: it is none; the text of the error hides what may be a password.
        """
        scheme, colon, rest = text.partition(":")
        if not colon or not _SCHEME.fullmatch(scheme):
            raise _wrong(text, "it does not begin with a scheme, as in mqtt://host or console:")
        if _CONTROL.search(text):
            raise _wrong(text, "it holds a control character; write it as %0A or the like")
        rest, _, query = rest.partition("?")
        user = password = port = None
        host, path = "", rest
        if rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
            path = slash + path
            who, at, where = authority.rpartition("@")
            if at:
                name, has_password, key = who.partition(":")
                user = _decode(name, text)
                password = _decode(key, text) if has_password else None
            host, port = _host_and_port(where, text)
        return cls(scheme.lower(), user, password, host, port, _decode(path, text), _options(query, text))

    @property
    def place(self) -> Url:
        """It without its options."""
        return attrs.evolve(self, options={})

    def __str__(self) -> str:
        who = "" if self.user is None else quote(self.user, safe="")
        if self.password is not None:
            who += f":{_HIDDEN}"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else quote(self.host, safe="*")
        where = host + ("" if self.port is None else f":{self.port}")
        has_who = self.user is not None or self.password is not None
        authority = f"{who}@{where}" if has_who else where
        path = quote(self.path, safe="/#+*$@:,=&;!~'()")
        slashes = "//" if authority or path.startswith("/") or not path else ""
        query = "&".join(
            f"{quote(name, safe='')}={_HIDDEN if _SECRET.search(name) else quote(value, safe='/#+*$@:,;!~')}"
            for name, values in self.options.items()
            for value in values
        )
        return f"{self.scheme}:{slashes}{authority}{path}" + (f"?{query}" if query else "")

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"


def _host_and_port(where: str, text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `[::1]` and `[::1]:port`."""
    if where.startswith("["):
        inner, bracket, rest = where[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _wrong(text, "an IPv6 host needs brackets around it, as in [::1]:1883")
        host, colon, digits = inner, rest[:1], rest[1:]
    else:
        host, colon, digits = where.partition(":")
        if ":" in digits:
            raise _wrong(text, "an IPv6 host needs brackets around it, as in [::1]:1883")
    host = _decode(host, text)
    if _CONTROL.search(host) or " " in host:
        raise _wrong(text, "the host holds a blank or a control character")
    if not colon or not digits:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65535:
        raise _wrong(text, "the port is not a number from 0 to 65535")
    return host, int(digits)


def _options(query: str, text: str) -> dict[str, tuple[str, ...]]:
    """Read `a=1&b=2&b=3&c`."""
    found: dict[str, tuple[str, ...]] = {}
    for piece in filter(None, query.split("&")):
        name, equals, value = piece.partition("=")
        key = _decode(name, text)
        if not key:
            raise _wrong(text, "an option has no name")
        found[key] = (*found.get(key, ()), _decode(value, text) if equals else "true")
    return found


def _decode(part: str, text: str) -> str:
    """Undo percent-encoding."""
    decoded = None
    if not re.search(r"%(?![0-9a-fA-F]{2})", part):
        try:
            decoded = unquote_to_bytes(part).decode()
        except UnicodeError:
            decoded = None
    if decoded is None:
        raise _wrong(text, "what follows a % is not two hexadecimal digits of UTF-8; % itself is %25")
    return decoded


def _wrong(text: str, why: str) -> ConfigError:
    """Say what is wrong with a URL, without its secrets: they end at the last @, or are options."""
    place, mark, _ = text.partition("?")
    if "@" in text:
        # A stray ? or / in a password would end the place too soon.
        scheme, colon, _ = text.partition(":")
        begin = f"{scheme}:" if colon and _SCHEME.fullmatch(scheme) else ""
        place, mark, _ = text.rpartition("@")[2].partition("?")
        place = f"{begin}//{_HIDDEN}@{place}"
    return ConfigError(f"URL {place[:200]!a}{'?...' if mark else ''}: {why}")
