"""A process that carries what goes over a link, to be killed: bytes of TCP, datagrams, or a serial line.

    python carrier.py tcp PORT TARGET [PORT TARGET ...]
    python carrier.py udp PORT TARGET [PORT TARGET ...]
    python carrier.py serial FOLDER

Says "ready" when it listens, and ends when its standard input does.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from null_modem import NullModem


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until either end is over."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def carry_tcp(port: int, target: int) -> None:
    """Join whoever connects to what listens at the target."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, there = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(copy(reader, there), copy(back, writer))

    await asyncio.start_server(serve, "127.0.0.1", port)


class Datagrams(asyncio.DatagramProtocol):
    """Passes each datagram on."""

    def __init__(self, target: asyncio.DatagramTransport) -> None:
        self._target = target

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._target.sendto(data)


async def carry_udp(port: int, target: int) -> None:
    """Pass on what comes to a port."""
    loop = asyncio.get_running_loop()
    there, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", target)
    )
    await loop.create_datagram_endpoint(lambda: Datagrams(there), local_addr=("127.0.0.1", port))


def carry_serial(folder: Path) -> None:
    """Join two ports in a folder, whose links may be those of a process that was killed."""
    for left in folder.glob("*.new"):
        left.unlink()
    NullModem(folder).plug()


async def main(kind: str, *arguments: str) -> None:
    """Carry until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if kind == "serial":
        carry_serial(Path(arguments[0]))
    else:
        carry = {"tcp": carry_tcp, "udp": carry_udp}[kind]
        for port, target in zip(arguments[::2], arguments[1::2], strict=True):
            await carry(int(port), int(target))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await reader.read()


asyncio.run(main(*sys.argv[1:]))
