"""MQTT over TLS: who is spoken to, who is let in, and what is told; over TCP, and some over WebSockets."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import BAD, BAD_CLIENT, Authority, bad_certificate, x509
from mosquitto import Mosquitto
from real import require

from nexus.adapters import open_sender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.errors import ConfigError, LinkDown, OpenError

PATIENCE = 10.0


pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    require("cryptography", x509, "pip install cryptography")
    return Authority(tmp_path)


def listener(authority: Authority, made: dict[str, Any] | None = None, **more: str) -> dict[str, str]:
    """Make the lines of a listener that speaks TLS 1.3 with a certificate, a good one unless it is given."""
    made = made or authority.issue("server")
    files = {"cafile": authority.file, "certfile": made["cert_file"], "keyfile": made["key_file"]}
    return {**files, "tls_version": "tlsv1.3", **more}


@contextlib.asynccontextmanager
async def in_front_of(broker: Mosquitto, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Speak TLS with a context for a broker that does not; give the port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", broker.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await server.wait_closed()


def config(port: int, authority: Authority, **options: Any) -> MqttConfig:
    usual: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": True, "ca_file": authority.file}
    return MqttConfig(**usual | {"topic": "t", "qos": 1, "retry_cap": 0.05} | options)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_data_goes_both_ways_encrypted(authority: Authority, version: Any, transport: Any) -> None:
    """Everything arrives whole and in order, both sides show certificates, and a restart is survived."""
    lines = listener(authority, require_certificate="true")
    websockets = {name: value for name, value in lines.items() if name != "tls_version"}
    async with Mosquitto(listener=lines, websockets=websockets) as broker:
        port = broker.port if transport == "tcp" else broker.websockets_port
        receiving = config(
            port, authority, protocol=version, transport=transport, client_id="r", clean_session=False,
            **authority.issue("client", hosts=()),
        )  # fmt: skip
        sending = receiving.with_options(client_id="s")
        async with MqttReceiver(receiving) as receiver, MqttSender(sending) as sender:
            await receiver.connected(PATIENCE)
            for number in range(40):
                # mosquitto is very slow to send what is large over WebSockets.
                await sender.send([number, "x" * (100_000 if transport == "tcp" else 1000)])
                if number == 20:
                    await sender.flush(PATIENCE)
                    await broker.restart()
            got: list[int] = []
            while len(set(got)) < 40:
                got.append((await receiver.receive())[0][0])
    assert sorted(set(got)) == list(range(40))


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_broker_is_left(authority: Authority, kind: str, tmp_path: Path) -> None:
    """A client does not speak to a broker whose certificate will not do, and its link says why."""
    made, revoked = bad_certificate(authority, kind, tmp_path)
    async with Mosquitto(listener=listener(authority, made, ciphers="ALL:@SECLEVEL=0")) as broker:
        options = config(broker.port, authority, crl_file=revoked, retry="never")
        sender: MqttSender[Any] = MqttSender(options)
        with pytest.raises(LinkDown, match="certificate verify failed"):
            await sender.connected(PATIENCE)
        await sender.stop()


@pytest.mark.parametrize("kind", [*BAD_CLIENT, "none"])
async def test_a_bad_client_is_refused(authority: Authority, kind: str, tmp_path: Path) -> None:
    """A broker that asks for certificates lets in who has a good one, and nobody whose own is bad."""
    made, revoked = ({}, None) if kind == "none" else bad_certificate(authority, kind, tmp_path)
    lines = listener(authority, require_certificate="true", crlfile=revoked or authority.revoke())
    async with Mosquitto(listener=lines) as broker:
        right = config(broker.port, authority, retry="never", timeout=2.0)
        bad: MqttSender[Any] = MqttSender(right.with_options(**made))
        with pytest.raises((LinkDown, OpenError)):  # some our own side refuses to load
            await bad.connected(PATIENCE)
        await bad.stop()
        async with MqttSender(right.with_options(**authority.issue("client"))) as good:
            await good.deliver(1)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_another_authority_is_not_trusted(authority: Authority, tmp_path: Path, transport: Any) -> None:
    """Neither one the broker is not signed by nor the system's will do, and there is no way to look away."""
    other = Authority(tmp_path, "other").file
    lines = listener(authority)
    websockets = {name: value for name, value in lines.items() if name != "tls_version"}
    async with Mosquitto(listener=lines, websockets=websockets) as broker:
        port = broker.port if transport == "tcp" else broker.websockets_port
        right = config(port, authority, transport=transport, retry="never")
        for wrong in (right.with_options(ca_file=other), right.with_options(ca_file=None)):
            sender: MqttSender[Any] = MqttSender(wrong)
            with pytest.raises(LinkDown, match="certificate verify failed"):
                await sender.connected(PATIENCE)
            await sender.stop()
    with pytest.raises(ConfigError, match="verify"):
        MqttConfig.from_mapping({"tls": True, "verify": False})


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_the_name_may_be_another_than_the_host(authority: Authority, transport: Any) -> None:
    """`server_name` is what the certificate must hold, wherever the broker is found."""
    made = authority.issue("server", hosts=("broker.example.org",))
    lines = listener(authority, made)
    websockets = {name: value for name, value in lines.items() if name != "tls_version"}
    async with Mosquitto(listener=lines, websockets=websockets) as broker:
        port = broker.port if transport == "tcp" else broker.websockets_port
        options = config(port, authority, transport=transport, server_name="broker.example.org")
        async with MqttSender(options) as sender:
            await sender.deliver(1)


