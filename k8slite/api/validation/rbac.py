"""Roles and bindings."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    label_selector,
    one_of,
)

RBAC = "rbac.authorization.k8s.io"


def validate_role(o: Obj) -> list[FieldError]:
    return _rules(o, namespaced=True)


def validate_cluster_role(o: Obj) -> list[FieldError]:
    errors = _rules(o, namespaced=False)
    aggregation = o.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        at = "aggregationRule.clusterRoleSelectors"
        if not selectors:
            detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            errors.append(required(at, detail))
        for i, selector in enumerate(selectors):
            label_selector(selector, f"{at}[{i}]", errors)
    return errors


def _rules(o: Obj, namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    for i, rule in enumerate(o.get("rules") or ()):
        at = f"rules[{i}]"
        if not rule.get("verbs"):
            errors.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        urls = rule.get("nonResourceURLs") or []
        if urls:
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid_value(f"{at}.nonResourceURLs", urls, detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid_value(f"{at}.nonResourceURLs", urls, detail))
            continue
        if not rule.get("apiGroups"):
            detail = "resource rules must supply at least one api group"
            errors.append(required(f"{at}.apiGroups", detail))
        if not rule.get("resources"):
            detail = "resource rules must supply at least one resource"
            errors.append(required(f"{at}.resources", detail))
    return errors


def validate_role_binding(o: Obj) -> list[FieldError]:
    return _binding(o, ("Role", "ClusterRole"), True)


def validate_cluster_role_binding(o: Obj) -> list[FieldError]:
    return _binding(o, ("ClusterRole",), False)


def _binding(o: Obj, kinds: tuple[str, ...], namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    reference = o.get("roleRef") or {}
    group = reference.get("apiGroup", "")
    if group != RBAC:
        errors.append(not_supported("roleRef.apiGroup", group, (RBAC,)))
    one_of(reference.get("kind", ""), kinds, "roleRef.kind", errors)
    name = reference.get("name", "")
    if not name:
        errors.append(required("roleRef.name"))
    else:
        check_all(names.check_path_segment(name), "roleRef.name", name, errors)
    for i, subject in enumerate(o.get("subjects") or ()):
        _subject(subject, namespaced, f"subjects[{i}]", errors)
    return errors


def _subject(subject: Obj, namespaced: bool, path: str, errors: Errors) -> None:
    if not subject.get("name"):
        errors.append(required(f"{path}.name"))
    kind, group = subject.get("kind", ""), subject.get("apiGroup", "")
    if kind == "ServiceAccount":
        if subject.get("name"):
            value = subject["name"]
            check_all(names.check_dns_subdomain(value), f"{path}.name", value, errors)
        if group:
            errors.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != RBAC:
            errors.append(not_supported(f"{path}.apiGroup", group, (RBAC,)))
    else:
        errors.append(not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))


def validate_role_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_role(new)


def validate_cluster_role_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_cluster_role(new)


def validate_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    return validate_role_binding(new) + _reference_update(new, old)


def validate_cluster_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    return validate_cluster_role_binding(new) + _reference_update(new, old)


def _reference_update(new: Obj, old: Obj) -> list[FieldError]:
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [
        invalid_value("roleRef", _go_reference(new.get("roleRef") or {}), "cannot change roleRef")
    ]


def _go_reference(reference: Obj) -> Obj:
    return {
        "APIGroup": reference.get("apiGroup", ""),
        "Kind": reference.get("kind", ""),
        "Name": reference.get("name", ""),
    }
