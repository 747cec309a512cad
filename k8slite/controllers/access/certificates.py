"""CertificateSigningRequests: approving kubelets', signing what is approved, cleaning up.

Owns the rules of Kubernetes' own signers: what a request must say for each. A request that breaks
them is marked Failed and never signed.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Awaitable, Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k8slite.api.kinds import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS
from k8slite.api.meta import Obj, format_time, get_condition, parse_time
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update, delete
from k8slite.controllers.context import Context, Signing, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = [
    "expires_in",
    "problem_of",
    "run_approving_controller",
    "run_cleaning_controller",
    "run_signing_controller",
    "sign",
]

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
YEAR_SECONDS = 365 * 86400
SHORTEST_SECONDS = 600
BACKDATED_SECONDS = 300
"""Clocks differ: a certificate is valid a little before it is made."""
HOUR = 3600.0
DAY = 86400.0
_Reconcile = Callable[[Obj], Awaitable[float | None]]
KEY_USAGES = frozenset(("digital signature", "key encipherment"))


def problem_of(request: Obj) -> str:
    """Why the request's signer must not sign it; "" if it may (pure)."""
    spec = request["spec"]
    csr = parsed(request)
    if csr is None or not csr.is_signature_valid:
        return "unable to parse csr"
    rules = RULES.get(spec["signerName"])
    return "" if rules is None else rules(csr, frozenset(spec.get("usages") or ()))


def parsed(request: Obj) -> x509.CertificateSigningRequest | None:
    try:
        return x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
    except (ValueError, UnsupportedAlgorithm):
        return None


def _names(csr: x509.CertificateSigningRequest) -> tuple[str, list[str]]:
    """(common name, organisations)"""

    def texts(oid: x509.ObjectIdentifier) -> list[str]:
        return [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(oid)]

    return "".join(texts(NameOID.COMMON_NAME)), texts(NameOID.ORGANIZATION_NAME)


