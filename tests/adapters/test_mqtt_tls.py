"""MQTT over TLS, with certificates made for the test."""

import asyncio
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import attrs
import pytest
from mosquitto import Mosquitto
from real import require

from nexus.adapters import open_sender
from nexus.adapters.mqtt import MqttConfig, MqttReceiver, MqttSender
from nexus.errors import LinkDown, OpenError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    x509 = None  # type: ignore[assignment,unused-ignore]

PATIENCE = 10.0


@attrs.frozen
class Papers:
    """Files: an authority, what it has signed, and an authority that has signed nothing."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str
    other_ca: str


class Authority:
    """Signs certificates that are good for an hour."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = self.write(name, self.name, self.key, ca=True)

    def write(self, name: str, subject: Any, key: Any, *, ca: bool = False) -> str:
        """Sign a certificate for 127.0.0.1 and write it; return the file."""
        now = datetime.datetime.now(datetime.UTC)
        hour = datetime.timedelta(hours=1)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - hour)
            .not_valid_after(now + hour)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = self.folder / f"{name}.pem"
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return str(file)

    def issue(self, name: str) -> tuple[str, str]:
        """Write a certificate and its key; return both files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        file = self.folder / f"{name}.key"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self.write(name, subject, key), str(file)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Everything, in a folder that goes away."""
    require("cryptography", x509, "pip install cryptography")
    folder = tmp_path_factory.mktemp("papers")
    authority = Authority(folder, "ca")
    return Papers(
        authority.file,
        *authority.issue("server"),
        *authority.issue("client"),
        Authority(folder, "other").file,
    )


def listener(papers: Papers, **more: str) -> dict[str, str]:
    """Make the lines of a listener that speaks TLS."""
    return {"cafile": papers.ca, "certfile": papers.server, "keyfile": papers.server_key, **more}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_data_goes_both_ways_encrypted(papers: Papers, version: Any) -> None:
    """Megabytes arrive whole and in order, acknowledged, and a restart is survived."""
    async with asyncio.timeout(30), Mosquitto(listener=listener(papers)) as broker:
        config = MqttConfig(
            host="127.0.0.1", port=broker.port, ssl=True, ca_file=papers.ca, qos=1, protocol=version,
            client_id="r", clean_session=False, retry_cap=0.05,
        )  # fmt: skip
        sending = config.with_options(client_id="s")
        async with MqttReceiver(config) as receiver, MqttSender(sending) as sender:
            await receiver.connected(PATIENCE)
            for number in range(40):
                await sender.send([number, "x" * 100_000])
                if number == 20:
                    await sender.flush(PATIENCE)
                    await broker.restart()
            got: list[int] = []
            while len(set(got)) < 40:
                got.append((await receiver.receive())[0][0])
    assert sorted(set(got)) == list(range(40))


async def test_a_client_shows_its_certificate(papers: Papers) -> None:
    """Where the broker wants one, who has it is let in and who has none is not."""
    with_client = listener(papers, require_certificate="true", use_identity_as_username="true")
    async with asyncio.timeout(20), Mosquitto(listener=with_client) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}/t?qos=1&retry=never&timeout=2&ca_file={papers.ca}"
        async with open_sender(url, cert_file=papers.client, key_file=papers.client_key) as sender:
            await sender.deliver(1)
        nobody = open_sender(url)
        with pytest.raises(LinkDown):
            await nobody.connected(PATIENCE)
        await nobody.stop()


async def test_a_broker_that_cannot_prove_itself_is_left(papers: Papers) -> None:
    """Neither one signed by somebody else nor one of another name is spoken to, unless `verify` is off."""
    async with asyncio.timeout(20), Mosquitto(listener=listener(papers)) as broker:
        right = MqttConfig(host="127.0.0.1", port=broker.port, ssl=True, ca_file=papers.ca, retry="never")
        for wrong in (right.with_options(ca_file=papers.other_ca), right.with_options(ca_file="")):
            sender: MqttSender[Any] = MqttSender(wrong)
            with pytest.raises(LinkDown, match=r"(?i)certificate"):
                await sender.connected(PATIENCE)
            await sender.stop()
        async with MqttSender(right.with_options(ca_file="", verify=False)) as careless:
            await careless.connected(PATIENCE)


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
async def test_a_certificate_that_is_not_there_is_told_at_once(tmp_path: Path, option: str) -> None:
    """A missing file and one that is no certificate raise at the start, with the path."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing", encoding="utf-8")
    for path in (tmp_path / "missing.pem", broken):
        sender: MqttSender[Any] = MqttSender(MqttConfig.from_mapping({"ssl": True, option: str(path)}))
        with pytest.raises(OpenError, match=path.name):
            await sender.start()
        assert not sender.is_started
