"""A throw-away authority and the certificates it gives, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raftkv.host import Tls
from raftkv.os_host import load_tls

__all__ = ["Authority"]

PEM = serialization.Encoding.PEM
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2080, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Makes identities that trust one another, and no others.

    Every certificate is good for both sides of a connection, at the given addresses.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "test",
        addresses: tuple[str, ...] = ("127.0.0.1",),
        names: tuple[str, ...] = ("localhost",),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "ca.pem"
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(f"{name} authority")
        self._addresses = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            + [x509.DNSName(name) for name in names]
        )
        self._write("ca.pem", self._sign(self._name, self._key, x509.BasicConstraints(True, 0)))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, use: x509.BasicConstraints
    ) -> bytes:
        serial = x509.random_serial_number()
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial, START, END)
            .add_extension(use, critical=True)
            .add_extension(self._addresses, critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(PEM)
        )

    def _write(self, file: str, data: bytes) -> str:
        path = self._directory / file
        path.write_bytes(data)
        return str(path)

    def files(self, user: str, *groups: str) -> tuple[str, str, str]:
        """Paths of authority, certificate and key; Kubernetes reads users and groups from it."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_subject(user, *groups), key, x509.BasicConstraints(False, None))
        secret = key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = user.replace(":", "-")
        return (
            str(self.path),
            self._write(f"{file}.pem", certificate),
            self._write(f"{file}.key", secret),
        )

    def tls(self, user: str, *groups: str, require_client: bool = True) -> Tls:
        ca, certificate, key = self.files(user, *groups)
        return load_tls(ca=ca, certificate=certificate, key=key, require_client=require_client)


def _subject(user: str, *groups: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name(attributes)
