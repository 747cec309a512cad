"""Cluster roles that are the sum of others: their rules follow the roles that they select."""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api.kinds import CLUSTER_ROLES
from k8slite.api.meta import Obj, labels, name
from k8slite.api.selectors import from_object
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_clusterrole_aggregation_controller"]


def plan(role: Obj, roles: Iterable[Obj]) -> list[Action]:
    """Give the role the rules of all that it selects, by name, each rule once (pure)."""
    chosen: dict[str, Obj] = {}
    for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
        matcher = from_object(selector)
        for each in roles:
            if name(each) != name(role) and matcher.matches(labels(each)):
                chosen[name(each)] = each
    rules: list[Obj] = []
    for own in sorted(chosen):
        rules += [rule for rule in chosen[own].get("rules") or () if rule not in rules]
    if rules == (role.get("rules") or []):
        return []
    return [Update(CLUSTER_ROLES, {**role, "rules": rules})]


async def run_clusterrole_aggregation_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("clusterrole-aggregation-controller")
    roles = context.informer(CLUSTER_ROLES)

    def on_role(old: Obj | None, new: Obj | None) -> None:
        for each in roles.list():
            if each.get("aggregationRule"):
                queue.add(name(each))

    async def reconcile(where: str) -> None:
        role = roles.get(where)
        if role is not None and role.get("aggregationRule"):
            await carry_out(context.api, recorder, plan(role, roles.list()))

    await roles.wait_synced()
    on_role(None, None)
    roles.add_handler(on_role)
    await context.run_workers("clusterrole-aggregation", queue, reconcile)
