"""Disruption budgets: how many pods may be evicted now without too few being left.

`plan` is pure. The apiserver's eviction lowers disruptionsAllowed and notes the pod in
disruptedPods; such a pod counts as gone until it is seen to go, or two minutes have passed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k8slite.api.kinds import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
)
from k8slite.api.meta import (
    Obj,
    controller_of,
    copy,
    deleting,
    format_time,
    generation,
    key,
    labels,
    name,
    namespace,
    parse_time,
    set_condition,
)
from k8slite.api.selectors import from_object
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_key
from k8slite.controllers.workloads.pods import is_ready, is_terminal

__all__ = ["plan", "run_disruption_controller"]

DISRUPTED_SECONDS_MAX = 120.0
"""How long an eviction counts before its pod is seen to terminate."""

Scale = Callable[[Obj], tuple[str, int] | None]
"""(uid, size) of the workload that a pod belongs to, None if it has none that has a size."""


def plan(
    budget: Obj, pods: Sequence[Obj], scale_of: Scale, now: float
) -> tuple[list[Action], float | None]:
    """The new status, and in how many seconds a noted eviction stops counting.

    `pods` are those of the budget's namespace.
    """
    selector = from_object(budget["spec"].get("selector"))
    chosen = [p for p in pods if selector.matches(labels(p)) and not is_terminal(p)]
    noted, again = _still_noted(budget, chosen, now)
    expected, desired = _expectation(budget, chosen, scale_of)
    healthy = sum(is_ready(p) and not deleting(p) and name(p) not in noted for p in chosen)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status = copy(budget.get("status") or {})
    status.update(
        currentHealthy=healthy,
        desiredHealthy=desired,
        expectedPods=expected,
        disruptionsAllowed=allowed,
        observedGeneration=generation(budget),
    )
    status.pop("disruptedPods", None)
    if noted:
        status["disruptedPods"] = noted
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "observedGeneration": generation(budget),
    }
    set_condition(status, condition, format_time(now))
    if status == budget.get("status"):
        return [], again
    return [Update(POD_DISRUPTION_BUDGETS, {**budget, "status": status}, "status")], again


def _still_noted(
    budget: Obj, pods: Sequence[Obj], now: float
) -> tuple[dict[str, str], float | None]:
    there = [name(p) for p in pods if not deleting(p)]
    noted: dict[str, str] = {}
    again: float | None = None
    for pod, since in ((budget.get("status") or {}).get("disruptedPods") or {}).items():
        left = parse_time(since) + DISRUPTED_SECONDS_MAX - now
        if pod in there and left > 0:
            noted[pod] = since
            again = left if again is None else min(again, left)
    return noted, again


def _expectation(budget: Obj, pods: Sequence[Obj], scale_of: Scale) -> tuple[int, int]:
    """(pods there should be, pods there must be)."""
    spec = budget["spec"]
    most, least = spec.get("maxUnavailable"), spec.get("minAvailable")
    if most is None and isinstance(least, int):
        return len(pods), least
    sizes = dict(found for p in pods if (found := scale_of(p)) is not None)
    expected = sum(sizes.values())
    if most is not None:
        return expected, max(0, expected - _resolve(most, expected))
    return expected, _resolve(least if least is not None else 1, expected)


def _resolve(value: int | str, total: int) -> int:
    if isinstance(value, int):
        return value
    return -(-int(value.removesuffix("%")) * total // 100)


async def run_disruption_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("controllermanager")
    budgets = context.informer(POD_DISRUPTION_BUDGETS)
    pods = context.informer(PODS, namespace=lambda o: [namespace(o)])
    sets = context.informer(REPLICA_SETS)
    workloads = {kind: context.informer(kind) for kind in (DEPLOYMENTS, STATEFUL_SETS)}

    def scale_of(pod: Obj) -> tuple[str, int] | None:
        obj = None
        own = controller_key(pod, REPLICA_SETS)
        if own is not None:
            obj = sets.get(own)
            above = controller_key(obj, DEPLOYMENTS) if obj is not None else None
            if above is not None:
                obj = workloads[DEPLOYMENTS].get(above) or obj
        elif (own := controller_key(pod, STATEFUL_SETS)) is not None:
            obj = workloads[STATEFUL_SETS].get(own)
        if obj is None or controller_of(pod) is None:
            return None
        return obj["metadata"]["uid"], obj["spec"].get("replicas", 1)

    def on_pod(old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is not None:
                for budget in budgets.list():
                    selector = from_object(budget["spec"].get("selector"))
                    if namespace(budget) == namespace(pod) and selector.matches(labels(pod)):
                        queue.add(key(budget))

    def on_workload(old: Obj | None, new: Obj | None) -> None:
        before = (old or {}).get("spec", {}).get("replicas")
        after = (new or {}).get("spec", {}).get("replicas")
        obj = new or old
        if before != after and obj is not None:
            for budget in budgets.list():
                if namespace(budget) == namespace(obj):
                    queue.add(key(budget))

    async def reconcile(where: str) -> float | None:
        budget = budgets.get(where)
        if budget is None:
            return None
        near = pods.by_index("namespace", namespace(budget))
        actions, again = plan(budget, near, scale_of, context.host.now())
        await carry_out(context.api, recorder, actions)
        return again

    budgets.add_handler(enqueue_to(queue))
    pods.add_handler(on_pod)
    sets.add_handler(on_workload)
    for informer in workloads.values():
        informer.add_handler(on_workload)
    for informer in (budgets, pods, sets, *workloads.values()):
        await informer.wait_synced()
    await context.run_workers("disruption", queue, reconcile)
