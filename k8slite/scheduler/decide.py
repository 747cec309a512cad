"""Where one pod goes (pure): filter the nodes, score those that pass, pick the best.

In a large cluster not all nodes are looked at: enough that pass are enough, and the next pod
starts looking where this one stopped.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attrs import define, field

from k8slite.scheduler.framework import SKIP, Only, Rejection
from k8slite.scheduler.memo import Verdict
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.profile import FilterEntry, Profile, ScoreEntry
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = [
    "NODES_MIN", "Decision", "Feasible", "choose", "decide", "find_feasible", "fit_message",
    "nodes_to_find", "passes",
]  # fmt: skip

NODES_MIN = 100
"""In a cluster of fewer nodes all are looked at."""
PERCENT_MIN = 5
NO_NODES = "no nodes available to schedule pods"


class Decision(NamedTuple):
    """`node` is "" when no node passes; then `message` says why, `plugins` names the filters that
    rejected some node, and `resolvable` the nodes where deleting pods could help. `looked_at` is
    how many nodes were filtered, `feasible` how many of them passed."""

    node: str
    message: str = ""
    plugins: tuple[str, ...] = ()
    looked_at: int = 0
    resolvable: tuple[str, ...] = ()
    feasible: int = 0


@define
class Feasible:
    """What filtering found. `totals`: of each passing node, the sum of its absolute scores.
    `refused` is set if no node at all will do."""

    nodes: list[NodeInfo] = field(factory=list)
    totals: list[int] = field(factory=list)
    rejected: dict[str, tuple[Rejection, str]] = field(factory=dict)
    """By node: why not, and which plugin says so."""
    looked_at: int = 0
    refused: Decision | None = None

    def failure(self, total: int) -> Decision:
        """The decision that there is no node, out of `total`."""
        if self.refused is not None:
            return self.refused
        plugins = tuple(dict.fromkeys(plugin for _, plugin in self.rejected.values()))
        resolvable = tuple(name for name, (r, _) in self.rejected.items() if r.resolvable)
        message = fit_message([r for r, _ in self.rejected.values()], total)
        return Decision("", message, plugins, self.looked_at, resolvable)


def nodes_to_find(nodes: int, percentage: int = 0) -> int:
    """How many passing nodes are enough (0: kube-scheduler's adaptive percentage)."""
    if nodes < NODES_MIN or percentage >= 100:
        return nodes
    percent = percentage or max(PERCENT_MIN, 50 - nodes // 125)
    return max(NODES_MIN, nodes * percent // 100)


def decide(
    pod: PodInfo, snapshot: Snapshot, start: int, rng: random.Random, profile: Profile
) -> Decision:
    """Decide for one pod; `start` is the index of the node to look at first."""
    feasible = find_feasible(pod, snapshot, start, profile)
    if not feasible.nodes:
        return feasible.failure(len(snapshot.nodes))
    return choose(pod, snapshot, feasible, rng, profile)


def find_feasible(pod: PodInfo, snapshot: Snapshot, start: int, profile: Profile) -> Feasible:
    """The nodes that pass all filters, or enough of them.

    What follows from a pod's shape and a node alone is remembered, so that equal pods share the
    work, and only nodes that have changed are looked at again.
    """
    nodes = snapshot.nodes
    if not nodes:
        return Feasible(refused=Decision("", NO_NODES))
    active, named, refusal = _prepared(pod, snapshot, profile.filters)
    if refusal is not None:
        rejection, plugin = refusal
        message = f"0/{len(nodes)} nodes are available: {', '.join(rejection.reasons)}."
        resolvable = tuple(node.name for node in nodes) if rejection.resolvable else ()
        return Feasible(refused=Decision("", message, (plugin,), 0, resolvable))
    search = _Search(pod, snapshot, profile, active)
    if pod.nominated:  # room was made for it there
        promised = snapshot.node(pod.nominated)
        if promised is not None and (named is None or promised.name in named):
            found = search.look_at((snapshot.index_of(promised),), 1)
            if found.nodes:
                return found
    if named is not None:
        there = [snapshot.index_of(n) for own in named if (n := snapshot.node(own)) is not None]
        return search.look_at(there, len(there))
    start %= len(nodes)
    enough = nodes_to_find(len(nodes), profile.percentage) if profile.scores else 1
    return search.around(start, enough)


Active = list[tuple[FilterEntry, Any]]


class _Search:
    """One pod's way through the nodes."""

    def __init__(self, pod: PodInfo, snapshot: Snapshot, profile: Profile, active: Active) -> None:
        self._pod = pod
        self._snapshot = snapshot
        self._profile = profile
        self._local = [(entry, state) for entry, state in active if entry.local]
        self._others = [(e.plugin.filter, state, e.name) for e, state in active if not e.local]
        self._absolute = [entry for entry in profile.scores if entry.absolute]
        self._memo = snapshot.memo((profile, pod.shape), self._look_at)

    def around(self, start: int, enough: int) -> Feasible:
        """All nodes from the one with this index on, until enough of them pass."""
        nodes, totals = self._memo.nodes, self._memo.totals
        if self._others or self._snapshot.has_promises or self._memo.refusals:
            return self.look_at([*range(start, len(nodes)), *range(start)], enough)
        end = start + enough  # nobody has anything against any node
        wrapped = max(0, end - len(nodes))
        return Feasible(
            [*nodes[start:end], *nodes[:wrapped]],
            [*totals[start:end], *totals[:wrapped]],  # type: ignore[list-item]  # none is None
            looked_at=enough,
        )

    def look_at(self, indexes: Sequence[int], enough: int) -> Feasible:
        """These nodes in this order, until enough of them pass."""
        found = Feasible()
        pod, nodes, others = self._pod, self._memo.nodes, self._others
        totals, promises = self._memo.totals, self._snapshot.has_promises
        refused: list[int] = []
        looked_at = 0
        for i in indexes:
            looked_at += 1
            total = totals[i]
            if total is None:
                refused.append(i)
                continue
            node = nodes[i]
            verdict: Verdict | None = None
            for passes_filter, state, plugin in others:  # inlined: it is the innermost loop
                rejection = passes_filter(state, pod, node)
                if rejection is not None:
                    verdict = rejection, plugin
                    break
            if verdict is None and promises:
                verdict = self._beside_promised(node)
            if verdict is None:
                found.nodes.append(node)
                found.totals.append(total)
                if len(found.nodes) >= enough:
                    break
            else:
                found.rejected[node.name] = verdict
        found.looked_at = looked_at
        if not found.nodes:  # nobody asks otherwise
            found.rejected |= {nodes[i].name: self._memo.refusals[i] for i in refused}
        return found

    def _look_at(self, node: NodeInfo) -> tuple[Verdict | None, int]:
        """What follows from the pod's shape and the node alone."""
        verdict = _first_rejection(self._local, self._pod, node)
        if verdict is not None:
            return verdict, 0
        total = 0
        for entry in self._absolute:
            state = None
            if entry.prepares:
                state = entry.plugin.pre_score(self._pod, self._snapshot, (node,))
            if state is not SKIP:
                total += entry.weight * entry.plugin.score(state, self._pod, node)
        return None, total

    def _beside_promised(self, node: NodeInfo) -> Verdict | None:
        """Would it still fit once those came to whom the node is promised?"""
        ahead = self._snapshot.ahead_of(self._pod, node.name)
        if not ahead:
            return None
        with self._snapshot.with_pods(node, ahead):
            return first_rejection(self._pod, self._snapshot, node, self._profile)


def passes(pod: PodInfo, snapshot: Snapshot, node: NodeInfo, profile: Profile) -> bool:
    """Would the node take the pod as things are, and leave promised room alone?"""
    ahead = snapshot.ahead_of(pod, node.name)
    if ahead:
        with snapshot.with_pods(node, ahead):
            if first_rejection(pod, snapshot, node, profile) is not None:
                return False
    return first_rejection(pod, snapshot, node, profile) is None


def first_rejection(
    pod: PodInfo, snapshot: Snapshot, node: NodeInfo, profile: Profile
) -> Verdict | None:
    """With everything worked out afresh."""
    active, named, refusal = _prepared(pod, snapshot, profile.filters)
    if refusal is not None:
        return refusal
    if named is not None and node.name not in named:
        return Rejection(("node is filtered out by the prefilter result",)), ""
    return _first_rejection(active, pod, node)


def _prepared(
    pod: PodInfo, snapshot: Snapshot, entries: Sequence[FilterEntry]
) -> tuple[Active, Mapping[str, None] | None, Verdict | None]:
    """Filters that have something to say with their states, the only nodes to look at if these are
    named, and who refuses all nodes."""
    active: Active = []
    named: dict[str, None] | None = None
    naming: list[str] = []
    for entry in entries:
        state = entry.plugin.pre_filter(pod, snapshot) if entry.prepares else None
        if state is SKIP:
            continue
        if isinstance(state, Rejection):
            return active, named, (state, entry.name)
        if isinstance(state, Only):
            naming.append(entry.name)
            allowed = dict.fromkeys(state.nodes)
            named = allowed if named is None else {n: None for n in named if n in allowed}
            if not named:
                told = f"node(s) didn't satisfy plugin(s) [{' '.join(naming)}] simultaneously"
                return active, named, (Rejection((told,)), entry.name)
            state = state.state
        if entry.filters:
            active.append((entry, state))
    return active, named, None


def _first_rejection(active: Active, pod: PodInfo, node: NodeInfo) -> Verdict | None:
    for entry, state in active:
        rejection: Rejection | None = entry.plugin.filter(state, pod, node)
        if rejection is not None:
            return rejection, entry.name
    return None


def choose(
    pod: PodInfo,
    snapshot: Snapshot,
    feasible: Feasible,
    rng: random.Random,
    profile: Profile,
    more: Mapping[str, int] | None = None,
) -> Decision:
    """The best of the nodes that passed; `more`: what extenders add to the score of each."""
    nodes = feasible.nodes
    if len(nodes) == 1:
        return Decision(nodes[0].name, looked_at=feasible.looked_at, feasible=1)
    totals = [*feasible.totals]
    for entry in profile.scores:
        if not entry.absolute:
            _add_scores(entry, pod, snapshot, nodes, totals)
    for i, node in enumerate(nodes if more else ()):
        totals[i] += (more or {}).get(node.name, 0)
    best = max(totals)
    winners = [node.name for node, total in zip(nodes, totals, strict=True) if total == best]
    winner = winners[0] if len(winners) == 1 else rng.choice(winners)
    return Decision(winner, looked_at=feasible.looked_at, feasible=len(nodes))


def _add_scores(
    entry: ScoreEntry,
    pod: PodInfo,
    snapshot: Snapshot,
    nodes: Sequence[NodeInfo],
    totals: list[int],
) -> None:
    plugin, weight = entry.plugin, entry.weight
    state = plugin.pre_score(pod, snapshot, nodes) if entry.prepares else None
    if state is SKIP:
        return
    scores = [plugin.score(state, pod, node) for node in nodes]
    if entry.normalizes:
        scores = plugin.normalize(scores)
    for i, score in enumerate(scores):
        totals[i] += weight * score


def fit_message(rejections: Iterable[Rejection], total: int) -> str:
    """As kube-scheduler says it: `0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.`"""
    counts: dict[str, int] = {}
    for rejection in rejections:
        for reason in rejection.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return f"0/{total} nodes are available:{f' {told}.' if told else ''}"
