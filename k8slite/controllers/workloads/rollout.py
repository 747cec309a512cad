"""The arithmetic of rollouts (pure): how many pods of which ReplicaSet, and when.

All sizes are numbers of pods. The formulas are kube-controller-manager's, so that a rollout
looks the same step by step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from k8slite.api.meta import Obj, name
from k8slite.controllers.workloads.revisions import desired_replicas, max_replicas

__all__ = [
    "Sizes",
    "available",
    "by_age",
    "is_scaling",
    "max_surge",
    "max_unavailable",
    "new_size",
    "old_sizes",
    "proportional_sizes",
    "replicas",
]

Sizes = list[tuple[Obj, int]]
"""ReplicaSets and the sizes they are to have."""


def replicas(obj: Obj) -> int:
    """The size asked for, of a Deployment or a ReplicaSet."""
    size: int = obj["spec"].get("replicas", 1)
    return size


def available(replica_set: Obj) -> int:
    count: int = (replica_set.get("status") or {}).get("availableReplicas", 0)
    return count


def total(replica_sets: Iterable[Obj]) -> int:
    return sum(map(replicas, replica_sets))


def by_age(replica_sets: Iterable[Obj]) -> list[Obj]:
    """Oldest first."""
    return sorted(replica_sets, key=lambda o: (o["metadata"].get("creationTimestamp"), name(o)))


def is_rolling(deployment: Obj) -> bool:
    strategy = deployment["spec"].get("strategy") or {}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")


def max_surge(deployment: Obj) -> int:
    """Pods allowed above the size; 0 for Recreate."""
    return _fence_posts(deployment)[0]


def max_unavailable(deployment: Obj) -> int:
    """Pods that may be missing from the size; 0 for Recreate."""
    return _fence_posts(deployment)[1]


def _fence_posts(deployment: Obj) -> tuple[int, int]:
    if not is_rolling(deployment):
        return 0, 0
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    size = replicas(deployment)
    surge = _resolve(rolling.get("maxSurge", "25%"), size, math.ceil)
    unavailable = _resolve(rolling.get("maxUnavailable", "25%"), size, math.floor)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # both rounded to nothing: the rollout must still be able to move
    return surge, min(unavailable, size)


def _resolve(value: int | str, size: int, rounding: type[int] | object) -> int:
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    # Integer arithmetic: 10 % of 30 must be exactly 3 in both directions.
    return -(-percent * size // 100) if rounding is math.ceil else percent * size // 100


def new_size(deployment: Obj, replica_sets: Sequence[Obj], new: Obj) -> int:
    """The size of the newest set in the next step; `replica_sets` are all, the newest included."""
    wanted = replicas(deployment)
    if replicas(new) >= wanted or not is_rolling(deployment):
        return wanted
    room = wanted + max_surge(deployment) - total(replica_sets)
    return replicas(new) + max(0, min(room, wanted - replicas(new)))


def old_sizes(deployment: Obj, old: Sequence[Obj], new: Obj | None) -> Sizes:
    """How the old sets shrink in the next step of a rolling update; only those that change.

    First pods that are not available anyway, then others as far as availability allows.
    """
    if not total(old):
        return []
    least = replicas(deployment) - max_unavailable(deployment)
    everything = [*old, *([new] if new else [])]
    new_unavailable = replicas(new) - available(new) if new else 0
    spare = total(everything) - least - new_unavailable
    if spare <= 0:
        return []
    sizes = {name(o): replicas(o) for o in old}
    cleaned = 0
    for replica_set in by_age(old):
        unhealthy = replicas(replica_set) - available(replica_set)
        if unhealthy > 0 and cleaned < spare:
            step = min(spare - cleaned, unhealthy)
            sizes[name(replica_set)] -= step
            cleaned += step
    shrink = sum(map(available, everything)) - least
    for replica_set in by_age(old):
        if shrink <= 0:
            break
        step = min(sizes[name(replica_set)], shrink)
        sizes[name(replica_set)] -= step
        shrink -= step
    return [(o, sizes[name(o)]) for o in by_age(old) if sizes[name(o)] != replicas(o)]


def is_scaling(deployment: Obj, replica_sets: Iterable[Obj]) -> bool:
    """Whether the Deployment's size changed since its sets were last scaled."""
    return any(
        replicas(o) > 0 and desired_replicas(o) not in (None, replicas(deployment))
        for o in replica_sets
    )


def proportional_sizes(deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> Sizes:
    """The sizes after the Deployment was scaled, also in the middle of a rollout or of a pause.

    One set takes everything; a finished rollout empties the others; else all grow or shrink in
    proportion, and what rounding leaves over goes to the largest.
    """
    wanted = replicas(deployment)
    alone = _active_or_latest(new, old)
    if alone is not None:
        return [(alone, wanted)]
    if new is not None and _saturated(deployment, new):
        return [(o, 0) for o in by_age(old) if replicas(o) > 0]
    if not is_rolling(deployment):
        return []
    sets = [o for o in [*old, *([new] if new else [])] if replicas(o) > 0]
    allowed = wanted + max_surge(deployment) if wanted > 0 else 0
    to_add = allowed - total(sets)
    # Growing prefers the newer of two equal sets, shrinking the older one.
    sets = sorted(by_age(sets), key=replicas)
    sets = sets[::-1] if to_add >= 0 else sorted(by_age(sets), key=lambda o: -replicas(o))
    added = 0
    sizes: Sizes = []
    for replica_set in sets:
        share = _share(deployment, replica_set, to_add, added)
        added += share
        sizes.append((replica_set, replicas(replica_set) + share))
    if to_add and sizes:
        first, size = sizes[0]
        sizes[0] = first, max(0, size + to_add - added)
    return sizes


def _active_or_latest(new: Obj | None, old: Sequence[Obj]) -> Obj | None:
    sets = [*old, *([new] if new else [])]
    active = [o for o in sets if replicas(o) > 0]
    if len(active) > 1:
        return None
    if active:
        return active[0]
    if new is not None:
        return new
    return by_age(old)[-1] if old else None


def _saturated(deployment: Obj, new: Obj) -> bool:
    wanted = replicas(deployment)
    return replicas(new) == wanted == desired_replicas(new) == available(new)


def _share(deployment: Obj, replica_set: Obj, to_add: int, added: int) -> int:
    if replicas(replica_set) == 0 or to_add in (0, added):
        return 0
    fraction = _fraction(deployment, replica_set)
    rest = to_add - added
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)


def _fraction(deployment: Obj, replica_set: Obj) -> int:
    size = replicas(replica_set)
    if replicas(deployment) == 0:
        return -size
    after = replicas(deployment) + max_surge(deployment)
    before = max_replicas(replica_set) or (deployment.get("status") or {}).get("replicas", 0)
    if not before:
        return 0
    return (2 * size * after + before) // (2 * before) - size
