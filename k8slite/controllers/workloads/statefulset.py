"""StatefulSets: the loop. The judgement is in `stateful_plan`."""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.kinds import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
from k8slite.api.meta import Obj, deleting, labels, name, uid
from k8slite.api.status import ApiError
from k8slite.client.errors import ClientError
from k8slite.controllers.actions import Action, Create, Update
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_uid_index
from k8slite.controllers.workloads.history import HASH_LABEL, plan_history
from k8slite.controllers.workloads.pod_fleet import PodFleet
from k8slite.controllers.workloads.stateful_claims import plan_owners
from k8slite.controllers.workloads.stateful_plan import numbers_of, ordinal_of, plan, status_of

__all__ = ["run_statefulset_controller"]


async def run_statefulset_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("statefulset-controller")
    fleet = PodFleet(
        context,
        STATEFUL_SETS,
        recorder,
        created="create Pod {pod} in StatefulSet {owner} successful",
        deleted="delete Pod {pod} in StatefulSet {owner} successful",
    )
    revisions = context.informer(CONTROLLER_REVISIONS, controller=controller_uid_index)
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)

    async def create_claims(actions: Sequence[Action]) -> None:
        for action in actions:
            assert isinstance(action, Create)
            try:
                await carry_out(context.api, recorder, [action])
            except ApiError as error:
                if error.reason != "AlreadyExists":  # it was another pod's of this number
                    raise

    async def reconcile(where: str) -> float | None:
        stateful_set = fleet.owners.get(where)
        if stateful_set is None:
            fleet.forget(where)
            return None
        pods = await fleet.claimed(where, stateful_set, finished=True)
        history = revisions.by_index("controller", uid(stateful_set))
        if not deleting(stateful_set):
            live = _live_hashes(stateful_set, pods)
            actions = plan_history(STATEFUL_SETS, stateful_set, history, live)
            await carry_out(context.api, recorder, actions)
        templates = {name(r): r["data"]["spec"]["template"] for r in history}
        planned = plan(stateful_set, pods, templates, context.host.now())
        error: ApiError | ClientError | None = None
        try:
            await create_claims(planned.claims)
            if stateful_set["spec"].get("volumeClaimTemplates") and not deleting(stateful_set):
                numbered = [(n, p) for p in pods if (n := ordinal_of(stateful_set, p)) is not None]
                owners = plan_owners(stateful_set, numbered, numbers_of(stateful_set), claims.get)
                await carry_out(context.api, recorder, owners)
            for changes in (planned.deletions, planned.creations):
                if changes:
                    await fleet.change(where, stateful_set, changes)
        except (ApiError, ClientError) as caught:
            error = caught
        status = status_of(stateful_set, fleet.refreshed(where, pods), context.host.now())
        if status != stateful_set.get("status"):
            update = Update(STATEFUL_SETS, {**stateful_set, "status": status}, "status")
            await carry_out(context.api, recorder, [update])
        if error is not None:
            raise error
        return planned.again

    await fleet.wait_synced()
    await revisions.wait_synced()
    await claims.wait_synced()
    await context.run_workers("statefulset", fleet.queue, reconcile)


def _live_hashes(stateful_set: Obj, pods: Sequence[Obj]) -> list[str]:
    """Of revisions that pods or the status still name."""
    status = stateful_set.get("status") or {}
    names = [*(labels(p).get(HASH_LABEL, "") for p in pods), status.get("currentRevision", "")]
    return [revision.rpartition("-")[2] for revision in names]
