"""What a plugin is (pure).

A filter says why a pod cannot run on a node; a score says how well it would. Both first `prepare`
once per pod, and return SKIP there when they have nothing to say about it, so that an ordinary
pod costs only what it uses. Plugins have no state of their own: they are constants in tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["SCORE_MAX", "SKIP", "ClusterEvent", "Filter", "Rejection", "Score", "scale_to_max"]

SCORE_MAX = 100


class Skip(Enum):
    SKIP = "nothing to say about this pod"


SKIP: Final = Skip.SKIP


class ClusterEvent(Enum):
    """Changes that may make room for a pod that had none."""

    NODE_ADDED = "a node came"
    NODE_CHANGED = "a node's labels, taints or resources changed"
    POD_GONE = "a pod on a node went"
    POD_PLACED = "a pod got a place, or one with a place changed its labels"
    STORAGE_CHANGED = "a claim, a volume or a storage class came, changed or went"


class Rejection(NamedTuple):
    """Why not here. `resolvable`: it could change if other pods went away."""

    reasons: tuple[str, ...]
    resolvable: bool = False


class Filter(Protocol):
    """`events` are those that may change the filter's mind. `local`: what it says follows from the
    pod's shape and the node alone, so that it can be remembered until the node changes."""

    @property
    def name(self) -> str: ...

    @property
    def local(self) -> bool: ...

    @property
    def events(self) -> tuple[ClusterEvent, ...]: ...

    def prepare(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        """What `filter` needs of the pod, or SKIP; a Rejection if no node at all will do."""
        ...

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None: ...


class Score(Protocol):
    """Raw scores are any numbers; `normalize` maps those of all nodes to 0..SCORE_MAX."""

    @property
    def name(self) -> str: ...

    @property
    def absolute(self) -> bool:
        """Scores are within 0..SCORE_MAX as they are, and follow from the pod's shape and the node
        alone."""
        ...

    def prepare(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any: ...

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int: ...

    def normalize(self, scores: list[int]) -> list[int]: ...


def scale_to_max(scores: list[int], *, reverse: bool = False) -> list[int]:
    """Scale to 0..SCORE_MAX by the largest; `reverse`: the largest raw score becomes the worst."""
    largest = max(scores, default=0)
    if largest <= 0:
        return [SCORE_MAX if reverse else 0] * len(scores)
    scaled = [score * SCORE_MAX // largest for score in scores]
    return [SCORE_MAX - score for score in scaled] if reverse else scaled
