"""Certificates for the tests of TLS: an authority, and good and bad certificates that it or others signed."""

import datetime
import ipaddress
from pathlib import Path
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
except ImportError:
    x509 = None  # type: ignore[assignment,unused-ignore]

__all__ = ["BAD", "BAD_CLIENT", "Authority", "bad_certificate", "x509"]

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)

BAD: dict[str, Any] = {
    "expired": {"end": -HOUR},
    "not yet valid": {"begin": HOUR},
    "wrong host": {"hosts": ("example.org",)},
    "self-signed": {"self_signed": True},
    "wrong authority": {},
    "SHA-1": {"sha1": True},
    "no alternative name": {"hosts": ()},
    "revoked": {},
}
"""All the ways in which the certificate of a server is bad, and how `Authority.issue` makes it so."""

BAD_CLIENT = [kind for kind in BAD if kind not in ("wrong host", "no alternative name")]
"""Those in which the certificate of a client is: it need not hold a name."""


def _name(text: str) -> Any:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates, and revokes them.

    Args:
        folder: where the files go.
        name: of the authority; its certificate is at `file`.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._serial = 1000
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            self._builder(self.name, self.name, self.key, now - DAY, now + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self.key, hashes.SHA256())
        )
        self.file = str(folder / f"{name}.pem")
        Path(self.file).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        begin: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        self_signed: bool = False,
        sha1: bool = False,
        password: str | None = None,
    ) -> dict[str, Any]:
        """Make a key and a certificate; return them as the options of a config.

        Args:
            hosts: names and addresses it holds; none of them, and there is no such extension.
            begin: from now.
            end: from now.
            self_signed: signed by its own key instead of the authority's.
            sha1: signed over SHA-1 instead of SHA-256.
            password: what the key is locked with; None for nothing.
        """
        now = datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("localhost")
        issuer = subject if self_signed else self.name
        builder = self._builder(subject, issuer, key, now + begin, now + end)
        signer = key if self_signed else self.key
        # Without it Python from 3.13 up trusts a certificate no more, in its default contexts.
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), False
            )
        certificate = builder.sign(signer, hashes.SHA256())
        if sha1:
            certificate = self._sign_anew(certificate)
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode())
                if password
                else serialization.NoEncryption(),
            )
        )
        return {"cert_file": str(cert_file), "key_file": str(key_file)}

    def _sign_anew(self, certificate: Any) -> Any:
        """Put another signature under a certificate: the library makes none over SHA-1 any more."""
        ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
        ecdsa_with_sha1 = bytes.fromhex("300906072a8648ce3d0401")
        whole = certificate.tbs_certificate_bytes
        header = 2 + (whole[1] & 0x7F if whole[1] & 0x80 else 0)
        whole = _tagged(0x30, whole[header:].replace(ecdsa_with_sha256, ecdsa_with_sha1, 1))
        signature = self.key.sign(whole, ec.ECDSA(hashes.SHA1()))
        return x509.load_der_x509_certificate(
            _tagged(0x30, whole + ecdsa_with_sha1 + _tagged(0x03, b"\0" + signature))
        )

    def revoke(self, *cert_files: str) -> str:
        """Write the list of what is revoked; return its file."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        for file in cert_files:
            certificate = x509.load_pem_x509_certificate(Path(file).read_bytes())
            revoked = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now - DAY).build())
        path = self.folder / "revoked.pem"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)

    def _builder(self, subject: Any, issuer: Any, key: Any, begin: Any, end: Any) -> Any:
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(begin)
            .not_valid_after(end)
        )


def bad_certificate(authority: Authority, kind: str, folder: Path) -> tuple[dict[str, Any], str | None]:
    """Make a certificate that is bad in one way; return its options, and the list of what is revoked."""
    signer = Authority(folder, "other") if kind == "wrong authority" else authority
    made = signer.issue("bad", **BAD[kind])
    return made, authority.revoke(made["cert_file"]) if kind == "revoked" else None


def _host(host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _tagged(tag: int, body: bytes) -> bytes:
    """Write one element of DER."""
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + body
