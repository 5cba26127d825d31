"""What a type checker sees of configs and endpoints; checked in CI, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, assert_type

import attrs

from nexus.adapters import open_receiver, open_sender
from nexus.adapters._base import Receiver, Sender
from nexus.adapters._config import Config, option
from nexus.adapters._framing import Framer, LineFramer, make_framer


@attrs.frozen(kw_only=True)
class OvenConfig(Config):
    """The options of an adapter, as its author writes them."""

    host: str = option("localhost", help="where it is")
    port: int = option(help="its port", low=1, high=65535)
    qos: Literal[0, 1, 2] = option(0, help="quality of service")
    timeout: float | None = option(None, help="until giving up", unit="s")
    topics: tuple[str, ...] = option((), help="what to hear")


config = OvenConfig(port=5, qos=1, timeout=3, topics=("a",))
assert_type(config.host, str)
assert_type(config.port, int)
assert_type(config.qos, Literal[0, 1, 2])
assert_type(config.timeout, float | None)
assert_type(config.topics, tuple[str, ...])
assert_type(config.with_options(qos="2"), OvenConfig)
assert_type(OvenConfig.from_file(Path("oven.toml"), "oven"), OvenConfig)
assert_type(OvenConfig.from_env("OVEN_"), OvenConfig)

OvenConfig(port="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
OvenConfig(port=5, prot=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
config.host = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

framer: Framer = LineFramer()
assert_type(make_framer("line"), Framer)
assert_type(open_receiver("mem://x"), Receiver[Any])
assert_type(open_sender("mem://x"), Sender[Any])
