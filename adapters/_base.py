"""What every adapter is: a sender and a receiver. The one door for transports and for whoever writes one."""

from nexus.adapters._adapted import Adapted, CommonConfig, Counts
from nexus.adapters._backlog import Backlog, OutItem, SendOverflow
from nexus.adapters._inbox import Inbox, Item, Overflow
from nexus.adapters._link import Link, LinkState, OnLink
from nexus.adapters._receiver import Meta, OnBad, Receiver
from nexus.adapters._retry import Again, Retry
from nexus.adapters._sender import Sender

__all__ = [
    "Adapted",
    "Again",
    "CommonConfig",
    "Counts",
    "Inbox",
    "Item",
    "Link",
    "LinkState",
    "Meta",
    "OnBad",
    "OnLink",
    "OutItem",
    "Backlog",
    "Overflow",
    "Receiver",
    "Retry",
    "SendOverflow",
    "Sender",
]
