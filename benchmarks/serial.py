"""Lines over a serial cable of pseudo-terminals, and how long the event loop stands still meanwhile.

A process of its own carries what is written to one port to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any

from benchmarks._harness import OURS, ROOT, Contest, Outcome, Target, peer

PLAIN = "pyserial-asyncio"
SERIALX = f"{OURS} over serialx"
ANCESTOR = "heisskleber"
LINE = b"x" * 99
BAUDRATE = 921600


class Beat:
    """The longest time that the loop did not come round while this was entered."""

    def __enter__(self) -> Beat:
        self.worst = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = perf_counter()
        self._timer = self._loop.call_later(0.001, self._beat)
        return self

    def __exit__(self, *exc: object) -> None:
        self._beat()
        self._timer.cancel()

    def _beat(self) -> None:
        now = perf_counter()
        self.worst = max(self.worst, now - self._last - 0.001)
        self._last = now
        self._timer.cancel()
        self._timer = self._loop.call_later(0.001, self._beat)


@contextlib.asynccontextmanager
async def cable(rate: int) -> AsyncIterator[tuple[str, str]]:
    """Give two joined ports; what goes into one comes out of the other, at `rate` bytes/s (0: at once)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.serial", str(rate), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        a, b = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
        yield a, b
    finally:
        process.kill()
        await process.wait()


