"""Preemption (pure): whose deletion would make room for a more important pod.

Looks only at nodes whose rejection could be resolved by deletions, and in a large cluster only at
some of them. On each, all less important pods go in thought; then as many as possible come back:
first those that a disruption budget protects, the most important first. Of the nodes where that
works, the one is chosen that breaks the fewest budgets, then whose victims are the least important,
the fewest, the youngest.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from k8slite.api.meta import Obj, get_condition, labels, name, namespace, parse_time
from k8slite.api.selectors import from_object
from k8slite.scheduler.decide import fit_message, passes
from k8slite.scheduler.framework import Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.profile import Profile
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["Candidate", "candidates", "cheapest", "not_eligible", "useless_message"]

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
PERCENT_MIN = 10
CANDIDATES_MIN = 100
PRIORITY_OFFSET = 2**31
"""Makes every priority a positive number, so that more victims are never cheaper."""


class Candidate(NamedTuple):
    """A node, the pods that would have to go, and how many of them budgets protect."""

    node: str
    victims: tuple[PodInfo, ...]
    violations: int


def not_eligible(pod: PodInfo, snapshot: Snapshot, resolvable: Sequence[str]) -> str:
    """Why the pod may not preempt others now; "" if it may."""
    if pod.pod["spec"].get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    node = snapshot.node(pod.nominated) if pod.nominated in resolvable else None
    for other in node.pods.values() if node is not None else ():
        if other.priority < pod.priority and other.stopping and _preempted(other.pod):
            return "not eligible due to a terminating pod on the nominated node."
    return ""


def _preempted(pod: Obj) -> bool:
    condition = get_condition(pod, "DisruptionTarget") or {}
    return condition.get("status") == "True" and condition.get("reason") == "PreemptionByScheduler"


def candidates(
    pod: PodInfo,
    snapshot: Snapshot,
    resolvable: Sequence[str],
    profile: Profile,
    rng: random.Random,
    *,
    percent: int = PERCENT_MIN,
    least: int = CANDIDATES_MIN,
) -> list[Candidate]:
    """Nodes where deletions would help. `percent` of them, and at least `least`, are enough. The
    snapshot is changed in thought, and is as before on return."""
    if not resolvable:
        return []
    enough = min(len(resolvable), max(least, len(resolvable) * percent // 100))
    offset = rng.randrange(len(resolvable)) if enough < len(resolvable) else 0
    found: list[Candidate] = []
    for i in range(len(resolvable)):
        node = snapshot.node(resolvable[(offset + i) % len(resolvable)])
        candidate = _on_node(pod, snapshot, node, profile) if node is not None else None
        if candidate is None:
            continue
        found.append(candidate)
        if len(found) >= enough and any(not each.violations for each in found):
            break
    return found


def cheapest(found: Sequence[Candidate]) -> Candidate | None:
    """The one that costs the least; of equals, the first."""
    return min(found, key=_cost, default=None)


def _cost(candidate: Candidate) -> tuple[float, ...]:
    victims = candidate.victims
    if not victims:
        return (-1.0,)
    highest = max(victim.priority for victim in victims)
    started = min(start_of(victim) for victim in victims if victim.priority == highest)
    total = sum(victim.priority + PRIORITY_OFFSET for victim in victims)
    return (candidate.violations, highest, total, len(victims), -started)


def useless_message(snapshot: Snapshot, resolvable: Sequence[str]) -> str:
    """What is told when no deletion helps."""
    helpless = len(snapshot.nodes) - len(resolvable)
    rejections = [Rejection((NO_VICTIMS,))] * len(resolvable)
    rejections += [Rejection((NOT_HELPFUL,))] * helpless
    return fit_message(rejections, len(snapshot.nodes))


def start_of(pod: PodInfo) -> float:
    """When it was started; one that was not is the youngest."""
    told = (pod.pod.get("status") or {}).get("startTime")
    return parse_time(told) if told else float(2**40)


def _on_node(
    pod: PodInfo, snapshot: Snapshot, node: NodeInfo, profile: Profile
) -> Candidate | None:
    lesser = [p for p in node.pods.values() if p.priority < pod.priority]
    if not lesser:
        return None
    for one in lesser:
        node.remove_pod(one)
    victims: list[PodInfo] = []
    violations = 0
    try:
        if not passes(pod, snapshot, node, profile):
            return None
        lesser.sort(key=lambda p: (-p.priority, start_of(p), p.key))
        protected = violating(lesser, snapshot.budgets.values())
        for one in [*protected, *(p for p in lesser if p not in protected)]:
            node.add_pod(one)
            if not passes(pod, snapshot, node, profile):
                node.remove_pod(one)
                victims.append(one)
                violations += one in protected
    finally:
        for one in lesser:
            if one.uid not in node.pods:
                node.add_pod(one)
    return Candidate(node.name, tuple(victims), violations)


def violating(pods: Sequence[PodInfo], budgets: Iterable[Obj]) -> list[PodInfo]:
    """The pods whose eviction, in this order, their budgets would not allow."""
    allowed = [
        (budget, (budget.get("status") or {}).get("disruptionsAllowed", 0)) for budget in budgets
    ]
    left = [number for _, number in allowed]
    found = []
    for pod in pods:
        violates = False
        for i, (budget, _) in enumerate(allowed):
            if namespace(budget) != pod.namespace or not pod.labels:
                continue
            selector = budget["spec"].get("selector")
            if not selector or not from_object(selector).matches(labels(pod.pod)):
                continue
            if name(pod.pod) in ((budget.get("status") or {}).get("disruptedPods") or {}):
                continue  # counted already
            left[i] -= 1
            violates = violates or left[i] < 0
        if violates:
            found.append(pod)
    return found
