"""The core group's other kinds: nodes, namespaces, events, config maps, secrets, volumes,
quotas.
"""

from __future__ import annotations

from k8slite.api import names, quantity
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
)
from k8slite.api.validation import scheduling
from k8slite.api.validation.common import (
    Errors,
    check_all,
    not_negative,
    one_of,
    positive,
    quantity_not_negative,
)
from k8slite.api.validation.objectmeta import IMMUTABLE, check_finalizer
from k8slite.api.validation.resources import (
    STANDARD,
    is_huge_page,
    resource_name,
)
from k8slite.api.validation.services import cidr

DATA_MAX_BYTES = 1024 * 1024


def validate_node(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(spec.get("taints") or ()):
        at = f"metadata.taints[{i}]"
        key, value, effect = (taint.get(f, "") for f in ("key", "value", "effect"))
        check_all(names.check_qualified_name(key), f"{at}.key", key, errors)
        check_all(names.check_label_value(value), f"{at}.value", value, errors)
        scheduling.taint_effect(effect, f"{at}.effect", errors)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": None}
            errors.append(duplicate(at, shown, "taints must be unique by key and effect pair"))
        seen.add((key, effect))
    _pod_cidrs(spec, errors)
    status = o.get("status") or {}
    for field in ("capacity", "allocatable"):
        for name, text in (status.get(field) or {}).items():
            at = f"status.{field}[{name}]"
            resource_name(name, at, errors)
            quantity_not_negative(text, at, errors)
    return errors


def _pod_cidrs(spec: Obj, errors: Errors) -> None:
    ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    good = [cidr(value, f"spec.podCIDRs[{i}]", errors) for i, value in enumerate(ranges)]
    if len(ranges) > 2:
        detail = "may specify no more than one CIDR for each IP family"
        errors.append(invalid_value("spec.podCIDRs", ranges, detail))
    elif len(ranges) == 2 and not all(good):
        bad = ranges[good.index(False)]
        detail = (
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR address:"
            f" {bad}"
        )
        errors.append(FieldError("Internal error", "spec.podCIDRs", "", detail))
    elif len(ranges) == 2 and (":" in ranges[0]) == (":" in ranges[1]):
        detail = "may specify no more than one CIDR for each IP family"
        errors.append(invalid_value("spec.podCIDRs", ranges, detail))


def validate_node_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_node(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    if was.get("podCIDR") and spec.get("podCIDR") != was["podCIDR"]:
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden_field("spec.podCIDRs", detail))
    if was.get("providerID") and spec.get("providerID") != was["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden_field("spec.providerID", detail))
    return errors


def validate_namespace(o: Obj) -> list[FieldError]:
    errors: Errors = []
    for name in (o.get("spec") or {}).get("finalizers") or ():
        check_all(check_finalizer(name), "spec.finalizers", name, errors)
    return errors


def validate_namespace_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_namespace(new)


def validate_event(o: Obj) -> list[FieldError]:
    """Of core/v1, lenient by history, and of events.k8s.io, which asks for what it needs."""
    errors: Errors = []
    regarding = o.get("involvedObject") or o.get("regarding") or {}
    space, own = regarding.get("namespace", ""), o["metadata"].get("namespace", "")
    at = "involvedObject.namespace"
    if not space:
        if own != "default":  # where events about nodes and the like live
            errors.append(invalid_value(at, space, "does not match event.namespace"))
    elif space != own:
        errors.append(invalid_value(at, space, "does not match event.namespace"))
    if o.get("apiVersion") == "events.k8s.io/v1":
        _new_event(o, errors)
    return errors


def _new_event(o: Obj, errors: Errors) -> None:
    if not o.get("eventTime"):
        errors.append(required("eventTime"))
    for field, longest in (
        ("reportingController", 0),
        ("reportingInstance", 128),
        ("action", 128),
        ("reason", 128),
    ):
        value = o.get(field, "")
        if not value:
            errors.append(required(field))
        elif longest and len(value) > longest:
            errors.append(invalid_value(field, "", f"can have at most {longest} characters"))
    if o.get("reportingController"):
        value = o["reportingController"]
        check_all(names.check_qualified_name(value), "reportingController", value, errors)
    one_of(o.get("type", ""), ("Normal", "Warning"), "type", errors)


def validate_event_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_event(new)


def validate_config_map(o: Obj) -> list[FieldError]:
    errors: Errors = []
    text, binary = o.get("data") or {}, o.get("binaryData") or {}
    size = 0
    for key, value in text.items():
        check_all(names.check_config_key(key), f"data[{key}]", key, errors)
        if key in binary:
            detail = "duplicate of key present in binaryData"
            errors.append(invalid_value(f"data[{key}]", key, detail))
        size += len(value.encode())
    for key, value in binary.items():
        check_all(names.check_config_key(key), f"binaryData[{key}]", key, errors)
        size += len(value) * 3 // 4
    if size > DATA_MAX_BYTES:
        detail = f"may not be more than {DATA_MAX_BYTES} bytes"
        errors.append(FieldError("Too long", "", "", detail))
    return errors


def validate_config_map_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    _keep_immutable(new, old, ("data", "binaryData"), errors)
    return errors + validate_config_map(new)


_WHEN_IMMUTABLE = "field is immutable when `immutable` is set"


def _keep_immutable(new: Obj, old: Obj, fields: tuple[str, ...], errors: Errors) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errors.append(forbidden_field("immutable", _WHEN_IMMUTABLE))
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            errors.append(forbidden_field(field, _WHEN_IMMUTABLE))


_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def validate_secret(o: Obj) -> list[FieldError]:
    errors: Errors = []
    data = o.get("data") or {}
    for key in data:
        check_all(names.check_config_key(key), f"data[{key}]", key, errors)
    if sum(len(v) * 3 // 4 for v in data.values()) > DATA_MAX_BYTES:
        detail = f"may not be more than {DATA_MAX_BYTES} bytes"
        errors.append(FieldError("Too long", "data", "", detail))
    type_ = o.get("type", "")
    for key in _SECRET_KEYS.get(type_, ()):
        if key not in data:
            errors.append(required(f"data[{key}]"))
    if type_ == "kubernetes.io/service-account-token":
        notes = o["metadata"].get("annotations") or {}
        if not notes.get("kubernetes.io/service-account.name"):
            at = "metadata.annotations[kubernetes.io/service-account.name]"
            errors.append(required(at))
    if type_ == "kubernetes.io/basic-auth" and not ({"username", "password"} & data.keys()):
        errors.append(required("data[username]"))
        errors.append(required("data[password]"))
    return errors


def validate_secret_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    if new.get("type") != old.get("type"):
        errors.append(invalid_value("type", new.get("type"), IMMUTABLE))
    _keep_immutable(new, old, ("data",), errors)
    return errors + validate_secret(new)


def validate_lease(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    positive(spec.get("leaseDurationSeconds"), "spec.leaseDurationSeconds", errors)
    not_negative(spec.get("leaseTransitions"), "spec.leaseTransitions", errors)
    if spec.get("strategy") is not None:
        value = spec["strategy"]
        if "/" not in value:
            one_of(value, ("OldestEmulationVersion",), "spec.strategy", errors)
    if spec.get("preferredHolder") and not spec.get("strategy"):
        detail = "may only be specified if `strategy` is defined"
        errors.append(forbidden_field("spec.preferredHolder", detail))
    return errors


def validate_lease_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_lease(new)


_SCOPES = frozenset(
    (
        "BestEffort",
        "NotBestEffort",
        "Terminating",
        "NotTerminating",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    )
)


def validate_resource_quota(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    for name, text in (spec.get("hard") or {}).items():
        at = f"spec.hard[{name}]"
        quota_resource(name, at, errors)
        quantity_not_negative(text, at, errors)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
    at = "spec.scopeSelector.matchExpressions"
    for expression in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scope, operator = expression.get("scopeName", ""), expression.get("operator", "")
        if scope not in _SCOPES:
            errors.append(invalid_value(f"{at}.scopeName", scope, "unsupported scope"))
        if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            detail = "not a valid selector operator"
            errors.append(invalid_value(f"{at}.operator", operator, detail))
    return errors


def quota_resource(name: str, path: str, errors: Errors) -> None:
    resource_name(name, path, errors)
    if "/" not in name and name not in STANDARD and not is_huge_page(name):
        errors.append(invalid_value(path, name, "must be a standard resource for quota"))


def validate_resource_quota_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_resource_quota(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    if set(spec.get("scopes") or ()) != set(was.get("scopes") or ()):
        errors.append(invalid_value("spec.scopes", spec.get("scopes"), IMMUTABLE))
    return errors


_LIMIT_FIELDS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def validate_limit_range(o: Obj) -> list[FieldError]:
    errors: Errors = []
    seen: set[str] = set()
    for i, item in enumerate((o.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{i}]"
        type_ = item.get("type", "")
        if type_ not in ("Container", "Pod", "PersistentVolumeClaim"):
            _limit_type(type_, f"{at}.type", errors)
        if type_ in seen:
            errors.append(duplicate(f"{at}.type", type_))
        seen.add(type_)
        for field in _LIMIT_FIELDS:
            for name in item.get(field) or {}:
                resource_name(name, f"{at}.{field}[{name}]", errors)
        if type_ == "Pod":
            for field in ("default", "defaultRequest"):
                if item.get(field):
                    detail = "may not be specified when `type` is 'Pod'"
                    errors.append(forbidden_field(f"{at}.{field}", detail))
        if type_ == "PersistentVolumeClaim":
            _claim_limits(item, at, errors)
        _limit_order(item, at, errors)
    return errors


def _limit_type(type_: str, path: str, errors: Errors) -> None:
    problems = names.check_qualified_name(type_)
    check_all(problems, path, type_, errors)
    if not problems and "/" not in type_:
        detail = "must be a standard limit type or fully qualified"
        errors.append(invalid_value(path, type_, detail))


def _claim_limits(item: Obj, path: str, errors: Errors) -> None:
    if "storage" not in (item.get("min") or {}) and "storage" not in (item.get("max") or {}):
        detail = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(f"{path}.limits", detail))


def _limit_order(item: Obj, path: str, errors: Errors) -> None:
    low, high = item.get("min") or {}, item.get("max") or {}
    default, request = item.get("default") or {}, item.get("defaultRequest") or {}
    for name in dict.fromkeys([*high, *low, *default, *request]):
        pairs = (
            ("min", low, "max", high, "min value {0} is greater than max value {1}"),
            (
                "defaultRequest",
                request,
                "max",
                high,
                "default request value {0} is greater than max value {1}",
            ),
            ("default", default, "max", high, "default value {0} is greater than max value {1}"),
        )
        for field, smaller, _, larger, text in pairs:
            both = name in smaller and name in larger
            if both and quantity.parse(smaller[name]) > quantity.parse(larger[name]):
                detail = text.format(smaller[name], larger[name])
                at = f"{path}.{field}[{name}]"
                errors.append(invalid_value(at, smaller[name], detail))
        if (
            name in low
            and name in request
            and quantity.parse(low[name]) > quantity.parse(request[name])
        ):
            detail = f"min value {low[name]} is greater than default request value {request[name]}"
            errors.append(invalid_value(f"{path}.defaultRequest[{name}]", request[name], detail))


def validate_limit_range_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_limit_range(new)
