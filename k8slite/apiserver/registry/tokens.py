"""serviceaccounts/token: signed tokens for pods and people."""

from __future__ import annotations

from k8slite.api.codec import TOKEN_REQUEST, decode
from k8slite.api.kinds import PODS, SECRETS
from k8slite.api.meta import Obj, format_time
from k8slite.api.status import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    invalid_kind,
    invalid_value,
    not_found,
)
from k8slite.apiserver.admission.chain import admit_part
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, json_response
from k8slite.apiserver.registry.identity import new_uid
from k8slite.apiserver.registry.ownership import track_answer
from k8slite.apiserver.registry.reads import find

__all__ = ["create_token"]

DEFAULT_SECONDS = 3600
SECONDS_MIN = 600
SECONDS_MAX = 1 << 32
WARN_AFTER_SECONDS = 3607
EXTENDED_SECONDS = 365 * 24 * 3600
_BINDABLE = {("v1", "Pod"): PODS, ("v1", "Secret"): SECRETS}


async def create_token(call: Call) -> Response:
    """POST serviceaccounts/NAME/token"""
    core = call.core
    entry = await find(call)
    if core.signer is None:
        raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
    content_type = call.request.header(b"content-type")
    request = decode(call.request.body, content_type, TOKEN_REQUEST).obj
    await admit_part(call, TOKEN_REQUEST, request)
    spec = request.get("spec") or {}
    seconds = (
        DEFAULT_SECONDS if spec.get("expirationSeconds") is None else spec["expirationSeconds"]
    )
    problems: list[FieldError] = []
    if seconds < SECONDS_MIN:
        detail = "may not specify a duration less than 10 minutes"
        problems.append(invalid_value("spec.expirationSeconds", seconds, detail))
    if seconds > SECONDS_MAX:
        detail = "may not specify a duration larger than 2^32 seconds"
        problems.append(invalid_value("spec.expirationSeconds", seconds, detail))
    if problems:
        raise invalid_kind("TokenRequest", "authentication.k8s.io", "", problems)
    audiences = list(spec.get("audiences") or [core.config.service_account_issuer])
    account = entry.parsed()["metadata"]
    now = int(core.now())
    private: Obj = {
        "namespace": call.namespace,
        "serviceaccount": {"name": account["name"], "uid": account["uid"]},
    }
    reference = spec.get("boundObjectRef")
    if reference:
        _bind(call, reference, private)
    claims: Obj = {
        "aud": audiences,
        "exp": now + seconds,
        "iat": now,
        "iss": core.config.service_account_issuer,
        "jti": new_uid(core.host.rng),
        "kubernetes.io": private,
        "nbf": now,
        "sub": f"system:serviceaccount:{call.namespace}:{account['name']}",
    }
    if seconds == WARN_AFTER_SECONDS and audiences == [core.config.service_account_issuer]:
        private["warnafter"] = claims["exp"]
        claims["exp"] = now + EXTENDED_SECONDS
    answer: Obj = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": account["name"],
            "namespace": call.namespace,
            "uid": account["uid"],
            "creationTimestamp": format_time(now),
        },
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": reference or None,
        },
        "status": {
            "token": core.signer.sign(claims),
            "expirationTimestamp": format_time(now + seconds),
        },
    }
    tracked = {**answer, "metadata": {}, "spec": request.get("spec") or {}}
    del tracked["status"]
    track_answer(call, tracked, "token")
    answer["metadata"].update(tracked["metadata"])
    return json_response(201, answer)


def _bind(call: Call, reference: Obj, private: Obj) -> None:
    """Bind the token to the life of a pod or a secret. Raises ApiError."""
    kind = _BINDABLE.get((reference.get("apiVersion", ""), reference.get("kind", "")))
    if kind is None:
        raise bad_request(
            f"cannot bind token for serviceaccount {call.info.name!r} to this type of object"
        )
    name = reference.get("name", "")
    entry = call.core.mirror.cache(kind).get(call.namespace, name)
    if entry is None:
        raise not_found(kind, name)
    bound = entry.parsed()
    uid = bound["metadata"]["uid"]
    if reference.get("uid") and reference["uid"] != uid:
        message = (
            f"the UID in the bound object reference ({reference['uid']}) "
            f"does not match the UID in record ({uid}). The object might have been deleted "
            "and then recreated"
        )
        raise conflict(kind, name, message)
    if kind is PODS:
        spec = bound.get("spec") or {}
        if (spec.get("serviceAccountName") or "default") != call.info.name:
            raise bad_request(
                f"cannot bind token for serviceaccount {call.info.name!r} to pod running with "
                "different serviceaccount name"
            )
        private["pod"] = {"name": name, "uid": uid}
        if spec.get("nodeName"):
            private["node"] = {"name": spec["nodeName"]}
    else:
        private["secret"] = {"name": name, "uid": uid}
