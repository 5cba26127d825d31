"""Nothing can be reached from other machines unless somebody has asked for that by name."""

import asyncio
import json
import os
import socket
import sys
from typing import Any

import pytest
from own_sockets import exposed, open_to_peers

from nexus.adapters import open_receiver, open_sender
from nexus.adapters._zmq_broker import ZmqBroker
from nexus.adapters.zmq import ZmqConfig
from nexus.errors import ConfigError

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/net/tcp"), reason="what a process listens at is read from /proc/net"
)

LISTENING: list[tuple[str, Any]] = [
    ("tcp://{}:0?listen=1", open_receiver),
    ("tcp://{}:0?listen=1", open_sender),
    ("udp://{}:0", open_receiver),
    ("zmq+pub://{}:0", open_sender),
    ("zmq+pull://{}:0", open_receiver),
    ("zmq+sub://{}:0?bind=1", open_receiver),
    ("zmq+push://{}:0?bind=1", open_sender),
]
"""Each form of URL that listens, with the half that does."""
LOOPBACK = ["127.0.0.1", "[::1]", "localhost"]
EVERYWHERE = ["0.0.0.0", "[::]", "0", "[::ffff:0.0.0.0]"]


def names(forms: list[tuple[str, Any]]) -> list[str]:
    return [f"{url.partition(':')[0]}-{make.__name__[5:]}" for url, make in forms]


listening = pytest.mark.parametrize(("url", "make"), LISTENING, ids=names(LISTENING))


async def test_defaults_listen_nowhere_but_at_loopback() -> None:
    """Every half of every scheme, started with its defaults, opens nothing to other machines."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DEFAULTS),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found = json.loads(out.splitlines()[-1])
    assert found["started"] >= 20, found
    assert len(found["listens"]) >= 3, found
    assert found["exposed"] == []


DEFAULTS = """
import asyncio, json, os, tempfile
from own_sockets import exposed, open_to_peers
from nexus.adapters import schemes
from nexus.adapters._endpoint import find_adapter
from nexus.errors import NexusError

async def main():
    started, listens = 0, set()
    for scheme in schemes():
        adapter = find_adapter(scheme)
        for half in ("sender", "receiver"):
            make = adapter.half(scheme, half)
            if make is None:
                continue
            options = {"port": 0} if scheme == "zmq+pub" else {}
            options |= {"path": os.path.join(folder, "x")} if scheme == "file" else {}
            if scheme.startswith("zmq+"):
                options = {"port": 0 if scheme in ("zmq+pub", "zmq+pull") else 1, "pattern": patterns[scheme]}
            one = make(adapter.config(**options))
            try:
                await one.start()
                started += 1
                await asyncio.sleep(0)
                listens |= open_to_peers()
            except OSError as exc:
                assert isinstance(exc, NexusError), exc  # the port is in use
            finally:
                await one.stop()
    print()
    print(json.dumps({"started": started, "listens": list(listens), "exposed": list(exposed(listens))}))

patterns = {"zmq+pub": "pubsub", "zmq+sub": "pubsub", "zmq+push": "pushpull", "zmq+pull": "pushpull"}
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main())
"""


@listening
@pytest.mark.parametrize("host", LOOPBACK)
async def test_loopback_in_any_form_is_loopback(url: str, make: Any, host: str) -> None:
    """What listens at an address of loopback can be reached there and nowhere else."""
    if host == "[::1]" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    before = open_to_peers()
    async with make(url.format(host)):
        found = open_to_peers() - before
        assert found
        assert exposed(found) == set()
    assert open_to_peers() <= before


@listening
@pytest.mark.parametrize("host", EVERYWHERE)
async def test_every_interface_is_refused(url: str, make: Any, host: str) -> None:
    """Without proof of who comes, or `insecure`, it does not start, and the error says how it would."""
    before = open_to_peers()
    half = make(url.format(host))
    with pytest.raises(ConfigError, match=r"insecure: .*allowed: .*insecure=True"):
        await half.start()
    assert open_to_peers() <= before
    assert half.link.state == "failed"
    await half.stop()


@listening
async def test_no_host_at_all_is_no_way_round(url: str, make: Any) -> None:
    """An empty host stands for every interface, and is refused like that, or is not taken."""
    before = open_to_peers()
    half = make(url.format("127.0.0.1"), host="")
    with pytest.raises(ConfigError, match=r"insecure|host"):
        await half.start()
    assert open_to_peers() <= before
    await half.stop()


@listening
async def test_a_name_that_leads_beyond_loopback_is_refused(url: str, make: Any) -> None:
    """A name is judged by where it leads to, not by how it looks."""
    half = make(url.format(name_beyond_loopback()))
    with pytest.raises(ConfigError, match="insecure"):
        await half.start()
    await half.stop()


def name_beyond_loopback() -> str:
    """Find a name of this machine that other machines may use; skip by name without one."""
    for name in (socket.gethostname(), socket.getfqdn()):
        try:
            addresses = {each[4][0] for each in socket.getaddrinfo(name, None)}
        except OSError:
            continue
        if any(not str(each).startswith("127.") and each != "::1" for each in addresses):
            return name
    # No such name here: one that getaddrinfo reads as an address of every interface.
    return "0x0"


@listening
async def test_told_so_it_opens_to_all(url: str, make: Any) -> None:
    """With `insecure` it listens where it was told to: the check above sees that."""
    before = open_to_peers()
    async with make(url.format("0.0.0.0"), insecure=True):
        assert exposed(open_to_peers() - before)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*"])
async def test_a_broker_is_no_more_open_than_its_clients(host: str) -> None:
    """The broker's ports follow the same rule."""
    before = open_to_peers()
    with pytest.raises(ConfigError, match="insecure"):
        ZmqBroker(ZmqConfig(host=host, publisher_port=0, subscriber_port=0)).open()
    assert open_to_peers() <= before
    broker = ZmqBroker(ZmqConfig(publisher_port=0, subscriber_port=0))
    broker.open()
    found = open_to_peers() - before
    assert (len(found), exposed(found)) == (2, set())
    await broker.close()
