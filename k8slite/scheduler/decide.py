"""Where one pod goes (pure): filter the nodes, score those that pass, pick the best.

In a large cluster not all nodes are looked at: enough that pass are enough, and the next pod
starts looking where this one stopped.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from k8slite.scheduler.framework import SKIP, Filter, Rejection, Score
from k8slite.scheduler.plugins.table import FILTERS, SCORES
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NODES_MIN", "Decision", "decide", "fit_message", "nodes_to_find"]

NODES_MIN = 100
"""In a cluster of fewer nodes all are looked at."""
PERCENT_MIN = 5
NO_NODES = "no nodes available to schedule pods"


class Decision(NamedTuple):
    """`node` is "" when no node passes; then `message` says why, `plugins` names the filters that
    rejected some node, and `resolvable` the nodes where deleting pods could help. `looked_at` is
    how many nodes were filtered."""

    node: str
    message: str = ""
    plugins: tuple[str, ...] = ()
    looked_at: int = 0
    resolvable: tuple[str, ...] = ()


def nodes_to_find(nodes: int) -> int:
    """How many passing nodes are enough (kube-scheduler's adaptive percentage)."""
    if nodes < NODES_MIN:
        return nodes
    percent = max(PERCENT_MIN, 50 - nodes // 125)
    return max(NODES_MIN, nodes * percent // 100)


def decide(
    pod: PodInfo,
    snapshot: Snapshot,
    start: int,
    rng: random.Random,
    filters: tuple[Filter, ...] = FILTERS,
    scores: tuple[tuple[Score, int], ...] = SCORES,
) -> Decision:
    """Decide for one pod; `start` is the index of the node to look at first.

    What follows from a pod's shape and a node alone is remembered, so that equal pods share the
    work, and only nodes that have changed are looked at again.
    """
    nodes = snapshot.nodes
    if not nodes:
        return Decision("", NO_NODES)
    start %= len(nodes)
    active = _prepared(pod, snapshot, filters)
    for one, state in active:
        if isinstance(state, Rejection):
            told = ", ".join(state.reasons)
            return Decision("", f"0/{len(nodes)} nodes are available: {told}.", (one.name,))
    local = [(one, state) for one, state in active if one.local]
    others = [(one, state) for one, state in active if not one.local]
    absolute = [(one, weight) for one, weight in scores if one.absolute]
    memo = snapshot.memo((pod.shape, filters, scores))
    enough = nodes_to_find(len(nodes))
    passing: list[NodeInfo] = []
    totals: list[int] = []
    rejected: list[tuple[Filter, Rejection, str]] = []
    looked_at = 0
    for node in itertools.chain(nodes[start:], nodes[:start]):
        looked_at += 1
        known = memo.get(node.name)
        if known is None or known[0] != node.generation:
            known = memo[node.name] = _look_at(pod, snapshot, node, local, absolute)
        verdict = known[1]
        if verdict is None and others:
            verdict = _first_rejection(others, pod, node)
        if verdict is None:
            passing.append(node)
            totals.append(known[2])
            if len(passing) >= enough:
                break
        else:
            rejected.append((*verdict, node.name))
    if not passing:
        plugins = tuple(dict.fromkeys(f.name for f, _, _ in rejected))
        resolvable = tuple(name for _, r, name in rejected if r.resolvable)
        message = fit_message([r for _, r, _ in rejected])
        return Decision("", message, plugins, looked_at, resolvable)
    if len(passing) == 1:
        return Decision(passing[0].name, looked_at=looked_at)
    relative = [(one, weight) for one, weight in scores if not one.absolute]
    return Decision(_best(pod, snapshot, passing, totals, rng, relative), looked_at=looked_at)


Known = tuple[int, tuple[Filter, Rejection] | None, int]
"""What is remembered of a node: as of which generation, who refuses, the sum of absolute scores."""


def _look_at(
    pod: PodInfo,
    snapshot: Snapshot,
    node: NodeInfo,
    local: Sequence[tuple[Filter, Any]],
    absolute: Sequence[tuple[Score, int]],
) -> Known:
    verdict = _first_rejection(local, pod, node)
    if verdict is not None:
        return node.generation, verdict, 0
    total = 0
    for one, weight in absolute:
        state = one.prepare(pod, snapshot, (node,))
        if state is not SKIP:
            total += weight * one.score(state, pod, node)
    return node.generation, None, total


def _prepared(
    pod: PodInfo, snapshot: Snapshot, filters: Sequence[Filter]
) -> list[tuple[Filter, Any]]:
    states = [(one, one.prepare(pod, snapshot)) for one in filters]
    return [(one, state) for one, state in states if state is not SKIP]


def _first_rejection(
    active: Sequence[tuple[Filter, Any]], pod: PodInfo, node: NodeInfo
) -> tuple[Filter, Rejection] | None:
    for one, state in active:
        rejection = one.filter(state, pod, node)
        if rejection is not None:
            return one, rejection
    return None


def _best(
    pod: PodInfo,
    snapshot: Snapshot,
    passing: Sequence[NodeInfo],
    totals: list[int],
    rng: random.Random,
    scores: Sequence[tuple[Score, int]],
) -> str:
    """The node with the highest total; `totals` are those of the scores that are not here."""
    for one, weight in scores:
        state = one.prepare(pod, snapshot, passing)
        if state is SKIP:
            continue
        raw = [one.score(state, pod, node) for node in passing]
        for i, score in enumerate(one.normalize(raw)):
            totals[i] += weight * score
    best = max(totals)
    winners = [node.name for node, total in zip(passing, totals, strict=True) if total == best]
    return winners[0] if len(winners) == 1 else rng.choice(winners)


def fit_message(rejections: Sequence[Rejection]) -> str:
    """As kube-scheduler says it: `0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.`"""
    counts: dict[str, int] = {}
    for rejection in rejections:
        for reason in rejection.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    total = len(rejections)
    return f"0/{total} nodes are available: {told}."
