"""TLS over TCP: who is refused, what is told, and that nobody else notices."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from certificates import BAD, BAD_CLIENT, Authority, bad_certificate, x509
from real import require

from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.adapters.tcp import TcpConfig, TcpReceiver, TcpSender
from nexus.errors import ConfigError, LinkDown, OpenError


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """No test of this file waits for ever."""
    async with asyncio.timeout(30):
        yield


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    require("cryptography", x509, "pip install cryptography")
    return Authority(tmp_path)


def receiver_at(port: int, **options: Any) -> TcpReceiver[bytes]:
    return TcpReceiver(TcpConfig(port=port, host="127.0.0.1", tls=True, **options), bytes_unpacker)


def sender_at(port: int, **options: Any) -> TcpSender[bytes]:
    return TcpSender(TcpConfig(port=port, host="127.0.0.1", tls=True, **options), bytes_packer)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
async def test_data_flows_over_tls(authority: Authority, version: Any) -> None:
    """With certificates on both sides many frames arrive, and a stop sends them all."""
    ours = authority.issue("server") | {"ca_file": authority.file, "tls_version": version}
    theirs = authority.issue("client", hosts=()) | {"ca_file": authority.file, "tls_version": version}
    async with receiver_at(0, listen=True, **ours) as receiver:
        async with sender_at(receiver.port, maxsize=3000, **theirs) as sender:
            for number in range(3000):
                await sender.send(b"%d" % number + bytes(400))
            got = asyncio.ensure_future(_receive(receiver, 3000))
        assert await got == [b"%d" % number + bytes(400) for number in range(3000)]
        assert receiver.refused == {}


async def refusing(half: Any, **refused: int) -> None:
    """Wait until so many peers were turned away."""
    while half.refused != refused:  # noqa: ASYNC110 - it is another side that changes
        await asyncio.sleep(0.01)


async def _receive(receiver: TcpReceiver[bytes], count: int) -> list[bytes]:
    return [(await receiver.receive())[0] for _ in range(count)]


def weak_context(side: int, made: dict[str, Any], authority: Authority) -> ssl.SSLContext:
    """Make a context that shows any certificate: our own would refuse to load some of them."""
    context = ssl.SSLContext(side)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_verify_locations(authority.file)
    context.load_cert_chain(made["cert_file"], made["key_file"])
    return context


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_server_is_refused(authority: Authority, kind: str, tmp_path: Path) -> None:
    """A client does not speak to a server whose certificate will not do, and its link says why."""
    made, revoked = bad_certificate(authority, kind, tmp_path)
    context = weak_context(ssl.PROTOCOL_TLS_SERVER, made, authority)
    # The server tells the loop that it was refused, which is what is wanted.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with receiver_at(port, ca_file=authority.file, crl_file=revoked, retry="never") as receiver:
        with pytest.raises(LinkDown, match="certificate verify failed"):
            await receiver.receive()
    assert receiver.counts.ups == 0
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("kind", BAD_CLIENT)
async def test_a_bad_client_is_refused(authority: Authority, kind: str, tmp_path: Path) -> None:
    """A server that asks for certificates refuses a bad one; a good client beside it is served."""
    made, revoked = bad_certificate(authority, kind, tmp_path)
    ours = authority.issue("server") | {"ca_file": authority.file, "crl_file": revoked}
    theirs = authority.issue("client") | {"ca_file": authority.file}
    async with receiver_at(0, listen=True, **ours) as receiver, sender_at(receiver.port, **theirs) as good:
        await good.connected(5)
        context = weak_context(ssl.PROTOCOL_TLS_CLIENT, made, authority)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port, ssl=context)
            writer.write(b"bad\n")  # a client of TLS 1.3 hears of the refusal later
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        await refusing(receiver, handshake=1)
        await good.send(b"served")
        assert (await receiver.receive())[0] == b"served"
        assert len(receiver._listener.peers) == 1


async def test_a_client_without_a_certificate_is_refused(authority: Authority) -> None:
    """Where certificates are asked for, none will not do."""
    ours = authority.issue("server") | {"ca_file": authority.file}
    async with receiver_at(0, listen=True, **ours) as receiver:
        async with sender_at(receiver.port, ca_file=authority.file, retry="never"):
            await refusing(receiver, handshake=1)
        assert receiver.counts.ups == 0


async def test_plain_tcp_at_a_tls_port_is_refused(authority: Authority) -> None:
    """Whoever does not speak TLS is turned away, and whoever says nothing at all when the time is up."""
    async with receiver_at(0, listen=True, handshake_timeout=0.2, **authority.issue("server")) as receiver:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await refusing(receiver, handshake=2)


async def test_tls_1_2_is_refused_unless_allowed(authority: Authority) -> None:
    """The oldest version is 1.3 by default; the option lets 1.2 in, and nothing older."""
    old = ssl.create_default_context(cafile=authority.file)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    made = authority.issue("server")
    async with receiver_at(0, listen=True, **made) as strict:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", strict.port, ssl=old)
    async with receiver_at(0, listen=True, tls_version="1.2", **made) as lax:
        _, writer = await asyncio.open_connection("127.0.0.1", lax.port, ssl=old)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.close()
        await writer.wait_closed()


async def test_certificates_may_be_renewed_while_it_listens(authority: Authority, tmp_path: Path) -> None:
    """The next peer is shown the new certificate; a broken file changes nothing; nobody is cut."""
    made = authority.issue("server", hosts=("example.org",))
    async with (
        receiver_at(0, listen=True, **made) as receiver,
        sender_at(receiver.port, ca_file=authority.file, server_name="example.org") as first,
    ):
        await first.connected(5)
        authority.issue("server")
        async with sender_at(receiver.port, ca_file=authority.file) as second:
            await second.connected(5)
        Path(made["cert_file"]).write_text("broken")  # noqa: ASYNC240 - a few bytes
        async with sender_at(receiver.port, ca_file=authority.file) as third:
            await third.connected(5)
        await first.send(b"still here")
        assert (await receiver.receive())[0] == b"still here"
        assert first.counts.ups == 1


async def test_certificates_let_it_listen_beyond_loopback(authority: Authority) -> None:
    """TLS alone says nothing of the client; TLS with client certificates does."""
    made = authority.issue("server")
    open_to_all = TcpConfig(host="0.0.0.0", port=0, listen=True, tls=True, **made)
    with pytest.raises(ConfigError, match="insecure"):
        await TcpReceiver(open_to_all).start()
    async with TcpReceiver[Any](attrs.evolve(open_to_all, ca_file=authority.file)) as receiver:
        assert receiver.port


async def test_what_is_wrong_with_the_files_is_told(authority: Authority, tmp_path: Path) -> None:
    """A missing or broken file names its option at the start; a listener without one is told so."""
    made = authority.issue("server")
    (tmp_path / "broken").write_text("not PEM")
    wrong: list[dict[str, Any]] = [
        {"ca_file": "/no/such/file"},
        {"ca_file": str(tmp_path / "broken")},
        {**made, "key_file": made["cert_file"]},
        {**made, "crl_file": str(tmp_path / "broken")},
    ]
    for options in wrong:
        with pytest.raises(OpenError, match=r"ca_file|crl_file|cert_file and key_file"):
            await sender_at(1, **options).start()
    with pytest.raises(ConfigError, match="cert_file: found none"):
        await sender_at(0, listen=True).start()


def test_the_password_of_the_key_is_not_shown() -> None:
    """Neither the config nor what is named after it shows a secret."""
    config = TcpConfig(tls=True, key_password="hunter2")
    assert "hunter2" not in f"{config!r} {TcpSender(config)!r}"


async def test_a_flood_of_unfinished_handshakes_keeps_to_the_bound(authority: Authority) -> None:
    """Peers that begin TLS and stop are turned away when their time is up; who is there is served."""
    ours = authority.issue("server")
    async with (
        receiver_at(0, listen=True, handshake_timeout=0.3, max_peers=10, **ours) as receiver,
        sender_at(receiver.port, ca_file=authority.file) as good,
    ):
        await good.connected(5)
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
            await good.send(b"served")
            assert (await receiver.receive())[0] == b"served"
            await refusing(receiver, handshake=9, full=41)
