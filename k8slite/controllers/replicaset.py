"""ReplicaSets: as many pods of a template as were asked for.

`plan` is pure. The loop adopts and releases pods, creates and deletes them, and writes the
status. No pod is made twice for want of a fresh cache: what was created is remembered until the
cache shows it (`expectations`), and after a creation whose outcome is unknown the pods are
listed anew from the apiserver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api.kinds import PODS, REPLICA_SETS
from k8slite.api.meta import (
    Obj,
    copy,
    deleting,
    format_time,
    generation,
    labels,
    name,
    namespace,
    set_condition,
    uid,
)
from k8slite.api.selectors import from_object
from k8slite.api.status import ApiError
from k8slite.client.controller import run_workers
from k8slite.client.errors import ClientError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import (
    Action,
    Create,
    Delete,
    Update,
    carry_out,
    carry_out_together,
    delete,
)
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.expectations import Expectations
from k8slite.controllers.ownership import (
    Claims,
    adoption,
    claim,
    controller_key,
    controller_uid_index,
    release,
)
from k8slite.controllers.pods import (
    available_in,
    deletion_order,
    is_active,
    is_ready,
    is_terminal,
    pod_from_template,
)

__all__ = ["BURST_REPLICAS", "Plan", "plan", "run_replicaset_controller", "status_of"]

BURST_REPLICAS = 500
"""Pods created or deleted in one pass; the next pass goes on."""


class Plan(NamedTuple):
    """Pods to create or delete, and in how many seconds a ready pod becomes available (None:
    none waits)."""

    pods: list[Action]
    again: float | None


def plan(replica_set: Obj, pods: Sequence[Obj], related: Sequence[Obj], now: float) -> Plan:
    """What makes the number of active pods right.

    `pods` are those the set owns, `related` all of its siblings' too; `now` is wall clock.
    """
    wanted = replica_set["spec"].get("replicas", 1)
    active = [pod for pod in pods if is_active(pod)]
    actions: list[Action] = []
    if not deleting(replica_set):
        missing = min(wanted - len(active), BURST_REPLICAS)
        if missing > 0:
            pod = pod_from_template(replica_set["spec"]["template"], REPLICA_SETS, replica_set)
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
    controller = _Controller(context)
    await context.informers.wait_synced()
    await run_workers("replicaset", controller.queue, controller.reconcile, context.workers)


class _Controller:
    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
        self._api = context.api
        self._host = context.host
        self._recorder = context.recorder("replicaset-controller")
        self._sets = context.informer(REPLICA_SETS, controller=controller_uid_index)
        self._pods = context.informer(PODS, controller=controller_uid_index)
        self._expectations = Expectations()
        self._doubtful: dict[str, None] = {}
        self._sets.add_handler(enqueue_to(self.queue))
        self._pods.add_handler(self._on_pod)

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            owner = controller_key(pod, REPLICA_SETS)
            if owner is not None:
                self.queue.add(owner)
            elif pod is new and not pod["metadata"].get("ownerReferences"):
                self._enqueue_candidates(pod)

    def _enqueue_candidates(self, orphan: Obj) -> None:
        for replica_set in self._sets.list():
            if namespace(replica_set) == namespace(orphan):
                selector = from_object(replica_set["spec"].get("selector"))
                if selector.matches(labels(orphan)):
                    self.queue.add(f"{namespace(replica_set)}/{name(replica_set)}")

    async def reconcile(self, key: str) -> float | None:
        replica_set = self._sets.get(key)
        if replica_set is None:
            self._expectations.forget(key)
            self._doubtful.pop(key, None)
            return None
        observed = await self._observe(key, replica_set)
        pods = await self._claim(replica_set, observed)
        now = self._host.now()
        planned = plan(replica_set, pods, self._related(replica_set, pods), now)
        failure = None
        error: Exception | None = None
        if planned.pods:
            try:
                await self._change(key, replica_set, planned.pods)
            except ApiError as caught:
                error = caught
                failure = failure_condition(caught, isinstance(planned.pods[0], Create))
            except ClientError as caught:
                self._doubtful[key] = None
                error = caught
            pods = self._expectations.overlay(key, pods, self._pods.seen)
        await self._write_status(replica_set, pods, failure)
        if error is not None:
            raise error
        return planned.again

    async def _observe(self, key: str, replica_set: Obj) -> list[Obj]:
        if key in self._doubtful:
            live = await self._api.list(PODS, namespace(replica_set))
            del self._doubtful[key]
            return self._expectations.overlay(key, live.items, lambda _: True)
        cached = [
            *self._pods.by_index("controller", uid(replica_set)),
            *self._pods.by_index("controller", f"orphan/{namespace(replica_set)}"),
        ]
        return self._expectations.overlay(key, cached, self._pods.seen)

    async def _claim(self, replica_set: Obj, observed: Sequence[Obj]) -> list[Obj]:
        selector = from_object(replica_set["spec"].get("selector"))
        living = [p for p in observed if not is_terminal(p)]
        claims = claim(replica_set, selector, living)
        if claims.adopt:
            await self._check_alive(replica_set)
        actions = [
            *(adoption(PODS, REPLICA_SETS, replica_set, pod) for pod in claims.adopt),
            *(release(PODS, replica_set, pod) for pod in claims.release),
        ]
        if actions:
            await carry_out(self._api, self._recorder, actions)
        return _after(claims)

    async def _check_alive(self, replica_set: Obj) -> None:
        """Ask the apiserver, not the cache: a set that is gone must adopt nothing."""
        live = await self._api.get(REPLICA_SETS, name(replica_set), namespace(replica_set))
        if uid(live) != uid(replica_set) or deleting(live):
            message = f"{name(replica_set)} is being deleted: it adopts no pods"
            raise ApiError(409, "Conflict", message)

    def _related(self, replica_set: Obj, pods: Sequence[Obj]) -> Sequence[Obj]:
        """The pods of all sets with the same controller: they crowd nodes together."""
        owners = controller_uid_index(replica_set)
        if owners[0].startswith("orphan/"):
            return pods
        related: list[Obj] = []
        for sibling in self._sets.by_index("controller", owners[0]):
            related += self._pods.by_index("controller", uid(sibling))
        return related

    async def _change(self, key: str, replica_set: Obj, actions: Sequence[Action]) -> None:
        def done(action: Action, answer: Obj | None) -> None:
            if isinstance(action, Create):
                assert answer is not None
                self._expectations.created(key, answer)
                told = "SuccessfulCreate", f"Created pod: {name(answer)}"
            else:
                assert isinstance(action, Delete)
                self._expectations.deleted(key, action.uid)
                told = "SuccessfulDelete", f"Deleted pod: {action.name}"
            self._recorder.event(replica_set, "Normal", *told)

        try:
            await carry_out_together(self._api, self._recorder, actions, done)
        except (ApiError, ClientError) as error:
            if isinstance(actions[0], Create):
                reason, verb = "FailedCreate", "creating"
            else:
                reason, verb = "FailedDelete", "deleting"
            self._recorder.event(replica_set, "Warning", reason, f"Error {verb}: {error}")
            raise

    async def _write_status(
        self, replica_set: Obj, pods: Sequence[Obj], failure: Obj | None
    ) -> None:
        status = status_of(replica_set, pods, failure, self._host.now())
        if status == replica_set.get("status"):
            return
        update = Update(REPLICA_SETS, {**replica_set, "status": status}, "status")
        await carry_out(self._api, self._recorder, [update])


def _after(claims: Claims) -> list[Obj]:
    """The pods owned once adoption is done."""
    return [*claims.owned, *claims.adopt]
