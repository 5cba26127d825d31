"""Wires made worse from a seed: to see that what is built on a link stands it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from nexus.adapters._config import Config, option
from nexus.adapters._link import Link as Connection
from nexus.adapters._url import Url
from nexus.adapters._wire import Wire
from nexus.boundaries.link._ends import Dialler, Door, MakeDoor, trust
from nexus.testing import MemoryWire

__all__ = ["ChaosWire", "Weather", "chaos", "weather_of"]

CAPACITY: Final = 64
"""Messages on their way through the bad weather, each way."""


@attrs.frozen(kw_only=True)
class Weather(Config):
    """What happens to the messages of a wire, both ways."""

    loss: float = option(0.0, low=0, high=1, help="share of messages lost")
    dup: float = option(0.0, low=0, high=1, help="share that arrives twice")
    reorder: float = option(0.0, low=0, high=1, help="share that later ones overtake")
    delay: float = option(0.0, low=0, unit="s", help="the most time a message takes; the order is kept")
    partition: float = option(
        0.0, low=0, high=0.9, help="share of the time in which nothing gets through, in spells"
    )
    spell: float = option(1.0, low=0.001, unit="s", help="mean length of such a spell")
    seed: int = option(0, help="where chance comes from")

    def dialler(self, dialler: Dialler) -> ChaosDialler:
        """Make the wires of a dialler worse."""
        return ChaosDialler(dialler, self)

    def door(self, make: MakeDoor) -> MakeDoor:
        """Make the wires of a door worse."""

        def door(connection: Connection) -> ChaosDoor:
            return ChaosDoor(make(connection), self)

        return door


def chaos(dial: Callable[[], Awaitable[Wire]], **weather: Any) -> Callable[[], Awaitable[Wire]]:
    """Make the wires worse that a function makes: ``Link.over(chaos(dial, loss=0.1, seed=7))``.

    Args:
        dial: makes the next wire.
        weather: ``loss``, ``dup`` and ``reorder``, shares of the messages; ``delay``, seconds that one takes
            at most; ``partition``, the share of the time in which nothing gets through, in spells of
            ``spell`` seconds; ``seed``, where chance comes from.

    Raises:
        ConfigError: one of them is unknown or out of range.
    """
    found = Weather.from_mapping(weather)
    rng = random.Random(found.seed)

    async def worse() -> Wire:
        return ChaosWire(await dial(), found, rng)

    return worse


def weather_of(url: Url, options: Mapping[str, Any]) -> tuple[Weather, Url, dict[str, Any]]:
    """Take the weather out of a URL and options; give the rest of both.

    Raises:
        ConfigError: a part of it is out of range.
    """
    names = {field.name for field in attrs.fields(Weather)}
    given = {name: values for name, values in url.options.items() if name in names}
    own = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    weather = Weather.from_url(Url(url.scheme, options=given), **own)
    left = {name: values for name, values in url.options.items() if name not in names}
    return weather, attrs.evolve(url, options=left), rest


class ChaosWire:
    """A wire behind bad weather.

    Args:
        wire: the one that is made worse.
        weather: how.
        rng: where chance comes from.
    """

    def __init__(self, wire: Wire, weather: Weather, rng: random.Random) -> None:
        self._wire = wire
        self._near, self._far = MemoryWire.pair(
            loss=weather.loss,
            duplicate=weather.dup,
            reorder=weather.reorder,
            delay=(0.0, weather.delay),
            capacity=CAPACITY,
            rng=rng,
        )
        self._weather = weather
        self._rng = rng
        work = [self._go(), self._come()] + ([self._cut()] if weather.partition else [])
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each, name="link.chaos") for each in work]

    async def send(self, frames: Sequence[bytes]) -> None:
        await self._near.send(frames)

    async def receive(self) -> list[list[bytes]]:
        return await self._near.receive()

    def trust(self) -> None:
        """Let it carry all it can."""
        trust(self._wire)

    def close(self) -> None:
        """End the connection at once, with what is on its way."""
        for task in self._tasks:
            task.cancel()
        self._near.close()
        self._far.close()
        self._wire.close()

    async def _go(self) -> None:
        """Take what has come through to the wire."""
        try:
            while True:
                for message in await self._far.receive():
                    await self._wire.send(message)
        except ConnectionError:
            self._far.close()

    async def _come(self) -> None:
        """Take what comes over the wire into the weather."""
        try:
            while True:
                for message in await self._wire.receive():
                    await self._far.send(message)
        except ConnectionError:
            self._far.close()

    async def _cut(self) -> None:
        """Let nothing through at times."""
        share, spell = self._weather.partition, self._weather.spell
        while True:
            await asyncio.sleep(self._rng.uniform(0, 2) * spell * (1 - share) / share)
            self._near.partition()
            await asyncio.sleep(self._rng.uniform(0, 2) * spell)
            self._near.heal()


class ChaosDialler:
    """Makes connections in bad weather."""

    def __init__(self, dialler: Dialler, weather: Weather) -> None:
        self.name = f"chaos+{dialler.name}"
        self._dialler = dialler
        self._dial = chaos(dialler.dial, **attrs.asdict(weather))

    async def dial(self) -> Wire:
        return await self._dial()

    async def aclose(self) -> None:
        await self._dialler.aclose()


class ChaosDoor:
    """Takes connections into bad weather."""

    def __init__(self, door: Door, weather: Weather) -> None:
        self.name = f"chaos+{door.name}"
        self._door = door
        self._weather = weather
        self._rng = random.Random(weather.seed)

    @property
    def port(self) -> int:
        """The port it listens at; 0 while it does not."""
        return getattr(self._door, "port", 0)

    async def open(self) -> None:
        await self._door.open()

    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        """Let each that connects be served, until cancelled."""

        async def worse(wire: Wire) -> None:
            behind = ChaosWire(wire, self._weather, self._rng)
            try:
                await serve(behind)
            finally:
                behind.close()

        await self._door.run(worse)

    def close(self) -> None:
        self._door.close()
