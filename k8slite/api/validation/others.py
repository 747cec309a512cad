"""RBAC, networking, storage, scheduling classes, admission configuration, custom definitions."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation import scheduling
from k8slite.api.validation.common import (
    Errors,
    check_all,
    one_of,
)
from k8slite.api.validation.objectmeta import IMMUTABLE


def validate_storage_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    provisioner = o.get("provisioner", "")
    if not provisioner:
        errors.append(required("provisioner", provisioner))
    else:
        check_all(
            names.check_qualified_name(provisioner.lower()),
            "provisioner",
            provisioner.lower(),
            errors,
        )
    for key in o.get("parameters") or {}:
        if not key:
            errors.append(invalid_value("parameters", key, "field must not be empty"))
    policy = o.get("reclaimPolicy")
    if policy:
        one_of(policy, ("Delete", "Retain"), "reclaimPolicy", errors)
    mode = o.get("volumeBindingMode")
    if mode is None:
        errors.append(required("volumeBindingMode"))
    else:
        one_of(mode, ("Immediate", "WaitForFirstConsumer"), "volumeBindingMode", errors)
    _topologies(o.get("allowedTopologies") or [], errors)
    return errors


def _topologies(terms: list[Obj], errors: Errors) -> None:
    seen_terms: list[Obj] = []
    for i, term in enumerate(terms):
        at = f"allowedTopologies[{i}].matchLabelExpressions"
        expressions = term.get("matchLabelExpressions") or []
        seen: set[str] = set()
        shape: Obj = {}
        for j, expression in enumerate(expressions):
            key, values = expression.get("key", ""), expression.get("values") or []
            if not values:
                errors.append(required(f"{at}[{j}].values"))
            for k, value in enumerate(values):
                if value in values[:k]:
                    errors.append(duplicate(f"{at}[{j}].values[{k}]", value))
            check_all(names.check_qualified_name(key), f"{at}[{j}].key", key, errors)
            if key in seen:
                errors.append(duplicate(f"{at}[{j}].key", key))
            seen.add(key)
            shape[key] = sorted(set(values))
        if shape in seen_terms or not expressions:
            errors.append(duplicate(at, ""))
        seen_terms.append(shape)


def validate_storage_class_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    for field, text in (
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ):
        if new.get(field) != old.get(field):
            errors.append(forbidden_field(field, text))
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        errors.append(invalid_value("volumeBindingMode", new.get("volumeBindingMode"), IMMUTABLE))
    return errors


def validate_csi_driver(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    policy = spec.get("fsGroupPolicy")
    if policy is not None:
        known = ("File", "None", "ReadWriteOnceWithFSType")
        one_of(policy, known, "spec.fsGroupPolicy", errors)
    audiences: set[str] = set()
    for i, request in enumerate(spec.get("tokenRequests") or ()):
        at, audience = f"spec.tokenRequests[{i}]", request.get("audience", "")
        if audience in audiences:
            errors.append(duplicate(f"{at}.audience", audience))
        audiences.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(invalid_value(f"{at}.expirationSeconds", seconds, detail))
    for mode in spec.get("volumeLifecycleModes") or ():
        one_of(mode, ("Ephemeral", "Persistent"), "spec.volumeLifecycleModes", errors)
    return errors


def validate_runtime_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    handler = o.get("handler", "")
    if not handler:
        errors.append(required("handler"))
    else:
        check_all(names.check_dns_label(handler), "handler", handler, errors)
    place = o.get("scheduling") or {}
    if place.get("nodeSelector"):
        for key, value in place["nodeSelector"].items():
            at = "scheduling.nodeSelector"
            check_all(names.check_qualified_name(key), at, key, errors)
            check_all(names.check_label_value(value), at, value, errors)
    if place.get("tolerations"):
        scheduling.tolerations(place["tolerations"], "scheduling.tolerations", errors)
    return errors


def validate_runtime_class_update(new: Obj, old: Obj) -> list[FieldError]:
    if new.get("handler") == old.get("handler"):
        return []
    return [invalid_value("handler", new.get("handler"), IMMUTABLE)]


_HIGHEST_USER_PRIORITY = 1_000_000_000


def validate_priority_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    name, value = o["metadata"].get("name", ""), o.get("value", 0)
    if name.startswith("system-"):
        if name not in ("system-cluster-critical", "system-node-critical"):
            detail = (
                "priority class names with 'system-' prefix are reserved for system use only."
                " error: priority class is not a known system priority class"
            )
            errors.append(forbidden_field("metadata.name", detail))
    elif value > _HIGHEST_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        errors.append(forbidden_field("value", detail))
    policy = o.get("preemptionPolicy")
    if policy is not None:
        known = ("PreemptLowerPriority", "Never")
        if policy not in known:
            at = "preemptionPolicy"
            errors.append(not_supported(at, policy, known) if policy else required(at))
    return errors


def validate_priority_class_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    if new.get("value", 0) != old.get("value", 0):
        errors.append(invalid_value("value", new.get("value", 0), IMMUTABLE))
    if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
        errors.append(invalid_value("preemptionPolicy", new.get("preemptionPolicy"), IMMUTABLE))
    return errors
