"""Room for what a pod requests, and how it fills nodes (pure). Any resource counts alike: CPU,
memory, and what devices offer under names of their own (nvidia.com/gpu)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k8slite.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import SCORE_MAX, SKIP, Handle, InvalidArgs, Rejection
from k8slite.scheduler.pod_info import PodInfo, amounts, pod_requests
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["BalancedAllocation", "ResourcesFit"]

TOO_MANY_PODS = "Too many pods"
NATIVE = ("cpu", "memory", "ephemeral-storage")
DEFAULT_RESOURCES: Sequence[Mapping[str, Any]] = ({"name": "cpu"}, {"name": "memory"})
SHAPE_SCORE_MAX = 10
Weights = tuple[tuple[str, int], ...]
Rate = Callable[[int, int], int]
"""Of what would be requested and what the node has: 0..SCORE_MAX."""


class ResourcesFit:
    """Filter: enough of everything requested is free. Score, by `scoringStrategy`: nodes with more
    left are better (LeastAllocated), or with less (MostAllocated), or as a shape says
    (RequestedToCapacityRatio). `ignoredResources`, `ignoredResourceGroups`: not looked at."""

    name = "NodeResourcesFit"
    local = True
    absolute = True

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._ignored = frozenset(args.get("ignoredResources") or ())
        self._ignored_groups = tuple(f"{g}/" for g in args.get("ignoredResourceGroups") or ())
        strategy = args.get("scoringStrategy") or {}
        kind = strategy.get("type") or "LeastAllocated"
        self._weights = read_weights(strategy, "scoringStrategy.resources")
        if kind not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise InvalidArgs(f"scoringStrategy.type: {kind!r} is not one of {known}")
        self._rate, self._positive_only = STRATEGIES[kind](strategy)
        self.wakes = (
            Wakes(ASSIGNED_POD, Action.DELETE | Action.SCALE_DOWN, self._frees),
            Wakes(NODE, Action.ADD | Action.ALLOCATABLE, self._offers),
            Wakes(UNSCHEDULED_POD, Action.SCALE_DOWN),
        )

    def _looks_at(self, resource: str) -> bool:
        if resource in self._ignored:
            return False
        return not self._ignored_groups or not resource.startswith(self._ignored_groups)

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not self._ignored and not self._ignored_groups:
            return pod.requests
        return {r: n for r, n in pod.requests.items() if self._looks_at(r)}

    def filter(self, state: dict[str, int], pod: PodInfo, node: NodeInfo) -> Rejection | None:
        fits = len(node.pods) < node.pods_max
        if fits:
            allocatable, requested = node.allocatable, node.requested
            for resource, amount in state.items():
                if amount > allocatable.get(resource, 0) - requested.get(resource, 0):
                    fits = False
                    break
        return None if fits else _rejection(state, node)

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        total = parts = 0
        for resource, weight in self._weights:
            offered = node.allocatable.get(resource, 0)
            wanted = score_request(pod, resource)
            if not offered or (not wanted and resource not in NATIVE):
                continue
            rate = self._rate(score_requested(node, resource) + wanted, offered)
            if rate > 0 or not self._positive_only:
                total += weight * rate
                parts += weight
        if not parts:
            return 0
        return round(total / parts) if self._positive_only else total // parts

    def _frees(self, pod: PodInfo, change: Change) -> bool:
        """A pod that went, or shrank, had something of what this one needs."""
        if change.old is None:
            return False
        if change.new is None:  # a place for a pod is a resource too
            return True
        before, after = pod_requests(change.old["spec"]), pod_requests(change.new["spec"])
        return any(after.get(r, 0) < before.get(r, 0) for r in pod.requests)

    def _offers(self, pod: PodInfo, change: Change) -> bool:
        """The node is large enough at all, and offers more than before."""
        if change.new is None:
            return False
        offered = amounts((change.new.get("status") or {}).get("allocatable"))
        wanted = {**self.pre_filter(pod, Snapshot()), "pods": 1}
        if any(amount > offered.get(r, 0) for r, amount in wanted.items()):
            return False
        if change.old is None:
            return True
        before = amounts((change.old.get("status") or {}).get("allocatable"))
        return any(offered[r] > before.get(r, 0) for r in wanted)


def score_request(pod: PodInfo, resource: str) -> int:
    """What a pod counts as when nodes are compared: something even if it requests nothing."""
    if resource == "cpu":
        return pod.score_cpu
    return pod.score_memory if resource == "memory" else pod.requests.get(resource, 0)


def score_requested(node: NodeInfo, resource: str) -> int:
    if resource == "cpu":
        return node.score_cpu
    return node.score_memory if resource == "memory" else node.requested.get(resource, 0)


def _rejection(wanted: Mapping[str, int], node: NodeInfo) -> Rejection:
    """All that is missing; emptying the node helps only if it is large enough at all."""
    reasons = [TOO_MANY_PODS] if len(node.pods) >= node.pods_max else []
    resolvable = node.pods_max > 0
    for resource, amount in wanted.items():
        offered = node.allocatable.get(resource, 0)
        if amount > offered - node.requested.get(resource, 0):
            reasons.append(f"Insufficient {resource}")
            resolvable = resolvable and amount <= offered
    return Rejection(tuple(reasons), resolvable)


def read_weights(args: Mapping[str, Any], where: str) -> Weights:
    """`resources` of a strategy. Raises InvalidArgs."""
    given: Sequence[Mapping[str, Any]] = args.get("resources") or DEFAULT_RESOURCES
    found = tuple((each["name"], each.get("weight") or 1) for each in given)
    for resource, weight in found:
        if not 1 <= weight <= SCORE_MAX:
            raise InvalidArgs(f"{where}[{resource}].weight: {weight} is not from 1 to {SCORE_MAX}")
    return found


def _least(requested: int, offered: int) -> int:
    return max(0, offered - requested) * SCORE_MAX // offered


def _most(requested: int, offered: int) -> int:
    return min(requested, offered) * SCORE_MAX // offered


def _by_shape(strategy: Mapping[str, Any]) -> tuple[Rate, bool]:
    where = "scoringStrategy.requestedToCapacityRatio.shape"
    points = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or ()
    if not points:
        raise InvalidArgs(f"{where}: at least one point must be specified")
    shape = [(p.get("utilization", 0), p.get("score", 0)) for p in points]
    if any(not 0 <= score <= SHAPE_SCORE_MAX for _, score in shape):
        raise InvalidArgs(f"{where}: scores must be from 0 to {SHAPE_SCORE_MAX}")
    if any(one[0] >= other[0] for one, other in itertools.pairwise(shape)):
        raise InvalidArgs(f"{where}: utilization must grow from point to point")
    factor = SCORE_MAX // SHAPE_SCORE_MAX

    def rate(requested: int, offered: int) -> int:
        percent = 100 if requested > offered else requested * 100 // offered
        return interpolated(shape, percent, factor)

    return rate, True


def interpolated(shape: Sequence[tuple[int, int]], at: int, factor: int) -> int:
    """The value of a line through points; flat before the first and after the last."""
    for i, (x, y) in enumerate(shape):
        if at <= x:
            if i == 0:
                return y * factor
            x0, y0 = shape[i - 1]
            return y0 * factor + math.trunc((y - y0) * factor * (at - x0) / (x - x0))
    return shape[-1][1] * factor


STRATEGIES: Mapping[str, Callable[[Mapping[str, Any]], tuple[Rate, bool]]] = {
    "LeastAllocated": lambda strategy: (_least, False),
    "MostAllocated": lambda strategy: (_most, False),
    "RequestedToCapacityRatio": _by_shape,
}
"""How nodes are compared, and whether resources rated at nothing are left out."""


class BalancedAllocation:
    """Score: nodes on which the shares of the resources taken are alike."""

    name = "NodeResourcesBalancedAllocation"
    absolute = True

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._resources = [resource for resource, _ in read_weights(args, "resources")]

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        # Pods that request nothing would all go to the one node that is best balanced.
        return True if any(r in pod.requests for r in self._resources) else SKIP

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        shares = []
        for resource in self._resources:
            offered = node.allocatable.get(resource, 0)
            wanted = pod.requests.get(resource, 0)
            if offered and (wanted or resource in NATIVE):
                shares.append(min(1.0, (node.requested.get(resource, 0) + wanted) / offered))
        if len(shares) < 2:
            return SCORE_MAX
        if len(shares) == 2:
            return int((1 - abs(shares[0] - shares[1]) / 2) * SCORE_MAX)
        mean = sum(shares) / len(shares)
        deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / len(shares))
        return int((1 - deviation) * SCORE_MAX)
