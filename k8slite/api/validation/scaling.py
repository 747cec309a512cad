"""Autoscalers and disruption budgets."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    int_or_percent,
    label_selector,
    not_more_than_100_percent,
    one_of,
    positive,
)


def validate_disruption_budget(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    if low is not None and high is not None:
        shown = {
            "MinAvailable": low,
            "Selector": spec.get("selector"),
            "MaxUnavailable": high,
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        errors.append(
            invalid_value("spec", shown, "minAvailable and maxUnavailable cannot be both set")
        )
    for field, value in (("minAvailable", low), ("maxUnavailable", high)):
        if value is not None:
            int_or_percent(value, f"spec.{field}", errors)
            not_more_than_100_percent(value, f"spec.{field}", errors)
    if spec.get("selector"):
        label_selector(spec["selector"], "spec.selector", errors)
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None:
        known = ("AlwaysAllow", "IfHealthyBudget")
        one_of(policy, known, "spec.unhealthyPodEvictionPolicy", errors)
    return errors


def validate_disruption_budget_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_disruption_budget(new)


def validate_autoscaler(o: Obj) -> list[FieldError]:
    """Of both versions: what they share, and the CPU target of v1."""
    errors: Errors = []
    spec = o.get("spec") or {}
    minimum, maximum = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if minimum is not None and minimum < 1:
        detail = "must be greater than or equal to 1"
        errors.append(invalid_value("spec.minReplicas", minimum, detail))
    if maximum < 1:
        errors.append(required("spec.maxReplicas", "must be set and greater than 0"))
    if minimum is not None and maximum < minimum:
        detail = "must be greater than or equal to `minReplicas`"
        errors.append(invalid_value("spec.maxReplicas", maximum, detail))
    _scale_target(spec.get("scaleTargetRef") or {}, errors)
    cpu = spec.get("targetCPUUtilizationPercentage")
    positive(cpu, "spec.metrics[0].resource.target.averageUtilization", errors)
    for i, metric in enumerate(spec.get("metrics") or ()):
        _metric(metric, f"spec.metrics[{i}]", errors)
    if minimum == 0:
        detail = (
            "must specify at least one Object or External metric to support scaling to zero"
            " replicas"
        )
        errors.append(forbidden_field("spec.metrics", detail))
    return errors


def _scale_target(reference: Obj, errors: Errors) -> None:
    for field in ("kind", "name"):
        value = reference.get(field, "")
        at = f"spec.scaleTargetRef.{field}"
        if not value:
            errors.append(required(at))
        else:
            check_all(names.check_path_segment(value), at, value, errors)
    version = reference.get("apiVersion", "")
    if "/" not in version and version != "v1":
        detail = "apiVersion must specify API group"
        errors.append(invalid_value("spec.scaleTargetRef.apiVersion", version, detail))


_METRICS = ("ContainerResource", "External", "Object", "Pods", "Resource")


def _metric(metric: Obj, path: str, errors: Errors) -> None:
    type_ = metric.get("type", "")
    if not type_:
        errors.append(required(f"{path}.type", "must specify a metric source type"))
        return
    if type_ not in _METRICS:
        errors.append(not_supported(f"{path}.type", type_, _METRICS))
        return
    field = type_[0].lower() + type_[1:]
    source = metric.get(field)
    if source is None:
        detail = "must populate information for the given metric source"
        errors.append(required(f"{path}.{field}", detail))
        return
    if type_ in ("Resource", "ContainerResource") and not source.get("name"):
        errors.append(required(f"{path}.{field}.name", "must specify a resource name"))
    target = source.get("target") or {}
    at = f"{path}.{field}.target"
    one_of(target.get("type", ""), ("AverageValue", "Utilization", "Value"), f"{at}.type", errors)
    positive(target.get("averageUtilization"), f"{at}.averageUtilization", errors)


def validate_autoscaler_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_autoscaler(new)
