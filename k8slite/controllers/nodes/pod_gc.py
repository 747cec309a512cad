"""Pod garbage collection: pods that nobody else will ever remove.

Finished pods beyond a number (the oldest first), pods bound to nodes that do not exist, pods
that were deleted before they were bound, and pods that are terminating on a node declared out of
service.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

import trio

from k8slite.api.kinds import NODES, PODS
from k8slite.api.meta import Obj, copy, deleting, format_time, name, set_condition
from k8slite.api.status import ApiError
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.controllers.actions import Action, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.workloads.pods import is_terminal

__all__ = ["plan", "run_pod_gc_controller"]

log = logging.getLogger(__name__)

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NOT_FOUND = 404


def plan(
    pods: Sequence[Obj],
    gone_nodes: Container[str],
    out_of_service: Container[str],
    terminated_max: int,
    now: float,
) -> list[list[Action]]:
    """What to remove, a list of actions for each pod (pure).

    `gone_nodes`: names that certainly belong to no node.
    """
    plans: list[list[Action]] = []
    finished = [p for p in pods if is_terminal(p) and not deleting(p)]
    surplus = len(finished) - terminated_max
    if surplus > 0:
        finished.sort(key=lambda p: (p["metadata"].get("creationTimestamp") or "", name(p)))
        plans += [_remove(pod, None, now) for pod in finished[:surplus]]
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and node in gone_nodes:
            plans.append(_remove(pod, "PodGC: node no longer exists", now))
        elif not node and deleting(pod):
            plans.append(_remove(pod, None, now))
        elif node and deleting(pod) and node in out_of_service:
            plans.append(_remove(pod, "PodGC: node is out of service", now))
    return plans


def _remove(pod: Obj, why: str | None, now: float) -> list[Action]:
    """Mark it failed, for whoever reads its phase, and delete it without waiting for a kubelet."""
    actions: list[Action] = []
    if not is_terminal(pod):
        status = copy(pod.get("status") or {})
        status["phase"] = "Failed"
        if why:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": why,
            }
            set_condition(status, condition, format_time(now))
        actions.append(Update(PODS, {**pod, "status": status}, "status"))
    actions.append(delete(PODS, pod, grace_period_seconds=0))
    return actions


async def run_pod_gc_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("pod-garbage-collector")
    nodes = context.informer(NODES)
    pods = context.informer(PODS)
    missing_since: dict[str, float] = {}
    await nodes.wait_synced()
    await pods.wait_synced()
    while True:
        gone = await _gone_nodes(context, missing_since)
        out = [name(n) for n in nodes.list() if _is_out_of_service(n)]
        limit = context.timings.terminated_pods_max
        for actions in plan(pods.list(), gone, out, limit, context.host.now()):
            try:
                await carry_out(context.api, recorder, actions)
            except REQUEST_ERRORS as error:
                log.info("pod not collected error=%s", error)  # the next round does it
        await trio.sleep(context.timings.pod_gc_period)


async def _gone_nodes(context: Context, missing_since: dict[str, float]) -> list[str]:
    """Names that pods are bound to and that belong to no node, after a time in quarantine.

    A pod may be seen before its node is: the apiserver is asked before a node counts as gone.
    """
    now = trio.current_time()
    nodes = context.informer(NODES)
    bound = {
        pod["spec"]["nodeName"]: None
        for pod in context.informer(PODS).list()
        if pod["spec"].get("nodeName")
    }
    missing = [node for node in bound if nodes.get(node) is None]
    for node in [*missing_since]:
        if node not in missing:
            del missing_since[node]
    gone = []
    for node in missing:
        since = missing_since.setdefault(node, now)
        if now - since < context.timings.pod_gc_quarantine:
            continue
        try:
            await context.api.get(NODES, node)
        except ApiError as error:
            if error.code == NOT_FOUND:
                gone.append(node)
        except REQUEST_ERRORS as error:
            log.info("node=%s error=%s", node, error)
    return gone


def _is_out_of_service(node: Obj) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return any(t["key"] == OUT_OF_SERVICE for t in taints)
