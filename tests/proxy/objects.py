"""Services and EndpointSlices as an apiserver would give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Obj = dict[str, Any]


def service(
    name: str = "web",
    cluster_ip: str = "10.96.0.10",
    ports: Sequence[Obj] = ({"name": "http", "port": 80, "protocol": "TCP"},),
    **spec: Any,
) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [dict(port) for port in ports],
            **spec,
        },
    }


def endpoint(ip: str, node: str = "node-1", **conditions: bool) -> Obj:
    return {"addresses": [ip], "nodeName": node, "conditions": conditions or {"ready": True}}


def endpoint_slice(
    *endpoints: Obj,
    name: str = "web",
    port: int = 8080,
    port_name: str = "http",
    suffix: str = "1",
    protocol: str = "TCP",
) -> Obj:
    return {
        "metadata": {
            "name": f"{name}-{suffix}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": protocol}],
        "endpoints": list(endpoints),
    }
