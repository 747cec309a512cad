"""How many pods of which kind are where, kept up to date pod by pod (pure).

Two questions that affinity and spreading ask of every pod to be placed are answered from counts
instead of by looking at all pods: how many pods that a choice finds are in each place (`count`),
and which terms the pods that are there state (`holders`). Changes of nodes' labels, of which
nodes there are and of namespaces throw the counts away; they are made anew when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, field

from k8slite.api.selectors import LabelSelector, from_map
from k8slite.scheduler.terms import Choice, Spaces, Term

if TYPE_CHECKING:
    from k8slite.scheduler.pod_info import PodInfo
    from k8slite.scheduler.snapshot import NodeInfo

__all__ = ["Counters", "PodCount"]

COUNTS_MAX = 128
OWNERS_MAX = 1024
"""Choices, and controllers, whose pods are counted; the one not asked about for longest goes."""


@define(eq=False)
class PodCount:
    """Pods that one choice finds: by value of one label of the nodes, and by node.

    `places` has every value that a node has, also with no pod.
    """

    topology_key: str
    choice: Choice
    places: dict[str, int] = field(factory=dict)
    nodes: dict[str, int] = field(factory=dict)
    total: int = 0

    def add(self, node: NodeInfo, number: int) -> None:
        place = node.labels.get(self.topology_key)
        if place is not None:
            self.places[place] += number
            self.nodes[node.name] = self.nodes.get(node.name, 0) + number
            self.total += number


class Counters:
    """What is counted; whoever asks gives the nodes there are, for when it must be counted anew."""

    def __init__(self) -> None:
        self.images: dict[str, int] = {}
        """On how many nodes each image is."""
        self.soft_tainted = 0
        """Nodes with a taint that makes them less liked."""
        self.spaces: dict[str, dict[str, str]] = {}
        self.services: dict[str, dict[str, LabelSelector]] = {}
        """What the services of each namespace select."""
        self.claims: dict[str, int] = {}
        """By how many pods each PersistentVolumeClaim is used."""
        self._counts: dict[tuple[str, Choice], PodCount] = {}
        self._owned: dict[str, dict[tuple[str, Choice], PodCount]] = {}
        """Those of one controller's pods, by its uid."""
        self._holders: dict[Term, dict[str, int]] | None = None
        self._labelled: dict[tuple[str, ...], bool] = {}

    def clear(self) -> None:
        """Nodes or namespaces are others than before."""
        self._counts.clear()
        self._owned.clear()
        self._holders = None
        self._labelled.clear()

    def count_images(self, images: Iterable[str], number: int) -> None:
        """A node got (1) or lost (-1) these images."""
        for image in images:
            self.images[image] = self.images.get(image, 0) + number
            if not self.images[image]:
                del self.images[image]

    def count_claims(self, claims: Iterable[str], number: int) -> None:
        """A pod that uses these came to (1) or went from (-1) a node."""
        for claim in claims:
            self.claims[claim] = self.claims.get(claim, 0) + number
            if not self.claims[claim]:
                del self.claims[claim]

    def set_space(self, name: str, labels: dict[str, str] | None) -> None:
        """A namespace's labels (None: it is gone)."""
        if self.spaces.get(name) == labels:
            return
        if labels is None:
            self.spaces.pop(name, None)
        else:
            self.spaces[name] = labels
        self.clear()

    def set_service(self, namespace: str, name: str, selector: dict[str, str] | None) -> None:
        """What a service selects (None or nothing: no pods)."""
        here = self.services.setdefault(namespace, {})
        here.pop(name, None)
        if selector:
            here[name] = from_map(selector)

    def changed(self, node: NodeInfo, pod: PodInfo, number: int) -> None:
        """A pod came to (1) or went from (-1) a node that exists."""
        for count in self._counts.values():
            if count.choice.matches(pod, self.spaces):
                count.add(node, number)
        for count in self._owned.get(pod.owner, {}).values():
            if count.choice.matches(pod, self.spaces):
                count.add(node, number)
        if pod.terms and self._holders is not None:
            self._hold(self._holders, node, pod, number)

    def count(self, topology_key: str, choice: Choice, nodes: Iterable[NodeInfo]) -> PodCount:
        """Not to be changed, and right until a pod moves."""
        key = (topology_key, choice)
        if choice.owner:
            counts = self._owned.pop(choice.owner, {})
            found = counts.get(key)
            if found is None:
                found = counts[key] = self._count(topology_key, choice, nodes)
            if len(self._owned) >= OWNERS_MAX:
                del self._owned[next(iter(self._owned))]
            self._owned[choice.owner] = counts
            return found
        found = self._counts.pop(key, None)
        if found is None:
            found = self._count(topology_key, choice, nodes)
            if len(self._counts) >= COUNTS_MAX:
                del self._counts[next(iter(self._counts))]
        self._counts[key] = found
        return found

    def all_labelled(self, keys: tuple[str, ...], nodes: Iterable[NodeInfo]) -> bool:
        """Does every node that has the label `keys[0]` have all the others, and the reverse?"""
        found = self._labelled.get(keys)
        if found is None:
            found = all(len({key in n.labels for key in keys}) == 1 for n in nodes)
            self._labelled[keys] = found
        return found

    def _count(self, topology_key: str, choice: Choice, nodes: Iterable[NodeInfo]) -> PodCount:
        found = PodCount(topology_key, choice)
        for node in nodes:
            place = node.labels.get(topology_key)
            if place is None:
                continue
            found.places.setdefault(place, 0)
            here = sum(choice.matches(pod, self.spaces) for pod in node.pods.values())
            if here:
                found.add(node, here)
        return found

    def holders(self, nodes: Iterable[NodeInfo]) -> dict[Term, dict[str, int]]:
        """The terms of the pods on these nodes, and how many state them in which place."""
        if self._holders is None:
            self._holders = {}
            for node in nodes:
                for pod in node.pods.values():
                    if pod.terms:
                        self._hold(self._holders, node, pod, 1)
        return self._holders

    def _hold(
        self, holders: dict[Term, dict[str, int]], node: NodeInfo, pod: PodInfo, number: int
    ) -> None:
        for term in pod.terms:
            place = node.labels.get(term.topology_key)
            if place is None:
                continue
            places = holders.setdefault(term, {})
            places[place] = places.get(place, 0) + number
            if not places[place]:
                del places[place]
                if not places:
                    del holders[term]

    def matches(self, choice: Choice, pod: PodInfo) -> bool:
        spaces: Spaces = self.spaces
        return choice.matches(pod, spaces)
