"""What becomes of a StatefulSet (pure): pods with numbers, one after another.

A pod's name is its number, so that no two of a number exist. In order: a lower number must be
available before the next is made, numbers beyond the size go from the top, and a new template
replaces from the top too, down to the partition. Parallel management drops the waiting, except
for updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field

from k8slite.api.kinds import PODS, STATEFUL_SETS
from k8slite.api.meta import Obj, deleting, generation, labels, name
from k8slite.controllers.actions import Action, Create, delete
from k8slite.controllers.workloads.history import HASH_LABEL, revision_hash
from k8slite.controllers.workloads.pods import (
    available_in,
    is_ready,
    is_terminal,
    phase,
    pod_from_template,
)
from k8slite.controllers.workloads.stateful_claims import claims_of

__all__ = ["numbers_of", "ordinal_of", "plan", "status_of", "update_revision"]

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def update_revision(stateful_set: Obj) -> str:
    """The name of the present template's revision, with which its pods are labelled."""
    return f"{name(stateful_set)}-{revision_hash(stateful_set)}"


def current_revision(stateful_set: Obj) -> str:
    status = stateful_set.get("status") or {}
    return status.get("currentRevision") or update_revision(stateful_set)


def ordinal_of(stateful_set: Obj, pod: Obj) -> int | None:
    """The pod's number; None for a pod that is not named after the set."""
    owner, _, number = name(pod).rpartition("-")
    return int(number) if owner == name(stateful_set) and number.isdigit() else None


def partition_of(stateful_set: Obj) -> int:
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    partition: int = rolling.get("partition") or 0
    return partition


def start_of(stateful_set: Obj) -> int:
    start: int = (stateful_set["spec"].get("ordinals") or {}).get("start") or 0
    return start


def numbers_of(stateful_set: Obj) -> range:
    """The numbers of the pods that there should be."""
    start = start_of(stateful_set)
    return range(start, start + stateful_set["spec"].get("replicas", 1))


def max_unavailable(stateful_set: Obj) -> int:
    """Of a rolling update: a number, or a share of the size (rounded down), at least 1."""
    rolling = (stateful_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    value = rolling.get("maxUnavailable")
    if value is None:
        return 1
    if isinstance(value, str):
        size = stateful_set["spec"].get("replicas", 1)
        value = int(value.removesuffix("%")) * size // 100
    return max(1, int(value))


@define
class StatefulPlan:
    """Claims to create first; then pods to delete; then pods to create."""

    claims: list[Action] = field(factory=list)
    deletions: list[Action] = field(factory=list)
    creations: list[Action] = field(factory=list)
    again: float | None = None


def plan(
    stateful_set: Obj, pods: Sequence[Obj], templates: Mapping[str, Obj], now: float
) -> StatefulPlan:
    """The next step. `templates` are the pod templates of known revisions, by revision name."""
    result = StatefulPlan()
    if deleting(stateful_set):
        return result
    spec = stateful_set["spec"]
    ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    by_number = {n: p for p in pods if (n := ordinal_of(stateful_set, p)) is not None}
    numbers = numbers_of(stateful_set)
    settled = _fill(stateful_set, by_number, numbers, templates, ordered, result, now)
    if ordered and not settled:
        return result
    condemned = sorted((n for n in by_number if n not in numbers), reverse=True)
    for number in condemned:
        if not deleting(by_number[number]):
            result.deletions.append(delete(PODS, by_number[number]))
        if ordered:
            return result
    if not result.creations and not condemned:
        _update(stateful_set, by_number, numbers, result, now)
    return result


def _fill(
    stateful_set: Obj,
    by_number: Mapping[int, Obj],
    numbers: Sequence[int],
    templates: Mapping[str, Obj],
    ordered: bool,
    result: StatefulPlan,
    now: float,
) -> bool:
    """Make the pods that lack; False if an ordered set must wait for one of them."""
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)
    settled = True
    for number in numbers:
        pod = by_number.get(number)
        if pod is not None and is_terminal(pod):
            if not deleting(pod):
                result.deletions.append(delete(PODS, pod))
            settled = False
        elif pod is None:
            result.creations.append(
                Create(PODS, _new_pod(stateful_set, number, by_number, templates))
            )
            result.claims += claims_of(stateful_set, number)
            settled = False
        else:
            wait = available_in(pod, min_ready, now)
            if deleting(pod) or wait > 0:
                settled = False
            if 0 < wait < float("inf"):
                result.again = wait
        if ordered and not settled:
            return False
    return settled


