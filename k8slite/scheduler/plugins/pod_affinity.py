"""Affinity and anti-affinity between pods (pure).

A term names pods (by labels and namespaces) and a topology key; two nodes with the same value of
that label are one place. A pod goes where its affinity terms find such pods, and stays away from
where its anti-affinity terms find them; and pods that are there already may want it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, frozen

from k8slite.api.meta import Obj
from k8slite.api.selectors import LabelSelector
from k8slite.scheduler.framework import SCORE_MAX, SKIP, ClusterEvent, Rejection
from k8slite.scheduler.plugins.spread import selector_of
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["PodAffinity"]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NO_COMPANY = Rejection(("node(s) didn't match pod affinity rules",))
UNWANTED_COMPANY = Rejection(("node(s) didn't match pod anti-affinity rules",), resolvable=True)
UNWANTED_HERE = Rejection(
    ("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True
)


@frozen
class Term:
    """One term, read for the pod that states it. `namespaces` None means all."""

    topology_key: str
    selector: LabelSelector
    namespaces: tuple[str, ...] | None
    weight: int = 0

    def matches(self, other: PodInfo) -> bool:
        near = self.namespaces is None or other.namespace in self.namespaces
        return near and self.selector.matches(other.labels)


def read_term(term: Obj, pod: PodInfo, weight: int = 0) -> Term:
    namespaces: tuple[str, ...] | None = tuple(term.get("namespaces") or ()) or (pod.namespace,)
    if term.get("namespaceSelector") is not None:
        # Labels of namespaces are not watched: a selector, when empty, means all of them.
        namespaces = None if not term["namespaceSelector"] else namespaces
    return Term(term["topologyKey"], selector_of(term, pod.labels), namespaces, weight)


def terms_of(pod: PodInfo, which: str, strength: str) -> list[Term]:
    terms = (pod.affinity.get(which) or {}).get(strength) or ()
    if strength == REQUIRED:
        return [read_term(term, pod) for term in terms]
    return [read_term(t["podAffinityTerm"], pod, t["weight"]) for t in terms]


Place = tuple[str, str]
"""(topology key, value)"""


@define
class State:
    """Which places have what, for one pod to be placed."""

    affinity: list[Term]
    anti_affinity: list[Term]
    company: list[dict[Place, int]]
    """Per affinity term: matching pods by place."""
    unwanted: dict[Place, None]
    unwanted_by_others: dict[Place, None]
    first_of_its_kind: bool
    """No pod matches, but the pod matches its own terms: it may start the company."""


def place_of(term: Term, node: NodeInfo) -> Place | None:
    value = node.labels.get(term.topology_key)
    return None if value is None else (term.topology_key, value)


class PodAffinity:
    name = "InterPodAffinity"
    events = (
        ClusterEvent.NODE_ADDED,
        ClusterEvent.NODE_CHANGED,
        ClusterEvent.POD_GONE,
        ClusterEvent.POD_PLACED,
    )

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        if nodes is not None:
            return self._prepare_score(pod, snapshot)
        affinity = terms_of(pod, "podAffinity", REQUIRED)
        anti_affinity = terms_of(pod, "podAntiAffinity", REQUIRED)
        by_others = places_that_refuse(pod, snapshot.averse_nodes)
        if not affinity and not anti_affinity and not by_others:
            return SKIP
        company = [count_places(term, snapshot.nodes) for term in affinity]
        unwanted: dict[Place, None] = {}
        for term in anti_affinity:
            unwanted.update(dict.fromkeys(count_places(term, snapshot.nodes)))
        first = not any(company) and all(term.matches(pod) for term in affinity)
        return State(affinity, anti_affinity, company, unwanted, by_others, first)

    def filter(self, state: State, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        for term, company in zip(state.affinity, state.company, strict=True):
            place = place_of(term, node)
            if place is None or (place not in company and not state.first_of_its_kind):
                return NO_COMPANY
        for term in state.anti_affinity:
            if place_of(term, node) in state.unwanted:
                return UNWANTED_COMPANY
        for key, value in state.unwanted_by_others:
            if node.labels.get(key) == value:
                return UNWANTED_HERE
        return None

    def _prepare_score(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        weights: dict[Place, int] = {}
        for which, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for term in terms_of(pod, which, PREFERRED):
                for place, count in count_places(term, snapshot.nodes).items():
                    weights[place] = weights.get(place, 0) + sign * term.weight * count
        return weights or SKIP

    def score(self, state: dict[Place, int], pod: PodInfo, node: NodeInfo) -> int:
        return sum(
            weight for (key, value), weight in state.items() if node.labels.get(key) == value
        )

    def normalize(self, scores: list[int]) -> list[int]:
        low, high = min(scores, default=0), max(scores, default=0)
        if high == low:
            return [0] * len(scores)
        return [(score - low) * SCORE_MAX // (high - low) for score in scores]


def count_places(term: Term, nodes: Iterable[NodeInfo]) -> dict[Place, int]:
    """How many pods the term finds, by place; places without any are left out."""
    counts: dict[Place, int] = {}
    for node in nodes:
        place = place_of(term, node)
        if place is None:
            continue
        found = sum(term.matches(other) for other in node.pods.values())
        if found:
            counts[place] = counts.get(place, 0) + found
    return counts


def places_that_refuse(pod: PodInfo, nodes: Iterable[NodeInfo]) -> dict[Place, None]:
    """Places with a pod whose own anti-affinity matches the one to be placed."""
    places: dict[Place, None] = {}
    for node in nodes:
        for other in node.with_anti_affinity.values():
            for term in terms_of(other, "podAntiAffinity", REQUIRED):
                place = place_of(term, node)
                if place is not None and term.matches(pod):
                    places[place] = None
    return places
