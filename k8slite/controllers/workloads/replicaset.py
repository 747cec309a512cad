"""ReplicaSets, and ReplicationControllers: as many pods of a template as were asked for.

`plan` and `status_of` are pure. The loop creates and deletes pods through a `PodFleet` and writes
the status; a pod that could not be made is told there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api.kinds import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Kind
from k8slite.api.meta import (
    Obj,
    copy,
    deleting,
    format_time,
    generation,
    labels,
    set_condition,
    uid,
)
from k8slite.api.status import ApiError
from k8slite.client.errors import ClientError
from k8slite.controllers.actions import Action, Create, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_uid_index
from k8slite.controllers.workloads.pod_fleet import PodFleet
from k8slite.controllers.workloads.pods import (
    available_in,
    deletion_order,
    is_active,
    is_ready,
    is_terminal,
    pod_from_template,
)

__all__ = [
    "BURST_REPLICAS",
    "Plan",
    "plan",
    "run_replicaset_controller",
    "run_replication_controller",
    "status_of",
]

BURST_REPLICAS = 500
"""Pods created or deleted in one pass; the next pass goes on."""


class Plan(NamedTuple):
    """Pods to create or delete, and in how many seconds a ready pod becomes available (None:
    none waits)."""

    pods: list[Action]
    again: float | None


def plan(
    replica_set: Obj,
    pods: Sequence[Obj],
    related: Sequence[Obj],
    now: float,
    kind: Kind = REPLICA_SETS,
) -> Plan:
    """What makes the number of active pods right.

    `pods` are those the set owns, `related` all of its siblings' too; `now` is wall clock.
    """
    wanted = replica_set["spec"].get("replicas", 1)
    active = [pod for pod in pods if is_active(pod)]
    actions: list[Action] = []
    if not deleting(replica_set):
        missing = min(wanted - len(active), BURST_REPLICAS)
        if missing > 0:
            pod = pod_from_template(replica_set["spec"]["template"], kind, replica_set)
            actions = [Create(PODS, pod)] * missing
        elif missing < 0:
            surplus = min(-missing, BURST_REPLICAS)
            victims = deletion_order(active, related)[:surplus]
            actions = [delete(PODS, pod) for pod in victims]
    waits = [w for w in _waits(replica_set, active, now) if 0 < w < float("inf")]
    return Plan(actions, min(waits, default=None))


def status_of(replica_set: Obj, pods: Sequence[Obj], failure: Obj | None, now: float) -> Obj:
    """The status that says what there is; `failure` is the ReplicaFailure condition or None."""
    active = [pod for pod in pods if is_active(pod)]
    template = replica_set["spec"]["template"].get("metadata", {}).get("labels") or {}
    counts = {
        "fullyLabeledReplicas": sum(template.items() <= labels(p).items() for p in active),
        "readyReplicas": sum(map(is_ready, active)),
        "availableReplicas": sum(w <= 0 for w in _waits(replica_set, active, now)),
    }
    old = replica_set.get("status") or {}
    status: Obj = {"replicas": len(active)}
    status.update({field: count for field, count in counts.items() if count})
    terminating = sum(deleting(p) and not is_terminal(p) for p in pods)
    status["terminatingReplicas"] = terminating
    status["observedGeneration"] = generation(replica_set)
    kept = [
        copy(c) for c in old.get("conditions") or () if c["type"] != "ReplicaFailure" or failure
    ]
    if kept:
        status["conditions"] = kept
    if failure is not None:
        set_condition(status, failure, format_time(now))
    return status


def failure_condition(error: Exception, creating: bool) -> Obj:
    return {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate" if creating else "FailedDelete",
        "message": str(error),
    }


def _waits(replica_set: Obj, active: Sequence[Obj], now: float) -> list[float]:
    min_ready = replica_set["spec"].get("minReadySeconds", 0)
    return [available_in(pod, min_ready, now) for pod in active]


async def run_replicaset_controller(context: Context) -> None:
    """Run until cancelled."""
    await _run(context, REPLICA_SETS, "replicaset-controller")


async def run_replication_controller(context: Context) -> None:
    """Run until cancelled."""
    await _run(context, REPLICATION_CONTROLLERS, "replication-controller")


async def _run(context: Context, kind: Kind, component: str) -> None:
    recorder = context.recorder(component)
    fleet = PodFleet(context, kind, recorder)

    async def reconcile(where: str) -> float | None:
        replica_set = fleet.owners.get(where)
        if replica_set is None:
            fleet.forget(where)
            return None
        pods = await fleet.claimed(where, replica_set)
        now = context.host.now()
        planned = plan(replica_set, pods, _related(fleet, replica_set, pods), now, kind)
        failure = None
        error: ApiError | ClientError | None = None
        if planned.pods:
            try:
                await fleet.change(where, replica_set, planned.pods)
            except ApiError as caught:
                error = caught
                failure = failure_condition(caught, isinstance(planned.pods[0], Create))
            except ClientError as caught:
                error = caught
            pods = fleet.refreshed(where, pods)
        status = status_of(replica_set, pods, failure, context.host.now())
        if kind is REPLICATION_CONTROLLERS:
            del status["terminatingReplicas"]
        if status != replica_set.get("status"):
            update = Update(kind, {**replica_set, "status": status}, "status")
            await carry_out(context.api, recorder, [update])
        if error is not None:
            raise error
        return planned.again

    await fleet.wait_synced()
    await context.run_workers(component, fleet.queue, reconcile)


def _related(fleet: PodFleet, replica_set: Obj, pods: Sequence[Obj]) -> Sequence[Obj]:
    """The pods of all sets with the same controller: they crowd nodes together."""
    owners = controller_uid_index(replica_set)
    if owners[0].startswith("orphan/"):
        return pods
    related: list[Obj] = []
    for sibling in fleet.owners.by_index("controller", owners[0]):
        related += fleet.pods.by_index("controller", uid(sibling))
    return related
