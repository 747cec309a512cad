"""ValidatingAdmissionPolicy: validations, audit annotations, what follows from a failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from k8slite.api.cel import CompileError, EvaluationError
from k8slite.api.cel.program import STRING
from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, forbidden
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.evaluation import Evaluation, Invocation, invocations

__all__ = ["validating_policies"]

log = logging.getLogger(__name__)

POLICIES = KIND["validatingadmissionpolicies.admissionregistration.k8s.io"]
BINDINGS = KIND["validatingadmissionpolicybindings.admissionregistration.k8s.io"]
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class _Failure(NamedTuple):
    message: str
    reason: str = "Invalid"


async def validating_policies(attributes: Attributes) -> None:
    """Raises ApiError for the first denial; warnings go into the answer."""
    if not attributes.call.core.mirror.cache(BINDINGS).entries:
        return
    for invocation in await invocations(attributes, POLICIES, BINDINGS):
        for failure in await _failures(attributes, invocation):
            _act(attributes, invocation, failure)


def _act(attributes: Attributes, invocation: Invocation, failure: _Failure) -> None:
    policy, binding = invocation.policy, invocation.binding
    actions = (binding.parsed().get("spec") or {}).get("validationActions") or ()
    where = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
    if "Audit" in actions:
        log.info("policy=%s binding=%s failed: %s", policy.name, binding.name, failure.message)
    if "Warn" in actions:
        attributes.call.warn(f"Validation failed for {where}: {failure.message}")
    if "Deny" not in actions:
        return
    message = f"{where} denied request: {failure.message}"
    refusal = forbidden(attributes.kind, attributes.name, message)
    details = {**(refusal.details or {}), "causes": [{"message": message}]}
    code = _CODES.get(failure.reason, 422)
    raise ApiError(code, failure.reason, refusal.message, details)


async def _failures(attributes: Attributes, invocation: Invocation) -> list[_Failure]:
    """What the policy holds against the request, through this binding."""
    ignores, spec = invocation.ignores, invocation.spec
    found: list[_Failure] = []
    if invocation.error and not ignores:
        found.append(_Failure(invocation.error))
    for parameter in invocation.parameters:
        evaluation = await Evaluation.make(attributes, invocation.kind, spec, parameter)
        try:
            if not evaluation.applies():
                continue
        except EvaluationError as error:
            if not ignores:
                found.append(_Failure(str(error)))
            continue
        found += _that_fail(evaluation, spec, ignores=ignores)
    return found


def _that_fail(evaluation: Evaluation, spec: Obj, *, ignores: bool) -> Iterator[_Failure]:
    """What does not hold; an expression without a value counts unless errors are ignored."""
    for validation in spec.get("validations") or ():
        source = validation["expression"].strip()
        try:
            good = evaluation.holds(source)
        except (CompileError, EvaluationError) as error:
            if not ignores:
                yield _Failure(f"expression '{source}' resulted in error: {error}")
            continue
        if not good:
            reason = validation.get("reason") or "Invalid"
            yield _Failure(_message(evaluation, validation), reason)


def _message(evaluation: Evaluation, validation: Obj) -> str:
    if validation.get("messageExpression"):
        try:
            text = evaluation.value(validation["messageExpression"], STRING)
        except (CompileError, EvaluationError) as error:
            log.info("messageExpression failed: %s", error)
        else:
            if isinstance(text, str) and text.strip() and "\n" not in text.strip():
                return text.strip()
    told: str = (validation.get("message") or "").strip()
    return told or f"failed expression: {validation['expression'].strip()}"
