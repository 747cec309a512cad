"""Spreading pods over nodes and zones (pure).

A pod's own constraints count; a pod that states none gets the profile's default ones, about pods of
its controller or of the services that select it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from attrs import frozen

from k8slite.api.meta import Obj, labels, namespace
from k8slite.api.selectors import LabelSelector
from k8slite.scheduler.counters import Counters
from k8slite.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import SCORE_MAX, SKIP, Handle, InvalidArgs, Rejection
from k8slite.scheduler.plugins.node_affinity import is_choosy, matches_required
from k8slite.scheduler.plugins.taints import KEEPS_AWAY, first_untolerated
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.terms import Choice, selector_of

__all__ = ["TopologySpread"]

SKEWED = Rejection(("node(s) didn't match pod topology spread constraints",), resolvable=True)
NO_LABEL = Rejection(
    ("node(s) didn't match pod topology spread constraints (missing required label)",)
)
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
HARD, SOFT = "DoNotSchedule", "ScheduleAnyway"
SYSTEM_DEFAULTS: tuple[Obj, ...] = (
    {"topologyKey": HOSTNAME, "whenUnsatisfiable": SOFT, "maxSkew": 3},
    {"topologyKey": ZONE, "whenUnsatisfiable": SOFT, "maxSkew": 5},
)
SPREADABLE = ("ReplicaSet", "ReplicationController", "StatefulSet")
"""Controllers whose pods the default constraints are about."""


@frozen
class Constraint:
    """One soft constraint, and how many matching pods each domain has."""

    topology_key: str
    max_skew: int
    counts: Mapping[str, int]
    weight: float
    """How much a pod in a domain counts: more, the more domains there are."""


class TopologySpread:
    """Filter: DoNotSchedule constraints hold. Score: ScheduleAnyway domains with fewer pods.

    Args: `defaultingType` System (the default) or List, `defaultConstraints` for the latter.
    """

    name = "PodTopologySpread"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        kind = args.get("defaultingType") or "System"
        given: Sequence[Obj] = args.get("defaultConstraints") or ()
        if kind not in ("System", "List"):
            raise InvalidArgs(f"defaultingType: {kind!r} is neither System nor List")
        if kind == "System" and given:
            raise InvalidArgs("defaultConstraints: only with defaultingType List")
        if any(each.get("labelSelector") for each in given):
            raise InvalidArgs("defaultConstraints: constraint must not define a selector")
        self._system = kind == "System"
        self._defaults = SYSTEM_DEFAULTS if self._system else tuple(given)
        self._counters = handle.snapshot.counters
        self.wakes = (
            Wakes(ASSIGNED_POD, Action.ADD | Action.DELETE | Action.LABELS, self._on_pod),
            Wakes(NODE, Action.ADD | Action.LABELS | Action.TAINTS | Action.DELETE, self._on_node),
            Wakes(UNSCHEDULED_POD, Action.LABELS),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        rules = self._rules(pod, HARD, snapshot.counters)
        keys = tuple(rule["topologyKey"] for rule, _ in rules)
        return [hard(rule, choice, keys, pod, snapshot) for rule, choice in rules] or SKIP

    def filter(
        self, state: Sequence[tuple[str, Container[str]]], pod: PodInfo, node: NodeInfo
    ) -> Rejection | None:
        labels = node.labels
        for topology_key, full in state:
            domain = labels.get(topology_key)
            if domain is None:
                return NO_LABEL
            if domain in full:
                return SKEWED
        return None

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        """The constraints, and whether nodes must have the labels of all of them."""
        rules = self._rules(pod, SOFT, snapshot.counters)
        if not rules:
            return SKIP
        every = bool(pod.spread) or not self._system
        keys = tuple(rule["topologyKey"] for rule, _ in rules)
        taking_part = [n for n in nodes if all(k in n.labels for k in keys)] if every else nodes
        found = []
        for rule, choice in rules:
            key = rule["topologyKey"]
            counts = counts_of(rule, choice, keys if every else (key,), pod, snapshot)
            size = len({node.labels.get(key, "") for node in taking_part})
            found.append(Constraint(key, rule.get("maxSkew", 1), counts, math.log(size + 2)))
        return found, every

    def score(self, state: tuple[list[Constraint], bool], pod: PodInfo, node: NodeInfo) -> int:
        """Matching pods in the node's domains, weighted; fewer is better. Below 0: the node lacks
        a label and is not compared."""
        constraints, every = state
        total = 0.0
        for one in constraints:
            domain = node.labels.get(one.topology_key)
            if domain is not None:
                total += one.counts.get(domain, 0) * one.weight + one.max_skew - 1
            elif every:
                return -1
        return round(total)

    def normalize(self, scores: list[int]) -> list[int]:
        compared = [score for score in scores if score >= 0]
        low, high = min(compared, default=0), max(compared, default=0)
        if high == 0:
            return [SCORE_MAX if score >= 0 else 0 for score in scores]
        return [SCORE_MAX * (high + low - s) // high if s >= 0 else 0 for s in scores]

    def _rules(self, pod: PodInfo, effect: str, counters: Counters) -> list[tuple[Obj, Choice]]:
        """The constraints of this effect, each with the pods that it counts."""
        if pod.spread:
            return [
                (rule, Choice(selector_of(rule, pod.labels), (pod.namespace,), living=True))
                for rule in pod.spread
                if rule["whenUnsatisfiable"] == effect
            ]
        rules = [rule for rule in self._defaults if rule["whenUnsatisfiable"] == effect]
        choice = default_choice(pod, counters) if rules else None
        return [] if choice is None else [(rule, choice) for rule in rules]

    def _on_pod(self, pod: PodInfo, change: Change) -> bool:
        """A pod that is counted came, went, or became another one."""
        rules = self._rules(pod, HARD, self._counters)
        return any(
            namespace(other) == pod.namespace and choice.selector.matches(labels(other))
            for _, choice in rules
            for other in (change.old, change.new)
            if other is not None
        )

    def _on_node(self, pod: PodInfo, change: Change) -> bool:
        """The node has the labels of all constraints now, or had them before."""
        keys = [rule["topologyKey"] for rule, _ in self._rules(pod, HARD, self._counters)]
        nodes = [node for node in (change.old, change.new) if node is not None]
        return any(all(key in labels(node) for key in keys) for node in nodes)


def default_choice(pod: PodInfo, counters: Counters) -> Choice | None:
    """Pods of the same controller, else of the services that select the pod; None: of nothing."""
    if pod.owner and pod.owner_kind in SPREADABLE:
        return Choice(LabelSelector(), owner=pod.owner, living=True)
    requirements = [
        requirement
        for selector in counters.services.get(pod.namespace, {}).values()
        if selector.matches(pod.labels)
        for requirement in selector.requirements
    ]
    if not requirements:
        return None
    merged = LabelSelector(tuple(dict.fromkeys(requirements)))
    return Choice(merged, (pod.namespace,), living=True)


def hard(
    rule: Obj, choice: Choice, keys: tuple[str, ...], pod: PodInfo, snapshot: Snapshot
) -> tuple[str, Container[str]]:
    """The key of a hard constraint, and the domains in which one more would be too many."""
    counts = counts_of(rule, choice, keys, pod, snapshot)
    least = min(counts.values(), default=0)
    if len(counts) < (rule.get("minDomains") or 1):
        least = 0
    most = least + rule.get("maxSkew", 1) - snapshot.counters.matches(choice, pod)
    # A domain that is not counted, because the pod could not go there, has nothing.
    full = frozenset(domain for domain, count in counts.items() if count > most)
    return rule["topologyKey"], full


def counts_of(
    rule: Obj, choice: Choice, keys: tuple[str, ...], pod: PodInfo, snapshot: Snapshot
) -> Mapping[str, int]:
    """Matching pods by domain, over the nodes with all the labels to which the pod could go."""
    key = rule["topologyKey"]
    count = snapshot.count(key, choice)
    affinity = rule.get("nodeAffinityPolicy", "Honor") == "Honor" and is_choosy(pod)
    taints = rule.get("nodeTaintsPolicy", "Ignore") == "Honor"
    nodes = snapshot.nodes
    partly = len(keys) > 1 and not snapshot.counters.all_labelled(keys, nodes)
    if not affinity and not taints and not partly:
        return count.places
    counts: dict[str, int] = {}
    for node in nodes:
        domain = node.labels.get(key)
        if domain is None or (partly and not all(k in node.labels for k in keys)):
            continue
        if affinity and not matches_required(pod, node):
            continue
        if taints and first_untolerated(pod, node.taints, KEEPS_AWAY):
            continue
        counts[domain] = counts.get(domain, 0) + count.nodes.get(node.name, 0)
    return counts
