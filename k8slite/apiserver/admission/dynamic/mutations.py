"""MutatingAdmissionPolicy: patches that expressions make, applied one after the other."""

from __future__ import annotations

import re

from k8slite.api.apply import merge_configuration
from k8slite.api.cel import CompileError, EvaluationError
from k8slite.api.cel.patches import APPLY_CONFIGURATION, JSON_PATCH, TYPE, mismatches, plain
from k8slite.api.codec import WARN, from_parsed
from k8slite.api.custom import prune
from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.patch import TestFailed, json_patch
from k8slite.api.status import ApiError, forbidden
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.evaluation import Evaluation, Invocation, invocations
from k8slite.apiserver.admission.dynamic.reinvocation import Pass
from k8slite.apiserver.kind_table import is_custom

__all__ = ["mutating_policies"]

POLICIES = KIND["mutatingadmissionpolicies.admissionregistration.k8s.io"]
BINDINGS = KIND["mutatingadmissionpolicybindings.admissionregistration.k8s.io"]
_QUOTED = re.compile(r'unknown field "(.*)"')


class _MutationError(Exception):
    """A mutation that cannot be carried out; the text says why."""


async def mutating_policies(attributes: Attributes, pass_: Pass) -> None:
    """Change `attributes.new` in place as policies say. Raises ApiError 403 for errors of those
    that do not ignore them.
    """
    if not attributes.call.core.mirror.cache(BINDINGS).entries:
        return
    pass_.begin(attributes.new)
    errors: list[tuple[Invocation, str, str]] = []
    for invocation in await invocations(attributes, POLICIES, BINDINGS):
        if invocation.error:
            errors.append((invocation, invocation.error, "Forbidden"))
        for parameter in invocation.parameters:
            try:
                await _invoke(attributes, invocation, parameter, pass_)
            except (_MutationError, EvaluationError) as error:
                errors.append((invocation, str(error), "Invalid"))
    pass_.end(attributes.new)
    counted = [each for each in errors if not each[0].ignores]
    if counted:
        raise _refusal(attributes, counted)


def _refusal(attributes: Attributes, errors: list[tuple[Invocation, str, str]]) -> ApiError:
    messages = [
        f"policy '{invocation.policy.name}' with binding '{invocation.binding.name}' denied "
        f"request: {text}"
        for invocation, text, _ in errors
    ]
    refusal = forbidden(attributes.kind, attributes.name, messages[0])
    causes = [{"message": message} for message in messages]
    return ApiError(403, errors[0][2], messages[0], {**(refusal.details or {}), "causes": causes})


async def _invoke(
    attributes: Attributes, invocation: Invocation, parameter: Obj | None, pass_: Pass
) -> None:
    """One policy with one parameter. Raises _MutationError, EvaluationError."""
    spec, kind = invocation.spec, invocation.kind
    evaluation = await Evaluation.make(attributes, kind, spec, parameter, patches=True)
    if not evaluation.applies():
        return
    named = ((parameter or {}).get("metadata") or {}).get("name")
    who = (invocation.policy.name, invocation.binding.name, named)
    if not pass_.wants(who):
        return
    changed = False
    failed: _MutationError | None = None
    for mutation in spec.get("mutations") or ():
        if attributes.new is None:
            break
        evaluation = await Evaluation.make(attributes, kind, spec, parameter, patches=True)
        try:
            changed = await _mutate(attributes, kind, evaluation, mutation) or changed
        except _MutationError as error:
            failed = failed or error
    if changed:
        pass_.changed()
    if spec.get("reinvocationPolicy") == "IfNeeded":
        pass_.may_be_asked_again(who)
    if failed is not None:
        raise failed


async def _mutate(
    attributes: Attributes, kind: Kind, evaluation: Evaluation, mutation: Obj
) -> bool:
    """Has it changed the object? Raises _MutationError."""
    shown = await attributes.shown_as(kind, attributes.new)
    assert shown is not None
    if mutation.get("patchType") == "JSONPatch":
        patched = _json_patched(evaluation, mutation["jsonPatch"]["expression"], shown)
    else:
        source = mutation["applyConfiguration"]["expression"]
        patched = _applied(attributes, kind, evaluation, source, shown)
    try:
        return await attributes.take(kind, patched)
    except ApiError as error:
        raise _MutationError(error.message) from None


def _value(evaluation: Evaluation, source: str, result: str) -> object:
    try:
        return evaluation.value(source, result)
    except (CompileError, EvaluationError) as error:
        text = f"expression '{source.strip()}' resulted in error: {error}"
        raise _MutationError(text) from None


def _json_patched(evaluation: Evaluation, source: str, shown: Obj) -> Obj:
    operations = _value(evaluation, source, JSON_PATCH)
    if not isinstance(operations, list):
        raise _MutationError(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch"
        )
    for operation in operations:
        value = operation.get("value") if isinstance(operation, dict) else None
        if isinstance(value, dict) and TYPE in value:
            _check_types(value, value[TYPE])
    try:
        return json_patch(copy(shown), _json(operations))
    except TestFailed:
        return shown
    except ApiError as error:
        raise _MutationError(f"JSONPath: {error.message}") from None


def _json(value: object) -> list[Obj]:
    try:
        found: list[Obj] = plain(value)
    except ValueError as error:
        text = "JSONPath valueExpression evaluated to a type that could not marshal to JSON"
        raise _MutationError(f"{text}: {error}") from None
    return found


def _check_types(value: object, root: str) -> None:
    problems = list(mismatches(value, root))
    if problems:
        raise _MutationError("type mismatch: " + "\n".join(problems))


def _applied(
    attributes: Attributes, kind: Kind, evaluation: Evaluation, source: str, shown: Obj
) -> Obj:
    value = _value(evaluation, source, APPLY_CONFIGURATION)
    if not isinstance(value, dict) or TYPE not in value:
        raise _MutationError("unsupported return type from ApplyConfiguration expression")
    _check_types(value, "Object")
    try:
        configuration: Obj = plain(value)
    except ValueError as error:
        raise _MutationError(f"error applying patch: {error}") from None
    configuration |= {"apiVersion": kind.api_version, "kind": kind.kind}
    custom = attributes.call.core.kinds.custom(kind) if is_custom(kind) else None
    schema = None if custom is None else custom.schema
    try:
        decoded = from_parsed(copy(configuration), kind, WARN)
        unknown = [_QUOTED.sub(r"\1", warning) for warning in decoded.warnings]
        if schema is not None:
            prune(schema, decoded.obj, unknown)
        problem = ", ".join(f".{path}: field not declared in schema" for path in unknown)
    except ApiError as error:
        problem = error.message
    if problem:
        text = f"failed to convert patch object to typed object: {problem}"
        raise _MutationError(f"error applying patch: {text}")
    merged, atomic = merge_configuration(kind, shown, configuration, schema)
    if atomic:
        text = f"may not mutate atomic arrays, maps or structs: {', '.join(atomic)}"
        raise _MutationError(f"error applying patch: invalid ApplyConfiguration: {text}")
    return merged