async def test_tls_1_2_is_refused_unless_allowed(authority: Authority) -> None:
    """A broker that speaks nothing above 1.2 is left by default, and met where the option allows it."""
    made = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(made["cert_file"], made["key_file"])
    # Who is refused tells the loop, which is what is wanted.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with Mosquitto() as broker, in_front_of(broker, context) as port:
        strict = config(port, authority, retry="never")
        sender: MqttSender[Any] = MqttSender(strict)
        with pytest.raises(LinkDown):
            await sender.connected(PATIENCE)
        await sender.stop()
        async with MqttSender(strict.with_options(tls_version="1.2")) as sender:
            await sender.deliver(1)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_renewed_files_are_used_for_the_next_connection(
    authority: Authority, tmp_path: Path, transport: Any
) -> None:
    """After a reconnect the client shows its new certificate and trusts the new authority."""
    new_folder = tmp_path / "new"
    new_folder.mkdir()
    new = Authority(new_folder)
    lines = listener(authority, require_certificate="true")
    websockets = {name: value for name, value in lines.items() if name != "tls_version"}
    async with Mosquitto(listener=lines, websockets=websockets) as broker:
        port = broker.port if transport == "tcp" else broker.websockets_port
        mine = authority.issue("client", hosts=())
        async with MqttSender(config(port, authority, transport=transport, **mine)) as sender:
            await sender.deliver(1)
            broker.stop()
            fresh = new.issue("client", hosts=()) | {"ca_file": new.file}
            for name, file in (mine | {"ca_file": authority.file}).items():
                shutil.copy(fresh[name], file)
            for name, file in new.issue("server").items():
                shutil.copy(file, tmp_path / Path(file).name)
                assert name
            await sender.send(2)
            await broker.start()
            assert await sender.flush(PATIENCE)
            assert sender.counts.dropped == {}
            assert sender.counts.items == 2


async def test_a_url_says_tls(authority: Authority) -> None:
    """``mqtts://`` is TLS, and so is port 8883; the other options are those of TCP."""
    made = authority.issue("client", hosts=())
    async with Mosquitto(listener=listener(authority, require_certificate="true")) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}/t?qos=1&ca_file={authority.file}"
        async with open_sender(url, **made) as sender:
            await sender.deliver(1)
    assert MqttConfig(port=8883).tls
    assert MqttConfig(port=8883, ca_file=authority.file).place == "mqtts://localhost:8883"


@pytest.mark.parametrize("option", ["ca_file", "cert_file", "crl_file"])
async def test_a_certificate_that_is_not_there_is_told_at_once(tmp_path: Path, option: str) -> None:
    """A missing file and one that is no certificate raise at the start, with the option and the path."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing", encoding="utf-8")
    for path in (tmp_path / "missing.pem", broken):
        sender: MqttSender[Any] = MqttSender(MqttConfig.from_mapping({"tls": True, option: str(path)}))
        with pytest.raises(OpenError, match=rf"{option}.*{path.name}"):
            await sender.start()
        assert not sender.is_started
