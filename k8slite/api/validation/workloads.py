"""Deployments, sets, jobs, autoscalers, disruption budgets."""

from __future__ import annotations

from typing import Any

from k8slite.api import selectors
from k8slite.api.meta import Obj
from k8slite.api.status import (
    NULL,
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.claims import claim_spec
from k8slite.api.validation.common import (
    Errors,
    int_or_percent,
    label_selector,
    not_more_than_100_percent,
    not_negative,
    one_of,
    percent_value,
)
from k8slite.api.validation.pods import validate_pod_template

IMMUTABLE = "field is immutable"
_ALWAYS = ("Always",)


def _matches(selector: Obj, labels: dict[str, str]) -> bool:
    try:
        return selectors.from_object(selector).matches(labels)
    except selectors.SelectorError:
        return True


def _selector_ok(selector: Obj) -> bool:
    try:
        selectors.from_object(selector)
    except selectors.SelectorError:
        return False
    return True


def _template_for_selector(template: Obj, selector: Obj | None, errors: Errors) -> None:
    labels = (template.get("metadata") or {}).get("labels")
    empty = not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))
    if selector is None or (not empty and not _matches(selector, labels or {})):
        detail = "`selector` does not match template `labels`"
        errors.append(invalid_value("spec.template.metadata.labels", labels or NULL, detail))
    validate_pod_template(template, "spec.template", errors)


def _restart_always(template: Obj, errors: Errors) -> None:
    spec = template.get("spec") or {}
    policy = spec.get("restartPolicy")
    if policy != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, _ALWAYS))
    if spec.get("activeDeadlineSeconds") is not None:
        detail = "activeDeadlineSeconds in ReplicaSet is not Supported"
        errors.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", detail))


def _selector(selector: Obj | None, what: str, errors: Errors) -> bool:
    """False where the selector is missing, so that there is nothing to compare labels with."""
    if selector is None:
        errors.append(required("spec.selector"))
        return False
    label_selector(selector, "spec.selector", errors)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        detail = f"empty selector is invalid for {what}"
        errors.append(invalid_value("spec.selector", selector, detail))
    return True


def _selector_and_template(spec: Obj, errors: Errors) -> None:
    """Those of a Deployment or ReplicaSet, whose messages both speak of deployments."""
    selector = spec.get("selector")
    _selector(selector, "deployment", errors)
    if selector is not None and not _selector_ok(selector):
        errors.append(invalid_value("spec.selector", selector, "invalid label selector"))
    else:
        _template_for_selector(spec.get("template") or {}, selector, errors)
        if (spec.get("replicas") or 0) >= 0:
            _restart_always(spec.get("template") or {}, errors)


def validate_deployment(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    _selector_and_template(spec, errors)
    _deployment_strategy(spec.get("strategy") or {}, errors)
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    not_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit", errors)
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        not_negative(deadline, "spec.progressDeadlineSeconds", errors)
        if deadline <= spec.get("minReadySeconds", 0):
            detail = "must be greater than minReadySeconds"
            errors.append(invalid_value("spec.progressDeadlineSeconds", deadline, detail))
    return errors


def _deployment_strategy(strategy: Obj, errors: Errors) -> None:
    type_, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if type_ == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden_field("spec.strategy.rollingUpdate", detail))
    elif type_ == "RollingUpdate":
        if rolling is None:
            detail = "this should be defaulted and never be nil"
            errors.append(required("spec.strategy.rollingUpdate", detail))
            return
        at = "spec.strategy.rollingUpdate"
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        int_or_percent(unavailable, f"{at}.maxUnavailable", errors)
        int_or_percent(surge, f"{at}.maxSurge", errors)
        if _is_zero(unavailable) and _is_zero(surge):
            detail = "may not be 0 when `maxSurge` is 0"
            errors.append(invalid_value(f"{at}.maxUnavailable", unavailable, detail))
        not_more_than_100_percent(unavailable, f"{at}.maxUnavailable", errors)
    else:
        shown = {"Type": type_, "RollingUpdate": rolling}
        errors.append(not_supported("spec.strategy", shown, ("Recreate", "RollingUpdate")))


