"""Which plugins run, in which order, with which weight (pure)."""

from __future__ import annotations

from k8slite.scheduler.framework import Filter, Score
from k8slite.scheduler.plugins.images import ImageLocality
from k8slite.scheduler.plugins.node_affinity import NodeAffinity
from k8slite.scheduler.plugins.node_basics import NodeName, NodePorts, NodeUnschedulable
from k8slite.scheduler.plugins.pod_affinity import PodAffinity
from k8slite.scheduler.plugins.resources import BalancedAllocation, ResourcesFit
from k8slite.scheduler.plugins.spread import OwnerSpread, TopologySpread
from k8slite.scheduler.plugins.taints import TaintToleration
from k8slite.scheduler.plugins.volumes import VolumeBinding

__all__ = ["FILTERS", "SCORES"]

FILTERS: tuple[Filter, ...] = (
    NodeUnschedulable(),
    NodeName(),
    TaintToleration(),
    NodeAffinity(),
    NodePorts(),
    ResourcesFit(),
    TopologySpread(),
    PodAffinity(),
    VolumeBinding(),
)
SCORES: tuple[tuple[Score, int], ...] = (
    (TaintToleration(), 3),
    (NodeAffinity(), 2),
    (TopologySpread(), 2),
    (PodAffinity(), 2),
    (OwnerSpread(), 2),
    (ResourcesFit(), 1),
    (BalancedAllocation(), 1),
    (ImageLocality(), 1),
)
"""With kube-scheduler's default weights."""
