"""ValidatingAdmissionPolicy: bindings, parameters, validations, what follows from a failure."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from k8slite.api.cel import CompileError, EvaluationError
from k8slite.api.cel.program import ANY, BOOL, STRING
from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj
from k8slite.api.selectors import from_object
from k8slite.api.status import ApiError, forbidden
from k8slite.api.validation.admission import policy_variables
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.expressions import Bindings, conditions_hold
from k8slite.apiserver.admission.dynamic.matching import matching_kind
from k8slite.apiserver.watch_cache import Entry

__all__ = ["validating_policies"]

log = logging.getLogger(__name__)

POLICIES = KIND["validatingadmissionpolicies.admissionregistration.k8s.io"]
BINDINGS = KIND["validatingadmissionpolicybindings.admissionregistration.k8s.io"]
VALUE_MAX = 1024 * 1024
"""Variables whose text is longer are none: their sums could grow for ever."""
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_VARIABLE = re.compile(r"\bvariables\.([A-Za-z_][A-Za-z0-9_]*)")


class _Failure(NamedTuple):
    message: str
    reason: str = "Invalid"


async def validating_policies(attributes: Attributes) -> None:
    """Raises ApiError for the first denial; warnings go into the answer."""
    mirror = attributes.call.core.mirror
    bindings = mirror.cache(BINDINGS).entries
    if not bindings:
        return
    for entry in bindings.values():
        binding = entry.parsed()
        spec = binding.get("spec") or {}
        policy_entry = mirror.cache(POLICIES).get("", spec.get("policyName", ""))
        if policy_entry is None:
            continue
        for failure in _failures(attributes, policy_entry.parsed(), binding):
            _act(attributes, policy_entry, entry, spec, failure)


def _act(
    attributes: Attributes, policy: Entry, binding: Entry, spec: Obj, failure: _Failure
) -> None:
    actions = spec.get("validationActions") or ()
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


def _failures(attributes: Attributes, policy: Obj, binding: Obj) -> Iterator[_Failure]:
    """What the policy holds against the request, through this binding."""
    spec, bound = policy.get("spec") or {}, binding.get("spec") or {}
    constraints, narrower = spec.get("matchConstraints") or {}, bound.get("matchResources") or {}
    kind = _matches(attributes, constraints, every=False)
    if kind is None or (narrower and _matches(attributes, narrower, every=True) is None):
        return
    ignores = spec.get("failurePolicy") == "Ignore"
    try:
        parameters = _parameters(attributes, spec, bound)
    except LookupError as error:
        if not ignores:
            yield _Failure(f"failed to configure binding: {error.args[0]}")
        return
    for parameter in parameters:
        evaluation = _Evaluation(attributes, kind, spec, parameter)
        try:
            if not evaluation.applies():
                continue
        except EvaluationError as error:
            if not ignores:
                yield _Failure(str(error))
            continue
        yield from evaluation.failures(ignores=ignores)


def _matches(attributes: Attributes, match: Obj, *, every: bool) -> Kind | None:
    rules, exclude = match.get("resourceRules") or (), match.get("excludeResourceRules") or ()
    return matching_kind(attributes, match, rules, exclude, every=every)


def _parameters(attributes: Attributes, spec: Obj, bound: Obj) -> list[Obj | None]:
    """The objects to evaluate with, each in turn. Raises LookupError."""
    wanted, reference = spec.get("paramKind"), bound.get("paramRef")
    if not wanted or not reference:
        return [None]
    kind = next(
        (
            k
            for k in attributes.call.core.kinds.all()
            if (k.api_version, k.kind) == (wanted["apiVersion"], wanted["kind"])
        ),
        None,
    )
    if kind is None:
        raise LookupError(f"failed to find resource referenced by paramKind: '{wanted}'")
    namespace = ""
    if kind.namespaced:
        namespace = reference.get("namespace") or attributes.namespace
        if not namespace:
            raise LookupError("paramRef.namespace must not be provided for a cluster-scoped object")
    cache = attributes.call.core.mirror.cache(kind)
    found: list[Obj | None] = []
    if reference.get("name"):
        entry = cache.get(namespace, reference["name"])
        found = [] if entry is None else [_as(kind, entry)]
    else:
        selector = from_object(reference.get("selector"))
        for entry in cache.select(f"{namespace}/" if namespace else ""):
            if selector.matches(entry.parsed()["metadata"].get("labels")):
                found.append(_as(kind, entry))
    if not found:
        if reference.get("parameterNotFoundAction") == "Allow":
            return []
        raise LookupError("no params found for policy binding with `Deny` parameterNotFoundAction")
    return found


def _as(kind: Kind, entry: Entry) -> Obj:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **entry.parsed()}


class _Evaluation:
    """Of one policy, for one request and one parameter."""

    def __init__(self, attributes: Attributes, kind: Kind, spec: Obj, parameter: Any) -> None:
        self._spec = spec
        self._names = policy_variables(spec)
        self._bindings = Bindings(attributes, kind)
        self._bindings.with_namespace()
        self._known: Obj = {}
        self._bindings.values.update(params=parameter, variables=self._known)
        self._sources = {v["name"]: v["expression"] for v in spec.get("variables") or ()}
        self._pending = dict(self._sources)

    def applies(self) -> bool:
        """Do the match conditions hold? Raises EvaluationError."""
        conditions = self._spec.get("matchConditions") or []
        for condition in conditions:
            self._prepare(condition["expression"])
        return conditions_hold(conditions, self._bindings, self._names)

    def failures(self, *, ignores: bool) -> Iterator[_Failure]:
        """What does not hold; an expression without a value counts unless errors are ignored."""
        for validation in self._spec.get("validations") or ():
            source = validation["expression"].strip()
            try:
                good = self._evaluate(source, BOOL)
            except (CompileError, EvaluationError) as error:
                if not ignores:
                    yield _Failure(f"expression '{source}' resulted in error: {error}")
                continue
            if good is not True:
                yield _Failure(self._message(validation), validation.get("reason") or "Invalid")

    def _message(self, validation: Obj) -> str:
        if validation.get("messageExpression"):
            try:
                text = self._evaluate(validation["messageExpression"].strip(), STRING)
            except (CompileError, EvaluationError) as error:
                log.info("messageExpression failed: %s", error)
            else:
                if isinstance(text, str) and text.strip() and "\n" not in text.strip():
                    return text.strip()
        told: str = (validation.get("message") or "").strip()
        return told or f"failed expression: {validation['expression'].strip()}"

    def _evaluate(self, source: str, result: str) -> Any:
        self._prepare(source)
        return self._bindings.evaluate(source, self._names, result)

    def _prepare(self, source: str) -> None:
        """Compute the variables that an expression names; one without a value stays away."""
        for name in _VARIABLE.findall(source):
            expression = self._pending.pop(name, None)
            if expression is None:
                continue
            try:
                value = self._evaluate(expression, ANY)
            except (CompileError, EvaluationError) as error:
                log.debug("variable=%s has no value: %s", name, error)
                continue
            if not isinstance(value, (str, bytes)) or len(value) <= VALUE_MAX:
                self._known[name] = value
