"""Taint eviction: pods leave a node with NoExecute taints that they do not tolerate.

`eviction_time` is pure. A toleration with seconds delays the eviction, counted from when the
taint was added, so that a change of leader does not begin anew. Deletions are the ordinary,
graceful kind: on a node that is really dead, the pod stays Terminating until the node comes back
or is deleted, since nobody can say that its containers are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.kinds import NODES, PODS
from k8slite.api.meta import (
    Obj,
    copy,
    deleting,
    format_time,
    key,
    name,
    namespace,
    parse_time,
    set_condition,
)
from k8slite.api.taints import tolerates
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Note, Update, delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.workloads.pods import is_terminal, node_index

__all__ = ["eviction_time", "plan", "run_taint_eviction_controller"]

NEVER = float("inf")


def eviction_time(tolerations: Sequence[Obj], taints: Sequence[Obj], now: float) -> float:
    """When (wall clock) the pod must go; infinity: never. `taints` are all of the node."""
    due = NEVER
    for one in taints:
        if one["effect"] != "NoExecute":
            continue
        matching = [t for t in tolerations if tolerates(t, one)]
        if not matching:
            return now
        seconds = [t["tolerationSeconds"] for t in matching if "tolerationSeconds" in t]
        if seconds:
            added = parse_time(one["timeAdded"]) if one.get("timeAdded") else now
            due = min(due, added + max(0, min(seconds)))
    return due


def plan(pod: Obj, node: Obj | None, now: float) -> tuple[list[Action], float | None]:
    """What to do with a pod, and in how many seconds to look again."""
    if node is None or deleting(pod) or is_terminal(pod):
        return [], None
    taints = (node.get("spec") or {}).get("taints") or []
    due = eviction_time(pod["spec"].get("tolerations") or [], taints, now)
    if due == NEVER:
        return [], None
    if due > now:
        return [], due - now
    status = copy(pod.get("status") or {})
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    actions: list[Action] = []
    if set_condition(status, condition, format_time(now)):
        actions.append(Update(PODS, {**pod, "status": status}, "status"))
    message = f"Marking for deletion Pod {namespace(pod)}/{name(pod)}"
    actions.append(Note(pod, "Normal", "TaintManagerEviction", message))
    actions.append(delete(PODS, pod))
    return actions, None


async def run_taint_eviction_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("taint-eviction-controller")
    nodes = context.informer(NODES)
    pods = context.informer(PODS, node=node_index)

    def on_node(old: Obj | None, new: Obj | None) -> None:
        before = ((old or {}).get("spec") or {}).get("taints")
        after = ((new or {}).get("spec") or {}).get("taints")
        node = new or old
        if before != after and node is not None:
            for pod in pods.by_index("node", name(node)):
                queue.add(key(pod))

    async def reconcile(where: str) -> float | None:
        pod = pods.get(where)
        if pod is None:
            return None
        node = nodes.get(pod["spec"].get("nodeName") or "")
        actions, again = plan(pod, node, context.host.now())
        await carry_out(context.api, recorder, actions)
        return again

    nodes.add_handler(on_node)
    pods.add_handler(enqueue_to(queue))
    await nodes.wait_synced()
    await pods.wait_synced()
    await context.run_workers("taint-eviction", queue, reconcile)