def _update(
    stateful_set: Obj,
    by_number: Mapping[int, Obj],
    numbers: Sequence[int],
    result: StatefulPlan,
    now: float,
) -> None:
    """Replace the highest pod of an older template, if all above it are available; where several
    may be unavailable, the highest ones together."""
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)
    first = start_of(stateful_set) + partition_of(stateful_set)
    if max_unavailable(stateful_set) > 1:
        _update_together(stateful_set, by_number, numbers, first, result, now)
        return
    for number in reversed(numbers):
        pod = by_number.get(number)
        if number < first or pod is None:
            return
        if labels(pod).get(HASH_LABEL) != update_revision(stateful_set):
            if not deleting(pod):
                result.deletions.append(delete(PODS, pod))
            return
        if deleting(pod) or available_in(pod, min_ready, now) > 0:
            return


def _update_together(
    stateful_set: Obj,
    by_number: Mapping[int, Obj],
    numbers: Sequence[int],
    first: int,
    result: StatefulPlan,
    now: float,
) -> None:
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)
    update = update_revision(stateful_set)

    def is_down(number: int) -> bool:
        pod = by_number.get(number)
        return pod is None or deleting(pod) or available_in(pod, min_ready, now) > 0

    budget = max_unavailable(stateful_set) - sum(map(is_down, numbers))
    for number in reversed(numbers):
        pod = by_number.get(number)
        if number < first or pod is None:
            return
        if labels(pod).get(HASH_LABEL) == update or deleting(pod):
            continue
        if not is_down(number):
            if budget <= 0:
                return
            budget -= 1
        result.deletions.append(delete(PODS, pod))


def _revision_for(
    stateful_set: Obj, number: int, by_number: Mapping[int, Obj], templates: Mapping[str, Obj]
) -> str:
    """Below the partition, and below where an update has come to, pods keep the old template."""
    current, update = current_revision(stateful_set), update_revision(stateful_set)
    if current == update or current not in templates:
        return update
    start, partition = start_of(stateful_set), partition_of(stateful_set)
    if partition:
        return current if number < start + partition else update
    old = sum(labels(p).get(HASH_LABEL) == current for p in by_number.values())
    return current if number < start + old else update


def _new_pod(
    stateful_set: Obj, number: int, by_number: Mapping[int, Obj], templates: Mapping[str, Obj]
) -> Obj:
    revision = _revision_for(stateful_set, number, by_number, templates)
    template = templates.get(revision) or stateful_set["spec"]["template"]
    if revision == update_revision(stateful_set):
        template = stateful_set["spec"]["template"]
    pod = pod_from_template(template, STATEFUL_SETS, stateful_set)
    own = f"{name(stateful_set)}-{number}"
    metadata, spec = pod["metadata"], pod["spec"]
    del metadata["generateName"]
    metadata["name"] = own
    metadata.setdefault("labels", {}).update(
        {POD_NAME: own, POD_INDEX: str(number), HASH_LABEL: revision}
    )
    spec["hostname"] = own
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claimed = [
        {"name": name(t), "persistentVolumeClaim": {"claimName": f"{name(t)}-{own}"}}
        for t in stateful_set["spec"].get("volumeClaimTemplates") or ()
    ]
    if claimed:
        mounted = [c["name"] for c in claimed]
        rest = [v for v in spec.get("volumes") or () if v["name"] not in mounted]
        spec["volumes"] = [*rest, *claimed]
    return pod


def status_of(stateful_set: Obj, pods: Sequence[Obj], now: float) -> Obj:
    """The status; a rollout that is complete makes the new revision the current one."""
    current, update = current_revision(stateful_set), update_revision(stateful_set)
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)
    living = [p for p in pods if ordinal_of(stateful_set, p) is not None and not is_terminal(p)]
    there = [p for p in living if not deleting(p)]
    ready = [p for p in living if phase(p) == "Running" and is_ready(p)]
    updated = sum(labels(p).get(HASH_LABEL) == update for p in there)
    old = sum(labels(p).get(HASH_LABEL) == current for p in there)
    size = stateful_set["spec"].get("replicas", 1)
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    complete = updated == len(living) == len(ready) == size
    if rolling and complete:
        current, old = update, updated
    status: Obj = {
        "observedGeneration": generation(stateful_set),
        "replicas": len(living),
        "availableReplicas": sum(available_in(p, min_ready, now) <= 0 for p in ready),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": 0,
    }
    counts = {"readyReplicas": len(ready), "currentReplicas": old, "updatedReplicas": updated}
    return status | {key: number for key, number in counts.items() if number}
