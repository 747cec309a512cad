"""Terms of affinity between pods, read from a pod once (pure).

A term names pods (by labels and namespaces) and a topology key; two nodes with the same value of
that label are one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from k8slite.api.meta import Obj
from k8slite.api.selectors import LabelSelector, from_map, from_object

if TYPE_CHECKING:
    from k8slite.scheduler.pod_info import PodInfo

__all__ = ["PREFERRED", "REQUIRED", "Choice", "Spaces", "Term", "read_terms", "selector_of"]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
Spaces = Mapping[str, Mapping[str, str]]
"""The labels of each namespace."""


@frozen(cache_hash=True)
class Choice:
    """Pods by label and namespace: those listed, and those whose labels `spaces` selects. `owner`:
    instead, all pods of one controller. `living`: none that are stopping. `also`: only pods that
    these choose too."""

    selector: LabelSelector
    namespaces: tuple[str, ...] = ()
    spaces: LabelSelector | None = None
    owner: str = ""
    living: bool = False
    also: tuple[Choice, ...] = ()

    def matches(self, other: PodInfo, spaces: Spaces) -> bool:
        if self.living and other.stopping:
            return False
        if self.owner:
            return other.owner == self.owner
        if not self._here(other, spaces):
            return False
        return all(each.matches(other, spaces) for each in self.also)

    def _here(self, other: PodInfo, spaces: Spaces) -> bool:
        near = other.namespace in self.namespaces or (
            self.spaces is not None and self.spaces.matches(spaces.get(other.namespace, {}))
        )
        return near and self.selector.matches(other.labels)


@frozen(cache_hash=True)
class Term:
    """One term as the pod that states it means it. `weight` is below 0 for aversion, and 0 for
    what is required."""

    side: str
    topology_key: str
    choice: Choice
    weight: int = 0


def selector_of(term: Obj, labels: Mapping[str, str]) -> LabelSelector:
    """The label selector of a term or constraint, with the values of matchLabelKeys and
    mismatchLabelKeys taken from the pod itself; one without a selector finds nothing."""
    if term.get("labelSelector") is None:
        return from_object(None)
    selector: Obj = dict(term["labelSelector"])
    keys = [k for k in term.get("matchLabelKeys") or () if k in labels]
    if keys:
        own = {k: labels[k] for k in keys}
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **own}
    unlike = [k for k in term.get("mismatchLabelKeys") or () if k in labels]
    if unlike:
        others = [{"key": k, "operator": "NotIn", "values": [labels[k]]} for k in unlike]
        selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *others]
    return from_object(selector)


def read_terms(pod: PodInfo) -> tuple[Term, ...]:
    """All terms of a pod, in the order in which it states them."""
    found: list[Term] = []
    for side, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        rules = pod.affinity.get(side) or {}
        found += [_read(side, term, pod, 0) for term in rules.get(REQUIRED) or ()]
        for weighted in rules.get(PREFERRED) or ():
            found.append(_read(side, weighted["podAffinityTerm"], pod, sign * weighted["weight"]))
    return tuple(found)


def _read(side: str, term: Obj, pod: PodInfo, weight: int) -> Term:
    namespaces = tuple(term.get("namespaces") or ())
    wanted = term.get("namespaceSelector")
    spaces = None
    if wanted is not None:
        spaces = from_object(wanted) if wanted else from_map({})
    elif not namespaces:
        namespaces = (pod.namespace,)
    choice = Choice(selector_of(term, pod.labels), namespaces, spaces)
    return Term(side, term["topologyKey"], choice, weight)
