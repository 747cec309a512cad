"""Small objects for tests of controllers."""

from __future__ import annotations

from typing import Any

from k8slite.api.meta import Obj

TEMPLATE: Obj = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
}


def meta_of(name: str, **more: Any) -> Obj:
    return {
        "name": name,
        "namespace": "n",
        "uid": f"uid-of-{name}",
        "creationTimestamp": "2023-11-14T22:13:20Z",
        **more,
    }


def replica_set(name: str = "rs", replicas: int = 3, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta_of(name, generation=1),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": TEMPLATE,
            **spec,
        },
    }


def deployment(name: str = "web", replicas: int = 3, image: str = "nginx:1", **spec: Any) -> Obj:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta_of(name, generation=1),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def pod(
    name: str,
    *,
    owner: str = "",
    ready: bool = True,
    node: str = "node-1",
    phase: str = "Running",
    ip: str = "",
    terminating: bool = False,
    since: str = "2023-11-14T22:13:20Z",
    **meta: Any,
) -> Obj:
    metadata = meta_of(name, labels={"app": "web"}, **meta)
    if owner:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": owner,
                "uid": f"uid-of-{owner}",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    if terminating:
        metadata["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": since}
    status: Obj = {"phase": phase, "conditions": [condition]}
    if ip:
        status["podIP"] = ip
    spec: Obj = {"containers": [{"name": "c", "image": "nginx:1"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def node(name: str, ready: str = "True", taints: list[Obj] | None = None) -> Obj:
    condition = {
        "type": "Ready",
        "status": ready,
        "reason": "KubeletReady",
        "lastHeartbeatTime": "2023-11-14T22:13:20Z",
        "lastTransitionTime": "2023-11-14T22:13:20Z",
    }
    spec: Obj = {"taints": taints} if taints else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-of-{name}"},
        "spec": spec,
        "status": {"conditions": [condition]},
    }


def namespace_obj(name: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def service(name: str = "web", **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta_of(name, labels={"team": "a"}),
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "10.96.0.9",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }
