"""The link: kept up, announced at every change, and tried again ever less often."""

import asyncio
import random
from typing import Any

import pytest

from nexus.adapters._link import Link, LinkState
from nexus.adapters._retry import Retry, Waits
from nexus.errors import ConfigError, LinkDown
from nexus.testing import virtual_time


class Peer:
    """A peer that is there for some of the tries."""

    def __init__(self, link: Link, *outcomes: BaseException | None) -> None:
        self.link, self.outcomes = link, list(outcomes)
        self.tries: list[float] = []

    async def session(self) -> None:
        self.tries.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0) if self.outcomes else OSError("nobody there")
        if outcome is None:
            self.link.up()
            await asyncio.sleep(1)
        else:
            raise outcome


def test_waits_grow_to_the_cap() -> None:
    """The waits double up to the cap, each at random between half of its bound and all of it."""
    waits = Waits(Retry(base=0.1, cap=1.0), random.Random(1))
    for bound in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert bound / 2 <= waits.next() <= bound
    waits.reset()
    assert waits.next() <= 0.1


@pytest.mark.parametrize("options", [{"again": "sometimes"}, {"base": 0}, {"base": 2.0, "cap": 1.0}])
def test_wrong_retry_options_are_told(options: dict[str, Any]) -> None:
    """What was found and what is allowed stands in the error."""
    with pytest.raises(ConfigError, match=r"found .* allowed"):
        Retry(**options)


@virtual_time
async def test_an_absent_peer_is_tried_a_few_times_a_second() -> None:
    """With nobody there, there are neither thousands of tries nor long silences."""
    link = Link("x", Retry(cap=0.5))
    peer = Peer(link)
    task = asyncio.ensure_future(link.keep(peer.session))
    await asyncio.sleep(60)
    task.cancel()
    assert 120 <= len(peer.tries) <= 250
    assert max(b - a for a, b in zip(peer.tries, peer.tries[1:], strict=False)) <= 0.5


@virtual_time
async def test_every_change_is_announced() -> None:
    """Listeners see each state in turn, with the reason, and one that fails does not stop it."""
    link = Link("tcp://a:1")
    seen: list[LinkState] = []
    link.listen(lambda state: 1 / 0)
    link.listen(seen.append)
    peer = Peer(link, OSError("refused"), None)
    task = asyncio.ensure_future(link.keep(peer.session))
    await link.wait_up(1)
    await asyncio.sleep(1.005)
    task.cancel()
    link.stopped()
    assert [state.state for state in seen] == ["connecting", "down", "connecting", "up", "down", "stopped"]
    assert seen[1].error == "OSError: refused"
    assert seen[4].error == "the peer closed the connection"
    assert [state.ups for state in seen][-1] == 1


@pytest.mark.parametrize(("again", "tries"), [("never", 1), ("once", 2)])
@virtual_time
async def test_retrying_can_be_off(again: Any, tries: int) -> None:
    """``never`` ends with the first connection and ``once`` with the second, and says why."""
    link = Link("x", Retry(again=again))
    peer = Peer(link, None, None, None)
    with pytest.raises(LinkDown, match="the peer closed the connection"):
        await link.keep(peer.session)
    assert len(peer.tries) == tries


@virtual_time
async def test_waiting_for_a_link_ends_with_it() -> None:
    """Whoever waits for a link that is stopped is told so, though it is begun again at once."""
    link = Link("x")
    early = asyncio.ensure_future(link.wait_up())
    await asyncio.sleep(0)
    link.begin()
    late = asyncio.ensure_future(link.wait_up(10))
    await asyncio.sleep(1)
    assert not early.done()
    link.stopped()
    link.begin()
    for waiting in (early, late):
        with pytest.raises(LinkDown, match="x was stopped"):
            await waiting
    again = asyncio.ensure_future(link.wait_up())
    await asyncio.sleep(1)
    link.up()
    await again


@virtual_time
async def test_waiting_for_the_link_is_bounded() -> None:
    """After its timeout `wait_up` says how the link stands and why."""
    link = Link("x")
    link.down("no route")
    with pytest.raises(LinkDown, match="x is down after 2 s: no route"):
        await link.wait_up(2)
