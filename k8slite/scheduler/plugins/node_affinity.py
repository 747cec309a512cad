"""Node selectors and node affinity, of the pod and of its profile (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.api.meta import Obj, labels, name
from k8slite.api.node_affinity import allows, matches_term, required_terms
from k8slite.scheduler.events import NODE, Action, Change, Wakes
from k8slite.scheduler.framework import SKIP, Handle, InvalidArgs, Only, Rejection, scale_to_max
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NodeAffinity", "is_choosy", "matches_required"]

NO_MATCH = Rejection(("node(s) didn't match Pod's node affinity/selector",))
NOT_ENFORCED = Rejection(("node(s) didn't match scheduler-enforced node affinity",))
CONFLICT = Rejection(("pod affinity terms conflict",))
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def matches_required(pod: PodInfo, node: NodeInfo) -> bool:
    """The node selector and any one of the required terms."""
    return allows(pod.pod["spec"], node.labels, node.name)


def is_choosy(pod: PodInfo) -> bool:
    """Does it say anything about which nodes it may go to?"""
    return bool(pod.node_selector) or required_terms(pod.pod["spec"]) is not None


class NodeAffinity:
    """Args: `addedAffinity`, a NodeAffinity that holds for all pods of the profile."""

    name = "NodeAffinity"
    local = True

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        added = args.get("addedAffinity") or {}
        if not isinstance(added, Mapping):
            raise InvalidArgs("addedAffinity: must be an object")
        required = added.get(REQUIRED)
        self._enforced = required and required.get("nodeSelectorTerms")
        self._preferred: Sequence[Obj] = added.get(PREFERRED) or ()
        self.wakes = (Wakes(NODE, Action.ADD | Action.LABELS, self._hint),)

    def _allowed(self, own_labels: Mapping[str, str], own: str) -> bool:
        terms = self._enforced
        return not terms or any(matches_term(term, own_labels, own) for term in terms)

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not is_choosy(pod):
            return True if self._enforced else SKIP
        named = named_nodes(required_terms(pod.pod["spec"]))
        if named is None:
            return True
        return Only(named, True) if named else CONFLICT

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if not self._allowed(node.labels, node.name):
            return NOT_ENFORCED
        return None if matches_required(pod, node) else NO_MATCH

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        affinity = pod.affinity.get("nodeAffinity") or {}
        return [*(affinity.get(PREFERRED) or ()), *self._preferred] or SKIP

    def score(self, state: Sequence[Obj], pod: PodInfo, node: NodeInfo) -> int:
        """The weights of the preferred terms that match."""
        return sum(
            preferred["weight"]
            for preferred in state
            if matches_term(preferred["preference"], node.labels, node.name)
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores)

    def _hint(self, pod: PodInfo, change: Change) -> bool:
        """The node suits the pod now, and did not before."""
        node, before = change.new, change.old
        if node is None or not self._suits(pod, node):
            return False
        return before is None or not self._suits(pod, before)

    def _suits(self, pod: PodInfo, node: Obj) -> bool:
        here = labels(node)
        return self._allowed(here, name(node)) and allows(pod.pod["spec"], here, name(node))


def named_nodes(terms: Sequence[Obj] | None) -> dict[str, None] | None:
    """The nodes to which the terms' fields restrict a pod, as a DaemonSet's; None: they do not."""
    if not terms:
        return None
    found: dict[str, None] = {}
    for term in terms:
        names: dict[str, None] | None = None
        for each in term.get("matchFields") or ():
            if each["key"] == "metadata.name" and each["operator"] == "In":
                values = dict.fromkeys(each["values"])
                names = values if names is None else {n: None for n in names if n in values}
        if names is None:
            return None
        found |= names
    return found
