"""Webhooks and admission policies; the expressions in them are compiled."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.cel import CompileError, compile_expression
from k8slite.api.cel.patches import APPLY_CONFIGURATION, JSON_PATCH, compile_patch
from k8slite.api.cel.program import ANY, BOOL, STRING, STRING_OR_NULL
from k8slite.api.meta import Obj
from k8slite.api.status import (
    OMITTED,
    FieldError,
    duplicate,
    invalid_value,
    required,
)
from k8slite.api.validation.common import Errors, check_all, label_selector, one_of
from k8slite.api.validation.extensions import client_config

CONDITION_VARIABLES = ("object", "oldObject", "request", "authorizer")
"""What match conditions of webhooks may name."""
POLICY_VARIABLES = (*CONDITION_VARIABLES, "namespaceObject", "variables")
"""What expressions of policies may name, besides `params`."""
REQUEST_RESOURCE = "authorizer.requestResource"


def policy_variables(spec: Obj) -> tuple[str, ...]:
    """What the expressions of a policy may name."""
    return (*POLICY_VARIABLES, "params") if spec.get("paramKind") else POLICY_VARIABLES


def _expression(
    source: str,
    variables: tuple[str, ...],
    result: str,
    path: str,
    errors: Errors,
    *,
    patches: bool = False,
) -> None:
    try:
        (compile_patch if patches else compile_expression)(source.strip(), variables, result)
    except CompileError as error:
        errors.append(invalid_value(path, source, str(error)))


def validate_webhooks(o: Obj) -> list[FieldError]:
    errors: Errors = []
    seen: set[str] = set()
    for i, hook in enumerate(o.get("webhooks") or ()):
        at = f"webhooks[{i}]"
        _webhook(hook, o["kind"] == "MutatingWebhookConfiguration", at, errors)
        _review_versions(
            hook.get("admissionReviewVersions") or [], f"{at}.admissionReviewVersions", errors
        )
        name = hook.get("name", "")
        if name and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def _webhook(hook: Obj, mutating: bool, path: str, errors: Errors) -> None:
    name = hook.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        problems = names.check_dns_subdomain(name)
        check_all(problems, f"{path}.name", name, errors)
        if not problems and len(name.split(".")) < 3:
            detail = "should be a domain with at least three segments separated by dots"
            errors.append(invalid_value(f"{path}.name", name, detail))
    for i, rule in enumerate(hook.get("rules") or ()):
        _rule(rule, f"{path}.rules[{i}]", errors)
    for field, known in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
    ):
        if hook.get(field) is not None:
            one_of(hook[field], known, f"{path}.{field}", errors)
    effects = hook.get("sideEffects")
    known = ("None", "NoneOnDryRun")
    if effects is None:
        errors.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(known)}"))
    else:
        one_of(effects, known, f"{path}.sideEffects", errors)
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid_value(f"{path}.timeoutSeconds", seconds, detail))
    for field in ("namespaceSelector", "objectSelector"):
        if hook.get(field):
            label_selector(hook[field], f"{path}.{field}", errors)
    if mutating and hook.get("reinvocationPolicy") is not None:
        policies = ("IfNeeded", "Never")
        one_of(hook["reinvocationPolicy"], policies, f"{path}.reinvocationPolicy", errors)
    client_config(hook.get("clientConfig") or {}, f"{path}.clientConfig", errors)
    conditions = hook.get("matchConditions") or []
    _match_conditions(conditions, CONDITION_VARIABLES, f"{path}.matchConditions", errors)


def _review_versions(versions: list[str], path: str, errors: Errors) -> None:
    if not versions:
        errors.append(required(path, "must specify one of v1, v1beta1"))
        return
    for i, version in enumerate(versions):
        check_all(names.check_dns_1035_label(version), f"{path}[{i}]", version, errors)
        if version in versions[:i]:
            errors.append(invalid_value(f"{path}[{i}]", version, "duplicate version"))
    if not {"v1", "v1beta1"} & set(versions):
        detail = "must include at least one of v1, v1beta1"
        errors.append(invalid_value(path, versions, detail))


MUTATING = "MutatingAdmissionPolicy"
_MUTABLE = ("*", "CONNECT", "CREATE", "UPDATE")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")


def _rule(rule: Obj, path: str, errors: Errors) -> None:
    taken = rule.get("resourceNames") or []
    for i, name in enumerate(taken):
        if name in taken[:i]:
            errors.append(duplicate(f"{path}.resourceNames[{i}]", name))
    operations = rule.get("operations") or []
    if not operations:
        errors.append(required(f"{path}.operations"))
    if "*" in operations and len(operations) > 1:
        detail = "if '*' is present, must not specify other operations"
        errors.append(invalid_value(f"{path}.operations", operations, detail))
    for i, operation in enumerate(operations):
        one_of(operation, _OPERATIONS, f"{path}.operations[{i}]", errors)
    for field, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(field) or []
        if not values:
            errors.append(required(f"{path}.{field}"))
        if "*" in values and len(values) > 1:
            detail = f"if '*' is present, must not specify other {what}"
            errors.append(invalid_value(f"{path}.{field}", values, detail))
        if field == "apiVersions" and "" in values:
            errors.append(required(f"{path}.{field}[{values.index('')}]"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources"))
    scope = rule.get("scope")
    if scope is not None:
        one_of(scope, ("*", "Cluster", "Namespaced"), f"{path}.scope", errors)


def _match_conditions(
    conditions: list[Obj], variables: tuple[str, ...], path: str, errors: Errors
) -> None:
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, name = f"{path}[{i}]", condition.get("name", "")
        source = condition.get("expression") or ""
        if not source.strip():
            errors.append(required(f"{at}.expression"))
        else:
            _expression(source, variables, BOOL, f"{at}.expression", errors)
        if not name:
            errors.append(required(f"{at}.name"))
        else:
            check_all(names.check_qualified_name(name), f"{at}.name", name, errors)
            if name in seen:
                errors.append(duplicate(f"{at}.name", name))
        seen.add(name)


def validate_admission_policy(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    policy = spec.get("failurePolicy")
    if policy is not None:
        one_of(policy, ("Fail", "Ignore"), "spec.failurePolicy", errors)
    kind = spec.get("paramKind")
    if kind is not None:
        for field in ("apiVersion", "kind"):
            if not kind.get(field):
                errors.append(required(f"spec.paramKind.{field}"))
    constraints = spec.get("matchConstraints")
    if constraints is None:
        errors.append(required("spec.matchConstraints"))
    else:
        match_resources(constraints, "spec.matchConstraints", errors)
        if not constraints.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
    known = policy_variables(spec)
    conditions = spec.get("matchConditions") or []
    _match_conditions(conditions, known, "spec.matchConditions", errors)
    for i, variable in enumerate(spec.get("variables") or ()):
        at = f"spec.variables[{i}]"
        if not variable.get("name"):
            errors.append(required(f"{at}.name", "name is not specified"))
        source = variable.get("expression") or ""
        if not source.strip():
            errors.append(required(f"{at}.expression", "expression is not specified"))
        else:
            patches = o["kind"] == MUTATING
            _expression(source, known, ANY, f"{at}.expression", errors, patches=patches)
    if o["kind"] == MUTATING:
        _mutations(spec, known, errors)
    else:
        _validations(o, spec, known, errors)
    return errors


_PATCHES = {
    "ApplyConfiguration": ("applyConfiguration", APPLY_CONFIGURATION),
    "JSONPatch": ("jsonPatch", JSON_PATCH),
}


def _mutations(spec: Obj, known: tuple[str, ...], errors: Errors) -> None:
    constraints = spec.get("matchConstraints") or {}
    _mutable(constraints, "spec.matchConstraints", errors)
    mutations = spec.get("mutations") or []
    if not mutations:
        errors.append(required("spec.mutations", "mutations must contain at least one item"))
    for i, mutation in enumerate(mutations):
        at, type_ = f"spec.mutations[{i}]", mutation.get("patchType", "")
        if not type_:
            errors.append(required(f"{at}.patchType"))
        elif type_ in _PATCHES:
            _patch(mutation, type_, known, at, errors)
        else:
            one_of(type_, tuple(_PATCHES), f"{at}.patchType", errors)
    policy = spec.get("reinvocationPolicy")
    if not policy:
        errors.append(required("spec.reinvocationPolicy"))
    else:
        one_of(policy, ("Never", "IfNeeded"), "spec.reinvocationPolicy", errors)


def _patch(mutation: Obj, type_: str, known: tuple[str, ...], path: str, errors: Errors) -> None:
    for other, (field, result) in _PATCHES.items():
        given = mutation.get(field)
        if other == type_ and given is None:
            detail = f"must be specified when patchType is {type_}"
            errors.append(required(f"{path}.{field}", detail))
        elif other == type_:
            source, at = (given or {}).get("expression") or "", f"{path}.{field}.expression"
            if not source.strip():
                errors.append(required(at))
            else:
                _expression(source, known, result, at, errors, patches=True)
        elif given is not None:
            detail = f"must not be specified when patchType is {type_}"
            errors.append(invalid_value(f"{path}.{field}", f"{{{field}}}", detail))


def _mutable(match: Obj, path: str, errors: Errors) -> None:
    """What is deleted cannot be changed."""
    for rule in match.get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            one_of(operation, _MUTABLE, f"{path}.resourceRules.operations", errors)


def _validations(o: Obj, spec: Obj, known: tuple[str, ...], errors: Errors) -> None:
    validations, audits = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not audits:
        detail = "validations or auditAnnotations must contain at least one item"
        errors.append(required("spec.validations", detail))
        errors.append(required("spec.auditAnnotations", detail))
    for i, validation in enumerate(validations):
        at = f"spec.validations[{i}]"
        source = validation.get("expression") or ""
        if not source.strip():
            errors.append(required(f"{at}.expression", "expression is not specified"))
        else:
            _expression(source, known, BOOL, f"{at}.expression", errors)
        if (validation.get("messageExpression") or "").strip():
            source = validation["messageExpression"]
            _expression(source, known, STRING, f"{at}.messageExpression", errors)
        reasons = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
        if validation.get("reason") is not None:
            one_of(validation["reason"], reasons, f"{at}.reason", errors)
    for i, audit in enumerate(audits):
        at = f"spec.auditAnnotations[{i}]"
        key = f"{o['metadata'].get('name', '')}/{audit.get('key', '')}"
        check_all(names.check_qualified_name(key), f"{at}.key", key, errors)
        source = audit.get("valueExpression") or ""
        if not source.strip():
            detail = "valueExpression is not specified"
            errors.append(required(f"{at}.valueExpression", detail))
        else:
            _expression(source, known, STRING_OR_NULL, f"{at}.valueExpression", errors)


def match_resources(match: Obj, path: str, errors: Errors) -> None:
    if match.get("matchPolicy") is None:
        errors.append(required(f"{path}.matchPolicy"))
    else:
        one_of(match["matchPolicy"], ("Equivalent", "Exact"), f"{path}.matchPolicy", errors)
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field):
            label_selector(match[field], f"{path}.{field}", errors)
    for field in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(match.get(field) or ()):
            _rule(rule, f"{path}.{field}[{i}]", errors)


def validate_admission_binding(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    if not spec.get("policyName"):
        errors.append(required("spec.policyName"))
    if spec.get("matchResources"):
        match_resources(spec["matchResources"], "spec.matchResources", errors)
        if o["kind"] == f"{MUTATING}Binding":
            _mutable(spec["matchResources"], "spec.matchResources", errors)
    if o["kind"] == "ValidatingAdmissionPolicyBinding":
        actions = spec.get("validationActions") or []
        if not actions:
            errors.append(required("spec.validationActions"))
        for i, action in enumerate(actions):
            one_of(action, ("Audit", "Deny", "Warn"), f"spec.validationActions[{i}]", errors)
    reference = spec.get("paramRef")
    if reference is not None and reference.get("selector"):
        label_selector(reference["selector"], "spec.paramRef.selector", errors)
    if reference is not None and bool(reference.get("name")) is ("selector" in reference):
        detail = "one of name or selector must be specified"
        errors.append(FieldError("Forbidden", "spec.paramRef.name", OMITTED, detail))
    return errors
