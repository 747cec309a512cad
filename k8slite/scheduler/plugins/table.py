"""The plugins that come with the scheduler, and those that are on by default (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from k8slite.scheduler.framework import Factory
from k8slite.scheduler.plugins.basics import (
    NodeName,
    NodePorts,
    NodeUnschedulable,
    PrioritySort,
    SchedulingGates,
)
from k8slite.scheduler.plugins.binder import DefaultBinder
from k8slite.scheduler.plugins.dynamic_resources import DynamicResources
from k8slite.scheduler.plugins.images import ImageLocality
from k8slite.scheduler.plugins.node_affinity import NodeAffinity
from k8slite.scheduler.plugins.pod_affinity import PodAffinity
from k8slite.scheduler.plugins.preemption import DefaultPreemption
from k8slite.scheduler.plugins.resources import BalancedAllocation, ResourcesFit
from k8slite.scheduler.plugins.spread import TopologySpread
from k8slite.scheduler.plugins.taints import TaintToleration
from k8slite.scheduler.plugins.volume_limits import (
    NodeVolumeLimits,
    VolumeRestrictions,
    VolumeZone,
)
from k8slite.scheduler.plugins.volumes import VolumeBinding

__all__ = ["DEFAULTS", "PLUGINS"]

PLUGINS: Final[Mapping[str, Factory]] = {
    "SchedulingGates": SchedulingGates,
    "PrioritySort": PrioritySort,
    "NodeUnschedulable": NodeUnschedulable,
    "NodeName": NodeName,
    "TaintToleration": TaintToleration,
    "NodeAffinity": NodeAffinity,
    "NodePorts": NodePorts,
    "NodeResourcesFit": ResourcesFit,
    "VolumeRestrictions": VolumeRestrictions,
    "NodeVolumeLimits": NodeVolumeLimits,
    "VolumeBinding": VolumeBinding,
    "VolumeZone": VolumeZone,
    "PodTopologySpread": TopologySpread,
    "InterPodAffinity": PodAffinity,
    "DynamicResources": DynamicResources,
    "DefaultPreemption": DefaultPreemption,
    "NodeResourcesBalancedAllocation": BalancedAllocation,
    "ImageLocality": ImageLocality,
    "DefaultBinder": DefaultBinder,
}
"""By kube-scheduler's names, in the order in which they are asked."""

DEFAULTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(PLUGINS, 0),
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}
"""Enabled at all their extension points, with kube-scheduler's weights (0: it scores nothing)."""
