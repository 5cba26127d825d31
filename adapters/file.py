"""Lines in files: a sender that rolls them over, and a receiver that follows or replays them.

``file:///var/data/`` sends to a new file each hour, ``file:///var/data/run.jsonl`` to that one; a receiver of
``file:///var/data/run.jsonl`` follows it, and with ``?replay=1`` reads it once.
"""

from __future__ import annotations

from nexus.adapters._endpoint import Adapter
from nexus.adapters._file_config import FileConfig
from nexus.adapters._file_receiver import FileReceiver
from nexus.adapters._file_sender import FileSender

__all__ = ["ADAPTER", "FileConfig", "FileReceiver", "FileSender"]

ADAPTER = Adapter(
    name="file",
    schemes=("file",),
    config=FileConfig,
    sender=FileSender,
    receiver=FileReceiver,
    summary="lines in files: file:///var/data/ (a new file each hour) or file:///var/data/run.jsonl",
)