def _is_zero(value: Any) -> bool:
    return value == 0 or percent_value(value) == 0


def validate_deployment_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_deployment(new)
    immutable(new, old, "selector", errors)
    return errors


def immutable(new: Obj, old: Obj, field: str, errors: Errors) -> None:
    now, was = (new.get("spec") or {}).get(field), (old.get("spec") or {}).get(field)
    if now != was:
        errors.append(invalid_value(f"spec.{field}", now, IMMUTABLE))


def validate_replica_set(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    _selector_and_template(spec, errors)
    return errors


def validate_replica_set_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_replica_set(new)
    immutable(new, old, "selector", errors)
    return errors


def validate_replication_controller(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    if not spec.get("selector"):
        errors.append(required("spec.selector"))
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    template = spec.get("template")
    if template is None:
        errors.append(required("spec.template"))
        return errors
    labels = (template.get("metadata") or {}).get("labels") or {}
    if spec.get("selector") and not selectors.from_map(spec["selector"]).matches(labels):
        detail = "`selector` does not match template `labels`"
        errors.append(invalid_value("spec.template.metadata.labels", labels or NULL, detail))
    validate_pod_template(template, "spec.template", errors)
    _restart_always(template, errors)
    return errors


def validate_replication_controller_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_replication_controller(new)


def validate_daemon_set(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    selector = spec.get("selector") or {}
    label_selector(selector, "spec.selector", errors)
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    ok = _selector_ok(selector)
    if ok and (spec.get("selector") is None or not _matches(selector, labels or {})):
        detail = "`selector` does not match template `labels`"
        errors.append(invalid_value("spec.template.metadata.labels", labels or NULL, detail))
    if spec.get("selector") is not None and not selector:
        detail = "empty selector is invalid for daemonset"
        errors.append(invalid_value("spec.selector", selector, detail))
    validate_pod_template(template, "spec.template", errors)
    _restart_always(template, errors)
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    _daemon_strategy(spec.get("updateStrategy") or {}, errors)
    not_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit", errors)
    return errors


def _daemon_strategy(strategy: Obj, errors: Errors) -> None:
    type_, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if type_ == "OnDelete":
        return
    if type_ != "RollingUpdate":
        errors.append(
            not_supported("spec.updateStrategy.type", type_, ("RollingUpdate", "OnDelete"))
        )
        return
    at = "spec.updateStrategy.rollingUpdate"
    if rolling is None:
        errors.append(required(at))
        return
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    int_or_percent(unavailable, f"{at}.maxUnavailable", errors)
    int_or_percent(surge, f"{at}.maxSurge", errors)
    not_more_than_100_percent(unavailable, f"{at}.maxUnavailable", errors)
    not_more_than_100_percent(surge, f"{at}.maxSurge", errors)
    has_unavailable, has_surge = _non_zero(unavailable), _non_zero(surge)
    if has_unavailable and has_surge:
        detail = "may not be set when maxUnavailable is non-zero"
        errors.append(invalid_value(f"{at}.maxSurge", surge, detail))
    elif not has_unavailable and not has_surge:
        errors.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))


def _non_zero(value: Any) -> bool:
    percent = percent_value(value)
    if isinstance(value, str):
        return bool(percent)
    return bool(value)


def validate_daemon_set_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_daemon_set(new)
    immutable(new, old, "selector", errors)
    return errors


_POD_MANAGEMENT = ("OrderedReady", "Parallel")
_RETENTION = ("Retain", "Delete")


def validate_stateful_set(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    management = spec.get("podManagementPolicy", "")
    if management not in _POD_MANAGEMENT:
        detail = "must be 'OrderedReady' or 'Parallel'"
        at = "spec.podManagementPolicy"
        errors.append(invalid_value(at, management, detail) if management else required(at))
    _stateful_strategy(spec.get("updateStrategy") or {}, errors)
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        at = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
        one_of(retention.get(field, ""), _RETENTION, at, errors)
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    start = (spec.get("ordinals") or {}).get("start")
    not_negative(start, "spec.ordinals.start", errors)
    selector = spec.get("selector")
    if selector is None:
        errors.append(required("spec.selector"))
    else:
        label_selector(selector, "spec.selector", errors)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            detail = "empty selector is invalid for statefulset"
            errors.append(invalid_value("spec.selector", selector, detail))
    _claim_templates(spec.get("volumeClaimTemplates") or [], errors)
    template = spec.get("template") or {}
    if selector is not None and not _selector_ok(selector):
        errors.append(invalid_value("spec.selector", selector, ""))
    else:
        _template_for_selector(_with_claims(template, spec), selector, errors)
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, _ALWAYS))
    if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None:
        detail = "activeDeadlineSeconds in StatefulSet is not Supported"
        errors.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", detail))
    return errors


