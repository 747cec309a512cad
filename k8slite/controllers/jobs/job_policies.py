"""What a Job says about failures and success of single pods and indexes (pure).

Owns the annotations that carry an index's failures from a failed pod to the one in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api import meta
from k8slite.api.meta import Obj, key
from k8slite.controllers.jobs.job_indexes import parse_indexes

__all__ = [
    "FAILURES",
    "MANAGED_BY_US",
    "Verdict",
    "fails_index",
    "failures_of",
    "is_ours",
    "next_failures",
    "success_rule",
    "verdict",
]

FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
MANAGED_BY_US = "kubernetes.io/job-controller"


class Verdict(NamedTuple):
    """What a rule of the pod failure policy says of a failed pod: FailJob, FailIndex, Ignore or
    Count, and why."""

    action: str
    message: str


def is_ours(job: Obj) -> bool:
    """Does this controller manage the Job, or one of the user's own (`managedBy`)?"""
    return job["spec"].get("managedBy") in (None, MANAGED_BY_US)


def verdict(job: Obj, pod: Obj) -> Verdict | None:
    """The first rule that matches a failed pod, or None."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        action = rule["action"]
        if action == "FailIndex" and job["spec"].get("backoffLimitPerIndex") is None:
            continue
        why = _by_exit_code(rule.get("onExitCodes"), pod) or _by_condition(
            rule.get("onPodConditions") or (), pod
        )
        if why:
            return Verdict(action, f"{why} matching {action} rule at index {number}")
    return None


def _by_exit_code(wanted: Obj | None, pod: Obj) -> str:
    if wanted is None:
        return ""
    status = pod.get("status") or {}
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        if wanted.get("containerName") not in (None, "", container["name"]):
            continue
        ended = (container.get("state") or {}).get("terminated")
        if ended is None or not ended.get("exitCode"):
            continue
        inside = ended["exitCode"] in wanted["values"]
        if inside == (wanted["operator"] == "In"):
            return (
                f"Container {container['name']} for pod {key(pod)} failed with exit code "
                f"{ended['exitCode']}"
            )
    return ""


def _by_condition(patterns: Sequence[Obj], pod: Obj) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        for pattern in patterns:
            same_type = condition["type"] == pattern["type"]
            if same_type and condition["status"] == pattern.get("status", "True"):
                return f"Pod {key(pod)} has condition {condition['type']}"
    return ""


def failures_of(pod: Obj) -> int:
    """How often the pod's index had failed before it."""
    text = meta.annotations(pod).get(FAILURES, "0")
    return int(text) if text.isdigit() else 0


def fails_index(job: Obj, pod: Obj) -> bool:
    """Is the index of this failed pod lost?"""
    limit = job["spec"].get("backoffLimitPerIndex")
    if limit is None:
        return False
    found = verdict(job, pod)
    if found is not None and found.action in ("FailIndex", "Ignore"):
        return found.action == "FailIndex"
    return bool(failures_of(pod) >= limit)


def next_failures(job: Obj, failed: Sequence[Obj]) -> dict[str, str]:
    """The annotations of the pod that takes the place of these, all of one index."""
    if job["spec"].get("backoffLimitPerIndex") is None:
        return {}
    failures = ignored = 0
    for pod in failed:
        found = verdict(job, pod)
        skip = found is not None and found.action == "Ignore"
        failures = max(failures, failures_of(pod) + (not skip))
        before = meta.annotations(pod).get(IGNORED, "0")
        ignored = max(ignored, (int(before) if before.isdigit() else 0) + skip)
    return {FAILURES: str(failures), **({IGNORED: str(ignored)} if ignored else {})}


def success_rule(job: Obj, completed: Sequence[int]) -> str:
    """Which rule of the success policy the completed indexes fulfil; "" for none."""
    rules = (job["spec"].get("successPolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        done = {*completed}
        named = rule.get("succeededIndexes")
        wanted = {*parse_indexes(named)} if named else None
        counted = len(done if wanted is None else done & wanted)
        least = rule.get("succeededCount")
        if least is None:
            least = len(wanted or ())
        if counted >= least:
            return f"Matched rules at index {number}"
    return ""
