"""Certificates: what they say, who believes them, and what becomes of broken ones."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from k8slite.cluster.kubeconfig import kubeconfig
from k8slite.cluster.pki import (
    CLUSTER_CA,
    STORE_CA,
    Identity,
    admin,
    identities,
    make_pki,
    make_service_account_key,
    pem_of,
)
from k8slite.cluster.spec import ClusterSpec
from raftkv.host import Address

WANTED = identities(ClusterSpec(nodes=2), ["127.0.0.1", "10.96.0.1"], ["10.89.0.11", "10.89.0.12"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    make_pki(directory, WANTED)
    return directory


def certificate(directory: Path, file: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(pem_of(directory, file)[0]).read_bytes())


def policy(directory: Path, authority: str) -> PolicyBuilder:
    return PolicyBuilder().store(Store([certificate(directory, authority)]))


@pytest.mark.parametrize("identity", WANTED, ids=lambda identity: identity.file)
def test_each_identity_is_believed_by_who_knows_its_authority(
    made: Path, identity: Identity
) -> None:
    leaf = certificate(made, identity.file)
    assert [a.value for a in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        identity.user
    ]
    organisations = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert tuple(a.value for a in organisations) == identity.groups
    other = STORE_CA if identity.authority == CLUSTER_CA else CLUSTER_CA
    if identity.names:
        for name in identity.names:
            policy(made, identity.authority).build_server_verifier(subject(name)).verify(leaf, [])
        with pytest.raises(VerificationError):
            policy(made, identity.authority).build_server_verifier(
                x509.DNSName("example.com")
            ).verify(leaf, [])
        first = subject(identity.names[0])
        with pytest.raises(VerificationError):
            policy(made, other).build_server_verifier(first).verify(leaf, [])
    else:
        leaf.verify_directly_issued_by(certificate(made, identity.authority))


def subject(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def test_keys_are_for_their_owner_only(made: Path) -> None:
    for key in made.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def contents(directory: Path, files: Sequence[str]) -> list[bytes]:
    return [Path(path).read_bytes() for file in files for path in pem_of(directory, file)]


def copy(made: Path, to: Path) -> Path:
    for path in made.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_what_is_good_is_kept(made: Path, tmp_path: Path) -> None:
    directory = copy(made, tmp_path)
    make_pki(directory, WANTED)
    files = [identity.file for identity in WANTED]
    assert contents(directory, files) == contents(made, files)


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "another's", "key gone"])
def test_a_broken_certificate_is_made_anew_and_others_are_kept(
    made: Path, tmp_path: Path, damage: str
) -> None:
    directory = copy(made, tmp_path)
    path, key = (Path(p) for p in pem_of(directory, "apiserver"))
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"\xff" + path.read_bytes()[:100])
        case "another's":
            path.write_bytes(Path(pem_of(directory, "raftkv-1")[0]).read_bytes())
        case "key gone":
            key.unlink()
    make_pki(directory, WANTED)
    leaf = certificate(directory, "apiserver")
    policy(directory, CLUSTER_CA).build_server_verifier(x509.DNSName("localhost")).verify(leaf, [])
    others = [identity.file for identity in WANTED if identity.file != "apiserver"]
    assert contents(directory, others) == contents(made, others)


def test_one_that_serves_another_address_is_made_anew(made: Path, tmp_path: Path) -> None:
    directory = copy(made, tmp_path)
    moved = identities(ClusterSpec(nodes=2), ["127.0.0.1"], ["10.89.1.11", "10.89.1.12"])
    make_pki(directory, moved)
    names = certificate(directory, "node-1").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert ipaddress.ip_address("10.89.1.11") in names.value.get_values_for_type(x509.IPAddress)


@pytest.mark.parametrize("file", ["ca.crt", "ca.key", "store-ca.crt", "store-ca.key"])
@pytest.mark.parametrize("text", [None, "garbage"])
def test_a_broken_authority_is_told_and_nothing_is_touched(
    made: Path, tmp_path: Path, file: str, text: str | None
) -> None:
    directory = copy(made, tmp_path)
    (directory / file).unlink()
    if text is not None:
        (directory / file).write_text(text)
    with pytest.raises(ValueError, match="put both files back"):
        make_pki(directory, WANTED)
    assert contents(directory, ["admin"]) == contents(made, ["admin"])


def test_the_key_of_service_accounts_is_kept_and_a_broken_one_told(tmp_path: Path) -> None:
    make_service_account_key(tmp_path)
    path = tmp_path / "service-accounts.key"
    before = path.read_bytes()
    make_service_account_key(tmp_path)
    assert path.read_bytes() == before
    path.write_text("garbage")
    with pytest.raises(ValueError, match="delete it"):
        make_service_account_key(tmp_path)


def test_a_kubeconfig_needs_no_other_file(made: Path) -> None:
    config = yaml.safe_load(kubeconfig("lab", Address("127.0.0.1", 6443), made))
    assert config["current-context"] == "k8slite-lab"
    (cluster,), (user,) = config["clusters"], config["users"]
    assert cluster["cluster"]["server"] == "https://127.0.0.1:6443"
    ca = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    leaf = base64.b64decode(user["user"]["client-certificate-data"])
    x509.load_pem_x509_certificate(leaf).verify_directly_issued_by(
        x509.load_pem_x509_certificate(ca)
    )
    assert b"PRIVATE KEY" in base64.b64decode(user["user"]["client-key-data"])


def test_certificates_last(made: Path) -> None:
    left = certificate(made, admin.file).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left > datetime.timedelta(days=365 * 9)
