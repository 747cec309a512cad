"""ValidatingAdmissionPolicy: validations, audit annotations, what follows from a failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from k8slite.api.cel import CompileError, EvaluationError
from k8slite.api.cel.program import STRING, STRING_OR_NULL
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


FAILURE_NOTE = "validation.policy.admission.k8s.io/validation_failure"
NOTE_BYTES_MAX = 10 * 1024


class _Failure(NamedTuple):
    message: str
    reason: str = "Invalid"
    expression: int = 0
    """Which of the policy's."""


async def validating_policies(attributes: Attributes) -> None:
    """Raises ApiError with the words of the first denial; warnings go into the answer."""
    if not attributes.call.core.mirror.cache(BINDINGS).entries:
        return
    denials: list[_Failure] = []
    for invocation in await invocations(attributes, POLICIES, BINDINGS):
        for failure in await _failures(attributes, invocation):
            denials += _act(attributes, invocation, failure)
    if denials:
        first = denials[0]
        refusal = forbidden(attributes.kind, attributes.name, first.message)
        causes = [{"message": denial.message} for denial in denials]
        details = {**(refusal.details or {}), "causes": causes}
        code = _CODES.get(first.reason, 422)
        raise ApiError(code, first.reason, refusal.message, details)


def _act(attributes: Attributes, invocation: Invocation, failure: _Failure) -> list[_Failure]:
    """Do what the binding says about a failure; the denial, if it is one."""
    policy, binding = invocation.policy, invocation.binding
    actions = (binding.parsed().get("spec") or {}).get("validationActions") or ()
    where = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
    if "Audit" in actions:
        note: Obj = {
            "message": failure.message,
            "policy": policy.name,
            "binding": binding.name,
            "expressionIndex": failure.expression,
            "validationActions": list(actions),
        }
        call = attributes.call
        notes = [*orjson.loads(call.annotations.get(FAILURE_NOTE, "[]")), note]
        call.annotate(FAILURE_NOTE, orjson.dumps(notes).decode())
    if "Warn" in actions:
        attributes.call.warn(f"Validation failed for {where}: {failure.message}")
    if "Deny" not in actions:
        return []
    return [failure._replace(message=f"{where} denied request: {failure.message}")]


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
        for audit in spec.get("auditAnnotations") or ():
            try:
                _note(attributes, invocation.policy.name, audit, evaluation)
            except (CompileError, EvaluationError) as error:
                if not ignores:
                    source = audit["valueExpression"].strip()
                    found.append(_Failure(f"expression '{source}' resulted in error: {error}"))
    return found


def _note(attributes: Attributes, policy: str, audit: Obj, evaluation: Evaluation) -> None:
    """Tell auditors what an expression says; several say it one after the other."""
    value = evaluation.value(audit["valueExpression"], STRING_OR_NULL)
    if not isinstance(value, str) or not value.strip():
        return
    key, text = f"{policy}/{audit['key']}", value.strip()[:NOTE_BYTES_MAX]
    known = attributes.call.annotations.get(key, "")
    if text not in known.split(", "):
        attributes.call.annotate(key, f"{known}, {text}" if known else text)


def _that_fail(evaluation: Evaluation, spec: Obj, *, ignores: bool) -> Iterator[_Failure]:
    """What does not hold; an expression without a value counts unless errors are ignored."""
    for index, validation in enumerate(spec.get("validations") or ()):
        source = validation["expression"].strip()
        try:
            good = evaluation.holds(source)
        except (CompileError, EvaluationError) as error:
            if not ignores:
                text = f"expression '{source}' resulted in error: {error}"
                yield _Failure(text, expression=index)
            continue
        if not good:
            reason = validation.get("reason") or "Invalid"
            yield _Failure(_message(evaluation, validation), reason, index)


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
