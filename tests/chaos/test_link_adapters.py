"""Links over every transport, whose broker, relay or cable is killed again and again: 0 lost, 0 twice."""

import asyncio
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from carriers import CARRIERS, Carrier
from link_sides import Sides, sides

WAIT = 60.0
SHORT = ("tcp", "mqtt-0", "udp")
"""Those that are always tried; the others with `-m slow`."""


async def first_events(it: Sides, began: float) -> list[float]:
    """Wait for the next event on both sides, and give the seconds since then."""
    loop = asyncio.get_running_loop()
    before = [len(got) for got in it.got]
    found: dict[int, float] = {}
    async with asyncio.timeout(WAIT):
        while len(found) < 2:
            for side, got in enumerate(it.got):
                if len(got) > before[side]:
                    found.setdefault(side, loop.time() - began)
            await asyncio.sleep(0.001)
    return list(found.values())


async def killed_again_and_again(
    it: Sides, carrier: Carrier, kills: int, count: int, rng: random.Random
) -> list[float]:
    """Give events all the time, kill what carries them, and start it again.

    Returns:
        The seconds from each start to the next event, for both sides.
    """
    loop = asyncio.get_running_loop()
    step = count // kills // 2
    back: list[float] = []
    for number in range(kills):
        first = 2 * number * step
        seen = [len(got) for got in it.got]
        async with asyncio.timeout(WAIT):
            await it.give(range(first, first + step))
            while any(  # noqa: ASYNC110
                len(got) == before for got, before in zip(it.got, seen, strict=True)
            ):
                await asyncio.sleep(0.001)
        await asyncio.sleep(rng.uniform(0, 0.05))
        carrier.kill()
        giving = asyncio.ensure_future(it.give(range(first + step, first + 2 * step)))
        await asyncio.sleep(rng.uniform(0, 0.5))
        await carrier.start()
        back += await first_events(it, loop.time())
        async with asyncio.timeout(WAIT):
            await giving
    return back


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in CARRIERS]
)
async def test_killed_carriers(name: str, form: Any, figures: Any, tmp_path: Path) -> None:
    """Whatever is killed in between, all events come once and in order, and soon after it is back."""
    asyncio.get_running_loop().set_debug(False)
    kills, count = form.size(3, 50), form.size(9_999, 99_900)
    async with CARRIERS[name]({}, tmp_path) as carrier:
        await carrier.start()
        async with sides(*carrier.ends()) as it:
            back = await killed_again_and_again(it, carrier, kills, count, random.Random(form.seed))
            await asyncio.wait_for(it.across(), WAIT)
            given = count // kills // 2 * 2 * kills
            it.check(given)
            figures(
                offered=2 * given,
                delivered=sum(map(len, it.got)),
                lost=0,
                duplicated=0,
                kills=kills,
                resent=sum(link.counts.resent for link in it.links),
                back_median_s=round(statistics.median(back), 3),
                back_max_s=round(max(back), 3),
            )
    assert statistics.median(back) < 5
