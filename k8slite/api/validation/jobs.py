"""Jobs and cron jobs, and the grammar of schedules."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.api.status import (
    OMITTED,
    FieldError,
    invalid_value,
    not_supported,
    quote,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    label_selector,
    not_negative,
    one_of,
)
from k8slite.api.validation.pods import validate_pod_template
from k8slite.api.validation.workloads import IMMUTABLE, immutable


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
        for part in indexes.split(",") if indexes else ():
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
        immutable(new, old, field, errors)
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
