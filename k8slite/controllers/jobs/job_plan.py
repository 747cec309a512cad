"""What becomes of a Job (pure): counting finished pods, deciding its end, sizing its work.

Finished pods are counted exactly once, whoever deletes them: each carries a finalizer; first its
uid is written into the status as not yet counted, then its finalizer is removed, and only when
that is seen does the number go up and the uid go away. A crash between two steps repeats a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import define

from k8slite.api.kinds import JOBS, PODS
from k8slite.api.meta import (
    Obj,
    condition_is,
    copy,
    deleting,
    format_time,
    name,
    parse_time,
    uid,
)
from k8slite.controllers.actions import Action, Create, Patch, delete, patch_metadata
from k8slite.controllers.jobs.job_indexes import INDEX, format_indexes, index_of, parse_indexes
from k8slite.controllers.jobs.job_policies import (
    fails_index,
    failures_of,
    next_failures,
    success_rule,
    verdict,
)
from k8slite.controllers.workloads.pods import (
    deletion_order,
    is_ready,
    is_terminal,
    phase,
    pod_from_template,
)

__all__ = ["TRACKING", "JobPlan", "is_finished", "is_tracked", "plan", "release_tracking"]

TRACKING = "batch.kubernetes.io/job-tracking"
BACKOFF_SECONDS_MAX = 600.0
NO_LIMIT = 2**31 - 1
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
BACKOFF_LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
FAILED_INDEXES = ("FailedIndexes", "Job has failed indexes")
TOO_MANY_INDEXES = (
    "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
)
SUSPENDED = ("JobSuspended", "Job suspended")
RESUMED = ("JobResumed", "Job resumed")


class JobPlan(NamedTuple):
    """The status to write first (None: as it is), finalizers to remove, pods to make or delete
    (all the same of the two), events as (type, reason, message), and when to look again."""

    status: Obj | None
    released: list[Patch]
    pods: list[Action]
    notes: list[tuple[str, str, str]]
    again: float | None


@define
class Tally:
    """Finished pods: counted for good, and still to be released."""

    succeeded: int
    failed: int
    waiting_succeeded: list[str]
    waiting_failed: list[str]
    indexes: list[int]
    failed_indexes: list[int]
    ignored: list[str]
    """Failed pods that count for nothing, by the pod failure policy."""

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.waiting_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.waiting_failed)


def is_finished(job: Obj) -> bool:
    return condition_is(job, "Complete") or condition_is(job, "Failed")


def plan(job: Obj, pods: Sequence[Obj], now: float, backoff_seconds: float) -> JobPlan:
    """The next step; `pods` are all of the Job's, finished ones too."""
    old = job.get("status") or {}
    tally = _count(job, pods)
    status = _status(job, pods, tally)
    active = [p for p in pods if not is_terminal(p) and not deleting(p)]
    notes: list[tuple[str, str, str]] = []
    actions: list[Action] = []
    again: float | None = None
    stamp = format_time(now)
    if not is_finished(job) and not deleting(job):
        suspended = bool(job["spec"].get("suspend"))
        _note_suspension(status, suspended, stamp, notes)
        if not suspended and "startTime" not in status:
            status["startTime"] = stamp
        end = _ending(job, status, tally, pods, now)
        if end is not None:
            actions = [delete(PODS, pod) for pod in active]
            _note_end(status, *end, active, tally, pods, stamp, notes)
        elif suspended:
            actions = [delete(PODS, pod) for pod in active]
        else:
            actions, again = _resize(job, tally, active, pods, now, backoff_seconds)
        again = _sooner(again, _deadline_in(job, status, now))
    changed = status if status != old else None
    written = _written(old)
    held = [] if end_is_decided(status) else _awaiting_successors(job, tally, pods)
    written = [each for each in [*written, *tally.ignored] if each not in held]
    released = [release_tracking(p) for p in pods if uid(p) in written and is_tracked(p)]
    return JobPlan(changed, released, actions, notes, again)


def _written(status: Obj) -> list[str]:
    """The uids that the stored status already knows: only these may lose their finalizer."""
    waiting = status.get("uncountedTerminatedPods") or {}
    return [*(waiting.get("succeeded") or ()), *(waiting.get("failed") or ())]