def _alternatives(csr: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _node_problem(csr: x509.CertificateSigningRequest) -> str:
    common_name, organisations = _names(csr)
    if organisations != [NODES]:
        return "organization does not match: subject organization is not system:nodes"
    if not common_name.startswith(NODE_PREFIX):
        return "subject common name does not begin with system:node:"
    return ""


def _client(csr: x509.CertificateSigningRequest, usages: frozenset[str]) -> str:
    allowed = KEY_USAGES | {"client auth"}
    if "client auth" not in usages or not usages <= allowed:
        return f"invalid usage for client certificate: {', '.join(sorted(usages))}"
    return ""


def _kubelet_client(csr: x509.CertificateSigningRequest, usages: frozenset[str]) -> str:
    if _alternatives(csr) is not None:
        return "subject alternative names are not allowed"
    return _node_problem(csr) or _client(csr, usages)


def _kubelet_serving(csr: x509.CertificateSigningRequest, usages: frozenset[str]) -> str:
    problem = _node_problem(csr)
    alternatives = _alternatives(csr)
    if problem:
        return problem
    if alternatives is None or not any(
        isinstance(each, x509.DNSName | x509.IPAddress) for each in alternatives
    ):
        return "at least one DNS or IP subject alternative name is required"
    if any(not isinstance(each, x509.DNSName | x509.IPAddress) for each in alternatives):
        return "only DNS and IP subject alternative names are allowed"
    if "server auth" not in usages or not usages <= KEY_USAGES | {"server auth"}:
        return f"invalid usage for kubelet serving certificate: {', '.join(sorted(usages))}"
    return ""


def _anything(csr: x509.CertificateSigningRequest, usages: frozenset[str]) -> str:
    return ""


RULES: dict[str, Callable[[x509.CertificateSigningRequest, frozenset[str]], str]] = {
    CLIENT: _client,
    KUBELET_CLIENT: _kubelet_client,
    KUBELET_SERVING: _kubelet_serving,
    LEGACY: _anything,
}
_EXTENDED = {
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
}


def sign(request: Obj, signing: Signing, now: float, serial: int) -> bytes:
    """The certificate (PEM) of a request without problems (pure, given the serial number)."""
    csr = parsed(request)
    assert csr is not None
    authority = x509.load_pem_x509_certificate(signing.certificate)
    key = serialization.load_pem_private_key(signing.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    asked = request["spec"].get("expirationSeconds") or YEAR_SECONDS
    end = now + min(max(asked, SHORTEST_SECONDS), YEAR_SECONDS)
    start = datetime.datetime.fromtimestamp(int(now - BACKDATED_SECONDS), datetime.UTC)
    last = min(
        datetime.datetime.fromtimestamp(int(end), datetime.UTC), authority.not_valid_after_utc
    )
    usages = frozenset(request["spec"].get("usages") or ())
    extended = [_EXTENDED[usage] for usage in sorted(usages) if usage in _EXTENDED]
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(authority.subject)
        .public_key(csr.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if usages & KEY_USAGES:  # OpenSSL takes one that allows nothing for broken
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature="digital signature" in usages,
                key_encipherment="key encipherment" in usages,
                content_commitment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    alternatives = _alternatives(csr)
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def plan_signing(request: Obj, signing: Signing, now: float, serial: int) -> list[Action]:
    """Sign what is approved and ours (pure, given the serial number)."""
    status = request.get("status") or {}
    if request["spec"]["signerName"] not in RULES or status.get("certificate"):
        return []
    if not _is(request, "Approved") or _is(request, "Failed") or _is(request, "Denied"):
        return []
    problem = problem_of(request)
    if problem:
        failed = _condition("Failed", "SignerValidationFailure", problem, now)
        status = {**status, "conditions": [*(status.get("conditions") or ()), failed]}
    else:
        certificate = base64.b64encode(sign(request, signing, now, serial)).decode()
        status = {**status, "certificate": certificate}
    return [Update(CERTIFICATE_SIGNING_REQUESTS, {**request, "status": status}, "status")]


def _condition(kind: str, reason: str, message: str, now: float) -> Obj:
    time = format_time(now)
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastUpdateTime": time,
        "lastTransitionTime": time,
    }


def _is(request: Obj, kind: str) -> bool:
    condition = get_condition(request, kind)
    return condition is not None and condition.get("status", "True") == "True"


def approvals(request: Obj) -> list[tuple[str, str]]:
    """What its author must be allowed for the request to be approved by itself, as (subresource,
    message); none if nothing would do (pure)."""
    if request["spec"]["signerName"] != KUBELET_CLIENT or problem_of(request):
        return []
    if _is(request, "Approved") or _is(request, "Denied"):
        return []
    csr = parsed(request)
    assert csr is not None
    found = []
    if request["spec"].get("username") == _names(csr)[0]:
        text = "Auto approving self kubelet client certificate after SubjectAccessReview."
        found.append(("selfnodeclient", text))
    text = "Auto approving kubelet client certificate after SubjectAccessReview."
    return [*found, ("nodeclient", text)]


def expires_in(request: Obj, now: float) -> float:
    """Seconds until the request is to be deleted, 0 if it is time (pure)."""
    status = request.get("status") or {}
    ends: list[float] = []
    for condition in status.get("conditions") or ():
        since = parse_time(
            condition.get("lastUpdateTime") or request["metadata"]["creationTimestamp"]
        )
        if condition["type"] in ("Approved", "Denied", "Failed"):
            ends.append(since + HOUR)
    if not ends:
        ends.append(parse_time(request["metadata"]["creationTimestamp"]) + DAY)
    return max(0.0, max(ends) - now)


async def run_approving_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("certificate-approver")

    async def reconcile(request: Obj) -> float | None:
        for subresource, message in approvals(request):
            if not await _allowed(context, request, subresource):
                continue
            approved = _condition("Approved", "AutoApproved", message, context.host.now())
            status = dict(request.get("status") or {})
            status["conditions"] = [*(status.get("conditions") or ()), approved]
            new = {**request, "status": status}
            update = Update(CERTIFICATE_SIGNING_REQUESTS, new, "approval")
            await carry_out(context.api, recorder, [update])
            break
        return None

    await _run(context, "csrapproving", reconcile)


async def _allowed(context: Context, request: Obj, subresource: str) -> bool:
    spec = request["spec"]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {
            "user": spec.get("username", ""),
            "uid": spec.get("uid", ""),
            "groups": spec.get("groups") or [],
            "extra": spec.get("extra") or {},
            "resourceAttributes": {
                "group": "certificates.k8s.io",
                "resource": "certificatesigningrequests",
                "verb": "create",
                "subresource": subresource,
                "version": "*",
            },
        },
    }
    answer = await context.api.create(SUBJECT_ACCESS_REVIEWS, review)
    return bool(answer["status"].get("allowed"))


async def run_signing_controller(context: Context) -> None:
    """Run until cancelled; does nothing where the manager has no authority's key."""
    signing = context.signing
    if signing is None:
        return
    recorder = context.recorder("certificate-signer")

    async def reconcile(request: Obj) -> float | None:
        serial = context.host.rng.getrandbits(159) | 1
        actions = plan_signing(request, signing, context.host.now(), serial)
        await carry_out(context.api, recorder, actions)
        return None

    await _run(context, "csrsigning", reconcile)


async def run_cleaning_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("csrcleaner")

    async def reconcile(request: Obj) -> float | None:
        left = expires_in(request, context.host.now())
        if left:
            return left
        await carry_out(context.api, recorder, [delete(CERTIFICATE_SIGNING_REQUESTS, request)])
        return None

    await _run(context, "csrcleaner", reconcile)


async def _run(context: Context, own: str, reconcile: _Reconcile) -> None:
    queue: WorkQueue[str] = WorkQueue()
    requests = context.informer(CERTIFICATE_SIGNING_REQUESTS)

    async def one(where: str) -> float | None:
        request = requests.get(where)
        return None if request is None else await reconcile(request)

    requests.add_handler(enqueue_to(queue))
    await requests.wait_synced()
    await context.run_workers(own, queue, one)
