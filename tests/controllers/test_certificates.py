"""Requests for certificates: what each signer demands, what comes out, and when it goes."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k8slite.api.kinds import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS, Kind
from k8slite.api.meta import Obj, get_condition
from k8slite.controllers.access.certificates import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    LEGACY,
    approvals,
    expires_in,
    plan_signing,
    problem_of,
    sign,
)
from k8slite.controllers.context import Signing
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of
from tests.controllers.storms import STORMS, Scenario, run_scenario

NOW = 1_700_000_000.0
DNS = x509.SubjectAlternativeName([x509.DNSName("node-1")])
ADDRESS = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])
MAIL = x509.SubjectAlternativeName([x509.DNSName("n"), x509.RFC822Name("a@b.c")])
NODE_USAGES = ["digital signature", "key encipherment", "client auth"]


def name_of(common_name: str, *organisations: str) -> x509.Name:
    own = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organisations]
    return x509.Name([*own, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def request(
    signer: str = CLIENT,
    subject: x509.Name | None = None,
    alternatives: x509.SubjectAlternativeName | None = None,
    usages: list[str] | None = None,
    *conditions: str,
    **spec: Any,
) -> Obj:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or name_of("jane"))
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    status = {
        "conditions": [
            {"type": kind, "status": "True", "lastUpdateTime": "2023-11-14T22:13:20Z"}
            for kind in conditions
        ]
    }
    metadata = {k: v for k, v in meta_of("csr").items() if k != "namespace"}
    return {
        "metadata": metadata,
        "spec": {
            "signerName": signer,
            "request": base64.b64encode(pem).decode(),
            "usages": usages or ["client auth"],
            **spec,
        },
        "status": status,
    }


def authority() -> Signing:
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.fromtimestamp(NOW - 1000, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name_of("ca"))
        .issuer_name(name_of("ca"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return Signing(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


AUTHORITY = authority()
NODE = name_of("system:node:node-1", "system:nodes")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (request(), ""),
        (request(usages=["server auth"]), "invalid usage"),
        (request(LEGACY, usages=["server auth"]), ""),
        (request(KUBELET_CLIENT, NODE, usages=NODE_USAGES), ""),
        (request(KUBELET_CLIENT, NODE, DNS, NODE_USAGES), "not allowed"),
        (request(KUBELET_CLIENT, name_of("system:node:a"), usages=NODE_USAGES), "organization"),
        (request(KUBELET_CLIENT, name_of("a", "system:nodes")), "does not begin with"),
        (request(KUBELET_SERVING, NODE, ADDRESS, ["server auth"]), ""),
        (request(KUBELET_SERVING, NODE, None, ["server auth"]), "at least one DNS or IP"),
        (request(KUBELET_SERVING, NODE, MAIL, ["server auth"]), "only DNS and IP"),
        (request(KUBELET_SERVING, NODE, DNS, ["client auth"]), "invalid usage"),
    ],
)
def test_what_signers_demand(asked: Obj, problem: str) -> None:
    found = problem_of(asked)
    assert problem in found if problem else not found


def test_a_certificate() -> None:
    asked = request(KUBELET_SERVING, NODE, DNS, ["digital signature", "server auth"])
    asked["spec"]["expirationSeconds"] = 3600
    made = x509.load_pem_x509_certificate(sign(asked, AUTHORITY, NOW, 7))
    issuer = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    made.verify_directly_issued_by(issuer)
    assert made.subject == NODE
    assert made.not_valid_after_utc.timestamp() == NOW + 3600
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == DNS
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


def test_a_certificate_for_clients_alone_has_no_empty_key_usage() -> None:
    asked = request(CLIENT, usages=["client auth"])
    made = x509.load_pem_x509_certificate(sign(asked, AUTHORITY, NOW, 7))
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.KeyUsage)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(), ""),
        (request(CLIENT, None, None, None, "Approved"), "certificate"),
        (request("example.com/own", None, None, None, "Approved"), ""),
        (request(CLIENT, None, None, None, "Approved", "Denied"), ""),
        (request(CLIENT, None, None, ["server auth"], "Approved"), "Failed"),
    ],
)
def test_only_what_is_approved_is_signed(asked: Obj, expected: str) -> None:
    actions = plan_signing(asked, AUTHORITY, NOW, 7)
    assert bool(actions) == bool(expected)
    for action in actions:
        status = action.obj["status"]  # type: ignore[union-attr]  # an Update
        assert expected in status or get_condition({"status": status}, expected)


def test_who_is_approved() -> None:
    own = request(KUBELET_CLIENT, NODE, None, NODE_USAGES, username="system:node:node-1")
    assert [sub for sub, _ in approvals(own)] == ["selfnodeclient", "nodeclient"]
    assert approvals(request()) == []
    assert [s for s, _ in approvals(request(KUBELET_CLIENT, NODE, None, NODE_USAGES))] == [
        "nodeclient"
    ]


def test_old_requests_go() -> None:
    assert expires_in(request(), NOW + 3600) == 86400 - 3600
    assert expires_in(request(CLIENT, None, None, None, "Denied"), NOW + 3600) == 0.0


async def test_a_kubelet_gets_its_certificate_in_any_weather(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = FakeApi.create

    async def answering(self: FakeApi, kind: Kind, obj: Obj, **more: Any) -> Obj:
        if kind is SUBJECT_ACCESS_REVIEWS:
            asked = obj["spec"]["resourceAttributes"]["subresource"]
            return {**obj, "status": {"allowed": asked == "selfnodeclient"}}
        return await create(self, kind, obj, **more)

    monkeypatch.setattr(FakeApi, "create", answering)

    def arrange(api: FakeApi) -> None:
        own = request(KUBELET_CLIENT, NODE, None, NODE_USAGES, username="system:node:node-1")
        api.add(CERTIFICATE_SIGNING_REQUESTS, own)

    def outcome(api: FakeApi) -> Any:
        status = api.read(CERTIFICATE_SIGNING_REQUESTS, "csr")["status"]
        return [c["reason"] for c in status["conditions"]], "certificate" in status

    scenario = Scenario(
        name="certificates",
        controllers=(
            "certificatesigningrequest-approving-controller",
            "certificatesigningrequest-signing-controller",
            "certificatesigningrequest-cleaner-controller",
        ),
        arrange=arrange,
        outcome=outcome,
        config={"signing": AUTHORITY},
    )
    calm = await run_scenario(scenario)
    assert calm.outcome == (["AutoApproved"], True)
    for storm in STORMS.values():
        assert (await run_scenario(scenario, storm)).outcome == calm.outcome
    for number in range(1, calm.writes + 1):
        assert (await run_scenario(scenario, crash_after=number)).outcome == calm.outcome
