"""Certificate authorities and the identities they sign; PEM files below the cluster's `pki/`.

Two authorities: the cluster's, which every client of an apiserver knows, and the store's, so that
no client of an apiserver can speak to the store. Keys are ECDSA P-256: made in under a millisecond.
What is there already is kept, so that a cluster that is started again has the same identities.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k8slite.cluster.layout import write_file
from k8slite.cluster.spec import ClusterSpec

__all__ = [
    "Authority",
    "Identity",
    "admin",
    "identities",
    "make_pki",
    "make_service_account_key",
    "pem_of",
]

YEARS: Final = 10
BACKDATED: Final = datetime.timedelta(minutes=5)
"""For clients whose clock is a little behind."""
RENEWED: Final = datetime.timedelta(days=90)
"""A certificate that expires sooner is made anew at the next start."""
CLUSTER_CA: Final = "ca"
STORE_CA: Final = "store-ca"
FRONT_PROXY_CA: Final = "front-proxy-ca"
TITLES: Final = {
    CLUSTER_CA: "k8slite",
    STORE_CA: "k8slite-store",
    FRONT_PROXY_CA: "k8slite-front-proxy",
}
FRONT_PROXY: Final = "front-proxy-client"
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
        Identity(FRONT_PROXY_CA, FRONT_PROXY, FRONT_PROXY),
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
    """Make what is missing, broken or about to expire, or serves other addresses than it should.

    Raises OSError; ValueError, with words for the user, for a broken authority, which only the
    user can give up: all that it has signed goes with it.
    """
    authorities: dict[str, Authority] = {}
    for identity in wanted:
        if identity.authority not in authorities:
            title = TITLES[identity.authority]
            authorities[identity.authority] = Authority.load_or_make(
                directory, identity.authority, title
            )
        authority = authorities[identity.authority]
        if not _is_good(directory, identity, authority):
            authority.issue(directory, identity)


def make_service_account_key(directory: Path) -> None:
    """The key that signs the tokens of service accounts. Raises OSError, ValueError."""
    path = directory / f"{SERVICE_ACCOUNTS}.key"
    if path.exists():
        _load_key(path)
    else:
        write_file(path, _private(ec.generate_private_key(ec.SECP256R1())), 0o600)


def _is_good(directory: Path, identity: Identity, authority: Authority) -> bool:
    """Whether the identity's files can be used as they are."""
    certificate, key = (Path(path) for path in pem_of(directory, identity.file))
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded.verify_directly_issued_by(authority.certificate)
        served = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        served = None
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        return False
    if identity.names and (served is None or not set(_alternatives(identity.names)) <= set(served)):
        return False
    try:
        private = _load_key(key)
    except (FileNotFoundError, ValueError):
        return False
    left = loaded.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return private.public_key() == loaded.public_key() and left > RENEWED


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Raises OSError, ValueError with words for the user."""
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is damaged: put it back, or delete it to have a new one made")
    return loaded


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
        """Made only where nothing of it is there. Raises OSError, ValueError."""
        certificate, key = (Path(path) for path in pem_of(directory, name))
        if certificate.exists() or key.exists():
            try:
                loaded = cls(
                    x509.load_pem_x509_certificate(certificate.read_bytes()), _load_key(key)
                )
                if loaded.key.public_key() == loaded.certificate.public_key():
                    return loaded
            except (FileNotFoundError, ValueError, UnsupportedAlgorithm):
                pass
            raise ValueError(
                f"the certificate authority in {certificate} and {key.name} is damaged: put both "
                f"files back, or delete {directory} to have all certificates made anew; "
                "kubeconfigs must then be fetched again"
            )
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