def is_tracked(pod: Obj) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def release_tracking(pod: Obj) -> Patch:
    rest = [f for f in pod["metadata"].get("finalizers") or () if f != TRACKING]
    return patch_metadata(PODS, pod, {"finalizers": rest or None})


def end_is_decided(status: Obj) -> bool:
    return any(
        c["type"] in ("SuccessCriteriaMet", "FailureTarget") and c["status"] == "True"
        for c in status.get("conditions") or ()
    )


def _awaiting_successors(job: Obj, tally: Tally, pods: Sequence[Obj]) -> list[str]:
    """Failed pods that must stay until another one has taken their index: they carry its count."""
    if job["spec"].get("backoffLimitPerIndex") is None or deleting(job):
        return []
    over = {*tally.indexes, *tally.failed_indexes}
    running = {index_of(p) for p in pods if not is_terminal(p)}
    return [
        uid(p)
        for p in pods
        if phase(p) == "Failed" and index_of(p) not in over and index_of(p) not in running
    ]


def _count(job: Obj, pods: Sequence[Obj]) -> Tally:
    status = job.get("status") or {}
    waiting = status.get("uncountedTerminatedPods") or {}
    tally = Tally(
        status.get("succeeded", 0),
        status.get("failed", 0),
        [],
        [],
        parse_indexes(status.get("completedIndexes") or ""),
        parse_indexes(status.get("failedIndexes") or ""),
        [],
    )
    tracked = {uid(p): p for p in pods if is_tracked(p)}
    for field, kept in (("succeeded", tally.waiting_succeeded), ("failed", tally.waiting_failed)):
        for object_uid in waiting.get(field) or ():
            if object_uid in tracked:
                kept.append(object_uid)
            elif field == "succeeded":
                tally.succeeded += 1
            else:
                tally.failed += 1
    known = [*tally.waiting_succeeded, *tally.waiting_failed]
    for object_uid, pod in tracked.items():
        if object_uid in known:
            continue
        if phase(pod) == "Succeeded":
            tally.waiting_succeeded.append(object_uid)
            index = index_of(pod)
            if index is not None:
                tally.indexes.append(index)
        elif phase(pod) == "Failed" or (deleting(pod) and not pod["spec"].get("nodeName")):
            judged = verdict(job, pod)
            if judged is not None and judged.action == "Ignore":
                tally.ignored.append(object_uid)
                continue
            tally.waiting_failed.append(object_uid)
            index = index_of(pod)
            lost = index is not None and fails_index(job, pod)
            if lost and index is not None and index not in tally.failed_indexes:
                tally.failed_indexes.append(index)
    return tally


def _status(job: Obj, pods: Sequence[Obj], tally: Tally) -> Obj:
    status = copy(job.get("status") or {})
    active = [p for p in pods if not is_terminal(p) and not deleting(p)]
    numbers = {
        "active": len(active),
        "succeeded": tally.succeeded,
        "failed": tally.failed,
    }
    for field, number in numbers.items():
        if number:
            status[field] = number
        else:
            status.pop(field, None)
    status["ready"] = sum(map(is_ready, active))
    status["terminating"] = sum(deleting(p) and not is_terminal(p) for p in pods)
    waiting: Obj = {}
    if tally.waiting_succeeded:
        waiting["succeeded"] = tally.waiting_succeeded
    if tally.waiting_failed:
        waiting["failed"] = tally.waiting_failed
    status["uncountedTerminatedPods"] = waiting
    if tally.indexes:
        status["completedIndexes"] = format_indexes(tally.indexes)
    if job["spec"].get("backoffLimitPerIndex") is not None:
        status["failedIndexes"] = format_indexes(tally.failed_indexes)
    return status


def _done(job: Obj, tally: Tally) -> int:
    if job["spec"].get("completionMode") == "Indexed":
        return len(dict.fromkeys(tally.indexes))
    return tally.all_succeeded


