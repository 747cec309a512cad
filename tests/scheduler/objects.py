"""Small pods and nodes for tests of the scheduler."""

from __future__ import annotations

from typing import Any

from k8slite.api.meta import Obj


def node(
    name: str,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    *,
    labels: dict[str, str] | None = None,
    taints: list[Obj] | None = None,
    unschedulable: bool = False,
    more: dict[str, str] | None = None,
) -> Obj:
    spec: Obj = {"taints": taints or []}
    if unschedulable:
        spec["unschedulable"] = True
    own = {"kubernetes.io/hostname": name, **(labels or {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": own},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods, **(more or {})}},
    }


def pod(
    name: str,
    cpu: str = "",
    memory: str = "",
    *,
    on: str = "",
    labels: dict[str, str] | None = None,
    owner: str = "",
    requests: dict[str, str] | None = None,
    port: int = 0,
    **spec: Any,
) -> Obj:
    wanted = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v} | (requests or {})
    container: Obj = {"name": "c", "image": "i", "resources": {"requests": wanted}}
    if port:
        container["ports"] = [{"containerPort": port, "hostPort": port}]
    metadata: Obj = {
        "name": name,
        "namespace": "n",
        "uid": f"uid-of-{name}",
        "labels": labels or {},
    }
    if owner:
        metadata["ownerReferences"] = [
            {"kind": "ReplicaSet", "apiVersion": "apps/v1", "name": owner, "uid": owner}
            | {"controller": True}
        ]
    body: Obj = {"containers": [container], "schedulerName": "default-scheduler", **spec}
    if on:
        body["nodeName"] = on
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}
