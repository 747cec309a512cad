"""Where a pod may run: selectors, affinity, tolerations, spreading, gates."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import Errors, check_all, label_selector, one_of

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REQUIRED_TERMS = "requiredDuringSchedulingIgnoredDuringExecution"
_WEIGHT = "must be in the range 1-100"


def affinity(o: Obj, path: str, errors: Errors) -> None:
    node = o.get("nodeAffinity")
    if node is not None:
        node_affinity(node, f"{path}.nodeAffinity", errors)
    for field in ("podAffinity", "podAntiAffinity"):
        if field in o:
            _pod_affinity(o[field], f"{path}.{field}", errors)


def node_affinity(o: Obj, path: str, errors: Errors) -> None:
    if REQUIRED_TERMS in o:
        node_selector(o[REQUIRED_TERMS], f"{path}.{REQUIRED_TERMS}", errors)
    for i, term in enumerate(o.get(PREFERRED) or ()):
        at = f"{path}.{PREFERRED}[{i}]"
        weight = term.get("weight", 0)
        if not 1 <= weight <= 100:
            errors.append(invalid_value(f"{at}.weight", weight, _WEIGHT))
        node_selector_term(term.get("preference") or {}, f"{at}.preference", errors)


def node_selector(o: Obj, path: str, errors: Errors) -> None:
    terms = o.get("nodeSelectorTerms") or []
    if not terms:
        errors.append(
            required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
        )
    for i, term in enumerate(terms):
        node_selector_term(term, f"{path}.nodeSelectorTerms[{i}]", errors)


def node_selector_term(term: Obj, path: str, errors: Errors) -> None:
    for i, requirement in enumerate(term.get("matchExpressions") or ()):
        _expression(requirement, f"{path}.matchExpressions[{i}]", errors)
    for i, requirement in enumerate(term.get("matchFields") or ()):
        _field_expression(requirement, f"{path}.matchFields[{i}]", errors)


def _expression(requirement: Obj, path: str, errors: Errors) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    at = f"{path}.values"
    if operator in ("In", "NotIn"):
        if not values:
            detail = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(required(at, detail))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden_field(at, detail))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(at, detail))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    key = requirement.get("key", "")
    check_all(names.check_qualified_name(key), f"{path}.key", key, errors)


def _field_expression(requirement: Obj, path: str, errors: Errors) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator in ("In", "NotIn"):
        if len(values) != 1:
            detail = (
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
            errors.append(required(f"{path}.values", detail))
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    key = requirement.get("key", "")
    if key != "metadata.name":
        errors.append(invalid_value(f"{path}.key", key, "not a valid field selector key"))
        return
    for i, value in enumerate(values):
        check_all(names.check_dns_subdomain(value), f"{path}.values[{i}]", value, errors)


def _pod_affinity(o: Obj, path: str, errors: Errors) -> None:
    for i, term in enumerate(o.get(REQUIRED_TERMS) or ()):
        _pod_affinity_term(term, f"{path}.{REQUIRED_TERMS}[{i}]", errors)
    for i, weighted in enumerate(o.get(PREFERRED) or ()):
        at = f"{path}.{PREFERRED}[{i}]"
        weight = weighted.get("weight", 0)
        if not 1 <= weight <= 100:
            errors.append(invalid_value(f"{at}.weight", weight, _WEIGHT))
        _pod_affinity_term(weighted.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm", errors)


def _pod_affinity_term(term: Obj, path: str, errors: Errors) -> None:
    for field in ("labelSelector", "namespaceSelector"):
        if term.get(field):
            label_selector(term[field], f"{path}.{field}", errors)
    for field in ("matchLabelKeys", "mismatchLabelKeys"):
        _label_keys(term, field, path, errors)
    for space in term.get("namespaces") or ():
        check_all(names.check_dns_label(space), f"{path}.namespace", space, errors)
    key = term.get("topologyKey", "")
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    check_all(names.check_qualified_name(key), f"{path}.topologyKey", key, errors)


def _label_keys(term: Obj, field: str, path: str, errors: Errors) -> None:
    keys = term.get(field)
    if not keys:
        return
    if "labelSelector" not in term:
        detail = "must not be specified when labelSelector is not set"
        errors.append(forbidden_field(f"{path}.{field}", detail))
        return
    for i, key in enumerate(keys):
        check_all(names.check_qualified_name(key), f"{path}.{field}[{i}]", key, errors)


def tolerations(items: list[Obj], path: str, errors: Errors) -> None:
    for i, toleration in enumerate(items):
        at = f"{path}[{i}]"
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        value, effect = toleration.get("value", ""), toleration.get("effect", "")
        if key:
            check_all(names.check_qualified_name(key), f"{at}.key", key, errors)
        elif operator != "Exists":
            detail = (
                'operator must be Exists when `key` is empty, which means "match all values and all'
                ' keys"'
            )
            errors.append(invalid_value(f"{at}.operator", operator, detail))
        if "tolerationSeconds" in toleration and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid_value(f"{at}.effect", effect, detail))
        if operator in ("Equal", ""):
            check_all(names.check_label_value(value), f"{at}.operator", value, errors)
        elif operator == "Exists":
            if value:
                detail = "value must be empty when `operator` is 'Exists'"
                errors.append(invalid_value(f"{at}.operator", toleration_go(toleration), detail))
        else:
            errors.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect:
            taint_effect(effect, f"{at}.effect", errors)


def toleration_go(o: Obj) -> Obj:
    return {
        "Key": o.get("key", ""),
        "Operator": o.get("operator", ""),
        "Value": o.get("value", ""),
        "Effect": o.get("effect", ""),
        "TolerationSeconds": o.get("tolerationSeconds"),
    }


def taint_effect(effect: str, path: str, errors: Errors) -> None:
    known = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    if effect not in known:
        errors.append(not_supported(path, effect, known) if effect else required(path))


def spread_constraints(items: list[Obj], path: str, errors: Errors) -> None:
    pairs = [(c.get("topologyKey", ""), c.get("whenUnsatisfiable", "")) for c in items]
    for i, constraint in enumerate(items):
        at = f"{path}[{i}]"
        skew = constraint.get("maxSkew", 0)
        if skew <= 0:
            errors.append(invalid_value(f"{at}.maxSkew", skew, "must be greater than zero"))
        key, when = constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if not key:
            errors.append(required(f"{at}.topologyKey", "can not be empty"))
        one_of(when, ("DoNotSchedule", "ScheduleAnyway"), f"{at}.whenUnsatisfiable", errors)
        if (key, when) in pairs[i + 1 :]:
            shown = f"{{{key}, {when}}}"
            errors.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", shown))
        _spread_domains(constraint, at, errors)
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if field in constraint:
                one_of(constraint[field], ("Honor", "Ignore"), f"{at}.{field}", errors)
        _spread_label_keys(constraint, at, errors)
        if constraint.get("labelSelector"):
            label_selector(constraint["labelSelector"], f"{at}.labelSelector", errors)


def _spread_domains(constraint: Obj, path: str, errors: Errors) -> None:
    domains = constraint.get("minDomains")
    if domains is None:
        return
    if domains <= 0:
        errors.append(invalid_value(f"{path}.minDomains", domains, "must be greater than zero"))
    if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
        detail = (
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not"
            f" {constraint.get('whenUnsatisfiable', '')}"
        )
        errors.append(invalid_value(f"{path}.minDomains", domains, detail))


def _spread_label_keys(constraint: Obj, path: str, errors: Errors) -> None:
    keys = constraint.get("matchLabelKeys") or []
    if keys and "labelSelector" not in constraint:
        detail = "must not be specified when labelSelector is not set"
        errors.append(forbidden_field(f"{path}.matchLabelKeys", detail))
        return
    used = {
        e.get("key") for e in (constraint.get("labelSelector") or {}).get("matchExpressions") or ()
    } | ((constraint.get("labelSelector") or {}).get("matchLabels") or {}).keys()
    for i, key in enumerate(keys):
        at = f"{path}.matchLabelKeys[{i}]"
        check_all(names.check_qualified_name(key), at, key, errors)
        if key in used:
            errors.append(invalid_value(at, key, "exists in both matchLabelKeys and labelSelector"))


def gates(items: list[Obj], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for i, gate in enumerate(items):
        at, name = f"{path}[{i}]", gate.get("name", "")
        check_all(names.check_qualified_name(name), at, name, errors)
        if name in seen:
            errors.append(duplicate(at, name))
        seen.add(name)