def _ending(
    job: Obj, status: Obj, tally: Tally, pods: Sequence[Obj], now: float
) -> tuple[bool, str, str] | None:
    """(success, reason, message) once the Job's end is decided."""
    decided = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    for kind, success in (("SuccessCriteriaMet", True), ("FailureTarget", False)):
        if kind in decided:
            return success, decided[kind]["reason"], decided[kind]["message"]
    spec = job["spec"]
    for pod in pods:
        judged = verdict(job, pod) if phase(pod) == "Failed" else None
        if judged is not None and judged.action == "FailJob":
            return False, "PodFailurePolicy", judged.message
    restarts = sum(
        container.get("restartCount", 0)
        for pod in pods
        if pod["spec"].get("restartPolicy") == "OnFailure" and not is_terminal(pod)
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
    )
    per_index = spec.get("backoffLimitPerIndex") is not None
    limit = spec.get("backoffLimit", NO_LIMIT if per_index else 6)
    if tally.all_failed > limit or restarts > limit:
        return False, *BACKOFF_LIMIT
    left = _deadline_in(job, status, now)
    if left is not None and left <= 0:
        return False, *DEADLINE
    most = spec.get("maxFailedIndexes")
    if most is not None and len(tally.failed_indexes) > most:
        return False, *TOO_MANY_INDEXES
    matched = success_rule(job, tally.indexes)
    if matched:
        return True, "SuccessPolicy", matched
    completions = spec.get("completions")
    running = any(not is_terminal(p) for p in pods)
    if completions is None:
        enough = tally.all_succeeded > 0 and not running
    elif tally.failed_indexes:
        over = len({*tally.indexes, *tally.failed_indexes}) >= completions
        return (False, *FAILED_INDEXES) if over else None
    else:
        enough = _done(job, tally) >= completions
    return (True, *REACHED) if enough else None


def _note_end(
    status: Obj,
    success: bool,
    reason: str,
    message: str,
    active: Sequence[Obj],
    tally: Tally,
    pods: Sequence[Obj],
    stamp: str,
    notes: list[tuple[str, str, str]],
) -> None:
    """First that the end is decided; when no pod runs and all are counted, the end itself."""
    interim = "SuccessCriteriaMet" if success else "FailureTarget"
    _add_condition(status, interim, "True", reason, message, stamp)
    running = any(not is_terminal(p) for p in pods)
    if active or running or tally.waiting_succeeded or tally.waiting_failed:
        return
    if _add_condition(status, "Complete" if success else "Failed", "True", reason, message, stamp):
        if success:
            status["completionTime"] = stamp
            notes.append(("Normal", "Completed", "Job completed"))
        else:
            notes.append(("Warning", reason, message))


def _add_condition(
    status: Obj, kind: str, value: str, reason: str, message: str, stamp: str
) -> bool:
    """Set a condition; False if it says so already."""
    conditions = status.setdefault("conditions", [])
    new = {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastProbeTime": stamp,
        "lastTransitionTime": stamp,
    }
    for i, old in enumerate(conditions):
        if old["type"] == kind:
            if old["status"] == value:
                return False
            conditions[i] = new
            return True
    conditions.append(new)
    return True


def _note_suspension(
    status: Obj, suspended: bool, stamp: str, notes: list[tuple[str, str, str]]
) -> None:
    was = condition_is({"status": status}, "Suspended")
    if suspended and not was:
        _add_condition(status, "Suspended", "True", *SUSPENDED, stamp)
        status.pop("startTime", None)
        notes.append(("Normal", "Suspended", "Job suspended"))
    elif was and not suspended:
        _add_condition(status, "Suspended", "False", *RESUMED, stamp)
        status["startTime"] = stamp
        notes.append(("Normal", "Resumed", "Job resumed"))


