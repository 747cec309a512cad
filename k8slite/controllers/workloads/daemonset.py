"""DaemonSets: one pod of a template on every node that fits.

`plan` and `status_of` are pure. A pod is made for a certain node (by node affinity, so that the
scheduler still checks its resources); nodes that stop fitting lose theirs; a new template goes
round as fast as maxUnavailable or maxSurge (`daemon_surge`) allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api import meta
from k8slite.api.kinds import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from k8slite.api.meta import Obj, deleting, generation, labels, name, uid
from k8slite.api.node_affinity import REQUIRED, allows, required_terms
from k8slite.api.status import ApiError
from k8slite.api.taints import NOT_READY, UNREACHABLE, UNSCHEDULABLE, tolerates
from k8slite.client.errors import ClientError
from k8slite.controllers.actions import Action, Create, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_uid_index
from k8slite.controllers.workloads.daemon_surge import max_surge, nodes_to_surge, surplus
from k8slite.controllers.workloads.history import HASH_LABEL, plan_history, revision_hash
from k8slite.controllers.workloads.pod_fleet import PodFleet
from k8slite.controllers.workloads.pods import (
    available_in,
    is_ready,
    is_terminal,
    pod_from_template,
)

__all__ = ["Plan", "plan", "run_daemonset_controller", "status_of"]

DAEMON_TOLERATIONS: tuple[Obj, ...] = tuple(
    {"key": key, "operator": "Exists", "effect": effect}
    for key, effect in (
        (NOT_READY, "NoExecute"),
        (UNREACHABLE, "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        (UNSCHEDULABLE, "NoSchedule"),
    )
)
HOST_NETWORK_TOLERATION: Obj = {
    "key": "node.kubernetes.io/network-unavailable",
    "operator": "Exists",
    "effect": "NoSchedule",
}


class Plan(NamedTuple):
    """Pods to delete and to create, and when a ready pod becomes available."""

    deletions: list[Action]
    creations: list[Action]
    again: float | None


def node_of(pod: Obj) -> str:
    """The node a daemon pod is bound to, or was made for."""
    bound: str = pod["spec"].get("nodeName") or ""
    if bound:
        return bound
    for term in required_terms(pod["spec"]) or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In":
                return str(field["values"][0])
    return ""


def tolerations_of(daemon_set: Obj) -> list[Obj]:
    spec = daemon_set["spec"]["template"]["spec"]
    extra = [*DAEMON_TOLERATIONS, *([HOST_NETWORK_TOLERATION] if spec.get("hostNetwork") else [])]
    own = spec.get("tolerations") or []
    return [*own, *(t for t in extra if t not in own)]


def fits(daemon_set: Obj, node: Obj) -> tuple[bool, bool]:
    """(a pod should be put there, one that is there may stay)."""
    spec = daemon_set["spec"]["template"]["spec"]
    if not allows(spec, labels(node), name(node)):
        return False, False
    tolerations = tolerations_of(daemon_set)
    refused = [
        taint["effect"]
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint["effect"] != "PreferNoSchedule"
        and not any(tolerates(t, taint) for t in tolerations)
    ]
    return not refused, "NoExecute" not in refused


def new_pod(daemon_set: Obj, node_name: str) -> Obj:
    pod = pod_from_template(daemon_set["spec"]["template"], DAEMON_SETS, daemon_set)
    pod["metadata"].setdefault("labels", {})[HASH_LABEL] = revision_hash(daemon_set)
    spec = pod["spec"]
    spec["tolerations"] = tolerations_of(daemon_set)
    here = {"key": "metadata.name", "operator": "In", "values": [node_name]}
    node_affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = node_affinity.setdefault(REQUIRED, {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [here]} for term in terms]
    return pod


def plan(daemon_set: Obj, pods: Sequence[Obj], nodes: Sequence[Obj], now: float) -> Plan:
    """Which pods go and which come; `pods` are all of the set's, finished ones too."""
    if deleting(daemon_set):
        return Plan([], [], None)
    by_node: dict[str, list[Obj]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    deletions: list[Action] = []
    creations: list[Action] = []
    kept: list[Obj] = []
    surging: dict[str, list[Obj]] = {}
    surges = max_surge(daemon_set, len(nodes)) > 0
    for node in nodes:
        wanted, may_stay = fits(daemon_set, node)
        here = by_node.pop(name(node), [])
        living = [p for p in here if not is_terminal(p)]
        deletions += [delete(PODS, p) for p in here if is_terminal(p) and not deleting(p)]
        if not may_stay or (not wanted and not living):
            deletions += [delete(PODS, p) for p in living if not deleting(p)]
            continue
        if not living:
            if not any(deleting(p) for p in here):
                creations.append(Create(PODS, new_pod(daemon_set, name(node))))
            continue
        if surges:
            deletions += [delete(PODS, p) for p in surplus(daemon_set, living, now)]
            surging[name(node)] = living if wanted else []
            continue
        oldest, *extra = sorted(living, key=_oldest_first)
        deletions += [delete(PODS, p) for p in extra if not deleting(p)]
        kept.append(oldest)
    gone = [p for rest in by_node.values() for p in rest if not deleting(p)]
    deletions += [delete(PODS, p) for p in gone]
    desired = len(kept) + len(surging) + len(creations)
    if surges:
        chosen = nodes_to_surge(daemon_set, surging, desired, now)
        creations += [Create(PODS, new_pod(daemon_set, node)) for node in chosen]
        kept += [pod for living in surging.values() for pod in living]
    else:
        deletions += _replacements(daemon_set, kept, desired, now)
    min_ready = daemon_set["spec"].get("minReadySeconds", 0)
    waits = [w for p in kept if 0 < (w := available_in(p, min_ready, now)) < float("inf")]
    return Plan(deletions, creations, min(waits, default=None))


def _oldest_first(pod: Obj) -> tuple[bool, str, str]:
    return deleting(pod), pod["metadata"].get("creationTimestamp") or "", name(pod)


def _replacements(daemon_set: Obj, pods: Sequence[Obj], desired: int, now: float) -> list[Action]:
    """Pods of an older template that may go now."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return []
    digest = revision_hash(daemon_set)
    min_ready = daemon_set["spec"].get("minReadySeconds", 0)
    up = [p for p in pods if available_in(p, min_ready, now) <= 0 and not deleting(p)]
    stale = [p for p in pods if labels(p).get(HASH_LABEL) != digest and not deleting(p)]
    broken = [p for p in stale if p not in up]
    budget = max_unavailable(daemon_set, desired) - (desired - len(up))
    standing = [p for p in stale if p in up][: max(0, budget)]
    return [delete(PODS, p) for p in [*broken, *standing]]


def max_unavailable(daemon_set: Obj, desired: int) -> int:
    rolling = (daemon_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    value = rolling.get("maxUnavailable", 1)
    if isinstance(value, int):
        return value
    return max(1, -(-int(value.removesuffix("%")) * desired // 100))


def status_of(daemon_set: Obj, pods: Sequence[Obj], nodes: Sequence[Obj], now: float) -> Obj:
    """The status; counts are of nodes, by their oldest pod."""
    digest = revision_hash(daemon_set)
    min_ready = daemon_set["spec"].get("minReadySeconds", 0)
    by_node: dict[str, list[Obj]] = {}
    for pod in pods:
        if not is_terminal(pod):
            by_node.setdefault(node_of(pod), []).append(pod)
    desired = current = misplaced = ready = available = updated = 0
    for node in nodes:
        wanted, _ = fits(daemon_set, node)
        here = sorted(by_node.get(name(node), []), key=_oldest_first)
        desired += wanted
        misplaced += bool(here) and not wanted
        if not wanted or not here:
            continue
        current += 1
        pod = here[0]
        ready += is_ready(pod)
        available += available_in(pod, min_ready, now) <= 0
        updated += labels(pod).get(HASH_LABEL) == digest
    status: Obj = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        "observedGeneration": generation(daemon_set),
    }
    more = {
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    return status | {field: number for field, number in more.items() if number}


async def run_daemonset_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("daemonset-controller")
    fleet = PodFleet(context, DAEMON_SETS, recorder)
    nodes = context.informer(NODES)
    revisions = context.informer(CONTROLLER_REVISIONS, controller=controller_uid_index)

    def on_node(old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or _view(old) != _view(new):
            for daemon_set in fleet.owners.list():
                fleet.queue.add(meta.key(daemon_set))

    async def reconcile(where: str) -> float | None:
        daemon_set = fleet.owners.get(where)
        if daemon_set is None:
            fleet.forget(where)
            return None
        pods = await fleet.claimed(where, daemon_set, finished=True)
        if not deleting(daemon_set):
            history = revisions.by_index("controller", uid(daemon_set))
            live = [labels(p).get(HASH_LABEL, "") for p in pods]
            await carry_out(
                context.api, recorder, plan_history(DAEMON_SETS, daemon_set, history, live)
            )
        planned = plan(daemon_set, pods, nodes.list(), context.host.now())
        error: ApiError | ClientError | None = None
        for actions in (planned.deletions, planned.creations):
            try:
                if actions:
                    await fleet.change(where, daemon_set, actions)
            except (ApiError, ClientError) as caught:
                error = caught
        pods = fleet.refreshed(where, pods)
        status = status_of(daemon_set, pods, nodes.list(), context.host.now())
        if status != daemon_set.get("status"):
            update = Update(DAEMON_SETS, {**daemon_set, "status": status}, "status")
            await carry_out(context.api, recorder, [update])
        if error is not None:
            raise error
        return planned.again

    nodes.add_handler(on_node)
    await fleet.wait_synced()
    await nodes.wait_synced()
    await revisions.wait_synced()
    await context.run_workers("daemonset", fleet.queue, reconcile)


def _view(node: Obj) -> tuple[object, ...]:
    """What decides whether a daemon runs there; heartbeats do not."""
    return labels(node), (node.get("spec") or {}).get("taints")
