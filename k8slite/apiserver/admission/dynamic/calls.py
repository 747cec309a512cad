"""One webhook asked about one request: the review sent, the answer read, failures judged."""

from __future__ import annotations

import base64
import binascii
import logging
from typing import Any, NamedTuple

import orjson
import trio

from k8slite.api.cel import CompileError, EvaluationError
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, bad_request, forbidden
from k8slite.api.validation.admission import CONDITION_VARIABLES
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.expressions import Bindings, conditions_hold
from k8slite.apiserver.admission.dynamic.matching import matching_kind
from k8slite.apiserver.backends import BackendError, place_of, refusal_words
from k8slite.apiserver.registry.identity import new_uid

__all__ = ["Verdict", "ask", "kind_to_ask"]

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
_VERSIONS = ("v1", "v1beta1")


class Verdict(NamedTuple):
    """An allowing answer: the patch it wants, if any."""

    patch: list[Any] | None = None
    failed_open: bool = False


class _CallFailed(Exception):
    """The webhook gave no usable answer."""


async def kind_to_ask(attributes: Attributes, hook: Obj) -> Kind | None:
    """In which version to ask a webhook; None: it has no interest. Raises ApiError 403."""
    kind = matching_kind(attributes, hook, hook.get("rules") or ())
    if kind is None:
        return None
    conditions = hook.get("matchConditions") or []
    if conditions:
        try:
            bindings = await Bindings.make(attributes, kind)
            if not conditions_hold(conditions, bindings, CONDITION_VARIABLES):
                return None
        except (CompileError, EvaluationError) as error:
            if hook.get("failurePolicy") == "Ignore":
                log.info("webhook=%s skipped, a match condition failed: %s", hook["name"], error)
                return None
            raise forbidden(attributes.kind, attributes.name, str(error)) from None
    return kind


async def ask(attributes: Attributes, hook: Obj, kind: Kind) -> Verdict:
    """Raises ApiError: what the webhook refuses with, or 500 when it cannot be asked."""
    name = hook["name"]
    request = attributes.request(kind, new_uid(attributes.call.core.host.rng))
    if request["dryRun"] and hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
        raise bad_request(f'admission webhook "{name}" does not support dry run')
    request["object"] = await attributes.shown_as(kind, attributes.new)
    request["oldObject"] = await attributes.shown_as(kind, attributes.old)
    try:
        response = await _exchange(attributes, hook, request)
    except _CallFailed as error:
        if hook.get("failurePolicy") == "Ignore":
            log.warning("webhook=%s failed open: %s", name, error)
            return Verdict(failed_open=True)
        message = f'Internal error occurred: failed calling webhook "{name}": {error}'
        cause = {"message": f'failed calling webhook "{name}": {error}'}
        raise ApiError(500, "InternalError", message, {"causes": [cause]}) from None
    for warning in response.get("warnings") or ():
        if isinstance(warning, str):
            attributes.call.warn(warning)
    for key, value in (response.get("auditAnnotations") or {}).items():
        attributes.call.annotate(f"{name}/{key}", str(value))
    if response.get("allowed") is not True:
        raise _denial(name, response.get("status") or response.get("result") or {})
    return Verdict(response.get("patch"))


def _denial(name: str, status: Obj) -> ApiError:
    """The webhook's own status, as a refusal."""
    message = f'admission webhook "{name}" denied the request'
    if status.get("message"):
        message += f": {status['message']}"
    elif status.get("reason"):
        message += f": {status['reason']}"
    else:
        message += " without explanation"
    code = status.get("code")
    if not isinstance(code, int) or not 400 <= code <= 599:
        code = 400
    reason = status.get("reason")
    return ApiError(code, reason if isinstance(reason, str) else "", message, status.get("details"))


async def _exchange(attributes: Attributes, hook: Obj, request: Obj) -> Obj:
    """The AdmissionResponse. Raises _CallFailed."""
    core = attributes.call.core
    seconds = hook.get("timeoutSeconds") or TIMEOUT_SECONDS
    accepted = hook.get("admissionReviewVersions") or ["v1"]
    version = next((v for v in accepted if v in _VERSIONS), "v1")
    review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}"}
    config = hook.get("clientConfig") or {}
    url = config.get("url") or ""
    try:
        ca = base64.b64decode(config.get("caBundle") or "").decode()
        place = place_of(core.mirror, config, ca, core.host.rng)
        url = place.url
        with trio.fail_after(seconds):
            body = orjson.dumps({**review, "request": request})
            answer = await core.backends.post(place, f"timeout={seconds}s", body)
    except trio.TooSlowError:
        raise _CallFailed(_post(url, seconds, "context deadline exceeded")) from None
    except (BackendError, binascii.Error, UnicodeDecodeError) as error:
        raise _CallFailed(_post(url, seconds, str(error))) from None
    if answer.status != 200:
        raise _CallFailed(f"failed to call webhook: {refusal_words(answer)}")
    return _read(answer.body, review, request["uid"])


def _post(url: str, seconds: int, reason: str) -> str:
    if not url:
        return f"failed to call webhook: {reason}"
    return f'failed to call webhook: Post "{url}?timeout={seconds}s": {reason}'


def _read(body: bytes, review: Obj, uid: str) -> Obj:
    """Check the answer's frame, and take the patch out of it. Raises _CallFailed."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _CallFailed(f"couldn't decode the webhook's answer: {error}") from None
    if not isinstance(answer, dict):
        raise _CallFailed("the webhook's answer is no object")
    for key, wanted in review.items():
        if answer.get(key) != wanted:
            raise _CallFailed(
                f"expected webhook response of {review['apiVersion']}, Kind={review['kind']}, "
                f"got {answer.get('apiVersion')}, Kind={answer.get('kind')}"
            )
    response = answer.get("response")
    if not isinstance(response, dict):
        raise _CallFailed("webhook response was absent")
    if response.get("uid") != uid:
        raise _CallFailed(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    if response.get("patch"):
        if response.get("patchType") != "JSONPatch":
            raise _CallFailed("webhook response.patch without response.patchType=JSONPatch")
        try:
            patch = orjson.loads(base64.b64decode(response["patch"], validate=True))
        except (binascii.Error, ValueError, TypeError) as error:
            raise _CallFailed(f"response.patch is no JSON patch: {error}") from None
        if not isinstance(patch, list):
            raise _CallFailed("response.patch is no JSON patch")
        response = {**response, "patch": patch}
    else:
        response = {**response, "patch": None}
    return response
