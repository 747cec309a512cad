"""Requests and limits, and the names of resources."""

from __future__ import annotations

from k8slite.api import names, quantity
from k8slite.api.meta import Obj
from k8slite.api.status import duplicate, forbidden_field, invalid_value, not_found_value, required
from k8slite.api.validation.common import Errors, check_all, one_of, quantity_not_negative

HUGE_PAGES = "hugepages-"
STANDARD_CONTAINER = frozenset(("cpu", "memory", "ephemeral-storage"))
STANDARD = frozenset(
    (
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
        "services.loadbalancers",
    )
)
NOT_STANDARD = "must be a standard resource type or fully qualified"
NOT_FOR_CONTAINERS = "must be a standard resource for containers"


def is_huge_page(name: str) -> bool:
    return name.startswith(HUGE_PAGES)


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_integer(name: str) -> bool:
    """Counted things, and extended resources, come in whole numbers."""
    counted = ("pods", "services", "secrets", "configmaps", "resourcequotas")
    return name in counted or not is_native(name)


def resource_name(name: str, path: str, errors: Errors) -> None:
    problems = names.check_qualified_name(name)
    check_all(problems, path, name, errors)
    if not problems and "/" not in name and name not in STANDARD and not is_huge_page(name):
        errors.append(invalid_value(path, name, NOT_STANDARD))


def container_resource_name(name: str, path: str, errors: Errors) -> None:
    if name in STANDARD_CONTAINER:
        return
    resource_name(name, path, errors)
    if "/" not in name:
        if not is_huge_page(name):
            errors.append(invalid_value(path, name, NOT_FOR_CONTAINERS))
    elif not is_native(name) and not _is_extended(name):
        detail = "doesn't follow extended resource name standard"
        errors.append(invalid_value(path, name, detail))


def _is_extended(name: str) -> bool:
    return not name.startswith("requests.") and not names.check_qualified_name(f"requests.{name}")


def quantity_value(name: str, text: str, path: str, errors: Errors) -> None:
    quantity_not_negative(text, path, errors)
    if is_integer(name) and quantity.parse(text) % 1:
        errors.append(invalid_value(path, text, "must be an integer"))


def resource_requirements(
    resources: Obj, claim_names: list[str], path: str, errors: Errors, pod_level: bool = False
) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, text in limits.items():
        _name_and_value(name, text, f"{path}.limits[{name}]", errors, pod_level)
    for name, text in requests.items():
        at = f"{path}.requests[{name}]"
        _name_and_value(name, text, at, errors, pod_level)
        overcommit = is_native(name) and not is_huge_page(name)
        limit = limits.get(name)
        if limit is None:
            if not overcommit:
                detail = "Limit must be set for non overcommitable resources"
                errors.append(required(f"{path}.limits", detail))
        elif not overcommit and quantity.parse(text) != quantity.parse(limit):
            errors.append(invalid_value(at, text, f"must be equal to {name} limit of {limit}"))
        elif quantity.parse(text) > quantity.parse(limit):
            detail = f"must be less than or equal to {name} limit of {limit}"
            errors.append(invalid_value(at, text, detail))
    if pod_level and "claims" in resources:
        detail = "claims may not be set for Resources at pod-level"
        errors.insert(0, forbidden_field(f"{path}.claims", detail))
    resource_claims(resources.get("claims") or [], claim_names, f"{path}.claims", errors)


def _name_and_value(name: str, text: str, path: str, errors: Errors, pod_level: bool) -> None:
    if pod_level:
        resource_name(name, path, errors)
        if not names.check_qualified_name(name) and ("/" in name):
            one_of(name, ("cpu", HUGE_PAGES, "memory"), path, errors)
    else:
        container_resource_name(name, path, errors)
    quantity_value(name, text, path, errors)


def resource_claims(claims: list[Obj], known: list[str], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for i, claim in enumerate(claims):
        at, name = f"{path}[{i}]", claim.get("name", "")
        if not name:
            errors.append(required(at))
            continue
        request = claim.get("request")
        if request:
            check_all(names.check_dns_label(request), f"{at}.request", request, errors)
        key = f"{name}/{request}" if request else name
        if key in seen:
            errors.append(duplicate(at, key))
        seen.add(key)
        if name not in known:
            detail = "must be one of the names in pod.spec.resourceClaims"
            if not known:
                detail += " which is empty"
            else:
                detail += ": " + ", ".join(sorted(known))
            errors.append(not_found_value(at, name, detail))