def _claim_templates(claims: list[Obj], errors: Errors) -> None:
    for i, claim in enumerate(claims):
        claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{i}].spec", errors)


def _with_claims(template: Obj, spec: Obj) -> Obj:
    """The template with a volume per claim template: its containers may mount them by name."""
    claims = spec.get("volumeClaimTemplates") or []
    if not claims:
        return template
    named = [(c.get("metadata") or {}).get("name", "") for c in claims]
    volumes = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in named]
    pod = template.get("spec") or {}
    own = [v for v in pod.get("volumes") or () if v.get("name") not in named]
    return {**template, "spec": {**pod, "volumes": [*volumes, *own]}}


def _stateful_strategy(strategy: Obj, errors: Errors) -> None:
    type_, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if not type_:
        errors.append(required("spec.updateStrategy"))
    elif type_ == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            at = "spec.updateStrategy.rollingUpdate"
            errors.append(invalid_value(at, rolling, detail))
    elif type_ == "RollingUpdate":
        at = "spec.updateStrategy.rollingUpdate"
        not_negative((rolling or {}).get("partition"), f"{at}.partition", errors)
        unavailable = (rolling or {}).get("maxUnavailable")
        if unavailable is not None:
            int_or_percent(unavailable, f"{at}.maxUnavailable", errors)
            if _is_zero(unavailable):
                errors.append(invalid_value(f"{at}.maxUnavailable", unavailable, "cannot be 0"))
            not_more_than_100_percent(unavailable, f"{at}.maxUnavailable", errors)
    else:
        shown = {"Type": type_, "RollingUpdate": rolling}
        detail = "must be 'RollingUpdate' or 'OnDelete'"
        errors.append(invalid_value("spec.updateStrategy", shown, detail))


_STATEFUL_MUTABLE = frozenset(
    (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
)


def validate_stateful_set_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_stateful_set(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    if any(spec.get(k) != was.get(k) for k in (spec.keys() | was.keys()) - _STATEFUL_MUTABLE):
        detail = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',"
            " 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and"
            " 'minReadySeconds' are forbidden"
        )
        errors.append(forbidden_field("spec", detail))
    return errors


def validate_pod_template_object(o: Obj) -> list[FieldError]:
    errors: Errors = []
    validate_pod_template(o.get("template") or {}, "template", errors)
    return errors


def validate_controller_revision(o: Obj) -> list[FieldError]:
    errors: Errors = []
    if o.get("data") is None:
        errors.append(required("data", "data is mandatory"))
    not_negative(o.get("revision"), "revision", errors)
    return errors


def validate_controller_revision_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_controller_revision(new)
    if new.get("data") != old.get("data"):
        errors.append(invalid_value("data", new.get("data"), IMMUTABLE))
    return errors