def _resize(
    job: Obj,
    tally: Tally,
    active: Sequence[Obj],
    pods: Sequence[Obj],
    now: float,
    backoff_seconds: float,
) -> tuple[list[Action], float | None]:
    """Pods to make or to delete; after failures new ones wait, twice as long each time."""
    spec = job["spec"]
    parallelism = spec.get("parallelism", 1)
    completions = spec.get("completions")
    if completions is None:
        wanted = len(active) if tally.all_succeeded else parallelism
    else:
        lost = len({*tally.failed_indexes} - {*tally.indexes})
        wanted = min(parallelism, completions - _done(job, tally) - lost)
    if len(active) > wanted:
        victims = deletion_order(active, active)[: len(active) - wanted]
        return [delete(PODS, pod) for pod in victims], None
    occupied = active
    if spec.get("podReplacementPolicy") == "Failed":
        occupied = [p for p in pods if not is_terminal(p)]
    missing = wanted - len(occupied)
    if missing <= 0:
        return [], None
    per_index = spec.get("backoffLimitPerIndex") is not None
    wait = 0.0 if per_index else _backoff(tally.all_failed, pods, now, backoff_seconds)
    if wait > 0:
        return [], wait
    if spec.get("completionMode") == "Indexed":
        return _indexed(job, tally, occupied, missing, pods, now, backoff_seconds)
    return [Create(PODS, _new_pod(job))] * missing, None


def _new_pod(job: Obj) -> Obj:
    pod = pod_from_template(job["spec"]["template"], JOBS, job)
    pod["metadata"].setdefault("finalizers", []).append(TRACKING)
    return pod


def _indexed(
    job: Obj,
    tally: Tally,
    occupied: Sequence[Obj],
    missing: int,
    pods: Sequence[Obj],
    now: float,
    backoff_seconds: float,
) -> tuple[list[Action], float | None]:
    """The lowest indexes that are neither done, nor lost, nor running; with a limit for each index,
    each waits for itself after its own failures."""
    taken = {*tally.indexes, *tally.failed_indexes, *(index_of(p) for p in occupied)}
    failed: dict[int | None, list[Obj]] = {}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        for pod in pods:
            if phase(pod) == "Failed":
                failed.setdefault(index_of(pod), []).append(pod)
    actions: list[Action] = []
    again: float | None = None
    for index in range(job["spec"]["completions"]):
        if len(actions) >= missing:
            break
        if index in taken:
            continue
        before = failed.get(index, [])
        failures = max((failures_of(p) + 1 for p in before), default=0)
        wait = _backoff(failures, before, now, backoff_seconds)
        if wait > 0:
            again = _sooner(again, wait)
            continue
        actions.append(Create(PODS, _indexed_pod(job, index, before)))
    return actions, again


def _indexed_pod(job: Obj, index: int, before: Sequence[Obj]) -> Obj:
    pod = _new_pod(job)
    metadata = pod["metadata"]
    metadata["generateName"] = f"{name(job)}-{index}-"
    notes = metadata.setdefault("annotations", {})
    notes[INDEX] = str(index)
    notes.update(next_failures(job, before))
    metadata.setdefault("labels", {})[INDEX] = str(index)
    pod["spec"].setdefault("hostname", f"{name(job)}-{index}")
    source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]:
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
        container["env"] = [*(container.get("env") or ()), variable]
    return pod


def _backoff(failures: int, pods: Sequence[Obj], now: float, seconds: float) -> float:
    """Seconds that a new pod must wait because of the failures so far."""
    if not failures:
        return 0.0
    ends = [_finished_at(p) for p in pods if phase(p) == "Failed"]
    last = max((end for end in ends if end is not None), default=None)
    if last is None:
        return 0.0
    delay: float = seconds * 2.0 ** min(failures - 1, 20)
    return max(0.0, last + min(delay, BACKOFF_SECONDS_MAX) - now)


def _finished_at(pod: Obj) -> float | None:
    times = [
        (container.get("state") or {}).get("terminated", {}).get("finishedAt")
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            times.append(condition.get("lastTransitionTime"))
    known = [parse_time(t) for t in times if t]
    if known:
        return max(known)
    created = pod["metadata"].get("creationTimestamp")
    return parse_time(created) if created else None


def _deadline_in(job: Obj, status: Obj, now: float) -> float | None:
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or not status.get("startTime") or job["spec"].get("suspend"):
        return None
    return parse_time(status["startTime"]) + float(seconds) - now


def _sooner(a: float | None, b: float | None) -> float | None:
    times = [t for t in (a, b) if t is not None and t > 0]
    return min(times, default=None)
