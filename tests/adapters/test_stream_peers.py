"""Our TCP and UDP adapters and those of heisskleber, each in a process of its own."""

import asyncio
import contextlib
import importlib.util
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from real import free_port, require

from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.adapters.udp import UdpConfig, UdpReceiver, UdpSender

FRAMES = [{"n": n, "text": f"°{n}"} for n in range(50)]

RECEIVE = """
import asyncio, json, sys
from heisskleber.{kind} import {name}Conf, {name}Receiver

async def main(port):
    receiver = {name}Receiver({name}Conf(host="127.0.0.1", port=port))
    await receiver.start()
    print("ready", flush=True)
    for _ in range(50):
        data, meta = await receiver.receive()
        print(json.dumps(data), flush=True)

asyncio.run(main(int(sys.argv[1])))
"""

SEND = """
import asyncio, sys
from heisskleber.udp import UdpConf, UdpSender

async def main(port):
    sender = UdpSender(UdpConf(host="127.0.0.1", port=port))
    for n in range(50):
        await sender.send({"n": n, "text": f"\\u00b0{n}"})
    await sender.stop()

asyncio.run(main(int(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
async def heisskleber() -> AsyncIterator[None]:
    """Skip without it; and no test of this file waits for ever."""
    require("heisskleber", importlib.util.find_spec("heisskleber"), "pip install heisskleber")
    async with asyncio.timeout(30):
        yield


@asynccontextmanager
async def process(code: str, port: int) -> AsyncIterator[asyncio.StreamReader]:
    """Run a program; gives what it prints."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        yield running.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


async def test_their_tcp_receiver_reads_what_we_send() -> None:
    """Their client connects to our listening sender and reads every line."""
    async with (
        TcpSender[Any](TcpConfig(host="127.0.0.1", port=0, listen=True)) as sender,
        process(RECEIVE.format(kind="tcp", name="Tcp"), sender.port) as said,
    ):
        for frame in FRAMES:
            await sender.send(frame)
        assert await said.readline() == b"ready\n"
        assert [json.loads(await said.readline()) for _ in FRAMES] == FRAMES


async def test_we_read_a_plain_server_as_their_receiver_does() -> None:
    """Their TCP sender sends nothing at all; what their receiver expects of a server, ours reads too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for frame in FRAMES:
            writer.write(json.dumps(frame).encode() + b"\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with TcpReceiver[Any](
        TcpConfig(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    ) as receiver:
        assert [(await receiver.receive())[0] for _ in FRAMES] == FRAMES
    server.close()


async def test_their_udp_receiver_reads_what_we_send() -> None:
    """Each datagram of ours is an item of theirs."""
    port = free_port(socket.SOCK_DGRAM)
    async with process(RECEIVE.format(kind="udp", name="Udp"), port) as said:
        assert await said.readline() == b"ready\n"
        async with UdpSender[Any](UdpConfig(port=port)) as sender:
            for frame in FRAMES:
                await sender.send(frame)
            assert [json.loads(await said.readline()) for _ in FRAMES] == FRAMES


async def test_we_read_what_their_udp_sender_sends() -> None:
    """Each datagram of theirs is an item of ours."""
    async with UdpReceiver[Any](UdpConfig(port=0)) as receiver, process(SEND, receiver.port):
        assert [(await receiver.receive())[0] for _ in FRAMES] == FRAMES
