"""The status of a Deployment (pure): counts, and conditions as `kubectl rollout status` reads."""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.meta import Obj, copy, format_time, generation, get_condition, name, parse_time
from k8slite.controllers.workloads.rollout import available, max_unavailable, replicas

__all__ = ["is_complete", "next_check", "note_progress", "pause_conditions", "status_of"]

PROGRESSING = "Progressing"
COMPLETED = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
NO_DEADLINE = 2**31 - 1


def has_deadline(deployment: Obj) -> bool:
    return deadline_seconds(deployment) < NO_DEADLINE


def deadline_seconds(deployment: Obj) -> int:
    seconds: int = deployment["spec"].get("progressDeadlineSeconds", NO_DEADLINE)
    return seconds


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Every pod asked for is of the newest set and available, and there are no others."""
    wanted = replicas(deployment)
    return bool(
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= generation(deployment)
    )


def status_of(
    deployment: Obj, replica_sets: Sequence[Obj], new: Obj | None, now: float, *, progress: bool
) -> Obj:
    """The whole status. `progress`: judge the rollout's progress too (not while paused)."""
    status = _counts(deployment, replica_sets, new)
    _note_availability(deployment, status, now)
    if not has_deadline(deployment):
        _remove(status, PROGRESSING)
    elif progress:
        _judge_progress(deployment, status, new, now)
    _note_failures(status, replica_sets, new, now)
    return status


def note_progress(status: Obj, reason: str, message: str, now: float, *, ok: str = "True") -> bool:
    """Set the Progressing condition; False if it says so already."""
    condition = {"type": PROGRESSING, "status": ok, "reason": reason, "message": message}
    return _set(status, condition, now)


def pause_conditions(deployment: Obj, status: Obj, now: float) -> bool:
    """Note pausing and resuming; the deadline does not run meanwhile. True if status changed."""
    if not has_deadline(deployment):
        return False
    condition = get_condition({"status": status}, PROGRESSING)
    reason = condition.get("reason") if condition else None
    if reason == TIMED_OUT:
        return False
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != PAUSED:
        return note_progress(status, PAUSED, "Deployment is paused", now, ok="Unknown")
    if not paused and reason == PAUSED:
        message = "Deployment is resumed"
        return note_progress(status, "DeploymentResumed", message, now, ok="Unknown")
    return False


def next_check(deployment: Obj, status: Obj, now: float) -> float | None:
    """In how many seconds the progress deadline will have passed; None if it does not run."""
    condition = get_condition({"status": status}, PROGRESSING)
    if condition is None or not has_deadline(deployment) or is_complete(deployment, status):
        return None
    if condition.get("reason") in (TIMED_OUT, COMPLETED, PAUSED):
        return None
    since = parse_time(condition["lastUpdateTime"])
    return max(1.0, since + deadline_seconds(deployment) - now + 1)


def _counts(deployment: Obj, replica_sets: Sequence[Obj], new: Obj | None) -> Obj:
    old = deployment.get("status") or {}

    def count(field: str, sets: Sequence[Obj]) -> int:
        return sum((o.get("status") or {}).get(field, 0) for o in sets)

    running = sum(map(replicas, replica_sets))
    ready = sum(map(available, replica_sets))
    status: Obj = {"observedGeneration": generation(deployment)}
    counts = {
        "replicas": count("replicas", replica_sets),
        "updatedReplicas": count("replicas", [new] if new else []),
        "readyReplicas": count("readyReplicas", replica_sets),
        "availableReplicas": ready,
        "unavailableReplicas": max(0, running - ready),
    }
    status.update({field: number for field, number in counts.items() if number})
    status["terminatingReplicas"] = count("terminatingReplicas", replica_sets)
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    if old.get("conditions"):
        status["conditions"] = copy(old["conditions"])
    return status


def _note_availability(deployment: Obj, status: Obj, now: float) -> None:
    least = replicas(deployment) - max_unavailable(deployment)
    enough = status.get("availableReplicas", 0) >= least
    condition = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": "Deployment has minimum availability."
        if enough
        else "Deployment does not have minimum availability.",
    }
    _set(status, condition, now)


def _judge_progress(deployment: Obj, status: Obj, new: Obj | None, now: float) -> None:
    current = get_condition(deployment, PROGRESSING)
    reason = current.get("reason") if current else None
    if status.get("replicas") == status.get("updatedReplicas") and reason == COMPLETED:
        return  # it was complete, and it is no rollout that pods come and go
    who = f'ReplicaSet "{name(new)}"' if new else f'Deployment "{name(deployment)}"'
    if is_complete(deployment, status):
        note_progress(status, COMPLETED, f"{who} has successfully progressed.", now)
    elif _progressed(deployment.get("status") or {}, status):
        was_true = current is not None and current.get("status") == "True"
        _remove(status, PROGRESSING)
        note_progress(status, "ReplicaSetUpdated", f"{who} is progressing.", now)
        if was_true and current is not None:
            status["conditions"][-1]["lastTransitionTime"] = current["lastTransitionTime"]
    elif _timed_out(deployment, current, now):
        note_progress(status, TIMED_OUT, f"{who} has timed out progressing.", now, ok="False")


def _progressed(old: Obj, new: Obj) -> bool:
    def stale(status: Obj) -> int:
        return int(status.get("replicas", 0) - status.get("updatedReplicas", 0))

    fields = ("updatedReplicas", "readyReplicas", "availableReplicas")
    more = any(new.get(field, 0) > old.get(field, 0) for field in fields)
    return more or stale(new) < stale(old)


def _timed_out(deployment: Obj, condition: Obj | None, now: float) -> bool:
    if condition is None or condition.get("reason") == COMPLETED:
        return False
    if condition.get("reason") == TIMED_OUT:
        return True
    if condition.get("reason") == PAUSED:
        return False
    return parse_time(condition["lastUpdateTime"]) + deadline_seconds(deployment) < now


def _note_failures(status: Obj, replica_sets: Sequence[Obj], new: Obj | None, now: float) -> None:
    """A set that cannot make its pods makes the Deployment say so, the newest set first."""
    for replica_set in [*([new] if new else []), *replica_sets]:
        failure = get_condition(replica_set, "ReplicaFailure")
        if failure is not None and failure.get("status") == "True":
            wanted = {k: failure.get(k, "") for k in ("type", "status", "reason", "message")}
            _set(status, wanted, now)
            return
    _remove(status, "ReplicaFailure")


def _set(status: Obj, condition: Obj, now: float) -> bool:
    """Set a condition; one with the same status and reason stays as it is, times included."""
    old = get_condition({"status": status}, condition["type"])
    stamp = format_time(now)
    transition = stamp
    if old is not None and old["status"] == condition["status"]:
        if old.get("reason") == condition["reason"]:
            return False
        transition = old.get("lastTransitionTime", stamp)
    _remove(status, condition["type"])
    times = {"lastUpdateTime": stamp, "lastTransitionTime": transition}
    status.setdefault("conditions", []).append({**condition, **times})
    return True


def _remove(status: Obj, condition_type: str) -> None:
    kept = [c for c in status.get("conditions") or () if c["type"] != condition_type]
    if kept:
        status["conditions"] = kept
    else:
        status.pop("conditions", None)
