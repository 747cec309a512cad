"""The node lifecycle: notice silent nodes, say so, and taint them.

The judgement is in `node_health`. Every monitor period the loop looks at all nodes: it writes
the conditions of silent ones, marks their pods not ready, and keeps the taints equal to the
conditions; changes of a node's own conditions are followed at once. When no node at all is
heard, nothing is evicted: the fault is most likely on our side.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

import trio

from k8slite.api.kinds import LEASES, NODES, PODS
from k8slite.api.meta import Obj, copy, format_time, get_condition, key, name, namespace
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Note, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.nodes.node_health import (
    Heard,
    is_ready,
    plan_taints,
    silenced_status,
    without_eviction,
)
from k8slite.controllers.nodes.node_zones import Zones
from k8slite.controllers.workloads.pods import node_index

__all__ = ["plan_pod_not_ready", "run_node_lifecycle_controller"]

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"


def plan_pod_not_ready(pod: Obj, now: str) -> list[Action]:
    """Nobody vouches for a pod on a silent node: it is not ready (pure)."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return []
    status = copy(pod["status"])
    changed = get_condition({"status": status}, "Ready")
    assert changed is not None
    changed.update(status="False", lastTransitionTime=now)
    return [
        Update(PODS, {**pod, "status": status}, "status"),
        Note(pod, "Warning", "NodeNotReady", "Node is not ready"),
    ]


async def run_node_lifecycle_controller(context: Context) -> None:
    """Run until cancelled."""
    controller = _Controller(context)
    for informer in (controller.nodes, controller.leases, controller.pods):
        await informer.wait_synced()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(controller.monitor)
        nursery.start_soon(
            context.run_workers, "node_lifecycle_controller", controller.queue, controller.reconcile
        )


class _Controller:
    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[str] = WorkQueue()
        self._context = context
        self._timings = context.timings
        self._recorder = context.recorder("node-controller")
        self.nodes = context.informer(NODES)
        self.leases = context.informer(LEASES)
        self.pods = context.informer(PODS, node=node_index)
        self._heard: dict[str, Heard] = {}
        self._zones = Zones(
            self._timings.node_eviction_rate,
            self._timings.node_eviction_rate_secondary,
            self._timings.unhealthy_zone_share,
            self._timings.large_zone,
        )
        self.nodes.add_handler(enqueue_to(self.queue))
        self.leases.add_handler(self._on_lease)

    def _on_lease(self, old: Obj | None, new: Obj | None) -> None:
        """Only that it changed matters, and when."""
        if new is not None and namespace(new) == LEASE_NAMESPACE:
            node = self.nodes.get(name(new))
            if node is not None:
                self._note(node)

    def _note(self, node: Obj) -> Heard:
        now = trio.current_time()
        heard = self._heard.get(name(node))
        lease = self.leases.get(f"{LEASE_NAMESPACE}/{name(node)}")
        if heard is None:
            heard = self._heard[name(node)] = Heard(now)
            heard.note(node, lease, now)
        heard.note(node, lease, now)
        return heard

    async def monitor(self) -> None:
        while True:
            await self._look_at_all()
            await trio.sleep(self._timings.node_monitor_period)

    async def _look_at_all(self) -> None:
        nodes = self.nodes.list()
        for gone in [n for n in self._heard if self.nodes.get(n) is None]:
            del self._heard[gone]
        silent = [node for node in nodes if self._is_silent(node)]
        self._judge_zones(nodes, dict.fromkeys(map(name, silent)))
        for node in silent:
            try:
                await self._silence(node)
            except REQUEST_ERRORS as error:
                log.info("node=%s error=%s", name(node), error)
        for node in nodes:
            self.queue.add(name(node))

    def _is_silent(self, node: Obj) -> bool:
        heard, timings = self._note(node), self._timings
        never = get_condition(node, "Ready") is None
        grace = timings.node_startup_grace if never else timings.node_monitor_grace
        return trio.current_time() - heard.at > grace

    def _judge_zones(self, nodes: Sequence[Obj], silent: Container[str]) -> None:
        """Before anything is written: evictions must not be faster than the judgement."""
        before, now = self._zones.all_dark, trio.current_time()
        for zone, state in self._zones.update(nodes, now, silent).items():
            log.warning("zone=%s state=%s", zone or "-", state.value)
        if self._zones.all_dark != before:
            told = "all nodes silent, evictions stop" if not before else "evictions resume"
            log.warning(told)
            if before:  # those who are not heard yet have a grace period to come back
                for node in nodes:
                    if name(node) not in silent:
                        self._heard[name(node)].at = now

    async def _silence(self, node: Obj) -> None:
        now = format_time(self._context.host.now())
        status = silenced_status(node, now)
        actions: list[Action] = []
        if status is not None:
            message = f"Node {name(node)} status is now: NodeNotReady"
            actions = [
                Update(NODES, {**node, "status": status}, "status"),
                Note(node, "Normal", "NodeNotReady", message),
            ]
        await carry_out(self._context.api, self._recorder, actions)
        await self._mark_pods(node, now)

    async def _mark_pods(self, node: Obj, now: str) -> None:
        for pod in self.pods.by_index("node", name(node)):
            actions = plan_pod_not_ready(pod, now)
            try:
                await carry_out(self._context.api, self._recorder, actions)
            except REQUEST_ERRORS as error:
                log.info("pod=%s error=%s", key(pod), error)  # the next look does it

    async def reconcile(self, key: str) -> float | None:
        """Keep the taints of a node equal to its conditions."""
        node = self.nodes.get(key)
        if node is None:
            return None
        now = format_time(self._context.host.now())
        spec = node.get("spec") or {}
        rate = self._zones.rate_of(node)
        if self._zones.all_dark and not is_ready(node):
            taints, evicts = without_eviction(node, now), False
        else:
            free = rate.available(trio.current_time())
            taints, evicts = plan_taints(node, now, may_evict=free)
        if taints != (spec.get("taints") or []):
            if evicts:
                rate.take()  # before anything awaits: workers share the rate
            changed = {**node, "spec": {**spec, "taints": taints}}
            await carry_out(self._context.api, self._recorder, [Update(NODES, changed)])
        return None
