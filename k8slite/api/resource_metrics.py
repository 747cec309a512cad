"""The resource metrics API (metrics.k8s.io/v1beta1): what nodes and pods use. Pure.

Its objects are not stored: they are made of the kubelets' summaries (stats/v1alpha1) when somebody
asks. https://github.com/kubernetes/metrics/blob/master/pkg/apis/metrics/v1beta1/types.go
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from k8slite.api.kinds import Column, Kind
from k8slite.api.meta import Obj
from k8slite.api.quantity import add, canonical

__all__ = [
    "NODE_METRICS",
    "POD_METRICS",
    "RESOURCE_METRICS",
    "SCHEMAS",
    "cells",
    "node_metrics",
    "pod_metrics",
]

_GROUP: Final = "metrics.k8s.io"
_COLUMNS: Final = (
    Column("Name", "string", "name", 0),
    Column("CPU", "string", "", 0),
    Column("Memory", "string", "", 0),
    Column("Window", "string", "", 0),
)
NODE_METRICS: Final = Kind(
    _GROUP,
    "v1beta1",
    "NodeMetrics",
    "nodes",
    namespaced=False,
    verbs=("get", "list"),
    columns=_COLUMNS,
)
POD_METRICS: Final = Kind(
    _GROUP, "v1beta1", "PodMetrics", "pods", verbs=("get", "list"), columns=_COLUMNS
)
RESOURCE_METRICS: Final = (NODE_METRICS, POD_METRICS)

_USAGE: Final = {
    "type": "object",
    "additionalProperties": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
}
_COMMON: Final = {
    "timestamp": {"type": "string", "format": "date-time"},
    "window": {"type": "string"},
}
SCHEMAS: Final[dict[str, Obj]] = {
    "NodeMetrics": {"type": "object", "properties": {**_COMMON, "usage": _USAGE}},
    "PodMetrics": {
        "type": "object",
        "properties": {
            **_COMMON,
            "containers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "usage": _USAGE},
                },
            },
        },
    },
}
"""By kind, as openAPIV3Schema."""


def node_metrics(node: Obj, summary: Obj, created: str) -> Obj | None:
    """From the node and its kubelet's summary; None while there is no rate of its processors."""
    measured = summary.get("node") or {}
    usage = _usage(measured)
    if usage is None:
        return None
    return {
        "kind": NODE_METRICS.kind,
        "apiVersion": NODE_METRICS.api_version,
        "metadata": _metadata(node, created),
        **_when(measured),
        "usage": usage,
    }


def pod_metrics(pod: Obj, measured: Obj, created: str) -> Obj | None:
    """From the pod and its part of the summary; None until each container has a rate."""
    containers = []
    for each in measured.get("containers") or ():
        usage = _usage(each)
        if usage is None:
            return None
        containers.append({"name": each["name"], "usage": usage})
    if not containers:
        return None
    return {
        "kind": POD_METRICS.kind,
        "apiVersion": POD_METRICS.api_version,
        "metadata": _metadata(pod, created),
        **_when(measured["containers"][0]),
        "containers": containers,
    }


def _metadata(of: Obj, created: str) -> Obj:
    own = of["metadata"]
    metadata: Obj = {"name": own["name"], "creationTimestamp": created}
    for key in ("namespace", "labels"):
        if own.get(key):
            metadata[key] = own[key]
    return metadata


def _usage(measured: Obj) -> Obj | None:
    cpu, memory = measured.get("cpu") or {}, measured.get("memory") or {}
    cores, working_set = cpu.get("usageNanoCores"), memory.get("workingSetBytes")
    if cores is None or working_set is None:
        return None
    return {"cpu": canonical(f"{cores}n"), "memory": f"{-(-working_set // 1024)}Ki"}


def _when(measured: Obj) -> Obj:
    cpu = measured["cpu"]
    window = cpu.get("windowSeconds")
    return {"timestamp": cpu["time"], "window": "0s" if window is None else f"{window:g}s"}


def cells(o: Obj, now: float) -> list[Any]:
    """One row of a table."""
    usages = [o["usage"]] if "usage" in o else [each["usage"] for each in o["containers"]]
    return [o["metadata"]["name"], *_sums(usages), o["window"]]


def _sums(usages: list[Obj]) -> Iterator[str]:
    for resource in ("cpu", "memory"):
        total = "0"
        for usage in usages:
            total = add(total, usage[resource])
        yield total