def carry(rate: int) -> None:
    """Be the cable: print the two ports, then carry bytes for ever."""
    ends = [os.openpty() for _ in range(2)]
    for _, slave in ends:
        tty.setraw(slave)
    print(*(os.ttyname(slave) for _, slave in ends), flush=True)
    masters = [master for master, _ in ends]
    while True:
        for master in select.select(masters, [], [])[0]:
            data = os.read(master, min(4096, rate // 100) if rate else 65536)
            other = masters[1 - masters.index(master)]
            while data:
                data = data[os.write(other, data) :]
            if rate:
                time.sleep(0.01)


# Who sends and receives: an async function of (port to send to, port to receive from, lines).


async def ours(near: str, far: str, count: int, driver: str = "pyserial") -> bool:
    """Send and receive with this project's adapter."""
    serial = peer("nexus.adapters.serial", OURS)
    if driver == "serialx":
        peer("serialx", "serialx")
    configs = (serial.SerialConfig(port=port, baudrate=BAUDRATE, driver=driver) for port in (near, far))
    here, there = configs
    async with (
        serial.SerialReceiver(there, lambda payload: (payload, {})) as receiver,
        serial.SerialSender(here, lambda data: data) as sender,
    ):
        await receiver.connected(10)
        await sender.connected(10)

        async def receive() -> None:
            got = 0
            while got < count:
                got += len(await receiver.receive_many())

        receiving = asyncio.create_task(receive())
        for _ in range(count):
            await sender.send(LINE)
        await receiving
        return bool(sender.counts.items == receiver.counts.items == count)


async def over_serialx(near: str, far: str, count: int) -> bool:
    """Do the same over the other driver."""
    return await ours(near, far, count, "serialx")


async def plain(near: str, far: str, count: int) -> None:
    """Write and read lines with the streams of pyserial-asyncio, as its documentation shows, and drain."""
    open_port = peer("serial_asyncio", "pyserial-asyncio").open_serial_connection
    _, writer = await open_port(url=near, baudrate=BAUDRATE)
    reader, other = await open_port(url=far, baudrate=BAUDRATE)

    async def receive() -> None:
        for _ in range(count):
            await reader.readline()

    receiving = asyncio.create_task(receive())
    for _ in range(count):
        writer.write(LINE + b"\n")
        await writer.drain()
    await receiving
    for each in (writer, other):
        each.close()
    await asyncio.sleep(0.01)  # it closes in a later turn, and has no wait_closed that works


async def heisskleber(near: str, far: str, count: int) -> None:
    """Send and receive one at a time; without `read_bytes` its receiver gives single bytes."""
    serial = peer("heisskleber.serial", "heisskleber")
    here, there = (serial.SerialConf(port=port, baudrate=BAUDRATE) for port in (near, far))
    sender = serial.SerialSender(here, lambda data: data)
    receiver = serial.SerialReceiver(there, lambda payload: (payload, {}))
    await sender.start()
    await receiver.start()

    async def receive() -> None:
        for _ in range(count):
            await receiver.receive(read_bytes=1000)

    receiving = asyncio.create_task(receive())
    for _ in range(count):
        await sender.send(LINE + b"\n")
    await receiving
    await sender.stop()
    await receiver.stop()


async def _throughput(run: Callable[..., Awaitable[bool | None]], count: int) -> Outcome:
    async with cable(0) as (near, far):
        with Beat() as beat:
            start = perf_counter()
            balanced = await run(near, far, count)
            seconds = perf_counter() - start
    return Outcome({"rate": count / seconds, "stall": beat.worst * 1000}, balanced)


# A device that reads slowly: who writes more than it takes, and closes.


async def ours_slow(port: str, count: int, driver: str = "pyserial") -> None:
    """Send and stop; what the device has not taken is dropped, and counted."""
    serial = peer("nexus.adapters.serial", OURS)
    config = serial.SerialConfig(
        port=port, baudrate=BAUDRATE, driver=driver, flush_timeout=0.5, maxsize=count
    )
    async with serial.SerialSender(config, lambda data: data) as sender:
        await sender.connected(10)
        for number in range(count):
            await sender.send(LINE)
            if number % 100 == 0:
                await asyncio.sleep(0)


async def over_serialx_slow(port: str, count: int) -> None:
    """Do the same over the other driver."""
    peer("serialx", "serialx")
    await ours_slow(port, count, "serialx")


async def plain_slow(port: str, count: int) -> None:
    """Write, wait half a second, and abort."""
    _, writer = await peer("serial_asyncio", "pyserial-asyncio").open_serial_connection(
        url=port, baudrate=BAUDRATE
    )
    for number in range(count):
        writer.write(LINE + b"\n")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    writer.transport.abort()
    await asyncio.sleep(0.05)


async def _stall(run: Callable[..., Awaitable[None]], count: int) -> Outcome:
    async with cable(50_000) as (near, _):
        with Beat() as beat:
            await run(near, count)
    return Outcome({"stall": beat.worst * 1000})


def _here(
    measure: Callable[..., Awaitable[Outcome]], run: Callable[..., Any], share: float = 1.0
) -> Callable[..., Outcome]:
    def contestant(lines: int) -> Outcome:
        for module in ("nexus.adapters.serial", "serial_asyncio"):
            peer(module, "pyserial-asyncio")  # or the import is the longest stall
        if run is heisskleber:
            peer("heisskleber.serial", "heisskleber")
        return asyncio.run(measure(run, max(100, int(lines * share))))  # type: ignore[arg-type]

    return contestant


CONTESTS = (
    Contest(
        name="serial.lines",
        title="lines of 100 bytes from one port of a cable to the other, opening and closing included",
        figures={"rate": "lines/s", "stall": "ms"},
        contestants={
            OURS: _here(_throughput, ours),
            SERIALX: _here(_throughput, over_serialx),
            PLAIN: _here(_throughput, plain),
            ANCESTOR: _here(_throughput, heisskleber, share=0.1),
        },
        full={"lines": 50_000},
        quick={"lines": 1_000},
        targets=(Target(OURS, PLAIN, at_least=1.5), Target(OURS, ANCESTOR, at_least=5)),
    ),
    Contest(
        name="serial.slow",
        title="the longest stall of the loop while a slow device is written to, and at the close",
        figures={"stall": "ms"},
        contestants={
            OURS: _here(_stall, ours_slow),
            SERIALX: _here(_stall, over_serialx_slow),
            PLAIN: _here(_stall, plain_slow),
        },
        full={"lines": 20_000},
        quick={"lines": 1_000},
        targets=(Target(OURS, PLAIN, at_most=0.5),),
    ),
)


if __name__ == "__main__":
    carry(int(sys.argv[1]))
