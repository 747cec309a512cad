"""Updates of a DaemonSet by surge (pure): the new pod comes first, then the old one goes.

On a node that is being updated there are two pods for a while. `maxSurge` bounds on how many nodes
the new one is not available yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k8slite.api.meta import Obj, deleting, labels, name
from k8slite.controllers.workloads.history import HASH_LABEL, revision_hash
from k8slite.controllers.workloads.pods import available_in

__all__ = ["max_surge", "nodes_to_surge", "surplus"]


def max_surge(daemon_set: Obj, desired: int) -> int:
    """0: no surge. A share of the nodes is rounded up."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0
    value = (strategy.get("rollingUpdate") or {}).get("maxSurge") or 0
    if isinstance(value, int):
        return value
    return -(-int(value.removesuffix("%")) * desired // 100)


def split(daemon_set: Obj, living: Sequence[Obj]) -> tuple[list[Obj], list[Obj]]:
    """Pods of the present template and of others, the oldest first."""
    digest = revision_hash(daemon_set)
    ordered = sorted(living, key=lambda p: (p["metadata"].get("creationTimestamp") or "", name(p)))
    new = [pod for pod in ordered if labels(pod).get(HASH_LABEL) == digest]
    return new, [pod for pod in ordered if labels(pod).get(HASH_LABEL) != digest]


def surplus(daemon_set: Obj, living: Sequence[Obj], now: float) -> list[Obj]:
    """Of the pods on one node, those that may go: all but one new and one old, and the old one once
    the new one is available or it is itself of no use."""
    new, old = split(daemon_set, [pod for pod in living if not deleting(pod)])
    gone = [*new[1:], *old[1:]]
    if new and old and (_is_up(daemon_set, new[0], now) or not _is_up(daemon_set, old[0], now)):
        gone.append(old[0])
    return gone


def nodes_to_surge(
    daemon_set: Obj, by_node: Mapping[str, Sequence[Obj]], desired: int, now: float
) -> list[str]:
    """Nodes with an old pod that get a new one beside it now; `by_node` has those that fit."""
    coming = 0
    at_once: list[str] = []
    candidates: list[str] = []
    for node, living in by_node.items():
        new, old = split(daemon_set, [pod for pod in living if not deleting(pod)])
        if not old:
            continue
        if new:
            coming += not _is_up(daemon_set, new[0], now)
        elif _is_up(daemon_set, old[0], now):
            candidates.append(node)
        else:
            at_once.append(node)  # it serves nobody: replacing it costs nothing
    room = max(0, max_surge(daemon_set, desired) - coming)
    return [*at_once, *candidates[:room]]


def _is_up(daemon_set: Obj, pod: Obj, now: float) -> bool:
    return available_in(pod, daemon_set["spec"].get("minReadySeconds", 0), now) <= 0
