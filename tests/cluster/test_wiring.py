"""What needs the cluster's own files: volumes made to order, certificates that it signs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.real import Cluster, cluster, eventually

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "volume.yaml"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
PODS = "/api/v1/namespaces/default/pods"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("home"), "wiring") as made:
        flags = ("--control-planes", "1", "--nodes", "1", "--runtime", "process", "--fast")
        made.must("up", "--detach", *flags)
        yield made


def test_a_claim_of_the_default_class_is_a_directory(whole: Cluster) -> None:
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    assert eventually(lambda: whole.get(classes)["items"])
    claim, pod = yaml.safe_load_all(EXAMPLE.read_text())
    whole.get(CLAIMS, claim)
    whole.get(PODS, pod)
    assert eventually(lambda: [*whole.layout.volumes.glob("pvc-*/count")])
    (file,) = whole.layout.volumes.glob("pvc-*/count")
    assert eventually(file.read_text) == "1\n"
    bound = whole.get(f"{CLAIMS}/count")
    assert bound["status"]["phase"] == "Bound"
    assert bound["spec"]["storageClassName"] == "standard"
    assert bound["spec"]["volumeName"] == file.parent.name


def test_an_approved_request_is_signed_by_the_authority(whole: Cluster) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    wanted: dict[str, Any] = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "jane"},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    made = whole.get(REQUESTS, wanted)
    approved = {"type": "Approved", "status": "True", "reason": "Test"}
    whole.get(
        f"{REQUESTS}/jane/approval", {**made, "status": {"conditions": [approved]}}, method="PUT"
    )

    def certificate() -> str:
        status = whole.get(f"{REQUESTS}/jane").get("status") or {}
        return str(status.get("certificate", ""))

    issued = eventually(certificate)
    loaded = x509.load_pem_x509_certificate(base64.b64decode(issued))
    assert loaded.subject == subject
    authority = x509.load_pem_x509_certificate((whole.layout.pki / "ca.crt").read_bytes())
    loaded.verify_directly_issued_by(authority)
