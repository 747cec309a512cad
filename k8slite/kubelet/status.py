"""The status of a pod, from what runs of it. Pure.

The rules and words are the kubelet's (generateAPIPodStatus, convertStatusToAPIStatus, getPhase,
pod conditions). What others own in a status is left alone: `qosClass`, `nominatedNodeName`, and all
conditions but the kubelet's own five.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from k8slite.api.meta import Obj, copy, format_time
from k8slite.kubelet.plan import Waiting
from k8slite.kubelet.pods import (
    Observed,
    containers,
    ephemeral_containers,
    init_containers,
    is_sidecar,
    restart_policy,
)
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus

OWN_CONDITIONS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)
SPECIAL_CONDITIONS = ("DisruptionTarget", "PodResizePending", "PodResizeInProgress")
"""Only there while they hold; the last two go when they are over."""
OWN_FIELDS = (
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "reason",
    "startTime",
)


@attrs.frozen
class Facts:
    """What a status is made from besides the pod and what runs of it.

    `waiting` by container name; `ready`, `started` are container ids; `messages` are termination
    messages by container id. `ending`: the pod is to run no more, and all its containers are down.
    """

    now: float
    host_ip: str
    runtime: str
    waiting: Mapping[str, Waiting] = attrs.field(factory=dict)
    ready: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()
    messages: Mapping[str, str] = attrs.field(factory=dict)
    ending: bool = False
    reason: str = ""
    message: str = ""
    special: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    """Conditions of SPECIAL_CONDITIONS that hold: reason and message."""


def make_status(pod: Obj, observed: Observed, facts: Facts) -> Obj:
    """The whole of what the kubelet says about the pod: the fields of OWN_FIELDS."""
    old = pod.get("status") or {}
    status: Obj = {"observedGeneration": pod["metadata"].get("generation", 0)}
    if not status["observedGeneration"]:
        del status["observedGeneration"]
    first = "PodInitializing" if init_containers(pod) else "ContainerCreating"
    inits = [
        _container_status(pod, c, observed, facts, "PodInitializing", init=True)
        for c in init_containers(pod)
    ]
    mains = [_container_status(pod, c, observed, facts, first, init=False) for c in containers(pod)]
    status["phase"] = _settled_phase(old) or pod_phase(pod, inits, mains, ending=facts.ending)
    if facts.reason:
        status.update(phase="Failed", reason=facts.reason, message=facts.message)
    elif old.get("reason") and status["phase"] in ("Succeeded", "Failed"):
        status.update({k: old[k] for k in ("reason", "message") if k in old})
    if inits:
        status["initContainerStatuses"] = inits
    status["containerStatuses"] = mains
    added = [
        {**_container_status(pod, c, observed, facts, first, init=True), "ready": False}
        for c in ephemeral_containers(pod)
    ]
    if added:
        status["ephemeralContainerStatuses"] = added
    status["hostIP"] = facts.host_ip
    status["hostIPs"] = [{"ip": facts.host_ip}]
    address = _address(pod, observed, facts)
    if address:
        status["podIP"] = address
        status["podIPs"] = [{"ip": address}]
    elif old.get("podIP") and status["phase"] in ("Succeeded", "Failed"):
        status.update(podIP=old["podIP"], podIPs=old.get("podIPs") or [{"ip": old["podIP"]}])
    status["startTime"] = old.get("startTime") or format_time(facts.now)
    status["conditions"] = _conditions(pod, old, status, observed, facts)
    return status


def _settled_phase(old: Obj) -> str:
    """A pod that has succeeded or failed never does anything else."""
    phase: str = old.get("phase", "")
    return phase if phase in ("Succeeded", "Failed") else ""


def _address(pod: Obj, observed: Observed, facts: Facts) -> str:
    if pod["spec"].get("hostNetwork"):
        return facts.host_ip
    return observed.sandboxes[0].ip if observed.sandboxes else ""


# ---------------------------------------------------------------- containers


def _container_status(
    pod: Obj, container: Obj, observed: Observed, facts: Facts, first: str, *, init: bool
) -> Obj:
    name = container["name"]
    found = observed.latest(name)
    waiting = facts.waiting.get(name)
    result: Obj = {
        "name": name,
        "image": container["image"] if found is None else found.image,
        "imageID": "",
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "started": False,
        "state": {},
    }
    if found is None:
        never_again = facts.ending or restart_policy(pod, container) == "Never"
        lost = _unknown_end(pod, name) if never_again and not init else None
        if lost is not None:
            result.update(lost)
            return result
        why = waiting or Waiting(first)
        result["state"] = {"waiting": _waiting(why)}
        return result
    result["imageID"] = found.image_id
    result["containerID"] = f"{facts.runtime}://{found.id}"
    result["restartCount"] = found.attempt
    before = observed.before(found)
    if before is not None and before.state is ContainerState.EXITED:
        result["lastState"] = {"terminated": _terminated(before, facts)}
    if found.state is ContainerState.RUNNING:
        result["state"] = {"running": {"startedAt": format_time(found.started_at)}}
        result["started"] = found.id in facts.started
        result["ready"] = found.id in facts.ready and (not init or is_sidecar(container))
    elif found.state is ContainerState.EXITED:
        if waiting is not None:
            result["lastState"] = {"terminated": _terminated(found, facts)}
            result["state"] = {"waiting": _waiting(waiting)}
        else:
            result["state"] = {"terminated": _terminated(found, facts)}
            result["ready"] = init and not is_sidecar(container) and found.exit_code == 0
    else:
        result["state"] = {"waiting": _waiting(waiting or Waiting(first))}
    resources = container.get("resources")
    if resources:
        result["resources"] = copy(resources)
        if resources.get("requests"):
            result["allocatedResources"] = copy(resources["requests"])
    return result


def _waiting(why: Waiting) -> Obj:
    return {"reason": why.reason, **({"message": why.message} if why.message else {})}


def _terminated(status: ContainerStatus, facts: Facts) -> Obj:
    message = facts.messages.get(status.id) or status.message
    return {
        "exitCode": status.exit_code,
        "reason": status.reason,
        **({"message": message} if message else {}),
        "startedAt": format_time(status.started_at) if status.started_at else None,
        "finishedAt": format_time(status.finished_at),
        "containerID": f"{facts.runtime}://{status.id}",
    }


def _unknown_end(pod: Obj, name: str) -> Obj | None:
    """A container that an earlier status shows running, and of which nothing is left."""
    for old in (pod.get("status") or {}).get("containerStatuses") or ():
        if old["name"] == name and old.get("state", {}).get("terminated"):
            kept: Obj = copy(old)
            return {**kept, "ready": False, "started": False}
        if old["name"] == name and old.get("state", {}).get("running"):
            return {
                "restartCount": old.get("restartCount", 0),
                "state": {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "ContainerStatusUnknown",
                        "message": "The container could not be located when the pod was terminated",
                        "startedAt": None,
                        "finishedAt": None,
                    }
                },
            }
    return None


# ---------------------------------------------------------------- phase


def pod_phase(pod: Obj, inits: list[Obj], mains: list[Obj], *, ending: bool = False) -> str:
    """Pending, Running, Succeeded or Failed (the kubelet's getPhase)."""
    policy = restart_policy(pod)
    failed_init = pending_init = 0
    for container, status in zip(init_containers(pod), inits, strict=True):
        state = status["state"]
        if is_sidecar(container):
            waits = "waiting" in state and not status["lastState"]
            pending_init += waits or ("running" in state and not status["started"])
        elif "terminated" in state:
            failed_init += state["terminated"]["exitCode"] != 0
        elif "waiting" in state and status["lastState"]:
            failed_init += status["lastState"]["terminated"]["exitCode"] != 0
        else:
            pending_init += 1
    if failed_init and (policy == "Never" or ending):
        return "Failed"
    running = waiting = stopped = succeeded = 0
    for status in mains:
        state = status["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += state["terminated"]["exitCode"] == 0
        elif status["lastState"]:
            stopped += 1
        else:
            waiting += 1
    if ending:
        return "Succeeded" if stopped and stopped == succeeded == len(mains) else "Failed"
    if pending_init or failed_init or waiting:
        return "Pending"
    if running:
        return "Running"
    if policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


# ---------------------------------------------------------------- conditions


def _conditions(pod: Obj, old: Obj, status: Obj, observed: Observed, facts: Facts) -> list[Obj]:
    before = {c["type"]: c for c in old.get("conditions") or ()}
    ready_containers = _containers_ready(pod, status)
    fresh = {
        "PodReadyToStartContainers": _condition(observed.sandbox is not None),
        "Initialized": _initialized(pod, status),
        "Ready": _pod_ready(pod, before, ready_containers),
        "ContainersReady": ready_containers,
        "PodScheduled": before.get("PodScheduled") or _condition(True),
    }
    for kind, (reason, message) in facts.special.items():
        fresh[kind] = _condition(True, reason, message)
    result = []
    for kind, condition in fresh.items():
        last = before.get(kind)
        same = last is not None and last.get("status") == condition["status"]
        moved = last.get("lastTransitionTime") if same and last else None
        made: Obj = {
            "type": kind,
            "status": condition["status"],
            "lastProbeTime": None,
            "lastTransitionTime": moved or format_time(facts.now),
        }
        made.update({k: condition[k] for k in ("reason", "message") if condition.get(k)})
        if "observedGeneration" in status:
            made["observedGeneration"] = status["observedGeneration"]
        result.append(made)
    return result


def _condition(ok: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"status": "True" if ok else "False", "reason": reason, "message": message}


def _done(phase: str) -> dict[str, Any] | None:
    if phase == "Succeeded":
        return _condition(False, "PodCompleted")
    if phase == "Failed":
        return _condition(False, "PodFailed")
    return None


def _initialized(pod: Obj, status: Obj) -> dict[str, Any]:
    if status["phase"] == "Succeeded":
        return _condition(True, "PodCompleted")
    pending = [
        s["name"]
        for container, s in zip(
            init_containers(pod), status.get("initContainerStatuses", ()), strict=True
        )
        if not (s["started"] if is_sidecar(container) else s["ready"])
    ]
    # Once the pod's own containers have run, a sidecar that restarts does not undo it.
    begun = any("waiting" not in s["state"] or s["lastState"] for s in status["containerStatuses"])
    if pending and not begun:
        names = " ".join(pending)
        message = f"containers with incomplete status: [{names}]"
        return _condition(False, "ContainersNotInitialized", message)
    return _condition(True)


def _containers_ready(pod: Obj, status: Obj) -> dict[str, Any]:
    done = _done(status["phase"])
    if done is not None:
        return done
    sidecars = [c["name"] for c in init_containers(pod) if is_sidecar(c)]
    counted = [s for s in status.get("initContainerStatuses", ()) if s["name"] in sidecars]
    unready = [s["name"] for s in [*counted, *status["containerStatuses"]] if not s["ready"]]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return _condition(False, "ContainersNotReady", message)
    return _condition(True)


def _pod_ready(
    pod: Obj, before: Mapping[str, Obj], ready_containers: dict[str, Any]
) -> dict[str, Any]:
    if ready_containers["status"] != "True":
        return ready_containers
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        found = before.get(kind)
        if found is None:
            problems.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif found.get("status") != "True":
            state = found.get("status")
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {state}')
    if problems:
        return _condition(False, "ReadinessGatesNotReady", ", ".join(problems))
    return _condition(True)


def status_patch(pod: Obj, status: Obj) -> Obj | None:
    """The strategic merge patch that makes the pod's status so; None when it is so already.

    Lists that merge by a key are sent with what the server should drop; the uid guards against
    a pod of the same name that came later.
    """
    old = pod.get("status") or {}
    changes: Obj = {}
    for field in OWN_FIELDS:
        value = status.get(field)
        if value == old.get(field) or (field == "conditions" and _same_conditions(old, status)):
            continue
        if field == "conditions":
            changes[field] = _changed_conditions(old, status)
        elif field in ("podIPs", "hostIPs") and value and old.get(field):
            changes[field] = [*value, {"$patch": "replace"}]
        else:
            changes[field] = value
    if not changes:
        return None
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": changes}


def _changed_conditions(old: Obj, status: Obj) -> list[Obj]:
    before = {c["type"]: c for c in old.get("conditions") or ()}
    changed = []
    for condition in status["conditions"]:
        last = before.get(condition["type"])
        if last is None or not _covers(last, condition):
            gone = {k: None for k in ("reason", "message") if k in (last or {})}
            changed.append({**gone, **condition})
    told = {c["type"] for c in status["conditions"]}
    for kind in SPECIAL_CONDITIONS[1:]:
        if kind in before and kind not in told:
            changed.append({"type": kind, "$patch": "delete"})
    return changed


def _same_conditions(old: Obj, status: Obj) -> bool:
    return not _changed_conditions(old, status)


def _covers(last: Obj, condition: Obj) -> bool:
    keys = ("status", "reason", "message", "lastTransitionTime", "observedGeneration")
    return all((last.get(k) or None) == (condition.get(k) or None) for k in keys)
