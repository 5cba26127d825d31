"""The options of files, for senders and receivers."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from nexus.adapters._base import Again, Overflow
from nexus.adapters._config import Config, option
from nexus.adapters._endpoint import Url
from nexus.adapters._file_names import Names, zone
from nexus.adapters._file_writer import Fsync
from nexus.errors import ConfigError

__all__ = ["NAME", "FileConfig"]

NAME = "data_%Y%m%dT%H%M%S%z"
"""Begin of the names of the files of a directory."""


@attrs.frozen(kw_only=True)
class FileConfig(Config):
    """Options of files, for both halves."""

    path: str = option("./", help="a file, or for a sender a directory, which ends with a slash or exists")
    terminator: bytes | None = option(
        None, help="what ends each line; unless told otherwise LF, and CRLF where CSV is sent"
    )
    # Of the sender.
    name: str | None = option(
        None,
        help="begin of the names of finished files, by strftime; unless told otherwise data_%Y%m%dT%H%M%S%z",
    )
    suffix: str | None = option(
        None, help="end of these names; unless told otherwise it follows from the packing or the path"
    )
    timezone: str = option("UTC", help="time zone of the names: UTC, local, or one such as Europe/Berlin")
    rollover: float | None = option(
        None,
        low=0,
        unit="s",
        help="how long a file is written; 0 for ever; else 3600 for those of a directory",
    )
    rollover_size: int | None = option(None, low=1, unit="bytes", help="how large a file may become")
    compress: bool = option(False, help="whether finished files are compressed by gzip")
    flush_interval: float = option(
        0.0, low=0, unit="s", help="how long lines are gathered before they are written; 0 for not at all"
    )
    fsync: Fsync = option("interval", help="when written lines are made durable against a power cut")
    fsync_interval: float = option(1.0, low=0.01, unit="s", help="how long that may take with interval")
    # Of the receiver.
    replay: bool = option(False, help="whether to read the file once to its end instead of following it")
    start: Literal["beginning", "end"] = option("beginning", help="where a file that is there is begun")
    poll: float = option(0.05, low=0.001, unit="s", help="how often to look for more")
    cursor: str = option("", help="a file that says how far lines were accepted, for the next start")
    follow_symlinks: bool = option(False, help="whether the path may be a symbolic link")
    allow_special: bool = option(False, help="whether the path may be a pipe or a device")
    max_ratio: float = option(100.0, low=1, help="bytes that a compressed file may give for each of its own")
    # Of both.
    maxsize: int = option(1000, low=1, help="lines that each half holds")
    max_size: int = option(2**20, low=1, unit="bytes", help="the longest line")
    overflow: Overflow = option("block", help="what happens to lines that find no room")
    flush_timeout: float = option(5.0, low=0, unit="s", help="how long stop may go on writing")
    retry: Again = option("always", help="whether to try again when a file cannot be written or read")
    retry_cap: float = option(0.5, low=0.001, unit="s", help="the longest wait between tries")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.path or "\0" in self.path:
            raise ConfigError(f"FileConfig.path: found {self.path!r}, allowed: a path")
        if self.terminator == b"":
            raise ConfigError("FileConfig.terminator: found b'', allowed: one byte or more")
        if self.cursor and self.replay:
            raise ConfigError("FileConfig.cursor: found with replay, allowed: one of them")
        Names(self.name or NAME, self.suffix or "", zone(self.timezone))

    @classmethod
    def _from_url(cls, url: Url) -> dict[str, Any]:
        if url.host not in ("", "localhost") or url.port is not None or url.user is not None:
            raise ConfigError(f"{url.place}: found a host, allowed: none, as in file:///var/data/run.jsonl")
        return {"path": url.path} if url.path else {}
