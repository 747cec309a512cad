"""Reviews: questions about who one is and what one may do; answered and forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k8slite.api.codec import decode
from k8slite.api.meta import Obj, format_time
from k8slite.api.status import bad_request
from k8slite.apiserver.auth.rbac import Attributes, Rule
from k8slite.apiserver.call import Call, User
from k8slite.apiserver.http.message import Response, json_response
from k8slite.apiserver.registry.ownership import track_answer
from k8slite.apiserver.registry.writes import validation_level

__all__ = ["REVIEWS"]


def _read(call: Call) -> Obj:
    content_type = call.request.header(b"content-type")
    decoded = decode(call.request.body, content_type, call.kind, validation_level(call))
    for warning in decoded.warnings:
        call.warn(warning)
    obj = decoded.obj
    obj["metadata"].setdefault("creationTimestamp", None)
    if obj["metadata"]["creationTimestamp"] is None:
        del obj["metadata"]["creationTimestamp"]
    track_answer(call, obj)
    return obj


def _user_info(user: User) -> Obj:
    info: Obj = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


async def who_am_i(call: Call) -> Response:
    """SelfSubjectReview"""
    review = _read(call)
    review["metadata"] = {"creationTimestamp": format_time(call.core.now())}
    review["status"] = {"userInfo": _user_info(call.user)}
    return json_response(201, review)


async def token_review(call: Call) -> Response:
    """TokenReview"""
    review = _read(call)
    spec = review.get("spec") or {}
    token, audiences = spec.get("token", ""), tuple(spec.get("audiences") or ())
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    user = await call.core.authenticator.of_token(token, call.core.now(), audiences)
    if user is None:
        review["status"] = {"user": {}, "error": "invalid bearer token"}
    else:
        review["status"] = {
            "authenticated": True,
            "user": _user_info(user),
            "audiences": list(audiences) or [call.core.config.service_account_issuer],
        }
    return json_response(201, review)


def _asked(spec: Obj) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if path:
        return Attributes(path.get("verb", ""), path=path.get("path", ""))
    resource = spec.get("resourceAttributes") or {}
    return Attributes(
        resource.get("verb", ""),
        resource.get("group", ""),
        resource.get("resource", ""),
        resource.get("subresource", ""),
        resource.get("namespace", ""),
        resource.get("name", ""),
    )


async def _decide(call: Call, review: Obj, user: User) -> Response:
    spec = review.get("spec") or {}
    if not spec.get("resourceAttributes") and not spec.get("nonResourceAttributes"):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be set")
    decision = await call.core.authorizer.decide(user, _asked(spec))
    status: Obj = {"allowed": decision.allowed}
    if decision.denied:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    review["status"] = status
    return json_response(201, review)


async def self_access(call: Call) -> Response:
    """SelfSubjectAccessReview"""
    await call.core.mirror.wait_fresh()
    return await _decide(call, _read(call), call.user)


async def access(call: Call) -> Response:
    """SubjectAccessReview and LocalSubjectAccessReview"""
    await call.core.mirror.wait_fresh()
    review = _read(call)
    spec = review.get("spec") or {}
    if call.namespace:
        asked = (spec.get("resourceAttributes") or {}).get("namespace", "")
        if asked != call.namespace:
            raise bad_request(
                f"spec.resourceAttributes.namespace must match namespace: {call.namespace}"
            )
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    user = User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)
    return await _decide(call, review, user)


async def self_rules(call: Call) -> Response:
    """SelfSubjectRulesReview"""
    await call.core.mirror.wait_fresh()
    review = _read(call)
    namespace = (review.get("spec") or {}).get("namespace", "")
    if not namespace:
        raise bad_request("no namespace on request")
    rules = call.core.authorizer.rbac.rules(call.user, namespace)
    if "system:masters" in call.user.groups:
        rules = [
            Rule({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            Rule({"verbs": ["*"], "nonResourceURLs": ["*"]}),
            *rules,
        ]
    review["status"] = {
        "resourceRules": [_resource_rule(r.raw) for r in rules if r.resources],
        "nonResourceRules": [
            {"verbs": r.raw.get("verbs") or [], "nonResourceURLs": list(r.urls)}
            for r in rules
            if r.urls
        ],
        "incomplete": False,
    }
    return json_response(201, review)


def _resource_rule(raw: Obj) -> Obj:
    keys = ("verbs", "apiGroups", "resources", "resourceNames")
    return {key: raw[key] for key in keys if raw.get(key) is not None}


REVIEWS: dict[str, Callable[[Call], Awaitable[Response]]] = {
    "selfsubjectreviews.authentication.k8s.io": who_am_i,
    "tokenreviews.authentication.k8s.io": token_review,
    "selfsubjectaccessreviews.authorization.k8s.io": self_access,
    "subjectaccessreviews.authorization.k8s.io": access,
    "localsubjectaccessreviews.authorization.k8s.io": access,
    "selfsubjectrulesreviews.authorization.k8s.io": self_rules,
}
