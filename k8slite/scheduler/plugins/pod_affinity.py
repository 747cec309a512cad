"""Affinity and anti-affinity between pods (pure).

A pod goes where its affinity terms find such pods, and stays away from where its anti-affinity
terms find them; and pods that are there already may want it away, or near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, evolve

from k8slite.api.meta import Obj
from k8slite.api.meta import labels as labels_of
from k8slite.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import SCORE_MAX, SKIP, Handle, InvalidArgs, Rejection
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.terms import Choice, Term

__all__ = ["PodAffinity"]

AFFINITY, ANTI = "podAffinity", "podAntiAffinity"
REQUIRED_WEIGHT = 1
"""What a pod that is there gains by company that it requires (kube-scheduler's default)."""
NO_COMPANY = Rejection(("node(s) didn't match pod affinity rules",))
UNWANTED_COMPANY = Rejection(("node(s) didn't match pod anti-affinity rules",), resolvable=True)
UNWANTED_HERE = Rejection(
    ("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True
)
Places = dict[str, dict[str, int]]
"""By topology key, then by value of that label."""


@define
class State:
    """Which places have what, for one pod to be placed."""

    company: list[tuple[str, dict[str, int]]]
    """Per affinity term: its topology key, and matching pods by place."""
    unwanted: list[tuple[str, dict[str, int]]]
    unwanted_by_others: Places
    first_of_its_kind: bool
    """No pod matches, but the pod matches its own terms: it may start the company."""


class PodAffinity:
    """Args: `hardPodAffinityWeight`, what a pod that is there gains by company that it requires;
    `ignorePreferredTermsOfExistingPods`."""

    name = "InterPodAffinity"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        weight = args.get("hardPodAffinityWeight")
        self._hard_weight: int = REQUIRED_WEIGHT if weight is None else weight
        if not 0 <= self._hard_weight <= SCORE_MAX:
            raise InvalidArgs(f"hardPodAffinityWeight: {weight} is not from 0 to {SCORE_MAX}")
        self._ignores_preferred = bool(args.get("ignorePreferredTermsOfExistingPods"))
        self._counters = handle.snapshot.counters
        self.wakes = (
            Wakes(ASSIGNED_POD, Action.ADD | Action.LABELS | Action.DELETE, self._on_pod),
            Wakes(NODE, Action.ADD | Action.LABELS, _on_node),
            Wakes(UNSCHEDULED_POD, Action.LABELS),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        affinity = [t for t in pod.terms if t.side == AFFINITY and not t.weight]
        anti_affinity = [t for t in pod.terms if t.side == ANTI and not t.weight]
        by_others = places_that_refuse(pod, snapshot)
        if not affinity and not anti_affinity and not by_others:
            return SKIP
        choice = all_of(affinity)
        counts = [snapshot.count(t.topology_key, choice) for t in affinity] if choice else []
        first = not any(count.total for count in counts) and all(
            snapshot.counters.matches(t.choice, pod) for t in affinity
        )
        avoided = [snapshot.count(t.topology_key, t.choice) for t in anti_affinity]
        return State(
            [(count.topology_key, count.places) for count in counts],
            [(count.topology_key, count.places) for count in avoided if count.total],
            by_others,
            first,
        )

    def filter(self, state: State, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        labels = node.labels
        for key, places in state.company:
            place = labels.get(key)
            if place is None or (not places.get(place) and not state.first_of_its_kind):
                return NO_COMPANY
        for key, places in state.unwanted:
            if places.get(labels.get(key, "")):
                return UNWANTED_COMPANY
        for key, places in state.unwanted_by_others.items():
            if labels.get(key) in places:
                return UNWANTED_HERE
        return None

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        weights: Places = {}
        for term in pod.terms:
            if term.weight:
                count = snapshot.count(term.topology_key, term.choice)
                _weigh(weights, term, count.places, term.weight)
        for term, places in snapshot.holders().items():
            if term.weight and self._ignores_preferred:
                continue
            wish = term.weight or (self._hard_weight if term.side == AFFINITY else 0)
            if wish and snapshot.counters.matches(term.choice, pod):
                _weigh(weights, term, places, wish)
        return [*weights.items()] or SKIP

    def score(self, state: list[tuple[str, dict[str, int]]], pod: PodInfo, node: NodeInfo) -> int:
        total = 0
        for key, places in state:
            total += places.get(node.labels.get(key, ""), 0)
        return total

    def normalize(self, scores: list[int]) -> list[int]:
        low, high = min(scores, default=0), max(scores, default=0)
        if high == low:
            return [0] * len(scores)
        return [(score - low) * SCORE_MAX // (high - low) for score in scores]

    def _on_pod(self, pod: PodInfo, change: Change) -> bool:
        """Company that the pod wants has come, or some that kept it away has gone."""
        wanted = [t.choice for t in pod.terms if t.side == AFFINITY and not t.weight]
        if change.new is not None and self._finds(wanted, change.new):
            return True
        if change.old is None:
            return False
        avoided = [t.choice for t in pod.terms if t.side == ANTI and not t.weight]
        other = pod_info(change.old)
        refused_by = [t.choice for t in other.terms if t.side == ANTI and not t.weight]
        return self._finds(avoided, change.old) or self._finds(refused_by, pod.pod)

    def _finds(self, choices: Sequence[Choice], pod: Obj) -> bool:
        info = pod_info(pod) if choices else None
        return info is not None and any(self._counters.matches(c, info) for c in choices)


def _on_node(pod: PodInfo, change: Change) -> bool:
    """The node is in a place that it was not in before."""
    before = {} if change.old is None else labels_of(change.old)
    now = {} if change.new is None else labels_of(change.new)
    keys = [t.topology_key for t in pod.terms if not t.weight]
    # Who is kept away by others' terms cares for every label; they are looked at again anyway.
    return not keys or any(before.get(key) != now.get(key) for key in keys)


def all_of(terms: Sequence[Term]) -> Choice | None:
    """Company is a pod that all required terms choose, not a different one for each."""
    if not terms:
        return None
    first, *others = (term.choice for term in terms)
    return evolve(first, also=tuple(others)) if others else first


def _weigh(weights: Places, term: Term, places: dict[str, int], wish: int) -> None:
    found = {place: wish * count for place, count in places.items() if count}
    if not found:
        return
    known = weights.setdefault(term.topology_key, {})
    for place, weight in found.items():
        known[place] = known.get(place, 0) + weight


def places_that_refuse(pod: PodInfo, snapshot: Snapshot) -> Places:
    """Places with a pod whose own anti-affinity matches the one to be placed."""
    refused: Places = {}
    for term, places in snapshot.holders().items():
        aversion = term.side == ANTI and not term.weight
        if aversion and snapshot.counters.matches(term.choice, pod):
            refused.setdefault(term.topology_key, {}).update(places)
    return refused
