"""Nodes that have a pod's images already are better, the more so the larger these are (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.scheduler.framework import SCORE_MAX, SKIP, Handle
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["ImageLocality"]

MEGABYTE = 1024 * 1024
LEAST_BYTES = 23 * MEGABYTE
MOST_BYTES = 1000 * MEGABYTE
"""For each container."""


class ImageLocality:
    name = "ImageLocality"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        spec = pod.pod["spec"]
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        images = [normalized(container.get("image") or "") for container in containers]
        total = len(snapshot.nodes)
        spread = {
            image: snapshot.counters.images[image] / total
            for image in images
            if image in snapshot.counters.images
        }
        return (images, spread) if spread else SKIP

    def score(self, state: tuple[list[str], dict[str, float]], pod: PodInfo, node: NodeInfo) -> int:
        images, spread = state
        here = sum(
            int(node.images[image] * spread.get(image, 0.0))
            for image in images
            if image in node.images
        )
        most = MOST_BYTES * len(images)
        held = min(max(here, LEAST_BYTES), most)
        return SCORE_MAX * (held - LEAST_BYTES) // (most - LEAST_BYTES)


def normalized(image: str) -> str:
    """With the tag that is meant when none is said."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"
