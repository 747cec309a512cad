"""Deployments: one ReplicaSet per version of the template, and rollouts between them.

`plan` is pure and makes one step: it ends where the outcome of a write must be seen first. The
loop claims ReplicaSets, carries the step out and comes again when something has changed. All
updates are conditional, so that a step planned from an old view fails with a conflict; a new set's
name is the hash of its template, so that it cannot be made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.api import meta
from k8slite.api.kinds import DEPLOYMENTS, PODS, REPLICA_SETS
from k8slite.api.meta import Obj, copy, deleting, generation, name, namespace, owner_reference, uid
from k8slite.api.selectors import from_object
from k8slite.api.status import ApiError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Note, Patch, Update, delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import (
    adoption,
    claim,
    controller_key,
    controller_uid_index,
    release,
)
from k8slite.controllers.workloads.deployment_status import (
    has_deadline,
    is_complete,
    next_check,
    note_progress,
    pause_conditions,
    status_of,
)
from k8slite.controllers.workloads.pods import is_terminal
from k8slite.controllers.workloads.revisions import (
    REVISION,
    carried_annotations,
    find_new,
    new_replica_set,
    revision_of,
    with_replicas,
    with_revision,
)
from k8slite.controllers.workloads.rollout import (
    is_rolling,
    is_scaling,
    max_surge,
    new_size,
    old_sizes,
    proportional_sizes,
    replicas,
)

__all__ = ["Plan", "plan", "run_deployment_controller"]

HISTORY_LIMIT = 10


class Plan(NamedTuple):
    """What to do, and in how many seconds to look at the progress deadline (None: never)."""

    actions: list[Action]
    again: float | None


def plan(deployment: Obj, replica_sets: Sequence[Obj], old_pods_running: bool, now: float) -> Plan:
    """The next step. `replica_sets` are all that the Deployment owns; `old_pods_running`: pods of
    other sets than the newest still run (they hold up a Recreate)."""
    step = _Step(deployment, replica_sets, now)
    if deleting(deployment):
        step.finish(progress=False)
    elif deployment["spec"].get("paused") or (
        is_rolling(deployment) and is_scaling(deployment, replica_sets)
    ):
        step.adopt_revision()
        step.scale_all()
        if deployment["spec"].get("paused"):
            step.clean_up()
        step.finish(progress=False)
    elif is_rolling(deployment):
        step.roll()
        step.finish()
    else:
        step.recreate(old_pods_running)
        step.finish()
    return Plan(step.actions, next_check(deployment, step.status, now))


class _Step:
    """One pass over a Deployment; `stop` once a write must be seen before going on."""

    def __init__(self, deployment: Obj, replica_sets: Sequence[Obj], now: float) -> None:
        self.status: Obj = copy(deployment.get("status") or {})
        self.actions: list[Action] = []
        self._before = deployment
        self._deployment = {**deployment, "status": self.status}
        self._sets = [*replica_sets]
        self._new = find_new(deployment, replica_sets)
        self._old = [o for o in replica_sets if o is not self._new]
        self._now = now
        self._stop = False
        self._touched = False
        pause_conditions(self._deployment, self.status, now)

    def roll(self) -> None:
        """One step of a rolling update: grow the newest set, or else shrink the others."""
        self.adopt_revision() if self._new is not None else self._create_new()
        if self._stop or self._new is None:
            return
        size = new_size(self._deployment, self._sets, self._new)
        if size != replicas(self._new):
            self._scale(self._new, size)
            return
        for replica_set, smaller in old_sizes(self._deployment, self._old, self._new):
            self._scale(replica_set, smaller)
        self._clean_up_if_complete()

    def recreate(self, old_pods_running: bool) -> None:
        """First all old pods go, then the new ones come."""
        if self._new is not None:
            self.adopt_revision()
        if self._stop:
            return
        shrinking = [o for o in self._old if replicas(o) > 0]
        for replica_set in shrinking:
            self._scale(replica_set, 0)
        if shrinking or old_pods_running:
            return
        if self._new is None:
            self._create_new()
            return
        if replicas(self._new) != replicas(self._deployment):
            self._scale(self._new, replicas(self._deployment))
        self._clean_up_if_complete()

    def scale_all(self) -> None:
        """Follow a change of the size, in proportion if several sets have pods."""
        if not self._stop:
            for replica_set, size in proportional_sizes(self._deployment, self._new, self._old):
                self._scale(replica_set, size)

    def adopt_revision(self) -> None:
        """Number the newest set, give it the Deployment's annotations, and tell both revisions."""
        new = self._new
        if new is None:
            return
        revision = max(map(revision_of, self._old), default=0) + 1
        annotations = {**meta.annotations(new), **carried_annotations(self._deployment)}
        annotations = with_revision(annotations, revision)
        min_ready = self._deployment["spec"].get("minReadySeconds", 0)
        stale = new["spec"].get("minReadySeconds", 0) != min_ready
        if annotations != meta.annotations(new) or stale:
            changed = copy(new)
            changed["metadata"]["annotations"] = annotations
            changed["spec"]["minReadySeconds"] = min_ready
            self.actions.append(Update(REPLICA_SETS, changed))
            self._stop = True
            return
        told = annotations[REVISION]
        if meta.annotations(self._deployment).get(REVISION) != told:
            patch = {"metadata": {"annotations": {REVISION: told}}}
            own = self._deployment
            self.actions.append(Patch(DEPLOYMENTS, namespace(own), name(own), patch))
            self._touched = True
        if has_deadline(self._deployment) and not _has_progress(self.status):
            message = f'Found new replica set "{name(new)}"'
            note_progress(self.status, "FoundNewReplicaSet", message, self._now)

    def clean_up(self) -> None:
        """Forget the oldest revisions beyond the history limit."""
        limit = self._deployment["spec"].get("revisionHistoryLimit", HISTORY_LIMIT)
        kept = [o for o in self._old if not deleting(o)]
        surplus = len(kept) - limit
        for replica_set in sorted(kept, key=revision_of)[: max(0, surplus)]:
            status = replica_set.get("status") or {}
            busy = status.get("replicas", 0) or replicas(replica_set)
            unseen = status.get("observedGeneration", 0) < generation(replica_set)
            if not busy and not unseen:
                self.actions.append(delete(REPLICA_SETS, replica_set))

    def finish(self, *, progress: bool = True) -> None:
        """Write the status, if it changed and the Deployment itself was left alone."""
        status = status_of(self._deployment, self._sets, self._new, self._now, progress=progress)
        self.status = status
        if status != self._before.get("status") and not self._touched:
            self.actions.append(Update(DEPLOYMENTS, {**self._before, "status": status}, "status"))

    def _create_new(self) -> None:
        own = self._deployment
        new = new_replica_set(own, self.status.get("collisionCount", 0))
        new["spec"]["replicas"] = 0
        size = new_size(own, [*self._sets, new], new)
        new["spec"]["replicas"] = size
        revision = max(map(revision_of, self._old), default=0) + 1
        annotations = with_revision(carried_annotations(own), revision)
        wanted = replicas(own)
        new["metadata"]["annotations"] = with_replicas(annotations, wanted, wanted + max_surge(own))
        new["metadata"]["ownerReferences"] = [owner_reference(DEPLOYMENTS, own)]
        self.actions.append(Create(REPLICA_SETS, new))
        if size:
            self._note_scaling(new, 0, size)
        if has_deadline(own):
            message = f'Created new replica set "{name(new)}"'
            note_progress(self.status, "NewReplicaSetCreated", message, self._now)
        self._stop = True

    def _scale(self, replica_set: Obj, size: int) -> None:
        wanted = replicas(self._deployment)
        annotations = meta.annotations(replica_set)
        noted = with_replicas(annotations, wanted, wanted + max_surge(self._deployment))
        before = replicas(replica_set)
        if size == before and noted == annotations:
            return
        changed = copy(replica_set)
        changed["spec"]["replicas"] = size
        changed["metadata"]["annotations"] = noted
        self.actions.append(Update(REPLICA_SETS, changed))
        self._stop = True
        if size != before:
            self._note_scaling(replica_set, before, size)

    def _note_scaling(self, replica_set: Obj, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {name(replica_set)} from {before} to {after}"
        self.actions.append(Note(self._before, "Normal", "ScalingReplicaSet", message))

    def _clean_up_if_complete(self) -> None:
        if not self._stop and is_complete(self._deployment, self.status):
            self.clean_up()


def _has_progress(status: Obj) -> bool:
    return meta.get_condition({"status": status}, "Progressing") is not None


async def run_deployment_controller(context: Context) -> None:
    """Run until cancelled."""
    controller = _Controller(context)
    await controller.wait_synced()
    await context.run_workers("deployment", controller.queue, controller.reconcile)


class _Controller:
    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue()
        self._api = context.api
        self._host = context.host
        self._recorder = context.recorder("deployment-controller")
        self._deployments = context.informer(DEPLOYMENTS)
        self._sets = context.informer(REPLICA_SETS, controller=controller_uid_index)
        self._pods = context.informer(PODS, controller=controller_uid_index)
        self._deployments.add_handler(enqueue_to(self.queue))
        self._sets.add_handler(self._on_replica_set)
        self._pods.add_handler(self._on_pod)

    async def wait_synced(self) -> None:
        for informer in (self._deployments, self._sets, self._pods):
            await informer.wait_synced()

    def _on_replica_set(self, old: Obj | None, new: Obj | None) -> None:
        for replica_set in (old, new):
            if replica_set is None:
                continue
            owner = controller_key(replica_set, DEPLOYMENTS)
            if owner is not None:
                self.queue.add(owner)
            elif replica_set is new:
                self._enqueue_candidates(replica_set)

    def _enqueue_candidates(self, orphan: Obj) -> None:
        for deployment in self._deployments.list():
            if namespace(deployment) == namespace(orphan):
                selector = from_object(deployment["spec"].get("selector"))
                if selector.matches(meta.labels(orphan)):
                    self.queue.add(meta.key(deployment))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """The last old pod's end lets a Recreate go on."""
        gone = old is not None and (new is None or (is_terminal(new) and not is_terminal(old)))
        if not gone or old is None:
            return
        owner = controller_key(old, REPLICA_SETS)
        replica_set = self._sets.get(owner) if owner else None
        deployment = controller_key(replica_set, DEPLOYMENTS) if replica_set else None
        if deployment is not None:
            self.queue.add(deployment)

    async def reconcile(self, key: str) -> float | None:
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        if not deployment["spec"].get("selector"):
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.event(deployment, "Warning", "SelectingAll", message)
            return None
        sets = await self._claim(deployment)
        new = find_new(deployment, sets)
        running = any(
            not is_terminal(pod)
            for replica_set in sets
            if replica_set is not new
            for pod in self._pods.by_index("controller", uid(replica_set))
        )
        planned = plan(deployment, sets, running, self._host.now())
        for action in planned.actions:
            try:
                await carry_out(self._api, self._recorder, [action])
            except ApiError as error:
                if not isinstance(action, Create) or error.reason != "AlreadyExists":
                    if isinstance(action, Create):
                        await self._note_failed_creation(deployment, action, error)
                    raise
                await self._resolve_collision(deployment, action.obj)
                return None
        return planned.again

    async def _claim(self, deployment: Obj) -> list[Obj]:
        cached = [
            *self._sets.by_index("controller", uid(deployment)),
            *self._sets.by_index("controller", f"orphan/{namespace(deployment)}"),
        ]
        claims = claim(deployment, from_object(deployment["spec"]["selector"]), cached)
        if claims.adopt:
            live = await self._api.get(DEPLOYMENTS, name(deployment), namespace(deployment))
            if uid(live) != uid(deployment) or deleting(live):
                message = f"{name(deployment)} is being deleted: it adopts no ReplicaSets"
                raise ApiError(409, "Conflict", message)
        actions = [
            *(adoption(REPLICA_SETS, DEPLOYMENTS, deployment, o) for o in claims.adopt),
            *(release(REPLICA_SETS, deployment, o) for o in claims.release),
        ]
        if actions:
            await carry_out(self._api, self._recorder, actions)
        return [*claims.owned, *claims.adopt]

    async def _resolve_collision(self, deployment: Obj, wanted: Obj) -> None:
        """The name of the new set is taken: by our own earlier creation, which the cache will
        show, or by a set of another template, against which a higher collision count helps."""
        taken = await self._api.get(REPLICA_SETS, name(wanted), namespace(wanted))
        if meta.is_controlled_by(taken, deployment) and find_new(deployment, [taken]):
            return
        status = copy(deployment.get("status") or {})
        status["collisionCount"] = status.get("collisionCount", 0) + 1
        update = Update(DEPLOYMENTS, {**deployment, "status": status}, "status")
        await carry_out(self._api, self._recorder, [update])

    async def _note_failed_creation(self, deployment: Obj, action: Create, error: ApiError) -> None:
        message = f'Failed to create new replica set "{name(action.obj)}": {error}'
        self._recorder.event(deployment, "Warning", "ReplicaSetCreateError", message)
        status = copy(deployment.get("status") or {})
        reason = "ReplicaSetCreateError"
        if has_deadline(deployment) and note_progress(
            status, reason, str(error), self._host.now(), ok="False"
        ):
            update = Update(DEPLOYMENTS, {**deployment, "status": status}, "status")
            await carry_out(self._api, self._recorder, [update])
