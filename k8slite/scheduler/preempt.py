"""Preemption (pure): whose deletion would make room for a more important pod.

Looks only at nodes whose rejection could be resolved by deletions. On each, all less important
pods go in thought; then as many as possible come back, the most important first. Of the nodes
where that works, the one with the least important victims is chosen. Disruption budgets are not
looked at: they are a preference there, not a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8slite.scheduler.framework import SKIP, Filter, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["Preemption", "preempt"]

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


class Preemption(NamedTuple):
    """`node` is "" when no deletion helps; `message` is what to add to the pod's own message."""

    node: str
    victims: tuple[PodInfo, ...] = ()
    message: str = ""


def preempt(
    pod: PodInfo, snapshot: Snapshot, resolvable: Sequence[str], filters: Sequence[Filter]
) -> Preemption:
    """`resolvable`: names of the nodes where deletions could help; all others were rejected for
    good. The snapshot is changed in thought, and is as before on return."""
    total = len(snapshot.nodes)
    if not total:
        return Preemption("")
    if pod.pod["spec"].get("preemptionPolicy") == "Never":
        return Preemption("", (), _message(total, {NOT_HELPFUL: total}))
    best: tuple[tuple[int, ...], str, tuple[PodInfo, ...]] | None = None
    for node_name in resolvable:
        node = snapshot.node(node_name)
        assert node is not None
        victims = _victims(pod, snapshot, node, filters)
        if victims is None:
            continue
        priorities = [victim.priority for victim in victims]
        cost = (max(priorities), sum(priorities), len(priorities))
        if best is None or cost < best[0]:
            best = cost, node_name, victims
    if best is not None:
        return Preemption(best[1], best[2])
    counts = {NO_VICTIMS: len(resolvable), NOT_HELPFUL: total - len(resolvable)}
    return Preemption("", (), _message(total, counts))


def _victims(
    pod: PodInfo, snapshot: Snapshot, node: NodeInfo, filters: Sequence[Filter]
) -> tuple[PodInfo, ...] | None:
    """The pods that must go, or None if even all that may go would not help."""
    lesser = [p for p in node.pods.values() if p.priority < pod.priority]
    if not lesser:
        return None
    for one in lesser:
        node.remove_pod(one)
    back: list[PodInfo] = []
    victims: list[PodInfo] = []
    try:
        if not _passes(pod, snapshot, node, filters):
            return None
        for one in sorted(lesser, key=lambda p: (-p.priority, p.key)):
            node.add_pod(one)
            if _passes(pod, snapshot, node, filters):
                back.append(one)
            else:
                node.remove_pod(one)
                victims.append(one)
    finally:
        for one in lesser:
            if one.uid not in node.pods:
                node.add_pod(one)
    return tuple(victims) or None


def _passes(pod: PodInfo, snapshot: Snapshot, node: NodeInfo, filters: Sequence[Filter]) -> bool:
    for one in filters:
        state = one.prepare(pod, snapshot)
        if isinstance(state, Rejection):
            return False
        if state is not SKIP and one.filter(state, pod, node) is not None:
            return False
    return True


def _message(total: int, counts: dict[str, int]) -> str:
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items() if count))
    return f" preemption: 0/{total} nodes are available: {told}."
