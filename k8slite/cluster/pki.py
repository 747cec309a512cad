"""Certificate authorities and the identities they sign; PEM files below the cluster's `pki/`.

Two authorities: the cluster's, which every client of an apiserver knows, and the store's, so that
no client of an apiserver can speak to the store. Keys are ECDSA P-256: made in under a millisecond.
What is there already is kept, so that a cluster that is started again has the same identities.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k8slite.cluster.layout import write_file
from k8slite.cluster.spec import ClusterSpec

__all__ = ["Authority", "Identity", "admin", "identities", "make_pki", "pem_of"]

YEARS: Final = 10
BACKDATED: Final = datetime.timedelta(minutes=5)
"""For clients whose clock is a little behind."""
CLUSTER_CA: Final = "ca"
STORE_CA: Final = "store-ca"
SERVICE_ACCOUNTS: Final = "service-accounts"
MASTERS: Final = "system:masters"
NODES: Final = "system:nodes"
KUBELET_CLIENT: Final = "kube-apiserver-kubelet-client"


class Identity(NamedTuple):
    """Who a key stands for. `file` is the name of its files; `user` and `groups` are common name
    and organisations, which apiservers read as user and groups; `names` are those it serves."""

    authority: str
    file: str
    user: str
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


admin: Final = Identity(CLUSTER_CA, "admin", "kubernetes-admin", (MASTERS,))


def identities(spec: ClusterSpec, addresses: Sequence[str], nodes: Sequence[str]) -> list[Identity]:
    """All of a cluster's. `addresses`: where apiservers answer; `nodes`: each node's own."""
    served = (
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        *addresses,
    )
    found = [
        admin,
        Identity(CLUSTER_CA, "apiserver", "kube-apiserver", (), served),
        Identity(CLUSTER_CA, "apiserver-kubelet-client", KUBELET_CLIENT, (MASTERS,)),
        Identity(CLUSTER_CA, "scheduler", "system:kube-scheduler"),
        Identity(CLUSTER_CA, "controller-manager", "system:kube-controller-manager"),
        Identity(CLUSTER_CA, "proxy", "system:kube-proxy", ("system:node-proxier",)),
        Identity(STORE_CA, "store-client", "apiserver"),
    ]
    for number in range(1, spec.raft_members + 1):
        name = f"raftkv-{number}"
        found.append(Identity(STORE_CA, name, name, (), ("localhost", "127.0.0.1")))
    for number, address in enumerate(nodes, 1):
        node = f"node-{number}"
        found.append(Identity(CLUSTER_CA, node, f"system:node:{node}", (NODES,), (node, address)))
    return found


def pem_of(directory: Path, file: str) -> tuple[str, str]:
    """The paths of an identity's certificate and key."""
    return str(directory / f"{file}.crt"), str(directory / f"{file}.key")


def make_pki(directory: Path, wanted: Sequence[Identity]) -> None:
    """Make what is missing, or serves other addresses than it should. Raises OSError."""
    authorities = {
        name: Authority.load_or_make(directory, name, title)
        for name, title in ((CLUSTER_CA, "k8slite"), (STORE_CA, "k8slite-store"))
    }
    for identity in wanted:
        certificate = directory / f"{identity.file}.crt"
        if not certificate.exists() or not _serves(certificate, identity.names):
            authorities[identity.authority].issue(directory, identity)
    if not (directory / f"{SERVICE_ACCOUNTS}.key").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_file(directory / f"{SERVICE_ACCOUNTS}.key", _private(key), 0o600)


def _serves(certificate: Path, names: Sequence[str]) -> bool:
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    if not names:
        return True
    try:
        extension = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return set(_alternatives(names)) <= set(extension.value)


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@attrs.frozen
class Authority:
    """Signs identities."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load_or_make(cls, directory: Path, name: str, title: str) -> Authority:
        """Raises OSError, ValueError for files that are none."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        if certificate.exists() and key.exists():
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key} is no key of this cluster")
            return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)
        made = cls.make(title)
        write_file(key, _private(made.key), 0o600)
        write_file(certificate, _public(made.certificate), 0o644)
        return made

    @classmethod
    def make(cls, title: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        usage = _usage(key_cert_sign=True, crl_sign=True, digital_signature=True)
        certificate = (
            _builder(subject, subject, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def issue(self, directory: Path, identity: Identity) -> None:
        """A key and a certificate for both ends of a connection. Raises OSError."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in identity.groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, identity.user))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.names:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        builder = (
            _builder(x509.Name(attributes), self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value),
                critical=False,
            )
        )
        if identity.names:
            alternatives = x509.SubjectAlternativeName(_alternatives(identity.names))
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        write_file(directory / f"{identity.file}.key", _private(key), 0o600)
        write_file(directory / f"{identity.file}.crt", _public(certificate), 0o644)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    )


def client_context(directory: Path, identity: Identity) -> ssl.SSLContext:
    """What a client of that identity connects with."""
    context = ssl.create_default_context(cafile=str(directory / f"{identity.authority}.crt"))
    context.load_cert_chain(*pem_of(directory, identity.file))
    return context
