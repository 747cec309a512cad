"""Deployments, sets, jobs, autoscalers, disruption budgets."""

from __future__ import annotations

from typing import Any

from k8slite.api import names, selectors
from k8slite.api.meta import Obj
from k8slite.api.status import (
    NULL,
    OMITTED,
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    quote,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    int_or_percent,
    label_selector,
    not_more_than_100_percent,
    not_negative,
    one_of,
    percent_value,
    positive,
)
from k8slite.api.validation.pods import validate_pod_template
from k8slite.api.validation.volumes import claim_spec

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


def validate_deployment(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    selector = spec.get("selector")
    _selector(selector, "deployment", errors)
    if selector is not None and not _selector_ok(selector):
        errors.append(invalid_value("spec.selector", selector, "invalid label selector"))
    else:
        _template_for_selector(spec.get("template") or {}, selector, errors)
        if (spec.get("replicas") or 0) >= 0:
            _restart_always(spec.get("template") or {}, errors)
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
    _immutable(new, old, "selector", errors)
    return errors


def _immutable(new: Obj, old: Obj, field: str, errors: Errors) -> None:
    now, was = (new.get("spec") or {}).get(field), (old.get("spec") or {}).get(field)
    if now != was:
        errors.append(invalid_value(f"spec.{field}", now, IMMUTABLE))


def validate_replica_set(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    not_negative(spec.get("replicas"), "spec.replicas", errors)
    not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds", errors)
    selector = spec.get("selector")
    _selector(selector, "deployment", errors)
    if selector is not None and not _selector_ok(selector):
        errors.append(invalid_value("spec.selector", selector, "invalid label selector"))
    else:
        _template_for_selector(spec.get("template") or {}, selector, errors)
        if (spec.get("replicas") or 0) >= 0:
            _restart_always(spec.get("template") or {}, errors)
    return errors


def validate_replica_set_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_replica_set(new)
    _immutable(new, old, "selector", errors)
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
    _immutable(new, old, "selector", errors)
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


def validate_job(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    _job_spec(spec, "spec", errors)
    return errors


_JOB_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)


def _job_spec(spec: Obj, path: str, errors: Errors) -> None:
    for field in _JOB_COUNTS:
        not_negative(spec.get(field), f"{path}.{field}", errors)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        detail = "when maxFailedIndexes is specified"
        errors.append(required(f"{path}.backoffLimitPerIndex", detail))
    _managed_by(spec.get("managedBy"), f"{path}.managedBy", errors)
    mode = spec.get("completionMode")
    if mode is not None:
        one_of(mode, ("NonIndexed", "Indexed"), f"{path}.completionMode", errors)
    if mode == "Indexed" and spec.get("completions") is None:
        at = f"{path}.completions"
        errors.append(required(at, f"when completion mode is {mode}"))
    _only_indexed(spec, path, mode, errors)
    if spec.get("podFailurePolicy") is not None:
        _failure_policy(spec, f"{path}.podFailurePolicy", errors)
    if spec.get("successPolicy") is not None and mode == "Indexed":
        _success_policy(spec["successPolicy"], f"{path}.successPolicy.rules", errors)
    _replacement_policy(spec, path, errors)
    template = spec.get("template") or {}
    if spec.get("selector"):
        label_selector(spec["selector"], f"{path}.selector", errors)
    validate_pod_template(template, f"{path}.template", errors)
    _job_restart_policy(spec, template, path, errors)


def _success_policy(policy: Obj, path: str, errors: Errors) -> None:
    rules = policy.get("rules") or []
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(path, detail))
    for i, rule in enumerate(rules):
        at, indexes = f"{path}[{i}]", rule.get("succeededIndexes")
        if indexes is None and rule.get("succeededCount") is None:
            detail = "at least one of succeededCount or succeededIndexes must be specified"
            errors.append(required(at, detail))
        for part in (indexes or "").split(",") if indexes is not None else ():
            bad = next((n for n in part.split("-") if not n.isdigit()), None)
            if bad is not None:
                detail = (
                    "error parsing succeededIndexes: cannot convert string to integer for index:"
                    f" {quote(bad)}"
                )
                errors.append(invalid_value(f"{at}.succeededIndexes", indexes, detail))
                break


def _managed_by(value: str | None, path: str, errors: Errors) -> None:
    if value is None:
        return
    if not value:
        errors.append(required(path))
        return
    if "/" not in value:
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        errors.append(invalid_value(path, value, detail))
    if len(value) > 63:
        errors.append(FieldError("Too long", path, "", "may not be more than 63 bytes"))


def _only_indexed(spec: Obj, path: str, mode: str | None, errors: Errors) -> None:
    if mode == "Indexed":
        return
    detail = "requires indexed completion mode"
    for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if spec.get(field) is not None:
            errors.append(invalid_value(f"{path}.{field}", spec[field], detail))
    policy = spec.get("successPolicy")
    if policy is not None:
        rules = [
            {
                "SucceededIndexes": r.get("succeededIndexes"),
                "SucceededCount": r.get("succeededCount"),
            }
            for r in policy.get("rules") or ()
        ]
        errors.append(invalid_value(f"{path}.successPolicy", {"Rules": rules or None}, detail))


_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def _failure_policy(spec: Obj, path: str, errors: Errors) -> None:
    for i, rule in enumerate(spec["podFailurePolicy"].get("rules") or ()):
        at = f"{path}.rules[{i}]"
        action = rule.get("action", "")
        if not action:
            shown = " ".join(quote(a) for a in _ACTIONS)
            errors.append(required(f"{at}.action", f"valid values: [{shown}]"))
        elif action not in _ACTIONS:
            errors.append(not_supported(f"{at}.action", action, _ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None:
            known = ("In", "NotIn")
            one_of(codes.get("operator", ""), known, f"{at}.onExitCodes.operator", errors)
            if not codes.get("values"):
                detail = "at least one value is required"
                errors.append(invalid_value(f"{at}.onExitCodes.values", [], detail))
        if codes is not None and conditions:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(FieldError("Invalid value", at, OMITTED, detail))
        if codes is None and not conditions:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(FieldError("Invalid value", at, OMITTED, detail))


def _replacement_policy(spec: Obj, path: str, errors: Errors) -> None:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return
    known: tuple[str, ...] = ("Failed", "TerminatingOrFailed")
    if spec.get("podFailurePolicy") is not None:
        known = ("Failed",)
    one_of(policy, known, f"{path}.podReplacementPolicy", errors)


def _job_restart_policy(spec: Obj, template: Obj, path: str, errors: Errors) -> None:
    policy = (template.get("spec") or {}).get("restartPolicy", "")
    at = f"{path}.template.spec.restartPolicy"
    if policy in ("", "Always"):
        errors.append(required(at, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(not_supported(at, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        errors.append(invalid_value(at, policy, detail))


def validate_job_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    _job_spec(new.get("spec") or {}, "spec", errors)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    if spec.get("completions") != was.get("completions"):
        indexed = spec.get("completionMode") == "Indexed"
        if not (indexed and spec.get("completions") == spec.get("parallelism")):
            errors.append(invalid_value("spec.completions", spec.get("completions"), IMMUTABLE))
    for field in (
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        _immutable(new, old, field, errors)
    if not _template_may_change(new, old):
        now, before = spec.get("template"), was.get("template")
        if now != before:
            errors.append(invalid_value("spec.template", now, IMMUTABLE))
    return errors


def _template_may_change(new: Obj, old: Obj) -> bool:
    """A suspended job that never started may still change where its pods run."""
    status = old.get("status") or {}
    suspended = (old.get("spec") or {}).get("suspend")
    return bool(suspended) and not status.get("startTime") and bool(new)


def validate_cron_job(o: Obj) -> list[FieldError]:
    errors: Errors = []
    name = o["metadata"].get("name", "")
    if len(name) > 52:
        detail = "must be no more than 52 characters"
        errors.append(invalid_value("metadata.name", name, detail))
    spec = o.get("spec") or {}
    _cron_job_spec(spec, errors)
    return errors


def _cron_job_spec(spec: Obj, errors: Errors) -> None:
    schedule = spec.get("schedule", "")
    if not schedule:
        errors.append(required("spec.schedule"))
    else:
        problem = cron_error(schedule)
        if problem:
            errors.append(invalid_value("spec.schedule", schedule, problem))
    not_negative(spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds", errors)
    zone = spec.get("timeZone")
    if zone == "":
        detail = "timeZone must be nil or non-empty string"
        errors.append(invalid_value("spec.timeZone", zone, detail))
    policy = spec.get("concurrencyPolicy", "")
    if policy not in ("Allow", "Forbid", "Replace"):
        at = "spec.concurrencyPolicy"
        known = ("Allow", "Forbid", "Replace")
        errors.append(not_supported(at, policy, known) if policy else required(at))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    _job_spec(job, "spec.jobTemplate.spec", errors)
    not_negative(spec.get("successfulJobsHistoryLimit"), "spec.successfulJobsHistoryLimit", errors)
    not_negative(spec.get("failedJobsHistoryLimit"), "spec.failedJobsHistoryLimit", errors)


def validate_cron_job_update(new: Obj, _old: Obj) -> list[FieldError]:
    errors: Errors = []
    _cron_job_spec(new.get("spec") or {}, errors)
    return errors


_CRON_FIELDS = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    (0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_CRON_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def cron_error(schedule: str) -> str:
    """Why robfig/cron would refuse a standard schedule; "" where it would not."""
    if schedule.startswith("@"):
        if schedule in _CRON_WORDS or schedule.startswith("@every "):
            return ""
        return f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for text, (low, high, words) in zip(fields, _CRON_FIELDS, strict=True):
        for part in text.split(","):
            problem = _cron_part(part, low, high, words)
            if problem:
                return problem
    return ""


def _cron_part(part: str, low: int, high: int, words: tuple[str, ...]) -> str:
    span, slash, step = part.partition("/")
    if part.count("/") > 1:
        return f"too many slashes: {part}"
    if span.count("-") > 1:
        return f"too many hyphens: {part}"
    first, dash, last = span.partition("-")
    if first in ("*", "?"):
        start, end = low, high
    else:
        numbers = [words.index(t.lower()) + low if t.lower() in words else t for t in (first, last)]
        try:
            start = int(numbers[0])
            end = int(numbers[1]) if dash else (high if slash else start)
        except ValueError:
            bad = first if not str(numbers[0]).isdigit() else last
            return f'failed to parse int from {bad}: strconv.Atoi: parsing "{bad}": invalid syntax'
    if slash and not step.isdigit():
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    if start < low:
        return f"beginning of range ({start}) below minimum ({low}): {part}"
    if end > high:
        return f"end of range ({end}) above maximum ({high}): {part}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {part}"
    if slash and int(step) == 0:
        return f"step of range should be a positive number: {part}"
    return ""


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
